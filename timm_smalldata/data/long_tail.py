"""Long tails made from balanced data: how many images each class keeps, and which.

The counts and the choice of images are those of the CIFAR-LT benchmarks (Cao et al., 'Learning Imbalanced Datasets with
Label-Distribution-Aware Margin Loss', https://arxiv.org/abs/1906.07413, section 4.1), image for image at seed 0.
"""
import math
from typing import List

import numpy as np
from numpy.typing import ArrayLike


def long_tailed_counts(
        num_classes: int,
        max_count: float,
        imbalance_factor: float,
        profile: str = 'exp',
) -> List[int]:
    """Return the number of images that each class keeps, class 0 the most.

    With `r = 1 / imbalance_factor`, `exp` keeps `max_count * r^(i / (num_classes - 1))` images of class i and `step`
    keeps `max_count` in the first half of the classes, `max_count * r` in the second; both are cut, not rounded.
    `balanced` keeps as many images as `exp`, of each class alike: what a long tail is to be compared with.

    Args:
        num_classes: Number of classes C.
        max_count: Images of the largest class; may be a fraction (images / classes of an uneven data set).
        imbalance_factor: Largest over smallest class, at least 1 (100, not 0.01).
        profile: `exp`, `step` or `balanced`.

    Returns:
        C counts; a count is 0 where `max_count` is smaller than the imbalance factor.

    Raises:
        ValueError: An argument lies outside its range.

    >>> long_tailed_counts(10, 5000, 100)
    [5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50]
    >>> long_tailed_counts(4, 500, 100, 'step')
    [500, 500, 5, 5]
    >>> long_tailed_counts(10, 5000, 100, 'balanced')
    [1240, 1240, 1240, 1240, 1240, 1240, 1240, 1240, 1240, 1240]
    """
    if num_classes < 1:
        raise ValueError(f'num_classes must be at least 1, got {num_classes}.')
    if not 0 <= max_count < math.inf:
        raise ValueError(f'max_count must be a finite number of images, got {max_count}.')
    if not 1 <= imbalance_factor < math.inf:
        raise ValueError(
            f'imbalance_factor is the largest over the smallest class and must be at least 1 (100, not 0.01), '
            f'got {imbalance_factor}.')
    r = 1 / imbalance_factor
    if profile in ('exp', 'balanced'):
        tail = [int(max_count * r ** (i / max(num_classes - 1.0, 1.0))) for i in range(num_classes)]
        return tail if profile == 'exp' else [sum(tail) // num_classes] * num_classes
    if profile == 'step':
        head = num_classes // 2
        return [int(max_count)] * head + [int(max_count * r)] * (num_classes - head)
    raise ValueError(f"profile must be 'exp', 'step' or 'balanced', got {profile!r}.")


def long_tailed_indices(
        targets: ArrayLike,
        imbalance_factor: float,
        profile: str = 'exp',
        seed: int = 0,
) -> np.ndarray:
    """Choose the images that make a data set long-tailed.

    Classes (the sorted unique labels) shrink to `long_tailed_counts` of the mean class size; a class that has fewer
    images keeps them all. One private generator shuffles class after class, so no global random state moves.

    Args:
        targets: Label of each image (N,): list, array or tensor.
        imbalance_factor: Largest over smallest class, at least 1.
        profile: `exp`, `step` or `balanced`.
        seed: Which images are kept; 0 is the published choice.

    Returns:
        int64 positions in `targets`, class after class, in the order of the shuffle.

    Raises:
        ValueError: An argument lies outside its range.

    >>> long_tailed_indices([0, 1] * 4, imbalance_factor=4).tolist()
    [4, 6, 2, 0, 1]
    """
    labels = np.asarray(targets.cpu() if hasattr(targets, 'cpu') else targets)
    if labels.ndim != 1 or not len(labels):
        raise ValueError(f'targets must hold one label per image, got shape {labels.shape}.')
    _, sizes = np.unique(labels, return_counts=True)
    counts = long_tailed_counts(len(sizes), len(labels) / len(sizes), imbalance_factor, profile)
    # A stable sort lists each class in dataset order; the published shuffle starts from there and runs over all of it.
    by_class = np.split(np.argsort(labels, kind='stable').astype(np.int64), np.cumsum(sizes)[:-1])
    rng = np.random.RandomState(seed)
    for positions in by_class:
        rng.shuffle(positions)
    return np.concatenate([positions[:n] for positions, n in zip(by_class, counts)])
