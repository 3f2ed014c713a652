"""Two processes under torchrun train what one process trains at the same global batch."""
import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import train_smalldata
from timm_smalldata.utils.distributed import World

from ..conftest import make_photos

ROOT = Path(__file__).parents[2]
ARGV = ['--model', 'vit_tiny_patch16_224', '--model-kwargs', 'patch_size=8', 'embed_dim=24', 'num_heads=2', 'depth=1',
        '--img-size', '32', '--device', 'cpu', '--epochs', '2', '--lr', '1e-3', '--aug', 'three-augment', '--model-ema',
        '--output', 'runs', '--opt', 'sgd', '--validation-batch-size', '3']
WITHOUT_EPOCHS = [word for i, word in enumerate(ARGV) if '--epochs' not in (word, ARGV[max(i - 1, 0)])]


SAM = ['--sam-rho', '0.5', '--no-model-ema']
STILL = ['--task', 'mae', '--lr', '0', '--min-lr', '0', '--warmup-lr', '0', '--epochs', '1', '--knn-k', '18',
         '--aug', 'none']
FEW = ['--loss', 'class-balanced-ce', '--allow-missing-classes', '--time-budget', '0.1s', '-b', '4']
# Runs of two processes, one after the other in the same two; the data folder is the first word.
PAIRS = {
    'two': ['photos', *ARGV, '-b', '4'],
    'sam-two': ['photos', *ARGV, *SAM, '--sam-global', '-b', '4'],
    'sam-each': ['photos', *ARGV, *SAM, '-b', '4'],
    'mae-two': ['photos', *ARGV, *STILL, '-b', '4'],
    'few': ['data', *WITHOUT_EPOCHS, *FEW],
}
IN_TURN = '''
import json, os, sys
import torch.distributed as dist
import train_smalldata

dist.init_process_group('gloo')  # a group of the caller stays for the next run
codes = {name: train_smalldata.main([*argv, '--experiment', name]) for name, argv in json.loads(sys.argv[1]).items()}
dist.destroy_process_group()
if os.environ['RANK'] == '0':
    json.dump(codes, open('codes.json', 'w'))
'''


def start(script, *words, folder):
    """Start a script as two processes."""
    (folder / 'script.py').write_text(script)
    return subprocess.Popen(
        [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2', 'script.py', *words],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT)})


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    """A folder with photographs and, in runs/, what two processes have trained; with what they said."""
    folder = tmp_path_factory.mktemp('pair')
    make_photos(folder / 'photos')
    make_photos(folder / 'data/train')
    make_photos(folder / 'data/val', {'ant': 1})
    process = start(IN_TURN, json.dumps(PAIRS), folder=folder)
    _, said = process.communicate(timeout=400)
    assert process.returncode == 0, said[-3000:]
    assert set(json.loads((folder / 'codes.json').read_text()).values()) == {0}, said[-3000:]
    return folder, said


@pytest.fixture
def both(place, monkeypatch):
    """Run in this process what two have run at the same global batch: `both(flags, name) -> the two run folders`."""
    folder, _ = place
    monkeypatch.chdir(folder)

    def call(flags, name):
        one = f'{name}-one'
        assert train_smalldata.main(['photos', *ARGV, *flags, '--experiment', one, '-b', '8']) == 0
        return folder / 'runs' / one, folder / 'runs' / name

    return call


def weights(run):
    return load_file(run / 'model/model.safetensors')


def test_two_processes_equal_one(both, place):
    one, two = both([], 'two')
    said = place[1]
    assert 'x 2 processes' in said and said.count('per epoch, 2 epochs') == 3  # one voice in each run of two epochs
    a, b = weights(one), weights(two)
    for name in a:
        torch.testing.assert_close(a[name], b[name], atol=1e-5, rtol=1e-4)
    for row, other in zip(*(list(csv.DictReader(open(run / 'summary.csv'))) for run in (one, two))):
        assert abs(float(row['train_loss']) - float(other['train_loss'])) < 1e-4
    reports = [json.loads((run / 'report.json').read_text()) for run in (one, two)]
    for key in ('top1', 'balanced_top1', 'num_images', 'data_hash', 'epoch'):
        assert reports[0][key] == reports[1][key], key


def test_two_processes_with_one_perturbation_equal_one(both):
    """--sam-global averages the first pass over ranks; without it each perturbs by its own half of the batch."""
    one, two = both(SAM, 'sam-two')
    expected, found, each = weights(one), weights(two), weights(two.with_name('sam-each'))
    for key, value in expected.items():
        torch.testing.assert_close(found[key], value, atol=1e-5, rtol=1e-4)
    assert any(not torch.allclose(each[key], value, atol=1e-5, rtol=1e-4) for key, value in expected.items())


def test_features_are_judged_by_all_processes(both):
    """At a learning rate of 0 the backbone stays as it was, so two processes must find what one finds."""
    runs = both(STILL, 'mae-two')
    reports = [json.loads((run / 'report.json').read_text()) for run in runs]
    errors = []
    for report in reports:
        del report['timing']
        errors.append([report.pop('ece'), report.pop('mce'), *(p.pop('ece') for p in report['predictions'].values())])
    assert reports[0] == reports[1] and reports[0]['num_images'] == 4
    assert min(errors[0]) > 0 and errors[0] == pytest.approx(errors[1], abs=0.01)
    rows = [next(csv.DictReader(open(run / 'summary.csv'))) for run in runs]
    assert float(rows[0]['eval_mce']) == pytest.approx(float(rows[1]['eval_mce']), abs=0.01)
    assert rows[0]['eval_top1'] == rows[1]['eval_top1'] != ''


def test_ranks_wait_for_nobody(place):
    """A loss with a normaliser over ranks, and fewer validation images than ranks: every collective is met by all."""
    assert json.loads((place[0] / 'runs/few/report.json').read_text())['num_images'] == 1


def test_one_process_needs_no_group():
    world = World()
    assert world.primary and not world.distributed and world.broadcast(3) == 3 and world.any(True)
    assert world.first(lambda: 4) == 4


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


FAILURES = [
    ('0', 'error: the disk of this machine is full'), ('1', 'error (rank 1): the disk of this machine is full'),
    ('None', 'error: No such folder or file: nowhere (--data-dir).')]


@pytest.fixture(scope='module')
def failed(place, tmp_path_factory):
    """What torchrun returns and prints where rank 0, rank 1 or every rank meets an error; all at once, as they wait."""
    processes = {}
    for rank, _ in FAILURES:
        data = 'nowhere' if rank == 'None' else str(place[0] / 'photos')
        processes[rank] = start(
            ONE_RANK_FAILS, rank, data, *ARGV, '--experiment', 'x', '-b', '4', folder=tmp_path_factory.mktemp('fails'))
    said = {rank: process.communicate(timeout=240)[1] for rank, process in processes.items()}
    return {rank: (process.returncode, said[rank]) for rank, process in processes.items()}


@pytest.mark.parametrize('rank, line', FAILURES)
def test_an_error_of_any_rank_is_one_line(failed, rank, line):
    """Also where one rank alone has met it; where all have met it, one of them says it."""
    code, said = failed[rank]
    assert code == 1 and 'SIGABRT' not in said
    lines = [found for found in said.splitlines() if re.match(r'error( \(|: )', found)]
    assert lines[:1] == [line]
    if rank != 'None':  # where all have met it, a machine too busy to end rank 0 may let rank 1 repeat it
        assert lines == [line]
    assert re.search(r'exitcode\s+: 2 ', said)


def test_what_rank_0_hands_on_is_said_by_rank_0(monkeypatch, capsys):
    """The others end with the same code, without a word of their own."""
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
