"""The end of a run: how good the model is, on many, medium and few images, and how far the numbers can be trusted.

`report.json` is the result, `per_class.csv` and `confusion.csv` are its details, and the table on the screen is printed
from `report.json` alone: `timm-smalldata report RUN_FOLDER` prints it again.
"""
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from ..evaluation.calibration import CONFIDENCE_SCALE
from ..evaluation.evaluator import LongTailEvaluator, class_recall, finite, long_tail_metrics
from ..evaluation.intervals import balanced_accuracy_interval, group_interval, wilson_interval
from ..evaluation.predicted_distribution import predicted_distribution
from ..evaluation.shot_groups import GROUPS, shot_groups
from ..utils.files import PathLike, write_csv_atomic, write_json_atomic

if TYPE_CHECKING:
    from ..data.classes import ClassInfo

FEW_IMAGES = 30  # below this a recall is uncertain by up to 17 points either way
NOTE = 'one run: without the spread of seeds and splits'
HEADLINES = ('top1', 'top5', 'balanced_top1', *GROUPS)


def build_report(
        evaluator: LongTailEvaluator,
        classes: 'ClassInfo',
        groups: Optional[Mapping[str, Sequence[int]]] = None,
        *,
        split: str,
        selected_on: Optional[str],
        epoch: Optional[int],
        shot_split: Optional[str] = None,
        extra: Optional[Mapping[str, Any]] = None,
) -> Dict[str, Any]:
    """Put the result of an evaluation into one dict that JSON can hold.

    Args:
        evaluator: After `compute`; the totals of that call are reported.
        classes: Names and training counts, in the order of the model's outputs; no counts where they are not known.
        groups: Class indices of `many`, `medium`, `few`; by default the evaluator's.
        split: What was evaluated: `test` or `val`.
        selected_on: Which split chose the weights: `val`, `test`, or `none` for the last epoch;
            None if that is not known.
        epoch: Epoch of the weights, if it is known.
        shot_split: Value of `--shot-split` behind `groups`, to be kept with the numbers.
        extra: Further entries; they cannot replace one of the report's own.

    Returns:
        The report. Metrics and intervals (95 %) are in percent, None where they are not defined. That of
        `balanced_top1` is a stratified bootstrap interval, the others are Wilson's. `pdc` is plain (see
        `predicted_distribution`). It holds no times.

    Raises:
        ValueError: The classes are not the evaluator's, or `extra` holds one of the report's entries.
    """
    if len(classes) != evaluator.num_classes:
        raise ValueError(f'The report has {len(classes)} classes, the evaluator {evaluator.num_classes}.')
    groups = evaluator.groups if groups is None else groups
    if shot_split is None:
        shot_split = 'counts:100,20' if dict(groups) == shot_groups(classes.counts) else 'custom'
    state = evaluator.state()
    hits, seen = state['hits'].numpy(), state['seen'].numpy()
    images, top1, top5 = state['counts'].tolist()
    metrics = {
        name: finite(value) if images else None for name, value in long_tail_metrics(state, groups).items()}
    rows = _class_rows(state, classes, groups)
    weakest = sorted((row for row in rows if row['recall'] is not None), key=lambda row: row['recall'])[:5]
    report = {
        'split': split,
        'selected_on': selected_on,
        'split_note': _split_note(split, selected_on),
        'epoch': epoch,
        **{name: metrics[name] for name in ('top1', 'top5', 'balanced_top1', *GROUPS)},
        'worst': {'class': weakest[0]['class'], 'recall': weakest[0]['recall']} if weakest else None,
        **{name: metrics[name] for name in ('ece', 'mce', 'loss')},
        'pdc': predicted_distribution(state['predicted'], seen, classes.counts) if classes.counts else None,
        'intervals': {
            'top1': _percent(wilson_interval(top1, images)) if images else None,
            'top5': _percent(wilson_interval(top5, images)) if images else None,
            'balanced_top1': _percent(balanced_accuracy_interval(hits, seen)),
            **{name: _percent(group_interval(hits, seen, groups.get(name, ()))) for name in GROUPS},
        },
        'groups': {name: _group(groups.get(name, ()), classes, seen) for name in GROUPS},
        'shot_groups': shot_split,
        'weakest': weakest,
        'num_images': images,
        'classes': len(classes),
        'classes_without_images': int((seen == 0).sum()),
        'reliability': _reliability(state['bins'].tolist()),
        'confusion': 'confusion' in state,
        'data_hash': classes.data_hash,
        'note': NOTE,
    }
    taken = sorted(set(report) & set(extra or {}))
    if taken:
        raise ValueError(f'extra would replace entries of the report: {", ".join(taken)}.')
    return {**report, **(extra or {})}


