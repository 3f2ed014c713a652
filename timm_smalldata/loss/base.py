"""What the losses share: counts made safe, targets made dense, and one forward that computes in float32."""
from typing import Callable, Optional, Sequence, Tuple, Union

import numpy as np
import torch
import torch.distributed as dist
import torch.nn as nn

PerClass = Union[Sequence[float], np.ndarray, torch.Tensor]


def as_counts(class_counts: Optional[PerClass]) -> torch.Tensor:
    """Check class counts; a class without images counts as one image, so that its logarithm exists.

    Args:
        class_counts: Training images per class (C,).

    Returns:
        float64 tensor (C,) on the CPU.

    Raises:
        ValueError: Not one non-negative number per class.

    >>> as_counts([100, 10, 0])
    tensor([100.,  10.,   1.], dtype=torch.float64)
    """
    if class_counts is None:
        raise ValueError('class_counts is missing: give the number of training images of each class.')
    try:
        counts = torch.as_tensor(class_counts, dtype=torch.float64, device='cpu')
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f'class_counts must be a list, array or tensor with one number per class: {error}.') from None
    if counts.ndim != 1 or not len(counts):
        raise ValueError(f'class_counts must hold one number per class, got shape {tuple(counts.shape)}.')
    bad = torch.nonzero(~torch.isfinite(counts) | (counts < 0))
    if len(bad):
        c = int(bad[0])
        raise ValueError(f'class_counts must be finite and not negative, got {counts[c].item():g} for class {c}.')
    return torch.where(counts == 0, 1., counts)


def log_prior(class_counts: PerClass) -> torch.Tensor:
    """Return log pi_c = log(n_c / sum n), float64 (C,).

    >>> log_prior([3, 1]).exp()
    tensor([0.7500, 0.2500], dtype=torch.float64)
    """
    counts = as_counts(class_counts)
    return counts.log() - counts.sum().log()


def check_smoothing(smoothing: float) -> float:
    """Return label smoothing as it is; ValueError outside [0, 1)."""
    if not 0. <= smoothing < 1.:
        raise ValueError(f'smoothing must lie in [0, 1), got {smoothing}.')
    return smoothing


def to_dense(target: torch.Tensor, logits: torch.Tensor, smoothing: float = 0.) -> torch.Tensor:
    """Turn class indices (N,) into smoothed one-hot rows (N, C); take dense rows as they are.

    >>> to_dense(torch.tensor([1]), torch.zeros(1, 4), smoothing=0.2)
    tensor([[0.0500, 0.8500, 0.0500, 0.0500]])
    """
    if target.shape == logits.shape:
        return target.float()
    if target.shape != logits.shape[:1] or target.is_floating_point():
        raise ValueError(
            f'target must be class indices (N,) or dense rows (N, C) for logits {tuple(logits.shape)}, '
            f'got {str(target.dtype)[6:]} {tuple(target.shape)}.')
    off = smoothing / logits.shape[1]
    dense = torch.full(logits.shape, off, dtype=torch.float32, device=logits.device)
    return dense.scatter_(1, target.long().unsqueeze(1), 1. - smoothing + off)


def log_softmax_pair(x: torch.Tensor) -> Tuple[torch.Tensor, torch.Tensor]:
    """Return log p and log(1 - p) of the softmax, both (N, C) and exact where p is next to 0 or to 1.

    >>> log_p, log_not_p = log_softmax_pair(torch.tensor([[40., 0.]]))
    >>> log_not_p[0, 0]  # log(1 - p) of p = 1 in float32 would be -inf
    tensor(-40.)
    """
    # Only the largest p can be next to 1: there log(1 - p) comes from the other logits; elsewhere p <= 1/2.
    is_top = torch.zeros_like(x, dtype=torch.bool).scatter_(1, x.argmax(dim=1, keepdim=True), True)
    log_p = x.log_softmax(dim=1)
    log_not_p = torch.log1p(-log_p.masked_fill(is_top, -torch.inf).exp())
    log_not_top = x.masked_fill(is_top, -torch.inf).logsumexp(dim=1, keepdim=True) - x.logsumexp(dim=1, keepdim=True)
    return log_p, torch.where(is_top, log_not_top, log_not_p)


