"""Views of whole batches by tensor operations, on the device where training runs.

The same `ViewSpec`s as `views.render`, with the same meaning: what is drawn has the same distribution, what is done has
the same pixels up to rounding (docs/performance.md). The draws themselves differ: here they are made on the host from
each image's key by a counter-based hash, so they are equal on every device and whatever else is in the batch.
"""
from typing import Optional, Sequence, Union

import numpy as np
import torch

from .batch.draws import Draws
from .batch.erase import erase_
from .batch.frames import frames
from .batch.images import PackedImages
from .batch.resample import FILTERS, cut, cut_by_matrices
from .batch.steps import colour_steps
from .views import ViewSpec

CROPS = ('rrc', 'src', 'none')
_CACHED = 1 << 18  # numbers that each core of a CPU works on at once: they stay in its cache

Images = Union[PackedImages, Sequence[torch.Tensor]]


def no_batched_form(spec: ViewSpec) -> Optional[str]:
    """Return what of a view has no batched form, in the words of the flags; None where all has.

    >>> from .views import Augment
    >>> no_batched_form(ViewSpec(32)), no_batched_form(ViewSpec(32, augment=Augment('augmix-m3')))
    (None, '--aa augmix-m3')
    """
    if spec.crop.mode not in CROPS:
        return f'--train-crop-mode {spec.crop.mode}'
    if spec.crop.interpolation not in (*FILTERS, 'random'):
        return f'--train-interpolation {spec.crop.interpolation}'
    if spec.augment.auto_augment not in (None, '3a'):
        return f'--aa {spec.augment.auto_augment}'
    if spec.augment.cutout:
        return f'--cutout {spec.augment.cutout}'
    return '--force-color-jitter' if spec.augment.auto_augment and spec.augment.force_color_jitter else None


def render_batch(
        images: Images,
        spec: ViewSpec,
        keys: np.ndarray,
        device: Union[None, str, torch.device] = None,
) -> torch.Tensor:
    """Render one view of each image of a batch.

    Args:
        images: uint8 RGB images (h, w, 3), of any sizes.
        spec: What to do; all of it has a batched form (`no_batched_form`).
        keys: uint64 (N,), the key of each image (`utils.random.draw_keys`).
        device: Where it is done; by default where the images are.

    Returns:
        float32 (N, 3, size, size), normalised, on the device.

    Raises:
        ValueError: Some of the view has no batched form.

    >>> images = [torch.zeros(40, 50, 3, dtype=torch.uint8), torch.zeros(64, 64, 3, dtype=torch.uint8)]
    >>> render_batch(images, ViewSpec(32), np.array([1, 2], dtype=np.uint64)).shape
    torch.Size([2, 3, 32, 32])
    """
    lacking = no_batched_form(spec)
    if lacking is not None:
        raise ValueError(f'{lacking} has no batched form.')
    draws = Draws(keys)
    packed = images if isinstance(images, PackedImages) else None
    place = torch.device(device) if device is not None else (images[0] if packed is None else packed.pixels).device
    sizes = packed.sizes if packed else np.array([image.shape[:2] for image in images], dtype=np.int64)
    shown = frames(spec.crop, spec.size, sizes, draws)
    if place.type == 'cpu':
        x, at_once = cut(images, shown), max(_CACHED * torch.get_num_threads() // (3 * spec.size ** 2), 1)
    else:
        packed = (packed or PackedImages.of(images)).to(place)  # type: ignore[arg-type]
        x, at_once = cut_by_matrices(packed, shown), len(shown)
    steps = colour_steps(spec.augment, draws)
    mean, std = (torch.tensor(values, device=place).view(1, 3, 1, 1) for values in (spec.mean, spec.std))
    factor, shift = 1 / (255 * std), -mean / std
    for start in range(0, len(x), at_once):
        seen = x[start:start + at_once]
        for step in steps:
            seen = step(seen, start)
        torch.addcmul(shift, seen, factor, out=x[start:start + at_once])
    return erase_(x, spec.erase, draws)
