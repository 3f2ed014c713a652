"""What is done to an image before a model sees it: a plain description, and its rendering image by image."""
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Any, Callable, Optional, Tuple, Union

import torch
from PIL import Image
from timm.data import create_transform
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.data.random_erasing import RandomErasing
from torchvision import transforms
from torchvision.transforms import InterpolationMode

from .._compat import augment_op, is_auto_augment, mend_posterize
from ..utils.random import seed_draw
from .policies import POLICIES, Cutout, is_policy

CROP_MODES = ('rrc', 'src', 'pad', 'rkrc', 'rkrr', 'none')


@dataclass(frozen=True)
class Crop:
    """How the frame is chosen. Mode 'eval' resizes and cuts the centre; 'none' does so in training.

    'src' and 'pad' resize the shorter side, add four pixels on all sides (by reflection, or black ones) and cut a
    random square; the others are timm's.
    """
    mode: str = 'rrc'
    scale: Optional[Tuple[float, float]] = None
    ratio: Optional[Tuple[float, float]] = None
    hflip: float = 0.5
    vflip: float = 0.0
    interpolation: str = 'bicubic'
    pct: float = 1.0


@dataclass(frozen=True)
class Augment:
    """Colour and automatic augmentation, in timm's terms.

    `auto_augment` is timm's word, or one of `policies.POLICIES`; `auto_augment_prob` is the share of the images that it
    changes. Beside it there is no colour jitter, except with timm's `3a`, or with `force_color_jitter`, which does it
    first. The Pillow blur and solarising come after all others, with Pillow's operations: blur with a radius from
    U(0.1, 2), and solarising above 128, as in timm's `3a` (`gaussian_blur_prob` is torchvision's blur, for images
    larger than 11 px). At the end a black square with a side of `cutout` pixels.
    """
    auto_augment: Optional[str] = None
    color_jitter: Union[None, float, Tuple[float, ...]] = None
    color_jitter_prob: Optional[float] = None
    grayscale_prob: float = 0.0
    gaussian_blur_prob: float = 0.0
    pillow_blur_prob: float = 0.0
    solarize_prob: float = 0.0
    auto_augment_prob: float = 1.0
    force_color_jitter: bool = False
    cutout: int = 0


@dataclass(frozen=True)
class Erase:
    """Random erasing, on the normalised view."""
    prob: float = 0.0
    mode: str = 'pixel'
    count: int = 1


@dataclass(frozen=True)
class ViewSpec:
    """One view: plain data, so that it can be printed, compared and sent to workers."""
    size: int
    crop: Crop = field(default_factory=Crop)
    augment: Augment = field(default_factory=Augment)
    erase: Erase = field(default_factory=Erase)
    mean: Tuple[float, ...] = IMAGENET_DEFAULT_MEAN
    std: Tuple[float, ...] = IMAGENET_DEFAULT_STD

    def at(self, size: int) -> 'ViewSpec':
        """Return the same view at another size."""
        return replace(self, size=size)

    def clean(self) -> 'ViewSpec':
        """Return the view without colour augmentation and erasing."""
        return replace(self, augment=Augment(), erase=Erase())


def eval_view(size: int, crop_pct: float, interpolation: str, mean: Tuple, std: Tuple) -> ViewSpec:
    """Return the one deterministic view that evaluation uses."""
    crop = Crop('eval', hflip=0.0, interpolation=interpolation, pct=crop_pct)
    return ViewSpec(size, crop, mean=tuple(mean), std=tuple(std))


class SimpleRandomCrop(transforms.Compose):
    """Resize the shorter side to `size`, pad by reflection, cut a random square (DeiT III, arXiv:2204.07118, sec. 3.2).

    Args:
        size: Side of the square in pixels.
        padding: Pixels added on all four sides before the cut.
        interpolation: 'bicubic', 'bilinear' or another name that Pillow knows.
        padding_mode: 'reflect', or 'constant' for black ones.

    >>> SimpleRandomCrop(32)(Image.new('RGB', (80, 50))).size
    (32, 32)
    """

    def __init__(
            self, size: int, padding: int = 4, interpolation: str = 'bicubic', padding_mode: str = 'reflect'):
        super().__init__([
            transforms.Resize(size, interpolation=InterpolationMode(interpolation)),
            transforms.RandomCrop(size, padding=padding, padding_mode=padding_mode),
        ])


def three_augment(
        size: int,
        crop: str = 'rrc',
        hflip: float = 0.5,
        color_jitter: float = 0.3,
        interpolation: str = 'bicubic',
        mean: Tuple[float, ...] = IMAGENET_DEFAULT_MEAN,
        std: Tuple[float, ...] = IMAGENET_DEFAULT_STD,
        normalize: bool = True,
) -> Callable[[Image.Image], torch.Tensor]:
    """Return DeiT III's training transform: crop, flip, one of {greyscale, solarise, blur}, colour jitter.

    The operations are timm's `3a` policy (arXiv:2204.07118, sec. 3.2).

    Args:
        size: Side of the output in pixels.
        crop: 'rrc' (random resized crop) or 'src' (simple random crop).
        hflip: Probability of a mirror image.
        color_jitter: Strength of brightness, contrast and saturation jitter.
        interpolation: Interpolation of the crop.
        mean: Channel means for the normalisation.
        std: Channel standard deviations for the normalisation.
        normalize: Return a normalised float tensor; otherwise a uint8 tensor.

    >>> three_augment(32)(Image.new('RGB', (64, 48))).shape
    torch.Size([3, 32, 32])
    """
    spec = ViewSpec(
        size, Crop(crop, hflip=hflip, interpolation=interpolation), Augment('3a', color_jitter), mean=mean, std=std)
    return _train_transform(spec, normalize)


