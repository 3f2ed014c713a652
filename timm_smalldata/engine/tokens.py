"""Features that a vision transformer gives besides its own: class tokens of several blocks, patches on their grid."""
from typing import Any, Tuple

import torch
from torch import nn

from ..analysis.capture import patch_grid


class BlockFeatures(nn.Module):
    """The features of DINO's linear evaluation: class tokens of the last blocks, and the mean patch of the last one.

    All after the final norm, side by side. By default four blocks, as published for ViT-S, and for models as wide as
    ViT-B (768) the last block and its mean patch. A model without a class token, or without blocks, gives its own
    features.

    Args:
        model: A timm model without a classifier.
        blocks: Number of last blocks.
        average: Append the mean patch.
    """

    def __init__(self, model: Any, blocks: int = 0, average: bool = False):
        super().__init__()
        self.model = model
        self.own = getattr(model, 'cls_token', None) is None or not hasattr(model, 'forward_intermediates')
        wide = not self.own and model.embed_dim >= 768
        self.blocks = 0 if self.own else min(len(model.blocks), blocks or (1 if wide else 4))
        self.average = not self.own and (average or (not blocks and wide))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the features (B, D) of normalised images (B, 3, height, width)."""
        if self.own:
            return self.model(images)
        seen = self.model.forward_intermediates(
            images, indices=self.blocks, norm=True, return_prefix_tokens=True, output_fmt='NLC',
            intermediates_only=True)
        parts = [prefix[:, 0] for _, prefix in seen]
        return torch.cat([*parts, seen[-1][0].mean(1)] if self.average else parts, dim=1)

    def describe(self) -> str:
        """Return what the features are, in words."""
        if self.own:
            return 'its own features'
        words = f'class tokens of the last {self.blocks} blocks' if self.blocks > 1 else 'class token'
        return f'{words} and mean patch' if self.average else words


@torch.no_grad()
def last_tokens(model: Any, images: torch.Tensor) -> Tuple[torch.Tensor, torch.Tensor]:
    """Return the class token (B, D) and the patches (B, rows, columns, D) that leave a vision transformer, normed.

    Raises:
        ValueError: The model has no class token, or none of its tokens are patches.
    """
    grid = patch_grid(model, (images.shape[-2], images.shape[-1]))
    if getattr(model, 'cls_token', None) is None:
        raise ValueError(f'{type(model).__name__} has no class token.')
    tokens = model.forward_features(images).float()
    return tokens[:, 0], tokens[:, model.num_prefix_tokens:].unflatten(1, grid)
