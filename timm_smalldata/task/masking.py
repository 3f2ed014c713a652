"""Which patches of an image a masked autoencoder sees."""
import torch


def num_visible(length: int, mask_ratio: float) -> int:
    """Return how many of `length` patches stay visible: `int(length * (1 - mask_ratio))`.

    Raises:
        ValueError: No patch would be visible, or none masked.

    >>> num_visible(196, 0.75)
    49
    """
    keep = int(length * (1 - mask_ratio))
    if not 0 < keep < length:
        raise ValueError(
            f'A mask ratio of {mask_ratio:g} leaves {keep} of {length} patches visible: there must be some, not all.')
    return keep


def random_visible(noise: torch.Tensor, mask_ratio: float) -> torch.Tensor:
    """Choose the visible patches: those with the least noise, in each image by itself.

    Args:
        noise: One random number for each patch (N, L).
        mask_ratio: Share of patches that are hidden.

    Returns:
        Places (N, K), int64, of the visible patches.

    >>> random_visible(torch.tensor([[0.9, 0.1, 0.5, 0.3]]), 0.5)
    tensor([[1, 3]])
    """
    return noise.argsort(dim=1)[:, :num_visible(noise.shape[1], mask_ratio)]


def visible_to_mask(visible: torch.Tensor, length: int) -> torch.Tensor:
    """Return the mask (N, length), bool, True where a patch is hidden, for visible places (N, K).

    >>> visible_to_mask(torch.tensor([[1, 3]]), 4).int()
    tensor([[1, 0, 1, 0]], dtype=torch.int32)
    """
    return torch.ones(len(visible), length, dtype=torch.bool, device=visible.device).scatter(1, visible, False)


def mask_to_visible(mask: torch.Tensor) -> torch.Tensor:
    """Return the visible places (N, K) of a mask (N, L), bool or 0/1; ValueError unless K is the same in each row."""
    hidden = mask.bool()
    keep = (~hidden).sum(dim=1)
    if hidden.ndim != 2 or len(set(keep.tolist())) != 1 or not 0 < int(keep[0]) < hidden.shape[1]:
        raise ValueError('A mask is (N, L) and leaves the same number of patches visible in every image, not 0 or L.')
    return hidden.int().argsort(dim=1, stable=True)[:, :int(keep[0])]
