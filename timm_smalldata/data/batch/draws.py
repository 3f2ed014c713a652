"""What is drawn for each image of a batch, on the host: a function of the image's own key, whatever its neighbours."""
from typing import Optional

import numpy as np

from ...utils.random import GOLDEN, uniform

# Each kind of draw has numbers of its own. The places are part of what a key means: new kinds go to the end.
KINDS = (
    'area', 'ratio', 'top', 'left', 'interpolation', 'hflip', 'vflip', 'auto', 'auto_operation', 'auto_radius',
    'jitter', 'jitter_order', 'jitter_factor', 'greyscale', 'gaussian', 'gaussian_sigma', 'pillow', 'pillow_radius',
    'solarise', 'erase', 'erase_count', 'erase_area', 'erase_ratio', 'erase_top', 'erase_left', 'erase_colour',
    'erase_noise')
_PLACES = 1 << 20  # numbers of one kind


class Draws:
    """Random numbers for the images of a batch.

    Args:
        keys: uint64 (N,), the key of each image (`utils.random.draw_keys`).
    """

    def __init__(self, keys: np.ndarray):
        self.keys = np.asarray(keys, dtype=np.uint64)

    def __len__(self) -> int:
        return len(self.keys)

    def state(self, kind: str) -> np.ndarray:
        """Return what numbers of a kind are made from, uint64 (N,): the key, as many steps on."""
        return self.keys + np.uint64(_PLACES * KINDS.index(kind) * GOLDEN % 2 ** 64)

    def uniform(self, kind: str, low: float = 0.0, high: float = 1.0, count: Optional[int] = None) -> np.ndarray:
        """Return float64 (N,), or (N, count), uniform in [low, high)."""
        numbers = uniform(self.state(kind), count or 1)
        numbers = low + (high - low) * numbers
        return numbers if count else numbers[:, 0]

    def happens(self, kind: str, prob: float) -> np.ndarray:
        """Return bool (N,), true with a probability."""
        if prob <= 0 or prob >= 1:
            return np.full(len(self), prob >= 1)
        return self.uniform(kind) < prob

    def integer(self, kind: str, count: np.ndarray, numbers: Optional[int] = None) -> np.ndarray:
        """Return int64 of the shape of `count` (N,) or (N, numbers), uniform in 0 ... count - 1."""
        return np.floor(self.uniform(kind, count=numbers) * count).astype(np.int64)

    def order(self, kind: str, count: int) -> np.ndarray:
        """Return int64 (N, count), each row a permutation of 0 ... count - 1."""
        return self.uniform(kind, count=count).argsort(axis=1)
