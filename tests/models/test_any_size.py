"""Models that take images of any size: as if timm had built them so."""
import pytest
import timm
import torch

from timm_smalldata.models.any_size import take_any_size

SMALL = dict(img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=2, num_classes=0)


@torch.no_grad()
@pytest.mark.parametrize('name', ['vit_tiny_patch16_224', 'deit3_small_patch16_224', 'deit_tiny_distilled_patch16_224'])
def test_the_same_as_a_model_that_was_built_for_it(name):
    model, built = (timm.create_model(name, **SMALL, **kwargs).eval() for kwargs in ({}, dict(dynamic_img_size=True)))
    built.load_state_dict(model.state_dict())
    images = torch.randn(2, 3, 32, 32)
    before = model(images)
    assert take_any_size(model) == (8, 8) == take_any_size(model)
    assert torch.equal(model(images), before)
    for size in ((16, 40), (64, 64)):
        images = torch.randn(2, 3, *size)
        assert torch.equal(model(images), built(images))


def test_networks_and_models_of_one_size():
    assert take_any_size(timm.create_model('resnet20_cifar')) == (1, 1)
    with pytest.raises(ValueError, match='one size only'):
        take_any_size(timm.create_model('swin_tiny_patch4_window7_224', embed_dim=24, depths=(1, 1, 1, 1)))
