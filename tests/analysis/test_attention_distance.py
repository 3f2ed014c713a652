"""Attention distance: published numbers, attention whose distance is known, and the equation written out."""
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from timm_smalldata.analysis import attention_distance

V = json.loads((Path(__file__).parents[1] / 'vectors' / 'analysis.json').read_text())['attention_distance']


def test_vectors():
    uniform = torch.full((1, 1, 196, 196), 1 / 196)
    torch.testing.assert_close(attention_distance(uniform, 14, 16, 0), torch.tensor([V['uniform_14x14_p16']]))
    assert attention_distance(torch.eye(196)[None, None], 14, 16, 0).item() == V['identity'] == 0
    attn = torch.tensor(V['grid2x2_p16_A'])[None, None]
    torch.testing.assert_close(attention_distance(attn, 2, 16, 0), torch.tensor([V['grid2x2_p16']]))


def reference(attn, rows, columns, patch_size, prefix):
    """The definition, loop by loop, in float64."""
    mean = attn.double().numpy().mean(0)[:, prefix:, prefix:]
    centres = np.array([(patch_size * (r + 0.5), patch_size * (c + 0.5)) for r in range(rows) for c in range(columns)])
    result = []
    for head in mean:
        per_query = []
        for q, row in enumerate(head):
            row = row / row.sum()
            per_query.append(sum(a * np.linalg.norm(centres[q] - centres[k]) for k, a in enumerate(row)))
        result.append(np.mean(per_query))
    return torch.tensor(np.array(result))


@pytest.mark.parametrize('prefix', [0, 1, 2, 5])
def test_oblong_grid_with_prefix_tokens(prefix):
    rows, columns = 3, 4
    generator = torch.Generator().manual_seed(prefix)
    attn = torch.randn(3, 2, prefix + 12, prefix + 12, generator=generator).mul(2).softmax(-1)
    found = attention_distance(attn, (rows, columns), 8, prefix)
    torch.testing.assert_close(found.double(), reference(attn, rows, columns, 8, prefix), rtol=1e-5, atol=0)


def test_the_neighbour_is_one_patch_away():
    attn = torch.zeros(1, 2, 5, 5)
    attn[0, 0, range(1, 5), [2, 1, 4, 3]] = 0.25  # beside it; the rest goes to the prefix token
    attn[0, 1, range(1, 5), [4, 3, 2, 1]] = 0.5  # across
    attn[0, :, :, 0] = 1 - attn[0].sum(-1)
    torch.testing.assert_close(attention_distance(attn, 2, 16, 1), torch.tensor([16.0, 16 * 2 ** 0.5]))


def test_images_are_averaged_before_rows_are_renormalised():
    attn = torch.zeros(2, 1, 3, 3)
    attn[0, 0, 1:, 1:] = 0.9 * torch.eye(2)
    attn[1, 0, 1:, 1:] = 0.1 * torch.eye(2).flip(0)
    # 10 px for 0.1 of 0.9 + 0.1
    torch.testing.assert_close(attention_distance(attn, (1, 2), 10, 1), torch.tensor([1.0]))


def test_tokens_that_do_not_fit():
    with pytest.raises(ValueError, match='1 prefix tokens and 2 x 2 patches'):
        attention_distance(torch.ones(1, 1, 4, 4), 2, 16, 1)
