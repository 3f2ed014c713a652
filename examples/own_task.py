"""A training method of one's own, here R-Drop (arXiv:2106.14448): two passes under dropout are to agree.

    PYTHONPATH=examples train-smalldata --device-modules own_task --task r-drop --drop-path 0.1
    python examples/own_task.py

The first line gives it to the train command: a class with a name registers itself. The second trains it on the embedded
digits with `train_epoch` alone; half a minute on a CPU.
"""
from typing import Any, Dict

import timm
import timm.task
import torch
import torch.nn.functional as F
from timm.optim import create_optimizer_v2

from timm_smalldata.data import ClassInfo, InstanceSampler, ViewSpec, class_counts, create_loader
from timm_smalldata.data.samples import sample_source
from timm_smalldata.data.views import Crop, eval_view
from timm_smalldata.engine.evaluate import evaluate
from timm_smalldata.engine.train import train_epoch
from timm_smalldata.loss import create_loss
from timm_smalldata.task import TaskHooks


class RDropTask(TaskHooks, timm.task.ClassificationTask):
    """Cross-entropy (or another loss) of two passes, plus `alpha` times their symmetric divergence."""
    name = 'r-drop'
    alpha = 1.0

    @classmethod
    def from_settings(cls, args: Any, model: torch.nn.Module, setting: Any) -> 'RDropTask':
        return cls(model, criterion=setting.criterion(), device=setting.device, verbose=False)

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> Dict[str, torch.Tensor]:
        one, two = self.trainable_module(torch.cat([input, input])).chunk(2)  # one call: two draws of the dropout
        loss = (self.criterion(one, target) + self.criterion(two, target)) / 2
        p, q = one.float().log_softmax(1), two.float().log_softmax(1)
        apart = (
            F.kl_div(p, q, reduction='batchmean', log_target=True)
            + F.kl_div(q, p, reduction='batchmean', log_target=True)) / 2
        return dict(loss=loss + self.alpha * apart, divergence=apart, output=one)


def main(epochs: int = 3) -> Dict[str, Any]:
    torch.manual_seed(0)
    train, test = sample_source('digits', 'train'), sample_source('digits', 'test')
    model = timm.create_model('resnet20_cifar', num_classes=len(train.classes), drop_path_rate=0.1)
    classes = ClassInfo(train.classes, class_counts(train).tolist())
    task = RDropTask(model, criterion=create_loss('ce'), verbose=False)
    task.configure(classes=classes, view=ViewSpec(16, Crop('src', hflip=0.0)))
    view = task.views()[0]
    loader = create_loader(train, InstanceSampler(len(train)), task.views(), 32, seed=0, drop_last=True)
    test_loader = create_loader(
        test, InstanceSampler(len(test)), [eval_view(16, 1.0, 'bicubic', view.mean, view.std)], 100)
    optimizer = create_optimizer_v2(task.get_trainable_module(), opt='sgd', lr=0.05, weight_decay=1e-3)
    for epoch in range(epochs):
        means = train_epoch(task, loader, optimizer, epoch=epoch, updates_per_epoch=len(loader), seed=0)
        print(f'epoch {epoch}: ' + ', '.join(f'{name} {value:.3f}' for name, value in means.items()))
    metrics, _ = evaluate(task, test_loader)
    print(f'top-1 {metrics["top1"]:.1f}')
    return metrics


if __name__ == '__main__':
    main()
