"""Cross-entropy and focal loss, with class weights that can be switched while training."""
from typing import Optional

import torch

from .base import PerClass, WeightedLoss, log_softmax_pair


class CrossEntropy(WeightedLoss):
    """Softmax cross-entropy. Without weights it equals timm's `ce`; with weights both forms of target share a scale.

    Args:
        class_counts: Training images per class (C,); not needed, checked against the logits where given.
        smoothing: Label smoothing of class indices; dense rows are used as given.
        class_weight: Weights (C,); with them the loss is `sum_n sum_c t w l / sum_n sum_c t w`.

    >>> loss = CrossEntropy()
    >>> x, y = torch.tensor([[0., 0.], [2., 0.]]), torch.tensor([0, 1])
    >>> loss(x, y)
    tensor(1.4100)
    >>> loss.set_class_weight([1., 3.])
    >>> loss(x, y)
    tensor(1.7685)
    """

    def per_class(self, x: torch.Tensor) -> torch.Tensor:
        return -x.log_softmax(dim=1)


class FocalLoss(WeightedLoss):
    """Focal loss on softmax probabilities (Lin et al., ICCV 2017, https://arxiv.org/abs/1708.02002, equations 4, 5).

    Mean over N of `sum_c t_c w_c (1 - p_c)^gamma (-log p_c)`; weights are alpha in the paper's equation 5 and not
    divided by their sum.

    Args:
        class_counts: Training images per class (C,); not needed, checked against the logits where given.
        smoothing: Label smoothing of class indices; dense rows are used as given.
        gamma: Focusing exponent; 0 is cross-entropy.
        class_weight: Weights (C,).

    >>> FocalLoss()(torch.zeros(1, 2), torch.tensor([0]))  # (1 - 1/2)^2 log 2
    tensor(0.1733)
    """

    def __init__(
            self,
            class_counts: Optional[PerClass] = None,
            smoothing: float = 0.,
            gamma: float = 2.,
            class_weight: Optional[PerClass] = None,
    ):
        super().__init__(class_counts, smoothing, class_weight)
        if gamma < 0:
            raise ValueError(f'gamma must not be negative, got {gamma}.')
        self.gamma = gamma

    def per_class(self, x: torch.Tensor) -> torch.Tensor:
        # In logarithms, because the gradient of (1 - p)^gamma does not exist at p = 1 when gamma < 1.
        log_p, log_not_p = log_softmax_pair(x)
        return -(self.gamma * log_not_p).exp() * log_p

    def compute(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return (self.weigh(t) * self.per_class(x)).sum(dim=1).mean()
