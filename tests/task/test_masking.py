import json
from pathlib import Path

import pytest
import torch

from timm_smalldata.task.masking import mask_to_visible, num_visible, random_visible, visible_to_mask

V = json.loads((Path(__file__).parents[1] / 'vectors' / 'mae.json').read_text())


@pytest.mark.parametrize('length, ratio, key', [
    (196, 0.75, '196@0.75'), (256, 0.75, '256@0.75(H14)'), (196, 0.6, '196@0.6'), (196, 0.9, '196@0.9')])
def test_how_many_stay_visible(length, ratio, key):
    assert num_visible(length, ratio) == V['mae_len_keep'][key]


def test_which_stay_visible():
    v = V['mae_random_masking']
    noise = torch.tensor(v['noise'])
    visible = random_visible(noise, v['mask_ratio'])
    tokens = torch.arange(16).view(2, 8)  # x[n, l] = 8n + l
    assert tokens.gather(1, visible).tolist() == v['x_masked']
    assert visible_to_mask(visible, 8).int().tolist() == v['mask_1_is_removed']


def test_a_mask_tells_its_visible_places():
    visible = random_visible(torch.rand(5, 12, generator=torch.Generator().manual_seed(0)), 0.5)
    for mask in (visible_to_mask(visible, 12), visible_to_mask(visible, 12).float()):
        assert torch.equal(mask_to_visible(mask), visible.sort(dim=1).values)


@pytest.mark.parametrize('mask', [
    [[1, 0, 1], [1, 1, 0], [0, 0, 1]], [[1, 1, 1]], [[0, 0, 0]]])
def test_masks_that_cannot_be_used(mask):
    with pytest.raises(ValueError, match='same number'):
        mask_to_visible(torch.tensor(mask))


@pytest.mark.parametrize('length, ratio', [(16, 0.99), (4, 0.8), (4, 0.), (1, 0.5)])
def test_ratios_that_leave_nothing(length, ratio):
    with pytest.raises(ValueError, match='patches visible'):
        num_visible(length, ratio)
