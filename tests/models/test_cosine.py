"""The cosine head: what it computes, how it becomes a plain head, and ldam through the train command."""
import json
import subprocess
import sys

import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from timm_smalldata.errors import UserError
from timm_smalldata.loss import create_loss
from timm_smalldata.models.cosine import (
    CosineClassifier,
    fold_cosine_head,
    has_cosine_head,
    heads,
    mean_feature_norms,
    set_cosine_head,
)

MODELS = [
    ('test_vit', {}), ('test_resnet', {}), ('test_efficientnet', {}), ('test_convnext', {}),
    ('deit_tiny_distilled_patch16_224', dict(img_size=160, embed_dim=32, num_heads=2, depth=2))]


def test_it_computes_scaled_cosines():
    head = CosineClassifier(5, 3, scale=10)
    torch.testing.assert_close(head.weight.norm(dim=1), torch.ones(3))
    x = torch.randn(4, 5)
    with torch.no_grad():
        head.weight.mul_(7)  # lengths do not matter
    expected = 10 * F.cosine_similarity(x[:, None], head.weight[None], dim=-1)
    torch.testing.assert_close(head(x), expected)
    torch.testing.assert_close(head(100 * x), expected, atol=1e-4, rtol=1e-5)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        out = head(x.bfloat16())
    assert out.dtype == torch.float32


@pytest.mark.parametrize('name, kwargs', MODELS)
def test_folding_keeps_the_ranking(name, kwargs):
    torch.manual_seed(0)
    model = timm.create_model(name, num_classes=6, **kwargs).eval()
    set_cosine_head(model)
    assert has_cosine_head(model)
    images = torch.randn(16, 3, 160, 160)
    with torch.no_grad():
        before = model(images)
    assert before.abs().max() <= 30.001
    norms = mean_feature_norms(model, images.split(5))
    fold_cosine_head(model, norms)
    assert not has_cosine_head(model) and all(type(layer) is torch.nn.Linear for _, layer in heads(model))
    with torch.no_grad():
        after = model(images)
    if len(norms) == 1:
        assert torch.equal(before.argsort(dim=1), after.argsort(dim=1))
        # Each image's logits are those of the cosine head times its own length over the mean length.
        ratio = (after / before).mean(dim=1, keepdim=True)
        torch.testing.assert_close(after, before * ratio, atol=1e-4, rtol=1e-3)
        assert abs(float(ratio.mean()) - 1) < 1e-4
    else:  # two heads, averaged by timm: each keeps its ranking, their sum nearly so
        assert (before.argmax(1) == after.argmax(1)).float().mean() > 0.8
    fresh = timm.create_model(name, num_classes=6, **kwargs)
    assert {k: v.shape for k, v in fresh.state_dict().items()} == {k: v.shape for k, v in model.state_dict().items()}


def test_a_trained_head_keeps_its_directions():
    model = timm.create_model('test_vit', num_classes=4)
    weight = model.head.weight.detach().clone()
    set_cosine_head(model, keep=True)
    torch.testing.assert_close(model.head.weight, F.normalize(weight))


def test_a_head_that_is_no_linear_layer_is_refused():
    model = timm.create_model('test_vit', num_classes=0)
    with pytest.raises(UserError, match='linear classifier'):
        set_cosine_head(model)


def test_ldam_is_handed_cosines(run, divided, monkeypatch):
    from timm_smalldata import build
    made = []
    create = build.create_criterion

    def noted(args, classes):
        made.append((create(args, classes), classes.counts))
        return made[-1][0]

    monkeypatch.setattr(build, 'create_criterion', noted)
    assert run([divided, '--loss', 'ldam', '--head', 'cosine', '--head-scale', '20', '--drw-epoch', '0',
                '--loss-kwargs', 'max_margin=0.3'])[0] == 0
    criterion, counts = made[0]
    cosines, labels = torch.rand(5, 3) * 2 - 1, torch.tensor([0, 1, 2, 0, 0])
    plain = create_loss('ldam', counts, max_margin=0.3, scale=20.0)
    criterion.set_class_weight(None)
    torch.testing.assert_close(criterion(20 * cosines, labels), plain(cosines, labels))
    criterion.set_class_weight([1.0, 2.0, 3.0])
    plain.set_class_weight([1.0, 2.0, 3.0])
    torch.testing.assert_close(criterion(20 * cosines, labels), plain(cosines, labels))


@pytest.mark.parametrize('flags', [
    ['--loss', 'ldam'], ['--loss', 'ldam', '--model-ema', '--model', 'test_resnet'],
    ['--loss', 'balanced-softmax', '--mixup', '0.2'], ['--loss', 'ldam', '--mixup', '0.2', '--amp']])
def test_the_exported_model_is_stock_timms(run, divided, tmp_path, flags):
    code, _, err = run([divided, '--head', 'cosine', '--epochs', '2', *flags])
    assert code == 0 and 'cosine head folded into a plain one' in err
    config = json.loads((tmp_path / 'runs/e/model/config.json').read_text())
    assert any('cosine head folded' in note for note in config['timm_smalldata']['notes'])
    script = (
        "import sys, timm, torch; sys.modules['timm_smalldata'] = None\n"
        "model = timm.create_model('local-dir:runs/e/model', pretrained=True).eval()\n"
        "print(model(torch.zeros(1, 3, 32, 32)).shape[1], type(model.get_classifier()).__name__)")
    done = subprocess.run([sys.executable, '-c', script], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.split() == ['3', 'Linear'], done.stderr


def test_ldam_stops_and_goes(run, divided, tmp_path):
    flags = [divided, '--loss', 'ldam', '--head', 'cosine', '--epochs', '3', '--drw-epoch', '2']
    assert run([*flags, '--experiment', 'whole'])[0] == 0
    assert run([*flags, '--experiment', 'parts', '--stop-epoch', '1'])[0] == 0
    assert run([*flags, '--experiment', 'parts', '--resume', 'auto'])[0] == 0
    whole, parts = (load_file(tmp_path / f'runs/{name}/model/model.safetensors') for name in ('whole', 'parts'))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)


def test_a_folded_model_can_be_trained_further(run, divided):
    assert run([divided, '--head', 'cosine', '--experiment', 'a'])[0] == 0
    assert run([divided, '--head', 'cosine', '--experiment', 'b', '--initial-checkpoint', 'runs/a/model'])[0] == 0
    assert run([divided, '--experiment', 'c', '--initial-checkpoint', 'runs/a/model'])[0] == 0


@pytest.mark.parametrize('flags, words', [
    (['--loss', 'ldam'], ['--loss ldam', 'plain head', '--head cosine']),
    (['--head', 'cosines'], ['--head', 'cosine']),
    (['--head', 'cosine', '--head-scale', '0'], ['--head-scale', 'out of range']),
    (['--head', 'cosine', '--head-init-bias', '-4'], ['--head-init-bias', 'no bias']),
])
def test_bad_input(run, divided, flags, words):
    code, _, err = run([divided, *flags])
    line = err.strip().splitlines()[-1]
    assert code == 2 and line.startswith('error') and all(word in line for word in words), line


@pytest.fixture
def divided(photo_folder):
    photo_folder('data/val')
    return photo_folder('data/train').parent


