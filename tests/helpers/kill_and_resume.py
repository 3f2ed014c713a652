#!/usr/bin/env python3
"""Kill a run, continue it, and compare it bit for bit with a run that nobody disturbed.

    python tests/helpers/kill_and_resume.py --sigkill 4  # each task: 4 runs, each killed by SIGKILL up to 3 times

The runs of a task take turns: without data processes and with two; with the decoded images removed after each kill;
killed while a checkpoint or the model is written. The others are killed at random moments.
A run that was never killed proves nothing: the script fails where a task had fewer kills than runs (or --least).
The test suite (test_resume.py) uses the same tasks, but kills with an exception at chosen places.
A new task adds a line to TASKS.
"""
import argparse
import json
import multiprocessing
import os
import pkgutil
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Optional, Tuple
from unittest import mock

import timm
import torch
from safetensors.torch import load_file
from torch.optim.optimizer import register_optimizer_step_post_hook

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parent), str(HERE.parents[1])]

from conftest import make_photos  # noqa: E402

import train_smalldata  # noqa: E402
from timm_smalldata.data.classes import ClassInfo  # noqa: E402
from timm_smalldata.engine import checkpoint  # noqa: E402
from timm_smalldata.hub import export as hub_export  # noqa: E402
from timm_smalldata.hub.export import export_model  # noqa: E402
from timm_smalldata.optim import SAM  # noqa: E402
from timm_smalldata.run import finish as run_finish  # noqa: E402
from timm_smalldata.run import trainer  # noqa: E402
from timm_smalldata.run.starts import read_starts  # noqa: E402
from timm_smalldata.utils.model_folder import stage_folders  # noqa: E402

EPOCHS = 3
COMMON = ['--img-size', '32', '--epochs', str(EPOCHS), '--batch-size', '4', '--device', 'cpu', '--workers', '0',
          '--eval-metric', 'loss', '--output', 'runs']  # the loss falls in every epoch, so the best one is saved often
FEATURES = ['--eval-metric', 'top1']  # 100 % in every epoch; of equal features the last ones are the best
TASKS: List[Tuple[str, List[str]]] = [
    ('classification', [
        '--model', 'test_vit', '--mixup', '0.8', '--cutmix', '1', '--model-ema', '--model-ema-decay', '0.9',
        '--drop', '0.1', '--drop-path', '0.2', '--reprob', '0.3', '--loss', 'balanced-softmax', '--clip-grad', '1']),
    ('batch-norm-sgd', [
        '--model', 'test_resnet', '--opt', 'sgd', '--lr', '0.05', '--grad-accum-steps', '2', '--aug-repeats', '3',
        '--aug', 'three-augment', '--imbalance-factor', '2']),
    ('dino', [
        '--task', 'dino', *FEATURES, '--model', 'test_vit', '--model-kwargs', 'patch_size=8', '--drop-path', '0.2',
        '--lr', '1e-3', '--dino-out-dim', '64', '--dino-local-crops', '2', '--dino-momentum', '0.9', '1',
        '--dino-teacher-temp-epochs', '3']),
    ('idmm', [
        '--task', 'idmm', *FEATURES, '--model', 'test_vit', '--drop-path', '0.2', '--model-ema',
        '--model-ema-decay', '0.9']),
    ('mae', [
        '--task', 'mae', *FEATURES, '--model', 'test_vit', '--model-kwargs', 'patch_size=8', '--mae-mask-ratio', '0.6',
        '--lr', '1e-3', '--model-ema', '--model-ema-decay', '0.9', '--drop-path', '0.2']),
    ('ldam', [
        '--model', 'test_resnet', '--loss', 'ldam', '--head', 'cosine', '--drw-epoch', '1', '--model-ema',
        '--model-ema-decay', '0.9', '--mixup', '0.2', '--drop', '0.1']),
    ('sam', [
        '--model', 'test_resnet', '--opt', 'sgd', '--lr', '0.1', '--sam-rho', '0.05', '--sam-adaptive',
        '--drop', '0.1', '--mixup', '0.2', '--clip-grad', '1', '--grad-accum-steps', '2']),
    ('sam-schedule', ['--model', 'test_vit', '--sam-rho-schedule', '0:0.05 1:0 2:0.2', '--drop-path', '0.2']),
    ('deit-lt', [
        '--task', 'deit-lt', '--teacher', 'teacher', '--model', 'deit_tiny_distilled_patch16_224', '--model-kwargs',
        'patch_size=8', 'embed_dim=24', 'num_heads=2', 'depth=1', '--drw-epoch', '1', '--teacher-view', 'weak',
        '--model-ema', '--model-ema-decay', '0.9']),
    ('cosub', ['--task', 'cosub', '--model', 'test_vit', '--drop-path', '0.2', '--loss', 'bce', '--mixup', '0.2']),
    ('kd-logit', ['--task', 'kd-logit', '--teacher', 'teacher', '--model', 'test_vit', '--mixup', '0.2']),
    ('kd-feature', [
        '--kd-distill-type', 'feature', '--teacher', 'teacher', '--model', 'test_vit', '--drop-path', '0.2',
        '--model-ema', '--model-ema-decay', '0.9']),
    ('kd-token', [
        '--task', 'kd-token', '--teacher', 'teacher', '--model', 'deit_tiny_distilled_patch16_224', '--model-kwargs',
        'patch_size=8', 'embed_dim=24', 'num_heads=2', 'depth=1']),
    ('paco', [
        '--task', 'paco', '--model', 'test_resnet', '--lr', '0.002', '--eval-metric', 'loss', '--paco-queue', '11',
        '--paco-momentum', '0.9', '--sam-rho', '0.05']),
]
RECIPES: List[Tuple[str, List[str]]] = [  # stages that start from one another's model, or learn from it
    ('recipe idmm', [
        *FEATURES, '--recipe', 'idmm', '--scale', 'cpu', '--model', 'test_vit', '--warmup-epochs', '0',
        '--high.img-size', '40']),
    ('recipe deit-lt', [
        '--recipe', 'deit-lt', '--scale', 'cpu', '--warmup-epochs', '0', '--drw-epoch', '1', '--student.model',
        'deit_tiny_distilled_patch16_224', '--student.model-kwargs', 'patch_size=8', 'embed_dim=24', 'num_heads=2',
        'depth=1', '--teacher.model', 'test_resnet']),
]
VARIANTS: List[Tuple[str, List[str]]] = [  # of the runs of a task, in turn; the unbroken run is like the first
    ('', []), ('workers 2', ['--workers', '2']), ('decoded anew', []), ('in a write', [])]


