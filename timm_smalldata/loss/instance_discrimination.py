"""Every image its own class: cross-entropy over instance labels that CutMix has paired."""
import torch

from .base import check_smoothing


def instance_discrimination_loss(
        logits: torch.Tensor,
        index: torch.Tensor,
        index_perm: torch.Tensor,
        lam: float,
        smoothing: float = 0.0,
) -> torch.Tensor:
    """Loss of IDMM for one crop group (Cao et al., ECCV 2022, https://arxiv.org/abs/2201.10728).

    `lam * CE(logits, index) + (1 - lam) * CE(logits, index_perm)`, mean over the rows, computed in float32 with
    autocast off. It equals the cross-entropy with the dense target
    `(1 - smoothing) * (lam * onehot(index) + (1 - lam) * onehot(index_perm)) + smoothing / n`, whose (M, n) floats
    are never made: n is the number of training images. The caller adds the crop groups.

    Args:
        logits: One column per training image (M, n).
        index: Instance label of each row (M,), in 0..n-1.
        index_perm: Instance label of the image pasted into each row (M,): `index[perm]`, not the permutation.
        lam: Share of the row's own pixels, in [0, 1].
        smoothing: Label smoothing, uniform over all n labels including the true ones, in [0, 1).

    Returns:
        0-d float32 tensor.

    Raises:
        ValueError: Shapes that do not fit each other, labels that are no integers, lam or smoothing out of range.

    >>> logits = torch.tensor([[2., 0., 0.]])
    >>> instance_discrimination_loss(logits, torch.tensor([0]), torch.tensor([1]), lam=0.75)  # 0.2395 + 0.25 * 2
    tensor(0.7395)
    """
    if logits.ndim != 2 or not len(logits):
        raise ValueError(f'logits must be (M, n) with M > 0, got shape {tuple(logits.shape)}.')
    for name, labels in (('index', index), ('index_perm', index_perm)):
        if labels.shape != logits.shape[:1] or labels.is_floating_point():
            raise ValueError(
                f'{name} must hold one instance label per row of the logits {tuple(logits.shape)}, '
                f'got {str(labels.dtype)[6:]} {tuple(labels.shape)}.')
    if not 0. <= lam <= 1.:
        raise ValueError(f'lam must lie in [0, 1], got {lam}.')
    check_smoothing(smoothing)
    with torch.autocast(logits.device.type, enabled=False):
        log_p = logits.float().log_softmax(dim=1)
        own, partner = (log_p.gather(1, labels.long().unsqueeze(1)).mean() for labels in (index, index_perm))
        loss = -(lam * own + (1. - lam) * partner)
        if smoothing:
            loss = (1. - smoothing) * loss - smoothing * log_p.mean()
        return loss
