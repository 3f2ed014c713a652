"""Images of different sizes in one tensor: what travels from the loader's workers to the device."""
from dataclasses import dataclass
from typing import Any, Iterator, Protocol, Sequence, Union

import numpy as np
import torch

_AT_ONCE = 64 << 20  # bytes that go to a device at once


class Images(Protocol):
    """uint8 images (h, w, 3), of any sizes, on the host."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> torch.Tensor: ...


@dataclass
class PackedImages:
    """RGB images one after the other, row by row, as in the file of the image cache.

    Attributes:
        pixels: uint8 (M,), all images.
        offsets: int64 (N,), where each image begins; on the host.
        sizes: int64 (N, 2), heights and widths; on the host.
    """
    pixels: torch.Tensor
    offsets: np.ndarray
    sizes: np.ndarray

    @classmethod
    def of(cls, images: Sequence[torch.Tensor]) -> 'PackedImages':
        """Pack uint8 images (h, w, 3).

        >>> packed = PackedImages.of([torch.zeros(2, 4, 3, dtype=torch.uint8), torch.ones(3, 1, 3, dtype=torch.uint8)])
        >>> packed.offsets.tolist(), [tuple(image.shape) for image in packed]
        ([0, 24], [(2, 4, 3), (3, 1, 3)])
        """
        sizes = np.array([image.shape[:2] for image in images], dtype=np.int64)
        ends = np.cumsum(3 * sizes.prod(axis=1))
        return cls(torch.cat([image.reshape(-1) for image in images]), np.concatenate([[0], ends[:-1]]), sizes)

    @classmethod
    def held(cls, source: Any, device: Union[str, torch.device]) -> 'PackedImages':
        """Pack all images of a source, on a device.

        Args:
            source: Has a length and `pixels(i)`.
            device: The device.
        """
        sizes = np.array([source.pixels(i).shape[:2] for i in range(len(source))], dtype=np.int64)
        ends = np.cumsum(3 * sizes.prod(axis=1))
        offsets = np.concatenate([[0], ends[:-1]])
        # behind the last image lies what a window of another image's width reaches (see `resample`)
        pixels = torch.zeros(int(ends[-1] + 3 * sizes[:, 1].max()), dtype=torch.uint8, device=device)
        start = 0
        while start < len(sizes):
            stop = max(start + 1, int(np.searchsorted(ends, offsets[start] + _AT_ONCE)))
            part = torch.cat([torch.from_numpy(source.pixels(i)).reshape(-1) for i in range(start, stop)])
            pixels[int(offsets[start]):int(ends[stop - 1])] = part.to(device)
            start = stop
        return cls(pixels, offsets, sizes)

    def take(self, index: np.ndarray) -> 'PackedImages':
        """Return some of the images; nothing is copied."""
        return PackedImages(self.pixels, self.offsets[index], self.sizes[index])

    def __len__(self) -> int:
        return len(self.sizes)

    def __getitem__(self, index: int) -> torch.Tensor:
        height, width = self.sizes[index].tolist()
        start = int(self.offsets[index])
        return self.pixels[start:start + 3 * height * width].view(height, width, 3)

    def __iter__(self) -> Iterator[torch.Tensor]:
        return (self[index] for index in range(len(self)))

    def to(self, device: Union[str, torch.device]) -> 'PackedImages':
        """Return the images with their pixels on another device."""
        return PackedImages(self.pixels.to(device, non_blocking=True), self.offsets, self.sizes)

    def pin_memory(self) -> 'PackedImages':
        """Return the images with their pixels in page-locked memory (what torch's loader calls)."""
        return PackedImages(self.pixels.pin_memory(), self.offsets, self.sizes)