def write_report(
        folder: PathLike,
        report: Mapping[str, Any],
        evaluator: LongTailEvaluator,
        classes: 'ClassInfo',
        groups: Optional[Mapping[str, Sequence[int]]] = None,
) -> None:
    """Write `per_class.csv`, `confusion.csv` (up to 2000 classes) and, last, `report.json` into a folder.

    Recall and the ends of its interval are percentages and blank for a class without images. In `confusion.csv` a row
    is a true class and a column a predicted one.
    """
    folder, state = Path(folder), evaluator.state()
    rows = _class_rows(state, classes, evaluator.groups if groups is None else groups)
    write_csv_atomic(
        folder / 'per_class.csv',
        ['class', 'train_images', 'images', 'hits', 'recall', 'lo', 'hi', 'group', 'mark'],
        ([r['class'], r['train_images'], r['images'], r['hits'],
          *(None if x is None else f'{x:.4f}' for x in (r['recall'], *(r['interval'] or (None, None)))),
          r['group'], 'few images' if r['few_images'] else None] for r in rows))
    if 'confusion' in state:
        write_csv_atomic(
            folder / 'confusion.csv',
            ['class', *classes.names],
            ([name, *row] for name, row in zip(classes.names, state['confusion'].tolist())))
    write_json_atomic(folder / 'report.json', report)


def headlines(evaluators: Mapping[str, LongTailEvaluator]) -> Dict[str, Dict[str, Optional[float]]]:
    """Return the chief metrics, in percent, of each prediction of a task that makes several (as two heads do)."""
    values = {name: long_tail_metrics(e.state(), e.groups) for name, e in evaluators.items()}
    return {name: {metric: finite(row[metric]) for metric in (*HEADLINES, 'ece')} for name, row in values.items()}


def _class_rows(
        state: Mapping[str, Any],
        classes: 'ClassInfo',
        groups: Mapping[str, Sequence[int]],
) -> List[Dict[str, Any]]:
    """Return one dict per class, in class order."""
    group_of = {index: name for name, members in groups.items() for index in members}
    recall = 100 * class_recall(state['hits'], state['seen'])
    hits, seen = state['hits'].tolist(), state['seen'].tolist()
    lo, hi = wilson_interval(hits, seen)
    return [
        {
            'class': name,
            'train_images': int(classes.counts[i]) if classes.counts else None,
            'images': seen[i],
            'hits': hits[i],
            'recall': finite(recall[i]),
            'interval': _percent((lo[i], hi[i])) if seen[i] else None,
            'group': group_of.get(i, ''),
            'few_images': seen[i] < FEW_IMAGES,
        }
        for i, name in enumerate(classes.names)
    ]


def _group(members: Sequence[int], classes: 'ClassInfo', seen: np.ndarray) -> Dict[str, Any]:
    images = sum(int(seen[i]) for i in members)
    return {
        'classes': len(members),
        'train_images': sum(int(classes.counts[i]) for i in members),
        'images': images,
        'few_images': bool(members) and images < FEW_IMAGES,
    }


def _reliability(bins: Sequence[Sequence[int]]) -> List[Dict[str, float]]:
    """Return the calibration bins that hold images: their ends and means in percent."""
    images, hits, confidence = bins
    width = 100 / (len(images) - 1)
    return [{'lo': (b - 1) * width, 'hi': b * width, 'images': images[b], 'accuracy': 100 * hits[b] / images[b],
             'confidence': round(100 * confidence[b] / (images[b] * CONFIDENCE_SCALE), 2)}
            for b in range(1, len(images)) if images[b]]


def _split_note(split: str, selected_on: Optional[str]) -> str:
    name = {'val': 'validation'}.get(split, split)
    return f'{name}, used for selection' if split == selected_on else name


def _percent(ends: Tuple[float, float]) -> Optional[List[float]]:
    return None if any(math.isnan(end) for end in ends) else [100 * float(end) for end in ends]
