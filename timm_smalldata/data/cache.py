"""Decode once: all images as uint8 in one memory-mapped file that workers and ranks share.

Every file is opened here, before the first epoch, so a bad one never stops a run in its second hour.
"""
import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, List, Optional, Sequence, Tuple

import numpy as np
import PIL
from PIL import Image

from ..errors import StorageError, UserError
from ..utils.files import open_atomic, remove_orphans
from .formats import open_image, without_warnings
from .pixels import Kinds, PixelRule, decode
from .source import ImageSource

FULL_SIZE_LIMIT = 2 << 30  # bytes of decoded images up to which 'auto' keeps them at full size
_CHUNK = 64


@dataclass
class Scan:
    """What was seen when every file was opened once.

    Attributes:
        sizes: int64 (N, 2) height and width; 0 where the file is bad.
        digests: uint8 (N, 32) sha256 of the encoded bytes.
        bad: Reason by index, for files that could not be read.
        kinds: How many images are not plain 8-bit colour or grey.
    """
    sizes: np.ndarray
    digests: np.ndarray
    bad: Dict[int, str]
    kinds: Kinds = field(default_factory=Kinds)

    def median_side(self) -> int:
        """Return the median of the shorter sides."""
        good = self.sizes[self.sizes[:, 0] > 0]
        return int(np.median(good.min(axis=1))) if len(good) else 0

    def decoded_bytes(self) -> int:
        return int(3 * self.sizes.prod(axis=1).sum())


def _header(raw: bytes, kinds: Kinds) -> Tuple[int, int]:
    with open_image(raw) as image:
        size = image.height, image.width
        kinds.see(image)
        return size


@without_warnings()
def scan(source: ImageSource, progress: Any = None) -> Scan:
    """Open every file once: its bytes are hashed, its header is read."""
    sizes = np.zeros((len(source), 2), dtype=np.int64)
    digests = np.zeros((len(source), 32), dtype=np.uint8)
    bad: Dict[int, str] = {}
    kinds = Kinds()
    encoded = _is_encoded(source)
    for index in range(len(source)):
        try:
            raw = source.raw(index)
            digests[index] = np.frombuffer(hashlib.sha256(raw).digest(), dtype=np.uint8)
            sizes[index] = _header(raw, kinds) if encoded else source.read(index)[0].size[::-1]
        except Exception as error:  # whatever a decoder raises: the file is bad, and the reason is kept
            bad[index] = reason_of(error)
        if progress is not None:
            progress.update()
    return Scan(sizes, digests, bad, kinds)


def _is_encoded(source: Any) -> bool:
    """Whether raw bytes are image files (sources that override `read` hold pixels)."""
    while hasattr(source, 'sources') or hasattr(source, 'source'):
        source = source.sources[0] if hasattr(source, 'sources') else source.source
    return type(source).read is ImageSource.read


def reason_of(error: Exception) -> str:
    """Return what an exception says of a file, in one line without addresses."""
    text = str(error).split('\n')[0].partition(' <_io.BytesIO')[0]  # its address says nothing and changes
    return (text or type(error).__name__)[:200]


def data_hash(names: Sequence[str], digests: np.ndarray, labels: Iterable[int]) -> str:
    """Return the sha256 over the sorted (relative path, sha256 of the bytes, label)."""
    total = hashlib.sha256()
    for name, digest, label in sorted(zip(names, (bytes(d) for d in digests), (int(n) for n in labels))):
        total.update(f'{name}\0{digest.hex()}\0{label}\n'.encode())
    return total.hexdigest()


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
    return None if sum(scanned.decoded_bytes() for scanned in scans) <= FULL_SIZE_LIMIT else 2 * size


