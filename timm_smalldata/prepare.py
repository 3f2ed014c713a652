"""Before a model exists: the run folder, an earlier checkpoint, the data, and the settings that depend on them."""
import os
from argparse import Namespace
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import torch

from . import checkpoint
from .backbone import check_model
from .config import auto
from .config.checks import check_deferred, check_posthoc, mixes, prior_lines
from .config.layers import CONTINUED
from .config.plan import Stage
from .data.classes import ClassInfo
from .data.roles import Data, Opened, divide, open_data
from .errors import UserError
from .starts import copy_starts
from .task import task_class
from .utils.console import Voice
from .utils.distributed import World

_NOT_KEPT = ('resume', 'no_resume_opt', 'dry_run', 'force', 'push_to_hub', 'stop_epoch', 'world_size')


def kept_device(stage: Stage, folder: Path, resume: Optional[str]) -> Optional[str]:
    """Return the device of the run that is to be continued; None for a new one."""
    path = folder if resume == 'auto' else Path(resume or '')
    if not resume or not path.exists() or (resume == 'auto' and not stage.settings.get('experiment')):
        return None
    saved = checkpoint.load_last(path) if path.is_dir() else checkpoint.load(path)
    return None if saved is None else saved['args'].device


def find_run(stage: Stage, folder: Path, resume: Optional[str], world: World, say: Voice) -> Optional[Dict[str, Any]]:
    """Return the checkpoint to continue, or None; its settings fill what the user does not give now.

    Raises:
        UserError: The folder holds a run and nothing was said about resuming; settings changed; nothing can be written.
    """
    settings = stage.settings
    if resume and resume != 'auto':
        path = Path(resume)
        saved = checkpoint.load_last(path) if path.is_dir() else checkpoint.load(path)
        if saved is None:
            raise UserError(f'--resume {resume}: no checkpoint there.')
        source = path if path.is_dir() else path.parent
        if source.resolve() != folder.resolve():
            world.first(lambda: _take_along(saved, source, folder))
    else:
        saved = checkpoint.load_last(folder)
        if saved is not None and resume is None:
            raise UserError(
                f'{folder} already holds a run: continue it with --resume auto, or choose another --experiment.')
        if resume == 'auto' and saved is None and not stage.name:
            say(f'--resume auto: no checkpoint in {folder} yet, starting at epoch 0.')
    world.first(lambda: _check_writable(folder))
    if saved is not None:
        checkpoint.check_unchanged(saved, stage.given, world.world_size, settings.get('force'), settings.notes)
        kept = {dest: value for dest, value in vars(saved['args']).items() if dest not in _NOT_KEPT}
        for dest in kept:  # what a preset or recipe says today gives way to what the run was started with
            left = dest not in stage.given or (dest in checkpoint.AUTO and stage.given[dest] == 'auto')
            if left and settings.is_set(dest) and dest not in ('output', 'experiment'):
                del settings.values[dest], settings.sources[dest]
        settings.layer(kept, CONTINUED)
    return saved


def _check_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f'.write-{os.getpid()}'
        probe.write_bytes(b'')
        probe.unlink()
        for half in folder.glob('.*.tmp'):  # what a killed process was writing
            half.unlink()
    except OSError as error:
        raise UserError(f'Cannot write to {folder}: {error.strerror}. Choose another --output.') from error


def _take_along(saved: Dict[str, Any], source: Path, folder: Path) -> None:
    """Bring the best weights and the earlier starts along when a checkpoint of another folder is continued."""
    best = saved.get('best')
    state = checkpoint.load_best(source, best['epoch']) if best else None
    if best and state is None:
        raise UserError(
            f"{source / checkpoint.BEST} is gone: the run's best epoch {best['epoch']} cannot be continued.")
    _check_writable(folder)
    copy_starts(source, folder)
    if state is not None:
        checkpoint.save(state, folder / checkpoint.BEST)


