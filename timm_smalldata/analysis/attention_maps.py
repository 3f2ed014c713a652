"""Where the class token looks: maps over the image, the patches that hold most of their mass, and overlap with a mask.

Caron et al., "Emerging Properties in Self-Supervised Vision Transformers" (DINO), ICCV 2021,
https://arxiv.org/abs/2104.14294, section 4.2.
"""
from typing import Tuple, Union

import torch
import torch.nn.functional as F


def class_attention(
        attn: torch.Tensor,
        grid_size: Union[int, Tuple[int, int]],
        num_prefix_tokens: int,
) -> torch.Tensor:
    """Return what the class token (the first one) attends to among the patches.

    Args:
        attn: Attention after the softmax (B, H, T, T), prefix tokens first, patches row-major.
        grid_size: Patches along a side, or rows and columns.
        num_prefix_tokens: Tokens that are no patches, the class token among them.

    Returns:
        Maps (B, H, rows, columns), not renormalised: their sum is the share that does not go to prefix tokens.

    Raises:
        ValueError: There is no prefix token, or the tokens are not the prefix plus the patches of the grid.
    """
    rows, columns = (grid_size, grid_size) if isinstance(grid_size, int) else grid_size
    if num_prefix_tokens < 1:
        raise ValueError('Without prefix tokens there is no class token whose attention could be shown.')
    if attn.ndim != 4 or attn.shape[-1] != num_prefix_tokens + rows * columns:
        raise ValueError(f'Attention of shape {tuple(attn.shape)} does not fit {num_prefix_tokens} prefix tokens and '
                         f'{rows} x {columns} patches.')
    return attn[:, :, 0, num_prefix_tokens:].unflatten(-1, (rows, columns))


def upsample(maps: torch.Tensor, size: Tuple[int, int]) -> torch.Tensor:
    """Enlarge maps (B, H, rows, columns) to the height and width of the image; every patch stays of one value."""
    return F.interpolate(maps.float(), size=size, mode='nearest')


def mass_mask(maps: torch.Tensor, mass: float = 0.6) -> torch.Tensor:
    """Mark the fewest patches that hold `mass` of a map.

    In rising order, a patch belongs to them when the patches up to and with it hold more than `1 - mass`.

    Args:
        maps: Non-negative values (..., rows, columns); each map is taken for itself.
        mass: Share to keep, over 0 and at most 1.

    Returns:
        Masks (..., rows, columns), bool.

    Raises:
        ValueError: The share is out of its range.

    >>> mass_mask(torch.tensor([[0.05, 0.4, 0.1, 0.25, 0.2]])).int()
    tensor([[0, 1, 0, 1, 0]], dtype=torch.int32)
    """
    if not 0 < mass <= 1:
        raise ValueError(f'mass {mass} is not over 0 and at most 1.')
    flat = maps.detach().flatten(-2).cpu().double()
    values, order = flat.sort(dim=-1, stable=True)
    held = values.cumsum(-1) / values.sum(-1, keepdim=True)
    marked = torch.zeros_like(order, dtype=torch.bool).scatter(-1, order, held > 1 - mass)
    return marked.view(maps.shape).to(maps.device)


def mask_overlap(map: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the Jaccard index of two masks: what both mark over what either marks.

    Args:
        map: Marked pixels or patches (..., rows, columns): bool, or numbers of which non-zero ones are marked.
        mask: The other mask, of a shape that broadcasts with the first (one mask for the maps of all heads).

    Returns:
        Values from 0 to 1 (...), float32; 1 where neither marks anything.

    >>> mask_overlap(torch.tensor([[1, 1, 0, 0]]), torch.tensor([[0, 1, 1, 0]]))
    tensor(0.3333)
    """
    both = ((map != 0) & (mask != 0)).sum((-2, -1))
    either = ((map != 0) | (mask != 0)).sum((-2, -1))
    return torch.where(either > 0, both / either.clamp(min=1), torch.ones_like(both, dtype=torch.float32))


def chance_overlap(marked: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return about what `mask_overlap` would be if as many places were marked anywhere, without looking.

    With shares a and b of all places marked by either mask, both mark a * b of them and either a + b - a * b.

    Args:
        marked: Marked places (..., rows, columns).
        mask: The other mask, of a shape that broadcasts with the first.

    Returns:
        Values from 0 to 1 (...), float32.

    >>> chance_overlap(torch.tensor([[1, 1, 0, 0]]), torch.tensor([[0, 1, 1, 0]]))
    tensor(0.3333)
    """
    a, b = ((x != 0).float().mean((-2, -1)) for x in (marked, mask))
    return a * b / (a + b - a * b).clamp(min=1e-12)
