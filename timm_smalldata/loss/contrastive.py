"""Contrastive losses over several views of each image: NT-Xent (SimCLR) and the supervised contrastive loss."""
from typing import Sequence

import torch
import torch.distributed as dist
import torch.nn.functional as F


def nt_xent_loss(views: Sequence[torch.Tensor], temperature: float = 0.5) -> torch.Tensor:
    """Normalised temperature-scaled cross-entropy (Chen et al., ICML 2020, https://arxiv.org/abs/2002.05709, eq. 1).

    Each view of an image is to be told from all other features of the batch as a view of the same image. With two
    views this is the paper's loss, the mean over all 2B features; with more, the positives of a feature are averaged
    outside the logarithm, as in `supervised_contrastive_loss` with each image as a class of its own.

    Args:
        views: Features of each view, list of (B, D), row i of each from the same image; any length, they are
            L2-normalised here. In several processes all hold equally many, and each is told from those of all ranks.
        temperature: Divides the cosines, greater than 0.

    Returns:
        0-d float32 tensor.

    Raises:
        ValueError: Fewer than two views, shapes that differ, a temperature that is not positive.

    >>> nt_xent_loss([torch.eye(2), torch.eye(2)], temperature=1.0)  # each: log(e + 2) - 1
    tensor(0.5514)
    """
    if len(views) < 2:
        raise ValueError(f'nt_xent_loss needs two or more views of each image, got {len(views)}.')
    own = torch.arange(len(views[0]), device=views[0].device)
    return supervised_contrastive_loss(views, own + len(own) * _rank(), temperature)


def supervised_contrastive_loss(
        views: Sequence[torch.Tensor],
        labels: torch.Tensor,
        temperature: float = 0.1,
) -> torch.Tensor:
    """Supervised contrastive loss, form L_out (Khosla et al., NeurIPS 2020, https://arxiv.org/abs/2004.11362, eq. 2).

    For feature i, with A(i) all other features and P(i) those among them with its label:
    `-1/|P(i)| sum_{p in P(i)} log(exp(z_i.z_p / t) / sum_{a in A(i)} exp(z_i.z_a / t))`, mean over the features
    with a positive (0 if there is none). Computed in float32 with autocast off.

    In several processes A(i) spans the features of all ranks, which are gathered; the gradient flows through a
    process's own features only, also where they stand in a denominator, not through the others' features. Averaged
    by DDP this is the gradient of the mean loss without the part that a feature gets as another rank's contrast.

    Args:
        views: Features of each view, list of (B, D), row i of each from the same image; L2-normalised here. All
            processes hold equally many.
        labels: Class of each image (B,).
        temperature: Divides the cosines, greater than 0.

    Returns:
        0-d float32 tensor.

    Raises:
        ValueError: No view, shapes that differ, a temperature that is not positive.

    >>> z = torch.tensor([[1., 0.], [1., 0.], [0., 1.], [0., 1.]])
    >>> supervised_contrastive_loss([z], torch.tensor([0, 0, 1, 1]), temperature=1.0)
    tensor(0.5514)
    """
    if not views or any(view.shape != views[0].shape or view.ndim != 2 for view in views):
        raise ValueError(f'views must be (B, D) and alike, got {[tuple(view.shape) for view in views]}.')
    if labels.shape != views[0].shape[:1]:
        raise ValueError(f'labels must be (B,) for views {tuple(views[0].shape)}, got {tuple(labels.shape)}.')
    if not temperature > 0:
        raise ValueError(f'temperature must be greater than 0, got {temperature}.')
    with torch.autocast(views[0].device.type, enabled=False):
        z = F.normalize(torch.cat([view.float() for view in views]), dim=1)
        y = labels.repeat(len(views))
        all_z, all_y = gather(z), gather(y)
        columns = torch.arange(len(z), device=z.device) + len(z) * _rank()
        itself = torch.zeros(len(z), len(all_z), dtype=torch.bool, device=z.device)
        itself.scatter_(1, columns.unsqueeze(1), True)
        log_p = (z @ all_z.T / temperature).masked_fill(itself, torch.finfo(torch.float32).min).log_softmax(dim=1)
        positive = (y.unsqueeze(1) == all_y) & ~itself
        count = positive.sum(dim=1)
        loss = -log_p.masked_fill(~positive, 0.).sum(dim=1) / count.clamp(min=1)
        return loss.sum() / (count > 0).sum().clamp(min=1)


def gather(x: torch.Tensor) -> torch.Tensor:
    """Return the rows of all ranks (world_size * M, ...), in order of ranks; this rank's keep their gradient.

    One process, or no gradients wanted (evaluation, where ranks may see different numbers of batches): x itself.
    """
    if not _together():
        return x
    parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
    dist.all_gather(parts, x.detach().contiguous())
    parts[dist.get_rank()] = x
    return torch.cat(parts)


def _together() -> bool:
    return torch.is_grad_enabled() and dist.is_available() and dist.is_initialized()


def _rank() -> int:
    return dist.get_rank() if _together() else 0