def check_same_data(saved: Dict[str, Any], data: Data, force: bool, lines: List[str]) -> None:
    """Refuse to continue a run on other images, or on classes of other names."""
    old, classes = ClassInfo.from_dict(saved['classes']), data.classes
    if old == classes and saved.get('split', '') == data.split_hash():
        return
    if old == classes:
        text = 'The validation or test images are not those that the run was started with'
        if not force:
            raise UserError(f'{text}: start a new --experiment, or insist with --force.')
        lines.append(f'{text} (--force)')
        return
    what = 'classes' if old.names != classes.names else 'training images'
    then, now = (old.names, classes.names) if what == 'classes' else (old.data_hash[:12], classes.data_hash[:12])
    text = f'The {what} are not those that the run was started with ({then} then, {now} now)'
    if not force:
        raise UserError(f'{text}: start a new --experiment, or insist with --force.')
    lines.append(f'{text} (--force)')


def prepare(stage: Stage, world: World, device: torch.device, say: Voice) -> Tuple[Namespace, Data, List[str]]:
    """Open the data, let the rule fill what nobody set, divide the data.

    Returns:
        The settings, the data, and lines to print.
    """
    settings = stage.settings
    if settings.source('dataset') == 'no data named':
        say(f"No data named: training on the embedded sample {settings.get('dataset')}. For your own images: "
            'train_smalldata.py FOLDER (FOLDER/CLASS/*.jpg).')
    if settings.get('model'):
        check_model(settings.get('model'))
    opened = open_data(_namespace(stage, world), say.bar)
    side = opened.median_side()
    if not side:
        _refuse_all_bad(opened)
    rule = f'rule for images of about {side} px on {device.type}'
    settings.layer(dict(img_size=auto.image_size(side, device.type)), rule)
    args = _namespace(stage, world)
    data = divide(args, opened, max([args.img_size, *(args.train_img_sizes or [])]), say.bar)
    settings.resolve('cache_size', 'full' if data.stored_side is None else str(data.stored_side))
    settings.layer(auto.choose(len(data.train), device.type, settings), rule)
    args = _namespace(stage, world)
    lines = settings.notes + data.notes

    # then it is the global batch
    source = settings.source('batch_size') or ''
    chosen_by_us = source in (rule, args.dataset, f'--task {args.task}') or source.startswith('recipe ')
    batch = max(args.batch_size // world.world_size // 2 * 2, 2) if chosen_by_us else args.batch_size
    batch = settings.values['batch_size'] = auto.fit_batch(batch, len(data.train), world.world_size, lines)
    for size in [batch, *(args.train_batch_sizes or [])]:
        if mixes(args) and size % 2:
            raise UserError(f'A batch of {size} images is odd, but mixup and cutmix pair images: choose an even one '
                            '(--batch-size, --train-batch-sizes).')
    if args.train_batch_sizes and not args.train_img_sizes:
        raise UserError('--train-batch-sizes goes with --train-img-sizes.')
    global_batch = batch * world.world_size * max(args.grad_accum_steps, 1)
    settings.layer(dict(validation_batch_size=max(2 * batch, 64)), rule)
    settings.layer(dict(warmup_epochs=auto.warmup(settings.get('epochs'), args.task)), 'default')
    if not task_class(args.task).supervised:
        settings.layer(dict(probe_interval=auto.probe_interval(settings.get('epochs'))), 'default')
    settings.layer(
        dict(lr=auto.learning_rate(args.lr_base, args.lr_base_size, args.lr_base_scale, args.opt, global_batch)),
        f'--lr-base {args.lr_base:g} at a global batch of {global_batch}')
    args = _namespace(stage, world)
    check_posthoc(args, 'val' if data.test is None else 'test', data.val is not None,
                  'hold some out (--val-fraction for val, --test-fraction for test)')
    lines += prior_lines(args)
    if not args.time_budget:
        check_deferred(args)
    return args, data, lines


def _namespace(stage: Stage, world: World) -> Namespace:
    args = stage.settings.namespace()
    args.world = world
    return args


def _refuse_all_bad(opened: Opened) -> None:
    for role, sources in opened.parts.items():
        for source, scanned in zip(sources, opened.scans[role]):
            for index, reason in scanned.bad.items():
                raise UserError(f'No image can be read; the first: {source.names[index]}: {reason}.')
