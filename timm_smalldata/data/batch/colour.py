"""Colour operations of Pillow and torchvision on batches: float32 (N, 3, h, w) from 0 to 255.

What an operation is told stands for each image: float32 (N, 1, 1, 1). Pillow rounds to whole numbers after each
operation, these do not: they are at most a level apart. The batch may be changed; use what is returned.
"""
import torch


def luma(x: torch.Tensor) -> torch.Tensor:
    """Return the grey values (N, 1, h, w), by the weights of ITU-R 601-2."""
    grey = x[:, 0:1] * 0.299
    return grey.add_(x[:, 1:2], alpha=0.587).add_(x[:, 2:3], alpha=0.114)


def greyscale(x: torch.Tensor) -> torch.Tensor:
    """Take the colours out."""
    return x.copy_(luma(x))


def solarise(x: torch.Tensor) -> torch.Tensor:
    """Invert what is 128 or brighter."""
    return torch.where(x < 128, x, 255 - x)


def blend(x: torch.Tensor, factor: torch.Tensor, grey: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
    """Change brightness, contrast or saturation: Pillow's blend of an image with what it would be without it.

    Args:
        x: The batch.
        factor: 1 leaves an image as it is; 0 makes it black, one grey, or colourless.
        grey: 1 where the saturation is changed, else 0.
        mean: 1 where the contrast is changed, else 0.
    """
    base = luma(x)
    level = base.mean(dim=(2, 3), keepdim=True).mul_(mean)
    base.mul_(grey).add_(level).mul_(1 - factor)
    return x.mul_(factor).add_(base).clamp_(0, 255)


def shift_hue(x: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
    """Turn the hue by a share of the circle, from -0.5 to 0.5 (torchvision's `adjust_hue`, without Pillow's 8 bits)."""
    red, green, blue = x.split(1, dim=1)
    value = x.amax(dim=1, keepdim=True)
    chroma = value - x.amin(dim=1, keepdim=True)
    hue = torch.where(
        value == red, green - blue, torch.where(value == green, (blue - red).add_(chroma, alpha=2),
                                                (red - green).add_(chroma, alpha=4)))
    hue.div_(chroma.clamp(min=1e-3)).add_(shift, alpha=6)  # in sextants
    hue.sub_(torch.floor(hue / 6), alpha=6)
    # how far a channel lies below the largest, as a share of the chroma: 2 - |||hue - its own| - 3|, within 0 and 1
    own = torch.tensor([0.0, 2.0, 4.0], device=x.device).view(1, 3, 1, 1)
    below = (hue - own).abs_().sub_(3).abs_().clamp_(1, 2)
    return below.mul_(chroma).add_(value.sub_(chroma, alpha=2))
