"""Distilled models: how far the class and the distillation token went apart, and what each of them says."""
from typing import Any, Tuple

import torch
import torch.nn.functional as F


def token_divergence(cls: torch.Tensor, dist: torch.Tensor) -> float:
    """Return the mean cosine distance between two tokens of the same images.

    DeiT-LT (https://arxiv.org/abs/2404.02900, section 4) takes it as a sign that the two became different experts.

    Args:
        cls: Class tokens after the final norm (N, D).
        dist: Distillation tokens (N, D), in the same order.

    Returns:
        Mean over images of `1 - cos(cls_n, dist_n)`: 0 for one direction, 1 for right angles, at most 2.

    Raises:
        ValueError: The shapes differ, or are not (N, D).

    >>> token_divergence(torch.eye(2), torch.tensor([[1.0, 0.0], [1.0, 0.0]]))
    0.5
    """
    if cls.shape != dist.shape or cls.ndim != 2 or not len(cls):
        raise ValueError(f'Tokens of shapes {tuple(cls.shape)} and {tuple(dist.shape)}: expected the same (N, D).')
    return float(1 - F.cosine_similarity(cls.float(), dist.float(), eps=1e-6).mean())


def is_distilled(model: Any) -> bool:
    """Return whether a timm model has a class and a distillation token, in this order, before its patches."""
    return getattr(model, 'cls_token', None) is not None and getattr(model, 'dist_token', None) is not None


def distilled_logits(model: Any, images: torch.Tensor) -> Tuple[torch.Tensor, torch.Tensor]:
    """Return the scores of the class token and of the distillation token; timm's model returns their mean.

    Args:
        model: A distilled timm model in eval mode.
        images: Normalised images (B, 3, height, width).

    Returns:
        Two tensors (B, C).

    Raises:
        ValueError: The model has no distillation token, or no head.
    """
    if not is_distilled(model) or not getattr(model, 'num_classes', 0):
        raise ValueError(f'{type(model).__name__} has no distillation token with a head.')
    tokens = model.forward_features(images)
    return model.head(tokens[:, 0]), model.head_dist(tokens[:, 1])
