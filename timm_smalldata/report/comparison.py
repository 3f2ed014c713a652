"""The table of an experiment: means over seeds, paired differences with intervals, and what a number needs with it."""
import csv
import json
import statistics
from argparse import Namespace
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

from ..config.flags import BY_DEST, shown
from ..config.yaml_file import load_config, load_yaml
from ..evaluation.intervals import paired_interval
from ..utils.files import write_csv_atomic, write_text_atomic

METRICS = ('balanced_top1', 'many', 'medium', 'few', 'top1', 'ece')


@dataclass(eq=False)
class Run:
    """One training of an experiment.

    Attributes:
        value: Value of the varied flag.
        seed: Its seed.
        folder: Where its report lies.
        log: Where its output goes.
        flags: Of the train command.
        report: Its `report.json`, or None.
        failure: Why there is none.
        process: The process that trains it.
    """
    value: str
    seed: int
    folder: Path
    log: Path
    flags: List[str] = field(default_factory=list)
    report: Optional[Dict[str, Any]] = None
    failure: str = ''
    process: Any = None

    def read(self) -> bool:
        """Read the report; returns whether there is one with a result."""
        path = self.folder / 'report.json'
        if path.is_file():
            self.report = json.loads(path.read_text(encoding='utf-8'))
            if self.report['balanced_top1'] is None:
                self.report, self.failure = None, 'nothing was measured: no test and no validation split'
        return self.report is not None

    def reached(self, percent: float) -> Optional[int]:
        """Return after how many epochs the validation part first had this balanced accuracy; None if never."""
        path = self.folder / 'summary.csv'
        if not path.is_file():
            return None
        with open(path, newline='', encoding='utf-8') as stream:
            values = [(int(row['epoch']) + 1, row.get('eval_balanced_top1')) for row in csv.DictReader(stream)]
        return next((epoch for epoch, value in values if value and float(value) >= percent), None)

    @property
    def seconds(self) -> Optional[float]:
        """How long it took; None for a run that was interrupted, whose time nobody added up."""
        timing = (self.report or {}).get('timing') or {}
        return timing.get('seconds') if len(timing.get('starts', ())) == 1 else None


def write_tables(args: Namespace, runs: Sequence[Run], command: str) -> str:
    """Write `table.md`, `table.csv` (a row per value) and `runs.csv` (a row per run); returns the first.

    Args:
        args: `flag`, `dest`, `values`, `arms`, `baseline`, `seeds`, `jobs`, `reach` and `output` of the experiment.
        runs: Its runs, finished or failed.
        command: The command that made them.
    """
    beside = beside_rows(runs)
    values = dict.fromkeys([*args.values, *(r.value for r in beside)])
    rows = [summarise(args, [*runs, *beside], value) for value in values]
    text = format_table(args, runs, rows, command)
    write_csv_atomic(args.output / 'runs.csv', [args.flag, 'seed', *METRICS, 'split', 'epoch', 'seconds', 'failure'], (
        [r.value, r.seed, *((r.report or {}).get(name) for name in (*METRICS, 'split', 'epoch')), r.seconds, r.failure]
        for r in runs))
    write_csv_atomic(args.output / 'table.csv', list(rows[0]), (list(row.values()) for row in rows))
    write_text_atomic(args.output / 'table.md', text)
    return text


def beside_rows(runs: Sequence[Run]) -> List[Run]:
    """Return what the tools that need no training made of the same runs, as rows of their own."""
    return [
        Run(f'{r.value}, {tool.replace("_", " ")}', r.seed, r.folder, r.log, report={**r.report, **values})
        for r in runs if r.report is not None for tool, values in (r.report.get('posthoc') or {}).items()]


