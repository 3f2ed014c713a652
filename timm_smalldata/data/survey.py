"""Every image looked at once: its bytes, its size and kind, how bright it is, and a fingerprint of what it shows."""
import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Tuple

import numpy as np
from PIL import Image

from .formats import open_image, without_warnings
from .pixels import PixelRule, decode
from .scan import reason_of
from .source import ImageSource

_SIDE, _CHUNK = 16, 64
NEAR = 16  # of 256 bits; in photographs of one flower species the next pair of different pictures is at 25


@dataclass
class Survey:
    """What was seen of N images.

    Attributes:
        names: Their names.
        labels: Class name of each.
        splits: Role of each: 'train', 'val', 'test', or 'all' where there are no splits.
        digests: sha256 of the bytes of each (empty where they cannot be read).
        sizes: int64 (N, 2) width and height.
        modes: Pillow's mode of each file.
        brightness: float (N,) mean of the grey values, 0 to 255.
        contrast: float (N,) standard deviation of the grey values of 16 x 16 cells.
        prints: bool (N, 256) whether a cell is brighter than the one to its left.
        cells: float32 (N, 256) grey values of the cells.
        bad: Reason by index, for images that cannot be read.
    """
    names: List[str]
    labels: List[str]
    splits: List[str]
    digests: List[str]
    sizes: np.ndarray
    modes: List[str]
    brightness: np.ndarray
    contrast: np.ndarray
    prints: np.ndarray
    cells: np.ndarray
    bad: Dict[int, str]

    def __len__(self) -> int:
        return len(self.names)


@without_warnings()
def survey(parts: Dict[str, List[ImageSource]], rule: PixelRule = PixelRule(), progress: Any = None) -> Survey:
    """Look at every image of every role once."""
    places = [(role, source, i) for role, sources in parts.items() for source in sources for i in range(len(source))]
    seen: List[Tuple] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(places), _CHUNK):
            raws = [raw_of(source, i) for _, source, i in places[start:start + _CHUNK]]  # readers are not thread-safe
            for one in pool.map(lambda raw: _look(raw, rule), raws):
                seen.append(one)
                if progress is not None:
                    progress.update()
    digests, sizes, modes, cells, prints, reasons = zip(*seen) if seen else ((),) * 6
    grey = np.array(cells, dtype=np.float32).reshape(len(seen), -1)
    return Survey(
        [source.names[i] for _, source, i in places],
        [source.classes[source.targets[i]] for _, source, i in places],
        [role for role, _, _ in places],
        list(digests), np.array(sizes, dtype=np.int64).reshape(-1, 2), list(modes),
        grey.mean(1) if len(seen) else np.zeros(0), grey.std(1) if len(seen) else np.zeros(0),
        np.array(prints, dtype=bool).reshape(len(seen), -1), grey,
        {i: reason for i, reason in enumerate(reasons) if reason})


def raw_of(source: ImageSource, index: int) -> Any:
    """Return the bytes of an image file, the image of a source that holds pixels, or the error that stands for it."""
    try:
        if type(source).read is ImageSource.read:
            return source.raw(index)
        return source.read(index)[0]
    except Exception as error:  # whatever a reader raises: the file is bad, and the reason is kept
        return error


def _look(raw: Any, rule: PixelRule) -> Tuple:
    digest, blank = '', np.zeros((_SIDE, _SIDE + 1), dtype=np.float32)
    try:
        if isinstance(raw, Exception):
            raise raw
        if isinstance(raw, bytes):
            digest = hashlib.sha256(raw).hexdigest()
            with open_image(raw) as opened:
                size, mode = opened.size, opened.mode
            image = decode(raw, rule)
        else:
            image = raw
            digest = hashlib.sha256(image.tobytes()).hexdigest()
            size, mode = image.size, image.mode
        grey = image.convert('L')
        wide = np.asarray(grey.resize((_SIDE + 1, _SIDE), Image.Resampling.BOX), dtype=np.float32)
        cells = np.asarray(grey.resize((_SIDE, _SIDE), Image.Resampling.BOX), dtype=np.float32)
        return digest, size, mode, cells.ravel(), (wide[:, 1:] > wide[:, :-1]).ravel(), ''
    except Exception as error:
        return digest, (0, 0), '', blank[:, 1:].ravel(), (blank[:, 1:] > 0).ravel(), reason_of(error)


def equal_images(seen: Survey) -> List[List[int]]:
    """Return groups of images that are byte for byte the same."""
    groups: Dict[str, List[int]] = {}
    for i, digest in enumerate(seen.digests):
        if digest and i not in seen.bad:
            groups.setdefault(digest, []).append(i)
    return [group for group in groups.values() if len(group) > 1]


def near_pairs(seen: Survey, limit: int = NEAR, progress: Optional[Any] = None) -> List[Tuple[int, int]]:
    """Return pairs of images that show the same, though their bytes differ: at most `limit` of 256 bits apart.

    Their cells must follow each other, too (correlation from 0.98 on); images of one even colour are left out.
    """
    good = np.array([i for i in range(len(seen)) if i not in seen.bad and seen.contrast[i] > 4], dtype=np.int64)
    signs = seen.prints[good].astype(np.float32) * 2 - 1
    cells = seen.cells[good] - seen.cells[good].mean(1, keepdims=True)
    cells /= np.linalg.norm(cells, axis=1, keepdims=True) + 1e-9
    pairs = []
    for start in range(0, len(good), 512):
        agree = signs[start:start + 512] @ signs[start:].T
        rows, columns = np.nonzero(agree >= signs.shape[1] - 2 * limit)
        for a, b in zip(rows + start, columns + start):
            if a < b and seen.digests[good[a]] != seen.digests[good[b]] and cells[a] @ cells[b] >= 0.98:
                pairs.append((int(good[a]), int(good[b])))
        if progress is not None:
            progress.update(min(512, len(good) - start))
    return pairs
