"""Cross-entropy with the log class prior added to the logits while training."""
import torch

from .base import ClassCountLoss, PerClass, log_prior


class LogitAdjusted(ClassCountLoss):
    """Logit-adjusted cross-entropy (Menon et al., ICLR 2021, https://arxiv.org/abs/2007.07314, equation 10).

    Cross-entropy on `x + tau * log pi`. Evaluate on the raw logits.

    Args:
        class_counts: Training images per class (C,); 0 is treated as 1.
        smoothing: Label smoothing of class indices; dense rows are used as given.
        tau: Strength of the adjustment; 0 is plain cross-entropy.

    >>> loss = LogitAdjusted([90, 10])
    >>> loss(torch.zeros(1, 2), torch.tensor([1]))  # -log(10 / 100)
    tensor(2.3026)
    """
    shift: torch.Tensor

    def __init__(self, class_counts: PerClass, smoothing: float = 0., tau: float = 1.):
        super().__init__(class_counts, smoothing)
        self.register_buffer('shift', (tau * log_prior(class_counts)).float())

    def per_class(self, x: torch.Tensor) -> torch.Tensor:
        return -(x + self.shift).log_softmax(dim=1)


class BalancedSoftmax(LogitAdjusted):
    """Balanced softmax (Ren et al., NeurIPS 2020, https://arxiv.org/abs/2007.10740): cross-entropy on `x + log pi`.

    Args:
        class_counts: Training images per class (C,); 0 is treated as 1.
        smoothing: Label smoothing of class indices; dense rows are used as given.

    >>> BalancedSoftmax([50, 50])(torch.zeros(1, 2), torch.tensor([1]))
    tensor(0.6931)
    """

    def __init__(self, class_counts: PerClass, smoothing: float = 0.):
        super().__init__(class_counts, smoothing)
