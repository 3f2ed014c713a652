"""What is kept of an image: decoded, and shrunk where it is large. The same pixels whenever that is done."""
from typing import Any, Dict, Iterable, Optional, Tuple, Union

import numpy as np
from PIL import Image

from ..errors import UserError
from .formats import without_warnings
from .parallel import each
from .pixels import PixelRule, decode
from .scan import Scan, reason_of
from .source import ImageSource, is_encoded, is_parallel

FULL_SIZE_LIMIT = 2 << 30  # bytes of decoded images up to which 'auto' keeps them at full size
MULTIPLE = 2  # of the largest image size of the run: the shorter side that is kept beyond


def stored_side(scans: Iterable[Scan], size: int, wanted: str = 'auto') -> Optional[int]:
    """Resolve `--cache-size` for all splits alike.

    Args:
        scans: Those of every source.
        size: Largest image size of the run.
        wanted: Value of the flag.

    Returns:
        None to keep full size, or the largest shorter side that is stored.
    """
    if wanted == 'full':
        return None
    if wanted != 'auto':
        if not wanted.isdecimal() or int(wanted) < 1:
            raise UserError(f'--cache-size {wanted!r}: expected full, auto or a number of pixels.')
        return int(wanted)
    return None if sum(scanned.decoded_bytes() for scanned in scans) <= FULL_SIZE_LIMIT else MULTIPLE * size


def stored_pixels(item: Any, side: Optional[int] = None, rule: PixelRule = PixelRule()) -> np.ndarray:
    """Return what is kept of one image, uint8 (h, w, 3).

    Args:
        item: The bytes of an image file, or an image.
        side: Largest shorter side that is kept; None for full size.
        rule: How images are read that are not plain 8-bit colour or grey.

    Raises:
        OSError, ValueError: It cannot be decoded.
    """
    image = decode(item, rule) if isinstance(item, bytes) else item
    if side is not None and min(image.size) > side:
        scale = side / min(image.size)
        image = image.resize(
            (max(1, round(image.width * scale)), max(1, round(image.height * scale))), Image.Resampling.BICUBIC)
    return np.asarray(image)


def each_stored(
        source: ImageSource, scanned: Scan, side: Optional[int], rule: PixelRule, progress: Any = None,
) -> Iterable[Tuple[int, Union[str, np.ndarray]]]:
    """Yield what is kept of every image whose header is good, with its index; for a bad one the reason, a string."""
    def work(item: Any) -> Any:
        try:
            if isinstance(item, Exception):
                raise item
            return stored_pixels(item, side, rule)
        except Exception as error:  # whatever a decoder raises
            return reason_of(error)

    encoded = is_encoded(source)
    good = [index for index in range(len(source)) if index not in scanned.bad]
    sizes = 3 * scanned.sizes.prod(axis=1)
    read = source.raw if encoded else lambda index: source.read(index)[0]
    for index, found in each(good, read, work, is_parallel(source), sizes.tolist()):
        yield index, found
        if progress is not None:
            progress.update()


@without_warnings()
def check_images(
        source: ImageSource, scanned: Scan, side: Optional[int] = None, rule: PixelRule = PixelRule(),
        progress: Any = None,
) -> Tuple[np.ndarray, Dict[int, str]]:
    """Decode every image once and keep nothing; returns what `build_cache` does, the sizes and the bad files."""
    sizes, bad = np.zeros_like(scanned.sizes), dict(scanned.bad)
    for index, found in each_stored(source, scanned, side, rule, progress):
        if isinstance(found, str):
            bad[index] = found
        else:
            sizes[index] = found.shape[:2]
    return sizes, bad


class DirectSource(ImageSource):
    """A source whose images are decoded each time that they are read, to what would be kept of them.

    Args:
        source: Names, labels and raw bytes.
        side: Largest shorter side; None for full size.
        rule: How images are read that are not plain 8-bit colour or grey.
    """

    def __init__(self, source: ImageSource, side: Optional[int] = None, rule: PixelRule = PixelRule()):
        self.source, self.side, self.rule = source, side, rule
        self.names, self.targets, self.classes = source.names, source.targets, source.classes
        self.encoded = is_encoded(source)

    def raw(self, index: int) -> bytes:
        return self.source.raw(index)

    def pixels(self, index: int) -> np.ndarray:
        """Return one image as uint8 (h, w, 3).

        Raises:
            UserError: It cannot be read any more.
        """
        try:
            item = self.source.raw(index) if self.encoded else self.source.read(index)[0]
            with without_warnings():
                return np.array(stored_pixels(item, self.side, self.rule))  # torch wants one that can be written
        except Exception as error:
            raise UserError(f'{self.names[index]} can no longer be read: {reason_of(error)}. Before the first epoch it '
                            'could: put it back and go on with --resume auto.') from error

    def read(self, index: int) -> Tuple[Image.Image, int]:
        return Image.fromarray(self.pixels(index)), int(self.targets[index])
