"""Which image files are read: a fixed list, told by their first bytes, all decoded inside this process.

Pillow also opens files by calling other programs (PostScript, WMF); these are never opened, whatever they are called.
"""
import io
import warnings
from contextlib import contextmanager
from typing import Dict, Iterator, List, Tuple

from PIL import Image, UnidentifiedImageError, features

MOST_BYTES = 1 << 30  # of a file
MOST_PIXELS = 178_956_970  # Pillow's own limit

_KNOWN: Dict[str, Tuple[str, Tuple[str, ...]]] = {  # Pillow's name: the part of Pillow it needs, suffixes
    'PNG': ('zlib', ('.png', '.apng')),
    'JPEG': ('jpg', ('.jpg', '.jpeg', '.jpe', '.jfif')),
    'WEBP': ('webp', ('.webp',)),
    'BMP': ('', ('.bmp', '.dib')),
    'TIFF': ('', ('.tif', '.tiff')),
    'GIF': ('', ('.gif',)),
    'JPEG2000': ('jpg_2000', ('.jp2', '.j2k', '.j2c', '.jpc', '.jpf', '.jpx')),
    'PPM': ('', ('.ppm', '.pgm', '.pbm', '.pnm')),
    'AVIF': ('avif', ('.avif',)),
}
_SIGNATURES = (  # what a file is that is none of these
    (b'%!PS', 'PostScript'), (b'\xc5\xd0\xd3\xc6', 'PostScript'), (b'%PDF', 'PDF'), (b'\xd7\xcd\xc6\x9a', 'WMF'),
    (b'<svg', 'SVG'), (b'<?xml', 'XML'), (b'<', 'HTML or XML'), (b'PK\x03\x04', 'ZIP'), (b'8BPS', 'Photoshop'),
)


def _has(part: str) -> bool:
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # older versions of Pillow do not know the word
        return not part or bool(features.check(part))


FORMATS: List[str] = [name for name, (part, _) in _KNOWN.items() if _has(part)]
SUFFIXES = frozenset(suffix for name in FORMATS for suffix in _KNOWN[name][1])


def suffix_of(name: str) -> str:
    """Return the suffix of a file name in lower case, with its point; empty without one.

    >>> suffix_of('a.b/ant.JPG'), suffix_of('a.b/ant'), suffix_of('.hidden')
    ('.jpg', '', '')
    """
    stem, point, suffix = name.rpartition('/')[2].rpartition('.')
    return f'.{suffix.lower()}' if point and stem and suffix else ''


def is_image_name(name: str) -> bool:
    """Return whether a file is read as an image, by its suffix."""
    return suffix_of(name) in SUFFIXES


@contextmanager
def without_warnings() -> Iterator[None]:
    """Silence Pillow, which warns of tags that it skips and of sizes; what cannot be read raises all the same.

    For the thread that starts others: the filter of warnings belongs to the whole process.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', category=Image.DecompressionBombWarning)
        warnings.filterwarnings('ignore', category=UserWarning, module=r'PIL\b')
        yield


def open_image(raw: bytes) -> Image.Image:
    """Open an encoded image of a kind on the list; nothing is decoded yet.

    Raises:
        ValueError: It is larger than what is read.
        OSError: It is of no kind that is read, or broken.
    """
    if len(raw) > MOST_BYTES:
        raise ValueError(f'a file of {len(raw) >> 20} MB; at most {MOST_BYTES >> 20} MB are read')
    try:
        image = Image.open(io.BytesIO(raw), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise ValueError(_too_large()) from error
    except UnidentifiedImageError as error:
        raise OSError(_what_it_is(raw)) from error
    if image.width * image.height > MOST_PIXELS:
        raise ValueError(_too_large(image.width, image.height))
    return image


def _too_large(*size: int) -> str:
    what = f'{size[0]} x {size[1]} pixels are ' if size else ''
    return f'{what}more than {MOST_PIXELS // 10 ** 6} million pixels, which is too large: store it smaller'


def _what_it_is(raw: bytes) -> str:
    start = raw[:256].lstrip()
    kind = next((kind for signature, kind in _SIGNATURES if start.startswith(signature)), '')
    if not raw:
        return 'the file is empty'
    return f'it holds {kind}, which is not read' if kind else f'no image of a kind that is read ({", ".join(FORMATS)})'
