"""Small vision transformers whose tokens come from a few convolutions, for few images and short trainings.

Early convolutions instead of one large patch (Xiao et al., NeurIPS 2021, https://arxiv.org/abs/2106.14881), mean of the
tokens instead of a class token. With LayerScale of 0.1 and no last normalisation such a network begins as the plain
convolutional network that its stem is, and attention comes in as it helps.
"""
from functools import partial
from typing import Any, Dict, List, Optional, Tuple, Type, Union

import torch
from timm.layers import PatchEmbed, to_2tuple
from timm.models import VisionTransformer, build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import checkpoint_filter_fn
from torch import nn

MEAN = STD = (0.5, 0.5, 0.5)  # what the images vary about is not known beforehand


class ConvEmbed(PatchEmbed):
    """Tokens from 3x3 convolutions, each with a pooling that halves the image: log2(patch_size) of them.

    Takes timm's `PatchEmbed` arguments; the channels double from `width` on, and the last convolution makes
    `embed_dim`. Pooling comes before batch norm and activation, which then cost a quarter.

    Args:
        img_size: Size of the images in pixels.
        patch_size: Side of what a token stands for, a power of two.
        in_chans: Channels of the image.
        embed_dim: Width of the tokens.
        width: Channels after the first convolution.
        device: As in timm.
        dtype: As in timm.
        kwargs: Other arguments of `PatchEmbed`; a bias is never used, as batch norm follows.

    Raises:
        ValueError: The patch size is no power of two.
    """

    def __init__(
            self,
            img_size: Optional[Union[int, Tuple[int, int]]] = 64,
            patch_size: int = 16,
            in_chans: int = 3,
            embed_dim: int = 192,
            width: int = 32,
            device: Optional[torch.device] = None,
            dtype: Optional[torch.dtype] = None,
            **kwargs: Any,
    ):
        halvings = patch_size.bit_length() - 1
        if patch_size < 2 or patch_size != 2 ** halvings:
            raise ValueError(f'A stem of convolutions makes patches of 2, 4, 8 or 16 pixels, not {patch_size}.')
        kwargs['bias'] = False
        super().__init__(img_size, patch_size, in_chans, embed_dim, device=device, dtype=dtype, **kwargs)
        layers: List[nn.Module] = []
        widths = [in_chans, *(width << step for step in range(halvings - 1)), embed_dim]
        for narrow, wide in zip(widths, widths[1:]):
            layers += [
                nn.Conv2d(narrow, wide, 3, padding=1, bias=False, device=device, dtype=dtype), nn.MaxPool2d(2),
                nn.BatchNorm2d(wide, device=device, dtype=dtype), nn.ReLU(inplace=True)]
        self.proj = nn.Sequential(*layers)  # type: ignore[assignment]

    def set_input_size(self, img_size: Any = None, patch_size: Any = None) -> None:
        """Change the size of the images; that of the patches is the stem's."""
        if patch_size is not None and to_2tuple(patch_size) != tuple(self.patch_size):
            raise ValueError(f'The stem makes patches of {self.patch_size[0]} pixels: they cannot become {patch_size}.')
        super().set_input_size(img_size=img_size)


def _cfg(**kwargs: Any) -> Dict[str, Any]:
    return dict(
        url='', num_classes=1000, input_size=(3, 64, 64), pool_size=None, fixed_input_size=True, crop_pct=1.0,
        interpolation='bicubic', mean=MEAN, std=STD, first_conv='patch_embed.proj.0', classifier='head', **kwargs)


def _distilled_cfg() -> Dict[str, Any]:
    return dict(_cfg(), classifier=('head', 'head_dist'))


default_cfgs = generate_default_cfgs({
    'vit_pico_convstem.untrained': _cfg(),
    'vit_nano_convstem.untrained': _cfg(),
    'vit_micro_convstem.untrained': _cfg(),
    'deit_pico_convstem_distilled.untrained': _distilled_cfg(),
})


def _create(
        variant: str,
        pretrained: bool,
        model_cls: Type[VisionTransformer] = VisionTransformer,
        width: int = 32,
        **kwargs: Any,
) -> Any:
    """Build a ViT with a stem of convolutions; `kwargs` are those of timm's `VisionTransformer`."""
    fixed = dict(
        img_size=64, patch_size=16, mlp_ratio=2., class_token=False, global_pool='avg', final_norm=False,
        init_values=0.1, embed_layer=partial(ConvEmbed, width=width))
    return build_model_with_cfg(
        model_cls, variant, pretrained, pretrained_filter_fn=checkpoint_filter_fn, **dict(fixed, **kwargs))


@register_model
def vit_pico_convstem(pretrained: bool = False, **kwargs: Any) -> VisionTransformer:
    """Width 192, 1 block behind 4 convolutions: 0.6 M parameters."""
    return _create('vit_pico_convstem', pretrained, **dict(dict(embed_dim=192, depth=1, num_heads=6), **kwargs))


@register_model
def vit_nano_convstem(pretrained: bool = False, **kwargs: Any) -> VisionTransformer:
    """Width 256, 3 blocks behind 4 wider convolutions: 2 M parameters."""
    return _create(
        'vit_nano_convstem', pretrained, **dict(dict(width=48, embed_dim=256, depth=3, num_heads=8), **kwargs))


@register_model
def vit_micro_convstem(pretrained: bool = False, **kwargs: Any) -> VisionTransformer:
    """Width 384, 6 blocks behind 4 convolutions of twice the width: 8 M parameters."""
    return _create(
        'vit_micro_convstem', pretrained, **dict(dict(width=64, embed_dim=384, depth=6, num_heads=12), **kwargs))


@register_model
def deit_pico_convstem_distilled(pretrained: bool = False, **kwargs: Any) -> VisionTransformerDistilled:
    """`vit_pico_convstem` with class token and distillation token, each with a head of its own, as DeiT has them."""
    tokens = dict(class_token=True, global_pool='token', final_norm=True)
    return _create(
        'deit_pico_convstem_distilled', pretrained, VisionTransformerDistilled,
        **dict(tokens, **dict(dict(embed_dim=192, depth=1, num_heads=6), **kwargs)))
