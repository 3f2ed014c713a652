import json
from pathlib import Path

import pytest
import torch
from timm.loss import create_classification_loss

from timm_smalldata.loss import create_loss

V = json.loads((Path(__file__).parents[1] / 'vectors' / 'longtail_losses.json').read_text())
COUNTS = V['inputs']['cls_num']
X, HARD, SOFT = (torch.tensor(V['inputs'][key]) for key in ('logits', 'hard', 'soft'))


@pytest.mark.parametrize('smoothing', [0., 0.1])
def test_equals_timm(smoothing):
    x = torch.randn(16, 7, generator=torch.Generator().manual_seed(0))
    y, rows = torch.arange(16) % 7, torch.rand(16, 7).softmax(1)
    criterion = create_loss('ce', smoothing=smoothing)
    for target, soft in ((y, False), (rows, True)):
        ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
        loss = criterion(ours, target)
        expected = create_classification_loss('ce', smoothing=smoothing, soft_targets=soft)(theirs, target)
        torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)
        torch.testing.assert_close(*torch.autograd.grad(loss, ours), *torch.autograd.grad(expected, theirs))


@pytest.mark.parametrize('smoothing, target, key, value', [
    (0.1, HARD, 'other_losses', 'LS_CE_hard_0.1'),
    (0.1, SOFT, 'balanced_softmax_logit_adjust', 'CE_soft'),
])
def test_values(smoothing, target, key, value):
    assert create_loss('ce', smoothing=smoothing)(X, target).item() == pytest.approx(V[key][value], rel=1e-6)


@pytest.mark.parametrize('smoothing', [0., 0.1])
def test_weighted_mean_equals_torch_for_indices(smoothing):
    weight = torch.tensor([0.5, 1., 2., 4., 8.])
    criterion = create_loss('ce', smoothing=smoothing)
    criterion.set_class_weight(weight)
    rows = (1 - smoothing) * torch.nn.functional.one_hot(HARD, 5) + smoothing / 5
    # torch divides smoothed indices by the weights of the labels alone; ours by those of the smoothed rows.
    expected = -(rows * weight * X.log_softmax(1)).sum() / (rows * weight).sum()
    assert criterion(X, HARD).item() == pytest.approx(expected.item(), rel=1e-6)
    if not smoothing:
        assert criterion(X, HARD).item() == pytest.approx(
            torch.nn.functional.cross_entropy(X, HARD, weight).item(), rel=1e-6)


def test_focal_value():
    loss = create_loss('focal', gamma=1.)(X, HARD)
    assert loss.item() == pytest.approx(V['other_losses']['focal_gamma1_hard'], rel=1e-6)
    assert create_loss('focal', gamma=0.)(X, SOFT).item() == pytest.approx(create_loss('ce')(X, SOFT).item(), rel=1e-6)
    with pytest.raises(ValueError, match='gamma'):
        create_loss('focal', gamma=-1.)


def test_focal_gradient_of_a_certain_answer():
    x = torch.tensor([[120., 0.]], requires_grad=True)  # p = 1 in float32, where (1 - p)^gamma has no gradient
    loss = create_loss('focal', gamma=0.5)(x, torch.tensor([0]))
    loss.backward()
    assert torch.isfinite(x.grad).all() and loss.item() == pytest.approx(0.)
