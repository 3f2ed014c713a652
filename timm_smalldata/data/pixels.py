"""From an opened image to RGB: what becomes of transparency, of more than 8 bits, of palettes, of very large images.

One outcome each, the same wherever images are read: training, evaluation, analysis.
"""
import math
import threading
from argparse import Namespace
from dataclasses import dataclass
from typing import Any, Dict, Iterable, List, Optional, Sequence, Tuple

import numpy as np
from PIL import Image

from ..utils.text import counted
from .formats import open_image

GROUNDS = {'white': (255, 255, 255), 'grey': (128, 128, 128), 'black': (0, 0, 0)}
ALPHA = (*GROUNDS, 'drop')
LARGE = 50_000_000  # pixels; images of more are read smaller, one at a time
_one_at_a_time = threading.Lock()


@dataclass(frozen=True)
class PixelRule:
    """How images are read that are not plain 8-bit colour or grey.

    Attributes:
        alpha: What shines through: 'white', 'grey' or 'black'; 'drop' takes the hidden colours as they are.
        grey_range: Of greyscale images of more than 8 bits: the values that become 0 and 255. None takes the range
            of the bits that the image itself uses.
    """
    alpha: str = 'white'
    grey_range: Optional[Tuple[float, float]] = None

    @classmethod
    def of(cls, args: Namespace) -> 'PixelRule':
        """Return the rule that settings name."""
        return cls(args.alpha, tuple(args.grey_range) if args.grey_range else None)

    @classmethod
    def of_model(cls, training: Dict[str, Any]) -> 'PixelRule':
        """Return the rule that was exported with a model; models without one saw hidden colours."""
        pixels = training.get('pixels') or dict(alpha='drop', grey_range=None)
        return cls(pixels['alpha'], tuple(pixels['grey_range']) if pixels['grey_range'] else None)

    def to_dict(self) -> Dict[str, Any]:
        """Return it as plain JSON values, under the names of the flags."""
        return dict(alpha=self.alpha, grey_range=list(self.grey_range) if self.grey_range else None)


@dataclass
class Kinds:
    """What was seen in headers.

    Attributes:
        alpha: Images with transparency.
        deep: Greyscale images of more than 8 bits.
        animated: Images of several frames.
        lowest: Least value of a deep image.
        highest: Greatest value of a deep image.
    """
    alpha: int = 0
    deep: int = 0
    animated: int = 0
    lowest: float = 0.0
    highest: float = 0.0

    def see(self, image: Image.Image) -> None:
        """Count an opened image; a deep one is decoded for its values.

        Raises:
            ValueError: A deep image without finite values.
        """
        if is_deep(image):
            values = np.asarray(image)
            low, high = float(values.min()), float(values.max())
            if not math.isfinite(low) or not math.isfinite(high):
                raise ValueError('values that are not finite (NaN or infinity)')
            self.deep += 1
            self.lowest, self.highest = min(self.lowest, low), max(self.highest, high)
        self.alpha += has_alpha(image)
        self.animated += is_animated(image)

    def add(self, other: 'Kinds') -> None:
        """Add what was seen elsewhere."""
        self.alpha, self.deep = self.alpha + other.alpha, self.deep + other.deep
        self.animated += other.animated
        self.lowest, self.highest = min(self.lowest, other.lowest), max(self.highest, other.highest)


def total(kinds: Iterable[Kinds]) -> Kinds:
    """Return the sum of what was seen in several places."""
    summed = Kinds()
    for some in kinds:
        summed.add(some)
    return summed


def grey_range(lowest: float, highest: float) -> Tuple[float, float]:
    """Return the range of the bits that hold these values: up to 1, 255, 1023, 4095, 16383, 65535, ...

    >>> grey_range(90, 3800), grey_range(0.1, 0.8), grey_range(-5, 70000)
    ((0.0, 4095.0), (0.0, 1.0), (-5.0, 4294967295.0))
    """
    tops = (1.0, *(2.0 ** bits - 1 for bits in (8, 10, 12, 14, 16, 32)))
    return min(float(lowest), 0.0), next((top for top in tops if highest <= top), float(highest))


