"""Handwritten digits: the 1,797 images of `sklearn.datasets.load_digits`.

They are the test part of 'Optical Recognition of Handwritten Digits' (Alpaydin and Kaynak, 1998), written by 13 people.
Neighbouring images come from one writer and the split is random, so every writer is in every part: test accuracy here
says how well digits of known writers are read, not those of strangers.
"""
from typing import Dict, List

import numpy as np
from PIL import Image

from ..source import ArraySource

SIZE = 32
TEST_PER_CLASS = 50
VAL_PER_CLASS = 20


def load(split: str, seed: int = 0) -> ArraySource:
    """Return `train` (1,097 images, 104 to 113 a class), `val` (20 a class) or `test` (50 a class).

    The split is fixed; a long tail is made of the training part by `--imbalance-factor`.

    Args:
        split: `train`, `val` or `test`.
        seed: Not used.
    """
    from sklearn.datasets import load_digits
    data = load_digits()
    rng = np.random.RandomState(0)
    parts: Dict[str, List[int]] = {'train': [], 'val': [], 'test': []}
    for c in range(10):
        order = rng.permutation(np.flatnonzero(data.target == c))
        test, val, train = np.split(order, [TEST_PER_CLASS, TEST_PER_CLASS + VAL_PER_CLASS])
        for name, chosen in (('train', train), ('val', val), ('test', test)):
            parts[name].extend(chosen.tolist())
    indices = sorted(parts[split])
    targets = data.target[indices]
    return ArraySource(
        images=[_enlarge(data.images[i]) for i in indices],
        targets=targets,
        classes=[str(c) for c in range(10)],
        names=[f'digits/{split}/{c}/{i:04d}.png' for i, c in zip(indices, targets)],
    )


def _enlarge(image: np.ndarray) -> np.ndarray:
    """Turn an (8, 8) image of values 0 to 16 into a grey uint8 RGB image (32, 32, 3)."""
    grey = Image.fromarray(np.rint(image * (255 / 16)).astype(np.uint8))
    return np.asarray(grey.resize((SIZE, SIZE), Image.Resampling.BICUBIC).convert('RGB'))
