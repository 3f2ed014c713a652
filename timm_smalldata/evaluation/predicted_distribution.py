"""Whether a model predicts the classes as often as they occur, or as often as it was trained on them."""
from typing import Optional, Sequence, Union

import numpy as np
import torch

EPS = 1e-6
Counts = Union[Sequence[float], np.ndarray, torch.Tensor]


def predicted_distribution(predicted: Counts, seen: Counts, trained: Counts) -> Optional[float]:
    """Return the calibration of the predicted distribution (PDC) that LiVT reports.

    Xu et al., "Learning Imbalanced Data with Vision Transformers", CVPR 2023, https://arxiv.org/abs/2212.02015: with
    the shares t of the classes among the images, q among the predictions and s among the training images,
    `PDC = D(t || q) / D(t || s)`, where `D(p || r) = sum_c p_c (log(p_c + 1e-6) - log(r_c + 1e-6))`.

    Args:
        predicted: How often each class was predicted (C,).
        seen: How many of the images are of each class (C,).
        trained: Training images of each class (C,).

    Returns:
        0 where classes are predicted as often as they occur, about 1 where they are predicted as often as they were
        trained on; None where the training images are shared out as the others, or there are none.

    Raises:
        ValueError: Shapes do not fit.

    >>> predicted_distribution([5, 5], [5, 5], [90, 10]), predicted_distribution([9, 1], [5, 5], [90, 10])
    (0.0, 1.0)
    """
    values = [np.asarray(torch.as_tensor(counts).tolist(), dtype=np.float64) for counts in (seen, predicted, trained)]
    if len({value.shape for value in values}) > 1:
        raise ValueError(f'Counts of {", ".join(str(value.shape) for value in values)} classes.')
    if not all(value.sum() > 0 for value in values):
        return None
    occur, guessed, prior = (value / value.sum() for value in values)
    if np.allclose(occur, prior):
        return None

    def distance(other: np.ndarray) -> float:
        return float((occur * (np.log(occur + EPS) - np.log(other + EPS))).sum())

    return distance(guessed) / distance(prior)
