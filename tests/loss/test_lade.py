import json
import math
from pathlib import Path

import pytest
import torch

from timm_smalldata.loss import create_loss

V = json.loads((Path(__file__).parents[1] / 'vectors' / 'longtail_losses.json').read_text())
COUNTS = V['inputs']['cls_num']
X, HARD, SOFT = (torch.tensor(V['inputs'][key]) for key in ('logits', 'hard', 'soft'))


def test_value():
    loss = create_loss('lade', COUNTS, smoothing=0.1)(X, HARD)  # smoothing is ignored
    assert loss.item() == pytest.approx(V['other_losses']['LADE_hard'], rel=1e-6)


@pytest.mark.parametrize('remine_lambda', [0.1, 0.7])
def test_against_the_equation(remine_lambda):
    x = 3 * torch.randn(9, 3, generator=torch.Generator().manual_seed(0))
    y, n = torch.tensor([0, 2, 0, 0, 2, 0, 2, 0, 0]), [50, 7, 3]  # class 1 is not in the batch
    expected = 0.
    for c in range(3):
        pi = n[c] / sum(n)
        own = [x[i, c].item() for i in range(9) if y[i] == c]
        a = sum(own) / (len(own) + 1e-8)
        b = math.log(sum(math.exp(x[i, c].item()) / pi / 3 for i in range(9)) / 9)
        expected -= pi * (a - b - remine_lambda * b * b)
    assert create_loss('lade', n, remine_lambda=remine_lambda)(x, y).item() == pytest.approx(expected, rel=1e-5)


def test_dense_target_is_refused():
    with pytest.raises(ValueError, match='lade takes class indices'):
        create_loss('lade', COUNTS)(X, SOFT)
