"""What can be done to a trained classifier without training it: adjusted logits, a rescaled head, a temperature."""
import math
from typing import Sequence, Union

import numpy as np
import torch

Counts = Union[Sequence[float], np.ndarray, torch.Tensor]


def adjust_logits(logits: torch.Tensor, class_counts: Counts, tau: float = 1.0) -> torch.Tensor:
    """Take the training prior out of logits: `x - tau * log pi` (Menon et al., arXiv:2007.07314, equation 9).

    Args:
        logits: (N, C), of a model trained without a prior in its loss.
        class_counts: Training images per class (C,); 0 is treated as 1.
        tau: Strength; 0 changes nothing.

    Raises:
        ValueError: As many counts as logits are needed.

    >>> adjust_logits(torch.zeros(1, 2), [90, 10])
    tensor([[0.1054, 2.3026]])
    """
    counts = torch.as_tensor(class_counts, dtype=torch.float64).clamp(min=1)
    if counts.shape != logits.shape[-1:]:
        raise ValueError(f'{len(counts)} counts do not fit logits of shape {tuple(logits.shape)}.')
    return logits - (tau * (counts / counts.sum()).log()).to(logits)


def tau_normalise(weight: torch.Tensor, tau: float = 1.0) -> torch.Tensor:
    """Return class vectors (C, D) divided by their length to the power tau (Kang et al., arXiv:1910.09217, equation 4).

    The method has no bias: leave it out of the classifier, whatever tau is.

    Args:
        weight: Class vectors (C, D) of a linear classifier.
        tau: 0 changes nothing, 1 makes all vectors equally long.

    >>> tau_normalise(torch.tensor([[3., 4.]])).norm()
    tensor(1.)
    """
    return weight / weight.norm(dim=1, keepdim=True).clamp(min=1e-12) ** tau


def fit_temperature(logits: torch.Tensor, labels: torch.Tensor, limit: float = 100.0) -> float:
    """Return the T that minimises the cross-entropy of `logits / T` (Guo et al., arXiv:1706.04599, sec. 4.2).

    The loss is convex in 1 / T, so its derivative is followed to zero by halving, in float64.

    Args:
        logits: (N, C), of images that were not trained on.
        labels: Classes (N,).
        limit: T is kept between 1 / limit and limit (all images right: it would go to 0).

    Raises:
        ValueError: There are no images.

    >>> x = torch.tensor([[2., 0.], [2., 0.], [2., 0.], [2., 0.]])
    >>> round(fit_temperature(x, torch.tensor([0, 0, 0, 1])), 4)  # 2 / T = log 3
    1.8205
    """
    if not len(logits):
        raise ValueError('a temperature cannot be fitted without images.')
    x = (logits.cpu() if logits.device.type == 'mps' else logits).double()  # mps has no float64
    own = x.gather(1, labels.to(x.device).long().unsqueeze(1)).squeeze(1)
    low, high = -math.log(limit), math.log(limit)  # of 1 / T
    for _ in range(60):
        middle = (low + high) / 2
        slope = ((math.exp(middle) * x).softmax(dim=1) * x).sum(dim=1).sub(own).mean()
        low, high = (middle, high) if slope < 0 else (low, middle)
    return math.exp(-(low + high) / 2)
