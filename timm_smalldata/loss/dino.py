"""DINO: a student predicts, from other crops of the image, what its teacher says (self-distillation without labels)."""
import math
from typing import Dict, Sequence

import torch
import torch.distributed as dist
from torch import nn


class DINOLoss(nn.Module):
    """Cross-entropy between a sharpened, centred teacher and a student (Caron et al., ICCV 2021).

    https://arxiv.org/abs/2104.14294, eq. 1 to 4 and algorithm 1. For teacher view i and student view j, j != i:
    `-sum_k softmax((t_i - center) / teacher_temp)_k * log_softmax(s_j / student_temp)_k`, mean over the batch, then
    over all pairs (i, j). After that the centre moves: `m * center + (1 - m) * mean over all teacher rows` (of all
    ranks). Computed in float32; the teacher gets no gradient.

    Centring alone would end in the uniform distribution, sharpening alone in one dimension that always wins; each
    holds off the other's collapse. `center_momentum=1` leaves the centre at 0: no centring. A teacher as warm as the
    student is not sharpened.

    Args:
        out_dim: Width K of the outputs.
        student_temp: Temperature of the student.
        teacher_temp: Temperature of the teacher; an attribute that a schedule may set.
        center_momentum: Share m of the centre that stays.

    Raises:
        ValueError: A temperature that is not positive, a momentum outside 0 to 1.

    >>> loss = DINOLoss(4)
    >>> loss([torch.zeros(2, 4)] * 3, [torch.zeros(2, 4)] * 2)  # log 4
    tensor(1.3863)
    """

    def __init__(
            self,
            out_dim: int,
            student_temp: float = 0.1,
            teacher_temp: float = 0.04,
            center_momentum: float = 0.9,
    ):
        super().__init__()
        if not (student_temp > 0 and teacher_temp > 0):
            raise ValueError(f'Temperatures must be greater than 0, got {student_temp} and {teacher_temp}.')
        if not 0 <= center_momentum <= 1:
            raise ValueError(f'center_momentum must lie between 0 and 1, got {center_momentum}.')
        self.student_temp, self.teacher_temp, self.center_momentum = student_temp, teacher_temp, center_momentum
        self.center: torch.Tensor
        self.register_buffer('center', torch.zeros(1, out_dim))

    def forward(
            self,
            student_views: Sequence[torch.Tensor],
            teacher_views: Sequence[torch.Tensor],
            move_center: bool = True,
    ) -> torch.Tensor:
        """Return the loss, then move the centre.

        Args:
            student_views: Outputs for each crop, list of (B, K); the first are those of the teacher's crops.
            teacher_views: Outputs for each of its crops, list of (B, K).
            move_center: Otherwise the centre waits for `move_center`.

        Returns:
            0-d float32 tensor.

        Raises:
            ValueError: Shapes that differ, or no pair of different crops.
        """
        shape = (len(student_views[0]) if student_views else 0, self.center.shape[1])
        for view in (*student_views, *teacher_views):
            if view.shape != shape:
                raise ValueError(f'Every view must be (B, K) = {shape}, got {tuple(view.shape)}.')
        if not teacher_views or not len(student_views) >= max(len(teacher_views), 2):
            raise ValueError(
                f'{len(student_views)} student and {len(teacher_views)} teacher views: the student sees every crop of '
                'the teacher, and at least two crops.')
        with torch.autocast(student_views[0].device.type, enabled=False):
            predicted = [(view.float() / self.student_temp).log_softmax(dim=-1) for view in student_views]
            losses = [
                -(p * log_q).sum(dim=-1).mean()
                for i, p in enumerate(self.targets(teacher_views)) for j, log_q in enumerate(predicted) if i != j]
            if move_center:
                self.move_center(teacher_views)
            return torch.stack(losses).mean()

    @torch.no_grad()
    def targets(self, teacher_views: Sequence[torch.Tensor]) -> Sequence[torch.Tensor]:
        """Return the teacher's distributions, list of (B, K) float32, at the centre as it is now."""
        return [((view.float() - self.center) / self.teacher_temp).softmax(dim=-1) for view in teacher_views]

    @torch.no_grad()
    def move_center(self, teacher_views: Sequence[torch.Tensor]) -> None:
        """Move the centre towards the mean of the teacher's outputs, list of (B, K) or means (1, K), of all ranks."""
        mean = torch.cat([view.detach().float() for view in teacher_views]).mean(dim=0, keepdim=True)
        if dist.is_available() and dist.is_initialized():
            dist.all_reduce(mean)
            mean /= dist.get_world_size()
        self.center.mul_(self.center_momentum).add_(mean, alpha=1 - self.center_momentum)


@torch.no_grad()
def collapse_statistics(targets: Sequence[torch.Tensor]) -> Dict[str, torch.Tensor]:
    """Return what tells a collapse of the teacher apart from a low loss (arXiv:2104.14294, sec. 5.3, fig. 7).

    The loss is the teacher's entropy plus the divergence of the student from it, so loss - `teacher_entropy` is that
    divergence (the loss means every teacher view equally often).

    Args:
        targets: The teacher's distributions, list of (B, K), from `DINOLoss.targets`.

    Returns:
        0-d tensors, in nats. `teacher_entropy`: mean over the samples; log K without sharpening, 0 where each
        sample is certain. `teacher_kl_uniform`: mean divergence of a sample from the uniform distribution,
        log K - `teacher_entropy`; 0 when all is uniform. `teacher_mean_entropy`: entropy of the mean distribution; 0
        when one dimension wins for every sample, equal to `teacher_entropy` when all samples get the same answer.

    >>> {name: round(value.item(), 4) for name, value in collapse_statistics([torch.eye(4)]).items()}
    {'teacher_entropy': 0.0, 'teacher_kl_uniform': 1.3863, 'teacher_mean_entropy': 1.3863}
    """
    p = torch.cat(list(targets))
    entropy = torch.special.entr(p).sum(dim=-1).mean()
    return dict(
        teacher_entropy=entropy,
        teacher_kl_uniform=math.log(p.shape[1]) - entropy,
        teacher_mean_entropy=torch.special.entr(p.mean(dim=0)).sum())
