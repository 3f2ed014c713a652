"""Do mirror images look like images of their class? Asked of the images themselves, before a training."""
from typing import Tuple

import numpy as np
from PIL import Image

from .source import ImageSource

_SIDE, _CELL, _ANGLES = 32, 8, 8
_MOST = 1500  # images that are looked at
_KEPT = 0.8  # share of the accuracy above a guess that mirror images keep where left and right do not matter
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
