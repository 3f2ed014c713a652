"""A setting does what it says, or a line says what it does instead."""
import json

import pytest
import torch
import yaml
from safetensors.torch import load_file

from timm_smalldata.engine import checkpoint


def settings_of(tmp_path, name='e'):
    return yaml.safe_load((tmp_path / 'runs' / name / 'args.yaml').read_text())


def test_the_groups_of_a_small_set_are_thirds_and_named(run, photos, tmp_path):
    code, _, err = run([photos])
    assert code == 0 and 'many, medium and few are thirds of the classes' in err
    report = json.loads((tmp_path / 'runs/e/report.json').read_text())
    split = report['shot_groups']
    assert split.startswith('counts:') and split != 'counts:100,20' and f'--shot-split {split}' in err
    assert all(report['groups'][name]['classes'] for name in ('many', 'medium', 'few'))
    assert settings_of(tmp_path)['shot_split'] == split
    assert run([photos, '--shot-split', 'counts:100,20', '--experiment', 'f'])[0] == 0
    assert json.loads((tmp_path / 'runs/f/report.json').read_text())['shot_groups'] == 'counts:100,20'


def test_more_accumulation_than_batches_does_not_raise_the_rate(run, photos, tmp_path):
    code, _, err = run([photos, '--batch-size', '8', '--grad-accum-steps', '100', '--stop-epoch', '1', '--epochs', '2'])
    assert code == 0 and '--grad-accum-steps 100 is more than the 2 batches of an epoch: 2 is used' in err
    assert run([photos, '--batch-size', '8', '--grad-accum-steps', '2', '--experiment', 'f', '--epochs', '2'])[0] == 0
    assert settings_of(tmp_path)['lr'] == settings_of(tmp_path, 'f')['lr']
    code, _, err = run([photos, '--batch-size', '8', '--grad-accum-steps', '100', '--epochs', '2', '--resume', 'auto'])
    assert code == 0, err  # it is what the run was started with
    first, second = (load_file(tmp_path / f'runs/{name}/model/model.safetensors') for name in 'ef')
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_pixels_that_no_patch_sees_are_told(run, photos):
    vit = ['--model', 'vit_tiny_patch16_224', '--model-kwargs', 'embed_dim=24', 'depth=1', 'num_heads=2']
    code, _, err = run([photos, *vit, '--img-size', '50', '--dry-run'])
    assert code == 0 and 'patches of 16 px leave the last 2 px of images of 50 px out: 48 or 64 px' in err
    assert 'px out' not in run([photos, *vit, '--img-size', '48', '--dry-run'])[2]


def test_the_average_of_a_short_run_forgets_the_beginning(run, photos, tmp_path):
    code, _, err = run([photos, '--model-ema', '--epochs', '6', '--lr', '1e-3', '--stop-epoch', '5'])
    state = checkpoint.load(tmp_path / 'runs/e/last.pth.tar')
    decay = state['args'].model_ema_decay
    assert code == 0 and 0.5 <= decay < 0.9 and f'(--model-ema-decay {decay:.6g})' in err
    assert 'initial weights' not in err
    weights, average = state['state_dict'], state['state_dict_ema']
    apart = sum((weights[name] - average[name]).norm() for name in weights)
    assert run([photos, '--experiment', 'f', '--epochs', '6', '--lr', '1e-3', '--stop-epoch', '1'])[0] == 0
    early = checkpoint.load(tmp_path / 'runs/f/last.pth.tar')['state_dict']
    assert apart < 0.5 * sum((weights[name] - early[name]).norm() for name in weights)
    code, _, err = run([photos, '--model-ema', '--epochs', '6', '--lr', '1e-3', '--resume', 'auto'])
    assert code == 0 and f'(--model-ema-decay {decay:.6g})' in err and settings_of(tmp_path)['model_ema_decay'] == decay


def test_an_average_that_is_asked_for_and_too_long_is_told(run, photos):
    code, _, err = run([photos, '--model-ema', '--model-ema-decay', '0.9998', '--dry-run'])
    assert code == 0 and '100 % of it are the initial weights' in err


@pytest.mark.parametrize('warm, told', [(True, False), (False, True)])
def test_a_long_average_with_warm_up_is_not(run, photos, warm, told):
    argv = ['--model-ema', '--model-ema-decay', '0.999', *(['--model-ema-warmup'] if warm else [])]
    assert ('initial weights' in run([photos, *argv, '--dry-run'])[2]) == told
