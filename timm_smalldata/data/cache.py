"""Decode once: all images as uint8 in one memory-mapped file that workers and ranks share."""
import hashlib
import os
from pathlib import Path
from typing import Any, Callable, Dict, Optional, Tuple

import numpy as np
import PIL
from PIL import Image, features

from ..errors import StorageError, UserError
from ..utils.files import open_atomic, remove_orphans
from .formats import without_warnings
from .pixels import PixelRule
from .scan import Scan
from .source import ImageSource
from .stored import each_stored

MADE_BY = f'Pillow {PIL.__version__}, JPEG {features.version("jpg")}, form 3'  # other versions: other pixels, perhaps


class CachedSource(ImageSource):
    """A source whose pixels lie in a memory-mapped file.

    Args:
        source: Names, labels and raw bytes.
        path: The file of pixels.
        sizes: int64 (N, 2) stored heights and widths.
        keeper: Held as long as the pixels are needed: the file may go away with it.
    """

    def __init__(self, source: ImageSource, path: Path, sizes: np.ndarray, keeper: Any = None):
        self.source, self.path, self.sizes, self.keeper = source, path, sizes, keeper
        self.names, self.targets, self.classes = source.names, source.targets, source.classes
        self.offsets = np.concatenate([[0], np.cumsum(3 * sizes.prod(axis=1))])
        self._pixels: Optional[np.ndarray] = None

    def __getstate__(self) -> Dict:
        return {**self.__dict__, '_pixels': None, 'source': None, 'keeper': None}  # a worker maps the file itself

    def raw(self, index: int) -> bytes:
        return self.source.raw(index)

    def pixels(self, index: int) -> np.ndarray:
        if self._pixels is None:  # a plain array of its memory is quicker to cut; torch wants one that can be written
            self._pixels = np.asarray(np.memmap(self.path, dtype=np.uint8, mode='c'))
        height, width = self.sizes[index]
        return self._pixels[self.offsets[index]:self.offsets[index + 1]].reshape(height, width, 3)

    def read(self, index: int) -> Tuple[Image.Image, int]:
        return Image.fromarray(self.pixels(index)), int(self.targets[index])


def touch(path: Path) -> None:
    """Note that a file was used now, where that is allowed: what lies unused can be told by its time."""
    try:
        os.utime(path)
    except OSError:
        pass


def cache_file(folder: Path, scanned: Scan, side: Optional[int], rule: PixelRule) -> Path:
    """Return the file of pixels: it is named after the bytes of the images, then after what is made of them."""
    images = hashlib.sha256(scanned.digests.tobytes() + scanned.sizes.tobytes()).hexdigest()
    return folder / f'{images[:12]}{hashlib.sha256(_how(side, rule).encode()).hexdigest()[:12]}.u8'


def is_there(pixels: Path) -> bool:
    """Return whether there is a cache of that name, whole or not."""
    return pixels.exists() and pixels.with_suffix('.npz').exists()


def _how(side: Optional[int], rule: PixelRule) -> str:
    return f'{side} {rule}; {MADE_BY}'


def build_cache(
        source: ImageSource,
        scanned: Scan,
        folder: Path,
        side: Optional[int] = None,
        progress: Any = None,
        rule: PixelRule = PixelRule(),
        say: Callable[[str], Any] = lambda line: None,
) -> Tuple[Path, np.ndarray, Dict[int, str]]:
    """Decode every image once into one file; an equal cache that exists and is whole is used again.

    Args:
        source: Images.
        scanned: The scan of that source.
        folder: Where cache files lie; they are named after the bytes of the images, `side`, `rule` and the decoder's
            version.
        side: Largest shorter side that is stored; None for full size.
        progress: tqdm bar.
        rule: How images are read that are not plain 8-bit colour or grey.
        say: Hears why a cache that exists is made again.

    Returns:
        The file of pixels, the stored sizes (N, 2) and the bad files (reason by index).
    """
    pixels = cache_file(folder, scanned, side, rule)
    index_file = pixels.with_suffix('.npz')
    if is_there(pixels):
        touch(pixels)
        try:
            return (pixels, *_read_cache(pixels, index_file, len(source)))
        except Exception as error:  # whatever a damaged file raises
            say(f'image cache {pixels}: {error or type(error).__name__}; it is made again')
    else:
        _note_other_version(pixels, _how(side, rule), say)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        remove_orphans(folder)
        sizes, bad, digest = _write_pixels(source, scanned, pixels, side, progress, rule)
        with open_atomic(index_file, binary=True) as stream:
            np.savez(stream, sizes=sizes, bad=np.array(list(bad), dtype=np.int64), reasons=np.array(list(bad.values())),
                     name=np.array(pixels.stem), digest=np.array(digest), how=np.array(_how(side, rule)))
    except (OSError, StorageError) as error:
        raise UserError(
            f"Cannot write the image cache in {folder}: {getattr(error, 'strerror', None) or error} "
            'Choose another place with --cache-dir, store smaller images with --cache-size 256, or keep them in memory '
            '(--cache ram) or nowhere (--cache off).') from error
    return pixels, sizes, bad


def _note_other_version(pixels: Path, how: str, say: Callable[[str], Any]) -> None:
    """Say that the same images were decoded by another version."""
    settings, _, mine = how.rpartition('; ')
    for other in pixels.parent.glob(f'{pixels.stem[:12]}*.npz'):
        try:
            with np.load(other) as index:
                theirs, _, version = str(index['how']).rpartition('; ')
        except Exception:  # not ours, or damaged
            continue
        if theirs == settings and version != mine:
            say(f'image cache {other.with_suffix(".u8")} was made by another version ({version}; now {mine}): it stays '
                'unused, and images are decoded anew (timm-smalldata cache --prune removes it)')


def _read_cache(pixels: Path, index_file: Path, images: int) -> Tuple[np.ndarray, Dict[int, str]]:
    """Return sizes and bad files of a cache; raises a ValueError if it is not whole, or not the one of that name."""
    with np.load(index_file) as index:
        sizes, named, digest = index['sizes'], str(index['name']), str(index['digest'])
        bad = {int(i): str(reason) for i, reason in zip(index['bad'], index['reasons'])}
    if named != pixels.stem or sizes.shape != (images, 2):
        raise ValueError('its index belongs to other images')
    if pixels.stat().st_size != max(3 * int(sizes.prod(axis=1).sum()), 1):
        raise ValueError('it is cut short')
    found = hashlib.sha256()
    with open(pixels, 'rb') as file:
        while chunk := file.read(1 << 20):
            found.update(chunk)
    if found.hexdigest() != digest:
        raise ValueError('its bytes have changed')
    return sizes, bad


@without_warnings()
def _write_pixels(
        source: ImageSource, scanned: Scan, path: Path, side: Optional[int], progress: Any, rule: PixelRule,
) -> Tuple[np.ndarray, Dict[int, str], str]:
    """Write the pixels; returns the stored sizes, the bad files and the sha256 of what was written."""
    digest = hashlib.sha256()
    sizes, bad = np.zeros_like(scanned.sizes), dict(scanned.bad)
    with open_atomic(path, binary=True, needs=scanned.decoded_bytes(side)) as stream:
        for index, pixels in each_stored(source, scanned, side, rule, progress):
            if isinstance(pixels, str):
                bad[index] = pixels
                continue
            sizes[index] = pixels.shape[:2]
            content = pixels.tobytes()
            digest.update(content)
            stream.write(content)
        if not stream.tell():
            stream.write(b'\0')  # an empty file cannot be mapped
            digest.update(b'\0')
    return sizes, bad, digest.hexdigest()
