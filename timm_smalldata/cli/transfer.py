"""The verb experiment with --transfer: every folder is pretrained on once, and each result fine-tuned on every folder.

The first stage of a recipe is run on each folder; its other stages on each, from each of these models and from scratch.
"""
import json
import re
from argparse import Namespace
from pathlib import Path
from typing import Any, Dict, List, Optional

from ..config.plan import Stage, finish_stage, plan
from ..errors import UserError
from ..report.comparison import Run
from ..report.transfer import SCRATCH, write_matrix
from ..utils.console import Voice
from ..utils.files import write_json_atomic
from .experiment import train_all

RECORD = 'transfer.json'


def run(args: Namespace, command: str) -> int:
    """Pretrain, fine-tune, write the matrix and print it; returns the exit code (1: runs failed)."""
    folders, stages, say = name_folders(args.transfer), check_stages(args.train), Voice()
    keep_record(args.output / RECORD, args)
    first, second = stages[0].name, stages[1].name
    skipped = stages[0].given.get('skip_stage') or []  # by the user: the last such flag speaks
    root = args.output / 'runs'
    root.mkdir(parents=True, exist_ok=True)
    others = [stage.name for stage in stages[1:]]
    before = {
        (name, seed): create_run(args, root, name, seed, f'on-{name}', folder, ['--skip-stage', *skipped, *others])
        for seed in args.seeds for name, folder in folders.items()}
    tell(f'{first} on', list(before.values()), say)
    train_all([r for r in before.values() if not r.read()], args.jobs, say)

    after: Dict[Any, Run] = {}
    for seed in args.seeds:
        for target, folder in folders.items():
            after[SCRATCH, target, seed] = create_run(
                args, root, f'{SCRATCH} -> {target}', seed, f'{SCRATCH}-to-{target}', folder,
                ['--skip-stage', *skipped, first])
            for source in folders:
                model = before[source, seed].folder / 'model'
                after[source, target, seed] = r = create_run(
                    args, root, f'{source} -> {target}', seed, f'{source}-to-{target}', folder,
                    [f'--{second}.initial-checkpoint', str(model)])
                if before[source, seed].report is None:
                    r.failure = f'{first} on {source}: {before[source, seed].failure}'
    tell(f'{second} of', list(after.values()), say)
    train_all([r for r in after.values() if not r.failure and not r.read()], args.jobs, say)
    print(write_matrix(args.output, list(folders), after, command), end='')
    return 1 if any(r.report is None for r in after.values()) else 0


def tell(what: str, runs: List[Run], say: Voice) -> None:
    """Say how many runs there are, and how many of them are finished."""
    say(f'{what} {", ".join(dict.fromkeys(r.value for r in runs))}: {len(runs)} runs, '
        f'{sum(r.read() for r in runs)} of them finished already')


def create_run(
        args: Namespace, root: Path, value: str, seed: int, name: str, folder: str, flags: List[str],
) -> Run:
    """Return a run of the train command in its folder."""
    words = [*args.train, '--data-dir', folder, *flags, '--seed', str(seed)]
    name = f'{name}-seed{seed}'
    return Run(value, seed, root / name / plan(words)[-1].folder, root / f'{name}.log', [
        *words, '--output', str(root), '--experiment', name, '--resume', 'auto'])


def name_folders(paths: List[str]) -> Dict[str, str]:
    """Return the folders by the names that they have in the matrix: their last part.

    >>> name_folders(['data/flowers', 'data/my pets/'])
    {'flowers': 'data/flowers', 'my_pets': 'data/my pets/'}
    """
    named: Dict[str, str] = {}
    for path in paths:
        name = re.sub(r'[^A-Za-z0-9.+-]+', '_', Path(path).resolve().name)
        if name in named or name == SCRATCH:
            raise UserError(f'--transfer {path}: another one is called {name} in the matrix; give folders of different '
                            'names.')
        named[name] = path
    if len(named) < 2:
        raise UserError('--transfer: give two or more folders.')
    return named


def check_stages(train: List[str]) -> List[Stage]:
    """Return the stages that the flags of the train command name; the second one starts from the first.

    Raises:
        UserError: They name no recipe of that kind, or images.
    """
    stages: List[Stage] = plan(train)
    given: Optional[str] = next(
        (dest for stage in stages for dest in ('data_dir', 'dataset', 'output', 'experiment', 'seed', 'resume')
         if dest in stage.given), None)
    if given:
        raise UserError(f"--{given.replace('_', '-')} is set by the experiment itself: leave it out after --.")
    if len(stages) < 2 or stages[1].start_from != stages[0].name:
        raise UserError('--transfer needs a recipe whose second stage starts from the first, after --: '
                        '-- --recipe idmm --scale cpu')
    for stage in stages:
        finish_stage(stage)
    return stages


def keep_record(path: Path, args: Namespace) -> None:
    """Write down the flags; folders may be added later, flags of the training may not change."""
    if path.is_file():
        before = json.loads(path.read_text(encoding='utf-8'))
        if before['train'] != args.train:
            raise UserError(f"{path.parent} holds runs with other flags: {' '.join(before['train'])}. Name another "
                            '--output.')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f'--output {path.parent}: {error.strerror}.') from error
    write_json_atomic(path, dict(transfer=args.transfer, train=args.train))
