"""A timm vision transformer that sees only some patches, and the decoder behind it."""
from typing import Set, Tuple

import torch
from timm.layers import PatchEmbed
from timm.models import VisionTransformer, checkpoint_seq
from torch import nn

from .._compat import vit_tokens
from .mae_decoder import MAEDecoder
from .positions import sincos_positions


def check_encoder(model: nn.Module) -> None:
    """Raise a ValueError for a model that cannot leave out patches: its tokens must be its patches, one by one."""
    name = type(model).__name__
    if not isinstance(model, VisionTransformer) or type(model.patch_embed) is not PatchEmbed:
        raise ValueError(
            f"{name} has no plain ViT tokens to mask: choose one of timm's vit_* or deit_* models.")
    if model.pos_embed is None:
        raise ValueError(f'This {name} has no table of positions (pos_embed): its patches could not be told apart.')
    if getattr(model, 'attn_pool', None) is not None:
        raise ValueError(f'This {name} pools by attention, which learns nothing without labels: pool by token or avg.')
    if model.patch_embed.patch_size[0] != model.patch_embed.patch_size[1]:
        raise ValueError(f'Patches must be square, not {model.patch_embed.patch_size}.')


def encode_visible(model: VisionTransformer, images: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
    """Encode some patches only; the others are left out before the first block.

    Args:
        model: A plain timm ViT. Its last normalisation is applied, wherever its pooling has put it.
        images: (N, 3, H, W).
        visible: Which patches (N, K), places in the grid row by row.

    Returns:
        Prefix tokens and visible patches (N, P + K, D).
    """
    tokens = vit_tokens(model, images)
    prefix, patches = tokens[:, :model.num_prefix_tokens], tokens[:, model.num_prefix_tokens:]
    kept = patches.gather(1, visible.unsqueeze(-1).expand(-1, -1, patches.shape[-1]))
    x = model.norm_pre(torch.cat([prefix, kept], dim=1))
    x = checkpoint_seq(model.blocks, x) if model.grad_checkpointing else model.blocks(x)
    return model.fc_norm(model.norm(x))  # one of the two is the identity


def fix_positions(model: VisionTransformer) -> None:
    """Write the sine-cosine table into the model's positions and keep it as it is (`requires_grad` off)."""
    prefix = 0 if model.no_embed_class else model.num_prefix_tokens
    assert model.pos_embed is not None
    table = sincos_positions(model.embed_dim, model.patch_embed.grid_size, prefix)
    with torch.no_grad():
        model.pos_embed.copy_(table)
    model.pos_embed.requires_grad_(False)


@torch.no_grad()
def initialise(module: nn.Module) -> None:
    """Initialise as masked autoencoders are: Xavier-uniform, the patch embedding as the matrix that it is.

    Biases of linear layers are 0; class, register and mask tokens are normal with deviation 0.02; positions,
    normalisations and the bias of the patch embedding stay.
    """
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            nn.init.xavier_uniform_(layer.weight)
        elif isinstance(layer, PatchEmbed):
            weight = layer.proj.weight
            weight.copy_(nn.init.xavier_uniform_(torch.empty(weight.flatten(1).shape)).view(weight.shape))
        if isinstance(layer, nn.Linear) and layer.bias is not None:
            nn.init.zeros_(layer.bias)
    for name, parameter in module.named_parameters():
        if name.rpartition('.')[2] in ('cls_token', 'dist_token', 'reg_token', 'mask_token'):
            nn.init.normal_(parameter, std=0.02)


class MaskedAutoencoder(nn.Module):
    """Everything that pre-training trains: one forward, so that DDP and compilers see it whole.

    Args:
        encoder: A plain timm ViT (see `check_encoder`).
        decoder: The decoder for it.
    """

    def __init__(self, encoder: VisionTransformer, decoder: MAEDecoder):
        super().__init__()
        self.encoder, self.decoder = encoder, decoder

    def forward(self, images: torch.Tensor, visible: torch.Tensor) -> torch.Tensor:
        """Predict the pixels of all patches (N, L, p * p * 3) from the visible ones (N, K) of images (N, 3, H, W)."""
        return self.decoder(encode_visible(self.encoder, images, visible), visible, self.grid(images))

    def grid(self, images: torch.Tensor) -> Tuple[int, int]:
        """Return rows and columns of patches."""
        rows, columns = self.encoder.patch_embed.patch_size
        return images.shape[-2] // rows, images.shape[-1] // columns

    def no_weight_decay(self) -> Set[str]:
        """Return parameters that do not decay, besides biases and norms: learned positions. Tokens do decay."""
        return {'encoder.pos_embed'}