class Kill(NamedTuple):
    """Whether a run was killed, after how many updates, and whether while a checkpoint or the model was written."""
    died: bool
    updates: int
    in_checkpoint: bool = False
    in_export: bool = False


class Killed(BaseException):
    """Stands for SIGKILL: nothing may catch it."""


def make_data(folder: Path) -> str:
    """Write 38 photographs in three classes, and a teacher; returns the name of the photographs' folder."""
    make_photos(folder / 'photos', {'ant': 18, 'bee': 12, 'cat': 8})
    torch.manual_seed(0)
    model = timm.create_model('test_resnet', num_classes=3)
    config = dict(input_size=(3, 24, 24), mean=(0.5,) * 3, std=(0.5,) * 3, crop_pct=1.0, interpolation='bicubic')
    export_model(model, folder / 'teacher', classes=ClassInfo(['cat', 'bee', 'ant'], [8, 12, 18]), data_config=config)
    return 'photos'


def command(extra: List[str], experiment: str, *more: str) -> List[str]:
    return ['photos', *COMMON, *extra, '--experiment', experiment, *more]


# --- counting and killing inside this process -----------------------------------------------------------------------

@contextmanager
def counted_updates(note: Callable[[int], Any] = lambda count: None) -> Iterator[List[int]]:
    """Count the optimizer's steps of training (not those of the measurement before it); `note` hears of each."""
    count, training = [0], [False]
    train_epoch = trainer.train_epoch

    def counted(*args: Any, **kwargs: Any) -> Any:
        training[0] = True
        try:
            return train_epoch(*args, **kwargs)
        finally:
            training[0] = False

    def stepped(optimizer: Any, *_: Any) -> None:
        if training[0] and not isinstance(optimizer, SAM):  # its base has told already
            count[0] += 1
            note(count[0])

    hook = register_optimizer_step_post_hook(stepped)
    try:
        with mock.patch.object(trainer, 'train_epoch', counted):
            yield count
    finally:
        hook.remove()


