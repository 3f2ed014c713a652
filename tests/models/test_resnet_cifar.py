"""CIFAR ResNets: published sizes, timm's model interface, and a cosine head that is exported as it is."""
import os
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F

import timm_smalldata  # noqa: F401  (registration)
from timm_smalldata.models import CosineClassifier

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize('depth, millions', [(20, 0.27), (32, 0.46), (44, 0.66), (56, 0.85)])
def test_published_parameter_counts(depth, millions):
    model = timm.create_model(f'resnet{depth}_cifar', num_classes=10)
    assert round(sum(p.numel() for p in model.parameters()) / 1e6, 2) == millions  # table 6 of the paper
    layers = sum(isinstance(m, (torch.nn.Conv2d, torch.nn.Linear)) for m in model.modules())
    assert layers == depth


def test_the_shortcut_has_no_parameters():
    """Every second pixel, channels padded by zeros: with the branch silenced a block is that alone."""
    block = timm.create_model('resnet20_cifar').layer2[0].eval()
    torch.nn.init.zeros_(block.bn2.weight)
    x = torch.rand(2, 16, 8, 8)
    out = block(x)
    assert torch.equal(out[:, 8:24], x[:, :, ::2, ::2]) and not out[:, :8].any() and not out[:, 24:].any()


def test_timms_interface():
    model = timm.create_model('resnet20_cifar', num_classes=7, drop_rate=0.1).eval()
    x = torch.rand(2, 3, 32, 32)
    features = model.forward_features(x)
    assert features.shape == (2, 64, 8, 8) and model.forward_head(features, pre_logits=True).shape == (2, 64)
    assert torch.equal(model(x), model.forward_head(features)) and model.num_features == 64
    model.set_grad_checkpointing()
    assert torch.allclose(model(x), model.forward_head(features))
    model.reset_classifier(3)
    assert model(x).shape == (2, 3) and model.get_classifier() is model.fc
    model.reset_classifier(0)
    assert model(x).shape == (2, 64)
    assert timm.create_model('resnet20_cifar', num_classes=0, global_pool='')(x).shape == (2, 64, 8, 8)
    assert timm.data.resolve_model_data_config(model)['mean'] == (0.4914, 0.4822, 0.4465)
    from timm.optim import create_optimizer_v2
    assert len(create_optimizer_v2(model, 'sgd', lr=0.1, layer_decay=0.7).param_groups) > 4
    with pytest.raises(ValueError, match='6n'):
        timm.create_model('resnet20_cifar', depth=21)
    with pytest.raises(ValueError, match='cosine'):
        timm.create_model('resnet20_cifar', head='plain')


def test_its_own_cosine_head():
    model = timm.create_model('resnet20_cifar', num_classes=5, head='cosine', head_scale=10.).eval()
    assert isinstance(model.fc, CosineClassifier)
    x = torch.rand(3, 3, 32, 32)
    features = model.forward_head(model.forward_features(x), pre_logits=True)
    torch.testing.assert_close(model(x), 10 * F.cosine_similarity(features[:, None], model.fc.weight[None], dim=-1))
    model.reset_classifier(4)
    assert isinstance(model.fc, CosineClassifier) and model(x).shape == (3, 4)


def test_trained_exported_and_opened_exactly(run, photos, tmp_path):
    flags = [photos, '--model', 'resnet20_cifar', '--loss', 'ldam', '--head', 'cosine', '--val-fraction', '0.3']
    code, _, err = run(flags)
    assert code == 0 and 'folded' not in err
    script = ("import timm, torch, timm_smalldata\n"
              "model = timm.create_model('local-dir:runs/e/model', pretrained=True).eval()\n"
              "print(type(model.fc).__name__, model.fc.scale, model.num_classes)")
    env = {**os.environ, 'PYTHONPATH': str(ROOT)}
    done = subprocess.run([sys.executable, '-c', script], cwd=tmp_path, capture_output=True, text=True, env=env)
    assert done.stdout.split() == ['CosineClassifier', '30.0', '3'], done.stderr
    from safetensors.torch import load_file

    from timm_smalldata.engine import checkpoint
    saved = checkpoint.load(tmp_path / 'runs/e/model_best.pth.tar')['state_dict']
    exported = load_file(tmp_path / 'runs/e/model/model.safetensors')
    assert all(torch.equal(exported[name], saved[name]) for name in exported)


def test_stochastic_depth_leaves_the_model_alone_in_evaluation():
    torch.manual_seed(0)
    plain = timm.create_model('resnet20_cifar')
    torch.manual_seed(0)
    deep = timm.create_model('resnet20_cifar', drop_path_rate=0.4)
    blocks = [*deep.layer1, *deep.layer2, *deep.layer3]
    rates = [getattr(block.drop_path, 'drop_prob', 0.) for block in blocks]
    assert rates == pytest.approx([0.05 * n for n in range(9)])
    images = torch.randn(16, 3, 32, 32)
    assert torch.equal(plain.eval()(images), deep.eval()(images))
    deep.train()
    assert not torch.equal(deep(images), deep(images))
