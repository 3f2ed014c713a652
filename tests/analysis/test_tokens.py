"""Class and distillation token: distances by hand, and heads that give timm's mean."""
import math

import pytest
import timm
import torch

from timm_smalldata.analysis import distilled_logits, is_distilled, token_divergence


def test_divergence_by_hand():
    cls = torch.tensor([[1.0, 0.0], [3.0, 4.0], [0.0, 2.0]])
    dist = torch.tensor([[5.0, 0.0], [4.0, 3.0], [0.0, -1.0]])
    assert token_divergence(cls, dist) == pytest.approx((0 + (1 - 24 / 25) + 2) / 3, abs=1e-6)
    angle = math.radians(60)
    assert token_divergence(torch.tensor([[1.0, 0.0]]), torch.tensor([[math.cos(angle), math.sin(angle)]])) == (
        pytest.approx(0.5, abs=1e-6))
    assert token_divergence(torch.zeros(2, 3), torch.ones(2, 3)) == 1  # eps: no direction is no similarity


@pytest.mark.parametrize('shapes', [((2, 3), (3, 3)), ((3,), (3,)), ((0, 3), (0, 3))])
def test_divergence_refuses(shapes):
    with pytest.raises(ValueError, match='expected the same'):
        token_divergence(*map(torch.zeros, shapes))


def test_the_mean_of_both_heads_is_what_timm_returns():
    torch.manual_seed(0)
    model = timm.create_model(
        'deit_tiny_distilled_patch16_224', img_size=32, embed_dim=24, depth=2, num_heads=2, num_classes=5).eval()
    torch.nn.init.normal_(model.head.weight)
    torch.nn.init.normal_(model.head_dist.weight)
    images = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        cls, dist = distilled_logits(model, images)
        torch.testing.assert_close((cls + dist) / 2, model(images))
    assert is_distilled(model) and not torch.allclose(cls, dist)
    model.reset_classifier(0)
    with pytest.raises(ValueError, match='no distillation token with a head'):
        distilled_logits(model, images)


def test_a_plain_model_is_not_distilled():
    model = timm.create_model('test_vit')
    assert not is_distilled(model)
    with pytest.raises(ValueError, match='VisionTransformer has no distillation token'):
        distilled_logits(model, torch.zeros(1, 3, 160, 160))
