"""Supervised classification: timm's task with our hooks."""
from argparse import Namespace

import timm.task
from torch import nn

from .base import TaskHooks, TaskSetting


class ClassificationTask(TaskHooks, timm.task.ClassificationTask):
    """timm's `ClassificationTask` for any criterion(logits (N, C), target (N,) or (N, C)), with mixing on the batch.

    >>> import torch, timm
    >>> model = timm.create_model('test_vit', num_classes=3)
    >>> task = ClassificationTask(model, torch.nn.CrossEntropyLoss(), verbose=False)
    >>> sorted(task(torch.zeros(2, 3, 160, 160), torch.tensor([0, 2])))
    ['loss', 'output']
    """
    name = 'classification'

    @classmethod
    def from_settings(cls, args: Namespace, model: nn.Module, setting: TaskSetting) -> 'ClassificationTask':
        return cls(model, criterion=setting.criterion(), device=setting.device, verbose=False)
