"""Generated figures: ten outlines, each filled with stripes or with dots, on cluttered ground.

Colour, place, size, angle and clutter are random, so none of them gives the class away; the ground holds lines and
blobs, so neither does the mere presence of stripes or dots. Every figure is its own mirror image: flips keep the class.
The class order alternates textures, so each figure is frequent with one texture and rare with the other.
"""
import colorsys
from typing import Dict, List, Tuple

import numpy as np
from PIL import Image, ImageDraw

from ..long_tail import long_tailed_counts
from ..source import ImageSource

SIZE = 64
SCALE = 4  # drawn this much larger, then averaged: smooth edges
SPLITS = ('train', 'val', 'test')
VAL_PER_CLASS = 8
TEST_PER_CLASS = 15
MAX_COUNT, IMBALANCE_FACTOR = 120, 20

Colour = Tuple[int, int, int]


def _polar(radius, turns) -> np.ndarray:
    angle = 2 * np.pi * np.asarray(turns)
    return np.stack([radius * np.sin(angle), -radius * np.cos(angle)], axis=-1)


def _outlines() -> Dict[str, np.ndarray]:
    """Return closed outlines (M, 2) that about fill the unit circle, y downwards."""
    t = np.linspace(0, 1, 61)
    circle = _polar(1.0, t + 0.25)  # starts on the right, where the crescent is open
    bite = 0.85 * circle + [0.55, 0.0]
    arm = 0.36
    heart = np.stack([16 * np.sin(2 * np.pi * t) ** 3, -sum(
        a * np.cos(2 * np.pi * k * t) for k, a in ((1, 13), (2, -5), (3, -2), (4, -1)))], axis=-1) / 16
    quarter = np.array([[-arm, -arm], [-arm, -1], [arm, -1]])
    return {
        'circle': 0.9 * circle,
        'triangle': _polar(1.1, np.arange(3) / 3),
        'square': _polar(1.1, np.arange(4) / 4 + 1 / 8),
        'star': _polar(np.tile([1.1, 0.45], 5), np.arange(10) / 10),
        'cross': np.concatenate([quarter @ np.linalg.matrix_power([[0, 1], [-1, 0]], k) for k in range(4)]),
        'ring': np.concatenate([circle, 0.5 * circle[::-1]]),  # a seam of no width leads to the hole
        'crescent': np.concatenate([
            circle[np.hypot(*(circle - [0.55, 0.0]).T) > 0.85],
            bite[np.hypot(*bite.T) < 1][::-1]]),
        'heart': heart,
        'arrow': np.array([[0, -1.1], [0.85, -0.1], [0.32, -0.1], [0.32, 1], [-0.32, 1], [-0.32, -0.1], [-0.85, -0.1]]),
        'hexagon': _polar(1.0, np.arange(6) / 6),
    }


OUTLINES = _outlines()
TEXTURES = ('striped', 'dotted')
CLASSES: List[Tuple[str, str]] = [
    (figure, TEXTURES[(i + turn) % 2]) for turn in range(2) for i, figure in enumerate(OUTLINES)]


class ShapesSource(ImageSource):
    """Pictures drawn when they are read: image i is a function of (seed, split, i) alone.

    Args:
        split: `train` (long-tailed), `val` or `test` (balanced).
        seed: Which pictures.
    """

    def __init__(self, split: str, seed: int = 0):
        self.key = [seed, SPLITS.index(split)]
        counts = {
            'train': long_tailed_counts(len(CLASSES), MAX_COUNT, IMBALANCE_FACTOR),
            'val': [VAL_PER_CLASS] * len(CLASSES),
            'test': [TEST_PER_CLASS] * len(CLASSES),
        }[split]
        self.classes = [f'{texture}-{figure}' for figure, texture in CLASSES]
        self.targets = np.repeat(np.arange(len(CLASSES), dtype=np.int64), counts)
        self.names = [f'shapes/{split}/{self.classes[c]}/{i:04d}.png' for i, c in enumerate(self.targets)]

    def read(self, index: int) -> Tuple[Image.Image, int]:
        target = int(self.targets[index])
        return draw(*CLASSES[target], np.random.RandomState([*self.key, index]))[0], target

    def raw(self, index: int) -> bytes:
        return self.read(index)[0].tobytes()

    def mask(self, index: int) -> np.ndarray:
        """Return where the figure is: uint8 (64, 64), 255 inside and 0 outside."""
        return draw(*CLASSES[int(self.targets[index])], np.random.RandomState([*self.key, index]))[1]


def load(split: str, seed: int = 0) -> ShapesSource:
    """Return `train` (120 down to 6 images a class), `val` (8 a class) or `test` (15 a class)."""
    return ShapesSource(split, seed)


