"""A loss with a regulariser added, and a loss of scaled logits."""
from typing import Optional

import torch
import torch.nn as nn

from .base import PerClass, WeightedLoss


class Regularised(nn.Module):
    """`criterion + weight * regulariser`, both of the same logits and target.

    LADE trains so (Hong et al., CVPR 2021, https://arxiv.org/abs/2012.00321, equations 11 and 12): cross-entropy on
    `x + log pi`, that is `balanced-softmax`, plus 0.1 times its regulariser.

    Args:
        criterion: The loss.
        regulariser: What is added.
        weight: Its weight.

    >>> loss = Regularised(nn.CrossEntropyLoss(), nn.CrossEntropyLoss(), weight=0.5)
    >>> loss(torch.zeros(1, 2), torch.tensor([0]))  # 1.5 log 2
    tensor(1.0397)
    """

    def __init__(self, criterion: nn.Module, regulariser: nn.Module, weight: float):
        super().__init__()
        self.criterion, self.regulariser, self.weight = criterion, regulariser, weight

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return self.criterion(logits, target) + self.weight * self.regulariser(logits, target)


class Rescaled(nn.Module):
    """`criterion(factor * logits, target)`: a loss of cosines for a head whose output is scale * cosine.

    Args:
        criterion: The loss; it takes class weights.
        factor: 1 / scale.
    """

    def __init__(self, criterion: WeightedLoss, factor: float):
        super().__init__()
        self.criterion, self.factor = criterion, factor

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        with torch.autocast(logits.device.type, enabled=False):
            return self.criterion(logits.float() * self.factor, target)

    def set_class_weight(self, class_weight: Optional[PerClass]) -> None:
        """Hand class weights (C,) or None to the criterion."""
        self.criterion.set_class_weight(class_weight)
