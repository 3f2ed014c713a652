"""From settings to the task that trains a model, and the metric that chooses its weights."""
from argparse import Namespace
from functools import partial
from typing import Optional, Sequence, Tuple

import torch
from torch import nn

from ..config.length import ema_decay, eval_interval
from ..data.views import ViewSpec
from ..errors import UserError, nearest
from ..task import TaskHooks, TaskSetting, task_class
from ..utils.distributed import World
from .loss import create_criterion, create_mixup
from .roles import Data
from .trained import load_teacher


def create_task(
        args: Namespace,
        model: nn.Module,
        data: Data,
        view: ViewSpec,
        device: torch.device,
        world: World = World(),
) -> TaskHooks:
    """Create the task with everything the loop needs of it."""
    model.to(device)
    if args.channels_last:
        model.to(memory_format=torch.channels_last)
    classes = data.classes
    setting = TaskSetting(classes, len(data.train), view, device, partial(create_criterion, args, classes),
                          world.world_size, load_teacher)
    created = task_class(args.task).from_settings(args, model, setting)
    created.configure(
        view=view, classes=classes, groups=data.groups, mixup=create_mixup(args, len(classes)),
        mixup_off_epoch=args.mixup_off_epoch, aug_splits=args.aug_splits, resplit=args.resplit,
        clip_grad=args.clip_grad, clip_mode=args.clip_mode,
        frozen=args.freeze_backbone, reweight=reweighting(args, created.reweighted(), classes.counts))
    if args.model_ema and created.owns_ema:
        raise UserError(f'--model-ema does not go with --task {args.task}: its average of the weights is the method.')
    return created


def average_weights(args: Namespace, task: TaskHooks, updates: int) -> None:
    """Let the task keep an average of its weights, where that is asked for, at a decay for so many updates."""
    if args.model_ema:
        args.model_ema_decay = ema_decay(args, updates)
        task.setup_ema(
            decay=args.model_ema_decay, use_warmup=args.model_ema_warmup,
            device=torch.device('cpu') if args.model_ema_force_cpu else None)


def selection(args: Namespace, task: TaskHooks, data: Data) -> Tuple[Optional[str], int]:
    """Return the metric that selects (None where nothing is evaluated in training) and its direction."""
    evaluator, metric = task.create_evaluator(), args.eval_metric
    known = [name for name in evaluator.metric_names if task.supervised or name != 'loss']
    if metric not in known:
        raise UserError(
            f'Unknown --eval-metric {metric!r}{nearest(metric, known)} for --task {args.task}; known: '
            f'{", ".join(known)}.')
    if metric in data.groups and not data.groups[metric]:
        raise UserError(f'--eval-metric {metric}: no class is in that group with --shot-split {args.shot_split}.')
    if data.val is None or not eval_interval(args):
        return None, 1
    return metric, -1 if metric in getattr(evaluator, 'decreasing', ()) else 1


def reweighting(args: Namespace, reweighted: object, counts: Sequence[int]) -> Optional[Tuple[int, torch.Tensor]]:
    """Return (epoch, class weights (C,)) of deferred re-weighting, or None where it is not asked for.

    Raises:
        UserError: The loss takes no class weights.
    """
    if args.drw_epoch is None:
        return None
    from ..loss import effective_number_weights
    if not hasattr(reweighted, 'set_class_weight'):
        raise UserError(
            f'--drw-epoch weighs the classes, which --loss {args.loss} does not take: use ce, focal, ldam, '
            'class-balanced-ce or class-balanced-focal.')
    return args.drw_epoch, effective_number_weights(counts, args.drw_beta)
