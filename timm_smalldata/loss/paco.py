"""Parametric contrastive learning: supervised contrast with a learnable centre for each class."""
import math

import torch
from torch import nn

from .base import PerClass, log_prior


class ParametricContrastiveLoss(nn.Module):
    """PaCo (Cui et al., ICCV 2021, https://arxiv.org/abs/2107.12028, sec. 3), with the class prior in its logits.

    A query is compared with C class centres, through the classifier's logits plus `log(pi + 1e-9)`, and with features
    of other images, through `q . f / temperature`; f runs over the queries (but itself), the keys and a queue of
    earlier keys. Positives are the centre of its class (weight beta) and every feature of its class (weight alpha):

    `loss_i = -sum_p w_p (entry_p - log(sum_c exp(class entry) + gamma sum_f exp(contrast entry))) / sum_p w_p`,

    mean over i. Computed in float32 with autocast off.

    Args:
        class_counts: Training images per class (C,); 0 is treated as 1.
        alpha: Weight of a feature of the same class.
        beta: Weight of the centre of the class.
        gamma: Factor of the features in the denominator.
        temperature: Divides the cosines, greater than 0.

    Raises:
        ValueError: Negative counts or weights, no positive weight, a temperature that is not positive; when called:
            shapes that do not fit each other.

    >>> loss = ParametricContrastiveLoss([10, 10], alpha=0.0)
    >>> q, none = torch.tensor([[1., 0.]]), torch.zeros(0, 2)
    >>> loss(q, q, torch.zeros(1, 2), torch.tensor([0]), none, torch.zeros(0, dtype=torch.long))  # log(1 + e^5)
    tensor(5.6999)
    """
    log_prior: torch.Tensor

    def __init__(
            self,
            class_counts: PerClass,
            alpha: float = 0.05,
            beta: float = 1.0,
            gamma: float = 1.0,
            temperature: float = 0.2,
    ):
        super().__init__()
        if min(alpha, beta, gamma) < 0 or alpha + beta <= 0:
            raise ValueError(
                f'alpha, beta and gamma must not be negative, alpha or beta positive; got {alpha}, {beta}, {gamma}.')
        if not temperature > 0:
            raise ValueError(f'temperature must be greater than 0, got {temperature}.')
        self.alpha, self.beta, self.gamma, self.temperature = alpha, beta, gamma, temperature
        self.register_buffer('log_prior', (log_prior(class_counts).exp() + 1e-9).log().float())

    def forward(
            self,
            queries: torch.Tensor,
            keys: torch.Tensor,
            class_logits: torch.Tensor,
            targets: torch.Tensor,
            queue_feats: torch.Tensor,
            queue_targets: torch.Tensor,
    ) -> torch.Tensor:
        """Return the loss, a 0-d float32 tensor.

        Args:
            queries: L2-normalised features (N, D); the gradient also flows where they are contrasts.
            keys: L2-normalised features of other views of the same images (N, D).
            class_logits: Logits of the queries (N, C), without the prior.
            targets: Class indices (N,).
            queue_feats: L2-normalised features of earlier keys (Q, D); Q may be 0.
            queue_targets: Their class indices (Q,).
        """
        n = len(queries)
        if queries.shape != keys.shape or class_logits.shape != (n, len(self.log_prior)) or targets.shape != (n,):
            raise ValueError(
                f'expected queries and keys (N, D), class_logits (N, {len(self.log_prior)}) and targets (N,), got '
                f'{tuple(queries.shape)}, {tuple(keys.shape)}, {tuple(class_logits.shape)}, {tuple(targets.shape)}.')
        if queue_feats.shape[1:] != queries.shape[1:] or queue_targets.shape != queue_feats.shape[:1]:
            raise ValueError(
                f'expected queue_feats (Q, {queries.shape[1]}) and queue_targets (Q,), got '
                f'{tuple(queue_feats.shape)} and {tuple(queue_targets.shape)}.')
        with torch.autocast(queries.device.type, enabled=False):
            q = queries.float()
            features = torch.cat([q, keys.float(), queue_feats.float()])
            labels = torch.cat([targets, targets, queue_targets])
            itself = torch.eye(n, len(features), dtype=torch.bool, device=q.device)
            contrast = q @ features.T / self.temperature
            centres = class_logits.float() + self.log_prior
            log_gamma = math.log(self.gamma) if self.gamma else -math.inf
            # Entries beyond the largest cannot overflow: logsumexp shifts by the maximum.
            below = torch.cat([centres, (contrast + log_gamma).masked_fill(itself, -math.inf)], dim=1)
            log_sum = below.logsumexp(dim=1, keepdim=True)
            positive = (targets.unsqueeze(1) == labels) & ~itself
            of_centre = (centres - log_sum).gather(1, targets.unsqueeze(1)).squeeze(1)
            of_features = (contrast - log_sum).masked_fill(~positive, 0.).sum(dim=1)
            weight = self.beta + self.alpha * positive.sum(dim=1)
            return -((self.beta * of_centre + self.alpha * of_features) / weight).mean()

    def _apply(self, fn, recurse: bool = True) -> 'ParametricContrastiveLoss':
        # The prior follows the device but stays float32.
        return super()._apply(lambda constant: constant.to(fn(constant).device), recurse)
