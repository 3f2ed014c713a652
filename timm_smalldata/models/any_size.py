"""Vision transformers that see images of any size."""
from typing import Any, Tuple

from timm.layers import Format, PatchEmbed
from timm.models.vision_transformer import VisionTransformer


def take_any_size(model: Any) -> Tuple[int, int]:
    """Let a model take images of any height and width, as timm's `dynamic_img_size=True` does when it is built.

    The position embedding is interpolated for each size.

    Args:
        model: A timm model; changed in place where it is a vision transformer.

    Returns:
        What height and width have to be multiples of: 1 for models without patches.

    Raises:
        ValueError: The model has patches and is none of timm's `VisionTransformer`s: its size is fixed.

    >>> import timm, torch
    >>> model = timm.create_model('test_vit', img_size=32, patch_size=8, num_classes=0)
    >>> take_any_size(model), model(torch.zeros(1, 3, 16, 48)).shape
    ((8, 8), torch.Size([1, 64]))
    """
    embed = getattr(model, 'patch_embed', None)
    if embed is None:
        return 1, 1
    if not isinstance(model, VisionTransformer) or not isinstance(embed, PatchEmbed):
        raise ValueError(f'{type(model).__name__} takes images of one size only.')
    changed: Any = model  # declared final, for scripts of torch alone
    changed.dynamic_img_size, embed.strict_img_size = True, False
    embed.flatten, embed.output_fmt = False, Format.NHWC
    return embed.patch_size[0], embed.patch_size[1]
