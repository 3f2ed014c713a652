"""Evaluation where classes differ in size: recall by class and by group, and calibration, beside top-1 and top-5."""
import math
from collections import OrderedDict
from typing import Dict, Mapping, Optional, Sequence

import numpy as np
import torch
import torch.distributed as dist
import torch.nn as nn
from timm.task import ClassificationEvaluator

from .calibration import bin_edges, calibration_bins, calibration_from_bins
from .shot_groups import GROUPS, Counts, shot_groups

LOSS_SCALE = 2 ** 24  # losses are summed in steps of 6e-8, the precision of float32 near 1
LOSS_LIMIT = 2.0 ** 20  # a larger loss has diverged; below it the sum of half a million losses fits into int64
MAX_CONFUSION_CLASSES = 2000  # 32 MB; the 8142 classes of iNaturalist 2018 would take 530 MB


class LongTailEvaluator(ClassificationEvaluator):
    """Accumulate recall per class, top-k accuracy, loss and calibration, expressed as percentages (the loss is plain).

    All running totals are whole numbers (losses and confidences in fixed point), so the result depends, to the bit,
    neither on the order of the images nor on how they are split into batches and processes. That holds for the loss
    too, if the criterion returns one value per image, as the default does; a criterion that returns the mean of a batch
    is weighted by the size of the batch and depends on what shared it. A loss that is not finite, or over 2**20, makes
    the reported loss NaN. `update` never waits for the device.

    Metrics: `loss`, `top1`, `top5`, `balanced_top1` (mean recall over classes with images), `many`, `medium`, `few`
    (mean recall over the group's classes with images, None where there are none), `worst` (lowest recall),
    `ece` and `mce` (see `calibration_error`; NaN after a prediction that is not finite).

    Args:
        class_counts: Training images per class (C,).
        device: Device of the running totals, normally that of the model output.
        groups: Class indices of `many`, `medium` and `few`; by default `shot_groups(class_counts)`.
        n_bins: Number of calibration bins.
        max_samples: Ignore predictions beyond this many images (distributed sampler padding).
        criterion: Loss to report; defaults to cross-entropy on class indices.

    >>> evaluator = LongTailEvaluator([500, 50, 5])
    >>> evaluator.update(torch.eye(3)[[0, 0, 1, 1]], torch.tensor([0, 0, 1, 2]))
    >>> metrics = evaluator.compute()
    >>> metrics['top1'], metrics['many'], metrics['medium'], metrics['few']
    (75.0, 100.0, 100.0, 0.0)
    """

    default_metric = 'top1'
    metric_names = (  # type: ignore[assignment]
        'loss', 'top1', 'top5', 'balanced_top1', *GROUPS, 'worst', 'ece', 'mce')
    decreasing = frozenset({'loss', 'ece', 'mce'})

    def __init__(
            self,
            class_counts: Counts,
            device=None,
            *,
            groups: Optional[Mapping[str, Sequence[int]]] = None,
            n_bins: int = 15,
            max_samples: Optional[int] = None,
            criterion=None,
    ):
        self.num_classes = len(class_counts)
        self.groups = {k: list(v) for k, v in (shot_groups(class_counts) if groups is None else groups).items()}
        self.edges = bin_edges(n_bins, device=torch.device(device or 'cpu'))
        if criterion is None:
            criterion = nn.CrossEntropyLoss(reduction='none')
        super().__init__(device, max_samples=max_samples, criterion=criterion)

    def reset(self) -> None:
        super().reset()

        def zeros(*shape: int) -> torch.Tensor:
            return torch.zeros(shape, dtype=torch.int64, device=self.device)

        self.loss_sum = zeros(2)  # sum in units of 1 / LOSS_SCALE, and how many were not finite
        self.totals: Dict[str, torch.Tensor] = {
            'counts': self.counts,  # images, top-1 correct, top-5 correct
            'loss': self.loss_sum,
            'hits': zeros(self.num_classes),
            'seen': zeros(self.num_classes),
            'predicted': zeros(self.num_classes),
            'bins': zeros(3, len(self.edges)),
        }
        if self.num_classes <= MAX_CONFUSION_CLASSES:
            self.totals['confusion'] = zeros(self.num_classes, self.num_classes)
        self._reduced: Optional[Dict[str, torch.Tensor]] = None

    def _accumulate_loss(self, loss: torch.Tensor, num_examples: int) -> None:
        finite = loss.abs() <= LOSS_LIMIT  # false for NaN
        fixed = (torch.where(finite, loss, 0) * LOSS_SCALE).round().long()
        weight = 1 if loss.ndim else num_examples
        self.loss_sum += torch.stack([fixed.sum() * weight, (~finite).sum()])
        self.counts[0] += num_examples

    @torch.no_grad()
    def update(self, output: torch.Tensor, target: torch.Tensor) -> None:
        if output.ndim != 2 or output.shape[1] != self.num_classes or target.shape != output.shape[:1]:
            raise ValueError(
                f'LongTailEvaluator expects (N, {self.num_classes}) logits and (N,) class indices, '
                f'not {tuple(output.shape)} and {tuple(target.shape)}.')
        output, target = self._prepare(output, target)
        if not len(output):
            return
        self._reduced = None
        self._accumulate_loss(self.criterion(output, target), len(output))
        predictions = output.topk(min(5, self.num_classes), dim=-1).indices
        correct = predictions.eq(target[:, None])
        first, hit = predictions[:, 0], correct[:, 0].long()
        self.counts[1:] += torch.stack([hit.sum(), correct.any(dim=-1).sum()])
        self.totals['hits'].index_add_(0, target, hit)
        self.totals['seen'].index_add_(0, target, torch.ones_like(target))
        self.totals['predicted'].index_add_(0, first, torch.ones_like(first))
        self.totals['bins'] += calibration_bins(output.softmax(dim=-1).amax(dim=-1), hit, self.edges)
        if 'confusion' in self.totals:
            cell = target * self.num_classes + first
            self.totals['confusion'].view(-1).index_add_(0, cell, torch.ones_like(cell))

    def summary(self) -> OrderedDict[str, Optional[float]]:
        """Return the metrics of this process so far, without collectives."""
        return long_tail_metrics(self.totals, self.groups)

    def compute(self, distributed: bool = False) -> OrderedDict[str, Optional[float]]:
        """Return all metrics; with `distributed`, over all processes, each of which must call it."""
        reduced = {name: total.clone() for name, total in self.totals.items()}
        if distributed:
            for total in reduced.values():
                dist.all_reduce(total)
        self._reduced = {name: total.cpu() for name, total in reduced.items()}
        return long_tail_metrics(self._reduced, self.groups)

    def state(self) -> Dict[str, torch.Tensor]:
        """Return the totals behind the last `compute`, on the CPU; of this process alone if there was none since.

        Returns:
            int64 tensors `counts` (3,): images, top-1 and top-5 correct; `loss` (2,): sum in units of `1 / LOSS_SCALE`
            and values that were not finite; `hits`, `seen` and `predicted` (C,); `bins` as from `calibration_bins`;
            and up to `MAX_CONFUSION_CLASSES` classes `confusion` (C, C), rows the true class, columns the predicted
            one.
        """
        return self._reduced or {name: total.detach().cpu().clone() for name, total in self.totals.items()}