@contextmanager
def dying(target: str, call: int = 1, when: Callable[..., bool] = lambda *args, **kwargs: True,
          last_words: Callable[..., Any] = lambda *args, **kwargs: None) -> Iterator[None]:
    """Die where a function is called for the call-th time (of the calls that `when` counts)."""
    owner, name = pkgutil.resolve_name(target.rpartition('.')[0]), target.rpartition('.')[2]
    original: Any = getattr(owner, name)
    seen = [0]

    def fatal(*args: Any, **kwargs: Any) -> Any:
        seen[0] += bool(when(*args, **kwargs))
        if seen[0] == call and when(*args, **kwargs):
            last_words(*args, **kwargs)
            raise Killed(target)
        return original(*args, **kwargs)

    with mock.patch.object(owner, name, fatal):
        yield


def call(argv: List[str], *deaths: Any, die_after: Optional[int] = None) -> Tuple[Optional[int], int]:
    """Run the train command here; returns its exit code (None: killed) and how many updates it made."""
    def note(count: int) -> None:
        if count == die_after:
            raise Killed(f'after update {count}')

    with ExitStack() as stack, counted_updates(note) as count:
        for death in deaths:
            stack.enter_context(death)
        try:
            return train_smalldata.main(argv), count[0]
        except Killed:
            return None, count[0]


# --- comparing ------------------------------------------------------------------------------------------------------

def report_of(folder: Path) -> Dict[str, Any]:
    return json.loads((folder / 'report.json').read_text(encoding='utf-8'))


def saved_epochs(folder: Path) -> int:
    """How many epochs the folder's last whole checkpoint holds."""
    state = checkpoint.load_last(folder)
    return 0 if state is None else state['epoch'] + 1


def finished(start: Dict[str, Any]) -> int:
    """How many updates a start of the process finished, by its own record."""
    return 0 if start['last_update'] is None else start['last_update'] - start['first_update'] + 1


def differences(folder: Path, reference: Path) -> List[str]:
    """What differs from the unbroken run: tensors, tables, the report without its times."""
    found = []
    ours, theirs = (load_file(path / 'model' / 'model.safetensors') for path in (folder, reference))
    if ours.keys() != theirs.keys():
        found.append('names of tensors')
    found += [f'tensor {name}' for name in theirs if name in ours and not torch.equal(ours[name], theirs[name])]
    for name in ('summary.csv', 'per_class.csv', 'confusion.csv', 'split.json', 'class_stats.json',
                 'model/config.json'):
        if (folder / name).read_bytes() != (reference / name).read_bytes():
            found.append(name)
    first, second = report_of(folder), report_of(reference)
    first.pop('timing'), second.pop('timing')
    return found + [f'report {key}' for key in {*first, *second} if first.get(key) != second.get(key)]


# --- SIGKILL from outside -------------------------------------------------------------------------------------------

def child(counter: str, argv: List[str]) -> int:
    """Run the command; each update adds a byte to the counter."""
    torch.set_num_threads(1)
    with open(counter, 'ab', buffering=0) as stream, counted_updates(lambda count: stream.write(b'.')):
        return train_smalldata.main(argv)


class Forked:
    """A child that has imported everything already: it begins where this process stands, in a second instead of ten."""

    def __init__(self, folder: Path, counter: Path, argv: List[str], slow: bool):
        self._process = multiprocessing.get_context('fork').Process(
            target=self._run, args=(folder, counter, argv, slow))
        self._process.start()

    @staticmethod
    def _run(folder: Path, counter: Path, argv: List[str], slow: bool) -> None:
        os.chdir(folder)
        with open(folder / 'log.txt', 'ab', buffering=0) as log:
            os.dup2(log.fileno(), 1), os.dup2(log.fileno(), 2)
        with noted_writes(counter.with_suffix('.writes'), slow):
            code = child(str(counter), argv)
        sys.stdout.flush(), sys.stderr.flush()
        os._exit(code)

    def poll(self) -> Optional[int]:
        return self._process.exitcode

    def wait(self, timeout: Optional[float] = None) -> int:
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise subprocess.TimeoutExpired('train', timeout or 0)
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self._process.pid or 0, number)


