import json
import math
from pathlib import Path

import pytest
import torch

from timm_smalldata.models.positions import sincos_positions

V = json.loads((Path(__file__).parents[1] / 'vectors' / 'mae.json').read_text())['mae_sincos']


def test_values():
    table = sincos_positions(V['dim'], (V['grid'], V['grid']), num_prefix_tokens=1)
    torch.testing.assert_close(table, torch.tensor(V['rows']), atol=1e-6, rtol=0)


def test_oblong_grid_against_the_equation():
    dim, rows, columns = 12, 2, 3
    table = sincos_positions(dim, (rows, columns))
    for place in range(rows * columns):
        y, x = divmod(place, columns)
        angles = [10000 ** (-4 * i / dim) for i in range(dim // 4)]
        expected = [f(c * a) for c in (x, y) for f in (math.sin, math.cos) for a in angles]
        assert table[place].tolist() == pytest.approx(expected, abs=1e-6)
