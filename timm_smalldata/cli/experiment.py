"""One flag varied over seeds: train every value with every seed, and compare them with paired intervals.

    timm-smalldata experiment --vary loss=ce,bce,balanced-bce --seeds 10 --baseline ce -- --dataset sample/digits
    timm-smalldata experiment --arms FILE --seeds 10 -- --dataset sample/digits
    timm-smalldata experiment --transfer flowers pets birds -- --recipe idmm --scale cpu

FILE is YAML with a line for each arm, `name: flags`, where one flag is not enough. `--transfer` runs the first stage of
a recipe on each folder and the others from each of these models on each folder: a matrix. What follows -- are flags of
the train command. A seed decides the long-tailed selection and the initialisation, so that within a seed all values
meet equal conditions. The same command again continues, and skips what is finished.
"""
import argparse
import json
import os
import re
import shlex
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path
from typing import Any, Dict, List, Optional

from ..config.auto import is_ruled
from ..config.choice import CHOICE, share_choice
from ..config.flags import BY_DEST, FLAGS
from ..config.parser import Parser, parse_flags
from ..config.plan import finish_stage, plan
from ..config.yaml_file import load_yaml
from ..errors import UserError, nearest
from ..report.comparison import Run, write_tables
from ..utils.command import as_typed, typed
from ..utils.command import command as words
from ..utils.console import Voice, duration, fail
from ..utils.files import write_json_atomic
from ..utils.signals import Interrupted, catch_sigterm

CHOSEN_HERE = [flag.dest for flag in FLAGS if flag.of_experiment]
SCRIPT = Path(__file__).resolve().parents[2] / 'train_smalldata.py'  # beside the package, installed or not


def main(argv: Optional[List[str]] = None) -> int:
    """Run the experiment command; returns the exit code (1: runs failed, 2: the user can put it right)."""
    argv = list(sys.argv[1:] if argv is None else argv)
    command = shlex.join([*words('experiment'), *argv])
    try:
        with catch_sigterm():
            return run(parse(argv), command)
    except UserError as error:
        return fail(error)
    except (Interrupted, KeyboardInterrupt):
        print(f'\ninterrupted; nothing that was saved is lost. Continue with:\n  {command}', file=sys.stderr)
        return 130


def run(args: Namespace, command: str) -> int:
    """Train what is missing, write the tables and print the first."""
    if args.transfer:
        from . import transfer
        return transfer.run(args, command)
    runs, say = plan_runs(args), Voice()
    missing = [r for r in runs if not r.read()]
    what = 'arms' if args.arms else f'values of --{args.flag}'
    say(f'{len(args.values)} {what} x {len(args.seeds)} seeds = {len(runs)} runs in {args.output}, '
        f'{len(runs) - len(missing)} of them finished already')
    if missing and _is_measured(args):
        _choose_once(args, runs, say)
    train_all(missing, args.jobs, say)
    print(write_tables(args, runs, command), end='')
    return 1 if any(r.report is None for r in runs) else 0


