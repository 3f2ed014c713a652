#!/usr/bin/env python3
"""Kill a run, continue it, and compare it bit for bit with a run that nobody disturbed.

    python tests/helpers/kill_and_resume.py --sigkill 3  # each task: 3 runs, each killed by SIGKILL at random moments

A run that was never killed proves nothing: the script fails where a task had fewer kills than runs (or --least).
The test suite (test_resume.py) uses the same tasks, but kills with an exception at chosen places.
A new task adds a line to TASKS.
"""
import argparse
import json
import os
import pkgutil
import random
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple
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
from timm_smalldata.hub.export import export_model  # noqa: E402
from timm_smalldata.optim import SAM  # noqa: E402
from timm_smalldata.run import trainer  # noqa: E402
from timm_smalldata.run.starts import read_starts  # noqa: E402

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


def start(folder: Path, argv: List[str]) -> Tuple[subprocess.Popen, Path]:
    counter = folder / f'updates-{time.time_ns()}'
    counter.touch()
    with open(folder / 'log.txt', 'ab') as log:
        return subprocess.Popen(
            [sys.executable, str(HERE / 'kill_and_resume.py'), '--child', str(counter), '--', *argv],
            cwd=folder, stdout=log, stderr=log, env={**os.environ, 'OMP_NUM_THREADS': '1'}), counter


def kill_at_random(folder: Path, argv: List[str], left: int, chance: random.Random) -> Tuple[bool, int]:
    """Start, wait for a random update and a random moment after it, kill; returns whether it died, and its updates."""
    process, counter = start(folder, argv)
    target, delay = chance.randrange(left + 1), 0.3 * chance.random() ** 4  # mostly within an update or two
    while process.poll() is None and counter.stat().st_size < target:
        time.sleep(0.001)
    try:
        process.wait(delay)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
    return process.wait() == -signal.SIGKILL, counter.stat().st_size


def wrong_record(before: List[Dict], after: List[Dict], first: int, updates: int) -> List[str]:
    """What a killed start wrote of itself, against the updates counted outside: the last may be begun, not finished."""
    if not updates and after == before:  # it died before its first line
        return []
    if after[:-1] == before and after[-1]['first_update'] == first and 0 <= updates - finished(after[-1]) <= 1:
        return []
    return [f'starts {after} after {before}, first update {first}, {updates} updates']


def finish(folder: Path, argv: List[str]) -> int:
    """Run to the end; returns the number of updates."""
    process, counter = start(folder, argv)
    if process.wait():
        raise SystemExit(f'{" ".join(argv)} failed:\n' + (folder / 'log.txt').read_text(errors='replace')[-3000:])
    return counter.stat().st_size


def too_few(kills: Dict[str, int], least: int) -> List[str]:
    """What is said of tasks whose runs were killed less often than they should have been."""
    return [f'{name}: {count} kills, and {least} were to be' for name, count in kills.items() if count < least]


def sigkill(rounds: int, seed: int, least: Optional[int] = None, only: Optional[List[str]] = None) -> int:
    """The long form; returns the exit code."""
    chance, failed, killed = random.Random(seed), 0, dict[str, int]()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_data(folder)
        for name, extra in TASKS:
            if only and name not in only:
                continue
            killed[name], total = 0, finish(folder, command(extra, name))
            for number in range(rounds):
                experiment, kills = f'{name}-killed-{number}', []
                run, wrong = folder / 'runs' / experiment, []
                argv = command(extra, experiment, '--resume', 'auto')
                while len(kills) < 3 and (saved_epochs(run) < EPOCHS or not kills):
                    first, known = saved_epochs(run) * (total // EPOCHS), read_starts(run)
                    died, updates = kill_at_random(folder, argv, total - first, chance)
                    wrong += wrong_record(known, read_starts(run), first, updates)
                    if not died or (run / 'report.json').exists():  # nothing was left to do
                        break
                    kills.append((updates, saved_epochs(run)))
                before, known = saved_epochs(run), read_starts(run)
                updates = finish(folder, argv)
                wrong += differences(run, folder / 'runs' / name)
                starts = report_of(run)['timing']['starts']
                if kills and (starts[:-1] != known or finished(starts[-1]) != updates):
                    wrong.append(f'starts {starts} after {known} and {updates} updates')
                if kills and updates != total - before * (total // EPOCHS):
                    wrong.append(f'{updates} updates after {before} saved epochs')
                if kills and before and updates >= total:
                    wrong.append('nothing was continued')
                failed += bool(wrong)
                killed[name] += len(kills)
                print(f'{name}, run {number}: killed after (updates, saved epochs) {kills}, then {updates} of {total} '
                      f'updates: {"equal" if not wrong else "DIFFERENT: " + ", ".join(wrong)}', flush=True)
    missed = too_few(killed, rounds if least is None else least)
    print('\n'.join(missed + [f'{sum(killed.values())} kills in {rounds * len(killed)} runs: '
                              + ('all equal' if not failed else f'{failed} runs differ')]))
    return int(failed > 0 or bool(missed))


def main() -> int:
    if '--child' in sys.argv[1:2]:
        return child(sys.argv[2], sys.argv[4:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--sigkill', type=int, required=True, metavar='N', help='runs of each task')
    parser.add_argument('--seed', type=int, default=0, help='of the moments (their exact place depends on the machine)')
    parser.add_argument('--least', type=int, metavar='N', help='kills of each task below which it fails [--sigkill]')
    parser.add_argument('--only', nargs='+', choices=[name for name, _ in TASKS], help='these tasks alone')
    args = parser.parse_args()
    return sigkill(args.sigkill, args.seed, args.least, args.only)


if __name__ == '__main__':
    sys.exit(main())
