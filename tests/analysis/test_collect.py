"""Numbers of a whole model, on models whose answer is known."""
import pytest
import timm
import torch
from torch import nn

from timm_smalldata.analysis import attention_distance, token_divergence
from timm_smalldata.analysis.collect import distance_by_block, expert_predictions, maps_of_last_block, tokens_by_block

SMALL = dict(img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=2, num_classes=3)
IMAGES = torch.randn(5, 3, 32, 32, generator=torch.Generator().manual_seed(0))
TARGETS = torch.tensor([0, 1, 2, 0, 1])
BATCHES = [(IMAGES[:3], TARGETS[:3]), (IMAGES[3:], TARGETS[3:])]  # a ragged last batch
VIT, DISTILLED = 'vit_tiny_patch16_224', 'deit_tiny_distilled_patch16_224'


def make(name, **kwargs):
    torch.manual_seed(1)
    model = timm.create_model(name, **{**SMALL, **kwargs}).eval()
    for parameter in model.parameters():
        if parameter.ndim == 2:
            nn.init.normal_(parameter, std=0.3)
    return model


@pytest.mark.parametrize('name', [VIT, DISTILLED])
def test_without_queries_attention_is_uniform(name):
    model = make(name)
    for block in model.blocks:
        nn.init.zeros_(block.attn.qkv.weight)
    distances, uniform = distance_by_block(model, BATCHES)
    expected = sum(8 * ((a - c) ** 2 + (b - d) ** 2) ** 0.5 for a in range(4) for b in range(4) for c in range(4)
                   for d in range(4)) / 16 ** 2
    assert uniform == pytest.approx(expected, rel=1e-6)
    torch.testing.assert_close(distances, torch.full((2, 2), expected))


def test_distances_do_not_depend_on_the_batches():
    model = make(VIT)
    distances, uniform = distance_by_block(model, BATCHES)
    torch.testing.assert_close(distance_by_block(model, [(IMAGES, TARGETS)])[0], distances)
    qkv = []
    hook = model.blocks[1].attn.qkv.register_forward_hook(lambda module, args, output: qkv.append(output))
    with torch.no_grad():
        model(IMAGES)
    hook.remove()
    q, k = qkv[0].detach().view(5, 17, 3, 2, 12).permute(2, 0, 3, 1, 4)[:2]
    attn = (q @ k.transpose(-2, -1) / 12 ** 0.5).softmax(-1)
    torch.testing.assert_close(distances[1], attention_distance(attn, 4, 8, 1), rtol=1e-4, atol=1e-4)
    assert (distances - uniform).abs().max() > 0.5


def test_tokens():
    model = make(DISTILLED)
    tokens, targets = tokens_by_block(model, BATCHES)
    assert list(tokens) == ['CLS', 'DIST'] and torch.equal(targets, TARGETS)
    with torch.no_grad():
        final = model.forward_features(IMAGES)
    assert tokens['CLS'].shape == (5, 3, 24)
    torch.testing.assert_close(tokens['CLS'][:, -1], final[:, 0])
    torch.testing.assert_close(tokens['DIST'][:, -1], final[:, 1])
    torch.testing.assert_close(model.norm(tokens['CLS'][:, -2]), final[:, 0])  # before the last: the last block
    with torch.no_grad():  # tokens that start alike stay alike
        model.dist_token.copy_(model.cls_token)
        model.pos_embed[:, 1] = model.pos_embed[:, 0]
    alike, _ = tokens_by_block(model, BATCHES)
    assert token_divergence(alike['CLS'][:, -1], alike['DIST'][:, -1]) == pytest.approx(0, abs=1e-5)
    assert token_divergence(tokens['CLS'][:, -1], tokens['DIST'][:, -1]) > 0.01


def test_tokens_of_a_model_without_a_class_token():
    model = make(VIT, class_token=False, global_pool='avg')
    tokens, _ = tokens_by_block(model, BATCHES)
    with torch.no_grad():
        expected = model.forward_features(IMAGES).mean(1)
    assert list(tokens) == ['patch mean']
    torch.testing.assert_close(tokens['patch mean'][:, -1], expected)


def test_maps():
    model = make(VIT)
    images, maps = maps_of_last_block(model, BATCHES)
    assert torch.equal(images, IMAGES) and maps.shape == (5, 2, 4, 4)
    nn.init.zeros_(model.blocks[-1].attn.qkv.weight)
    torch.testing.assert_close(maps_of_last_block(model, BATCHES)[1], torch.full((5, 2, 4, 4), 1 / 17))


def test_experts():
    model = make(DISTILLED)
    nn.init.zeros_(model.head.weight)
    nn.init.zeros_(model.head_dist.weight)
    with torch.no_grad():
        model.head.bias.copy_(torch.tensor([0.0, 2.0, 0.0]))
        model.head_dist.bias.copy_(torch.tensor([0.0, 0.0, 3.0]))
    predicted, targets = expert_predictions(model, BATCHES)
    assert {name: guess.tolist() for name, guess in predicted.items()} == dict(CLS=[1] * 5, DIST=[2] * 5, AVG=[2] * 5)
    assert torch.equal(targets, TARGETS)


@pytest.mark.parametrize('study', [distance_by_block, tokens_by_block, maps_of_last_block, expert_predictions])
def test_no_images(study):
    with pytest.raises(ValueError, match='No images'):
        study(make(DISTILLED), [])


def test_attention_inside_windows_is_refused():
    model = timm.create_model('vit_tiny_patch16_224', **SMALL).eval()
    model.num_prefix_tokens = 3  # as if the tokens were others
    with pytest.raises(ValueError, match='3 prefix tokens'):
        distance_by_block(model, BATCHES)
    with pytest.raises(ValueError, match='3 prefix tokens'):
        tokens_by_block(model, BATCHES)
