"""One flag varied over seeds: trains every value with every seed and writes a table with paired intervals.

    timm-smalldata experiment --vary loss=ce,bce,balanced-bce --seeds 10 --baseline ce -- --dataset sample/digits

What follows `--` are flags of the train command. A seed decides the long-tailed selection and the initialisation alike, so
all values of the flag are compared on equal terms within a seed. The same command again continues and skips what is done.
"""
import argparse
import json
import os
import re
import shlex
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

from .args import _Parser, fail, load_config, load_yaml
from .errors import UserError, nearest
from .evaluation.intervals import paired_interval
from .files import write_csv_atomic, write_json_atomic, write_text_atomic
from .flags import BY_DEST
from .interrupt import Interrupted, catch_sigterm
from .plan import finish_stage, plan
from .tracking import Voice, duration

SCRIPT = Path(__file__).resolve().parents[1] / 'train_smalldata.py'  # beside the package, installed or not
METRICS = ('balanced_top1', 'many', 'medium', 'few', 'top1', 'ece')
CHOSEN_HERE = (  # train flags that the experiment sets itself
    'seed', 'imbalance_seed', 'output', 'experiment', 'resume', 'force', 'dry_run', 'push_to_hub', 'stop_epoch')


@dataclass
class Run:
    """One training.

    Attributes:
        value: Value of the varied flag.
        seed: Its seed.
        folder: Where its report lies.
        log: Where its output goes.
        flags: Of the train command.
        report: Its `report.json`, or None.
        failure: Why there is none.
    """
    value: str
    seed: int
    folder: Path
    log: Path
    flags: List[str]
    report: Optional[Dict[str, Any]] = None
    failure: str = ''
    process: Any = field(default=None, repr=False)

    def read(self) -> bool:
        """Read the report, if the run is finished; returns whether it is."""
        path = self.folder / 'report.json'
        self.report = json.loads(path.read_text(encoding='utf-8')) if path.is_file() else None
        return self.report is not None


def main(argv: Optional[List[str]] = None) -> int:
    """Run the experiment command; returns the exit code (1: runs failed, 2: the user can put it right)."""
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        with catch_sigterm():
            return run(argv)
    except UserError as error:
        return fail(error)
    except (Interrupted, KeyboardInterrupt):
        print('\ninterrupted; finished runs are kept. The same command continues:\n  ' + _command(argv), file=sys.stderr)
        return 130


def run(argv: List[str]) -> int:
    """Train what is missing, write the table."""
    args = parse(argv)
    runs = plan_runs(args)
    say = Voice()
    missing = [r for r in runs if not r.read()]
    say(f'{len(args.values)} values of --{args.flag} x {len(args.seeds)} seeds: {len(runs)} runs, '
        f'{len(runs) - len(missing)} of them finished; results go to {args.output}')
    train_all(missing, args.jobs, say)
    return write_tables(args, runs, _command(argv))


# --- what to run ----------------------------------------------------------------------------------------------------

