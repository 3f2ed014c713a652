"""`report.html`: what a run was and what it reached, on one page that needs no network."""
import csv
import json
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

from markupsafe import Markup

from ..config.flags import BY_DEST, shown
from ..config.yaml_file import load_config
from ..errors import UserError
from ..evaluation.shot_groups import GROUPS
from ..utils.console import duration
from ..utils.files import read_csv, write_text_atomic
from .mistakes import read_mistakes
from .svg import Chart, Scale, heatmap

PAGE = 'report.html'
CELLS = 30  # classes up to which the whole confusion is drawn
GAINS, PAIRS = 10, 12

Row = Dict[str, str]


def write_page(folder: Path) -> Path:
    """Write `report.html` of a finished run from the files in its folder; returns it.

    Raises:
        UserError: The folder holds no report.
    """
    from jinja2 import Environment, FileSystemLoader
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters['number'] = lambda value, digits=1: '–' if value is None else f'{value:.{digits}f}'
    write_text_atomic(folder / PAGE, environment.get_template(PAGE).render(**read_run(folder)))
    return folder / PAGE


def read_run(folder: Path) -> Dict[str, Any]:
    """Return all that the page shows; what an older run lacks is empty."""
    if not (folder / 'report.json').is_file():
        raise UserError(f'{folder} has no report.json: is this the folder of a finished run?')
    report = _json(folder / 'report.json')
    classes = _table(folder / 'per_class.csv')
    history = _table(folder / 'summary.csv')
    settings = load_config(str(folder / 'args.yaml')) if (folder / 'args.yaml').is_file() else {}
    split = _json(folder / 'split.json')
    names = [row['class'] for row in classes]
    cells = _cells(folder / 'confusion.csv') if names else []
    data = settings.get('dataset') or settings.get('data_dir') or 'sample'
    return dict(
        name=folder.resolve().name, report=report, settings=_changed(settings), data=data,
        machine=_json(folder / 'environment.json'),
        split={role: len(images) for role, images in split.get('split', {}).items()},
        trained=sum(int(row['train_images'] or 0) for row in classes),
        split_hash=split.get('sha256', ''), classes=classes, run=settings,
        groups=_groups(report), mistakes=read_mistakes(folder),
        histogram=_histogram(classes), curves=_curves(history, report), recall=_recall(classes),
        reliability=_reliability(report.get('reliability') or []), roc=_roc(report.get('roc') or {}),
        confusion=heatmap(cells, names) if 0 < len(cells) <= CELLS else None, pairs=_pairs(cells, names),
        gains=_gains(classes, cells), seconds=_seconds(report), epochs=len(history))


def _json(path: Path) -> Dict[str, Any]:
    return json.loads(path.read_text(encoding='utf-8')) if path.is_file() else {}


def _table(path: Path) -> List[Row]:
    return read_csv(path) if path.is_file() else []


def _cells(path: Path) -> List[List[int]]:
    if not path.is_file():
        return []
    with open(path, newline='', encoding='utf-8') as stream:
        return [[int(count) for count in row[1:]] for row in list(csv.reader(stream))[1:]]


def _number(text: Optional[str]) -> Optional[float]:
    return float(text) if text else None


def _changed(settings: Dict[str, Any]) -> List[Tuple[str, str]]:
    """Return what is not at its default."""
    return [(BY_DEST[dest].name, shown(value)) for dest, value in settings.items()
            if dest in BY_DEST and value not in (None, BY_DEST[dest].default)]


def _seconds(report: Dict[str, Any]) -> Optional[str]:
    seconds = (report.get('timing') or {}).get('seconds')
    return None if seconds is None else duration(seconds)


def _groups(report: Dict[str, Any]) -> List[Dict[str, Any]]:
    groups, intervals = report.get('groups') or {}, report.get('intervals') or {}
    return [dict(groups[name], name=name, recall=report.get(name), interval=intervals.get(name))
            for name in GROUPS if name in groups]


def _histogram(classes: Sequence[Row]) -> Optional[Markup]:
    counts = sorted(((int(row['train_images'] or 0), row) for row in classes), key=lambda pair: -pair[0])
    if not counts or not counts[0][0]:
        return None
    chart = Chart(Scale(0, len(counts)), Scale(0, counts[0][0]), 'classes, from the largest on', 'training images',
                  'training images of each class')
    for place, (count, row) in enumerate(counts):
        chart.bar(place, place + 1, count, row['group'] or 'plain', f'{row["class"]}: {count}')
    return chart.svg()


LINES = dict(
    train_loss='training', eval_loss='validation', eval_top1='accuracy', eval_balanced_top1='balanced accuracy')


