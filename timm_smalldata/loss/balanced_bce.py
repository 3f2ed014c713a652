"""Binary cross-entropy, one class against the rest, with the class prior in the logits."""
import torch
import torch.nn.functional as F

from .base import ClassCountLoss, PerClass, as_counts


class BalancedBCE(ClassCountLoss):
    """Balanced binary cross-entropy of LiVT (Xu et al., CVPR 2023, https://arxiv.org/abs/2212.02015).

    Trains `x + tau * (log pi - log(1 - pi))`, on every class of every image, summed over classes, mean over N. The
    bias is the log odds of the class prior, so the raw logits are scores without it: evaluate on them as they are.

    Args:
        class_counts: Training images per class (C,); 0 is treated as 1.
        smoothing: Label smoothing of class indices; dense rows are used as given.
        tau: Strength of the bias.

    >>> loss = BalancedBCE([90, 10])
    >>> loss.bias
    tensor([ 2.1972, -2.1972])
    >>> loss(torch.zeros(4, 2), torch.tensor([0, 0, 1, 0])).shape
    torch.Size([])
    """
    bias: torch.Tensor

    def __init__(self, class_counts: PerClass, smoothing: float = 0., tau: float = 1.):
        super().__init__(class_counts, smoothing)
        counts = as_counts(class_counts)
        rest = as_counts(counts.sum() - counts)  # images of the other classes: 1 - pi without its rounding
        self.register_buffer('bias', (tau * (counts.log() - rest.log())).float())

    def compute(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return F.binary_cross_entropy_with_logits(x + self.bias, t, reduction='none').sum(dim=1).mean()
