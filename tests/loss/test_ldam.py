import json
from pathlib import Path

import pytest
import torch

from timm_smalldata.loss import create_loss, effective_number_weights

V = json.loads((Path(__file__).parents[1] / 'vectors' / 'longtail_losses.json').read_text())
COUNTS = V['inputs']['cls_num']
X, HARD, SOFT = (torch.tensor(V['inputs'][key]) for key in ('logits', 'hard', 'soft'))

EXPECTED = V['ldam']
COSINES = torch.tensor(EXPECTED['cos_logits'])


@pytest.mark.parametrize('target, kw, key', [
    (HARD, {}, 'LDAM_hard_m0.5_s30'),
    (HARD, {'scale': 10}, 'LDAM_hard_m0.5_s10'),
    (HARD, {'class_weight': effective_number_weights(COUNTS)}, 'LDAM_DRW_hard_m0.5_s30_weight_beta0.9999'),
    (SOFT, {}, 'LDAM_soft_m0.5_s30'),
])
def test_values(target, kw, key):
    assert create_loss('ldam', COUNTS, **kw)(COSINES, target).item() == pytest.approx(EXPECTED[key], rel=1e-6)


@pytest.mark.parametrize('counts, max_margin, key', [
    (COUNTS, 0.5, 'margins_maxm0.5'),
    (COUNTS, 0.3, 'margins_maxm0.3'),
    ([5000, 2997, 1796, 1077, 645, 387, 232, 139, 83, 50], 0.5, 'margins_cifar10_IF100_maxm0.5'),
])
def test_margins(counts, max_margin, key):
    margin = create_loss('ldam', counts, max_margin=max_margin).margin.tolist()
    assert margin == pytest.approx(EXPECTED[key], rel=1e-6)


@pytest.mark.parametrize('kw', [dict(max_margin=-0.1), dict(max_margin=float('inf')), dict(scale=0)])
def test_values_without_a_meaning_are_refused(kw):
    with pytest.raises(ValueError, match='max_margin'):
        create_loss('ldam', COUNTS, **kw)


def test_confident_logits_keep_their_digits():
    # Right by 30 units of logit, margin 15: the loss is log(1 + e^-15), lost if it were taken from 1 - p.
    loss = create_loss('ldam', [1, 1])(torch.tensor([[1., 0.]]), torch.tensor([0]))
    assert loss.item() == pytest.approx(3.0590227e-07, rel=1e-5)


def test_gradient_against_cross_entropy_on_moved_logits():
    x = COSINES.clone().requires_grad_()
    create_loss('ldam', COUNTS)(x, HARD).backward()
    y = COSINES.double().requires_grad_()
    margin = torch.tensor(EXPECTED['margins_maxm0.5'], dtype=torch.float64)
    moved = y - torch.nn.functional.one_hot(HARD, 5) * margin
    torch.nn.functional.cross_entropy(30 * moved, HARD).backward()
    torch.testing.assert_close(x.grad.double(), y.grad, rtol=1e-5, atol=1e-6)
