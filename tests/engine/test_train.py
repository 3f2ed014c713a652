"""The step: accumulation, closures, frozen statistics, non-finite losses."""
from contextlib import nullcontext
from functools import partial

import pytest
import torch
from timm.layers import EvoNorm2dB0
from torch import nn

from timm_smalldata.data.loader import create_loader
from timm_smalldata.data.sampler import InstanceSampler, SequentialSampler
from timm_smalldata.data.source import ArraySource
from timm_smalldata.data.views import Augment, Crop, ViewSpec, eval_view
from timm_smalldata.engine.evaluate import evaluate
from timm_smalldata.engine.train import NonFiniteLoss, frozen_statistics, train_epoch
from timm_smalldata.optim import SAM
from timm_smalldata.task import ClassificationTask

HALF = (0.5,) * 3


def make_source(n=24):
    rng = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (n, 12, 12, 3), generator=rng, dtype=torch.uint8).numpy()
    return ArraySource(list(images), [i % 3 for i in range(n)], ['a', 'b', 'c'])


def make_loader(batch, n=24):
    spec = ViewSpec(8, Crop('none', hflip=0.), Augment(), mean=HALF, std=HALF)
    return create_loader(make_source(n), InstanceSampler(n, seed=3), [spec], batch, seed=3, drop_last=True)


def make_task(dropout=0.0):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(dropout), nn.Linear(144, 3))
    return ClassificationTask(model, nn.CrossEntropyLoss(), verbose=False)


def plain_task():
    torch.manual_seed(0)
    return ClassificationTask(nn.Sequential(nn.Flatten(), nn.Linear(192, 3)), nn.CrossEntropyLoss(), verbose=False)


def train(task, loader, optimizer, accumulation=1, **kw):
    return train_epoch(task, loader, optimizer, epoch=0, updates_per_epoch=len(loader) // accumulation, seed=3,
                       accumulation=accumulation, **kw)


def test_accumulated_micro_batches_are_one_update():
    weights = []
    for batch, accumulation in ((12, 1), (6, 2), (4, 3)):
        task = plain_task()
        train(task, make_loader(batch), torch.optim.SGD(task.parameters(), 0.1), accumulation)
        weights.append(task.trainable_module[1].weight.detach())
    torch.testing.assert_close(weights[1], weights[0])
    torch.testing.assert_close(weights[2], weights[0])


class TwoPasses(torch.optim.SGD):
    """An optimizer that asks for the loss twice, as SAM does, and perturbs nothing in between."""
    needs_closure = True

    def step(self, closure=None, before_step=None):
        self.zero_grad()
        self.losses = [closure()]
        self.zero_grad()
        self.losses.append(closure())
        before_step()
        super().step()


def test_the_second_pass_sees_the_same_draws_and_leaves_statistics_alone():
    once, twice = make_task(0.5), make_task(0.5)
    train(once, make_loader(8), torch.optim.SGD(once.parameters(), 0.1))
    optimizer = TwoPasses(twice.parameters(), 0.1)
    train(twice, make_loader(8), optimizer)
    assert torch.equal(*optimizer.losses)
    for (name, a), b in zip(once.state_dict().items(), twice.state_dict().values()):
        assert torch.equal(a, b), name


def reference_epoch(model, loader, rho, lr, clip=None):
    """SAM written out: gradients at w, at w + rho g / |g|, a plain step from w; batch norm only sees w."""
    parameters = list(model.parameters())
    for batch in loader:
        before = {name: buffer.clone() for name, buffer in model.named_buffers()}
        g = torch.autograd.grad(nn.functional.cross_entropy(model(batch.views[0]), batch.target), parameters)
        moved = {name: buffer.clone() for name, buffer in model.named_buffers()}
        norm = torch.cat([x.flatten() for x in g]).norm()
        kept = [p.detach().clone() for p in parameters]
        with torch.no_grad():
            for p, x in zip(parameters, g):
                p += rho * x / norm
        g = torch.autograd.grad(nn.functional.cross_entropy(model(batch.views[0]), batch.target), parameters)
        norm = torch.cat([x.flatten() for x in g]).norm()
        factor = min(1.0, clip / norm.item()) if clip else 1.0
        with torch.no_grad():
            for p, w, x in zip(parameters, kept, g):
                p.copy_(w - lr * factor * x)
        assert any(not torch.equal(before[name], moved[name]) for name in before)
        for name, buffer in model.named_buffers():
            buffer.copy_(moved[name])


