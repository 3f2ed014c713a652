import json
from pathlib import Path

import pytest
import torch

from timm_smalldata.loss import create_loss

V = json.loads((Path(__file__).parents[1] / 'vectors' / 'longtail_losses.json').read_text())
COUNTS = V['inputs']['cls_num']
X, HARD, SOFT = (torch.tensor(V['inputs'][key]) for key in ('logits', 'hard', 'soft'))

EXPECTED = V['balanced_bce']


@pytest.mark.parametrize('target, kw, key', [
    (SOFT, {}, 'BalBCE_soft'),
    (HARD, {}, 'BalBCE_hard_smooth0'),
    (HARD, {'smoothing': 0.1}, 'BalBCE_hard_smooth0.1'),
    (SOFT, {'tau': 1.05}, 'BalBCE_soft_K1.05(tau=1.05 applied)'),
    (SOFT, {'tau': 0.}, 'BCE_soft(C*mean)'),
    (HARD, {'tau': 0., 'smoothing': 0.1}, 'BCE_hard_smooth0.1'),
])
def test_values(target, kw, key):
    assert create_loss('balanced-bce', COUNTS, **kw)(X, target).item() == pytest.approx(EXPECTED[key], rel=1e-6)


def test_gradient():
    x = X.clone().requires_grad_()
    create_loss('balanced-bce', COUNTS)(x, SOFT).backward()
    torch.testing.assert_close(x.grad, torch.tensor(EXPECTED['BalBCE_soft_grad']), rtol=0, atol=1e-6)


def test_bias():
    bias = create_loss('balanced-bce', COUNTS).bias.tolist()
    assert bias == pytest.approx(EXPECTED['bias_log_pi_minus_log1mpi'], rel=1e-6)


def test_a_prior_next_to_one():
    loss = create_loss('balanced-bce', [10 ** 9, 1])
    assert loss.bias.tolist() == pytest.approx([20.723266, -20.723266])  # log 1e9
    assert torch.isfinite(create_loss('balanced-bce', [7])(torch.zeros(1, 1), torch.tensor([0])))


def test_timm_bce_takes_its_own_arguments():
    weighted = create_loss('bce', bce_sum=True, class_weight=EXPECTED['CB_weights'])
    assert weighted(X, SOFT).item() == pytest.approx(EXPECTED['CB_BCE_soft'], rel=1e-6)
    smooth = create_loss('bce', bce_sum=True, smoothing=0.1)
    assert smooth(X, HARD).item() == pytest.approx(EXPECTED['BCE_hard_smooth0.1'], rel=1e-6)
    assert smooth(X, SOFT).item() == pytest.approx(EXPECTED['BCE_soft(C*mean)'], rel=1e-6)
