import json
from pathlib import Path

import pytest
import torch

from timm_smalldata.loss import create_loss

V = json.loads((Path(__file__).parents[1] / 'vectors' / 'longtail_losses.json').read_text())
COUNTS = V['inputs']['cls_num']
X, HARD, SOFT = (torch.tensor(V['inputs'][key]) for key in ('logits', 'hard', 'soft'))

EXPECTED = V['other_losses']


@pytest.mark.parametrize('shape', ['concave', 'linear', 'convex'])
def test_values(shape):
    criterion = create_loss('label-aware-smoothing', COUNTS, smoothing=0.1, shape=shape)
    assert criterion.eps.tolist() == pytest.approx(EXPECTED[f'MiSLAS_{shape}_smooth'], rel=2e-5, abs=1e-7)
    assert criterion(X, HARD).item() == pytest.approx(EXPECTED[f'MiSLAS_{shape}_hard'], rel=1e-6)
    assert criterion(X, SOFT).item() == pytest.approx(EXPECTED[f'MiSLAS_{shape}_soft'], rel=1e-6)


@pytest.mark.parametrize('shape', ['concave', 'linear', 'convex'])
def test_ends(shape):
    eps = create_loss('label-aware-smoothing', [3, 90, 20], shape=shape, smooth_head=0.4, smooth_tail=0.1).eps
    assert eps[:2].tolist() == pytest.approx([0.1, 0.4])
    assert 0.1 < eps[2] < 0.4
    equal = create_loss('label-aware-smoothing', [5, 5], shape=shape, smooth_head=0.4, smooth_tail=0.1).eps
    assert equal.tolist() == pytest.approx([0.1, 0.1])


def test_unknown_shape():
    with pytest.raises(ValueError, match="Unknown shape 'cubic'"):
        create_loss('label-aware-smoothing', COUNTS, shape='cubic')