@pytest.mark.parametrize('clip', [None, 0.05])
def test_sam_is_what_its_equation_says(clip):
    """Weights, batch norm that moves on the first pass only, clipping of the second gradient."""
    task, model = make_task(), make_task().trainable_module
    task.configure(clip_grad=clip)
    train(task, make_loader(8), SAM(task.parameters(), torch.optim.SGD, rho=0.3, lr=0.1))
    reference_epoch(model, make_loader(8), 0.3, 0.1, clip)
    for (name, a), b in zip(model.state_dict().items(), task.trainable_module.state_dict().values()):
        torch.testing.assert_close(a, b, msg=name)


def test_accumulated_micro_batches_are_one_update_of_sam():
    weights = []
    for batch, accumulation in ((12, 1), (6, 2), (4, 3)):
        task = plain_task()
        train(task, make_loader(batch), SAM(task.parameters(), torch.optim.SGD, rho=0.5, lr=0.1), accumulation)
        weights.append(task.trainable_module[1].weight.detach())
    task = plain_task()
    train(task, make_loader(12), torch.optim.SGD(task.parameters(), 0.1))
    assert not torch.allclose(weights[0], task.trainable_module[1].weight, atol=1e-4)  # it does something
    torch.testing.assert_close(weights[1], weights[0])
    torch.testing.assert_close(weights[2], weights[0])


def test_sam_in_bfloat16():
    weights = []
    for context in (nullcontext, partial(torch.autocast, 'cpu', torch.bfloat16)):
        task = plain_task()
        start = task.trainable_module[1].weight.detach().clone()
        optimizer = SAM(task.parameters(), torch.optim.SGD, rho=0.5, lr=0.1)
        metrics = train(task, make_loader(12), optimizer, autocast=context)
        assert 0 < metrics['loss'] < 10
        weights.append(task.trainable_module[1].weight.detach() - start)
    assert not torch.equal(*weights)
    torch.testing.assert_close(*weights, rtol=0.05, atol=0.01 * weights[0].abs().max().item())


def test_a_scaler_does_not_go_with_two_passes():
    task = plain_task()
    with pytest.raises(ValueError, match='bfloat16'):
        train(task, make_loader(12), SAM(task.parameters(), torch.optim.SGD, lr=0.1),
              scaler=torch.amp.GradScaler('cpu', enabled=False))


@pytest.mark.parametrize('make', [
    nn.BatchNorm2d, partial(nn.BatchNorm2d, momentum=None), partial(nn.InstanceNorm2d, track_running_stats=True),
    EvoNorm2dB0])
def test_frozen_statistics_come_back(make):
    layer = make(2)
    before = {k: v.clone() for k, v in layer.state_dict().items()}
    with frozen_statistics(layer):
        layer(torch.randn(4, 2, 3, 3))
    assert all(torch.equal(before[k], v) for k, v in layer.state_dict().items())
    layer(torch.randn(4, 2, 3, 3))
    assert not torch.equal(before['running_var'], layer.running_var)  # it moves outside


def test_the_epoch_does_not_depend_on_what_ran_before():
    results = []
    for noise in (0, 1000):
        task = make_task(0.5)
        torch.rand(noise)
        train(task, make_loader(8), torch.optim.SGD(task.parameters(), 0.1))
        results.append(task.trainable_module[5].weight.detach())
    assert torch.equal(*results)


def test_a_loss_or_a_weight_that_is_not_finite_stops():
    task = plain_task()
    with pytest.raises(NonFiniteLoss, match='epoch 1'):
        train(task, make_loader(8), torch.optim.SGD(task.parameters(), float('inf')))
    task = plain_task()
    with pytest.raises(NonFiniteLoss):  # only the last step breaks the weights: the losses were all finite
        train(task, make_loader(24), torch.optim.SGD(task.parameters(), float('inf')))


def test_evaluation_draws_nothing_keeps_the_mode_and_sees_every_image():
    task = make_task().train()
    source = make_source(10)
    loader = create_loader(source, SequentialSampler(10), [eval_view(8, 1.0, 'bicubic', HALF, HALF)], 4)
    state = torch.get_rng_state()
    metrics, evaluators = evaluate(task, loader)
    assert torch.equal(state, torch.get_rng_state()) and task.trainable_module.training
    assert int(evaluators['logits'].counts[0]) == 10 and 0 <= metrics['top1'] <= 100
