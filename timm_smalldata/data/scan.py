"""Every file opened once: its bytes are hashed, its header is read, a bad one is known before anything is trained."""
import hashlib
from dataclasses import dataclass, field
from typing import Any, Dict, Iterable, Optional, Sequence

import numpy as np

from .formats import open_image, without_warnings
from .parallel import each
from .pixels import Kinds
from .source import ImageSource, is_encoded, is_parallel

_PLAIN = Kinds()


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

    def decoded_bytes(self, side: Optional[int] = None) -> int:
        """Return the bytes of all images decoded, the shorter side cut down to `side`."""
        factor = 1.0 if side is None else np.minimum(side / np.maximum(self.sizes.min(axis=1), 1), 1.0)[:, None]
        return int(3 * np.rint(self.sizes * factor).prod(axis=1).sum())


@without_warnings()
def scan(source: ImageSource, progress: Any = None) -> Scan:
    """Open every file once: its bytes are hashed, its header is read."""
    found = Scan(np.zeros((len(source), 2), dtype=np.int64), np.zeros((len(source), 32), dtype=np.uint8), {})

    def read(index: int) -> Any:
        return source.raw(index) if encoded else (source.raw(index), source.read(index)[0].size)

    encoded = is_encoded(source)
    for index, seen in each(range(len(source)), read, _look, is_parallel(source)):
        if isinstance(seen, str):
            found.bad[index] = seen
        else:
            digest, found.sizes[index], kinds = seen
            found.digests[index] = np.frombuffer(digest, dtype=np.uint8)
            if kinds is not None:
                found.kinds.add(kinds)
        if progress is not None:
            progress.update()
    return found


def _look(item: Any) -> Any:
    """Return digest, size and kinds of an image, or in place of them why it cannot be read."""
    try:
        if isinstance(item, Exception):
            raise item
        if isinstance(item, tuple):
            return hashlib.sha256(item[0]).digest(), item[1][::-1], None
        kinds = Kinds()
        with open_image(item) as image:
            size = image.height, image.width
            kinds.see(image)
        return hashlib.sha256(item).digest(), size, kinds if kinds != _PLAIN else None
    except Exception as error:  # whatever a decoder raises: the file is bad, and the reason is kept
        return reason_of(error)


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
