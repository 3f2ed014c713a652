"""Capturing: the model's outputs stay as they are, to the bit, and what is seen is what the model used."""
import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

from timm_smalldata.analysis import capture, patch_grid

SMALL = dict(img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=2, num_classes=3)
MODELS = {  # name: timm model, arguments, prefix tokens
    'class token': ('vit_tiny_patch16_224', SMALL, 1),
    'distilled': ('deit_tiny_distilled_patch16_224', SMALL, 2),
    'no class token': ('vit_tiny_patch16_224', dict(SMALL, class_token=False, global_pool='avg'), 0),
    'registers': ('vit_tiny_patch16_224', dict(SMALL, reg_tokens=3, qk_norm=True), 4),
    'rotary positions': ('eva02_tiny_patch14_224', dict(SMALL, num_heads=3), 1),
    'relative positions': ('beit_base_patch16_224', SMALL, 1),
}
IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def make(name, fused):
    torch.manual_seed(1)
    arch, arguments, _ = MODELS[name]
    model = timm.create_model(arch, **arguments).eval()
    for parameter in model.parameters():  # untrained blocks attend alike everywhere; these do not
        if parameter.ndim == 2:
            nn.init.normal_(parameter, std=0.3)
    for module in model.modules():
        if hasattr(module, 'fused_attn'):
            module.fused_attn = fused
    return model


@pytest.mark.parametrize('name', MODELS)
def test_outputs_stay_and_attention_is_seen(name):
    seen = {}
    for fused in (True, False):
        model = make(name, fused)
        with torch.no_grad():
            plain = model(IMAGES)
            with capture(model) as captured:
                watched = model(IMAGES)
            assert torch.equal(watched, plain) and torch.equal(model(IMAGES), plain)
        seen[fused] = captured
        tokens = MODELS[name][2] + 16
        assert [a.shape for a in captured.attention] == 2 * [(2, model.blocks[0].attn.num_heads, tokens, tokens)]
        assert [t.shape for t in captured.tokens] == 2 * [(2, tokens, 24)]
        assert not any(block._forward_hooks or block._forward_pre_hooks for block in model.blocks)
        assert patch_grid(model, (32, 32)) == (4, 4) and model.num_prefix_tokens == MODELS[name][2]
    for fused, unfused in zip(seen[True].attention, seen[False].attention):
        torch.testing.assert_close(fused.sum(-1), torch.ones(fused.shape[:-1]))
        assert fused.std() > 0.01  # otherwise equality would say little
        torch.testing.assert_close(fused, unfused, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('fused', [True, False])
def test_attention_and_tokens_of_a_vit_by_hand(fused):
    model = make('class token', fused)
    with torch.no_grad(), capture(model) as seen:
        model(IMAGES)
    with torch.no_grad():
        x = model._pos_embed(model.patch_embed(IMAGES))
        for block, attention, tokens in zip(model.blocks, seen.attention, seen.tokens):
            y = F.layer_norm(x, (24,), block.norm1.weight, block.norm1.bias, 1e-6)
            q, k = (y @ block.attn.qkv.weight.T + block.attn.qkv.bias)[..., :48].view(2, 17, 2, 2, 12).unbind(2)
            scores = torch.einsum('bqhd,bkhd->bhqk', q, k) / 12 ** 0.5
            expected = scores.exp() / scores.exp().sum(-1, keepdim=True)
            torch.testing.assert_close(attention, expected, rtol=1e-4, atol=1e-5)
            x = block(x)
            assert torch.equal(tokens, x)


class Calls(nn.Module):
    """A model of one block that calls the fused function in one way; the values are the unit matrix."""

    def __init__(self, **kwargs):
        super().__init__()
        self.kwargs = kwargs
        self.blocks = nn.ModuleList([nn.Identity()])
        self.blocks[0].forward = self.attend

    def attend(self, x):
        query, key = x.unbind(0)
        if self.kwargs.get('enable_gqa'):
            key = key[:, :2]
        value = torch.eye(x.shape[-2]).expand(*key.shape[:2], -1, -1)
        return F.scaled_dot_product_attention(query, key, value, **self.kwargs)

    def forward(self, x):
        return self.blocks[0](x)


@pytest.mark.parametrize('kwargs', [
    {}, dict(scale=0.7), dict(is_causal=True), dict(attn_mask=torch.randn(5, 5)),
    dict(attn_mask=torch.eye(5, dtype=torch.bool) | (torch.randn(5, 5) > 0)), dict(enable_gqa=True),
], ids=['plain', 'scale', 'causal', 'bias', 'mask', 'groups of queries'])
def test_every_way_of_calling_the_fused_function(kwargs):
    """With the unit matrix as values, the output of the fused function is its attention."""
    model, x = Calls(**kwargs), torch.randn(2, 3, 4, 5, 6, generator=torch.Generator().manual_seed(0))
    with capture(model, tokens=None) as seen:
        output = model(x)
    torch.testing.assert_close(seen.attention[0], output)


def test_no_random_number_is_drawn_in_training():
    model = make('class token', True).train()
    model.blocks[0].attn.attn_drop.p = 0.5
    outputs = []
    for watch in (False, True):
        torch.manual_seed(3)
        if watch:
            with capture(model) as seen:
                outputs.append(model(IMAGES))
        else:
            outputs.append(model(IMAGES))
    assert torch.equal(*outputs) and outputs[1].requires_grad
    assert not seen.attention[0].requires_grad and not seen.tokens[0].requires_grad
    torch.testing.assert_close(seen.attention[0].sum(-1), torch.ones(2, 2, 17))  # before dropout


def test_what_is_kept():
    model = make('class token', True)
    with torch.no_grad(), capture(model, attention=lambda a: a.mean(0), tokens=lambda t: t[:, 0]) as seen:
        model(IMAGES[:1])
        model(IMAGES)
    assert seen.attention[0].shape == (2, 17, 17) and seen.tokens[1].shape == (2, 24)
    with torch.no_grad(), capture(model, attention=None, tokens=None) as seen:
        model(IMAGES)
    with pytest.raises(ValueError, match='No attention'):
        _ = seen.attention
    with pytest.raises(ValueError, match='Not every block'):
        _ = seen.tokens


def test_parallel_attentions_are_heads():
    model = timm.create_model('vit_small_patch16_18x2_224', **SMALL).eval()
    with torch.no_grad(), capture(model, tokens=None) as seen:
        model(IMAGES)
    assert [a.shape for a in seen.attention] == 2 * [(2, 4, 17, 17)]


def test_an_error_in_the_model_leaves_nothing_behind():
    model = make('class token', True)
    broken = model.blocks[1].mlp.register_forward_pre_hook(lambda module, args: 1 / 0)
    looked: list = []
    with pytest.raises(ZeroDivisionError), capture(model, attention=lambda a: looked.append(a) or a):
        model(IMAGES)
    broken.remove()
    assert not any(block._forward_hooks or block._forward_pre_hooks for block in model.blocks)
    assert len(looked) == 2
    F.softmax(torch.zeros(1, 1, 3, 3), -1)
    assert len(looked) == 2


@pytest.mark.parametrize('name', ['test_resnet', 'test_efficientnet', 'test_convnext'])
def test_models_without_attention(name):
    model = timm.create_model(name)
    with pytest.raises(ValueError, match='no attention between patches: take a vision transformer'):
        patch_grid(model, (32, 32))