def mean_over_ranks(value: torch.Tensor) -> torch.Tensor:
    """Average a normaliser over ranks, so that DDP's mean of gradients is the gradient of the global weighted mean.

    Only while gradients are taken: in evaluation ranks may see different numbers of batches and must not wait.
    """
    if not (torch.is_grad_enabled() and dist.is_available() and dist.is_initialized()):
        return value
    value = value.detach().clone()
    dist.all_reduce(value)
    return value / dist.get_world_size()


class ClassCountLoss(nn.Module):
    """Base of the losses: a loss writes `per_class`, this class does the rest.

    Called as `criterion(logits (N, C), target)` with class indices (N,) or dense rows (N, C) as target. Computes
    `mean_n sum_c t_nc l_c(x_n)` in float32, autocast off, whatever the dtype of the logits; returns a 0-d tensor.
    Constants are buffers with one value per class.

    Args:
        class_counts: Training images per class (C,); 0 is treated as 1.
        smoothing: Label smoothing of class indices; dense rows are used as given.

    Raises:
        ValueError: Negative counts, smoothing outside [0, 1); when called: shapes that do not fit each other.
    """
    class_counts: Optional[torch.Tensor]

    def __init__(self, class_counts: Optional[PerClass] = None, smoothing: float = 0.):
        super().__init__()
        self.smoothing = check_smoothing(smoothing)
        self.register_buffer('class_counts', None if class_counts is None else as_counts(class_counts).float())

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        self._check_classes(logits)
        with torch.autocast(logits.device.type, enabled=False):
            return self.compute(logits.float(), to_dense(target, logits, self.smoothing))

    def compute(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """Return the loss of float32 logits (N, C) and dense targets (N, C)."""
        return (t * self.per_class(x)).sum(dim=1).mean()

    def per_class(self, x: torch.Tensor) -> torch.Tensor:
        """Return l_c(x) (N, C): the loss that x would have with hard label c."""
        raise NotImplementedError

    def _check_classes(self, logits: torch.Tensor) -> None:
        if logits.ndim != 2:
            raise ValueError(f'{type(self).__name__} takes logits (N, C), got shape {tuple(logits.shape)}.')
        for name, constant in self.named_buffers():
            if len(constant) != logits.shape[1]:
                raise ValueError(
                    f'{type(self).__name__}: {name} is for {len(constant)} classes, '
                    f'but the logits have {logits.shape[1]}; make model and loss with the same classes.')

    def _apply(self, fn: Callable, recurse: bool = True) -> 'ClassCountLoss':
        # Constants follow the device but stay float32: half a log prior would be wrong by 0.03 in the tail.
        return super()._apply(lambda constant: constant.to(fn(constant).device), recurse)


class WeightedLoss(ClassCountLoss):
    """A loss with class weights: `sum_n sum_c t w l / sum_n sum_c t w`, the plain mean without weights.

    The normaliser is averaged over ranks. torch's own weighted cross-entropy divides by N for dense targets;
    this one has the same scale with and without mixup.
    """
    class_weight: Optional[torch.Tensor]

    def __init__(
            self,
            class_counts: Optional[PerClass] = None,
            smoothing: float = 0.,
            class_weight: Optional[PerClass] = None,
    ):
        super().__init__(class_counts, smoothing)
        # Not in the state dict: deferred re-weighting makes the weights a function of the epoch.
        self.register_buffer('class_weight', None, persistent=False)
        self.set_class_weight(class_weight)

    def set_class_weight(self, class_weight: Optional[PerClass]) -> None:
        """Use these weights (C,) from now on; None means no weights."""
        if class_weight is None:
            self.class_weight = None
            return
        weight = torch.as_tensor(class_weight, dtype=torch.float32).detach().clone()
        if weight.ndim != 1 or not torch.isfinite(weight).all() or (weight < 0).any():
            raise ValueError('class_weight must hold one finite number >= 0 per class.')
        self.class_weight = weight if self.class_counts is None else weight.to(self.class_counts.device)

    def weigh(self, t: torch.Tensor) -> torch.Tensor:
        """Return t_nc w_c (N, C)."""
        return t if self.class_weight is None else t * self.class_weight.to(t.device)

    def compute(self, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        if self.class_weight is None:
            return super().compute(x, t)
        t = self.weigh(t)
        # A batch in which nothing has weight is worth 0, not 0 / 0.
        return (t * self.per_class(x)).sum() / mean_over_ranks(t.sum()).clamp(min=torch.finfo(t.dtype).tiny)
