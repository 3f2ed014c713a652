"""Two processes under torchrun train what one process trains at the same global batch."""
import csv
import json
import subprocess
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file

from timm_smalldata.distributed import World

ROOT = Path(__file__).parents[1]
ARGV = ['--model', 'vit_tiny_patch16_224', '--model-kwargs', 'patch_size=8', 'embed_dim=24', 'num_heads=2', 'depth=1',
        '--img-size', '32', '--device', 'cpu', '--epochs', '2', '--lr', '1e-3', '--aug', 'three-augment', '--model-ema',
        '--output', 'runs', '--opt', 'sgd', '--validation-batch-size', '3']


def test_two_processes_equal_one(photos, tmp_path):
    one = [sys.executable, str(ROOT / 'train_smalldata.py'), str(photos), *ARGV, '--experiment', 'one', '-b', '8']
    two = [sys.executable, '-m', 'torch.distributed.run', '--nproc-per-node', '2', '--standalone',
           str(ROOT / 'train_smalldata.py'), str(photos), *ARGV, '--experiment', 'two', '-b', '4']
    for command in (one, two):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=_env())
        assert done.returncode == 0, done.stderr[-3000:]
    assert 'x 2 processes' in done.stderr and done.stderr.count('per epoch, 2 epochs') == 1  # one voice
    a, b = (load_file(tmp_path / f'runs/{name}/model/model.safetensors') for name in ('one', 'two'))
    for name in a:
        torch.testing.assert_close(a[name], b[name], atol=1e-5, rtol=1e-4)
    rows = [list(csv.DictReader(open(tmp_path / f'runs/{name}/summary.csv'))) for name in ('one', 'two')]
    for row, other in zip(*rows):
        assert abs(float(row['train_loss']) - float(other['train_loss'])) < 1e-4
    reports = [json.loads((tmp_path / f'runs/{name}/report.json').read_text()) for name in ('one', 'two')]
    for key in ('top1', 'balanced_top1', 'num_images', 'data_hash', 'epoch'):
        assert reports[0][key] == reports[1][key], key


def _env():
    import os
    return {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT)}


def test_one_process_needs_no_group():
    world = World()
    assert world.primary and not world.distributed and world.broadcast(3) == 3 and world.any(True)
    assert world.first(lambda: 4) == 4


def test_ranks_wait_for_nobody(photo_folder, tmp_path):
    """A loss with a normaliser over ranks, and fewer validation images than ranks: every collective is met by all."""
    photo_folder('data/train')
    photo_folder('data/val', {'ant': 1})
    command = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2',
               str(ROOT / 'train_smalldata.py'), str(tmp_path / 'data'), *ARGV[:-2], '--experiment', 'x', '-b', '4',
               '--loss', 'class-balanced-ce', '--allow-missing-classes', '--time-budget', '0.1s']
    command = [word for i, word in enumerate(command) if word != '--epochs' and command[i - 1] != '--epochs']
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=_env(), timeout=240)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads((tmp_path / 'runs/x/report.json').read_text())['num_images'] == 1
