"""Distillation of a teacher through a token of its own: DeiT, and DeiT-LT for long tails."""
from typing import Callable, Optional, Tuple

import torch
import torch.nn.functional as F

from .base import PerClass, mean_over_ranks
from .cross_entropy import CrossEntropy

Criterion = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def hard_distillation_loss(
        cls_logits: torch.Tensor,
        dist_logits: torch.Tensor,
        target: torch.Tensor,
        teacher_logits: torch.Tensor,
        class_weight: Optional[PerClass] = None,
        alpha: float = 0.5,
        criterion: Optional[Criterion] = None,
) -> torch.Tensor:
    """The classifier learns the labels, the distillation head what the teacher says.

    `(1 - alpha) * criterion(cls_logits, target) + alpha * CE(dist_logits, argmax(teacher_logits))`
    (Touvron et al., ICML 2021, https://arxiv.org/abs/2012.12877, eq. 3; with weights Rangwani et al., CVPR 2024,
    https://arxiv.org/abs/2404.02900). The teacher's class is used without label smoothing, and it, not the true class,
    chooses the weight. Computed in float32 with autocast off; no gradient flows to the teacher.

    Args:
        cls_logits: Logits of the class token's head (N, C).
        dist_logits: Logits of the distillation token's head (N, C).
        target: Class indices (N,) or dense rows (N, C).
        teacher_logits: The teacher's logits (N, C), its classes in the student's order.
        class_weight: Weights (C,) of the second term: `sum_n w_y CE_n / sum_n w_y`, y the teacher's class. The
            normaliser is averaged over ranks.
        alpha: Share of the second term, between 0 and 1.
        criterion: Loss of the first term; None is cross-entropy for indices and for dense rows.

    Returns:
        0-d float32 tensor.

    Raises:
        ValueError: Shapes that do not fit each other, alpha outside [0, 1].

    >>> x, y = torch.zeros(2, 4), torch.tensor([0, 1])
    >>> hard_distillation_loss(x, x, y, teacher_logits=torch.eye(4)[:2])
    tensor(1.3863)
    """
    if not 0. <= alpha <= 1.:
        raise ValueError(f'alpha must lie between 0 and 1, got {alpha}.')
    terms = distillation_terms(cls_logits, dist_logits, target, teacher_logits, class_weight, criterion)
    return (1. - alpha) * terms[0] + alpha * terms[1]


def distillation_terms(
        cls_logits: torch.Tensor,
        dist_logits: torch.Tensor,
        target: torch.Tensor,
        teacher_logits: torch.Tensor,
        class_weight: Optional[PerClass] = None,
        criterion: Optional[Criterion] = None,
) -> Tuple[torch.Tensor, torch.Tensor]:
    """Return the two terms of `hard_distillation_loss`, each a 0-d float32 tensor."""
    with torch.autocast(cls_logits.device.type, enabled=False):
        _check(cls_logits, dist_logits, teacher_logits)
        loss_cls = (criterion or CrossEntropy())(cls_logits.float(), target)
        return loss_cls, hard_term(dist_logits, teacher_logits, class_weight)


def hard_term(
        dist_logits: torch.Tensor, teacher_logits: torch.Tensor, class_weight: Optional[PerClass] = None,
) -> torch.Tensor:
    """Return the cross-entropy of the distillation head (N, C) with the teacher's class, a 0-d float32 tensor."""
    with torch.autocast(dist_logits.device.type, enabled=False):
        said = teacher_logits.argmax(dim=1)
        if class_weight is None:
            return F.cross_entropy(dist_logits.float(), said)
        weight = _weights(class_weight, dist_logits)
        return _weighted_mean(F.cross_entropy(dist_logits.float(), said, weight=weight, reduction='sum'), weight[said])


def soft_term(
        dist_logits: torch.Tensor,
        teacher_logits: torch.Tensor,
        class_weight: Optional[PerClass] = None,
        temperature: float = 1.,
) -> torch.Tensor:
    """Return how far the distillation head is from the teacher's probabilities.

    `T^2 KL(softmax(teacher / T) || softmax(dist / T)) / C`, mean over N: divided by all N C logits as in DeiT's code
    (facebookresearch/deit at 7e160fe, losses.py 51), not by N as timm's tasks do. With weights the mean over N is
    `sum_n w_y KL_n / sum_n w_y`, y the teacher's class, as in the hard form. (DeiT-LT's code multiplies the logarithms
    of the probabilities by the weights, which makes them those of nothing.)

    Args:
        dist_logits: Logits of the distillation token's head (N, C).
        teacher_logits: The teacher's logits (N, C).
        class_weight: Weights (C,).
        temperature: T.

    Returns:
        0-d float32 tensor.

    >>> soft_term(torch.zeros(1, 2), torch.tensor([[1., 0.]]))
    tensor(0.0555)
    """
    with torch.autocast(dist_logits.device.type, enabled=False):
        log_p = (teacher_logits.float() / temperature).log_softmax(dim=1)
        log_q = (dist_logits.float() / temperature).log_softmax(dim=1)
        apart = (log_p.exp() * (log_p - log_q)).sum(dim=1) * temperature ** 2 / dist_logits.shape[1]
        if class_weight is None:
            return apart.mean()
        weight = _weights(class_weight, dist_logits)[teacher_logits.argmax(dim=1)]
        return _weighted_mean((weight * apart).sum(), weight)


def _check(cls_logits: torch.Tensor, dist_logits: torch.Tensor, teacher_logits: torch.Tensor) -> None:
    if not cls_logits.shape == dist_logits.shape == teacher_logits.shape or cls_logits.ndim != 2:
        raise ValueError(
            'cls_logits, dist_logits and teacher_logits must all be (N, C), got '
            f'{tuple(cls_logits.shape)}, {tuple(dist_logits.shape)} and {tuple(teacher_logits.shape)}.')


def _weights(class_weight: PerClass, logits: torch.Tensor) -> torch.Tensor:
    weight = torch.as_tensor(class_weight, dtype=torch.float32, device=logits.device)
    if weight.shape != logits.shape[1:]:
        raise ValueError(f'class_weight must be ({logits.shape[1]},), got {tuple(weight.shape)}.')
    return weight


def _weighted_mean(total: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    # A batch in which nothing has weight is worth 0, not 0 / 0.
    return total / mean_over_ranks(weights.sum()).clamp(min=torch.finfo(torch.float32).tiny)
