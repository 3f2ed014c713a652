"""First filters that whiten: the principal directions of small patches of one's own images, each with both signs.

Neighbouring pixels say nearly the same, so random first filters see little but brightness; these begin with what
differs. Networks on CIFAR-10 need fewer epochs where patches are whitened before the first layer (Page, "How to train
your ResNet", 2019; Jordan, https://arxiv.org/abs/2404.00498). Such filters need no learning; a normalisation that
follows them, as in `models/convstem_vit.py`, makes their answers equally strong.
"""
import torch
from torch import nn
from torch.nn import functional as F

_AT_ONCE = 32  # images whose patches are held in memory
_LEAST = 1e-6  # of the largest variance; grey images vary in no colour, and such directions are left out


def principal_directions(images: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Return the principal directions of all patches, the one with the largest variance first.

    Args:
        images: (N, C, h, w), not smaller than a patch.
        height: Of the patches.
        width: Of the patches.

    Returns:
        (D, C, height, width), each of norm 1, its largest entry positive; D is C * height * width, less the directions
        in which the images do not vary.
    """
    channels = images.shape[1]
    size = channels * height * width
    total, product, count = torch.zeros(size, dtype=torch.float64), torch.zeros(size, size, dtype=torch.float64), 0
    for part in images.split(_AT_ONCE):
        patches = F.unfold(part.float(), (height, width)).transpose(1, 2).reshape(-1, size)
        total += patches.sum(0).double()
        product += (patches.T @ patches).double()
        count += len(patches)
    mean = total / count
    variances, directions = torch.linalg.eigh(product / count - torch.outer(mean, mean))
    directions = directions.T[variances > _LEAST * variances.max()].flip(0)
    largest = directions.gather(1, directions.abs().argmax(1, keepdim=True))
    return (directions * largest.sign()).float().reshape(-1, channels, height, width)


@torch.no_grad()
def whiten_(conv: nn.Conv2d, images: torch.Tensor) -> None:
    """Set the filters of a first convolution to the principal directions of patches, each with both signs.

    Half of the filters, strongest directions first, are followed by their negatives; if there are more filters than
    directions and negatives, the others stay as they are. The mean norm of the filters does not change.

    Args:
        conv: The convolution; not grouped.
        images: (N, C, h, w) as the network will see them.

    Raises:
        ValueError: The images are smaller than a filter, or have other channels.
    """
    height, width = conv.weight.shape[2:]
    if conv.groups != 1 or images.shape[1] != conv.in_channels:
        raise ValueError(f'A convolution of {conv.in_channels} channels cannot be whitened by {tuple(images.shape)}.')
    if images.shape[2] < height or images.shape[3] < width:
        raise ValueError(f'Images of {tuple(images.shape[2:])} are smaller than filters of {(height, width)}.')
    directions = principal_directions(images, height, width)[:conv.out_channels // 2]
    filters = torch.cat([directions, -directions]) * conv.weight.flatten(1).norm(dim=1).mean().cpu()
    conv.weight[:len(filters)] = filters.to(conv.weight)