class CachedSource(ImageSource):
    """A source whose pixels lie in a memory-mapped file.

    Args:
        source: Names, labels and raw bytes.
        path: The file of pixels.
        sizes: int64 (N, 2) stored heights and widths.
    """

    def __init__(self, source: ImageSource, path: Path, sizes: np.ndarray):
        self.source, self.path, self.sizes = source, path, sizes
        self.names, self.targets, self.classes = source.names, source.targets, source.classes
        self.offsets = np.concatenate([[0], np.cumsum(3 * sizes.prod(axis=1))])
        self._pixels: Optional[np.ndarray] = None

    def __getstate__(self) -> Dict:
        return {**self.__dict__, '_pixels': None, 'source': None}  # a worker maps the file itself

    def raw(self, index: int) -> bytes:
        return self.source.raw(index)

    def pixels(self, index: int) -> np.ndarray:
        if self._pixels is None:  # a plain array of its memory is quicker to cut; torch wants one that can be written
            self._pixels = np.asarray(np.memmap(self.path, dtype=np.uint8, mode='c'))
        height, width = self.sizes[index]
        return self._pixels[self.offsets[index]:self.offsets[index + 1]].reshape(height, width, 3)

    def read(self, index: int) -> Tuple[Image.Image, int]:
        return Image.fromarray(self.pixels(index)), int(self.targets[index])


def _decode(raw: Any, side: Optional[int], rule: PixelRule) -> Any:
    try:
        image = decode(raw, rule) if isinstance(raw, bytes) else raw
        if side is not None and min(image.size) > side:
            scale = side / min(image.size)
            image = image.resize(
                (max(1, round(image.width * scale)), max(1, round(image.height * scale))), Image.Resampling.BICUBIC)
        return np.asarray(image)
    except Exception as error:
        return reason_of(error)


def touch(path: Path) -> None:
    """Note that a file was used now, where that is allowed: what lies unused can be told by its time."""
    try:
        os.utime(path)
    except OSError:
        pass


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
    how = f'v2 {side} {rule} {PIL.__version__}'.encode()
    name = hashlib.sha256(scanned.digests.tobytes() + scanned.sizes.tobytes() + how).hexdigest()[:24]
    pixels, index_file = folder / f'{name}.u8', folder / f'{name}.npz'
    if pixels.exists() and index_file.exists():
        touch(pixels)
        try:
            return (pixels, *_read_cache(pixels, index_file, len(source)))
        except Exception as error:  # whatever a damaged file raises
            say(f'image cache {pixels}: {error or type(error).__name__}; it is made again')
    try:
        folder.mkdir(parents=True, exist_ok=True)
        remove_orphans(folder)
        sizes, bad, digest = _write_pixels(source, scanned, pixels, side, progress, rule)
        with open_atomic(index_file, binary=True) as stream:
            np.savez(stream, sizes=sizes, bad=np.array(list(bad), dtype=np.int64), reasons=np.array(list(bad.values())),
                     name=np.array(name), digest=np.array(digest))
    except (OSError, StorageError) as error:
        raise UserError(
            f"Cannot write the image cache in {folder}: {getattr(error, 'strerror', None) or error} "
            'Choose another place with --cache-dir, or store smaller images with --cache-size 256.') from error
    return pixels, sizes, bad


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
    encoded = _is_encoded(source)
    good: List[int] = [i for i in range(len(source)) if i not in bad]
    with open_atomic(path, binary=True) as stream, ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(good), _CHUNK):
            chunk = good[start:start + _CHUNK]
            items = [source.raw(i) if encoded else source.read(i)[0] for i in chunk]  # readers are not thread-safe
            for index, pixels in zip(chunk, pool.map(lambda item: _decode(item, side, rule), items)):
                if isinstance(pixels, str):
                    bad[index] = pixels
                else:
                    sizes[index] = pixels.shape[:2]
                    content = pixels.tobytes()
                    digest.update(content)
                    stream.write(content)
                if progress is not None:
                    progress.update()
        if not stream.tell():
            stream.write(b'\0')  # an empty file cannot be mapped
            digest.update(b'\0')
    return sizes, bad, digest.hexdigest()
