"""Do mirror images look like images of their class? Asked of the images themselves, before a training and after it."""
from typing import List, Tuple

import numpy as np
from PIL import Image

from .source import ImageSource

_SIDE, _CELL, _ANGLES = 32, 8, 8
_MOST = 1500  # images that are looked at
_KEPT = 0.8  # share of the accuracy above a guess that mirror images keep where left and right do not matter
_LEAST = 10  # confusions of two classes, and images of each, below which nothing is told
_OFTEN = 0.1  # share of their images that two classes must confuse
_EACH = 100  # images of a class that are looked at
_RARE = 1e-3  # chance of a finding where there is nothing
_SURE = 3.0  # standard errors (McNemar) that a difference of the two accuracies must have


def mirror_images_fit(source: ImageSource) -> Tuple[bool, float, float]:
    """Return whether mirror images can be told by what the images themselves teach, and the two accuracies.

    A linear classifier learns the classes from edge directions of half of the images and is asked about the other half,
    as they are and mirrored. Where left and right matter (letters, signs) it fails on mirror images.

    Args:
        source: Training images; of more than 1,500 every so many-th one is taken.

    Returns:
        Whether to train with mirror images, accuracy on images as they are, accuracy on mirrored ones (0 to 1). Where
        the classifier learns nothing, nothing speaks against mirror images.
    """
    from sklearn.linear_model import RidgeClassifier
    picks = np.unique(np.linspace(0, len(source) - 1, min(len(source), _MOST)).round().astype(int))
    targets = np.asarray(source.targets)[picks]
    order = np.argsort(targets, kind='stable')  # every other image of each class teaches, the other one is asked
    teach, ask = order[::2], order[1::2]
    if len(ask) < 2 or len(set(targets[teach].tolist())) < 2:
        return True, 0.0, 0.0
    grey = np.stack([_small(source.read(int(i))[0]) for i in picks])
    taught = edges(grey[teach])
    mean, scale = taught.mean(0), taught.std(0) + 1e-6
    model = RidgeClassifier(alpha=float(len(teach))).fit((taught - mean) / scale, targets[teach])
    known, known_mirrored = (
        model.predict((edges(images) - mean) / scale) == targets[ask] for images in (grey[ask], grey[ask][:, :, ::-1]))
    plain, mirrored = float(known.mean()), float(known_mirrored.mean())
    guess = np.bincount(targets[ask]).max() / len(ask)
    lost, won = int((known & ~known_mirrored).sum()), int((known_mirrored & ~known).sum())
    by_chance = lost - won <= _SURE * (lost + won) ** 0.5
    return bool(by_chance or mirrored - guess >= _KEPT * (plain - guess)), plain, mirrored


def mirror_classes(
        confusion: np.ndarray, teach: ImageSource, ask: ImageSource, most: int = 5,
) -> List[Tuple[int, int, int, int]]:
    """Return classes that a model confuses more than chance and that are each other's mirror images.

    Of two classes that are confused a linear classifier of edges learns, from training images as they are, to tell them
    apart. They are mirror images of each other where it is right on other images significantly more often than half of
    the time, and on the mirror images of these significantly less often. Where there are too few images for that,
    nothing is found.

    Args:
        confusion: Images (C, C) of the class of the row that were taken for that of the column.
        teach: Training images.
        ask: The images that were judged.
        most: Pairs that are looked at, the most confused ones first.

    Returns:
        Both classes, how many of their images were taken for the other class, and how many images they have.
    """
    found = []
    for first, second in _confused(np.asarray(confusion))[:most]:
        if _are_mirrored(teach, ask, first, second):
            wrong = int(confusion[first][second] + confusion[second][first])
            found.append((first, second, wrong, int(np.sum(confusion[first]) + np.sum(confusion[second]))))
    return found


def _confused(confusion: np.ndarray) -> List[Tuple[int, int]]:
    """Return pairs of classes that take far more of each other's mistakes than other classes do, by their number."""
    from scipy.stats import binom
    errors = confusion * (1 - np.eye(len(confusion), dtype=confusion.dtype))
    between, all_errors = errors + errors.T, errors.sum(1)
    images = confusion.sum(1)
    pairs = [(int(a), int(b)) for a, b in np.argwhere(np.triu(between) >= _LEAST)]
    chance = 1 / max(len(confusion) - 1, 1)  # of two classes there is no other one: how often must do
    kept = [(a, b) for a, b in pairs if between[a, b] >= _OFTEN * (images[a] + images[b]) and (
        len(confusion) == 2 or binom.sf(between[a, b] - 1, all_errors[a] + all_errors[b], chance) < _RARE)]
    return sorted(kept, key=lambda pair: -between[pair])


def _are_mirrored(teach: ImageSource, ask: ImageSource, first: int, second: int) -> bool:
    from scipy.stats import binom
    from sklearn.linear_model import RidgeClassifier
    parts = []
    for source, least in ((teach, _LEAST // 2), (ask, _LEAST)):
        picks = [np.flatnonzero(np.asarray(source.targets) == label) for label in (first, second)]
        if min(map(len, picks)) < least:
            return False
        picks = [p[np.unique(np.linspace(0, len(p) - 1, min(len(p), _EACH)).round().astype(int))] for p in picks]
        images = np.stack([_small(source.read(int(i))[0]) for p in picks for i in p])
        parts.append((images, np.repeat([0, 1], [len(p) for p in picks])))
    (taught, labels), (asked, truth) = parts
    features = edges(taught)
    mean, scale = features.mean(0), features.std(0) + 1e-6
    model = RidgeClassifier(alpha=float(len(labels)), class_weight='balanced').fit((features - mean) / scale, labels)
    plain, mirrored = (
        int((model.predict((edges(images) - mean) / scale) == truth).sum()) for images in (asked, asked[:, :, ::-1]))
    return bool(binom.sf(plain - 1, len(truth), 0.5) < _RARE and binom.cdf(mirrored, len(truth), 0.5) < _RARE)


def edges(grey: np.ndarray) -> np.ndarray:
    """Return how strong edges of each direction are in each cell, and the brightness of the cells.

    Args:
        grey: Images (N, 32, 32), 0 to 1.

    Returns:
        Features (N, cells * 9).
    """
    across, down = np.zeros_like(grey), np.zeros_like(grey)
    across[:, :, 1:-1], down[:, 1:-1] = grey[:, :, 2:] - grey[:, :, :-2], grey[:, 2:] - grey[:, :-2]
    strength = np.hypot(across, down)
    angle = (np.arctan2(down, across) / np.pi % 1 * _ANGLES).astype(int) % _ANGLES
    maps = [np.where(angle == a, strength, 0) for a in range(_ANGLES)] + [grey]
    cells = _SIDE // _CELL
    parts = [m.reshape(len(grey), cells, _CELL, cells, _CELL).mean((2, 4)) for m in maps]
    return np.stack(parts, -1).reshape(len(grey), -1)


def _small(image: Image.Image) -> np.ndarray:
    return np.asarray(image.convert('L').resize((_SIDE, _SIDE), Image.Resampling.BOX), dtype=np.float32) / 255
