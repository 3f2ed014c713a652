"""From settings to the criterion and to mixing."""
from argparse import Namespace
from typing import Any, Dict, Optional

import torch
from torch import nn

from ..config.fit import mixes
from ..config.flags import FLAGS, flag_word
from ..data.classes import ClassInfo
from ..errors import UserError
from ..loss import LOSSES


def create_criterion(args: Namespace, classes: ClassInfo, smoothing: Optional[float] = None) -> nn.Module:
    """Create the loss, its class counts taken from the data; `smoothing` replaces that of the settings."""
    row = LOSSES[args.loss]
    smoothing = args.smoothing or 0.0 if smoothing is None else smoothing
    kwargs: Dict[str, Any] = {}
    for flag in FLAGS:
        if flag.argument and args.loss in flag.losses and getattr(args, flag.dest) is not None:
            kwargs[flag.argument] = getattr(args, flag.dest)
    if args.loss == 'bce':
        kwargs = {**_bce_weights(args, classes), **kwargs}
    kwargs.update(args.loss_kwargs)
    create = row.create if row.train_as is None else row.train_as
    try:
        return create(class_counts=classes.counts, smoothing=smoothing, **kwargs)
    except (ValueError, TypeError) as error:
        raise UserError(f'--loss {args.loss}: {error}') from error


def _bce_weights(args: Namespace, classes: ClassInfo) -> Dict[str, Any]:
    """Return timm's weights of classes and of positives, from numbers, files or the class counts."""
    from timm.loss import resolve_class_weights
    stats = (torch.tensor(classes.counts, dtype=torch.float32), sum(classes.counts))
    weights = {}
    for dest, key in (('loss_class_weight', 'class_weight'), ('loss_pos_weight', 'pos_weight')):
        value = getattr(args, dest)
        if value is not None:
            try:
                weights[key] = resolve_class_weights(value, key, stats, power=args.loss_weight_power)
            except (ValueError, TypeError) as error:
                raise UserError(f'{flag_word(dest)} {value}: {error}') from error
    return weights


def create_mixup(args: Namespace, num_classes: int) -> Any:
    """Return timm's mixing, or None."""
    from timm.data import Mixup
    if not mixes(args):
        return None
    return Mixup(
        mixup_alpha=args.mixup, cutmix_alpha=args.cutmix, cutmix_minmax=args.cutmix_minmax, prob=args.mixup_prob,
        switch_prob=args.mixup_switch_prob, mode=args.mixup_mode, label_smoothing=args.smoothing or 0.0,
        num_classes=num_classes)
