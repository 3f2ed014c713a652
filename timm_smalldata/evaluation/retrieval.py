"""Image retrieval: how high the images of the same class stand among all others, by the cosine of their features."""
from typing import Dict, Optional

import torch
import torch.nn.functional as F

from .knn import check_features

_CELLS = 2 ** 24  # of the matrix of cosines that is held at a time


@torch.no_grad()
def retrieval_scores(
        features: torch.Tensor,
        labels: torch.Tensor,
        k: int = 1,
        chunk_size: Optional[int] = None,
) -> Dict[str, torch.Tensor]:
    """Let every image look for the other images of its class.

    All other images are ranked by cosine. The average precision of a query is the mean, over the images of its class,
    of the share of right ones down to each (no interpolation; Manning et al., Introduction to Information Retrieval,
    2008, section 8.4). Of equal cosines the earlier image stands first. Computed in float32.

    Args:
        features: Features (N, D); their lengths do not matter.
        labels: Classes (N,), 0 or more.
        k: Nearest images to name for each query; all N - 1 where there are fewer.
        chunk_size: Queries at a time; by default as many as fit into memory.

    Returns:
        `average_precision` (N,) float64, a fraction, not a number (nan) for an image that is alone in its class;
        `nearest` (N, min(k, N - 1)) indices, the nearest first.

    Raises:
        ValueError: Shapes do not fit, there are fewer than two images, or k is less than 1.

    >>> scores = retrieval_scores(torch.tensor([[1., 0.], [.9, .1], [0., 1.]]), torch.tensor([0, 0, 1]))
    >>> scores['average_precision'], scores['nearest'].flatten()
    (tensor([1., 1., nan], dtype=torch.float64), tensor([1, 0, 1]))
    """
    check_features(features, labels, features, int(labels.max()) + 1 if len(labels) else 0)
    if len(features) < 2 or k < 1:
        raise ValueError(f'Retrieval needs two or more images and k of at least 1, got {len(features)} and {k}.')
    total = len(features)
    rows = chunk_size or max(1, _CELLS // total)
    precisions, nearest = [], []
    with torch.autocast(features.device.type, enabled=False):
        unit = F.normalize(features.float(), dim=1)
        places = torch.arange(1, total, device=features.device, dtype=torch.float64)
        for start in range(0, total, rows):
            own = torch.arange(start, min(start + rows, total), device=features.device)
            cosine = unit[own] @ unit.T
            cosine[torch.arange(len(own)), own] = -2.  # below every cosine: the query itself comes last
            order = cosine.argsort(dim=1, descending=True, stable=True)[:, :-1]
            right = (labels[order] == labels[own, None]).double()
            precisions.append((right * right.cumsum(dim=1) / places).sum(dim=1) / right.sum(dim=1))
            nearest.append(order[:, :k])
    return dict(average_precision=torch.cat(precisions), nearest=torch.cat(nearest))


def class_means(values: torch.Tensor, labels: torch.Tensor) -> Dict[int, float]:
    """Return the mean of values (N,) over the images of each class, without those that are not a number.

    >>> class_means(torch.tensor([1., 0., 1., torch.nan]), torch.tensor([0, 0, 1, 2]))
    {0: 0.5, 1: 1.0}
    """
    kept = values.isfinite()
    values, labels = values[kept], labels[kept]
    return {int(c): values[labels == c].mean().item() for c in labels.unique()}
