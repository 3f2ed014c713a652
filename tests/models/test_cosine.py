"""The cosine head: what it computes, how it becomes a plain head, and ldam through the train command."""
import json
import subprocess
import sys

import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from timm.models import VOLO, build_model_with_cfg

from timm_smalldata.config.plan import finish_stage, plan
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
    features = model.forward_features(images).detach()
    before_each = outputs_of_heads(model, features)
    with torch.no_grad():
        before = model(images)
    assert before.abs().max() <= 30.001
    norms = mean_feature_norms(model, images.split(5))
    fold_cosine_head(model, norms)
    assert not has_cosine_head(model) and all(type(layer) is torch.nn.Linear for _, layer in heads(model))
    with torch.no_grad():
        after = model(images)
    # Two heads, which timm averages: each keeps its ranking, their mean need not.
    for one, folded in zip(before_each, outputs_of_heads(model, features)):
        assert torch.equal(one.argsort(dim=1), folded.argsort(dim=1))
        # Each image's logits are those of the cosine head times its own length over the mean length.
        ratio = (folded / one).mean(dim=1, keepdim=True)
        torch.testing.assert_close(folded, one * ratio, atol=1e-4, rtol=1e-3)
        assert abs(float(ratio.mean()) - 1) < 1e-4
    torch.testing.assert_close(before.softmax(dim=1), after.softmax(dim=1), atol=0.1, rtol=0)
    fresh = timm.create_model(name, num_classes=6, **kwargs)
    assert {k: v.shape for k, v in fresh.state_dict().items()} == {k: v.shape for k, v in model.state_dict().items()}


def outputs_of_heads(model, features):
    """What each classifier gives, by timm's own way through the model: the outputs of its layers are caught."""
    caught, handles = [], []
    for _, layer in heads(model):
        handles.append(layer.register_forward_hook(lambda module, args, output: caught.append(output.detach())))
    model.forward_head(features)
    for handle in handles:
        handle.remove()
    return caught


def test_a_second_classifier_that_timm_keeps_to_itself_is_refused():
    def volo(**kwargs):
        return build_model_with_cfg(
            VOLO, 'volo_d1_224', False, num_classes=3, img_size=32, layers=(1, 1, 1, 1), embed_dims=(16, 16, 16, 16),
            num_heads=(1, 1, 1, 1), **kwargs)

    with pytest.raises(UserError, match='aux_head'):
        set_cosine_head(volo())
    model = volo(use_aux_head=False)
    set_cosine_head(model)
    assert has_cosine_head(model)


def test_a_head_that_is_no_linear_layer_is_refused():
    model = timm.create_model('test_vit', num_classes=0)
    with pytest.raises(UserError, match='linear classifier'):
        set_cosine_head(model)


def test_ldam_is_handed_cosines(run, divided, monkeypatch):
    from timm_smalldata.build import task
    made = []
    create = task.create_criterion

    def noted(args, classes):
        made.append((create(args, classes), classes.counts))
        return made[-1][0]

    monkeypatch.setattr(task, 'create_criterion', noted)
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


@pytest.mark.parametrize('name', ['test_vit', 'resnet20_cifar'])
def test_a_run_can_be_trained_further_from_its_model_or_its_checkpoint(run, divided, tmp_path, name):
    from timm_smalldata.build.model import create_model
    assert run([divided, '--head', 'cosine', '--model', name])[0] == 0
    classes, stem = ['ant', 'bee', 'cat'], {'test_vit': 'head.', 'resnet20_cifar': 'fc.'}[name]
    trained = load_file(tmp_path / 'runs/e/model/model.safetensors')
    for start in ('runs/e/model', 'runs/e/model_best.pth.tar'):
        for head, names in (('cosine', classes), ('cosine', classes[::-1]), ('linear', classes)):
            model = create_model(settings('--model', name, '--head', head, '--initial-checkpoint', start), names)
            weights = model.state_dict()
            assert all(torch.equal(weights[key], trained[key]) for key in trained if not key.startswith(stem))
            begins = torch.allclose(
                F.normalize(weights[f'{stem}weight']), F.normalize(trained[f'{stem}weight']), atol=1e-6)
            plain = name == 'test_vit' and start == 'runs/e/model'  # folded: a plain head goes on as it is
            assert begins == (names == classes and (head == 'cosine' or plain))
            assert isinstance(heads(model)[0][1], CosineClassifier) == (head == 'cosine')


def test_a_cosine_head_begins_with_the_directions_of_a_plain_one(run, divided):
    from timm_smalldata.build.model import create_model
    assert run([divided])[0] == 0
    trained = load_file('runs/e/model/model.safetensors')['head.weight']
    args = settings('--model', 'test_vit', '--head', 'cosine', '--initial-checkpoint', 'runs/e/model')
    torch.testing.assert_close(create_model(args, ['ant', 'bee', 'cat']).head.weight, F.normalize(trained))
    args.reset_head = True
    assert not torch.allclose(create_model(args, ['ant', 'bee', 'cat']).head.weight, F.normalize(trained))


def settings(*argv):
    stage = plan(['photos', '--img-size', '32', *argv])[0]
    finish_stage(stage)
    return stage.settings.namespace()


@pytest.mark.parametrize('flags, words', [
    (['--loss', 'ldam'], ['--loss ldam', 'plain head', '--head cosine']),
    (['--head', 'cosines'], ['--head', 'cosine']),
    (['--head', 'cosine', '--head-scale', '0'], ['--head-scale', 'out of range']),
    (['--head', 'cosine', '--head-init-bias', '-4'], ['--head-init-bias', 'no bias']),
    (['--head', 'cosine', '--head-init-scale', '0.1'], ['--head-init-scale', '--head cosine']),
    (['--head-scale', '20'], ['--head-scale 20', '--head cosine']),
    (['--head', 'cosine', '--loss', 'ldam', '--loss-kwargs', 'max_margin=-1'], ['--loss ldam', 'max_margin', '-1']),
    (['--head', 'cosine', '--model', 'resnet20_cifar', '--tau-norm', '1'], ['--tau-norm', 'resnet20_cifar']),
])
def test_bad_input(run, divided, flags, words):
    code, _, err = run([divided, *flags])
    line = err.strip().splitlines()[-1]
    assert code == 2 and line.startswith('error') and all(word in line for word in words), line


def test_a_scale_from_a_file_gives_way_to_a_plain_head(tmp_path):
    (tmp_path / 'c.yaml').write_text('head: cosine\nhead-scale: 20.0\n')
    assert settings('-c', f'{tmp_path}/c.yaml').head_scale == 20
    assert settings('-c', f'{tmp_path}/c.yaml', '--head', 'linear').head_scale == 30


@pytest.fixture
def divided(photo_folder):
    photo_folder('data/val')
    return photo_folder('data/train').parent
