"""Maps of the class token: places, masses, overlaps."""
import json
from pathlib import Path

import pytest
import torch

from timm_smalldata.analysis import class_attention, mask_overlap, mass_mask, upsample

V = json.loads((Path(__file__).parents[1] / 'vectors' / 'analysis.json').read_text())['attn_mass_threshold']


def test_vectors():
    assert mass_mask(torch.tensor(V['attn']), V['threshold']).int().flatten().tolist() == V['mask']


@pytest.mark.parametrize('prefix', [1, 2, 5])
def test_attention_planted_on_a_mask(prefix):
    mask = torch.zeros(3, 4, dtype=torch.bool)
    mask[1:, 1:3] = True
    attn = torch.rand(2, 2, prefix + 12, prefix + 12)
    attn[:, :, 0] = torch.cat([torch.full((prefix,), 0.1), mask.flatten() + 0.01])
    attn = attn / attn.sum(-1, keepdim=True)
    maps = class_attention(attn, (3, 4), prefix)
    assert maps.shape == (2, 2, 3, 4)
    torch.testing.assert_close(maps.sum((-2, -1)), 1 - attn[:, :, 0, :prefix].sum(-1))
    found = mass_mask(maps, 0.9)
    assert torch.equal(found, mask.expand(2, 2, 3, 4))
    assert torch.equal(mask_overlap(found, mask), torch.ones(2, 2))
    assert torch.equal(mask_overlap(found, ~mask), torch.zeros(2, 2))
    large = upsample(found, (6, 8))
    assert torch.equal(large[0, 0], mask.float().repeat_interleave(2, 0).repeat_interleave(2, 1))


@pytest.mark.parametrize('mass', [0.05, 0.3, 0.6, 0.95, 1.0])
def test_no_smaller_set_holds_as_much(mass):
    maps = torch.rand(3, 4, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    for values, chosen in zip(maps.flatten(1), mass_mask(maps, mass).flatten(1)):
        largest = values.sort(descending=True).values / values.sum()
        number = int(chosen.sum())
        assert torch.equal(values[chosen].sort().values, values.sort().values[len(values) - number:])
        assert largest[:number].sum() >= mass - 1e-12 and (number == 1 or largest[:number - 1].sum() < mass)


def test_overlap_by_hand():
    one = torch.tensor([[1, 1, 1, 0, 0]])
    two = torch.tensor([[0, 0, 1, 1, 0]])
    assert mask_overlap(one, two).item() == 0.25 == mask_overlap(two, one).item()
    assert mask_overlap(one.bool(), one).item() == 1
    assert mask_overlap(one * 0, one * 0).item() == 1  # neither marks anything: equal


def test_refusals():
    with pytest.raises(ValueError, match='no class token'):
        class_attention(torch.ones(1, 1, 4, 4), 2, 0)
    with pytest.raises(ValueError, match='does not fit'):
        class_attention(torch.ones(1, 1, 4, 4), 2, 1)
    with pytest.raises(ValueError, match='mass'):
        mass_mask(torch.ones(2, 2), 0)


def test_each_object_is_met_by_the_head_that_does_it_best():
    """Against scikit-learn's Jaccard index, head by head; what is void belongs to no object."""
    from sklearn.metrics import jaccard_score

    from timm_smalldata.analysis import object_overlap
    generator = torch.Generator().manual_seed(0)
    marked = torch.rand(3, 9, 11, generator=generator) > 0.6
    objects = torch.tensor([0, 1, 4, 255])[torch.randint(0, 4, (9, 11), generator=generator)]
    found = object_overlap(marked, objects)
    assert list(found) == [1, 4]
    for label, values in found.items():
        known = [jaccard_score((objects == label).flatten(), head.flatten()) for head in marked]
        assert values.tolist() == pytest.approx(known)
    assert object_overlap(marked, torch.zeros(9, 11)) == {}
    with pytest.raises(ValueError, match='for objects of shape'):
        object_overlap(marked, objects[1:])
