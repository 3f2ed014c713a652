"""Class weights from the effective number of images, and the losses that start with them."""
import torch
from timm.loss import compute_class_weights

from .base import PerClass, as_counts
from .cross_entropy import CrossEntropy, FocalLoss


def effective_number_weights(class_counts: PerClass, beta: float = 0.9999) -> torch.Tensor:
    """Weights inverse to the effective number of images (Cui et al., CVPR 2019, https://arxiv.org/abs/1901.05555).

    `w_c = (1 - beta) / (1 - beta^n_c)`, rescaled to mean 1, in float64.

    Args:
        class_counts: Training images per class (C,); 0 is treated as 1.
        beta: In [0, 1): 0 weighs all classes alike, towards 1 the weights become inverse to the counts.

    Returns:
        float32 tensor (C,).

    Raises:
        ValueError: beta outside [0, 1), or counts that are not one non-negative number per class.

    >>> effective_number_weights([100, 10, 1], beta=0.9)
    tensor([0.2393, 0.3674, 2.3932])
    """
    counts = as_counts(class_counts)
    if not 0. <= beta < 1.:
        raise ValueError(f'beta must lie in [0, 1), got {beta}.')
    if beta == 0.:
        return torch.ones(len(counts))
    num_samples = int(counts.sum().ceil())
    return compute_class_weights(counts, num_samples=num_samples, method='effective_num', beta=beta)[1]


class ClassBalancedCrossEntropy(CrossEntropy):
    """Cross-entropy that starts with effective-number weights: `sum_n sum_c t w (-log p) / sum_n sum_c t w`.

    Args:
        class_counts: Training images per class (C,); 0 is treated as 1.
        smoothing: Label smoothing of class indices; dense rows are used as given.
        beta: See `effective_number_weights`.

    >>> loss = ClassBalancedCrossEntropy([100, 10], beta=0.9)
    >>> loss.class_weight
    tensor([0.7889, 1.2111])
    """

    def __init__(self, class_counts: PerClass, smoothing: float = 0., beta: float = 0.9999):
        super().__init__(class_counts, smoothing, class_weight=effective_number_weights(class_counts, beta))


class ClassBalancedFocalLoss(FocalLoss):
    """Focal loss that starts with effective-number weights; mean over N, not divided by the weights.

    Args:
        class_counts: Training images per class (C,); 0 is treated as 1.
        smoothing: Label smoothing of class indices; dense rows are used as given.
        beta: See `effective_number_weights`.
        gamma: Focusing exponent.

    >>> ClassBalancedFocalLoss([100, 10], beta=0.9).gamma
    2.0
    """

    def __init__(self, class_counts: PerClass, smoothing: float = 0., beta: float = 0.9999, gamma: float = 2.):
        super().__init__(class_counts, smoothing, gamma, class_weight=effective_number_weights(class_counts, beta))
