"""Class tokens of several blocks and patches on their grid, against what leaves the blocks and the norm."""
import pytest
import timm
import torch

from timm_smalldata.analysis import capture
from timm_smalldata.engine.tokens import BlockFeatures, last_tokens


def vit(**kwargs):
    torch.manual_seed(0)
    return timm.create_model('vit_tiny_patch16_224', **{**dict(
        img_size=32, patch_size=8, embed_dim=24, depth=6, num_heads=2, num_classes=0), **kwargs}).eval()


@torch.no_grad()
def test_class_tokens_of_the_last_blocks_after_the_norm():
    model, images = vit(), torch.randn(3, 3, 32, 32)
    with capture(model, attention=None) as seen:
        own = model(images)
    normed = [model.norm(tokens) for tokens in seen.tokens]
    found = BlockFeatures(model)(images)
    assert torch.allclose(found, torch.cat([tokens[:, 0] for tokens in normed[-4:]], 1), atol=1e-5)
    assert torch.allclose(found[:, -24:], own, atol=1e-5)
    mean = torch.cat([normed[-1][:, 0], normed[-1][:, 1:].mean(1)], 1)
    assert torch.allclose(BlockFeatures(model, 1, average=True)(images), mean, atol=1e-5)


def test_how_many_blocks_are_taken():
    assert BlockFeatures(vit()).describe() == 'class tokens of the last 4 blocks'
    assert BlockFeatures(vit(depth=2)).blocks == 2
    assert BlockFeatures(vit(embed_dim=768, depth=1)).describe() == 'class token and mean patch'
    network = timm.create_model('resnet20_cifar', num_classes=0).eval()
    images = torch.randn(2, 3, 32, 32)
    assert torch.equal(BlockFeatures(network)(images), network(images))
    assert BlockFeatures(vit(class_token=False, global_pool='avg')).describe() == 'its own features'


@torch.no_grad()
def test_patches_lie_on_their_grid():
    model, images = vit(reg_tokens=2), torch.randn(2, 3, 32, 32)
    token, patches = last_tokens(model, images)
    everything = model.forward_features(images)
    assert torch.equal(token, everything[:, 0]) and patches.shape == (2, 4, 4, 24)
    assert torch.equal(patches[:, 1, 2], everything[:, 3 + 4 + 2])  # class token and two registers before
    with pytest.raises(ValueError, match='no class token'):
        last_tokens(vit(class_token=False, global_pool='avg'), images)
