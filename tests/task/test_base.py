"""The hooks: a stock timm task runs in our loop, mixing stays off the batch, views are what the task wants."""
import pytest
import timm.task
import torch
from timm.data import Mixup
from torch import nn

from timm_smalldata.data.classes import ClassInfo
from timm_smalldata.data.loader import Batch
from timm_smalldata.data.views import Augment, Erase, ViewSpec
from timm_smalldata.evaluation import LongTailEvaluator
from timm_smalldata.task import ClassificationTask, TaskHooks, create_task, with_hooks


def make_batch(n=4):
    generator = torch.Generator().manual_seed(0)
    return Batch([torch.randn(n, 3, 8, 8, generator=generator)], torch.arange(n) % 3, torch.arange(n), 0, 0)


def make_task(cls=ClassificationTask):
    return cls(nn.Sequential(nn.Flatten(), nn.Linear(192, 3)), nn.CrossEntropyLoss(), verbose=False)


def test_a_stock_task_gets_the_hooks_and_keeps_its_own_ways():
    task = with_hooks(make_task(timm.task.ClassificationTask))
    assert isinstance(task, TaskHooks) and isinstance(task, timm.task.ClassificationTask)
    assert with_hooks(task) is task
    task.set_epoch(0), task.before_step(0), task.after_backward(0), task.after_step(0)
    batch = make_batch()
    assert task(*task.mix(batch))['loss'].ndim == 0
    assert type(task.create_evaluator()) is timm.task.ClassificationEvaluator
    task.configure(classes=ClassInfo(['a', 'b', 'c'], [3, 2, 1]))
    assert isinstance(task.create_evaluator(), LongTailEvaluator)


def test_mixing_never_touches_the_batch_and_stops_when_told():
    task = make_task().configure(
        mixup=Mixup(mixup_alpha=1., cutmix_alpha=1., label_smoothing=0., num_classes=3), mixup_off_epoch=2)
    batch = make_batch()
    before = batch.views[0].clone()
    task.set_epoch(1)
    input, target = task.mix(batch)
    assert torch.equal(batch.views[0], before) and target.shape == (4, 3) and not torch.equal(input, before)
    task.set_epoch(2)
    input, target = task.mix(batch)
    assert torch.equal(input, before) and torch.equal(target.argmax(1), batch.target)


def test_jsd_sees_a_clean_view_first():
    view = ViewSpec(32, augment=Augment('3a', 0.3), erase=Erase(0.5))
    first, *others = make_task().configure(view=view, aug_splits=3).views()
    assert first.augment == Augment() and first.erase == view.erase and others == [view, view]
    first, *_ = make_task().configure(view=view, aug_splits=3, resplit=True).views()
    assert first.erase == Erase()


def test_clipping_and_averaging_happen_around_the_step():
    task = make_task().configure(clip_grad=1e-3)
    task.setup_ema(decay=0.5)
    task(*task.mix(make_batch()))['loss'].backward()
    task.after_backward(0)
    norm = torch.stack([p.grad.norm() for p in task.trainable_module.parameters()]).norm()
    assert norm <= 1.001e-3
    with torch.no_grad():
        for p in task.trainable_module.parameters():
            p.add_(1.)
    average = next(task.get_trainable_module(ema=True).module.parameters()).clone()
    task.after_step(10)  # timm copies the weights at the very first updates
    moved = next(task.get_trainable_module(ema=True).module.parameters())
    torch.testing.assert_close(moved, average + 0.5)


def test_unknown_names():
    with pytest.raises(ValueError, match='classification'):
        create_task('clasification', nn.Identity())
    with pytest.raises(TypeError, match='no setting'):
        make_task().configure(nothing=1)
    with pytest.raises(ValueError, match='no view'):
        make_task().views()