@contextmanager
def noted_writes(notes: Path, slow: bool) -> Iterator[None]:
    """Note where a checkpoint (c, C) and the exported model (x, X) begin and end; `slow` writing takes its time."""
    stream = open(notes, 'ab', buffering=0)

    def noted(function: Callable, begin: bytes, end: bytes) -> Callable:
        def call(*args: Any, **kwargs: Any) -> Any:
            stream.write(begin)
            result = function(*args, **kwargs)
            stream.write(end)
            return result
        return call

    def slowed(function: Callable, seconds: float) -> Callable:
        def call(*args: Any, **kwargs: Any) -> Any:
            time.sleep(seconds if slow else 0)
            return function(*args, **kwargs)
        return call

    with ExitStack() as stack:
        for owner, name, function in (
                (checkpoint, 'save', noted(checkpoint.save, b'c', b'C')),
                (checkpoint._Stream, 'write', slowed(checkpoint._Stream.write, 0.0002)),
                (hub_export, 'sync', slowed(hub_export.sync, 0.005)),
                (run_finish, 'export_model', noted(run_finish.export_model, b'x', b'X'))):
            stack.enter_context(mock.patch.object(owner, name, function))
        yield


def start(folder: Path, argv: List[str], fork: bool = False, slow: bool = False) -> Tuple[Any, Path]:
    counter = folder / f'updates-{time.time_ns()}'
    counter.touch()
    if fork:
        counter.with_suffix('.writes').touch()
        return Forked(folder, counter, argv, slow), counter
    with open(folder / 'log.txt', 'ab') as log:
        return subprocess.Popen(
            [sys.executable, str(HERE / 'kill_and_resume.py'), '--child', str(counter), '--', *argv],
            cwd=folder, stdout=log, stderr=log, env={**os.environ, 'OMP_NUM_THREADS': '1'}), counter


def kill_at_random(folder: Path, argv: List[str], left: int, chance: random.Random, writing: bool = False) -> Kill:
    """Start, wait for a random update (or write) and a random moment after it, kill.

    Args:
        folder: Where the runs are.
        argv: The command.
        left: How many updates are left, or how many writes.
        chance: Draws.
        writing: Whether to wait for a write.
    """
    process, counter = start(folder, argv, fork=True, slow=writing)
    notes = counter.with_suffix('.writes')
    watched, target = (notes, 2 * chance.randrange(left) + 1) if writing else (counter, chance.randrange(left + 1))
    delay = 0.03 * chance.random() if writing else 0.3 * chance.random() ** 4  # mostly within an update or two
    while process.poll() is None and watched.stat().st_size < target:
        time.sleep(0.0005)
    try:
        process.wait(delay)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
    died, written = process.wait() == -signal.SIGKILL, notes.read_bytes()
    return Kill(died, counter.stat().st_size, written.count(b'c') > written.count(b'C'),
                written.count(b'x') > written.count(b'X'))


def wrong_record(before: List[Dict], after: List[Dict], first: int, updates: int) -> List[str]:
    """What a killed start wrote of itself, against the updates counted outside: the last may be begun, not finished."""
    if not updates and after == before:  # it died before its first line
        return []
    if after[:-1] == before and after[-1]['first_update'] == first and 0 <= updates - finished(after[-1]) <= 1:
        return []
    return [f'starts {after} after {before}, first update {first}, {updates} updates']


def finish(folder: Path, argv: List[str], fork: bool = False) -> int:
    """Run to the end; returns the number of updates."""
    process, counter = start(folder, argv, fork)
    if process.wait():
        raise SystemExit(f'{" ".join(argv)} failed:\n' + (folder / 'log.txt').read_text(errors='replace')[-3000:])
    return counter.stat().st_size


def too_few(kills: Dict[str, int], least: int) -> List[str]:
    """What is said of tasks whose runs were killed less often than they should have been."""
    return [f'{name}: {count} kills, and {least} were to be' for name, count in kills.items() if count < least]