def summarise(args: Namespace, runs: Sequence[Run], value: str) -> Dict[str, Any]:
    """Return one row: mean and standard deviation over the finished runs of a value, paired difference to the baseline.

    Nothing is filled in: what no run has is None, and a pair needs both of its runs.
    """
    reports = {which: {r.seed: r.report for r in runs if r.value == which and r.report is not None}
               for which in (value, args.baseline)}
    mine, theirs = reports[value], reports[args.baseline]
    row: Dict[str, Any] = {args.flag: value, 'runs': len(mine), 'planned': len(args.seeds)}
    for name in METRICS:
        numbers = [report[name] for report in mine.values() if report[name] is not None]
        row[name] = statistics.mean(numbers) if numbers else None
        row[f'{name}_sd'] = statistics.stdev(numbers) if len(numbers) > 1 else None
    pairs = [seed for seed in mine if seed in theirs and value != args.baseline]
    interval = paired_interval([mine[seed]['balanced_top1'] - theirs[seed]['balanced_top1'] for seed in pairs]) \
        if pairs else None
    row['pairs'] = len(pairs)
    for name in ('mean', 'sd', 'lo', 'hi'):
        number = None if interval is None else getattr(interval, name)
        row[f'difference_{name}'] = None if number is None or number != number else number
    row['verdict'] = _verdict(row, args.baseline) if value != args.baseline else ''
    if args.reach is not None:
        epochs = [r.reached(args.reach) for r in runs if r.value == value and r.report is not None]
        there = [epoch for epoch in epochs if epoch is not None]
        row['epochs_to_reach'] = statistics.median(there) if len(there) * 2 > len(epochs) else None
        row['reached'] = len(there)
    seconds = [r.seconds for r in runs if r.value == value and r.seconds is not None]
    row['median_seconds'] = statistics.median(seconds) if seconds else None
    return row


def _verdict(row: Dict[str, Any], baseline: str) -> str:
    lo, hi = row['difference_lo'], row['difference_hi']
    if lo is None:
        return 'no interval: fewer than two pairs'
    return f'not distinguishable from {baseline}' if lo <= 0 <= hi else f'{"above" if lo > 0 else "below"} {baseline}'


def format_table(args: Namespace, runs: Sequence[Run], rows: Sequence[Dict[str, Any]], command: str) -> str:
    """Return `table.md`."""
    finished = [r for r in runs if r.report is not None]
    failed = [r for r in runs if r.report is None]
    settings = [load_config(str(r.folder / 'args.yaml')) for r in finished]
    data = str(next((s.get('dataset') or s.get('data_dir') for s in settings), 'data that were never opened'))
    splits = sorted({str((r.report or {}).get('split')) for r in finished})
    what = 'arms' if args.arms else f'--{args.flag}'
    about = f'{what} on {data}, {len(args.seeds)} seed{"s" * (len(args.seeds) > 1)}'
    sample = ['# A sample that shows the mechanism: ' + about, '',
              'Small embedded images and short runs: this shows how the comparison works and what it costs, not which '
              'value is best elsewhere.']
    return '\n'.join([
        *(sample if data.startswith('sample/') else [f'# Comparison: {about}']), '',
        _row(what, 'runs', *METRICS, f'balanced_top1 minus {args.baseline}', '95 % interval', '',
             *([] if args.reach is None else [f'epochs to {args.reach:g} on val']), 'median seconds'),
        _row(*['---'] * (len(METRICS) + 6 + (args.reach is not None))),
        *(_row(row[args.flag], f'{row["runs"]} of {row["planned"]}',
               *(_mean_sd(row[name], row[f'{name}_sd']) for name in METRICS), *_difference(row), row['verdict'],
               *([] if args.reach is None else [_reached(row)]), _number(row['median_seconds'])) for row in rows), '',
        f'Percent, mean ± standard deviation over the finished runs, on the split {" and ".join(splits) or "-"}; of '
        'ece less is better. Differences are paired: both runs of a pair have the same seed. The interval is '
        "Student's t for their mean; it holds for one comparison, and among several the chance that one of them misses "
        'is larger.', '',
        'A seed decides the long-tailed selection (where there is one), the initialisation, the order and the '
        'augmentation. The spread is theirs; the test images and the data set are one choice, whose spread is not in '
        'these numbers.', '',
        *(['The split val also chose the weights: its numbers are too high.', ''] if 'val' in splits else []),
        *([f'{len(failed)} of {len(runs)} runs have no result and are in no number above:', '', *(
            f'- {r.value}, seed {r.seed}: {r.failure or "not trained"} ({r.log.relative_to(args.output)})'
            for r in failed), ''] if failed else []),
        *_settings(args, finished, settings),
        *_machines(args, finished),
        '## Command', '', f'    {command}', '', f'Seeds: {", ".join(map(str, args.seeds))}', ''])


