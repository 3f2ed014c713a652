"""Automatic augmentation that timm lacks: AutoAugment's policy for CIFAR, the random operations of IDMM, Cutout."""
import random
from typing import Any, Callable, Dict, Tuple

from PIL import Image
from torchvision import transforms

from .._compat import augment_op

GREY, BLACK = (125, 122, 113), (0, 0, 0)


def cutout(image: Image.Image, side: int, fill: Tuple[int, int, int] = BLACK) -> Image.Image:
    """Fill a square whose centre is anywhere in the image; what lies outside is cut off.

    Cutout (DeVries, Taylor, 2017, https://arxiv.org/abs/1708.04552, sec. 3). Draws from Python's generator.

    Args:
        image: RGB image.
        side: Of the square, in pixels; an odd one is cut down to an even one.
        fill: Its colour.

    >>> image = cutout(Image.new('RGB', (8, 8), 'white'), side=32)
    >>> image.getextrema()
    ((0, 0), (0, 0), (0, 0))
    """
    x, y, half = random.randrange(image.width), random.randrange(image.height), side // 2
    image = image.copy()
    image.paste(fill, (max(x - half, 0), max(y - half, 0), min(x + half, image.width), min(y + half, image.height)))
    return image


class Cutout:
    """`cutout` as a transform."""

    def __init__(self, side: int):
        self.side = side

    def __call__(self, image: Image.Image) -> Image.Image:
        return cutout(image, self.side)


class RandomOperations:
    """Two of fifteen operations, each done in half of the cases, at one of nine strengths (IDMM, arXiv:2201.10728).

    The operations are timm's but for Cutout, which fills a grey square of 2 to 20 pixels.
    """
    names = (
        'Invert', 'Cutout', 'SharpnessIncreasing', 'AutoContrast', 'PosterizeOriginal', 'ShearX', 'TranslateXRel',
        'TranslateYRel', 'ShearY', 'Rotate', 'Equalize', 'ContrastIncreasing', 'ColorIncreasing', 'SolarizeIncreasing',
        'BrightnessIncreasing')
    prob = 0.5

    def __call__(self, image: Image.Image) -> Image.Image:
        for name in random.choices(self.names, k=2):
            if random.random() < self.prob:
                level = random.randint(1, 9) / 9
                image = cutout(image, round(20 * level), GREY) if name == 'Cutout' else augment_op(
                    name, 1.0, 10 * level)(image)
        return image


def _cifar10() -> Any:
    return transforms.AutoAugment(transforms.AutoAugmentPolicy.CIFAR10, fill=[128, 128, 128])


POLICIES: Dict[str, Callable[[], Any]] = {'cifar10': _cifar10, 'idmm': RandomOperations}


def is_policy(transform: Any) -> bool:
    """Return whether a transform is one of `POLICIES`.

    >>> is_policy(POLICIES['idmm']()), is_policy(Cutout(16))
    (True, False)
    """
    return isinstance(transform, (transforms.AutoAugment, RandomOperations))
