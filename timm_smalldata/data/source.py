"""Images and labels, wherever they lie: the one interface that everything above reads.

A source never swaps a bad image for another one: a file that cannot be decoded raises.
"""
from typing import Any, Iterable, Iterator, List, Optional, Sequence, Tuple

import numpy as np
from PIL import Image

from .pixels import decode


class ImageSource:
    """A map-style set of images.

    Attributes:
        names: Relative path (or another unique name) of each image.
        targets: int64 array (N,) of class indices, known without decoding.
        classes: Class names, in index order.
        parallel: Several threads may ask for bytes at once.
    """
    names: List[str]
    targets: np.ndarray
    classes: List[str]
    parallel: bool = False

    def __len__(self) -> int:
        return len(self.targets)

    def raw(self, index: int) -> bytes:
        """Return the encoded bytes of one image: what the data hash is taken over."""
        raise NotImplementedError

    def read(self, index: int) -> Tuple[Image.Image, int]:
        """Return one decoded RGB image and its label; raises OSError (or ValueError) when it cannot be decoded."""
        return decode(self.raw(index)), int(self.targets[index])

    def pixels(self, index: int) -> np.ndarray:
        """Return one decoded image as uint8 (h, w, 3); it is not to be changed."""
        return np.array(self.read(index)[0])


class ArraySource(ImageSource):
    """Images held in memory as uint8 (h, w, 3) arrays."""

    def __init__(self, images: Sequence[np.ndarray], targets: Iterable[int], classes: List[str],
                 names: Optional[List[str]] = None):
        self.images = images
        self.targets = np.asarray(list(targets), dtype=np.int64)
        self.classes = list(classes)
        self.names = names or [f'{i:06d}' for i in range(len(self.targets))]

    def raw(self, index: int) -> bytes:
        return np.ascontiguousarray(self.images[index]).tobytes()

    def read(self, index: int) -> Tuple[Image.Image, int]:
        return Image.fromarray(np.asarray(self.images[index])), int(self.targets[index])

    def pixels(self, index: int) -> np.ndarray:
        return np.asarray(self.images[index])


class Subset(ImageSource):
    """Some images of a source, in the given order."""

    def __init__(self, source: ImageSource, indices: Iterable[int]):
        self.source = source
        self.indices = np.asarray(list(indices), dtype=np.int64)
        self.targets = source.targets[self.indices]
        self.classes = source.classes
        self.names = [source.names[i] for i in self.indices]

    def raw(self, index: int) -> bytes:
        return self.source.raw(int(self.indices[index]))

    def read(self, index: int) -> Tuple[Image.Image, int]:
        return self.source.read(int(self.indices[index]))

    def pixels(self, index: int) -> np.ndarray:
        return self.source.pixels(int(self.indices[index]))


class Relabelled(ImageSource):
    """A source under another class list: `mapping[old index] = new index`."""

    def __init__(self, source: ImageSource, classes: List[str], mapping: Sequence[int]):
        self.source = source
        self.classes = list(classes)
        self.names = source.names
        self.targets = np.asarray(mapping, dtype=np.int64)[source.targets]

    def raw(self, index: int) -> bytes:
        return self.source.raw(index)

    def read(self, index: int) -> Tuple[Image.Image, int]:
        return self.source.read(index)[0], int(self.targets[index])

    def pixels(self, index: int) -> np.ndarray:
        return self.source.pixels(index)


class Joined(ImageSource):
    """Several sources with one class list, one after the other."""

    def __init__(self, sources: Sequence[ImageSource]):
        self.sources = list(sources)
        self.classes = sources[0].classes
        self.targets = np.concatenate([s.targets for s in sources])
        self.names = [name for s in sources for name in s.names]
        self._starts = np.cumsum([0] + [len(s) for s in sources])

    def _locate(self, index: int) -> Tuple[ImageSource, int]:
        number = int(np.searchsorted(self._starts, index, side='right')) - 1
        return self.sources[number], index - int(self._starts[number])

    def raw(self, index: int) -> bytes:
        source, local = self._locate(index)
        return source.raw(local)

    def read(self, index: int) -> Tuple[Image.Image, int]:
        source, local = self._locate(index)
        return source.read(local)

    def pixels(self, index: int) -> np.ndarray:
        source, local = self._locate(index)
        return source.pixels(local)


def innermost(source: Any) -> Iterator[ImageSource]:
    """Yield the sources that hold the images, below subsets, labels and joins."""
    if hasattr(source, 'sources'):
        for part in source.sources:
            yield from innermost(part)
    elif hasattr(source, 'source'):
        yield from innermost(source.source)
    else:
        yield source


def is_encoded(source: ImageSource) -> bool:
    """Return whether raw bytes are image files (sources that have a `read` of their own hold pixels)."""
    return all(type(inner).read is ImageSource.read for inner in innermost(source))


def is_parallel(source: ImageSource) -> bool:
    """Return whether several threads may ask for bytes at once."""
    return all(inner.parallel for inner in innermost(source))
