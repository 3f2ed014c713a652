"""DINO's head: published numbers, the formula of the last layer, what is trained."""
import copy
import json
import math
from pathlib import Path

import pytest
import torch

from timm_smalldata.models.projection import ProjectionHead

V = json.loads((Path(__file__).parents[1] / 'vectors' / 'dino.json').read_text())
NAMES = {'last_layer.parametrizations.weight.original0': 'last_layer.weight_g',
         'last_layer.parametrizations.weight.original1': 'last_layer.weight_v'}


def published_head():
    head = ProjectionHead(4, 6, hidden_dim=5, bottleneck_dim=3)
    with torch.no_grad():
        for name, parameter in head.named_parameters():
            name = NAMES.get(name, name)
            if name != 'last_layer.weight_g':
                values = [math.sin(i + len(name)) for i in range(parameter.numel())]
                parameter.copy_(torch.tensor(values).view_as(parameter))
    return head


def test_published_numbers():
    head, vector = published_head(), V['dino_head']
    named = {NAMES.get(name, name): parameter for name, parameter in head.named_parameters()}
    assert {name: list(p.shape) for name, p in named.items()} == vector['named_parameters']
    assert {name: p.requires_grad for name, p in named.items()} == vector['requires_grad']
    torch.testing.assert_close(head(torch.tensor(vector['in'])), torch.tensor(vector['out']), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize('width', [384, 768])
def test_published_sizes(width):
    with torch.device('meta'):
        head = ProjectionHead(width, 65536)
    assert sum(p.numel() for p in head.parameters()) == V[f'dino_head_full_params_in{width}']


def test_outputs_are_cosines_to_the_directions():
    torch.manual_seed(0)
    head, x = ProjectionHead(5, 7, hidden_dim=8, bottleneck_dim=4), torch.randn(3, 5)
    z, v = head.mlp(x), head.last_layer.parametrizations.weight.original1
    expected = (z / z.norm(dim=1, keepdim=True)) @ (v / v.norm(dim=1, keepdim=True)).T
    torch.testing.assert_close(head(x), expected)


def test_first_weights():
    torch.manual_seed(0)
    head = ProjectionHead(192, 64, hidden_dim=512)
    for layer in (head.mlp[0], head.mlp[2], head.mlp[4]):
        assert layer.weight.std().item() == pytest.approx(0.02, rel=0.05) and not layer.bias.any()


def test_forms():
    one = ProjectionHead(5, 7, num_layers=1)
    assert [tuple(p.shape) for p in one.mlp.parameters()] == [(256, 5), (256,)]
    names = [type(layer).__name__ for layer in ProjectionHead(5, 7, hidden_dim=8, use_bn=True).mlp]
    assert names == ['Linear', 'BatchNorm1d', 'GELU', 'Linear', 'BatchNorm1d', 'GELU', 'Linear']
    trained = ProjectionHead(5, 7, norm_last_layer=False)
    assert all(p.requires_grad for p in trained.parameters())


def test_can_be_copied_and_large_features_do_not_overflow_in_low_precision():
    head = published_head()
    x = torch.tensor(V['dino_head']['in'])
    assert torch.equal(copy.deepcopy(head)(x), head(x))
    out = head.half()(x.half() * 1000)
    assert out.dtype == torch.float16 and out.isfinite().all() and out.abs().max() <= 1.01
