"""The light decoder of a masked autoencoder: from the encoded visible patches to the pixels of all patches."""
from typing import Dict, Tuple

import torch
from timm.layers import LayerNorm
from timm.models.vision_transformer import Block
from torch import nn

from .positions import sincos_positions


def decoder_size(embed_dim: int, depth: int) -> Dict[str, int]:
    """Return the decoder that goes with an encoder: the paper's 512 wide and 8 deep, or less for a small encoder.

    512 x 8 is two thirds of ViT-B, 768 x 12; smaller encoders get two thirds of theirs, in heads of 32 as in the paper.

    >>> decoder_size(768, 12) == decoder_size(1024, 24) == dict(dim=512, depth=8, num_heads=16)
    True
    >>> decoder_size(192, 12)
    {'dim': 128, 'depth': 8, 'num_heads': 4}
    """
    heads = min(max(round(embed_dim * 2 / 3 / 32), 2), 16)
    return dict(dim=32 * heads, depth=min(max(round(depth * 2 / 3), 1), 8), num_heads=heads)


class MAEDecoder(nn.Module):
    """Decoder of a masked autoencoder (He et al., CVPR 2022, https://arxiv.org/abs/2111.06377, sec. 3 and A.1).

    Linear embedding, a learned token in the place of every masked patch, fixed sine-cosine positions, transformer
    blocks, normalisation, prediction of pixels. It is not part of the model that a user gets.

    Args:
        embed_dim: Width of the encoder.
        patch_size: Side p of a patch in pixels.
        num_prefix_tokens: Tokens of the encoder before the patches; they take part and predict nothing.
        dim: Width, a multiple of 4 and of `num_heads`.
        depth: Blocks.
        num_heads: Attention heads.
        mlp_ratio: Width of the MLPs in terms of `dim`.
        channels: Channels of an image.

    Raises:
        ValueError: `dim` is no multiple of 4 and of `num_heads`.

    >>> decoder = MAEDecoder(embed_dim=24, patch_size=4, num_prefix_tokens=1, dim=32, depth=1, num_heads=2)
    >>> decoder(torch.randn(2, 1 + 2, 24), torch.tensor([[0, 5], [3, 1]]), grid=(2, 3)).shape
    torch.Size([2, 6, 48])
    """

    def __init__(
            self,
            embed_dim: int,
            patch_size: int,
            num_prefix_tokens: int = 1,
            dim: int = 512,
            depth: int = 8,
            num_heads: int = 16,
            mlp_ratio: float = 4.,
            channels: int = 3,
    ):
        super().__init__()
        if dim % 4 or dim % num_heads:
            raise ValueError(
                f'A decoder {dim} wide with {num_heads} heads cannot be built: the width must be a multiple of 4 and '
                'of the heads.')
        self.num_prefix_tokens, self.dim = num_prefix_tokens, dim
        self.embed = nn.Linear(embed_dim, dim)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, dim))
        self.blocks = nn.Sequential(*[
            Block(dim, num_heads, mlp_ratio, qkv_bias=True, norm_layer=LayerNorm) for _ in range(depth)])
        self.norm = LayerNorm(dim)
        self.predict = nn.Linear(dim, patch_size * patch_size * channels)

    def forward(self, tokens: torch.Tensor, visible: torch.Tensor, grid: Tuple[int, int]) -> torch.Tensor:
        """Predict the pixels of all patches.

        Args:
            tokens: Encoded prefix tokens and visible patches (N, P + K, embed_dim).
            visible: Which patches these are (N, K), places in the grid row by row.
            grid: Rows and columns of patches.

        Returns:
            (N, rows * columns, p * p * channels), in the order of `patchify`.
        """
        x = self.embed(tokens)
        prefix, patches = x[:, :self.num_prefix_tokens], x[:, self.num_prefix_tokens:]
        masked = self.mask_token.to(x.dtype).expand(len(x), grid[0] * grid[1], -1)
        x = torch.cat([prefix, masked.scatter(1, visible.unsqueeze(-1).expand_as(patches), patches)], dim=1)
        x = x + sincos_positions(self.dim, grid, self.num_prefix_tokens, x.device).to(x.dtype)
        return self.predict(self.norm(self.blocks(x)))[:, self.num_prefix_tokens:]
