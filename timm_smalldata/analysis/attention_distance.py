"""How far attention looks, in pixels."""
from typing import Tuple, Union

import torch


def attention_distance(
        attn: torch.Tensor,
        grid_size: Union[int, Tuple[int, int]],
        patch_size: float,
        num_prefix_tokens: int,
) -> torch.Tensor:
    """Return the mean distance between a patch and what it attends to, for each head.

    Dosovitskiy et al., "An Image is Worth 16x16 Words", ICLR 2021, https://arxiv.org/abs/2010.11929, appendix D.7.
    Attention is averaged over the images; prefix rows and columns are dropped and each row renormalised to 1:
    `d = mean_q sum_k A[q, k] * ||c_q - c_k||_2` over the patch centres c.

    Args:
        attn: Attention after the softmax (B, H, T, T), prefix tokens first, patches row-major.
        grid_size: Patches along a side, or rows and columns.
        patch_size: Side of a patch in pixels.
        num_prefix_tokens: Tokens that are no patches.

    Returns:
        Distance of each head (H,) in pixels; nan where a patch attends to prefix tokens alone.

    Raises:
        ValueError: The tokens are not `num_prefix_tokens` plus the patches of the grid.

    >>> attention_distance(torch.eye(5).expand(1, 2, 5, 5), 2, 16, num_prefix_tokens=1)
    tensor([0., 0.])
    """
    rows, columns = (grid_size, grid_size) if isinstance(grid_size, int) else grid_size
    tokens = num_prefix_tokens + rows * columns
    if attn.ndim != 4 or attn.shape[2:] != (tokens, tokens):
        raise ValueError(f'Attention of shape {tuple(attn.shape)}, but {num_prefix_tokens} prefix tokens and '
                         f'{rows} x {columns} patches make (B, H, {tokens}, {tokens}).')
    among_patches = attn.float().mean(0)[:, num_prefix_tokens:, num_prefix_tokens:]
    among_patches = among_patches / among_patches.sum(-1, keepdim=True)
    index = torch.arange(rows * columns, device=attn.device)
    row, column = index // columns, index % columns
    offsets = torch.hypot((row[:, None] - row).float(), (column[:, None] - column).float())
    return (among_patches * (offsets * patch_size)).sum(-1).mean(-1)
