"""Two processes under torchrun train what one process trains at the same global batch."""
import csv
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from timm_smalldata.utils.distributed import World

ROOT = Path(__file__).parents[2]
ARGV = ['--model', 'vit_tiny_patch16_224', '--model-kwargs', 'patch_size=8', 'embed_dim=24', 'num_heads=2', 'depth=1',
        '--img-size', '32', '--device', 'cpu', '--epochs', '2', '--lr', '1e-3', '--aug', 'three-augment', '--model-ema',
        '--output', 'runs', '--opt', 'sgd', '--validation-batch-size', '3']


def test_two_processes_equal_one(photos, tmp_path):
    one = [sys.executable, str(ROOT / 'train_smalldata.py'), str(photos), *ARGV, '--experiment', 'one', '-b', '8']
    two = [sys.executable, '-m', 'torch.distributed.run', '--nproc-per-node', '2', '--standalone',
           str(ROOT / 'train_smalldata.py'), str(photos), *ARGV, '--experiment', 'two', '-b', '4']
    for command in (one, two):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=_env(), timeout=240)
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


def test_two_processes_with_one_perturbation_equal_one(photos, tmp_path):
    """--sam-global averages the first pass over ranks; without it each perturbs by its own half of the batch."""
    flags = ['--sam-rho', '0.5', '--no-model-ema']
    results = {}
    for name, extra, processes in (('one', [], 1), ('two', ['--sam-global'], 2), ('each', [], 2)):
        launch = [] if processes == 1 else ['-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2']
        command = [sys.executable, *launch, str(ROOT / 'train_smalldata.py'), str(photos), *ARGV, *flags, *extra,
                   '--experiment', name, '-b', str(8 // processes)]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=_env(), timeout=240)
        assert done.returncode == 0, done.stderr[-3000:]
        results[name] = load_file(tmp_path / f'runs/{name}/model/model.safetensors')
    for key, value in results['one'].items():
        torch.testing.assert_close(results['two'][key], value, atol=1e-5, rtol=1e-4)
    assert any(not torch.allclose(results['each'][key], value, atol=1e-5, rtol=1e-4)
               for key, value in results['one'].items())


def test_features_are_judged_by_all_processes(photos, tmp_path):
    """At a learning rate of 0 the backbone stays as it was, so two processes must find what one finds."""
    argv = [str(photos), *ARGV, '--task', 'mae', '--lr', '0', '--min-lr', '0', '--warmup-lr', '0', '--epochs', '1',
            '--knn-k', '18']
    argv = [word for i, word in enumerate(argv) if '--aug' not in (word, argv[i - 1])]
    one = [sys.executable, str(ROOT / 'train_smalldata.py'), *argv, '--experiment', 'one', '-b', '8']
    two = [sys.executable, '-m', 'torch.distributed.run', '--nproc-per-node', '2', '--standalone',
           str(ROOT / 'train_smalldata.py'), *argv, '--experiment', 'two', '-b', '4']
    for command in (one, two):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=_env(), timeout=240)
        assert done.returncode == 0, done.stderr[-3000:]
    reports = [json.loads((tmp_path / f'runs/{name}/report.json').read_text()) for name in ('one', 'two')]
    errors = []
    for report in reports:
        del report['timing']
        errors.append([report.pop('ece'), report.pop('mce'), *(p.pop('ece') for p in report['predictions'].values())])
    assert reports[0] == reports[1] and reports[0]['num_images'] == 4
    assert min(errors[0]) > 0 and errors[0] == pytest.approx(errors[1], abs=0.01)
    rows = [next(csv.DictReader(open(tmp_path / f'runs/{name}/summary.csv'))) for name in ('one', 'two')]
    assert float(rows[0]['eval_mce']) == pytest.approx(float(rows[1]['eval_mce']), abs=0.01)
    assert rows[0]['eval_top1'] == rows[1]['eval_top1'] != ''


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


ONE_RANK_FAILS = '''
import os, sys
import train_smalldata
from timm_smalldata.errors import UserError
from timm_smalldata.run import job

def full(*args):
    raise UserError('the disk of this machine is full')

if os.environ['RANK'] == sys.argv[1]:
    job.train_loader = full
sys.exit(train_smalldata.main(sys.argv[2:]))
'''


@pytest.mark.parametrize('rank, said', [
    (0, 'error: the disk of this machine is full'), (1, 'error (rank 1): the disk of this machine is full'),
    (None, 'error: No such folder or file: nowhere (--data-dir).')])
def test_an_error_of_any_rank_is_one_line(photos, tmp_path, rank, said):
    """Also where one rank alone has met it; where all have met it, one of them says it."""
    (tmp_path / 'script.py').write_text(ONE_RANK_FAILS)
    done = subprocess.run(
        [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2', 'script.py', str(rank),
         'nowhere' if rank is None else str(photos), *ARGV, '--experiment', 'x', '-b', '4'],
        cwd=tmp_path, capture_output=True, text=True, env=_env(), timeout=240)
    assert done.returncode == 1 and 'SIGABRT' not in done.stderr
    lines = [line for line in done.stderr.splitlines() if re.match(r'error( \(|: )', line)]
    assert lines[:1] == [said]
    if rank is not None:  # where all have met it, a machine too busy to end rank 0 may let rank 1 repeat it
        assert lines == [said]
    assert re.search(r'exitcode\s+: 2 ', done.stderr)


def test_what_rank_0_hands_on_is_said_by_rank_0(monkeypatch, capsys):
    """The others end with the same code, without a word of their own."""
    import train_smalldata
    from timm_smalldata.errors import UserError
    from timm_smalldata.utils import distributed
    monkeypatch.setenv('RANK', '1')
    monkeypatch.setattr(distributed.time, 'sleep', lambda seconds: None)
    error = UserError('no place left')
    monkeypatch.setattr(World, 'broadcast', lambda self, value: (False, error))

    def run(*_):
        World(1, 2).first(lambda: None)

    monkeypatch.setattr(train_smalldata, 'run', run)
    assert train_smalldata.main([]) == 2 and capsys.readouterr().err == ''
    monkeypatch.setenv('RANK', '0')
    assert train_smalldata.main([]) == 2 and capsys.readouterr().err == 'error: no place left\n'


def test_a_process_that_another_one_left_alone_says_so(monkeypatch, capsys):
    """torchrun ends it before it speaks; where it does not, one line stands for the traceback of the collective."""
    import train_smalldata
    from timm_smalldata.utils import distributed
    monkeypatch.setenv('RANK', '1')
    monkeypatch.setattr(distributed.time, 'sleep', lambda seconds: None)

    def run(*_):
        raise RuntimeError('[gloo/transport/tcp/pair.cc:547] Connection closed by peer [10.0.0.1]:80')

    monkeypatch.setattr(train_smalldata, 'run', run)
    with pytest.raises(RuntimeError):  # in a single process it means something else
        train_smalldata.main([])
    monkeypatch.setattr(distributed, '_joined', [1])
    assert train_smalldata.main([]) == 2
    assert capsys.readouterr().err.startswith('error (rank 1): another process has ended')