def _timms_transform(
        spec: ViewSpec, auto_augment: Optional[str], color_jitter: Any, normalize: bool) -> transforms.Compose:
    """Build timm's training transform; uint8 out unless `normalize`."""
    crop, augment = spec.crop, spec.augment
    chain: Any = create_transform(
        (3, spec.size, spec.size),
        is_training=True,
        train_crop_mode=crop.mode if crop.mode in ('rrc', 'rkrc', 'rkrr') else 'rrc',
        scale=crop.scale,
        ratio=crop.ratio,
        hflip=crop.hflip,
        vflip=crop.vflip,
        interpolation=crop.interpolation,
        auto_augment=auto_augment,
        color_jitter=color_jitter,
        color_jitter_prob=augment.color_jitter_prob,
        grayscale_prob=augment.grayscale_prob,
        gaussian_blur_prob=augment.gaussian_blur_prob,
        mean=spec.mean,
        std=spec.std,
        use_prefetcher=not normalize,
    )
    mend_posterize(chain)
    return chain


def _train_transform(spec: ViewSpec, normalize: bool = False) -> transforms.Compose:
    """Build timm's training transform with our crop modes and policies; uint8 out unless `normalize`."""
    crop, augment = spec.crop, spec.augment
    name, jitter = augment.auto_augment, augment.color_jitter
    own, last = name in POLICIES, name in POLICIES or augment.force_color_jitter
    chain = _timms_transform(
        spec, None if last else name, None if own and not augment.force_color_jitter else jitter, normalize)
    tail = len(chain.transforms) - (2 if normalize else 1)  # to a tensor, and normalised
    if name and last:
        timms = [] if own else _timms_transform(spec, name, None, normalize).transforms
        chain.transforms.insert(tail, POLICIES[name]() if own else next(filter(is_auto_augment, timms)))
        tail += 1
    if augment.auto_augment and augment.auto_augment_prob < 1:
        chain.transforms = [
            transforms.RandomApply([part], augment.auto_augment_prob)
            if is_auto_augment(part) or is_policy(part) else part for part in chain.transforms]
    for name, prob, magnitude in (
            ('GaussianBlurRand', augment.pillow_blur_prob, 10), ('Solarize', augment.solarize_prob, 5)):
        if prob:
            chain.transforms.insert(tail, augment_op(name, prob, magnitude))
            tail += 1
    if augment.cutout:
        chain.transforms.insert(tail, Cutout(augment.cutout))
    if crop.mode in ('src', 'pad'):
        chain.transforms[0] = SimpleRandomCrop(
            spec.size, interpolation=crop.interpolation,
            padding_mode='reflect' if crop.mode == 'src' else 'constant')
    elif crop.mode == 'none':
        chain.transforms[0] = transforms.Compose([
            transforms.Resize(spec.size, interpolation=InterpolationMode(crop.interpolation)),
            transforms.CenterCrop(spec.size),
        ])
    return chain


@lru_cache(maxsize=64)
def _transform(spec: ViewSpec) -> Callable[[Image.Image], torch.Tensor]:
    if spec.crop.mode != 'eval':
        return _train_transform(spec)
    chain: Any = create_transform(
        (3, spec.size, spec.size),
        interpolation=spec.crop.interpolation,
        crop_pct=spec.crop.pct,
        use_prefetcher=True,
    )
    return chain


@lru_cache(maxsize=64)
def _eraser(erase: Erase) -> RandomErasing:
    return RandomErasing(probability=erase.prob, mode=erase.mode, max_count=erase.count, device='cpu')


def check_view(spec: ViewSpec) -> None:
    """Build the transforms of a view; what timm or torchvision do not know raises here, not in a worker process."""
    _transform(spec)
    _eraser(spec.erase)


def normalise(batch: torch.Tensor, mean: Tuple[float, ...], std: Tuple[float, ...]) -> torch.Tensor:
    """Return uint8 images (..., 3, h, w) as normalised float32, in timm's order of operations."""
    shape = (3, 1, 1)
    mean_t = torch.tensor([m * 255 for m in mean], device=batch.device).view(shape)
    std_t = torch.tensor([s * 255 for s in std], device=batch.device).view(shape)
    return batch.float().sub_(mean_t).div_(std_t)


def render(image: Image.Image, spec: ViewSpec, key: Optional[int] = None) -> torch.Tensor:
    """Render one view of one image with timm's and torchvision's transforms.

    Args:
        image: RGB image.
        spec: What to do.
        key: Key of the draw (`rng.draw_key`); None leaves the generators alone (evaluation draws nothing).

    Returns:
        uint8 tensor (3, h, w), or a normalised float32 tensor when the view has random erasing.
    """
    if key is not None:
        seed_draw(key)
    view = _transform(spec)(image)
    if not spec.erase.prob:
        return view
    return _eraser(spec.erase)(normalise(view, spec.mean, spec.std))