def _settings(args: Namespace, finished: Sequence[Run], settings: Sequence[Dict[str, Any]]) -> List[str]:
    """Say what was not at its default, and what changed along with the varied flag."""
    if args.arms:
        return ['## Arms', '', *(f'- {name}: `{flags}`' for name, flags in args.arms.items()), '',
                'What all arms share stands in the command; each run folder holds all its settings (args.yaml).', '']
    common, moving = [], []
    for dest, flag in BY_DEST.items():
        if flag.may_change or flag.of_experiment or dest == args.dest:
            continue
        words: Dict[str, List[str]] = {}
        for r, values in zip(finished, settings):
            words[r.value] = sorted({*words.get(r.value, ()), shown(values.get(dest))})
        if len({word for listed in words.values() for word in listed}) > 1:
            moving.append(f'- {flag.name}: ' + ', '.join(f'{value} {" or ".join(w)}' for value, w in words.items()))
        elif settings and settings[0].get(dest) != flag.default:
            common.append(f'{flag.name}={shown(settings[0].get(dest))}')
    return ['## Settings', '', f'Given, or chosen for these data: {", ".join(common) or "none"}.', '', *(
        [f'Changing along with --{args.flag}, or from run to run:', '', *moving, ''] if moving else []),
        'All others are at their defaults.', '']


def _machines(args: Namespace, finished: Sequence[Run]) -> List[str]:
    """Say on what the finished runs ran; different machines and versions are told apart."""
    count: Dict[str, int] = {}
    for r in finished:
        machine = load_yaml(str(r.folder / 'environment.json'))  # JSON is YAML
        words = ', '.join([
            str(machine['gpu'] or machine['processor']), f'{machine["cores"]} cores',
            f'threads of a run: {machine["threads"]}', str(machine['platform']), f'Python {machine["python"]}',
            *(f'{name} {version}' for name, version in machine['versions'].items() if version)])
        count[words] = count.get(words, 0) + 1
    return ['## Machine', '', *(f'- {words} ({number} of {len(finished)} runs)' for words, number in count.items()), '',
            f'Runs at a time: {args.jobs}. Seconds are those of a whole run, from opening the data to the report.', '']


def _row(*cells: Any) -> str:
    return '| ' + ' | '.join(str(cell).replace('|', '\\|') for cell in cells) + ' |'


def _number(value: Optional[float]) -> str:
    return '-' if value is None else f'{value:.1f}'


def _mean_sd(mean: Optional[float], sd: Optional[float]) -> str:
    return _number(mean) if sd is None else f'{mean:.1f} ± {sd:.1f}'


def _reached(row: Dict[str, Any]) -> str:
    """Median over the runs, and how many of them ever came there, where not all did."""
    median = 'never' if row['epochs_to_reach'] is None else f'{row["epochs_to_reach"]:g}'
    return median if row['reached'] == row['runs'] else f'{median} ({row["reached"]} of {row["runs"]} runs)'


def _difference(row: Dict[str, Any]) -> List[str]:
    mean, lo, hi = (row[f'difference_{name}'] for name in ('mean', 'lo', 'hi'))
    if mean is None:
        return ['', '']
    pairs = '' if row['pairs'] == row['planned'] else f' ({row["pairs"]} pairs)'
    return [f'{mean:+.1f}{pairs}', '' if lo is None else f'{lo:+.1f} to {hi:+.1f}']