def notes_on(kinds: Kinds, rule: PixelRule) -> List[str]:
    """Return a line for each kind of image that is not plain: how many there are, and how they are read."""
    notes = []
    if kinds.alpha:
        how = ('their transparency is dropped, hidden colours are seen' if rule.alpha == 'drop' else
               f'laid on {rule.alpha}')
        notes.append(f'{counted(kinds.alpha, "image has", "images have")} transparency: {how} (--alpha)')
    if kinds.deep:
        low, high = rule.grey_range or grey_range(kinds.lowest, kinds.highest)
        notes.append(f'{counted(kinds.deep, "greyscale image has", "greyscale images have")} more than 8 bits: {low:g} '
                     f'to {high:g} becomes 0 to 255 (--grey-range); values seen: {kinds.lowest:g} to {kinds.highest:g}')
    if kinds.animated:
        notes.append(f'{counted(kinds.animated, "image has", "images have")} several frames: the first one is read')
    return notes


def is_deep(image: Image.Image) -> bool:
    """Return whether an image is grey with more than 8 bits, which Pillow would cut off at 255."""
    return image.mode[0] in 'IF'


def has_alpha(image: Image.Image) -> bool:
    """Return whether an image has transparency: a channel of its own, or a colour that means it."""
    return image.mode in ('LA', 'La', 'PA', 'RGBA', 'RGBa') or (
        'transparency' in image.info and image.mode in ('1', 'L', 'P', 'RGB'))


def is_animated(image: Image.Image) -> bool:
    """Return whether an image has several frames or pages."""
    if image.format not in ('GIF', 'PNG', 'WEBP', 'TIFF', 'AVIF'):
        return False  # a JPEG of several pictures is one with its preview
    try:
        return bool(getattr(image, 'is_animated', False))
    except Exception:  # a later frame is broken, which is never read
        return True


def to_rgb(image: Image.Image, rule: PixelRule = PixelRule()) -> Image.Image:
    """Return an opened image (of several frames, the first) as 8-bit RGB.

    Palettes are looked up, CMYK is converted without a colour profile, a rotation that EXIF asks for is not made.
    """
    if is_deep(image):
        values = np.asarray(image, dtype=np.float32)
        low, high = rule.grey_range or grey_range(float(values.min()), float(values.max()))
        scaled = np.nan_to_num((values - low) * (255 / max(high - low, 1e-30))).clip(0, 255).round()
        return Image.fromarray(scaled.astype(np.uint8)).convert('RGB')
    if has_alpha(image) and rule.alpha != 'drop':
        above = image.convert('RGBA')
        return Image.alpha_composite(Image.new('RGBA', image.size, GROUNDS[rule.alpha]), above).convert('RGB')
    return image.convert('RGB')


def decode(raw: bytes, rule: PixelRule = PixelRule()) -> Image.Image:
    """Decode an encoded image to RGB. One of more than 50 million pixels is read smaller by a whole factor.

    Raises:
        OSError, ValueError: It cannot be decoded, or is too large to be.
    """
    with open_image(raw) as image:
        factor = math.ceil(math.sqrt(image.width * image.height / LARGE))
        if factor <= 1:
            return to_rgb(image, rule)
        with _one_at_a_time:
            return _decode_smaller(image, factor, rule)


def _decode_smaller(image: Any, factor: int, rule: PixelRule) -> Image.Image:
    """Return an image smaller by a factor; only strips of it are held in full colour."""
    size: Sequence[int] = (-(-image.width // factor), -(-image.height // factor))
    if image.format == 'JPEG':
        image.draft(None, (size[0], size[1]))  # the decoder leaves out what is not needed
        factor = max(1, min(factor, image.width // size[0]))
        size = (-(-image.width // factor), -(-image.height // factor))
    image.load()
    if rule.grey_range is None and is_deep(image):
        rule = PixelRule(rule.alpha, grey_range(*image.getextrema()))
    result = Image.new('RGB', (size[0], size[1]))
    height = factor * max(1, 4_000_000 // (image.width * factor))
    for top in range(0, image.height, height):
        strip = image.crop((0, top, image.width, min(top + height, image.height)))
        result.paste(to_rgb(strip, rule).reduce(factor), (0, top // factor))
    return result
