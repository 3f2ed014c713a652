"""Two submodels of one network, drawn by stochastic depth, that learn from the labels and from each other: CoSub."""
from argparse import Namespace
from typing import Any, Dict

import timm.task
import torch
import torch.nn.functional as F
from torch import nn

from ..errors import UserError
from .base import TaskHooks, TaskSetting

SIGMOID = ('bce', 'balanced-bce')  # losses that ask of each class by itself


class CoSubTask(TaskHooks, timm.task.ClassificationTask):
    """Co-training of two submodels (Touvron et al., CVPR 2023, https://arxiv.org/abs/2212.04884).

    Every batch goes twice through the network in one pass, so that stochastic depth (or dropout) draws two submodels.
    Each learns the labels and, as a soft target without gradient, what the other says: half of the loss each. The
    published code has binary cross-entropy, also for what the other says; with a loss on softmax it is cross-entropy.

    Args:
        model: timm model with stochastic depth or dropout.
        criterion: Loss of the labels.
        sigmoid: What the other says are sigmoids, compared by binary cross-entropy (mean over the classes).
        sum_classes: Of sigmoids: the sum over the classes, as some losses of the labels have it.
        device: Where the task lives.
        dtype: As in timm.
        verbose: As in timm.

    Raises:
        ValueError: The model draws nothing, so that both submodels were the same.

    >>> import timm
    >>> task = CoSubTask(timm.create_model('test_vit', num_classes=3, drop_path_rate=0.1), nn.CrossEntropyLoss())
    >>> sorted(task(torch.zeros(2, 3, 160, 160), torch.tensor([0, 2])))
    ['loss', 'loss_labels', 'loss_other', 'output']
    """
    name = 'cosub'

    def __init__(
            self,
            model: nn.Module,
            criterion: nn.Module,
            sigmoid: bool = False,
            sum_classes: bool = False,
            device: Any = None,
            dtype: Any = None,
            verbose: bool = False,
    ):
        if not any(_draws(module) for module in model.modules()):
            raise ValueError(f'{type(model).__name__} has neither stochastic depth nor dropout: its two submodels were '
                             'one and the same')
        super().__init__(model, criterion=criterion, device=device, dtype=dtype, verbose=verbose)
        self.sigmoid, self.sum_classes = sigmoid, sum_classes

    @classmethod
    def from_settings(cls, args: Namespace, model: nn.Module, setting: TaskSetting) -> 'CoSubTask':
        try:
            return cls(
                model, setting.criterion(), args.loss in SIGMOID, args.loss == 'balanced-bce' or args.bce_sum,
                setting.device)
        except ValueError as error:
            raise UserError(f'--task cosub with --model {args.model}: {error}; add --drop-path 0.1.') from error

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> Dict[str, torch.Tensor]:
        """Compute the loss.

        Args:
            input: Images (N, 3, h, w).
            target: Class indices (N,) or dense rows (N, C).

        Returns:
            `loss`, the mean of `loss_labels` and `loss_other`; `output`, the mean of both logits.
        """
        one, two = self.trainable_module(torch.cat([input, input])).chunk(2)
        labels = (self.criterion(one, target) + self.criterion(two, target)) / 2
        other = (self.agreement(one, two) + self.agreement(two, one)) / 2
        return dict(loss=(labels + other) / 2, loss_labels=labels, loss_other=other, output=(one + two) / 2)

    def agreement(self, logits: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        """Return how far logits (N, C) are from the probabilities of the other submodel, which stand still."""
        with torch.autocast(logits.device.type, enabled=False):
            logits, other = logits.float(), other.detach().float()
            if not self.sigmoid:
                return F.cross_entropy(logits, other.softmax(dim=1))
            loss = F.binary_cross_entropy_with_logits(logits, other.sigmoid())
            return loss * logits.shape[1] if self.sum_classes else loss


def _draws(module: nn.Module) -> bool:
    rate = getattr(module, 'drop_prob', None) or (module.p if isinstance(module, nn.modules.dropout._DropoutNd) else 0)
    return bool(rate) or bool(getattr(module, 'drop_rate', 0))
