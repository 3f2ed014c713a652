"""The data of a run, and the settings that depend on them."""
from argparse import Namespace
from typing import List, Tuple

import torch

from ..config import auto
from ..config.fit import mixes, prior_lines
from ..config.late_checks import check_deferred, check_posthoc
from ..config.plan import Stage
from ..errors import UserError
from ..task import task_class
from ..utils.console import Voice
from ..utils.distributed import World
from .model import check_model
from .roles import Data, Opened, divide, open_data


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
    opened = open_data(settings.namespace(), world, say.bar)
    side = opened.median_side()
    if not side:
        _refuse_all_bad(opened)
    rule = f'rule for images of about {side} px on {device.type}'
    settings.layer(dict(img_size=auto.image_size(side, device.type)), rule)
    args = settings.namespace()
    data = divide(args, opened, world, say.bar)
    settings.resolve('cache_size', 'full' if data.stored_side is None else str(data.stored_side))
    settings.layer(auto.choose(len(data.train), device.type, settings), rule)
    args = settings.namespace()
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
    args = settings.namespace()
    check_posthoc(args, 'val' if data.test is None else 'test', data.val is not None,
                  'hold some out (--val-fraction for val, --test-fraction for test)')
    lines += prior_lines(args)
    if not args.time_budget:
        check_deferred(args)
    return args, data, lines


def _refuse_all_bad(opened: Opened) -> None:
    for role, sources in opened.parts.items():
        for source, scanned in zip(sources, opened.scans[role]):
            for index, reason in scanned.bad.items():
                raise UserError(f'No image can be read; the first: {source.names[index]}: {reason}.')
