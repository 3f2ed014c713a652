"""Deferred re-weighting for any loop: a loss gets class weights from an epoch on."""
from typing import Any, Optional

import torch
from torch import nn

from .base import PerClass
from .class_balanced import effective_number_weights


class DeferredReweighting:
    """Weigh the classes of a loss by their effective numbers from an epoch on (Cao et al., NeurIPS 2019).

    https://arxiv.org/abs/1906.07413, section 4.2; what `--drw-epoch` and `--drw-beta` do in the train command. The
    weights are a function of the epoch alone, so a loop that is resumed needs nothing but its number. Two lines: one
    before the loop, and `set_epoch` at the start of every epoch.

    Args:
        criterion: A loss with `set_class_weight` (`ce`, `focal`, `ldam`, `class-balanced-*` of `create_loss`; a task
            with that method too), or one of torch's or timm's with a buffer `weight`, such as `nn.CrossEntropyLoss`. Of
            class indices without smoothing these give the same numbers as ours; of dense targets torch divides by N
            where ours divides by the sum of the weights.
        class_counts: Training images per class (C,); 0 is treated as 1.
        epoch: First epoch, from 0, with weights; before it there are none, also of a loss that came with some.
        beta: See `effective_number_weights`.
        device: Where a loss of torch or timm computes; ours move the weights by themselves.

    Raises:
        TypeError: A loss that takes no class weights.
        ValueError: A negative epoch, beta outside [0, 1), or counts that are not one non-negative number per class.

    >>> criterion = nn.CrossEntropyLoss()
    >>> deferred = DeferredReweighting(criterion, [100, 10], epoch=2, beta=0.9)
    >>> for epoch in range(3):
    ...     deferred.set_epoch(epoch)
    ...     print(criterion.weight)
    None
    None
    tensor([0.7889, 1.2111])
    """

    def __init__(
            self,
            criterion: nn.Module,
            class_counts: PerClass,
            epoch: int,
            beta: float = 0.9999,
            device: Optional[torch.device] = None,
    ):
        if epoch < 0:
            raise ValueError(f'epoch must not be negative, got {epoch}.')
        if not hasattr(criterion, 'set_class_weight') and 'weight' not in criterion._buffers:
            raise TypeError(
                f'{type(criterion).__name__} takes no class weights: give a loss with set_class_weight (ce, focal, '
                'ldam, class-balanced-ce, class-balanced-focal of create_loss) or a buffer weight, such as '
                'nn.CrossEntropyLoss.')
        self.criterion: Any = criterion
        self.epoch = epoch
        self.class_weight = effective_number_weights(class_counts, beta).to(device)

    def set_epoch(self, epoch: int) -> None:
        """Give the loss the weights of an epoch, counted from 0."""
        weight = self.class_weight if epoch >= self.epoch else None
        if hasattr(self.criterion, 'set_class_weight'):
            self.criterion.set_class_weight(weight)
        else:
            self.criterion.weight = weight
