"""The encoder sees the visible patches and nothing else, through any plain timm ViT."""
import pytest
import timm
import torch

from timm_smalldata.models.masked_autoencoder import check_encoder, encode_visible, fix_positions, initialise
from timm_smalldata.models.positions import sincos_positions

SMALL = dict(num_classes=0, img_size=32, patch_size=8, depth=2)
TINY = dict(SMALL, embed_dim=24, num_heads=2)
VARIANTS = {
    'class token': ('vit_tiny_patch16_224', TINY),
    'average, norm after pooling': ('vit_tiny_patch16_224', dict(TINY, global_pool='avg')),
    'no class token': ('vit_tiny_patch16_224', dict(TINY, global_pool='avg', class_token=False)),
    'registers and class token': ('vit_tiny_patch16_224', dict(TINY, reg_tokens=2)),
    'registers alone': ('test_vit2', SMALL),
    'dynamic size': ('test_vit', SMALL),
    'positions of patches only': ('deit3_small_patch16_224', TINY),
    'norm before the blocks': ('vit_tiny_patch16_224', dict(TINY, pre_norm=True)),
    'two heads': ('deit_tiny_distilled_patch16_224', TINY),
}


def make(name, kwargs):
    torch.manual_seed(0)
    model = timm.create_model(name, **kwargs).eval()
    torch.nn.init.normal_(model.pos_embed)  # at their usual 0.02 a wrong position would hide in the noise
    return model


@pytest.mark.parametrize('variant', VARIANTS)
def test_visible_tokens_equal_those_of_a_forward_where_the_others_are_not_attended_to(variant):
    model = make(*VARIANTS[variant])
    images = torch.randn(2, 3, 32, 32)
    visible = torch.tensor([[3, 8, 0, 15, 9], [1, 2, 14, 7, 4]])
    prefix = model.num_prefix_tokens
    attended = torch.zeros(2, prefix + 16, dtype=torch.bool)
    attended[:, :prefix] = True
    attended.scatter_(1, visible + prefix, True)
    attn_mask = attended[:, None, None].expand(-1, 1, prefix + 16, -1)
    whole = model.fc_norm(model.forward_features(images, attn_mask=attn_mask))
    places = torch.cat([torch.arange(prefix).expand(2, -1), visible + prefix], dim=1)
    expected = whole.gather(1, places.unsqueeze(-1).expand(-1, -1, whole.shape[-1]))
    torch.testing.assert_close(encode_visible(model, images, visible), expected, atol=2e-5, rtol=1e-4)


def test_masked_pixels_reach_nothing():
    model = make('test_vit', SMALL)
    images, visible = torch.randn(1, 3, 32, 32, requires_grad=True), torch.tensor([[0, 5]])
    encode_visible(model, images, visible).square().sum().backward()
    seen = images.grad.abs().sum(dim=1)[0] > 0
    expected = torch.zeros(32, 32, dtype=torch.bool)
    expected[:8, :8] = expected[8:16, 8:16] = True
    assert torch.equal(seen, expected)


def test_other_sizes_and_checkpointing():
    model = make('test_vit', SMALL)
    images, visible = torch.randn(2, 3, 16, 48), torch.tensor([[11, 2], [0, 7]])
    expected = encode_visible(model, images, visible)
    assert expected.shape == (2, 3, 64)
    model.set_grad_checkpointing()
    assert torch.equal(encode_visible(model, images, visible), expected)


@pytest.mark.parametrize('variant', ['class token', 'registers alone', 'positions of patches only', 'two heads'])
def test_fixed_positions(variant):
    model = make(*VARIANTS[variant])
    fix_positions(model)
    table = sincos_positions(model.embed_dim, (4, 4))
    assert torch.equal(model.pos_embed[0, -16:], table) and not model.pos_embed.requires_grad
    assert torch.count_nonzero(model.pos_embed[0, :-16]) == 0


def test_initialisation():
    model = make('vit_tiny_patch16_224', dict(SMALL, reg_tokens=4))
    positions = model.pos_embed.clone()
    initialise(model)

    def limit(rows, columns):  # Xavier: uniform up to this
        return (6 / (rows + columns)) ** 0.5

    for weight, bound in (
            (model.blocks[0].attn.qkv.weight, limit(3 * 192, 192)), (model.blocks[1].mlp.fc1.weight, limit(768, 192)),
            (model.patch_embed.proj.weight, limit(192, 192))):
        assert 0.98 * bound < weight.abs().max() <= bound
        assert weight.std().item() == pytest.approx(bound / 3 ** 0.5, rel=0.02)
    zero = [torch.count_nonzero(p) == 0 for n, p in model.named_parameters() if n.endswith('bias') and 'patch' not in n]
    assert zero and all(zero)
    assert 0.5 / 16 < model.patch_embed.proj.bias.abs().max() <= 1 / (3 * 64) ** 0.5  # torch's own
    assert 0.015 < model.cls_token.std() < 0.025 and 0.015 < model.reg_token.std() < 0.025
    assert torch.equal(model.pos_embed, positions) and torch.equal(model.norm.weight, torch.ones(192))


@pytest.mark.parametrize('name, kwargs, words', [
    ('test_resnet', {}, 'no plain ViT tokens'),
    ('test_efficientnet', {}, 'no plain ViT tokens'),
    ('eva02_tiny_patch14_224', dict(depth=1), 'no plain ViT tokens'),
    ('vit_tiny_r_s16_p8_224', dict(depth=1), 'no plain ViT tokens'),  # convolutions carry pixels across patches
    ('test_vit', dict(pos_embed='none'), 'no table of positions'),
    ('test_vit3', dict(depth=1), 'pools by attention'),
    ('test_vit', dict(patch_size=(8, 16)), 'square'),
])
def test_models_that_cannot_leave_out_patches(name, kwargs, words):
    with pytest.raises(ValueError, match=words):
        check_encoder(timm.create_model(name, **kwargs))
