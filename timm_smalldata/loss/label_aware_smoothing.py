"""Label smoothing that grows with the number of images of a class."""
import math

import torch

from .base import ClassCountLoss, PerClass, as_counts

# How the smoothing rises from the rarest class (r = 0) to the most frequent one (r = 1).
SHAPES = {
    'concave': lambda r: (r * math.pi / 2).sin(),
    'linear': lambda r: r,
    'convex': lambda r: 1 + (1.5 * math.pi + r * math.pi / 2).sin(),
}


class LabelAwareSmoothing(ClassCountLoss):
    """Label-aware smoothing of MiSLAS (Zhong et al., CVPR 2021, https://arxiv.org/abs/2104.00466).

    `l_c = (1 - eps_c) (-log p_c) + eps_c mean_j(-log p_j)`, where eps_c lies between `smooth_tail` for the class with
    the fewest images and `smooth_head` for the one with the most. `smoothing` is accepted and ignored.

    Args:
        class_counts: Training images per class (C,); 0 is treated as 1.
        smoothing: Not used.
        shape: 'concave', 'linear' or 'convex' in the count.
        smooth_head: Smoothing of the most frequent class.
        smooth_tail: Smoothing of the rarest class, and of all classes if all counts are equal.

    Raises:
        ValueError: Unknown shape.

    >>> LabelAwareSmoothing([101, 51, 1], shape='linear').eps
    tensor([0.3000, 0.1500, 0.0000])
    """
    eps: torch.Tensor

    def __init__(
            self,
            class_counts: PerClass,
            smoothing: float = 0.,
            shape: str = 'concave',
            smooth_head: float = 0.3,
            smooth_tail: float = 0.,
    ):
        super().__init__(class_counts)
        if shape not in SHAPES:
            raise ValueError(f'Unknown shape {shape!r} of label-aware smoothing, expected one of {tuple(SHAPES)}.')
        counts = as_counts(class_counts)
        least, most = counts.min(), counts.max()
        r = (counts - least) / (most - least) if most > least else torch.zeros_like(counts)
        self.register_buffer('eps', (smooth_tail + (smooth_head - smooth_tail) * SHAPES[shape](r)).float())

    def per_class(self, x: torch.Tensor) -> torch.Tensor:
        nll = -x.log_softmax(dim=1)
        return (1 - self.eps) * nll + self.eps * nll.mean(dim=1, keepdim=True)
