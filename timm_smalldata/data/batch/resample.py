"""Frames of images as pixels: antialiased resizing, image by image on a CPU, by matrix products elsewhere."""
from typing import Callable, Dict, Iterator, Tuple

import numpy as np
import torch
import torch.nn.functional as F

from .frames import Frames
from .images import Images, PackedImages

WINDOW_LIMIT = 1 << 28  # elements of image that are resized at once by matrix products


def cut(images: Images, frames: Frames) -> torch.Tensor:
    """Cut views out of uint8 images (h, w, 3) on the host, with torch's antialiased resizing of bytes.

    Returns:
        float32 (N, 3, size, size), whole numbers from 0 to 255.
    """
    size = frames.size
    out = torch.empty(len(frames), 3, size, size)
    whole = bool((frames.grid == size).all() and not frames.offset.any())
    rows, columns = (None, None) if whole else (torch.from_numpy(frames.places(axis)) for axis in (0, 1))
    boxes, grids, flips = frames.box.tolist(), frames.grid.tolist(), frames.flips.tolist()
    for i, ((top, left, height, width), grid, mode) in enumerate(zip(boxes, grids, frames.modes)):
        view = torch.from_numpy(images[i].numpy()[top:top + height, left:left + width]).permute(2, 0, 1)
        if height * width < size * size:
            view = view.contiguous()  # plane by plane, while it is small
        if grid != [height, width]:
            view = F.interpolate(view[None], grid, mode=mode, antialias=True)[0]
        if rows is not None and columns is not None:
            view = view[:, rows[i]][:, :, columns[i]]
        elif flips[i][0] or flips[i][1]:
            view = view.flip([axis + 1 for axis in (0, 1) if flips[i][axis]])
        out[i] = view
    return out


def cut_by_matrices(images: PackedImages, frames: Frames, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """Cut views out of images on any device: weights of rows, times the image, times weights of columns.

    Args:
        images: The images.
        frames: What is seen of them.
        dtype: Of the products; bytes are exact in float16.

    Returns:
        float32 (N, 3, size, size), whole numbers from 0 to 255, a level off Pillow's here and there.
    """
    device, size = images.pixels.device, frames.size
    out = torch.empty(len(frames), 3, size, size, device=device)
    for part in _parts(frames):
        box = frames.box[part]
        height, width = int(box[:, 2].max()), int(box[:, 3].max())
        windows = _windows(images, part, box, height, width).permute(0, 3, 1, 2)
        rows = _weights(frames, part, 0, height, device).to(dtype)
        columns = _weights(frames, part, 1, width, device).to(dtype)
        seen = windows.to(dtype, memory_format=torch.contiguous_format).view(len(part), 3 * height, width)
        seen = _whole(torch.bmm(seen, columns.transpose(1, 2)))  # columns first, as Pillow does
        seen = torch.matmul(rows[:, None], seen.view(len(part), 3, height, size))
        out[torch.from_numpy(part).to(device)] = _whole(seen.float())
    return out


def _whole(x: torch.Tensor) -> torch.Tensor:
    return x.clamp(0, 255).add(0.5).floor()


def _parts(frames: Frames) -> Iterator[np.ndarray]:
    """Yield groups of images of similar areas whose windows, padded to the largest of them, fit into the limit."""
    order = np.argsort(frames.box[:, 2] * frames.box[:, 3], kind='stable')
    start = 0
    while start < len(order):
        sides = np.maximum.accumulate(frames.box[order[start:], 2:], axis=0)
        taken = int((np.arange(1, len(sides) + 1) * sides.prod(axis=1) * 3 <= WINDOW_LIMIT).sum())
        yield order[start:start + max(taken, 1)]
        start += max(taken, 1)


def _windows(images: PackedImages, part: np.ndarray, box: np.ndarray, height: int, width: int) -> torch.Tensor:
    """Return uint8 (n, height, width, 3): the box of each image, with whatever follows where it is smaller."""
    row = np.minimum(np.arange(height), box[:, 2, None] - 1) + box[:, 0, None]
    starts = images.offsets[part, None] + (row * images.sizes[part, 1, None] + box[:, 1, None]) * 3
    length = width * 3
    behind = int(starts.max()) + length - len(images.pixels)
    pixels = F.pad(images.pixels, (0, behind)) if behind > 0 else images.pixels
    rows = pixels.unfold(0, length, 1)[torch.from_numpy(starts).to(images.pixels.device)]
    return rows.view(len(part), height, width, 3)


def _weights(frames: Frames, part: np.ndarray, axis: int, most: int, device: torch.device) -> torch.Tensor:
    """Return float32 (n, size, most): what each pixel of the box adds to each row or column that is seen.

    Pillow's resampling: the filter is stretched where an image shrinks, cut off at the edge, and sums to 1.
    """
    def host(values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(values.astype(np.float32)).to(device)[:, None, None]

    length, grid = frames.box[part, 2 + axis], frames.grid[part, axis]
    step = host(length / grid)
    modes = [frames.modes[i] for i in part]
    centre = (torch.from_numpy(frames.places(axis)[part]).to(device)[:, :, None] + 0.5) * step
    stretch = step.clamp(min=1.0)
    place = torch.arange(most, device=device, dtype=torch.float32)[None, None]
    weights = torch.zeros(len(part), frames.size, most, device=device)
    for mode in set(modes):
        support, function = FILTERS[mode]
        reach = support * stretch
        first = (centre - reach + 0.5).clamp(min=0).floor()
        last = torch.minimum((centre + reach + 0.5).floor(), host(length))
        inside = (place >= first) & (place < last) & host(np.array([own == mode for own in modes])).bool()
        weights += function(((place - centre + 0.5) / stretch).abs()) * inside
    return weights / weights.sum(dim=2, keepdim=True)


def _bilinear(x: torch.Tensor) -> torch.Tensor:
    return (1 - x).clamp(min=0)


def _bicubic(x: torch.Tensor, a: float = -0.5) -> torch.Tensor:
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


FILTERS: Dict[str, Tuple[float, Callable[[torch.Tensor], torch.Tensor]]] = {
    'bilinear': (1.0, _bilinear), 'bicubic': (2.0, _bicubic)}
