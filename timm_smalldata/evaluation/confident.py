"""Confident learning: labels that are probably wrong, by what models say of images they were not trained on.

Northcutt, Jiang, Chuang: Confident Learning: Estimating Uncertainty in Dataset Labels, https://arxiv.org/abs/1911.00068
"""
from typing import List, NamedTuple

import numpy as np


class WrongLabel(NamedTuple):
    """One label that is probably wrong: its place, its label, the likely class, and how much likelier that is."""
    place: int
    label: int
    likely: int
    margin: float


def class_thresholds(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return for each class the mean probability (C,) that images with that label have for it; inf without images."""
    num_classes = probabilities.shape[1]
    own = probabilities[np.arange(len(labels)), labels]
    counts = np.bincount(labels, minlength=num_classes)
    sums = np.bincount(labels, weights=own, minlength=num_classes)
    return np.where(counts > 0, sums / np.maximum(counts, 1), np.inf)


def wrong_labels(probabilities: np.ndarray, labels: np.ndarray) -> List[WrongLabel]:
    """Return the labels that are probably wrong, from the surest on.

    An image belongs to the confident joint's cell (label, likely) if `likely` is, of the classes whose probability
    reaches their threshold (`class_thresholds`), the one with the highest. Cells off the diagonal are label errors; of
    these, images whose own label is likelier still are left out. They are ranked by the margin between the two.

    Args:
        probabilities: Of each class (N, C), by models that were not trained on the image.
        labels: As they are given (N,).

    >>> given = np.array([0, 0, 0, 1, 1, 1])
    >>> said = np.array([[.9, .1], [.8, .2], [.1, .9], [.2, .8], [.3, .7], [.4, .6]])
    >>> [(found.place, found.likely, round(found.margin, 2)) for found in wrong_labels(said, given)]
    [(2, 1, 0.8)]
    """
    labels = np.asarray(labels, dtype=np.int64)
    if not len(labels):
        return []
    confident = np.where(probabilities >= class_thresholds(probabilities, labels), probabilities, -1.0)
    likely = confident.argmax(axis=1)
    rows = np.arange(len(labels))
    margin = probabilities[rows, likely] - probabilities[rows, labels]
    found = np.flatnonzero((confident[rows, likely] >= 0) & (likely != labels) & (margin > 0))
    order = found[np.argsort(-margin[found], kind='stable')]
    return [WrongLabel(int(i), int(labels[i]), int(likely[i]), float(margin[i])) for i in order]
