"""One name, one criterion: the classification losses, a row each."""
from dataclasses import dataclass, field
from typing import Any, Callable, Dict, Optional, Tuple

import torch
import torch.nn as nn
from timm.loss import LOSS_TYPES, create_classification_loss

from ..errors import nearest
from .balanced_bce import BalancedBCE
from .balanced_softmax import BalancedSoftmax, LogitAdjusted
from .base import PerClass, check_smoothing
from .class_balanced import ClassBalancedCrossEntropy, ClassBalancedFocalLoss
from .cross_entropy import CrossEntropy, FocalLoss
from .label_aware_smoothing import LabelAwareSmoothing
from .lade import LADE
from .ldam import LDAM
from .regularised import Regularised, Rescaled
from .vector_scaling import VectorScaling


@dataclass(frozen=True)
class LossRow:
    """All that is known of a loss.

    Attributes:
        name: Its name.
        create: `create(class_counts=..., smoothing=..., **kw)` makes the criterion.
        needs_counts: It needs the training images of each class.
        indices_only: It takes class indices, no dense rows: nothing may mix images.
        corrects_prior: It takes the class prior out, wholly or in part.
        needs_cosines: It goes with a head whose output is scaled cosines.
        train_as: Makes what the train command trains with, in place of `create`, where that is more than the loss.
        published: Values of the train command's flags that its source trained with; they fill those that nobody set.
    """
    name: str
    create: Callable[..., nn.Module]
    needs_counts: bool = True
    indices_only: bool = False
    corrects_prior: bool = False
    needs_cosines: bool = False
    train_as: Optional[Callable[..., nn.Module]] = None
    published: Dict[str, Any] = field(default_factory=lambda: dict(smoothing=0.0))


LOSSES: Dict[str, LossRow] = {}


def register_loss(row: LossRow) -> None:
    """Add a loss, for `create_loss` and for the train command's `--loss`."""
    LOSSES[row.name] = row


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


def _timm(name: str, **row: Any) -> LossRow:
    def create(class_counts: Optional[PerClass] = None, smoothing: float = 0., **kw: Any) -> nn.Module:
        return TimmLoss(name, smoothing=smoothing, **kw)
    return LossRow(name, create, needs_counts=False, **row)


def _ldam_of_scaled_cosines(
        class_counts: PerClass, smoothing: float = 0., head_scale: float = 30., **kw: Any) -> nn.Module:
    """Return LDAM, which sets margins between cosines, for a head whose output is `head_scale * cosine`."""
    ldam = LDAM(class_counts=class_counts, smoothing=smoothing, **{'scale': head_scale, **kw})
    return Rescaled(ldam, 1 / head_scale)


def _lade_beside_cross_entropy(
        class_counts: PerClass, smoothing: float = 0., weight: float = 0.1, **kw: Any) -> nn.Module:
    """Return LADE beside the cross-entropy of the training prior (arXiv:2012.00321, section 3.3)."""
    lade = LADE(class_counts=class_counts, smoothing=smoothing, **kw)
    return Regularised(BalancedSoftmax(class_counts=class_counts, smoothing=smoothing), lade, weight)


for _row in (
        LossRow('ce', CrossEntropy, needs_counts=False, published=dict(smoothing=0.1)),  # timm
        LossRow('focal', FocalLoss, needs_counts=False),  # arXiv:1708.02002
        LossRow('balanced-bce', BalancedBCE, corrects_prior=True,  # LiVT (arXiv:2212.02015)
                published=dict(smoothing=0.0, loss_tau=1.0)),
        LossRow('balanced-softmax', BalancedSoftmax, corrects_prior=True),  # arXiv:2007.10740
        LossRow('logit-adjusted', LogitAdjusted, corrects_prior=True,  # arXiv:2007.07314
                published=dict(smoothing=0.0, loss_tau=1.0)),
        LossRow('ldam', LDAM, needs_cosines=True, train_as=_ldam_of_scaled_cosines),  # arXiv:1906.07413
        LossRow('class-balanced-ce', ClassBalancedCrossEntropy),  # arXiv:1901.05555
        LossRow('class-balanced-focal', ClassBalancedFocalLoss),
        LossRow('label-aware-smoothing', LabelAwareSmoothing),  # arXiv:2104.00466; its own smoothing is inside
        LossRow('vector-scaling', VectorScaling, corrects_prior=True),  # arXiv:2103.01550
        LossRow('lade', LADE, indices_only=True, corrects_prior=True, train_as=_lade_beside_cross_entropy,
                published=dict(smoothing=0.0, lade_weight=0.1)),  # arXiv:2012.00321
        # timm's single-label losses; its 'ce' takes no class weights, ours does
        _timm('bce', published=dict(smoothing=0.0, bce_target_thresh=0.0)),  # as in DeiT III (arXiv:2204.07118)
        _timm('asl', indices_only=True, published=dict(smoothing=0.1)),
        _timm('poly', published=dict(smoothing=0.1)),
        _timm('jsd', indices_only=True, published=dict(smoothing=0.1, aug_splits=3)),  # AugMix
):
    register_loss(_row)

LOSS_NAMES: Tuple[str, ...] = tuple(LOSSES)  # those of this package and timm; LOSSES has what was registered besides


def create_loss(name: str, class_counts: Optional[PerClass] = None, smoothing: float = 0.0, **kw: Any) -> nn.Module:
    """Create a criterion, called as `criterion(logits (N, C), target)`, that returns a 0-d float32 tensor.

    The target is class indices (N,) or dense rows (N, C), told apart by shape; `lade` and `asl` take indices only.

    Args:
        name: A key of `LOSSES`: ours, or a single-label loss of timm.
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
    if name not in LOSSES:
        if name in LOSS_TYPES:
            raise ValueError(f'Loss {name!r} of timm is for multi-label targets only, expected one of {(*LOSSES,)}.')
        raise ValueError(f'Unknown loss {name!r}{nearest(name, LOSSES)}, expected one of {(*LOSSES,)}.')
    row = LOSSES[name]
    if class_counts is None and row.needs_counts:
        raise ValueError(f'Loss {name!r} needs class_counts, the number of training images of each class.')
    return row.create(class_counts=class_counts, smoothing=smoothing, **kw)