def draw(figure: str, texture: str, rng: np.random.RandomState) -> Tuple[Image.Image, np.ndarray]:
    """Draw one picture.

    Args:
        figure: A key of `OUTLINES`.
        texture: `striped` or `dotted`.
        rng: Where everything random comes from.

    Returns:
        RGB image (64, 64) and the figure's mask, uint8 (64, 64), 0 or 255.
    """
    full = SIZE * SCALE
    canvas = _ground(rng, full)

    radius = full * rng.uniform(0.21, 0.34)
    centre = full / 2 + (full / 2 - 0.85 * radius) * rng.uniform(-1, 1, 2)
    turn = rng.uniform(0, 2 * np.pi)
    stretch = rng.uniform(0.88, 1.14)
    rotation = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    outline = _points(OUTLINES[figure] * [radius * stretch, radius / stretch] @ rotation + centre)

    stencil = Image.new('L', (full, full))
    ImageDraw.Draw(stencil).polygon(outline, fill=255)
    shadow = stencil.point([0] * 255 + [90])
    canvas.paste((0, 0, 0), (int(0.05 * radius), int(0.09 * radius)), shadow)
    canvas.paste(_fill(texture, radius, centre, rng, full), (0, 0), stencil)
    mask = np.asarray(stencil.reduce(SCALE)) > 127
    return canvas.reduce(SCALE), mask.astype(np.uint8) * 255


def _ground(rng: np.random.RandomState, full: int) -> Image.Image:
    """Paint soft patches of muted colour, then lines and small blobs."""
    hue, value = rng.uniform(), rng.uniform(0.3, 0.75)
    patches = [_rgb(hue + rng.normal(0, 0.06), rng.uniform(0.1, 0.4), value + rng.uniform(-0.12, 0.12))
               for _ in range(9)]
    ground = Image.fromarray(np.array(patches, dtype=np.uint8).reshape(3, 3, 3))
    ground = ground.resize((full, full), Image.Resampling.BICUBIC)
    pen = ImageDraw.Draw(ground)
    for _ in range(rng.randint(3, 9)):
        ends = rng.uniform(-0.1, 1.1, (2, 2)) * full
        pen.line(_points(ends), fill=_rgb(rng.uniform(), rng.uniform(0.2, 0.7), rng.uniform(0.2, 0.95)),
                 width=int(full * rng.uniform(0.006, 0.022)))
    for _ in range(rng.randint(4, 13)):
        x, y = rng.uniform(0, full, 2)
        r = full * rng.uniform(0.015, 0.045)
        colour = _rgb(rng.uniform(), rng.uniform(0.2, 0.8), rng.uniform(0.2, 0.95))
        pen.ellipse((x - r, y - r, x + r, y + r), fill=colour)
    return ground


def _fill(texture: str, radius: float, centre: np.ndarray, rng: np.random.RandomState, full: int) -> Image.Image:
    """Paint two-coloured stripes or dots over the square around the figure."""
    hue = rng.uniform()
    light = _rgb(hue, rng.uniform(0.15, 0.55), rng.uniform(0.92, 1.0))
    dark = _rgb(hue + rng.uniform(-0.25, 0.25), rng.uniform(0.7, 1.0), rng.uniform(0.3, 0.6))
    if rng.uniform() < 0.5:
        light, dark = dark, light
    paper = Image.new('RGB', (full, full), light)
    pen = ImageDraw.Draw(paper)
    period = radius * rng.uniform(0.30, 0.42)
    turn = rng.uniform(0, np.pi)
    along = np.array([np.cos(turn), np.sin(turn)])
    across = np.array([-along[1], along[0]])
    offset = rng.uniform(0, 1, 2)
    steps = np.arange(-5, 6)  # 1.5 radii to each side at the least period
    for j in steps:
        row = centre + across * (j + offset[0]) * period
        if texture == 'striped':
            pen.line(_points(np.stack([row - along * 1.5 * radius, row + along * 1.5 * radius])),
                     fill=dark, width=int(period * 0.5))
        else:
            r = period * 0.32
            for i in steps:
                x, y = row + along * (i + offset[1] + 0.5 * (j % 2)) * period
                pen.ellipse((x - r, y - r, x + r, y + r), fill=dark)
    return paper


def _points(array: np.ndarray) -> List[Tuple[float, float]]:
    return [(float(x), float(y)) for x, y in array]


def _rgb(hue: float, saturation: float, value: float) -> Colour:
    r, g, b = colorsys.hsv_to_rgb(hue % 1, saturation, min(max(value, 0.0), 1.0))
    return int(255 * r), int(255 * g), int(255 * b)
