"""From settings to batches: the loader of training views and that of the one evaluation view."""
from argparse import Namespace
from typing import List, Optional

import torch

from ..config.length import total_epochs
from ..data.batch.images import PackedImages
from ..data.loader import ViewLoader, create_loader
from ..data.sampler import SequentialSampler, create_sampler
from ..data.source import ImageSource
from ..data.views import ViewSpec
from ..errors import UserError
from ..utils.distributed import World


def train_loader(
        args: Namespace, source: ImageSource, views: List[ViewSpec], world: World, device: torch.device,
) -> ViewLoader:
    """Create the loader of training views; with `--train-img-sizes` timm schedules the sizes."""
    from timm.data import ScheduledBatchSampler
    sampler = create_sampler(
        source.targets, args.sampler, args.sampler_power, repeats=args.aug_repeats, epochs=total_epochs(args),
        drs_epoch=args.drs_epoch, seed=args.seed, rank=world.rank, world_size=world.world_size)
    batch_sampler = None
    if args.train_img_sizes:
        batches = args.train_batch_sizes or [args.batch_size] * len(args.train_img_sizes)
        if len(batches) != len(args.train_img_sizes):
            raise UserError(
                f'--train-batch-sizes names {len(batches)} sizes, --train-img-sizes {len(args.train_img_sizes)}.')
        try:
            batch_sampler = ScheduledBatchSampler(
                sampler, batches, args.train_size_probs, seed=args.seed, num_batches=args.train_batches_per_epoch,
                choice_schedule=args.train_size_schedule, schedule_epochs=total_epochs(args),
                schedule_spread=args.train_size_schedule_spread, schedule_random_mix=args.train_size_random_mix)
        except ValueError as error:
            raise UserError(f'--train-img-sizes: {error}') from error
    loader = create_loader(
        source, sampler, views, args.batch_size, seed=args.seed, device=device, drop_last=True,
        workers=args.workers or 0, pin_memory=args.pin_mem, channels_last=args.channels_last,
        sizes=args.train_img_sizes, batch_sampler=batch_sampler, augment_on=args.augment_on,
        held=held_images(args, source, device))
    if not len(loader):  # repeated augmentation rounds an epoch down
        raise UserError(f'An epoch of {len(sampler)} draws has no full batch of {args.batch_size}: lower --batch-size.')
    return loader


def held_images(args: Namespace, source: ImageSource, device: torch.device) -> Optional[PackedImages]:
    """Return the decoded training images on a GPU that makes the views, if they take a quarter of its free memory."""
    if args.augment_on != 'device' or device.type != 'cuda' or args.cache == 'off':
        return None
    needed = sum(source.pixels(index).nbytes for index in range(len(source)))
    if needed > torch.cuda.mem_get_info(device)[0] // 4:
        return None
    return PackedImages.held(source, device)


def eval_loader(
        args: Namespace, source: Optional[ImageSource], spec: ViewSpec, world: World, device: torch.device,
        keep: bool = False,
) -> Optional[ViewLoader]:
    """Create the loader of the one deterministic view, None where there are no images; `keep`: it is used again."""
    if source is None:
        return None
    return create_loader(
        source, SequentialSampler(len(source), world.rank, world.world_size), [spec], args.validation_batch_size,
        device=device, workers=args.workers or 0, pin_memory=args.pin_mem, channels_last=args.channels_last, keep=keep)
