"""One name, one criterion: the registry of the classification losses."""
from typing import Any, Dict, Optional, Tuple, Type

import torch
import torch.nn as nn
from timm.loss import LOSS_TYPES, create_classification_loss

from ..errors import nearest
from .balanced_bce import BalancedBCE
from .balanced_softmax import BalancedSoftmax, LogitAdjusted
from .base import ClassCountLoss, PerClass, check_smoothing
from .class_balanced import ClassBalancedCrossEntropy, ClassBalancedFocalLoss
from .cross_entropy import CrossEntropy, FocalLoss
from .label_aware_smoothing import LabelAwareSmoothing
from .lade import LADE
from .ldam import LDAM
from .vector_scaling import VectorScaling

_LOSSES: Dict[str, Type[ClassCountLoss]] = {
    'ce': CrossEntropy,
    'focal': FocalLoss,
    'balanced-bce': BalancedBCE,
    'balanced-softmax': BalancedSoftmax,
    'logit-adjusted': LogitAdjusted,
    'ldam': LDAM,
    'class-balanced-ce': ClassBalancedCrossEntropy,
    'class-balanced-focal': ClassBalancedFocalLoss,
    'label-aware-smoothing': LabelAwareSmoothing,
    'vector-scaling': VectorScaling,
    'lade': LADE,
}
_WITHOUT_COUNTS = ('ce', 'focal')
_TIMM_LOSSES = ('bce', 'asl', 'poly', 'jsd')  # timm's single-label losses; its 'ce' takes no class weights, ours does

LOSS_NAMES: Tuple[str, ...] = (*_LOSSES, *_TIMM_LOSSES)


class TimmLoss(nn.Module):
    """A single-label loss of timm, in float32, that takes indices and dense rows alike where timm has both.

    Args:
        name: 'bce', 'asl' (class indices only), 'poly' or 'jsd'.
        smoothing: Label smoothing of class indices; dense rows are used as given.
        **kw: Arguments of `timm.loss.create_classification_loss`.
    """

    def __init__(self, name: str, smoothing: float = 0., **kw: Any):
        super().__init__()
        self.name = name
        self.criterion = create_classification_loss(name, smoothing=check_smoothing(smoothing), **kw)
        # Dense rows meet no smoothing: bce and poly would know by themselves, jsd with smoothing cannot read them.
        self.dense_criterion = create_classification_loss(name, smoothing=0., **kw)

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        dense = target.shape == logits.shape
        if dense and self.name == 'asl':
            raise ValueError('asl takes class indices (N,) only: switch mixup and cutmix off, or take another loss.')
        with torch.autocast(logits.device.type, enabled=False):
            if dense:
                return self.dense_criterion(logits.float(), target.float())
            return self.criterion(logits.float(), target)


def create_loss(name: str, class_counts: Optional[PerClass] = None, smoothing: float = 0.0, **kw: Any) -> nn.Module:
    """Create a criterion, called as `criterion(logits (N, C), target)`, that returns a 0-d float32 tensor.

    The target is class indices (N,) or dense rows (N, C), told apart by shape; `lade` and `asl` take indices only.

    Args:
        name: One of `LOSS_NAMES`: ours, or a single-label loss of timm.
        class_counts: Training images per class (C,), list, array or tensor; not needed for 'ce', 'focal' and timm's.
        smoothing: Label smoothing of class indices; dense rows are used as given.
        **kw: What the loss takes besides, e.g. `tau`, `max_margin`, `beta`; timm's losses take the arguments of
            `timm.loss.create_classification_loss`.

    Raises:
        ValueError: Unknown name, a multi-label loss of timm, or counts that are missing or negative.

    >>> criterion = create_loss('balanced-softmax', class_counts=[90, 10])
    >>> criterion(torch.zeros(1, 2), torch.tensor([1]))
    tensor(2.3026)
    >>> criterion(torch.zeros(1, 2), torch.tensor([[0.5, 0.5]]))
    tensor(1.2040)
    """
    if name in _LOSSES:
        if class_counts is None and name not in _WITHOUT_COUNTS:
            raise ValueError(f'Loss {name!r} needs class_counts, the number of training images of each class.')
        return _LOSSES[name](class_counts=class_counts, smoothing=smoothing, **kw)
    if name in _TIMM_LOSSES:
        return TimmLoss(name, smoothing=smoothing, **kw)
    if name in LOSS_TYPES:
        raise ValueError(f'Loss {name!r} of timm is for multi-label targets only, expected one of {LOSS_NAMES}.')
    raise ValueError(f'Unknown loss {name!r}{nearest(name, LOSS_NAMES)}, expected one of {LOSS_NAMES}.')