def class_recall(hits: torch.Tensor, seen: torch.Tensor) -> np.ndarray:
    """Return the fraction of right predictions per class as float64 (C,), NaN for a class without images."""
    images = np.asarray(seen.tolist(), dtype=np.float64)
    return np.asarray(hits.tolist()) / np.where(images > 0, images, np.nan)


def long_tail_metrics(
        state: Mapping[str, torch.Tensor],
        groups: Mapping[str, Sequence[int]],
) -> OrderedDict[str, Optional[float]]:
    """Compute the metrics of `LongTailEvaluator` from its totals and the groups to report."""
    count, top1, top5 = state['counts'].tolist()
    loss, broken = state['loss'].tolist()
    bins = state['bins'].cpu()
    recall = class_recall(state['hits'], state['seen'])
    calibration = calibration_from_bins(bins)
    undefined = bool(bins[0, 0])  # the largest of C softmax values is never 0: only NaN falls out of all bins
    count = max(count, 1)
    metrics: OrderedDict[str, Optional[float]] = OrderedDict(
        loss=float('nan') if broken else loss / (LOSS_SCALE * count),
        top1=100 * top1 / count,
        top5=100 * top5 / count,
        balanced_top1=_mean_percent(recall),
    )
    for name in GROUPS:
        metrics[name] = _mean_percent(recall[np.asarray(groups.get(name, ()), dtype=np.int64)])
    metrics['worst'] = None if np.isnan(recall).all() else 100 * float(np.nanmin(recall))
    for name in ('ece', 'mce'):
        metrics[name] = float('nan') if undefined else 100 * calibration[name]
    return metrics


def _mean_percent(recall: np.ndarray) -> Optional[float]:
    present = recall[~np.isnan(recall)]
    return 100 * float(present.mean()) if len(present) else None


def finite(value: Optional[float]) -> Optional[float]:
    """Return a metric as JSON can hold it: None for what is not finite.

    >>> finite(float('nan')), finite(1)
    (None, 1.0)
    """
    return None if value is None or not math.isfinite(value) else float(value)
