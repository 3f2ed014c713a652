"""timm's own train.py, validate.py and inference.py, unchanged, on our models and exports: each in its own process.

They are not in timm's wheel: name the folder that has them, `TIMM_SCRIPTS=/path/to/pytorch-image-models`.
"""
import csv
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = os.environ.get('TIMM_SCRIPTS', '')
pytestmark = pytest.mark.skipif(
    not (Path(SCRIPTS) / 'validate.py').is_file(), reason="TIMM_SCRIPTS names no folder with timm's scripts")
MACHINE = ['--device', 'cpu', '-j', '0', '-b', '4']
LINE = 'import runpy, timm_smalldata; runpy.run_path({!r}, run_name="__main__")'  # of docs/upstream.md


def call(name, *argv, plugin=False):
    """Run a script of timm; returns its standard output."""
    script = str(Path(SCRIPTS) / name)
    start = ['-c', LINE.format(script)] if plugin else [script]
    done = subprocess.run(
        [sys.executable, *start, *map(str, argv), *MACHINE], capture_output=True, text=True,
        env={**os.environ, 'PYTHONPATH': os.pathsep.join([str(ROOT), os.environ.get('PYTHONPATH', '')]),
             'OMP_NUM_THREADS': '1'})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def result(stdout):
    return json.loads(stdout.split('--result')[1])


@pytest.fixture
def divided(photo_folder):
    """Photographs of classes whose colours are alike, so that an untrained model is right now and then."""
    for split in ('train', 'val'):
        photo_folder(f'photos/{split}', {'ant': 12, 'bee': 10, 'cat': 8})
    return 'photos'


def judged(model, capsys):
    """Return what our verb says of a run on the split val."""
    from timm_smalldata.cli.eval import main
    capsys.readouterr()
    assert main([model, 'photos', '--split', 'val', '--json', '--device', 'cpu']) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize('model, plugin', [('test_vit', False), ('resnet20_cifar', True)])
def test_exports_are_judged_as_by_our_verb(run, divided, capsys, model, plugin):
    code, _, err = run([divided, '--model', model, '--test-fraction', '0', '--lr', '1e-4'])
    assert code == 0, err
    found = result(call('validate.py', divided, '--model', 'local-dir:runs/e/model', '--pretrained', '--split', 'val',
                        plugin=plugin))
    ours = judged('runs/e/model', capsys)
    assert found['top1'] == pytest.approx(ours['top1'], abs=0.001) and found['img_size'] == 32


def test_train_and_validate_a_model_of_ours(divided, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert 'train_loss' in call(
        'train.py', '--data-dir', divided, '--val-split', 'val', '--device-modules', 'timm_smalldata', '--model',
        'resnet20_cifar', '--num-classes', '3', '--epochs', '1', '--warmup-epochs', '0', '--opt', 'sgd', '--lr', '0.05',
        '--output', 'out', '--experiment', 'a') + (tmp_path / 'out/a/summary.csv').read_text()
    row, = csv.DictReader(open('out/a/summary.csv', newline=''))
    found = result(call(
        'validate.py', divided, '--split', 'val', '--model', 'resnet20_cifar', '--num-classes', '3', '--checkpoint',
        'out/a/last.pth.tar', plugin=True))
    assert found['top1'] == pytest.approx(float(row['eval_top1']), abs=0.001)


@pytest.mark.skipif(importlib.util.find_spec('pandas') is None, reason="timm's inference.py needs pandas")
@pytest.mark.parametrize('model, plugin', [('test_vit', False), ('resnet20_cifar', True)])
def test_inference_names_our_classes(run, divided, model, plugin):
    code, _, err = run([divided, '--model', model, '--test-fraction', '0'])
    assert code == 0, err
    call('inference.py', '--data-dir', divided, '--split', 'val', '--model', 'local-dir:runs/e/model', '--label-type',
         'name', '--results-dir', '.', '--results-file', 'said', '--no-console-results', plugin=plugin)
    rows = list(csv.DictReader(open('said.csv', newline='')))
    assert len(rows) == 30 and {row['label'] for row in rows} <= {'ant', 'bee', 'cat'}


def test_the_line_is_that_of_the_page():
    page = (ROOT / 'docs' / 'upstream.md').read_text()
    assert re.search(r'python -c "import runpy, timm_smalldata; runpy.run_path\(', page)
