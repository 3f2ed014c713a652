"""ViTs with a stem of convolutions: timm's interface, what the tokens are, other image sizes, loading."""
import pytest
import timm
import torch

import timm_smalldata  # noqa: F401  (registration)
from timm_smalldata.models import ConvEmbed, is_ours

NAMES = [*timm.list_models('vit_*_convstem'), 'deit_pico_convstem_distilled']


@pytest.mark.parametrize('name', NAMES)
def test_timms_interface(name):
    model = timm.create_model(name, num_classes=5, img_size=32).eval()
    x = torch.rand(2, 3, 32, 32)
    assert model(x).shape == (2, 5) and model.forward_features(x).shape[2] == model.num_features
    model.reset_classifier(0)
    assert model(x).shape == (2, model.num_features) and is_ours(name)
    from timm.optim import create_optimizer_v2
    assert len(create_optimizer_v2(model, 'adamw', lr=1e-3, layer_decay=0.7).param_groups) > 3


def test_there_are_some():
    assert len(NAMES) >= 4 and not is_ours('vit_tiny_patch16_224') and not is_ours('no_such_model')


def test_the_stem_is_convolution_pooling_norm_relu():
    """An independent reference, from the definition."""
    embed = ConvEmbed(img_size=16, patch_size=4, embed_dim=8, width=4).eval()
    convs = [m for m in embed.proj if isinstance(m, torch.nn.Conv2d)]
    assert [(c.in_channels, c.out_channels, c.bias) for c in convs] == [(3, 4, None), (4, 8, None)]
    norms = [m for m in embed.proj if isinstance(m, torch.nn.BatchNorm2d)]
    x = images = torch.randn(2, 3, 16, 16)
    for conv, norm in zip(convs, norms):
        x = torch.nn.functional.conv2d(x, conv.weight, padding=1)
        x = x.reshape(*x.shape[:2], x.shape[2] // 2, 2, x.shape[3] // 2, 2).amax((3, 5))
        x = torch.relu((x - norm.running_mean[:, None, None]) / (norm.running_var[:, None, None] + norm.eps).sqrt()
                       * norm.weight[:, None, None] + norm.bias[:, None, None])
    assert embed.num_patches == 16
    torch.testing.assert_close(embed(images), x.flatten(2).transpose(1, 2))


def test_a_patch_size_that_convolutions_cannot_make():
    with pytest.raises(ValueError, match='not 6'):
        timm.create_model('vit_nano_convstem', patch_size=6)
    with pytest.raises(ValueError, match='cannot become'):
        timm.create_model('vit_nano_convstem', img_size=32).set_input_size(patch_size=8)


def test_other_sizes_take_the_positions_along(tmp_path):
    model = timm.create_model('vit_pico_convstem', num_classes=3, img_size=64)
    torch.save(model.state_dict(), tmp_path / 'weights.pth')
    larger = timm.create_model('vit_pico_convstem', num_classes=3, img_size=96, pretrained=True,
                               pretrained_cfg_overlay=dict(file=str(tmp_path / 'weights.pth'), num_classes=3))
    assert torch.equal(larger.head.weight, model.head.weight)
    assert torch.equal(larger.patch_embed.proj[0].weight, model.patch_embed.proj[0].weight)
    assert larger.pos_embed.shape[1] == larger.patch_embed.num_patches > model.pos_embed.shape[1]
    flexible = timm.create_model('vit_pico_convstem', num_classes=3, img_size=64, dynamic_img_size=True).eval()
    assert flexible(torch.rand(1, 3, 32, 32)).shape == (1, 3)


def test_without_its_blocks_it_is_the_stem_alone():
    """LayerScale of 0 silences the blocks: the mean of the stem's output, with the positions, is what is classified."""
    model = timm.create_model('vit_pico_convstem', num_classes=4).eval()
    for scale in (model.blocks[0].ls1, model.blocks[0].ls2):
        torch.nn.init.zeros_(scale.gamma)
    x = torch.rand(2, 3, 64, 64)
    tokens = model.patch_embed(x) + model.pos_embed
    torch.testing.assert_close(model(x), model.head(tokens.mean(1)))