def killed_run(
        folder: Path, name: str, extra: List[str], number: int, total: int, turn: int, chance: random.Random,
) -> Tuple[List[Kill], List[str]]:
    """Kill one run of a task up to three times, let it end, and compare it; returns the kills and what is wrong."""
    variant, more = VARIANTS[turn % len(VARIANTS)]
    experiment = f'{name}-killed-{number}'.replace(' ', '-')
    run, reference = folder / 'runs' / experiment, folder / 'runs' / name.replace(' ', '-')
    kills, wrong, record = list[Kill](), list[str](), not name.startswith('recipe')
    argv = command(extra, experiment, '--resume', 'auto', *more, '--cache-dir', f'cache-{experiment}')
    per_epoch, made = max(total // EPOCHS, 1), 0
    while len(kills) < 3 and (not is_finished(run, reference) or not kills):
        first, known = saved_epochs(run) * per_epoch if record else min(made, total - 1), read_starts(run)
        left, writing = total - first, variant == 'in a write'
        kill = kill_at_random(folder, argv, max(2 * left // per_epoch, 1) if writing else left, chance, writing)
        wrong += wrong_record(known, read_starts(run), first, kill.updates) if record else []
        if not kill.died or is_finished(run, reference):  # nothing was left to do
            break
        kills.append(kill)
        made += kill.updates
        if variant == 'decoded anew':
            shutil.rmtree(folder / f'cache-{experiment}', ignore_errors=True)
    before, known = saved_epochs(run), read_starts(run)
    updates = finish(folder, argv, fork=True)
    for stage in stages_of(reference):
        wrong += differences(run / stage.relative_to(reference), stage)
    if kills and made + updates > total + 2 * per_epoch * len(kills):  # a thread writes: two epochs may go
        wrong.append(f'{made + updates} updates in all, {total} of the run, {len(kills)} kills')
    if kills and record:
        starts = report_of(run)['timing']['starts']
        if starts[:-1] != known or finished(starts[-1]) != updates:
            wrong.append(f'starts {starts} after {known} and {updates} updates')
        if updates != total - before * per_epoch:
            wrong.append(f'{updates} updates after {before} saved epochs')
        if before and updates >= total:
            wrong.append('nothing was continued')
    in_a_write = sum(kill.in_checkpoint or kill.in_export for kill in kills)
    said = f'DIFFERENT: {", ".join(wrong)}' if wrong else 'equal'
    print(f'{name}, run {number}{variant and f" ({variant})"}: killed after {[kill.updates for kill in kills]}, '
          f'{in_a_write} of them in a write, then {updates} of {total} updates: {said}', flush=True)
    return kills, wrong


def stages_of(run: Path) -> List[Path]:
    """The folders of a run's stages; the run itself where it has one stage."""
    return stage_folders(run) or [run]


def is_finished(run: Path, reference: Path) -> bool:
    """Whether every stage of the unbroken run has its report: nothing is left to kill then."""
    return all((run / stage.relative_to(reference) / 'report.json').exists() for stage in stages_of(reference))


def sigkill(rounds: int, seed: int, least: Optional[int] = None, only: Optional[List[str]] = None) -> int:
    """The long form; returns the exit code."""
    chance, failed, killed, rows = random.Random(seed), 0, dict[str, int](), list[str]()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_data(folder)
        for place, (name, extra) in enumerate([*TASKS, *RECIPES]):
            if only and name not in only:
                continue
            total, equal, kills = finish(folder, command(extra, name.replace(' ', '-')), fork=True), 0, list[Kill]()
            for number in range(rounds):
                more, wrong = killed_run(folder, name, extra, number, total, place + number, chance)
                kills, equal, failed = kills + more, equal + (not wrong), failed + bool(wrong)
            killed[name] = len(kills)
            rows.append(f'| {name} | {rounds} | {len(kills)} | {sum(kill.in_checkpoint for kill in kills)} | '
                        f'{sum(kill.in_export for kill in kills)} | {equal} |')
    missed = too_few(killed, rounds if least is None else least)
    print('\n'.join(['| task | runs | kills | in a checkpoint | in the export | equal |', '|---|---|---|---|---|---|',
                     *rows, *missed, f'{sum(killed.values())} kills in {rounds * len(killed)} runs: '
                     + ('all equal' if not failed else f'{failed} runs differ')]))
    return int(failed > 0 or bool(missed))


def main() -> int:
    if '--child' in sys.argv[1:2]:
        return child(sys.argv[2], sys.argv[4:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--sigkill', type=int, required=True, metavar='N', help='runs of each task')
    parser.add_argument('--seed', type=int, default=0, help='of the moments (their exact place depends on the machine)')
    parser.add_argument('--least', type=int, metavar='N', help='kills of each task below which it fails [--sigkill]')
    parser.add_argument('--only', nargs='+', choices=[name for name, _ in [*TASKS, *RECIPES]], help='these tasks alone')
    args = parser.parse_args()
    torch.set_num_threads(1)
    return sigkill(args.sigkill, args.seed, args.least, args.only)


if __name__ == '__main__':
    sys.exit(main())