def parse(argv: List[str]) -> argparse.Namespace:
    """Parse the command line: our flags before `--`, the train command's after it."""
    cut = argv.index('--') if '--' in argv else len(argv)
    parser = _Parser(
        'timm-smalldata experiment', usage='%(prog)s --vary FLAG=A,B,... [flags] -- TRAIN FLAGS', description=__doc__,
        allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--vary', required=True, metavar='FLAG=A,B,...', help='a flag of the train command, its values')
    parser.add_argument('--seeds', default='5', metavar='N', help='number of seeds (0 to N-1), or a list such as 3,5,8 [5]')
    parser.add_argument('--baseline', metavar='A', help='value that the others are compared with (the first one)')
    parser.add_argument('--jobs', type=int, default=1, metavar='N', help='runs at a time, each with one thread [1]')
    parser.add_argument('--output', type=Path, metavar='DIR', help='folder of runs and tables [output/FLAG]')
    args, unknown = parser.parse_known_args(argv[:cut])
    if unknown:
        raise UserError(f'Unknown flag {unknown[0]}: flags of the train command come after --, such as -- --epochs 30.')
    args.train = argv[cut + 1:]
    name, separator, values = args.vary.partition('=')
    args.flag = name.lstrip('-').replace('_', '-')
    args.dest = args.flag.replace('-', '_')
    if args.dest not in BY_DEST or args.dest in CHOSEN_HERE:
        raise UserError(f'--vary {args.vary}: there is no flag --{args.flag} to vary{nearest(args.dest, BY_DEST)}.')
    args.values = [value.strip() for value in values.split(',') if value.strip()]
    if len(args.values) < 2 or len(set(args.values)) < len(args.values):
        raise UserError(f'--vary {args.vary}: give two or more different values, such as --vary loss=ce,balanced-bce.')
    args.baseline = args.values[0] if args.baseline is None else args.baseline
    if args.baseline not in args.values:
        raise UserError(f'--baseline {args.baseline} is not among the values: {", ".join(args.values)}.')
    if not re.fullmatch(r'\d+(,\d+)*,?', args.seeds):
        raise UserError(f'--seeds {args.seeds}: give a number of seeds, or a list such as 3,5,8.')
    listed = [int(seed) for seed in args.seeds.split(',') if seed]
    args.seeds = listed if ',' in args.seeds else list(range(listed[0]))
    if not args.seeds or len(set(args.seeds)) < len(args.seeds):
        raise UserError('--seeds: one seed at least, and none twice.')
    if args.jobs < 1:
        raise UserError(f'--jobs {args.jobs}: at least one run at a time.')
    args.output = args.output or Path('output') / args.flag
    return args


def plan_runs(args: argparse.Namespace) -> List[Run]:
    """Return all runs, seed by seed; a train flag that is wrong is an error here, before anything is trained.

    Raises:
        UserError: A wrong flag or value, or the folder holds runs with other flags.
    """
    settings = _check_train_flags(args)
    record = args.output / 'experiment.json'
    if record.is_file():
        before = json.loads(record.read_text(encoding='utf-8'))
        if before != json.loads(json.dumps(settings)):
            told = [f'{key}: {before.get(key)} -> {settings.get(key)}' for key in sorted({*before, *settings})
                    if before.get(key) != settings.get(key)]
            raise UserError(f'{args.output} holds runs with other flags ({"; ".join(told)}): choose another --output.')
    args.output.mkdir(parents=True, exist_ok=True)
    write_json_atomic(record, settings)
    runs, root = [], args.output / 'runs'
    for seed in args.seeds:
        for value in args.values:
            name = f'{re.sub(r"[^A-Za-z0-9.+-]+", "_", value)}-seed{seed}'
            flags = [*args.train, *_varied(args, value), '--seed', str(seed), '--imbalance-seed', str(seed)]
            last = plan(flags)[-1]
            runs.append(Run(value, seed, root / name / last.folder, root / f'{name}.log', [
                *flags, '--output', str(root), '--experiment', name, '--resume', 'auto']))
    if len({r.log for r in runs}) < len(runs):
        raise UserError(f'--vary {args.vary}: two values have the same name for a folder.')
    return runs


def _check_train_flags(args: argparse.Namespace) -> Dict[str, Any]:
    """Plan a run of each value; returns what decides whether runs belong to the same experiment."""
    for value in args.values:
        stages = plan([*args.train, *_varied(args, value)])
        for stage in stages:
            taken = [dest for dest in CHOSEN_HERE if dest in stage.given]
            if taken:
                raise UserError(f'--{BY_DEST[taken[0]].name} is set by the experiment itself: leave it out after --.')
            finish_stage(stage)
            data = stage.settings.get('data_dir')
            if data and not Path(data).exists():
                raise UserError(f'No such folder or file: {data} (--data-dir).')
    if any(args.dest in stage.given for stage in plan(args.train)):
        raise UserError(f'--{args.flag} is varied: leave it out after --.')
    return dict(vary=args.flag, **{
        f'{stage.name}.{dest}'.lstrip('.'): value for stage in plan(args.train) for dest, value in stage.given.items()
        if BY_DEST[dest].result})


def _varied(args: argparse.Namespace, value: str) -> List[str]:
    """Return the train flag with one of its values; switches take on and off."""
    if BY_DEST[args.dest].type is not bool:
        return [f'--{args.flag}', *shlex.split(value)]
    if value not in ('on', 'off'):
        raise UserError(f'--vary {args.vary}: --{args.flag} is a switch, its values are on and off.')
    return [f'--{args.flag}' if value == 'on' else f'--no-{args.flag}']


def _command(argv: Sequence[str]) -> str:
    return shlex.join(['timm-smalldata', 'experiment', *argv])


# --- training -------------------------------------------------------------------------------------------------------

def train_all(runs: List[Run], jobs: int, say: Voice) -> None:
    """Train the runs, some at a time, each in a process of its own with one thread; reports and failures are noted."""
    waiting, running = list(runs), []
    started, done = time.time(), 0
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                running.append(waiting.pop(0))
                _start(running[-1])
            time.sleep(0.05)
            for r in [r for r in running if r.process.poll() is not None]:
                running.remove(r)
                done += 1
                if r.process.returncode or not r.read():
                    r.failure = _reason(r)
                    result = f'failed: {r.failure}'
                else:
                    result = f'balanced_top1 {_number((r.report or {}).get("balanced_top1"))}'
                left = (time.time() - started) / done * (len(runs) - done)
                say(f'{done}/{len(runs)}  {r.value} seed {r.seed}: {result}' + (
                    f'  (about {duration(left)} left)' if left else ''))
    finally:
        for r in running:
            r.process.terminate()  # the train command saves nothing half and says so in its log
        for r in running:
            r.process.wait()


def _start(r: Run) -> None:
    r.log.parent.mkdir(parents=True, exist_ok=True)
    with open(r.log, 'ab') as log:
        r.process = subprocess.Popen(
            [sys.executable, str(SCRIPT), *r.flags], stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            env={**os.environ, 'OMP_NUM_THREADS': '1'})


def _reason(r: Run) -> str:
    """Return the last line of a failed run's log."""
    lines = [line for line in r.log.read_text(encoding='utf-8', errors='replace').splitlines() if line.strip()]
    return (lines[-1] if lines else f'exit code {r.process.returncode}').removeprefix('error: ')


# --- the table ------------------------------------------------------------------------------------------------------

def write_tables(args: argparse.Namespace, runs: List[Run], command: str) -> int:
    """Write `table.md`, `table.csv` (a row per value) and `runs.csv` (a row per run); returns the exit code."""
    rows = [summarise(args, runs, value) for value in args.values]
    text = format_table(args, runs, rows, command)
    write_csv_atomic(args.output / 'runs.csv', [args.flag, 'seed', *METRICS, 'split', 'epoch', 'seconds', 'failure'], (
        [r.value, r.seed, *((r.report or {}).get(name) for name in (*METRICS, 'split', 'epoch')), _seconds(r), r.failure]
        for r in runs))
    write_csv_atomic(args.output / 'table.csv', list(rows[0]), (list(row.values()) for row in rows))
    write_text_atomic(args.output / 'table.md', text)
    print(text, end='')
    return 1 if any(r.report is None for r in runs) else 0


def summarise(args: argparse.Namespace, runs: List[Run], value: str) -> Dict[str, Any]:
    """Return one row: mean and standard deviation over the finished runs of a value, paired difference to the baseline.

    Nothing is filled in: a metric that no run has is None, and a pair needs both of its runs.
    """
    mine = {r.seed: r for r in runs if r.value == value and r.report is not None}
    row: Dict[str, Any] = {args.flag: value, 'runs': len(mine), 'planned': len(args.seeds)}
    for name in METRICS:
        numbers = [r.report[name] for r in mine.values() if r.report and r.report.get(name) is not None]
        row[name] = statistics.mean(numbers) if numbers else None
        row[f'{name}_sd'] = statistics.stdev(numbers) if len(numbers) > 1 else None
    theirs = {r.seed: r for r in runs if r.value == args.baseline and r.report is not None}
    differences = [
        mine[seed].report['balanced_top1'] - theirs[seed].report['balanced_top1']  # type: ignore[index]
        for seed in args.seeds if seed in mine and seed in theirs] if value != args.baseline else []
    interval = paired_interval(differences) if differences else None
    row['pairs'] = len(differences) if value != args.baseline else None
    for name in ('mean', 'sd', 'lo', 'hi'):
        number = None if interval is None else getattr(interval, name)
        row[f'difference_{name}'] = None if number is None or number != number else number
    row['verdict'] = '' if value == args.baseline else _verdict(row, args.baseline)
    seconds = [s for s in map(_seconds, mine.values()) if s is not None]
    row['median_seconds'] = statistics.median(seconds) if seconds else None
    return row


def _verdict(row: Dict[str, Any], baseline: str) -> str:
    lo, hi = row['difference_lo'], row['difference_hi']
    if lo is None:
        return 'no interval: fewer than two pairs'
    if lo <= 0 <= hi:
        return f'not distinguishable from {baseline}'
    return f'{"above" if lo > 0 else "below"} {baseline}'


def _seconds(r: Run) -> Optional[float]:
    """Return how long a run took; None for one that was interrupted, whose time is not known."""
    timing = (r.report or {}).get('timing') or {}
    return timing.get('seconds') if len(timing.get('starts', ())) == 1 else None


def format_table(args: argparse.Namespace, runs: List[Run], rows: List[Dict[str, Any]], command: str) -> str:
    """Return `table.md`."""
    folders = {r: r.folder for r in range(0)}
    del folders
    finished = [r for r in runs if r.report is not None]
    settings = [load_config(str(r.folder / 'args.yaml')) for r in finished]
    data = next((s.get('dataset') or s.get('data_dir') for s in settings), None) or 'no finished run'
    n = len(args.seeds)
    sample = str(data).startswith('sample/')
    text = [
        f'# {"A sample that shows the mechanism" if sample else "Comparison"}: --{args.flag} on {data}, {n} seeds', '',
        *(['These numbers come from small embedded images and short runs. They show how the comparison works and what it '
           'costs, not which method is best elsewhere.', ''] if sample else []),
        _row([f'--{args.flag}', 'runs', *METRICS, f'balanced_top1 minus {args.baseline} (95 % interval)', '',
              'median seconds']),
        _row(['---'] * (len(METRICS) + 5)),
    ]
    for row in rows:
        text.append(_row([
            row[args.flag], f'{row["runs"]} of {row["planned"]}',
            *(_mean_sd(row[name], row[f'{name}_sd']) for name in METRICS), _difference(row, args.baseline),
            row['verdict'], _number(row['median_seconds'])]))
    splits = sorted({str(r.report['split']) for r in finished if r.report})
    text += [
        '', f'Percent, mean ± standard deviation over seeds, on the split {" and ".join(splits) or "-"} (ece: lower is '
        'better). The last columns: paired differences within a seed, with Student\'s t interval; one comparison at a '
        f'time, so of {len(rows) - 1} intervals more than one in twenty may miss. The spread is that of seeds (images '
        'selected and initialisation); the test images and the data set are one choice and not part of it.', '']
    if 'val' in splits:
        text += ['The split val also chose the weights, so its numbers are too high.', '']
    failed = [r for r in runs if r.report is None]
    if failed:
        text += [f'{len(failed)} of {len(runs)} runs failed; they are in no number above:', '',
                 *(f'- {r.value}, seed {r.seed}: {r.failure or "no report"} ({r.log})' for r in failed), '']
    text += _settings_text(args, finished, settings)
    text += _machine_text(args, finished)
    text += ['## Command', '', f'    {command}', '', f'Seeds: {", ".join(map(str, args.seeds))}', '']
    return '\n'.join(text)


def _settings_text(args: argparse.Namespace, finished: List[Run], settings: List[Dict[str, Any]]) -> List[str]:
    """Say what was not at its default, and what changed along with the varied flag."""
    common, moving = [], []
    for dest, flag in BY_DEST.items():
        if dest in (*CHOSEN_HERE, args.dest) or not flag.result or not settings:
            continue
        by_value = {
            value: {_word(s.get(dest)) for r, s in zip(finished, settings) if r.value == value} for value in args.values}
        seen = set().union(*by_value.values())
        if len(seen) > 1:
            moving.append(f'{flag.name}: ' + ', '.join(
                f'{value} {" or ".join(sorted(words))}' for value, words in by_value.items() if words))
        elif settings[0].get(dest) != flag.default:
            common.append(f'{flag.name}={seen.pop()}')
    text = ['## Settings', '', 'Different from the defaults: ' + (', '.join(common) or 'none') + '.', '']
    if moving:
        text += [f'Different between runs, besides --{args.flag} and the seeds:', '', *(f'- {line}' for line in moving), '']
    return text


def _machine_text(args: argparse.Namespace, finished: List[Run]) -> List[str]:
    """Say on what the finished runs ran; runs on several machines or versions are told apart."""
    machines: Dict[str, int] = {}
    for r in finished:
        machine = load_yaml(str(r.folder / 'environment.json'))  # JSON is YAML
        words = [
            str(machine['gpu'] or machine['processor']), f'{machine["cores"]} cores', f'{machine["threads"]} thread a run',
            str(machine['platform']), f'Python {machine["python"]}',
            *(f'{name} {version}' for name, version in machine['versions'].items() if version)]
        machines[', '.join(words)] = machines.get(', '.join(words), 0) + 1
    text = ['## Machine', '']
    for words, count in machines.items():
        text.append(f'- {words}' + (f' ({count} runs)' if len(machines) > 1 else ''))
    return [*text, '', f'{args.jobs} runs at a time, with one thread each.', '']


def _row(cells: Sequence[Any]) -> str:
    return '| ' + ' | '.join(str(cell).replace('|', '\\|') for cell in cells) + ' |'


def _number(value: Optional[float]) -> str:
    return '-' if value is None else f'{value:.1f}'


def _mean_sd(mean: Optional[float], sd: Optional[float]) -> str:
    return _number(mean) if sd is None else f'{mean:.1f} ± {sd:.1f}'


def _difference(row: Dict[str, Any], baseline: str) -> str:
    mean, lo, hi = (row[f'difference_{name}'] for name in ('mean', 'lo', 'hi'))
    if mean is None:
        return ''
    pairs = '' if row['pairs'] == row['planned'] else f', {row["pairs"]} pairs'
    return f'{mean:+.1f}{pairs}' if lo is None else f'{mean:+.1f} ({lo:+.1f} to {hi:+.1f}{pairs})'


def _word(value: Any) -> str:
    if isinstance(value, dict):
        return ' '.join(f'{k}={v}' for k, v in value.items()) or '-'
    return ' '.join(map(str, value)) if isinstance(value, (list, tuple)) else f'{value:g}' if isinstance(
        value, float) else str(value)


if __name__ == '__main__':
    sys.exit(main())
