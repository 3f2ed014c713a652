"""From settings to how it is trained: optimizer, schedule, precision, compiling and processes."""
from argparse import Namespace
from contextlib import nullcontext
from functools import partial
from typing import Any, Callable, Optional, Tuple

import torch
from torch import nn

from .._compat import set_muon_dtype
from ..config.sharpness import rho_schedule
from ..errors import UserError, nearest
from ..optim import SAM
from ..task import TaskHooks
from ..utils.distributed import World


def create_optimizer(args: Namespace, module: nn.Module) -> torch.optim.Optimizer:
    """Create timm's optimizer with its parameter groups, inside SAM where the flags ask for it."""
    from timm.optim import create_optimizer_v2, optimizer_kwargs
    set_muon_dtype(getattr(torch, getattr(args, 'muon_dtype', None) or 'bfloat16'))
    try:
        optimizer = create_optimizer_v2(module, **optimizer_kwargs(cfg=args), **args.opt_kwargs)
    except (ValueError, KeyError, AssertionError, TypeError, ImportError) as error:
        raise UserError(f'--opt {args.opt}: {error}') from error
    rho = rho_schedule(args)
    return SAM.wrap(optimizer, rho.largest, args.sam_adaptive) if rho else optimizer


def optimizer_of_epoch(args: Namespace, optimizer: torch.optim.Optimizer, epoch: int) -> torch.optim.Optimizer:
    """Set SAM's radius for an epoch; returns what makes its updates: the base alone, in one pass, where it is 0."""
    if not isinstance(optimizer, SAM):
        return optimizer
    optimizer.rho, optimizer.adaptive = rho_schedule(args).at(epoch), args.sam_adaptive
    return optimizer if optimizer.rho else optimizer.base


def create_schedule(
        args: Namespace, optimizer: torch.optim.Optimizer, updates_per_epoch: int, first_epoch: int,
) -> Tuple[Any, int]:
    """Create timm's scheduler, set to the first epoch; returns it and the number of epochs."""
    from timm.scheduler import MultiStepLRScheduler, create_scheduler_v2, scheduler_kwargs
    if args.sched.startswith('plateau'):
        raise UserError('--sched plateau has a memory that no checkpoint holds, and timm drops it: use cosine or wsd.')
    try:
        schedule, num_epochs = create_scheduler_v2(
            optimizer, **scheduler_kwargs(args), updates_per_epoch=updates_per_epoch)
        if isinstance(schedule, MultiStepLRScheduler):  # timm's drops lie a step before their milestones
            schedule.decay_t = [milestone + 1 for milestone in schedule.decay_t]
        if schedule is not None and args.sched_on_updates:
            schedule.step_update(first_epoch * updates_per_epoch)
        elif schedule is not None:
            schedule.step(first_epoch)
    except (ValueError, AssertionError, TypeError, NotImplementedError) as error:
        raise UserError(f'--sched {args.sched}: {error}') from error
    return schedule, num_epochs


def precision(args: Namespace, device: torch.device) -> Tuple[Callable, Optional[Any]]:
    """Return what makes the autocast context, and the gradient scaler of float16 (else None)."""
    if not args.amp:
        return nullcontext, None
    dtype = getattr(torch, args.amp_dtype)
    if dtype == torch.float16 and rho_schedule(args):
        raise UserError('--amp-dtype float16 scales gradients, which the two passes of SAM cannot take: use bfloat16.')
    scaler = torch.amp.GradScaler(device=device.type) if dtype == torch.float16 else None
    return partial(torch.autocast, device_type=device.type, dtype=dtype), scaler


def compile_and_distribute(args: Namespace, task: TaskHooks, world: World, device: torch.device) -> None:
    """Compile the model and wrap it for several processes, in this order."""
    if args.torchcompile:
        known = [*torch.compiler.list_backends(), 'eager', 'aot_eager']
        if args.torchcompile not in known:
            raise UserError(f'--torchcompile {args.torchcompile}: no such backend{nearest(args.torchcompile, known)}.')
        task.compile(backend=args.torchcompile, mode=args.torchcompile_mode)
        if task.has_ema():
            task.compile_ema(backend=args.torchcompile, mode=args.torchcompile_mode)
    if world.distributed:
        if args.sync_bn and device.type == 'cuda':
            task.trainable_module = nn.SyncBatchNorm.convert_sync_batchnorm(task.trainable_module)
        task.prepare_distributed(
            device_ids=None if device.type == 'cpu' else [device],
            **(dict(broadcast_buffers=False) if args.no_ddp_bb else {}))
