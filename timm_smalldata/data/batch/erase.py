"""Random erasing of normalised batches: timm's boxes, drawn for all images at once, and their noise on the device."""
import math
from typing import List, Tuple

import numpy as np
import torch

from ...utils.random import FACTORS, GOLDEN
from ..views import Erase
from .draws import Draws

AREA, RATIO = (0.02, 1 / 3), (0.3, 1 / 0.3)  # timm's
ATTEMPTS = 10


def erase_(x: torch.Tensor, erase: Erase, draws: Draws) -> torch.Tensor:
    """Erase boxes of normalised images (N, 3, h, w) in place, with the numbers of each image."""
    chosen = np.flatnonzero(draws.happens('erase', erase.prob))
    if not len(chosen):
        return x
    draws = Draws(draws.keys[chosen])
    index = torch.from_numpy(chosen).to(x.device)
    part = x.index_select(0, index)
    noise = normal_pixels(draws, part) if erase.mode == 'pixel' else None
    colours = normal_colours(draws, erase.count, x.device) if erase.mode == 'rand' else None
    for number, inside in enumerate(boxes(erase.count, x.shape[2], x.shape[3], draws, x.device)):
        fill = noise if noise is not None else 0.0 if colours is None else colours[:, number]
        part = torch.where(inside, fill, part)
    return x.index_copy_(0, index, part)


def boxes(count: int, height: int, width: int, draws: Draws, device: torch.device) -> List[torch.Tensor]:
    """Return the boxes of each image, as bool (N, 1, h, w) each: from one to `count` of them, the others empty."""
    number = 1 + draws.integer('erase_count', np.full(len(draws), count))
    shape = (len(draws), count, ATTEMPTS)
    area = draws.uniform('erase_area', *AREA, count=count * ATTEMPTS).reshape(shape) * (height * width)
    area /= number[:, None, None]
    lowest, highest = map(math.log, RATIO)
    aspect = np.exp(draws.uniform('erase_ratio', lowest, highest, count * ATTEMPTS)).reshape(shape)
    tall, wide = (np.rint(np.sqrt(side)).astype(np.int64) for side in (area * aspect, area / aspect))
    fits = (tall < height) & (wide < width)
    first = fits.argmax(axis=2)[..., None]
    tall, wide = (np.take_along_axis(side, first, 2)[..., 0] for side in (tall, wide))
    drawn = fits.any(axis=2) & (np.arange(count) < number[:, None])
    tall = tall * drawn
    top = draws.integer('erase_top', height - tall + 1, count)
    left = draws.integer('erase_left', width - wide + 1, count)

    def between(start: np.ndarray, length: np.ndarray, most: int) -> torch.Tensor:
        first, last = (torch.from_numpy(values).to(device)[:, :, None] for values in (start, start + length))
        place = torch.arange(most, device=device)
        return (place >= first) & (place < last)

    rows, columns = between(top, tall, height), between(left, wide, width)
    return [rows[:, n, None, :, None] & columns[:, n, None, None, :] for n in range(count)]


def normal_colours(draws: Draws, count: int, device: torch.device) -> torch.Tensor:
    """Return a colour from N(0, 1) for each box, float32 (N, count, 3, 1, 1)."""
    first, second = (draws.uniform('erase_colour', count=6 * count)[:, i::2] for i in (0, 1))
    colours = np.sqrt(-2 * np.log(1 - first)) * np.cos(2 * np.pi * second)
    return torch.from_numpy(colours.astype(np.float32)).to(device).view(len(draws), count, 3, 1, 1)


def normal_pixels(draws: Draws, like: torch.Tensor) -> torch.Tensor:
    """Return N(0, 1) for each value of images (N, 3, h, w).

    The numbers are hashed on the device, in whole numbers: the same ones on every device.
    """
    values = like[0].numel()
    high, low = _bits(draws.state('erase_noise'), -(-values // 2), like.device)
    radius = (high.to(torch.float32) + 0.5).mul_(2.0 ** -32).log_().mul_(-2).clamp_(min=0).sqrt_()
    angle = low.to(torch.float32).mul_(2 * math.pi * 2.0 ** -32)
    both = torch.cat([radius * angle.cos(), radius * angle.sin()], dim=1)
    return both[:, :values].reshape(like.shape)


def _bits(states: np.ndarray, count: int, device: torch.device) -> Tuple[torch.Tensor, torch.Tensor]:
    """Return the halves of the numbers of `utils.random.uniform` before they are numbers: 32 bits, int64 (N, count)."""
    state = torch.arange(1, count + 1, device=device) * _signed(GOLDEN)
    state = torch.from_numpy(states.view(np.int64)).to(device)[:, None] + state
    for shift, factor in ((30, FACTORS[0]), (27, FACTORS[1])):
        state = (state ^ _shifted(state, shift)) * _signed(factor)
    state = state ^ _shifted(state, 31)
    return _shifted(state, 32), state & 0xFFFFFFFF


def _shifted(state: torch.Tensor, places: int) -> torch.Tensor:
    """Shift to the right as if there were no sign."""
    return (state >> places) & ((1 << (64 - places)) - 1)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value
