"""Cross-entropy with a factor and a shift per class."""
import torch

from .base import ClassCountLoss, PerClass, as_counts, log_prior


class VectorScaling(ClassCountLoss):
    """Vector-scaling loss (Kini et al., NeurIPS 2021, https://arxiv.org/abs/2103.01550).

    Cross-entropy on `x / D + tau * log pi` with `D_c = n_c^(-gamma) / min_j n_j^(-gamma)`.

    Args:
        class_counts: Training images per class (C,); 0 is treated as 1.
        smoothing: Label smoothing of class indices; dense rows are used as given.
        gamma: Exponent of the factor; 0 leaves the logit adjustment alone.
        tau: Strength of the shift.

    >>> VectorScaling([1000, 1]).divisor
    tensor([1.0000, 7.9433])
    """
    divisor: torch.Tensor
    shift: torch.Tensor

    def __init__(self, class_counts: PerClass, smoothing: float = 0., gamma: float = 0.3, tau: float = 1.):
        super().__init__(class_counts, smoothing)
        divisor = as_counts(class_counts) ** -gamma
        self.register_buffer('divisor', (divisor / divisor.min()).float())
        self.register_buffer('shift', (tau * log_prior(class_counts)).float())

    def per_class(self, x: torch.Tensor) -> torch.Tensor:
        return -(x / self.divisor + self.shift).log_softmax(dim=1)
