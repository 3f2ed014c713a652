"""The linear probe: a minimum found by another way, and sets that are too small for scikit-learn alone."""
import pytest
import torch
import torch.nn.functional as F

from timm_smalldata.evaluation import linear_probe


def clouds(counts, width=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.tensor([c for c, n in enumerate(counts) for _ in range(n)])
    centres = 3 * torch.randn(len(counts), width, generator=generator)
    return centres[labels] + torch.randn(len(labels), width, generator=generator), labels


def reference(train, labels, test, num_classes, C):
    """Minimise `C * sum CE + |W|^2 / 2` over standardised features by Newton-like steps of torch, bias unpenalised."""
    train, test = train.double(), test.double()
    mean, std = train.mean(0), train.std(0, correction=0)
    train, test = (train - mean) / std, (test - mean) / std
    weight = torch.zeros(num_classes, train.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.zeros(num_classes, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=500, tolerance_grad=1e-9, line_search_fn='strong_wolfe')

    def closure():
        optimizer.zero_grad()
        loss = C * F.cross_entropy(train @ weight.T + bias, labels, reduction='sum') + weight.square().sum() / 2
        loss.backward()
        return loss

    optimizer.step(closure)
    return (test @ weight.T + bias).softmax(1).detach().float()


@pytest.mark.parametrize('C', [None, 0.01])
def test_the_minimum_of_the_penalised_loss(C):
    train, labels = clouds([9, 7, 5])
    test, _ = clouds([4, 4, 4], seed=1)
    train, test = train * torch.tensor([1., 100., 1e-3, 1., 1.]), test * torch.tensor([1., 100., 1e-3, 1., 1.])
    scores = linear_probe(train, labels, test, 3, C)
    assert scores.shape == (12, 3) and scores.dtype == torch.float32
    torch.testing.assert_close(scores, reference(train, labels, test, 3, C or 1.), atol=2e-3, rtol=0)


def test_one_image_per_class_and_a_class_without_any():
    train, labels = clouds([1, 0, 1, 1])
    scores = linear_probe(train, labels, train + 0.01, 5)
    assert scores.argmax(1).tolist() == labels.tolist()
    assert not scores[:, [1, 4]].any() and torch.allclose(scores.sum(1), torch.ones(3))


def test_two_classes_and_one():
    train, labels = clouds([3, 0, 3])
    assert linear_probe(train, labels, train, 3).argmax(1).tolist() == labels.tolist()
    scores = linear_probe(train[:3], labels[:3] + 2, train, 4)
    assert torch.equal(scores, torch.tensor([0., 0., 1., 0.]).expand(6, 4))


def test_features_that_do_not_vary_and_nothing_to_judge():
    train, labels = torch.ones(4, 3), torch.tensor([0, 0, 0, 1])
    scores = linear_probe(train, labels, torch.ones(2, 3), 2)
    torch.testing.assert_close(scores, torch.tensor([[0.75, 0.25]]).expand(2, 2), atol=1e-3, rtol=0)
    assert linear_probe(train, labels, torch.ones(0, 3), 2).shape == (0, 2)


@pytest.mark.parametrize('change, words', [
    (dict(train_features=torch.tensor([[float('nan')], [0.]])), 'not finite'), (dict(C=0.), 'C must be positive'),
    (dict(train_labels=torch.tensor([0, 5])), 'got 0..5'), (dict(test_features=torch.zeros(1, 2)), 'test_features')])
def test_what_does_not_fit_is_a_value_error(change, words):
    good = dict(train_features=torch.tensor([[0.], [1.]]), train_labels=torch.tensor([0, 1]),
                test_features=torch.zeros(1, 1), num_classes=2)
    with pytest.raises(ValueError, match=words):
        linear_probe(**{**good, **change})
