"""The PaCo loss against the number of the published code, and against the equation written out entry by entry."""
import json
import math
from pathlib import Path

import pytest
import torch

from timm_smalldata.loss import ParametricContrastiveLoss

VECTORS = json.loads((Path(__file__).parents[1] / 'vectors' / 'distillation.json').read_text())


def case(n=3, d=4, c=5, queue=6, seed=0):
    g = torch.Generator().manual_seed(seed)
    q, k, f = (torch.nn.functional.normalize(torch.randn(m, d, generator=g, dtype=torch.float64), dim=1)
               for m in (n, n, queue))
    logits = torch.randn(n, c, generator=g, dtype=torch.float64)
    return q, k, logits, torch.tensor([0, 1, 0]), f, torch.randint(0, 2, (queue,), generator=g)


def by_hand(counts, alpha, beta, gamma, t, q, k, logits, y, f, qy):
    """The definition, one entry at a time."""
    features, labels = [*q, *k, *f], [*y.tolist(), *y.tolist(), *qy.tolist()]
    counts = [max(n, 1) for n in counts]
    losses = []
    for i in range(len(q)):
        classes = [float(logits[i, c]) + math.log(n / sum(counts) + 1e-9) for c, n in enumerate(counts)]
        others = [(float(q[i] @ g) / t, label) for j, (g, label) in enumerate(zip(features, labels)) if j != i]
        log_sum = math.log(sum(map(math.exp, classes)) + gamma * sum(math.exp(s) for s, _ in others))
        terms = [(beta, classes[y[i]])] + [(alpha, s) for s, label in others if label == y[i]]
        losses.append(-sum(w * (s - log_sum) for w, s in terms) / sum(w for w, _ in terms))
    return sum(losses) / len(losses)


def test_published_number():
    v, logits = VECTORS['paco'], torch.tensor(VECTORS['inputs']['logits'])
    features = torch.tensor(v['features(q1,q2,k1,k2,queue1,queue2) unit-norm'])
    labels = torch.tensor(v['labels'])
    loss = ParametricContrastiveLoss(v['cls_num'], alpha=v['alpha'], temperature=v['temperature'])
    value = loss(features[:2], features[2:4], logits, labels[:2], features[4:], labels[4:])
    torch.testing.assert_close(value, torch.tensor(v['loss']), atol=2e-6, rtol=0)


@pytest.mark.parametrize('alpha, beta, gamma, t, queue', [
    (0.05, 1, 1, 0.2, 6), (0.01, 1, 1, 0.05, 0), (0.3, 0.5, 2, 0.5, 1), (0.05, 1, 0, 0.2, 6), (0, 1, 0.5, 1, 3)])
def test_the_equation(alpha, beta, gamma, t, queue):
    counts, values = [9, 3, 1, 0, 2], case(queue=queue)
    loss = ParametricContrastiveLoss(counts, alpha, beta, gamma, t)
    value = loss(*(x.float() if x.is_floating_point() else x for x in values))
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(by_hand(counts, alpha, beta, gamma, t, *values), rel=2e-6)


def test_gradients_are_finite_at_any_scale_and_reach_queries_and_logits():
    q, k, logits, y, f, qy = (x.float() if x.is_floating_point() else x for x in case())
    q.requires_grad_(), logits.requires_grad_()
    loss = ParametricContrastiveLoss([9, 3, 1, 0, 2], temperature=0.001)
    value = loss(q, k, 1000 * logits, y, f, qy)
    value.backward()
    assert value.isfinite() and q.grad.isfinite().all() and logits.grad.isfinite().all() and q.grad.any()


def test_without_contrast_it_is_balanced_softmax():
    from timm_smalldata.loss import BalancedSoftmax
    q, k, logits, y, f, qy = (x.float() if x.is_floating_point() else x for x in case())
    value = ParametricContrastiveLoss([9, 3, 1, 1, 2], alpha=0, gamma=0)(q, k, logits, y, f, qy)
    torch.testing.assert_close(value, BalancedSoftmax([9, 3, 1, 1, 2])(logits, y), atol=1e-5, rtol=0)


def test_what_does_not_fit_is_an_error():
    for kwargs in (dict(temperature=0), dict(alpha=-1), dict(alpha=0, beta=0)):
        with pytest.raises(ValueError, match='must'):
            ParametricContrastiveLoss([1, 2], **kwargs)
    q, k, logits, y, f, qy = case()
    loss = ParametricContrastiveLoss([9, 3, 1, 0, 2])
    for values in ((q, k[:2], logits, y, f, qy), (q, k, logits[:, :3], y, f, qy), (q, k, logits, y, f[:, :2], qy),
                   (q, k, logits, y, f, qy[:2])):
        with pytest.raises(ValueError, match='expected'):
            loss(*values)
