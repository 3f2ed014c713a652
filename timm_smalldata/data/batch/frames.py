"""Which part of each image a view shows, at which size and which way round: timm's and torchvision's crops, drawn for
a whole batch."""
import math
from dataclasses import dataclass
from typing import List, Tuple

import numpy as np

from ..views import Crop
from .draws import Draws

ATTEMPTS = 10  # of a random resized crop, before it takes the centre
PADDING = 4  # of a simple random crop
_DEFAULT_SCALE, _DEFAULT_RATIO = (0.08, 1.0), (3 / 4, 4 / 3)


@dataclass
class Frames:
    """Where the pixels of a view come from: a box of the image, resized to a grid, of which a square is seen.

    Attributes:
        box: int64 (N, 4): top, left, height and width of the part of the image that is resized.
        grid: int64 (N, 2): height and width that it is resized to.
        offset: int64 (N, 2): where the square begins in the grid; what lies outside is reflected.
        flips: bool (N, 2): upside down, left to right.
        modes: Interpolation of each image.
        size: Side of the square.
    """
    box: np.ndarray
    grid: np.ndarray
    offset: np.ndarray
    flips: np.ndarray
    modes: List[str]
    size: int

    def __len__(self) -> int:
        return len(self.box)

    def places(self, axis: int) -> np.ndarray:
        """Return int64 (N, size): the row (axis 0) or column (axis 1) of the grid that each pixel shows."""
        place = np.arange(self.size)
        place = np.where(self.flips[:, axis, None], place[::-1], place) + self.offset[:, axis, None]
        last = self.grid[:, axis, None] - 1
        place = np.abs(place)
        return np.where(place > last, 2 * last - place, place)


def frames(crop: Crop, size: int, images: np.ndarray, draws: Draws) -> Frames:
    """Draw the frame of each image.

    Args:
        crop: Mode 'rrc', 'src' or 'none'.
        size: Side of the view in pixels.
        images: int64 (N, 2), heights and widths of the images.
        draws: The numbers of each image.
    """
    box = np.concatenate([np.zeros_like(images), images], axis=1)
    grid = np.full_like(images, size)
    offset = np.zeros_like(images)
    if crop.mode == 'rrc':
        box = _random_area(images, crop.scale or _DEFAULT_SCALE, crop.ratio or _DEFAULT_RATIO, draws)
    else:
        grid = (size * images) // images.min(axis=1, keepdims=True)  # torchvision's `Resize`
        if crop.mode == 'src':
            free = grid + 2 * PADDING - size + 1
            offset = np.stack([draws.integer('top', free[:, 0]), draws.integer('left', free[:, 1])], axis=1) - PADDING
        else:
            offset = np.rint((grid - size) / 2).astype(np.int64)
    flips = np.stack([draws.happens('vflip', crop.vflip), draws.happens('hflip', crop.hflip)], axis=1)
    modes = [crop.interpolation] * len(images)
    if crop.interpolation == 'random':
        modes = ['bilinear' if first else 'bicubic' for first in draws.happens('interpolation', 0.5)]
    return Frames(box, grid, offset, flips, modes, size)


def _random_area(
        images: np.ndarray, scale: Tuple[float, float], ratio: Tuple[float, float], draws: Draws) -> np.ndarray:
    """Return boxes (N, 4) of random area and aspect ratio: the first of ten attempts that fits, else the centre."""
    height, width = images[:, 0, None], images[:, 1, None]
    area = draws.uniform('area', *scale, count=ATTEMPTS) * (height * width)
    aspect = np.exp(draws.uniform('ratio', math.log(ratio[0]), math.log(ratio[1]), count=ATTEMPTS))
    tall, wide = np.rint(np.sqrt(area / aspect)).astype(np.int64), np.rint(np.sqrt(area * aspect)).astype(np.int64)
    fits = (tall <= height) & (wide <= width) & (tall > 0) & (wide > 0)
    first = fits.argmax(axis=1)[:, None]
    tall, wide = np.take_along_axis(tall, first, 1)[:, 0], np.take_along_axis(wide, first, 1)[:, 0]
    top = draws.integer('top', images[:, 0] - tall + 1)
    left = draws.integer('left', images[:, 1] - wide + 1)
    drawn = np.stack([top, left, tall, wide], axis=1)
    return np.where(fits.any(axis=1)[:, None], drawn, _centre(images, ratio))


def _centre(images: np.ndarray, ratio: Tuple[float, float]) -> np.ndarray:
    """Return the largest box (N, 4) at the centre whose aspect ratio is allowed."""
    height, width = images[:, 0], images[:, 1]
    aspect = width / height
    tall = np.where(aspect < min(ratio), np.rint(width / min(ratio)), height).astype(np.int64)
    wide = np.where(aspect > max(ratio), np.rint(height * max(ratio)), width).astype(np.int64)
    return np.stack([(height - tall) // 2, (width - wide) // 2, tall, wide], axis=1)
