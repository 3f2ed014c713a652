"""Finished runs side by side: what differs between them, means over seeds, paired differences to the first."""
import statistics
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

from ..config.flags import BY_DEST, shown
from ..config.yaml_file import load_config
from ..errors import UserError
from ..evaluation.intervals import paired_interval
from ..utils.command import as_typed
from .comparison import METRICS, Run

SEEDS = ('seed', 'imbalance_seed', 'split_seed')


def compare_runs(folders: Sequence[Path]) -> Dict[str, Any]:
    """Compare finished runs, each with its `report.json` and `args.yaml`.

    Runs whose settings differ in the seed alone are one row. Rows are compared with that of the first run, pair by pair
    where both have a run of the same seed.

    Raises:
        UserError: Nothing was measured in a run, or it is no run.

    Returns:
        `rows`, and `notes`: what a reader should know before believing a difference.
    """
    settings, runs = [], []
    for folder in folders:
        if not (folder / 'args.yaml').is_file():
            raise UserError(f'{folder} has no args.yaml: only runs of the train command can be compared.')
        values = load_config(str(folder / 'args.yaml'))
        run = Run('', int(values.get('seed') or 0), folder, folder)
        if not run.read():
            raise UserError(f'{folder}: {run.failure or "no report"}.')
        settings.append(values)
        runs.append(run)
    moving = [dest for dest, flag in BY_DEST.items() if not flag.may_change and dest not in SEEDS
              and len({shown(values.get(dest)) for values in settings}) > 1]
    for run, values in zip(runs, settings):
        run.value = ' '.join(f'{BY_DEST[dest].name}={shown(values.get(dest))}' for dest in moving) or 'same settings'
    names = list(dict.fromkeys(run.value for run in runs))
    return dict(rows=[_row(runs, name, names[0]) for name in names], notes=_notes(runs))


def _row(runs: Sequence[Run], name: str, baseline: str) -> Dict[str, Any]:
    mine = [run for run in runs if run.value == name]
    row: Dict[str, Any] = dict(settings=name, runs=[str(run.folder) for run in mine], seeds=[run.seed for run in mine])
    for metric in METRICS:
        values = [run.report[metric] for run in mine if run.report and run.report.get(metric) is not None]
        row[metric] = statistics.mean(values) if values else None
        row[f'{metric}_sd'] = statistics.stdev(values) if len(values) > 1 else None
    if name != baseline:
        row['difference'] = _difference(mine, [run for run in runs if run.value == baseline])
    return row


def _difference(mine: Sequence[Run], theirs: Sequence[Run]) -> Optional[Dict[str, Any]]:
    """Return the mean of the differences in balanced accuracy over seeds that both have, with its interval."""
    scores = [{run.seed: run.report['balanced_top1'] for run in runs if run.report} for runs in (mine, theirs)]
    pairs = [scores[0][seed] - scores[1][seed] for seed in scores[0] if seed in scores[1]]
    if not pairs:
        return None
    found = paired_interval(pairs)
    ends = None if found.lo != found.lo else [found.lo, found.hi]
    return dict(mean=found.mean, interval=ends, pairs=len(pairs))


def _notes(runs: Sequence[Run]) -> List[str]:
    reports = [run.report or {} for run in runs]
    notes = []
    if len({report.get('data_hash') for report in reports}) > 1:
        notes.append('not all were trained on the same images: a difference is also one of the images')
    if len({(report.get('split'), report.get('num_images')) for report in reports}) > 1:
        notes.append('not all were judged on the same images: the numbers cannot be compared')
    if any(report.get('split') == 'val' for report in reports):
        notes.append('the split val also chose the weights: its numbers are too high')
    if len({run.seed for run in runs}) == 1:
        notes.append('one seed: nothing tells how much of a difference is chance; '
                     + as_typed('timm-smalldata experiment runs several'))
    return notes


def format_comparison(found: Dict[str, Any]) -> str:
    """Return the comparison as text."""
    lines = []
    for number, row in enumerate(found['rows']):
        cells = ', '.join(f'{metric} {_mean_sd(row[metric], row[metric + "_sd"])}' for metric in METRICS
                          if row[metric] is not None)
        count = len(row['runs'])
        lines += [f'{row["settings"]}', f'  {count} run{"s" * (count > 1)} (seed {", ".join(map(str, row["seeds"]))}): '
                  f'{", ".join(row["runs"])}', f'  {cells}']
        difference = row.get('difference')
        if difference is not None:
            ends = difference['interval']
            pairs = difference['pairs']
            lines.append(f'  balanced_top1 minus the first: {difference["mean"]:+.1f}' + (
                f' (95 % interval {ends[0]:+.1f} to {ends[1]:+.1f}, {pairs} pairs)' if ends else ' (one pair)'))
        elif number:
            lines.append('  no run of this row has the seed of one of the first: no paired difference')
        lines.append('')
    lines += [f'note: {note}' for note in found['notes']]
    lines.append('percent, mean ± standard deviation over runs; of ece less is better')
    return '\n'.join(lines)


def _mean_sd(mean: float, sd: Optional[float]) -> str:
    return f'{mean:.1f}' if sd is None else f'{mean:.1f} ± {sd:.1f}'
