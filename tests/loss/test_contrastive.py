import math
from types import SimpleNamespace

import pytest
import torch

from timm_smalldata.loss import contrastive, nt_xent_loss, supervised_contrastive_loss


def make(views=3, b=4, d=5, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(b, d, generator=generator) for _ in range(views)]


def cosines(rows):
    rows = [row.double() / row.double().norm() for row in rows]
    return [[float(a @ b) for b in rows] for a in rows]


def by_the_equation(views, labels, temperature):
    """Equation 2 of SupCon, in loops over plain numbers."""
    sims, y = cosines([row for view in views for row in view]), list(labels) * len(views)
    total, anchors = 0., 0
    for i in range(len(y)):
        positives = [p for p in range(len(y)) if p != i and y[p] == y[i]]
        if not positives:
            continue
        below = sum(math.exp(sims[i][a] / temperature) for a in range(len(y)) if a != i)
        total -= sum(math.log(math.exp(sims[i][p] / temperature) / below) for p in positives) / len(positives)
        anchors += 1
    return total / anchors


def test_nt_xent_is_equation_1_of_simclr():
    first, second = make(2)
    sims, n, t = cosines([*first, *second]), 4, 0.5
    total = 0.
    for i in range(2 * n):
        j = (i + n) % (2 * n)
        total -= math.log(math.exp(sims[i][j] / t) / sum(math.exp(sims[i][k] / t) for k in range(2 * n) if k != i))
    assert nt_xent_loss([first, second], t).item() == pytest.approx(total / (2 * n), rel=1e-6)


@pytest.mark.parametrize('views', [1, 2, 6])
@pytest.mark.parametrize('labels', [[0, 0, 1, 1], [5, 5, 5, 5], [0, 1, 0, 2]])
def test_supervised_loss_is_equation_2_of_supcon(views, labels):
    x = make(views)
    loss = supervised_contrastive_loss(x, torch.tensor(labels), 0.3)  # one view: some rows have no positive
    assert loss.item() == pytest.approx(by_the_equation(x, labels, 0.3), rel=1e-5)


def test_more_views_are_more_positives():
    x = make(6)
    assert nt_xent_loss(x, 0.5).item() == pytest.approx(by_the_equation(x, [0, 1, 2, 3], 0.5), rel=1e-6)


def test_length_of_features_and_order_of_images_do_not_matter():
    x, labels, perm = make(2), torch.tensor([0, 1, 0, 2]), torch.tensor([2, 0, 3, 1])
    loss = supervised_contrastive_loss(x, labels)
    torch.testing.assert_close(supervised_contrastive_loss([7 * v for v in x], labels), loss)
    torch.testing.assert_close(supervised_contrastive_loss([v[perm] for v in x], labels[perm]), loss)
    torch.testing.assert_close(nt_xent_loss([v[perm] for v in x]), nt_xent_loss(x))


def test_nobody_to_compare_with_is_worth_nothing():
    x = torch.randn(1, 5, requires_grad=True)
    loss = supervised_contrastive_loss([x], torch.tensor([0]))
    loss.backward()
    assert loss.item() == 0 and torch.equal(x.grad, torch.zeros(1, 5))


def test_float32_inside():
    x = [v.bfloat16() for v in make(2)]
    with torch.autocast('cpu', torch.bfloat16):
        loss = nt_xent_loss(x, 0.1)
    assert loss.dtype == torch.float32 and loss.ndim == 0
    assert loss == nt_xent_loss([v.float() for v in x], 0.1)


def test_two_ranks_are_one_batch(monkeypatch):
    """The mean of the ranks' losses is that of the whole batch; each holds the gradient of its own anchors."""
    halves, labels = (make(2, seed=1), make(2, seed=2)), (torch.tensor([0, 1, 0, 2]), torch.tensor([2, 2, 1, 3]))

    def on(rank, loss):
        """Let `loss(views, labels)` run as one of two processes; what the other one sends is put in its place."""
        sent = {len(t): t for t in (torch.nn.functional.normalize(torch.cat(halves[1 - rank]), dim=1),)}

        def all_gather(parts, x):
            parts[rank].copy_(x)
            parts[1 - rank].copy_(sent[8] if x.is_floating_point() else other(x))

        def other(x):  # class labels, or the numbers of images in the whole batch
            return torch.arange(4).repeat(2) + 4 * (1 - rank) if unlabelled else labels[1 - rank].repeat(2)

        monkeypatch.setattr(contrastive, 'dist', SimpleNamespace(
            is_available=lambda: True, is_initialized=lambda: True, get_rank=lambda: rank,
            get_world_size=lambda: 2, all_gather=all_gather))
        views = [view.clone().requires_grad_() for view in halves[rank]]
        value = loss(views, labels[rank])
        value.backward()
        monkeypatch.undo()
        return value, torch.cat([view.grad for view in views])

    whole = [torch.cat(pair).requires_grad_() for pair in zip(*halves)]
    for unlabelled, loss in ((True, lambda x, y: nt_xent_loss(x, 0.5)),
                             (False, lambda x, y: supervised_contrastive_loss(x, y, 0.5))):
        (first, gradient), (second, _) = on(0, loss), on(1, loss)
        expected = loss(whole, torch.cat(labels))
        torch.testing.assert_close((first + second) / 2, expected)
        # Independent of the gathering: rank 1's features held still, only rank 0's anchors in the mean.
        views = [view.clone().requires_grad_() for view in halves[0]]
        z = torch.nn.functional.normalize(torch.cat([*views, *halves[1]]), dim=1)
        y = torch.arange(8).reshape(2, 4).repeat(1, 2).flatten() if unlabelled else torch.cat(
            [label.repeat(2) for label in labels])
        total = 0.
        for i in range(8):
            others = [a for a in range(16) if a != i]
            log_p = (z[i] @ z[others].T / 0.5).log_softmax(0)
            total = total - log_p[y[others] == y[i]].mean()
        (total / 8).backward()
        torch.testing.assert_close(gradient, torch.cat([view.grad for view in views]))


@pytest.mark.parametrize('call, words', [
    (lambda x: nt_xent_loss(x[:1]), 'two or more views'),
    (lambda x: nt_xent_loss(x, 0.), 'temperature'),
    (lambda x: nt_xent_loss([x[0], x[1][:2]]), 'alike'),
    (lambda x: supervised_contrastive_loss([], torch.zeros(4)), 'views must be'),
    (lambda x: supervised_contrastive_loss(x, torch.zeros(8)), 'labels must be')])
def test_what_does_not_fit_is_refused(call, words):
    with pytest.raises(ValueError, match=words):
        call(make(2))
