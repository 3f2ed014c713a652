"""From settings to the criterion and to mixing."""
from argparse import Namespace
from typing import Any, Dict, Optional

import torch
from torch import nn

from ..config.checks import mixes
from ..data.classes import ClassInfo
from ..errors import UserError


def create_criterion(args: Namespace, classes: ClassInfo, smoothing: Optional[float] = None) -> nn.Module:
    """Create the loss, its class counts taken from the data; `smoothing` replaces that of the settings."""
    from timm.loss import resolve_class_weights

    from ..loss import Regularised, Rescaled, create_loss
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
