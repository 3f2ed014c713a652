"""Names that timm does not export at a package's top: one place to mend when it moves them, and a test for each."""
from typing import Any


def hfds_reader() -> Any:
    """Return timm's reader of Hugging Face data sets, which needs the package datasets."""
    from timm.data.readers.reader_hfds import ReaderHfds
    return ReaderHfds


def augment_op(name: str, prob: float, magnitude: float) -> Any:
    """timm's operation of automatic augmentation on a Pillow image."""
    from timm.data.auto_augment import AugmentOp
    return AugmentOp(name, prob, magnitude)


def is_auto_augment(transform: Any) -> bool:
    """Return whether a part of timm's training transform is its automatic augmentation."""
    from timm.data import auto_augment
    return isinstance(transform, (auto_augment.AutoAugment, auto_augment.RandAugment, auto_augment.AugMixAugment))


def mend_posterize(transform: Any) -> None:
    """Let timm's automatic augmentation keep 0 bits, the strongest level of `rand-m9-mstd0.5-inc1` and others.

    That makes a black image, as ever; newer versions of Pillow raise instead.
    """
    for part in transform.transforms:
        policies = getattr(part, 'policy', None) or [getattr(part, 'ops', None) or []]
        for op in (op for policy in policies for op in policy):
            if getattr(op, 'name', '').startswith('Posterize'):
                op.aug_fn = _posterize


def vit_tokens(model: Any, images: Any) -> Any:
    """Return the tokens (N, prefix + patches, D) that go into a timm ViT's blocks: patches with positions."""
    return model._pos_embed(model.patch_embed(images))


def computes_bfloat16_fast() -> bool:
    """Return whether the processor multiplies bfloat16 in hardware; elsewhere torch does it slowly in software."""
    import torch
    asked = (getattr(torch.cpu, name, None) for name in ('_is_avx512_bf16_supported', '_is_amx_tile_supported'))
    return any(ask() for ask in asked if ask is not None)


def set_muon_dtype(dtype: Any) -> None:
    """Let timm's Muon make updates orthogonal in another type than bfloat16, from now on in this process."""
    from functools import partial

    from timm.optim import muon
    function = muon.zeropower_via_newtonschulz
    muon.zeropower_via_newtonschulz = partial(getattr(function, 'func', function), dtype=dtype)


def _posterize(image: Any, bits: int, **_: Any) -> Any:
    from timm.data.auto_augment import posterize
    return posterize(image, bits) if bits > 0 else image.point(lambda value: 0)


__all__ = [
    'augment_op', 'computes_bfloat16_fast', 'hfds_reader', 'is_auto_augment',
    'mend_posterize', 'set_muon_dtype', 'vit_tokens']
