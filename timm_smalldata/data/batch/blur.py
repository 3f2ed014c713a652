"""Gaussian blur with a radius for each image, as two matrix products: float32 (N, 3, h, w) from 0 to 255.

A blur of rows or columns is a square matrix; that of each image is a sum of a few fixed ones.
"""
from functools import lru_cache
from itertools import combinations_with_replacement, permutations
from typing import Callable, List, Tuple

import numpy as np
import torch

SIGMA = (0.1, 2.0)  # of timm's and of torchvision's random blur
_REACH = 11  # of torchvision's kernel of 23 pixels
_BLOCK = 56  # rows or columns of a product
_BOXES = 3  # that Pillow makes a Gaussian of
_TRIPLES = tuple(combinations_with_replacement(range(3), _BOXES))


def pillow_blur(x: torch.Tensor, radius: torch.Tensor) -> torch.Tensor:
    """Blur as Pillow's `GaussianBlur` does, by three box filters along each axis, but without its rounding.

    Gwosdek et al., "Theoretical Foundations of Gaussian Convolution by Extended Box Filtering" (SSVM 2011).

    Args:
        x: The batch.
        radius: (N, 1, 1, 1), at most 2.
    """
    variance = radius.view(-1, 1).square() / _BOXES
    whole = (((12 * variance + 1).sqrt() - 1) / 2).floor()  # of the radius of a box
    edge = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance) / (6 * (variance - (whole + 1).square()))
    inner = 1 / (2 * (whole + edge) + 1)
    near = inner * torch.where(whole > 0, torch.ones_like(edge), edge)
    taps = torch.cat([inner, near, inner * edge * (whole > 0)], dim=1)  # centre, neighbours, their neighbours
    amounts = torch.stack([taps[:, list(triple)].prod(dim=1) for triple in _TRIPLES], dim=1)
    return _blurred(x, amounts, _box_basis, 2 * _BOXES)


def gaussian_blur(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """Blur as torchvision's `gaussian_blur` does with a kernel of 23 pixels.

    Args:
        x: The batch.
        sigma: (N, 1, 1, 1).
    """
    place = torch.arange(_REACH + 1, device=x.device, dtype=x.dtype)
    taps = torch.exp(-0.5 * (place / sigma.view(-1, 1)).square())
    return _blurred(x, taps / (2 * taps.sum(dim=1, keepdim=True) - 1), _gaussian_basis, _REACH)


def _blurred(x: torch.Tensor, amounts: torch.Tensor, basis: Callable, reach: int) -> torch.Tensor:
    """Return A x A' for each image, where A is the sum of fixed matrices, in these amounts (N, number of matrices).

    Far from their diagonal all are 0: the products are those of blocks that hold a band.
    """
    number, channels, height, width = x.shape
    rows, columns = (
        (amounts @ basis(side, x.device).flatten(1)).view(number, side, side) for side in (height, width))
    x = x.reshape(number, channels * height, width)
    parts = []
    for own, seen in _blocks(width, reach):
        parts.append(torch.bmm(x[:, :, seen], columns[:, own, seen].transpose(1, 2)))
    x = torch.cat(parts, dim=2).view(number, channels, height, width)
    return torch.cat([torch.matmul(rows[:, None, own, seen], x[:, :, seen]) for own, seen in _blocks(height, reach)],
                     dim=2)


def _blocks(side: int, reach: int) -> List[Tuple[slice, slice]]:
    """Return blocks of places, each with the places that they are made of."""
    return [(slice(start, min(start + _BLOCK, side)), slice(max(start - reach, 0), min(start + _BLOCK + reach, side)))
            for start in range(0, side, _BLOCK)]


@lru_cache(maxsize=16)
def _gaussian_basis(side: int, device: torch.device) -> torch.Tensor:
    """Return for each distance the matrix that sums the pixels so far away; (12, side, side)."""
    basis = np.zeros((_REACH + 1, side, side), dtype=np.float32)
    period = max(2 * side - 2, 1)
    for shift in range(-_REACH, _REACH + 1):
        place = (np.arange(side) + shift) % period  # reflected beyond the edges
        np.add.at(basis[abs(shift)], (np.arange(side), np.minimum(place, period - place)), 1)
    return torch.from_numpy(basis).to(device)


@lru_cache(maxsize=16)
def _box_basis(side: int, device: torch.device) -> torch.Tensor:
    """Return for each triple of distances the sum of the products of their matrices, in all orders."""
    basis = np.zeros((3, side, side))
    for shift in range(-2, 3):
        place = np.clip(np.arange(side) + shift, 0, side - 1)  # the last pixel goes on beyond the edges
        np.add.at(basis[abs(shift)], (np.arange(side), place), 1)
    products = [sum(basis[a] @ basis[b] @ basis[c] for a, b, c in set(permutations(triple))) for triple in _TRIPLES]
    return torch.from_numpy(np.stack(products).astype(np.float32)).to(device)
