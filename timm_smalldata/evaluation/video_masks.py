"""How well masks of a video meet the true ones: J, the overlap of regions, and F, that of contours (DAVIS).

Perazzi et al., "A Benchmark Dataset and Evaluation Methodology for Video Object Segmentation", CVPR 2016; Pont-Tuset et
al., "The 2017 DAVIS Challenge", https://arxiv.org/abs/1704.00675.
"""
import math
from typing import Dict, Sequence

import numpy as np

TOLERANCE = 0.008  # of the diagonal: how far apart contours may lie


def region_similarity(mask: np.ndarray, true: np.ndarray) -> float:
    """Return J: the intersection of two masks (height, width) over their union; 1 where both are empty.

    >>> region_similarity(np.array([[1, 1, 0]]), np.array([[0, 1, 1]]))
    0.3333333333333333
    """
    mask, true = mask.astype(bool), true.astype(bool)
    union = (mask | true).sum()
    return float((mask & true).sum() / union) if union else 1.0


def contour(mask: np.ndarray) -> np.ndarray:
    """Return the pixels (height, width) whose right, lower or lower right neighbour is on the other side of a mask.

    >>> contour(np.array([[0, 0, 0], [0, 1, 0], [0, 0, 0]])).astype(int).tolist()
    [[1, 1, 0], [1, 1, 0], [0, 0, 0]]
    """
    mask = mask.astype(bool)
    padded = np.pad(mask, ((0, 1), (0, 1)), mode='edge')  # nothing changes beyond the image
    right, below, across = padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    return (mask ^ right) | (mask ^ below) | (mask ^ across)


def contour_accuracy(mask: np.ndarray, true: np.ndarray, tolerance: float = TOLERANCE) -> float:
    """Return F: the harmonic mean of precision and recall of a mask's contour.

    A pixel of one contour is right where one of the other lies within a disk of `tolerance` times the diagonal, rounded
    up to whole pixels. Where one mask has no contour, one of precision and recall is 0 and the other 1.

    Args:
        mask: What was found (height, width).
        true: What is there (height, width).
        tolerance: Share of the diagonal.

    >>> square = np.zeros((20, 20)); square[5:15, 5:15] = 1
    >>> contour_accuracy(square, square), contour_accuracy(np.roll(square, 1, 0), square)
    (1.0, 1.0)
    """
    from scipy.ndimage import distance_transform_edt
    if mask.shape != true.shape:
        raise ValueError(f'Masks of {mask.shape} and {true.shape} pixels.')
    radius = math.ceil(tolerance * math.hypot(*mask.shape))
    found, wanted = contour(mask), contour(true)
    if not found.any() or not wanted.any():
        return float(found.any() == wanted.any())
    precision = float((distance_transform_edt(~wanted)[found] <= radius).mean())
    recall = float((distance_transform_edt(~found)[wanted] <= radius).mean())
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def over_time(values: Sequence[float]) -> Dict[str, float]:
    """Return the mean of the values of an object's frames, recall (the share over 0.5), and decay.

    Decay is the mean of the first quarter of the frames less that of the last one; quarters share their ends.

    >>> over_time([1., 1., 0., 0.])
    {'mean': 0.5, 'recall': 0.5, 'decay': 1.0}
    """
    array = np.asarray(values, dtype=float)
    ends = np.round(np.linspace(1, len(array), 5) + 1e-10).astype(int) - 1
    first, last = array[:ends[1] + 1], array[ends[3]:ends[4] + 1]
    return dict(mean=float(array.mean()), recall=float((array > 0.5).mean()), decay=float(first.mean() - last.mean()))