def _curves(history: Sequence[Row], report: Dict[str, Any]) -> List[Tuple[str, Markup, List[str]]]:
    """Return charts over the epochs, which count from 1: losses, and accuracies on the validation images.

    With the title of each, and the names of its lines.
    """
    charts = []
    for title, columns in (('Loss', ('train_loss', 'eval_loss')), ('Validation', ('eval_top1', 'eval_balanced_top1'))):
        lines = {name: [(float(row['epoch']) + 1, value) for row in history
                        if (value := _number(row.get(name))) is not None] for name in columns}
        lines = {name: points for name, points in lines.items() if points}
        values = [value for points in lines.values() for _, value in points]
        if not values:
            continue
        low, high = (0.0, 100.0) if title == 'Validation' else (min(values), max(values))
        chart = Chart(Scale(1, max(len(history), 2), whole=True), Scale(low, high), 'epoch',
                      '%' if title == 'Validation' else '', f'{title} by epoch')
        if report.get('epoch') is not None:
            chart.upright(report['epoch'] + 1, f'epoch {report["epoch"] + 1}: its weights were exported')
        for number, points in enumerate(lines.values()):
            chart.line(points, f'line{number}')
        charts.append((title, chart.svg(), [LINES[name] for name in lines]))
    return charts


def _recall(classes: Sequence[Row]) -> Optional[Markup]:
    """Return recall by class size, with intervals."""
    rows = [row for row in classes if row['recall'] and row['train_images'] and int(row['train_images'])]
    if not rows:
        return None
    sizes = [int(row['train_images']) for row in rows]
    log = max(sizes) > 8 * min(sizes)
    low, high = (0.8 * min(sizes), 1.25 * max(sizes)) if log else (min(sizes) - 1, max(sizes) + 1)
    chart = Chart(Scale(low, high, log), Scale(0, 100), 'training images of the class', 'recall, %',
                  'recall of each class by its training images, with 95 % intervals')
    for row, size in zip(rows, sizes):
        ends = (float(row['lo']), float(row['hi']))
        chart.point(size, float(row['recall']), row['group'] or 'plain', _words(row), ends)
    return chart.svg()


def _words(row: Row) -> str:
    return (f'{row["class"]}: {float(row["recall"]):.1f} % ({float(row["lo"]):.0f} to {float(row["hi"]):.0f}), '
            f'{row["train_images"]} training images')


def _reliability(bins: Sequence[Dict[str, float]]) -> Optional[Markup]:
    if not bins:
        return None
    chart = Chart(Scale(0, 100), Scale(0, 100), 'confidence, %', 'right, %', 'accuracy by confidence')
    for row in bins:
        chart.bar(row['lo'], row['hi'], row['accuracy'], 'plain',
                  f'{row["images"]} images, {row["confidence"]:.0f} % sure, {row["accuracy"]:.0f} % right')
    chart.line([(0, 0), (100, 100)], 'diagonal')
    return chart.svg()


def _roc(curves: Dict[str, List[float]]) -> Optional[Markup]:
    """Return ROC curves: one for each group of classes, or that of all where there are no groups."""
    groups = [name for name in GROUPS if name in curves] or [name for name in curves if name == 'all']
    if not groups:
        return None
    chart = Chart(Scale(0, 100), Scale(0, 100), 'false positives, %', 'true positives, %', 'ROC curves')
    for name in groups:
        chart.line(list(zip(curves['false_positives'], curves[name])), name)
    chart.line([(0, 0), (100, 100)], 'diagonal')
    return chart.svg()


def _pairs(cells: Sequence[Sequence[int]], names: Sequence[str]) -> List[Dict[str, Any]]:
    """Return the classes that are taken for one another most often."""
    found: List[Dict[str, Any]] = [
        dict(true=names[row], said=names[column], count=count, share=100 * count / sum(counts))
        for row, counts in enumerate(cells) for column, count in enumerate(counts) if count and row != column]
    return sorted(found, key=lambda pair: (-pair['count'], -pair['share']))[:PAIRS]


def _gains(classes: Sequence[Row], cells: Sequence[Sequence[int]]) -> List[Dict[str, Any]]:
    """Return the classes that balanced accuracy could gain most by, and what each is taken for."""
    judged = [(place, row) for place, row in enumerate(classes) if row['recall']]
    judged.sort(key=lambda pair: float(pair[1]['recall']))
    rows: List[Dict[str, Any]] = []
    for place, row in judged[:GAINS]:
        wrong: List[Tuple[int, int]] = [
            (count, column) for column, count in enumerate(cells[place]) if column != place] if cells else []
        most, column = max(wrong, default=(0, 0))
        rows.append(dict(
            row, recall=float(row['recall']), lo=float(row['lo']), hi=float(row['hi']),
            gain=(100 - float(row['recall'])) / len(judged),
            said=f'{classes[column]["class"]} ({most} of {row["images"]})' if most else ''))
    return [row for row in rows if row['recall'] < 100]