def parse(argv: List[str]) -> Namespace:
    """Parse the command line: our flags before `--`, those of the train command after it.

    >>> args = parse(['--vary', 'loss=ce,bce', '--seeds', '3', '--', '--epochs', '5'])
    >>> args.flag, args.values, args.baseline, args.seeds, args.train
    ('loss', ['ce', 'bce'], 'ce', [0, 1, 2], ['--epochs', '5'])
    """
    cut = argv.index('--') if '--' in argv else len(argv)
    parser = Parser(
        typed('experiment'),
        usage='%(prog)s (--vary FLAG=A,B,... | --arms FILE | --transfer DIR DIR ...) [flags] -- TRAIN FLAGS',
        description=as_typed(__doc__), allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument('--vary', metavar='FLAG=A,B,...', help='a flag of the train command, its values')
    what.add_argument('--arms', metavar='FILE', help='YAML file: name of an arm and its flags of the train command')
    what.add_argument(
        '--transfer', nargs='+', metavar='DIR', help='folders: pretrain on each, fine-tune from each on each')
    parser.add_argument(
        '--seeds', metavar='N', help='number of seeds (from 0 on), or a list: 3,5,8 [5; of --transfer 1]')
    parser.add_argument('--baseline', metavar='A', help='value that the others are compared with [the first]')
    parser.add_argument('--jobs', type=int, default=1, metavar='N', help='runs at a time, one thread each [1]')
    parser.add_argument(
        '--reach', type=float, metavar='PERCENT', help='also say after how many epochs val balanced_top1 reaches this')
    parser.add_argument('--output', type=Path, metavar='DIR', help='folder of runs and tables [output/FLAG]')
    args, unknown = parser.parse_known_args(argv[:cut])
    if unknown:
        raise UserError(f'Unknown flag {unknown[0]}; flags of the train command come after --: -- {unknown[0]} ...')
    args.train = argv[cut + 1:]
    if args.transfer:
        args.flag, args.values = 'transfer', args.transfer
        given = next((name for name in ('baseline', 'reach') if getattr(args, name) is not None), None)
        if given:
            raise UserError(f'--{given} does not go with --transfer: leave it out.')
    elif args.arms:
        args.flag, args.dest, args.arms = 'arms', '', _read_arms(args.arms)
        args.values = list(args.arms)
    else:
        _parse_vary(args)
    args.seeds = args.seeds or ('1' if args.transfer else '5')
    args.baseline = args.values[0] if args.baseline is None else args.baseline
    if args.baseline not in args.values:
        raise UserError(f'--baseline {args.baseline} is not among the values: {", ".join(args.values)}.')
    if not re.fullmatch(r'\d+(,\d+)*,?', args.seeds):
        raise UserError(f'--seeds {args.seeds}: give a number of seeds, or a list such as 3,5,8.')
    listed = [int(seed) for seed in args.seeds.split(',') if seed]
    args.seeds = listed if ',' in args.seeds else list(range(listed[0]))
    if not args.seeds or len(set(args.seeds)) < len(args.seeds) or args.jobs < 1:
        raise UserError('--seeds and --jobs must be 1 or more, and no seed may come twice.')
    args.output = args.output or Path('output') / args.flag
    return args


def _parse_vary(args: Namespace) -> None:
    """Set `flag`, `dest` and `values` from `--vary FLAG=A,B`."""
    name, _, values = args.vary.partition('=')
    args.flag = name.lstrip('-').replace('_', '-')
    args.dest = args.flag.replace('-', '_')
    if args.dest not in BY_DEST or BY_DEST[args.dest].of_experiment:
        raise UserError(f'--vary {args.vary}: the train command has no flag --{args.flag} to vary'
                        f'{nearest(args.dest, BY_DEST)}.')
    args.values = [value.strip() for value in values.split(',') if value.strip()]
    if len(args.values) < 2 or len(set(args.values)) < len(args.values):
        raise UserError(f'--vary {args.vary}: give two or more different values, such as --vary loss=ce,balanced-bce.')
    if BY_DEST[args.dest].type is bool and not {'on', 'off'}.issuperset(args.values):
        raise UserError(f'--vary {args.vary}: --{args.flag} is a switch, its values are on and off.')


def _read_arms(path: str) -> Dict[str, str]:
    """Read the arms: names and the words of their flags."""
    if not Path(path).is_file():
        raise UserError(f'--arms {path}: no such file.')
    arms = load_yaml(path)
    if len(arms) < 2 or not all(isinstance(flags, str) for flags in arms.values()):
        raise UserError(f'--arms {path}: give two or more lines such as "drw: --loss ce --drw-epoch 48".')
    return {str(name): flags for name, flags in arms.items()}


def plan_runs(args: Namespace) -> List[Run]:
    """Return all runs, seed by seed; a wrong train flag is an error here, before anything is trained.

    Raises:
        UserError: A wrong flag or value; or the folder holds runs with other flags.
    """
    settings = _check_train_flags(args)
    record, root = args.output / 'experiment.json', args.output / 'runs'
    if record.is_file() and root.is_dir():
        before = json.loads(record.read_text(encoding='utf-8'))
        settings = {**{name: flags for name, flags in before.items() if name.startswith('arm ')}, **settings} \
            if args.arms else settings  # arms may be added and left out
        changed = [f'{name} {before.get(name)} -> {settings.get(name)}' for name in sorted({*before, *settings})
                   if before.get(name) != settings.get(name) and not (name.startswith('arm ') and name not in before)]
        if changed:
            raise UserError(f'{args.output} holds runs with other flags: {"; ".join(changed)}. Name another --output.')
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f'--output {args.output}: {error.strerror}.') from error
    write_json_atomic(record, settings)
    runs = []
    for seed in args.seeds:
        for value in args.values:
            name = f'{re.sub(r"[^A-Za-z0-9.+-]+", "_", value)}-seed{seed}'
            flags = [*args.train, *_varied(args, value), '--seed', str(seed), '--imbalance-seed', str(seed)]
            runs.append(Run(value, seed, root / name / plan(flags)[-1].folder, root / f'{name}.log', [
                *flags, '--output', str(root), '--experiment', name, '--resume', 'auto']))
    if len({r.log for r in runs}) < len(runs):
        raise UserError(f'--{"arms" if args.arms else "vary"}: two values would have a folder of the same name.')
    return runs


