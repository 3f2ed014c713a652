"""Fixed positions of patches."""
from typing import Optional, Tuple

import torch
from timm.layers import build_sincos2d_pos_embed


def sincos_positions(
        dim: int,
        grid: Tuple[int, int],
        num_prefix_tokens: int = 0,
        device: Optional[torch.device] = None,
) -> torch.Tensor:
    """Return the 2-D sine-cosine table of masked autoencoders (https://arxiv.org/abs/2111.06377, appendix A.1).

    Four quarters: sine and cosine of the column, sine and cosine of the row, at the frequencies `10000 ** (-4i / dim)`.
    timm has the same values in another order of channels.

    Args:
        dim: Width, a multiple of 4.
        grid: Rows and columns of patches.
        num_prefix_tokens: Rows of zeros before the patches (class token, registers).
        device: Where the table is made.

    Returns:
        (num_prefix_tokens + rows * columns, dim), float32.

    >>> sincos_positions(4, (2, 2), num_prefix_tokens=1)[:, 2]  # sine of the row
    tensor([0.0000, 0.0000, 0.0000, 0.8415, 0.8415])
    """
    sin_row, sin_column, cos_row, cos_column = build_sincos2d_pos_embed(list(grid), dim, device=device).chunk(4, dim=1)
    table = torch.cat([sin_column, cos_column, sin_row, cos_row], dim=1)
    return torch.cat([table.new_zeros(num_prefix_tokens, dim), table])
