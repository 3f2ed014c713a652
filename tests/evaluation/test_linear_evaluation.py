"""The linear evaluations of papers: rates, steps of SGD and LARS by hand, the choice of a rate."""
import pytest
import torch
import torch.nn.functional as F

from timm_smalldata.evaluation.linear_evaluation import DINO_LINEAR, MAE_LINEAR, LinearEvaluation, LinearProtocol


def test_rates_are_those_of_the_papers_code():
    layer = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(layer.parameters(), 1.0)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 100)  # DINO's: a step after each epoch
    for epoch in range(100):
        assert DINO_LINEAR.factor(epoch + 0.7) == pytest.approx(optimizer.param_groups[0]['lr'], abs=1e-9)
        optimizer.step()
        schedule.step()
    assert [MAE_LINEAR.factor(e) for e in (0, 2.5, 10, 30)] == pytest.approx([0, 0.25, 1, 0.5 * (1 + 0.5 ** 0.5)])
    assert 0.001 in DINO_LINEAR.rates and (DINO_LINEAR.epochs, DINO_LINEAR.batch_size) == (100, 1024)
    assert (MAE_LINEAR.rates, MAE_LINEAR.epochs, MAE_LINEAR.batch_size) == ((0.1,), 90, 16384)
    short = MAE_LINEAR.shortened(18, 256)
    assert (short.warmup_epochs, short.epochs, short.batch_size) == (2, 18, 256)


def data(classes=3, dim=4, images=30):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(images) % classes
    return torch.randn(images, dim, generator=generator) + 3 * F.one_hot(labels, dim), labels


def test_two_steps_of_sgd_by_the_equations():
    features, labels = data()
    evaluation = LinearEvaluation(LinearProtocol((0.01, 0.2), 2, 30, 'sgd'), 4, 3, updates_per_epoch=1)
    start = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)) * 0.01
    for layer in evaluation.layers:
        assert torch.equal(layer.weight, start) and not layer.bias.any()
    for _ in range(2):
        evaluation.update(features, labels)
    for layer, rate in zip(evaluation.layers, (0.01, 0.2)):
        weight, bias, speed = start.double(), torch.zeros(3).double(), 0
        for share in (1, 0.5):  # cosine of two epochs
            wrong = (features.double() @ weight.T + bias).softmax(1) - F.one_hot(labels, 3)
            gradient = torch.cat([wrong.T @ features.double(), wrong.sum(0)[:, None]], 1) / len(labels)
            speed = 0.9 * speed + gradient
            weight, bias = weight - rate * 30 / 256 * share * speed[:, :4], bias - rate * 30 / 256 * share * speed[:, 4]
        assert torch.allclose(layer.weight.double(), weight, atol=1e-6)
        assert torch.allclose(layer.bias.double(), bias, atol=1e-6)


def test_lars_adapts_weights_and_not_biases():
    """Two steps of MAE's optimizer at a rate of 6.4: numbers of its own class."""
    evaluation = LinearEvaluation(LinearProtocol((6.4,), 2, 256, 'lars'), 2, 2, 1)
    layer, optimizer = evaluation.layers[0], evaluation.optimizers[0]
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1., 2.], [3., 4.]]))
        layer.bias.copy_(torch.tensor([0.5, -0.5]))
    for group in optimizer.param_groups:
        group['lr'] = 6.4
    for _ in range(2):
        layer.weight.grad, layer.bias.grad = torch.tensor([[0.1, -0.2], [0.3, 0.4]]), torch.tensor([0.05, 0.1])
        optimizer.step()
    known = [[0.98146999, 2.03706002], [2.94440985, 3.92587996]]
    assert torch.allclose(layer.weight, torch.tensor(known), atol=1e-6)
    assert torch.allclose(layer.bias, torch.tensor([-0.428, -2.35599995]), atol=1e-6)


def test_the_norm_sees_the_batch_of_a_gpu_at_a_time():
    evaluation = LinearEvaluation(MAE_LINEAR, 4, 3, 1)
    assert evaluation._parts(1024) == [512, 512] and evaluation._parts(1100) == [550, 550]
    assert evaluation._parts(20) == [20]
    features, labels = data()
    evaluation.update(features * 100 + 50, labels)
    assert torch.allclose(evaluation.norm.running_mean, 0.1 * (features * 100 + 50).mean(0), rtol=1e-4)
    assert not list(evaluation.norm.parameters())


def test_the_rate_is_chosen_on_images_that_the_choosers_never_saw():
    """Held-out images have wrong labels: what learned from them is right there, the choosers are not."""
    features, labels = data(images=60)
    held = torch.arange(60) % 5 == 4
    labels = torch.where(held, (labels + 1) % 3, labels)
    evaluation = LinearEvaluation(LinearProtocol((1e-6, 0.5, 5.), 40, 60, 'sgd'), 4, 3, 1)
    for _ in range(40):
        evaluation.update(features, labels, held)
    seen = [(layer(features[~held]).argmax(1) == labels[~held]).float().mean() for layer in evaluation.choosers]
    assert seen[1] > 0.9
    rate = evaluation.choose(features[held], (labels[held] - 1) % 3)  # the true ones: a chooser that learned is right
    assert rate in (0.5, 5.) and torch.equal(evaluation(features), evaluation.layers[evaluation.chosen](features))
    assert (evaluation.choosers[1](features[held]).argmax(1) == labels[held]).float().mean() < 0.2
