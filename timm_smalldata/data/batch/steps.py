"""Which colour operation each image of a batch gets, in which order: timm's training transform, drawn for a batch."""
from typing import Any, Callable, List, Optional, Sequence, Tuple, Union

import numpy as np
import torch

from ..views import Augment
from .blur import SIGMA, gaussian_blur, pillow_blur
from .colour import blend, greyscale, shift_hue, solarise
from .draws import Draws

_BRIGHTNESS, _CONTRAST, _SATURATION, _HUE = range(4)


class Step:
    """An operation on the images that drew it.

    Args:
        operation: Takes a batch and, for each of `told`, float32 (N, 1, 1, 1).
        drawn: bool (N,).
        told: float64 (N,) each.
        neutral: What is told leaves the images as they are that did not draw it: it may be done to all.
        device: Where the batch is.
    """

    def __init__(
            self,
            operation: Callable[..., torch.Tensor],
            drawn: np.ndarray,
            told: Sequence[np.ndarray] = (),
            neutral: bool = False,
            device: Union[str, torch.device] = 'cpu',
    ):
        self.operation, self.drawn, self.neutral = operation, drawn.tolist(), neutral
        self.told = [
            torch.from_numpy(values.astype(np.float32)).to(device).view(-1, 1, 1, 1) for values in told]

    def __call__(self, x: torch.Tensor, first: int) -> torch.Tensor:
        """Apply it to a part of the batch that begins at an image; `x` (n, 3, h, w) may be changed."""
        last = first + x.shape[0]
        drawn = self.drawn[first:last]
        if not any(drawn):
            return x
        told = [values[first:last] for values in self.told]
        if self.neutral or all(drawn):
            return self.operation(x, *told)
        index = torch.tensor([i for i, own in enumerate(drawn) if own]).to(x.device)
        seen = self.operation(x.index_select(0, index), *(values.index_select(0, index) for values in told))
        return x.index_copy_(0, index, seen)


def colour_steps(augment: Augment, draws: Draws) -> List[Step]:
    """Draw the colour operations of each image, in timm's order."""
    steps: List[Step] = []
    if augment.auto_augment:  # 3-Augment
        changed = draws.happens('auto', augment.auto_augment_prob)
        operation = draws.integer('auto_operation', np.full(len(draws), 3))
        steps += [
            Step(solarise, changed & (operation == 0)), Step(greyscale, changed & (operation == 1)),
            Step(pillow_blur, changed & (operation == 2), [draws.uniform('auto_radius', *SIGMA)])]
    ranges = jitter_ranges(augment.color_jitter)
    if any(found is not None for found in ranges):
        prob = 1.0 if augment.color_jitter_prob is None else augment.color_jitter_prob
        steps += _jitter_steps(ranges, draws.happens('jitter', prob), draws)
    return steps + [
        Step(greyscale, draws.happens('greyscale', augment.grayscale_prob)),
        Step(gaussian_blur, draws.happens('gaussian', augment.gaussian_blur_prob),
             [draws.uniform('gaussian_sigma', *SIGMA)]),
        Step(pillow_blur, draws.happens('pillow', augment.pillow_blur_prob), [draws.uniform('pillow_radius', *SIGMA)]),
        Step(solarise, draws.happens('solarise', augment.solarize_prob))]


def jitter_ranges(jitter: Any) -> List[Optional[Tuple[float, float]]]:
    """Return the ranges of brightness, contrast, saturation and hue that torchvision's `ColorJitter` draws from.

    >>> jitter_ranges((0.4, 0.4, 0.0, 0.1))
    [(0.6, 1.4), (0.6, 1.4), None, (-0.1, 0.1)]
    """
    strengths = list(jitter) if isinstance(jitter, (tuple, list)) else [jitter or 0.0] * 3
    strengths += [0.0] * (4 - len(strengths))
    ranges: List[Optional[Tuple[float, float]]] = [
        (max(1 - strength, 0.0), 1 + strength) if strength else None for strength in strengths[:_HUE]]
    return ranges + [(-strengths[_HUE], strengths[_HUE]) if strengths[_HUE] else None]


def _jitter_steps(ranges: List[Optional[Tuple[float, float]]], changed: np.ndarray, draws: Draws) -> List[Step]:
    """Return the steps of colour jitter: at each place of its order an image has one of the operations."""
    active = np.array([kind for kind, limits in enumerate(ranges) if limits is not None])
    lows, highs = (np.array([0.0 if limits is None else limits[i] for limits in ranges]) for i in (0, 1))
    factors = lows + (highs - lows) * draws.uniform('jitter_factor', count=len(ranges))
    order = active[draws.order('jitter_order', len(active))]
    steps = []
    for kind in order.T:
        factor = np.take_along_axis(factors, kind[:, None], 1)[:, 0]
        steps.append(Step(shift_hue, changed & (kind == _HUE), [factor]))
        blended = changed & (kind != _HUE)
        steps.append(Step(
            blend, blended, [np.where(blended, factor, 1.0), kind == _SATURATION, kind == _CONTRAST], neutral=True))
    return steps
