"""The regulariser that takes the training label distribution out of the logits."""
import math

import torch

from .base import ClassCountLoss, PerClass, log_prior


class LADE(ClassCountLoss):
    """LADE's regulariser (Hong et al., CVPR 2021, https://arxiv.org/abs/2012.00321), without a CE term.

    With one-hot targets t: `a_c = sum_n t_nc x_nc / (sum_n t_nc + 1e-8)`,
    `b_c = logsumexp_n(x_nc - log pi_c + log(1/C)) - log N`, and the loss is
    `-sum_c pi_c (a_c - b_c - remine_lambda * b_c^2)`. It may be negative. a and b are statistics of the batch that
    the process holds: with several ranks each regularises its own batch, and the gradients are averaged.
    `smoothing` is accepted and ignored.

    Args:
        class_counts: Training images per class (C,); 0 is treated as 1.
        smoothing: Not used.
        remine_lambda: Weight of the squared penalty on b.

    Raises:
        ValueError: When called with a dense target.

    >>> round(LADE([1, 1])(torch.tensor([[1., 0.], [0., 1.]]), torch.tensor([0, 1])).item(), 4)
    -0.3414
    """
    prior: torch.Tensor
    shift: torch.Tensor

    def __init__(self, class_counts: PerClass, smoothing: float = 0., remine_lambda: float = 0.1):
        super().__init__(class_counts)
        self.remine_lambda = remine_lambda
        log_pi = log_prior(class_counts)
        self.register_buffer('prior', log_pi.exp().float())
        self.register_buffer('shift', (-log_pi - math.log(len(log_pi))).float())

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        if target.shape == logits.shape:
            raise ValueError('lade takes class indices (N,) only: switch mixup and cutmix off, or take another loss.')
        return super().forward(logits, target)

    def compute(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        a = (t * x).sum(dim=0) / (t.sum(dim=0) + 1e-8)
        b = (x + self.shift).logsumexp(dim=0) - math.log(len(x))
        return -(self.prior * (a - b - self.remine_lambda * b ** 2)).sum()
