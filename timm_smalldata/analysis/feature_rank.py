"""How many directions features use."""
import torch


def feature_rank(features: torch.Tensor, threshold: float = 0.99) -> int:
    """Return how many principal directions hold `threshold` of the variance.

    Andriushchenko et al., "Sharpness-Aware Minimization Leads to Low-Rank Features", NeurIPS 2023,
    https://arxiv.org/abs/2305.16292; DeiT-LT (https://arxiv.org/abs/2404.02900) measures tail classes with it.

    Args:
        features: One row per image (N, D).
        threshold: Share of the variance, over 0 and at most 1.

    Returns:
        The least k with `sum_{i<=k} s_i^2 >= threshold * sum_i s_i^2`, s the singular values of the centred features;
        at most N - 1 and D, and 0 where all rows are equal.

    Raises:
        ValueError: The features are no finite matrix, or the threshold is out of its range.

    >>> feature_rank(torch.tensor([[1.0, 0.0], [2.0, 0.0], [4.0, 0.0]]))
    1
    """
    if features.ndim != 2 or not len(features) or not bool(features.isfinite().all()):
        raise ValueError(f'Features of shape {tuple(features.shape)}: expected finite numbers (N, D), N at least 1.')
    if not 0 < threshold <= 1:
        raise ValueError(f'threshold {threshold} is not over 0 and at most 1.')
    wide = features.detach().cpu().double()  # an accelerator may have no float64
    held = torch.linalg.svdvals(wide - wide.mean(0)).square().cumsum(0)
    if not len(held) or held[-1] <= 1e-24 * wide.square().sum():  # nothing but the rounding of the mean
        return 0
    return int((held < threshold * held[-1]).sum()) + 1