def _check_train_flags(args: Namespace) -> Dict[str, Any]:
    """Return the train flags by name: what all runs of an experiment share."""
    stages = plan(args.train)
    for stage in stages:
        taken = next((dest for dest in (args.dest, *CHOSEN_HERE) if dest in stage.given), None)
        if taken is not None:
            raise UserError(f'--{BY_DEST[taken].name} is set by the experiment itself: leave it out after --.')
    for value in args.values:
        both = [dest for dest in _given_by(_varied(args, value)) if dest in CHOSEN_HERE or args.arms and any(
            dest in shared.given for shared in stages)]
        if both:
            raise UserError(f'{value}: --{BY_DEST[both[0]].name} is set elsewhere in this experiment.')
        for stage in plan([*args.train, *_varied(args, value)]):
            finish_stage(stage)
            data = stage.settings.get('data_dir')
            if data and not stage.settings.get('dataset') and not Path(data).exists():
                raise UserError(f'No such folder or file: {data} (--data-dir).')
    shared = {f'{stage.name}.{dest}'.lstrip('.'): value for stage in stages for dest, value in stage.given.items()
              if not BY_DEST[dest].may_change}
    return dict(vary=args.flag, **shared, **{f'arm {name}': flags for name, flags in (args.arms or {}).items()})


def _given_by(words: List[str]) -> List[str]:
    """Return the flags (argparse destinations) that an arm sets; those of a stage need not have its recipe."""
    given, staged = parse_flags(words)
    if staged:
        return [*given, *(dest for values in staged.values() for dest in values)]
    return [dest for stage in plan(words) for dest in stage.given]


def _varied(args: Namespace, value: str) -> List[str]:
    """Return the varied flag with one of its values, or the flags of an arm, as words of a command line."""
    if args.arms:
        return shlex.split(args.arms[value])
    if BY_DEST[args.dest].type is bool:
        return [f'--{args.flag}' if value == 'on' else f'--no-{args.flag}']
    return [f'--{args.flag}', *shlex.split(value)]


def _is_measured(args: Namespace) -> bool:
    """Return whether a measurement is to set the length of the runs."""
    stage = plan(args.train)[-1]
    finish_stage(stage)
    return not stage.name and is_ruled(stage.settings) and not stage.settings.is_set('epochs')


def _choose_once(args: Namespace, runs: List[Run], say: Voice) -> None:
    """Let one dry run of the baseline measure and choose, for all runs: they shall differ in what is varied only."""
    place = args.output / 'choice'
    file = place / CHOICE
    if not file.exists() or not file.stat().st_size:
        place.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b'')  # asks the dry run to leave its choice here
        say('measuring once, for all runs')
        r = Run(args.baseline, 0, place, args.output / 'choice.log', [
            *args.train, *_varied(args, args.baseline), '--dry-run', '--output', str(args.output), '--experiment',
            place.name])
        _start(r)
        if r.process.wait() or not file.stat().st_size:
            raise UserError(f'{_reason(r)} ({r.log})')
    share_choice(place, [r.folder for r in runs])


def train_all(runs: List[Run], jobs: int, say: Voice) -> None:
    """Train runs, some at a time, each in a process of its own with one thread; a failure is noted in its run."""
    waiting: List[Run] = list(runs)
    running: List[Run] = []
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
                    r.report, r.failure = None, r.failure or _reason(r)
                result = f'balanced_top1 {r.report["balanced_top1"]:.1f}' if r.report else f'failed: {r.failure}'
                left = (time.time() - started) / done * (len(runs) - done)
                say(f'{done}/{len(runs)}  {r.value} seed {r.seed}: {result}'
                    + (f'  (about {duration(left)} left)' if done < len(runs) else ''))
    finally:
        for r in running:
            r.process.terminate()  # the train command stops at a safe place
        for r in running:
            r.process.wait()


def _start(r: Run) -> None:
    with open(r.log, 'ab') as log:
        r.process = subprocess.Popen(
            [sys.executable, str(SCRIPT), *r.flags], stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            env={**os.environ, 'OMP_NUM_THREADS': '1'})


def _reason(r: Run) -> str:
    """Return the last line that a failed run wrote."""
    lines = [line for line in r.log.read_text(encoding='utf-8', errors='replace').splitlines() if line.strip()]
    return lines[-1].removeprefix('error: ') if lines else f'exit code {r.process.returncode}'


if __name__ == '__main__':
    sys.exit(main())
