"""A report as plain text, printed from `report.json` alone."""
import textwrap
import unicodedata
from typing import Any, List, Mapping, Optional, Sequence, Tuple

from ..evaluation.evaluator import MAX_CONFUSION_CLASSES
from ..evaluation.shot_groups import GROUPS
from .assemble import FEW_IMAGES, HEADLINES, NOTE

_POSTHOC = ('top1', 'balanced_top1', 'many', 'medium', 'few', 'ece', 'mce')


def format_report(report: Mapping[str, Any]) -> str:
    """Return the report as plain text of at most 100 columns."""
    intervals, groups = report.get('intervals') or {}, report.get('groups') or {}
    selected = report.get('selected_on')
    chosen = {'none': '(not selected)', None: ''}.get(selected, f'chosen on {selected}')
    lines = [
        f'{report.get("split_note") or report.get("split")}: {report.get("num_images")} images, '
        f'{report.get("classes")} classes'
        + ('' if report.get('epoch') is None else f', weights of epoch {report["epoch"] + 1} {chosen}'),
        *(textwrap.wrap(f'features, judged by {probe_words(report["probe"])} among the training images', 100)
          if report.get('probe') else []),
        '',
        _line('percent', '', '', '', 'value', '95% interval'),
    ]
    lines += [_line(name, '', '', '', _number(report.get(name)), _ends(intervals.get(name)))
              for name in ('top1', 'top5', 'balanced_top1')]
    lines += [_line(name, '', '', '', _number(report.get(name)), '') for name in ('macro_f1', 'auroc', 'ece', 'mce')
              if name in report]
    lines += ['', _line(f'groups ({report.get("shot_groups")})', 'classes', 'trained on', 'images', 'recall',
                        '95% interval')]
    for name in GROUPS:
        group = groups.get(name) or {}
        lines.append(_line(
            name, group.get('classes', '-'), group.get('train_images', '-'), group.get('images', '-'),
            _number(report.get(name)), _ends(intervals.get(name)), group.get('few_images')))
    lines += ['', _line('weakest classes', '', 'trained on', 'images', 'recall', '95% interval')]
    for row in report.get('weakest') or []:
        lines.append(_line(
            row['class'], '', '-' if row['train_images'] is None else row['train_images'], row['images'],
            _number(row['recall']), _ends(row['interval']), row['few_images']))
    lines += [*_format_predictions(report), *format_posthoc(report), '']
    if any(row.get('few_images') for row in [*groups.values(), *(report.get('weakest') or [])]):
        lines.append(f'* under {FEW_IMAGES} images')
    if report.get('pdc') is not None:
        lines.append(
            f'pdc {report["pdc"]:.2f} (0: classes are predicted as often as they occur, 1: as often as trained on)')
    if report.get('classes_without_images'):
        lines.append(f'{report["classes_without_images"]} classes have no image here and count nowhere above')
    if report.get('confusion') is False:
        lines.append(f'no confusion.csv: it is written for up to {MAX_CONFUSION_CLASSES} classes')
    lines.append(str(report.get('note', NOTE)))
    return '\n'.join(line.rstrip() for line in lines)


def probe_words(probe: Mapping[str, Any]) -> str:
    """Return in words what judged features.

    >>> probe_words(dict(kind='knn', k=20, temperature=0.07))
    'k-NN (k 20, temperature 0.07)'
    """
    if probe['kind'] == 'linear':
        return f'logistic regression (C {probe["C"]:g})'
    if probe['kind'].startswith('linear-'):
        return (f'a linear layer as published ({probe["kind"]}: {probe["epochs"]} epochs, {probe["batch_size"]} images '
                f'an update, rate {probe["rate"]:g} for 256; {probe["features"]})')
    return f'k-NN (k {probe["k"]}, temperature {probe["temperature"]:g})'


def _format_predictions(report: Mapping[str, Any]) -> List[str]:
    rows = report.get('predictions') or {}
    names = [name for name in HEADLINES if name != 'top5']
    table = [('predictions', names)] + [(name, [_number(row.get(n)) for n in names]) for name, row in rows.items()]
    return ['', *(fit(name, 30) + ''.join(f'{cell:>14}' for cell in cells) for name, cells in table)] if rows else []


def _number(value: Optional[float]) -> str:
    return '-' if value is None else f'{value:.2f}'


def _ends(interval: Optional[Sequence[float]]) -> str:
    return '' if interval is None else f'{interval[0]:.2f} - {interval[1]:.2f}'


def _line(name: Any, *columns: Any) -> str:
    """One row of the tables: a name, three counts, a value and its interval; marked where the images are few."""
    count, trained, images, value, interval, *mark = columns
    return (f'{fit(str(name))}{count:>9}{trained:>12}{images:>9}{value:>9}{interval:>18}'
            f'{" *" if mark and mark[0] else ""}')


def fit(name: str, width: int = 36) -> str:
    """Escape what would break a terminal, then shorten or fill a name to a number of columns.

    >>> fit('two' + chr(10) + 'lines', 12), fit('a very long name', 12)
    ('two\\\\nlines  ', 'a very lo...')
    """
    name = printable(name)
    if columns_of(name) > width:
        while columns_of(name) > width - 3:
            name = name[:-1]
        name += '...'
    return name + ' ' * (width - columns_of(name))


def printable(name: str) -> str:
    """Escape what would break a terminal."""
    return ''.join(c if c.isprintable() else repr(c)[1:-1] for c in name)


def columns_of(text: str) -> int:
    """Columns of a terminal: two for wide letters, none for combining marks."""
    return sum(0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in 'WF') for c in text)


def format_posthoc(report: Mapping[str, Any]) -> List[str]:
    """Return the lines of the tools, beside the raw numbers that they start from."""
    results = report.get('posthoc') or {}
    if not results:
        return []
    names = dict(logit_adjustment='logits - tau log prior', tau_norm='tau-normalised head', temperature='temperature')
    rows: List[Tuple[str, Mapping[str, Any]]] = [('raw', report)]
    for tool, values in results.items():
        setting = values.get('tau', values.get('temperature'))
        rows.append((f'{names.get(tool, tool)} {setting:.4g}', values))
    table = [('beside the raw numbers', list(_POSTHOC))]
    table += [(label, ['-' if row.get(m) is None else f'{row[m]:.2f}' for m in _POSTHOC]) for label, row in rows]
    return ['', *(f'{label:<36}' + ''.join(
        f'{cell:>{max(len(metric) + 2, 8)}}' for metric, cell in zip(_POSTHOC, cells)) for label, cells in table)]
