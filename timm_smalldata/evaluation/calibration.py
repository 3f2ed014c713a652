"""Expected and maximum calibration error, from bins that are whole numbers.

Confidences are summed in fixed point, so the sum depends neither on the order of the images nor on how they were split
into batches and processes.
"""
from typing import Dict, Optional

import torch

CONFIDENCE_SCALE = 2 ** 32  # steps of 2e-10; an int64 holds the sum of two thousand million confidences


def bin_edges(
        n_bins: int = 15,
        dtype: torch.dtype = torch.float32,
        device: Optional[torch.device] = None,
) -> torch.Tensor:
    """Return the n_bins + 1 edges of equal bins on [0, 1].

    They are rounded to the type of the confidences, so that a confidence of 0.2 lies on the edge 3/15 in any precision.
    """
    if n_bins < 1:
        raise ValueError(f'n_bins must be at least 1, not {n_bins}.')
    return (torch.arange(n_bins + 1, dtype=torch.float64) / n_bins).to(dtype).to(device)


def calibration_bins(confidence: torch.Tensor, correct: torch.Tensor, edges: torch.Tensor) -> torch.Tensor:
    """Sort confidences into right-closed bins; needs no transfer to the host.

    Args:
        confidence: Probabilities of the predictions (N,).
        correct: Whether each prediction is right (N,).
        edges: From `bin_edges`, in the type and on the device of `confidence`.

    Returns:
        int64 (3, n_bins + 1): images, right predictions, and the sum of confidences in units of `1 / CONFIDENCE_SCALE`.
        Column b >= 1 is the bin (edges[b-1], edges[b]]; column 0 takes what lies in no bin: 0 and NaN.
    """
    inside = confidence > 0  # false for NaN
    index = torch.bucketize(confidence, edges).clamp(max=len(edges) - 1) * inside
    fixed = (torch.where(inside, confidence, 0) * CONFIDENCE_SCALE).round().long()
    bins = torch.zeros(3, len(edges), dtype=torch.int64, device=confidence.device)
    return bins.index_add_(1, index, torch.stack([torch.ones_like(fixed), correct.long(), fixed]))


def calibration_from_bins(bins: torch.Tensor) -> Dict[str, float]:
    """Return `ece` and `mce` as fractions, from the sums of `calibration_bins`."""
    images, hits, confidence = bins.tolist()
    # n_b * |acc_b - conf_b| = |hits_b - sum of confidences_b|: whole numbers up to the one division
    gaps = [abs(h * CONFIDENCE_SCALE - c) for h, c in zip(hits[1:], confidence[1:])]
    return {
        'ece': sum(gaps) / (max(sum(images), 1) * CONFIDENCE_SCALE),
        'mce': max(gap / (max(n, 1) * CONFIDENCE_SCALE) for gap, n in zip(gaps, images[1:])),
    }


def calibration_error(probabilities: torch.Tensor, labels: torch.Tensor, n_bins: int = 15) -> Dict[str, float]:
    """Compute the expected and the maximum calibration error (Guo et al., "On Calibration of Modern Neural Networks",
    ICML 2017, https://arxiv.org/abs/1706.04599, equations 3 and 5).

    Confidence is the largest probability of a row. The bins are of equal width on [0, 1] and right-closed.

    Args:
        probabilities: Predicted probabilities (N, C), not logits.
        labels: True classes (N,).
        n_bins: Number of bins.

    Returns:
        `ece`, the sum over bins of `n_b * |acc_b - conf_b| / N`, and `mce`, the largest `|acc_b - conf_b|` (0 for an
        empty bin); fractions, not percent.

    Raises:
        ValueError: The shapes do not fit, or a value lies outside of [0, 1].

    >>> calibration_error(torch.tensor([[0.75, 0.25], [0.25, 0.75]]), torch.tensor([0, 0]))
    {'ece': 0.25, 'mce': 0.25}
    """
    probabilities = torch.as_tensor(probabilities).detach()
    labels = torch.as_tensor(labels, device=probabilities.device)
    if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1]:
        raise ValueError(
            'calibration_error expects (N, C) probabilities and (N,) labels, '
            f'not {tuple(probabilities.shape)} and {tuple(labels.shape)}.')
    if probabilities.dtype != torch.float64:
        probabilities = probabilities.float()
    if not ((probabilities >= 0) & (probabilities <= 1 + 1e-4)).all():
        raise ValueError('calibration_error expects probabilities in [0, 1]: apply softmax to logits first.')
    confidence, prediction = probabilities.max(dim=1)
    edges = bin_edges(n_bins, probabilities.dtype, probabilities.device)
    return calibration_from_bins(calibration_bins(confidence, prediction == labels, edges))
