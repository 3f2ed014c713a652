"""The data of a run, and the settings that depend on them."""
from argparse import Namespace
from typing import List, Tuple

import torch

from ..config import auto
from ..config.fit import corrects_prior, mixes, prior_lines
from ..config.late_checks import check_deferred, check_posthoc
from ..config.layers import published_with
from ..config.length import follows
from ..config.plan import Stage
from ..config.recipe import PAPER
from ..config.settings import Settings
from ..data.mirror import mirror_images_fit
from ..data.parallel import cores
from ..errors import UserError
from ..utils.command import typed
from ..utils.console import Voice
from ..utils.device import computes_bfloat16
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
            f'{typed()} FOLDER (FOLDER/CLASS/*.jpg).')
    if settings.get('model'):
        check_model(settings.get('model'))
    opened = open_data(settings.namespace(), world, say.bar)
    side = opened.median_side()
    if not side:
        _refuse_all_bad(opened)
    grey_range = opened.pixel_range()
    if grey_range is not None and settings.get('grey_range') is None:
        settings.settle('grey_range', list(grey_range), 'the images')
    rule = f'{auto.RULE} about {side} px on {device.type}'
    settings.layer(dict(img_size=auto.image_size(side, device.type)), rule)
    args = settings.namespace()
    none_held = _settle_val_fraction(settings, args, opened, rule)
    data = divide(settings.namespace(), opened, world, say.bar)
    if none_held and data.test is not None:
        data.notes.append(
            'no validation images are held out, as every image counts: the last weights are exported, and the test '
            'images give the number (--val-fraction 0.15 holds some out, to compare settings by)')
    settings.resolve('shot_split', data.shot_split)
    settings.resolve('cache_size', 'full' if data.stored_side is None else str(data.stored_side))
    settings.resolve('cache', data.cache)
    if data.cache == 'off':
        settings.layer(dict(workers=min(cores(), 4)), '--cache off')
    lines = settings.notes + data.notes
    _apply_rule(settings, data, world, device, rule, lines)
    args = settings.namespace()

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
    accumulation = settings.values['grad_accum_steps'] = auto.fit_accumulation(
        args, batch, len(data.train), world.world_size, lines)
    global_batch = batch * world.world_size * accumulation
    settings.layer(dict(validation_batch_size=max(2 * batch, 64)), rule)
    for dest, value in follows(settings.get('epochs'), settings).items():
        settings.settle(dest, value, rule)
    settings.layer(
        dict(lr=auto.learning_rate(args.lr_base, args.lr_base_size, args.lr_base_scale, args.opt, global_batch)),
        f'--lr-base {args.lr_base:g} at a global batch of {global_batch}')
    args = settings.namespace()
    check_posthoc(args, 'val' if data.test is None else 'test', data.val is not None,
                  'hold some out (--val-fraction for val, --test-fraction for test)')
    lines += prior_lines(args)
    if not settings.get('time_budget'):
        check_deferred(args)
    return args, data, lines


def _settle_val_fraction(settings: Settings, args: Namespace, opened: Opened, rule: str) -> bool:
    """Hold no validation images out of few where test images give the number; returns whether none are.

    Only where the length is the rule's too: it ends where the last weights are good.
    """
    share = args.test_fraction if args.test_fraction is not None else float(opened.pooled)
    has_test = bool(opened.parts['test'] or args.fold or share)
    wants_val = args.temperature or settings.is_set('select') and args.select == 'best'
    decided = opened.parts['val'] or args.split_file or settings.is_set('val_fraction')
    if decided or wants_val or not has_test or not auto.is_ruled(settings) or settings.is_set('epochs'):
        return False
    fraction = auto.val_fraction(opened.num_train)
    settings.layer(dict(val_fraction=fraction), rule)
    return not fraction


def _apply_rule(
        settings: Settings, data: Data, world: World, device: torch.device, rule: str, lines: List[str]) -> None:
    """Let the rule fill what nobody set, as far as the length of the run does not matter."""
    mirrored = True
    if auto.is_open(settings, 'hflip') and settings.get('recipe_scale') != PAPER:
        mirrored, plain, mirror = world.first(lambda: mirror_images_fit(data.train))
        if not mirrored:
            lines.append(f'no mirror images (--hflip 0): a linear classifier of edges knows {100 * plain:.0f} % of the '
                         f'images and {100 * mirror:.0f} % of their mirror images')
    counts = [n for n in data.classes.counts if n]
    facts = auto.Facts(
        len(data.train), max(counts) / min(counts), device.type, computes_bfloat16(device), mirrored,
        bool(corrects_prior(settings.namespace())))
    for dest, value in auto.choose(facts, settings).items():
        if auto.is_open(settings, dest):
            settings.settle(dest, value, rule)
    if settings.source('loss') == rule and settings.get('loss') != 'ce':
        loss = settings.get('loss')
        for dest in published_with('ce'):
            if settings.source(dest) == '--loss ce':
                del settings.values[dest], settings.sources[dest]
        settings.layer(published_with(loss), f'--loss {loss}')
        lines.append(f'--loss {loss}: the largest class has {facts.ratio:.0f} times the images of the smallest, and '
                     'all classes shall count alike')


def _refuse_all_bad(opened: Opened) -> None:
    for role, sources in opened.parts.items():
        for source, scanned in zip(sources, opened.scans[role]):
            for index, reason in scanned.bad.items():
                where = ('. Paths in tables start at the folder of the table; --image-root names another one'
                         if 'No such file' in reason else '')
                raise UserError(f'No image can be read; the first: {source.names[index]}: {reason}{where}.')
