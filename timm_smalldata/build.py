"""From settings to what trains a model: views, loss, mixing, task."""
from argparse import Namespace
from functools import partial
from typing import Any, Dict, List, Optional, Tuple

import torch
from torch import nn

from .config.auto import eval_interval
from .config.checks import mixes
from .data.classes import ClassInfo
from .data.roles import Data
from .data.views import Augment, Crop, Erase, ViewSpec, check_view, eval_view
from .deferred import reweighting
from .errors import UserError, nearest
from .task import TaskSetting, task_class


def data_config(args: Namespace, model: nn.Module) -> Dict[str, Any]:
    """Return the preprocessing that goes with the model, in timm's terms."""
    config: Any = model.pretrained_cfg
    return dict(
        input_size=(3, args.img_size, args.img_size),
        mean=_channels(args.mean, '--mean') or tuple(config['mean']),
        std=_channels(args.std, '--std') or tuple(config['std']),
        interpolation=args.interpolation,
        crop_pct=args.crop_pct,
        crop_mode='center',
    )


def _channels(values: Optional[List[float]], flag: str) -> Tuple[float, ...]:
    if values and len(values) not in (1, 3):
        raise UserError(f'{flag} takes one value or three (red, green, blue), not {len(values)}.')
    return tuple(values * (3 // len(values))) if values else ()


def create_views(args: Namespace, config: Dict[str, Any]) -> Tuple[ViewSpec, ViewSpec]:
    """Return the training view and the evaluation view."""
    jitter = args.color_jitter
    train = ViewSpec(
        args.img_size,
        Crop(
            args.train_crop_mode,
            scale=tuple(args.scale) if args.scale and args.train_crop_mode not in ('src', 'none') else None,
            ratio=tuple(args.ratio) if args.ratio else None,
            hflip=args.hflip, vflip=args.vflip, interpolation=args.train_interpolation),
        Augment(
            args.aa or None,
            None if jitter is None else jitter[0] if len(jitter) == 1 else tuple(jitter),
            args.color_jitter_prob, args.grayscale_prob, args.gaussian_blur_prob),
        Erase(args.reprob, args.remode, args.recount),
        config['mean'], config['std'])
    judged = eval_view(args.img_size, config['crop_pct'], config['interpolation'], config['mean'], config['std'])
    for spec, flags in ((train, '--aa, --train-interpolation, --remode'), (judged, '--interpolation, --crop-pct')):
        try:
            check_view(spec)
        except (AssertionError, KeyError, ValueError, TypeError) as error:
            reason = f'unknown value {error}' if isinstance(error, KeyError) else error
            raise UserError(f'The view cannot be built ({flags}): {str(reason) or "unknown value"}.') from error
    return train, judged


def create_criterion(args: Namespace, classes: ClassInfo, smoothing: Optional[float] = None) -> nn.Module:
    """Create the loss, its class counts taken from the data; `smoothing` replaces that of the settings."""
    from timm.loss import resolve_class_weights

    from .loss import Regularised, Rescaled, create_loss
    smoothing = args.smoothing or 0.0 if smoothing is None else smoothing
    kwargs: Dict[str, Any] = {}
    if args.loss_tau is not None and args.loss in ('balanced-bce', 'logit-adjusted'):
        kwargs['tau'] = args.loss_tau
    if args.loss == 'bce':
        kwargs.update(bce_target_thresh=args.bce_target_thresh, bce_sum=args.bce_sum)
        stats = (torch.tensor(classes.counts, dtype=torch.float32), sum(classes.counts))
        for dest, key in (('loss_class_weight', 'class_weight'), ('loss_pos_weight', 'pos_weight')):
            value = getattr(args, dest)
            if value is not None:
                try:
                    kwargs[key] = resolve_class_weights(value, key, stats, power=args.loss_weight_power)
                except (ValueError, TypeError) as error:
                    raise UserError(f'--{dest.replace("_", "-")} {value}: {error}') from error
        if args.bce_pos_weight is not None:
            kwargs['pos_weight'] = args.bce_pos_weight
    if args.loss == 'poly':
        kwargs['poly_epsilon'] = args.poly_epsilon
    if args.loss == 'ldam':
        kwargs['scale'] = args.head_scale
    if args.loss == 'jsd':
        kwargs['jsd_splits'] = args.aug_splits
    kwargs.update(args.loss_kwargs)
    try:
        criterion = create_loss(args.loss, classes.counts, smoothing=smoothing, **kwargs)
    except (ValueError, TypeError) as error:
        raise UserError(f'--loss {args.loss}: {error}') from error
    if args.loss == 'ldam':  # it sets margins between cosines; the head's output is scale * cosine
        return Rescaled(criterion, 1 / args.head_scale)
    if args.loss == 'lade':  # its cross-entropy is that of the training prior (paper, sec. 3.3)
        return Regularised(create_loss('balanced-softmax', classes.counts, smoothing), criterion, args.lade_weight)
    return criterion


def create_mixup(args: Namespace, num_classes: int) -> Any:
    """Return timm's mixing, or None."""
    from timm.data import Mixup
    if not mixes(args):
        return None
    return Mixup(
        mixup_alpha=args.mixup, cutmix_alpha=args.cutmix, cutmix_minmax=args.cutmix_minmax, prob=args.mixup_prob,
        switch_prob=args.mixup_switch_prob, mode=args.mixup_mode, label_smoothing=args.smoothing or 0.0,
        num_classes=num_classes)


def create_task(
        args: Namespace,
        model: nn.Module,
        data: Data,
        view: ViewSpec,
        device: torch.device,
) -> Any:
    """Create the task with everything the loop needs of it."""
    model.to(device)
    if args.channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    classes = data.classes
    setting = TaskSetting(classes, len(data.train), view, device, partial(create_criterion, args, classes))
    created: Any = task_class(args.task).from_settings(args, model, setting)
    created.configure(
        view=view, classes=classes, groups=data.groups, mixup=create_mixup(args, len(classes)),
        mixup_off_epoch=args.mixup_off_epoch, aug_splits=args.aug_splits, resplit=args.resplit,
        clip_grad=args.clip_grad, clip_mode=args.clip_mode,
        frozen=args.freeze_backbone, reweight=reweighting(args, created.reweighted(), classes.counts))
    if args.model_ema:
        if created.owns_ema:
            raise UserError(
                f'--model-ema does not go with --task {args.task}: its average of the weights is the method.')
        created.setup_ema(
            decay=args.model_ema_decay, use_warmup=args.model_ema_warmup,
            device=torch.device('cpu') if args.model_ema_force_cpu else None)
    return created


def selection(args: Namespace, task: Any, data: Data) -> Tuple[Optional[str], int]:
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
