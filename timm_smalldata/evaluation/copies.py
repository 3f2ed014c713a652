"""Copy detection as DINO is judged on Copydays: descriptors of class token and patches, whitening, mAP.

Caron et al., ICCV 2021, https://arxiv.org/abs/2104.14294, section 4.1 and table 4, and its eval_copy_detection.py;
Douze et al., "Evaluation of GIST descriptors for web-scale image search", CIVR 2009 (Copydays).
"""
from typing import Sequence

import torch
import torch.nn.functional as F

from .landmarks import trapezoid_precision


def copy_descriptor(class_token: torch.Tensor, patches: torch.Tensor, power: float = 4.0) -> torch.Tensor:
    """Return class tokens beside the generalised mean (GeM) of the patches.

    Args:
        class_token: After the final norm (B, D).
        patches: After the final norm (B, ..., D); what is below 1e-6 becomes that.
        power: 1 is the mean, the greater the more the largest values count.

    Returns:
        Descriptors (B, 2 D).

    >>> copy_descriptor(torch.zeros(1, 1), torch.tensor([[[2.], [2.]]]))
    tensor([[0., 2.]])
    """
    flat = patches.flatten(1, -2).clamp(min=1e-6)
    return torch.cat([class_token, flat.pow(power).mean(1).pow(1 / power)], dim=1)


class Whitening:
    """Rotates and scales features so that those it was made from have the same variance in all directions.

    Directions of less than 1e-5 of the greatest variance are taken to have that much. As in DINO's code, what is
    decomposed is the second moment about 0; the mean is taken out of what is whitened.

    Args:
        features: Of other images (M, D).

    >>> features = torch.tensor([[2., 0.], [-2., 0.], [0., 1.], [0., -1.]])
    >>> Whitening(features)(torch.tensor([[4., 0.]])).abs().max().item()  # standard deviation there: sqrt(2)
    2.8284270763397217
    """

    def __init__(self, features: torch.Tensor):
        values = features.double().cpu()
        self.mean = values.mean(0)
        variances, directions = torch.linalg.eigh(values.T @ values / len(values))
        variances = variances.clamp(min=float(variances.max()) * 1e-5)
        self.matrix = directions / variances.sqrt()

    def __call__(self, features: torch.Tensor) -> torch.Tensor:
        """Return whitened features (N, D), float32."""
        return ((features.double().cpu() - self.mean) @ self.matrix).float().to(features.device)


def copy_precision(
        queries: torch.Tensor, database: torch.Tensor, originals: Sequence[Sequence[int]], depth: int = 20,
) -> torch.Tensor:
    """Return how well copies find what they are copies of.

    Args:
        queries: Features of the copies (Q, D); their lengths do not matter.
        database: Features of the originals and of distractors (N, D).
        originals: Positions in the database of what each query is a copy of, one or more.
        depth: How far down the ranking by cosine is looked; what stands below counts as not found.

    Returns:
        Average precision of each query (Q,), float64; the mean of it is the mAP.

    Raises:
        ValueError: Shapes do not fit, or a query is a copy of nothing.

    >>> copy_precision(torch.eye(2), torch.eye(2), [[0], [1]])
    tensor([1., 1.], dtype=torch.float64)
    """
    if len(queries) != len(originals) or queries.shape[1:] != database.shape[1:] or not all(map(len, originals)):
        raise ValueError(f'Features of {tuple(queries.shape)} copies and {tuple(database.shape)} of the database, with '
                         f'originals of {len(originals)}; each needs one.')
    cosine = F.normalize(queries.float(), dim=1) @ F.normalize(database.float(), dim=1).T
    nearest = cosine.argsort(dim=1, descending=True, stable=True)[:, :depth].tolist()
    return torch.tensor([
        trapezoid_precision([place for place, index in enumerate(ranking) if index in right], len(right))
        for ranking, right in zip(nearest, map(set, originals))], dtype=torch.float64)
