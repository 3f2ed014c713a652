import json
from pathlib import Path

import pytest
import torch

from timm_smalldata.loss import create_loss

V = json.loads((Path(__file__).parents[1] / 'vectors' / 'longtail_losses.json').read_text())
COUNTS = V['inputs']['cls_num']
X, HARD, SOFT = (torch.tensor(V['inputs'][key]) for key in ('logits', 'hard', 'soft'))


@pytest.mark.parametrize('tau, target, key', [
    (0., SOFT, 'CE_soft'),
    (0.5, SOFT, 'BalCE_tau0.5_soft'),
    (0.5, HARD, 'BalCE_tau0.5_hard_as_onehot'),
    (1., SOFT, 'BalCE_tau1.0_soft'),
    (1., HARD, 'BalCE_tau1.0_hard_as_onehot'),
])
def test_logit_adjusted(tau, target, key):
    loss = create_loss('logit-adjusted', COUNTS, tau=tau)(X, target)
    assert loss.item() == pytest.approx(V['balanced_softmax_logit_adjust'][key], rel=1e-6)


@pytest.mark.parametrize('target, key', [(HARD, 'balanced_softmax_hard(log n_c)'), (SOFT, 'BalCE_tau1.0_soft')])
def test_balanced_softmax(target, key):
    loss = create_loss('balanced-softmax', COUNTS)(X, target)
    assert loss.item() == pytest.approx(V['balanced_softmax_logit_adjust'][key], rel=1e-6)


def test_balanced_softmax_has_no_strength():
    with pytest.raises(TypeError, match='tau'):
        create_loss('balanced-softmax', COUNTS, tau=0.5)
