"""Mean square error of reconstructed pixels, over the patches that the model did not see."""
from typing import Tuple

import torch

NORM_EPS = 1e-6  # added to the variance of a patch


def patchify(images: torch.Tensor, patch_size: int) -> torch.Tensor:
    """Cut images into patches.

    Args:
        images: (N, C, H, W).
        patch_size: Side p of a patch in pixels; it divides H and W.

    Returns:
        (N, L, p * p * C): patches row by row; inside a patch row, column, channel, the channel fastest.

    Raises:
        ValueError: The images do not consist of whole patches.

    >>> patchify(torch.arange(8.).reshape(1, 2, 2, 2), 1)[0]
    tensor([[0., 4.],
            [1., 5.],
            [2., 6.],
            [3., 7.]])
    """
    if images.ndim != 4 or images.shape[2] % patch_size or images.shape[3] % patch_size:
        raise ValueError(
            f'Images must be (N, C, H, W) with sides that are multiples of the patch size {patch_size}, '
            f'got {tuple(images.shape)}.')
    n, c, height, width = images.shape
    rows, columns = height // patch_size, width // patch_size
    cut = images.reshape(n, c, rows, patch_size, columns, patch_size)
    return cut.permute(0, 2, 4, 3, 5, 1).reshape(n, rows * columns, patch_size * patch_size * c)


def unpatchify(patches: torch.Tensor, patch_size: int, grid: Tuple[int, int]) -> torch.Tensor:
    """Put patches together again: the inverse of `patchify`.

    Args:
        patches: (N, rows * columns, p * p * C).
        patch_size: Side p of a patch in pixels.
        grid: Rows and columns of patches.

    Returns:
        (N, C, rows * p, columns * p).

    >>> images = torch.randn(2, 3, 8, 12)
    >>> torch.equal(unpatchify(patchify(images, 4), 4, (2, 3)), images)
    True
    """
    rows, columns = grid
    cut = patches.reshape(len(patches), rows, columns, patch_size, patch_size, -1).permute(0, 5, 1, 3, 2, 4)
    return cut.reshape(len(patches), -1, rows * patch_size, columns * patch_size)


def patch_statistics(patches: torch.Tensor) -> Tuple[torch.Tensor, torch.Tensor]:
    """Return mean and standard deviation of each patch over all its values, (N, L, 1); the variance is unbiased."""
    mean = patches.mean(dim=-1, keepdim=True)
    return mean, (patches.var(dim=-1, keepdim=True) + NORM_EPS).sqrt()


def masked_pixel_loss(
        pred: torch.Tensor,
        images: torch.Tensor,
        mask: torch.Tensor,
        patch_size: int,
        norm_pix: bool = True,
) -> torch.Tensor:
    """Compute the loss of a masked autoencoder (He et al., CVPR 2022, https://arxiv.org/abs/2111.06377, sec. 3).

    The mean square error of each patch, averaged over the masked patches of the batch. Visible patches get no
    gradient. Computed in float32 whatever the dtype of the input.

    Args:
        pred: Predicted pixels (N, L, p * p * C) in the order of `patchify`.
        images: (N, C, H, W), as the model sees them.
        mask: (N, L), float or bool, 1 where a patch was masked; at least one is.
        patch_size: Side p of a patch in pixels.
        norm_pix: Predict each patch less its mean, over its standard deviation.

    Returns:
        0-d float32 tensor.

    Raises:
        ValueError: The shapes do not fit.

    >>> images, mask = torch.randn(1, 3, 4, 4), torch.tensor([[1., 0., 0., 1.]])
    >>> masked_pixel_loss(patchify(images, 2), images, mask, 2, norm_pix=False)
    tensor(0.)
    """
    with torch.autocast(images.device.type, enabled=False):
        target = patchify(images.float(), patch_size)
        if pred.shape != target.shape or mask.shape != target.shape[:2]:
            raise ValueError(
                f'Images {tuple(images.shape)} with patch size {patch_size} need predictions {tuple(target.shape)} and '
                f'a mask {tuple(target.shape[:2])}, got {tuple(pred.shape)} and {tuple(mask.shape)}.')
        if norm_pix:
            mean, deviation = patch_statistics(target)
            target = (target - mean) / deviation
        error, weight = (pred.float() - target).square().mean(dim=-1), mask.float()
        return (error * weight).sum() / weight.sum()
