"""Tasks without a classifier: to a backbone that stock timm loads and that a classifier starts from."""
import csv
import json
import shlex
from pathlib import Path

import pytest
import timm
import torch


@pytest.mark.parametrize('argv', [
    '--task idmm', '--task idmm --no-idmm-multicrop --no-idmm-cutmix --idmm-smoothing 0 --model resnet10t',
    '--task idmm --amp --model-ema --torchcompile eager --grad-accum-steps 2 --reprob 0.5 --clip-grad 1',
    '--task simclr --train-img-sizes 32 64 --model resnet10t', '--task supcon --contrastive-temperature 0.1'])
def test_trains_to_the_end(run, photos, tmp_path, argv):
    code, out, err = run([photos, *argv.split()])
    assert code == 0, err
    task = argv.split()[1]
    assert f'set by --task {task}: ' in err and ('images x' in err) == (task == 'idmm')
    folder = tmp_path / 'runs/e'
    config = json.loads((folder / 'model/config.json').read_text())
    assert config['num_classes'] == 0 and config['timm_smalldata']['class_names'] == ['ant', 'bee', 'cat']
    model = timm.create_model(f'local-dir:{folder / "model"}', pretrained=True).eval()
    assert model(torch.zeros(1, 3, 32, 32)).shape == (1, model.num_features)
    report = json.loads((folder / 'report.json').read_text())
    assert report['split'] == 'test' and report['num_images'] == 4 and report['loss'] is None
    assert report['probe'] == dict(kind='knn', k=18, temperature=0.07)
    assert report['balanced_top1'] == 100  # colours tell these classes apart, in any features
    row, = csv.DictReader(open(folder / 'summary.csv', newline=''))
    assert row['eval_top1'] == row['eval_balanced_top1'] == '100.0' and 'eval_loss' not in row
    losses = {name: float(value) for name, value in row.items() if name.startswith('train_loss')}
    if argv == '--task idmm':
        assert losses['train_loss'] == pytest.approx(losses['train_loss_large'] + losses['train_loss_small'])


def test_a_classifier_starts_from_the_backbone_at_another_size(run, photos, tmp_path):
    assert run([photos, '--task', 'idmm', '--experiment', 'look'])[0] == 0
    from safetensors.torch import load_file
    there = load_file(tmp_path / 'runs/look/model/model.safetensors')
    code, out, err = run([
        photos, '--initial-checkpoint', 'runs/look/model', '--img-size', '64', '--lr', '0', '--min-lr', '0'])
    assert code == 0, err
    here = load_file(tmp_path / 'runs/e/model/model.safetensors')
    assert here['pos_embed'].shape[1] > there['pos_embed'].shape[1]
    same = [name for name in there if name != 'pos_embed']
    assert same and all(torch.equal(there[name], here[name]) for name in same)
    assert set(here) - set(there) == {'head.weight', 'head.bias'}
    assert json.loads((tmp_path / 'runs/e/report.json').read_text())['num_images'] > 0


def test_the_linear_evaluation_of_the_page(run, photos, tmp_path):
    assert run([photos, '--task', 'idmm', '--experiment', 'look'])[0] == 0
    from safetensors.torch import load_file
    text = (Path(__file__).parents[2] / 'docs' / 'self-supervised.md').read_text()
    command = text.split('**Linear evaluation.**')[1].split('train_smalldata.py')[1].split('```')[0]
    words = shlex.split(command.replace('\\\n', ' '))
    words[:3] = [str(photos), '--initial-checkpoint', 'runs/look/model']
    for name, value in (('--model', 'test_vit'), ('--img-size', '32'), ('--batch-size', '4'), ('--epochs', '1')):
        words[words.index(name) + 1] = value
    code, _, err = run(words)
    assert code == 0, err
    there, here = (load_file(tmp_path / f'runs/{name}/model/model.safetensors') for name in ('look', 'e'))
    assert all(torch.equal(there[name], here[name]) for name in there)  # and a layer of its own
    assert set(here) - set(there) == {'head.weight', 'head.bias'}


def test_a_head_that_does_not_fit_is_one_clear_line(run, photos, monkeypatch):
    from timm_smalldata.task import idmm
    monkeypatch.setattr(idmm, 'memory_bytes', lambda device: 1000)
    code, out, err = run([photos, '--task', 'idmm'])
    last = err.rstrip('\n').split('\n')[-1]
    assert code == 2 and last.startswith('error: --task idmm: a head with a row for each of the ')
    assert 'MiB' in last and 'Traceback' not in err
