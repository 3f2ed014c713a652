import json
from pathlib import Path

import pytest
import torch

from timm_smalldata.loss import create_loss

V = json.loads((Path(__file__).parents[1] / 'vectors' / 'longtail_losses.json').read_text())
COUNTS = V['inputs']['cls_num']
X, HARD, SOFT = (torch.tensor(V['inputs'][key]) for key in ('logits', 'hard', 'soft'))

EXPECTED = V['other_losses']


def test_value():
    criterion = create_loss('vector-scaling', COUNTS)
    assert criterion.divisor.tolist() == pytest.approx(EXPECTED['VS_Delta'], rel=1e-6)
    assert criterion(X, HARD).item() == pytest.approx(EXPECTED['VS_gamma0.3_tau1_hard'], rel=1e-6)


def test_without_factor_it_is_logit_adjustment():
    loss = create_loss('vector-scaling', COUNTS, gamma=0., tau=0.5)(X, SOFT)
    assert loss.item() == pytest.approx(V['balanced_softmax_logit_adjust']['BalCE_tau0.5_soft'], rel=1e-6)
