"""Runs that version 0.1.0 wrote, before the package had folders, are read: continued, judged, run again."""
import csv
import json
import shutil
from pathlib import Path

import pytest

from timm_smalldata.engine import checkpoint

OLD = Path(__file__).parents[1] / 'helpers' / 'run_of_0.1.0'


@pytest.fixture
def old(tmp_path, monkeypatch):
    """The folder in which those runs were made: photos/, runs/stopped, runs/finished."""
    shutil.copytree(OLD / 'photos', tmp_path / 'photos')
    for name in ('stopped', 'finished', 'mae'):
        shutil.copytree(OLD / name, tmp_path / 'runs' / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def train(*argv):
    import train_smalldata
    return train_smalldata.main([*argv, '--output', 'runs'])


def test_a_stopped_run_is_continued(old, capsys):
    """It ends with the numbers that it would have ended with then."""
    before = checkpoint.load_last(old / 'runs/stopped')
    assert hasattr(before['args'], 'distillation_type')  # a setting that is no more
    assert train('photos', '--experiment', 'stopped', '--resume', 'auto') == 0, capsys.readouterr().err
    err = capsys.readouterr().err
    assert 'continuing runs/stopped at epoch 3 of 3, update 8' in err and 'distillation' in err
    ours, theirs = ([row for row in csv.DictReader(open(path / 'summary.csv', newline=''))]
                    for path in (old / 'runs/stopped', OLD / 'finished'))
    assert ours[:2] == theirs[:2]
    for name in ('train_loss', 'eval_loss', 'eval_top1', 'lr'):
        assert float(ours[2][name]) == pytest.approx(float(theirs[2][name]), rel=1e-3)
    report = json.loads((old / 'runs/stopped/report.json').read_text())
    assert report['epoch'] == 0 and report['balanced_top1'] == pytest.approx(200 / 3)
    assert [start['first_update'] for start in report['timing']['starts']] == [0, 8]


def test_a_finished_run_is_finished_and_judged_again(old, capsys):
    from timm_smalldata.cli.eval import main
    before = json.loads((OLD / 'finished/report.json').read_text())
    assert main(['runs/finished', '--json']) == 0
    again = json.loads(capsys.readouterr().out)
    for name in ('split', 'top1', 'balanced_top1', 'few', 'epoch', 'data_hash', 'selected_on', 'num_images'):
        assert again[name] == before[name], name
    assert again['loss'] == pytest.approx(before['loss'], rel=1e-4)


def test_its_settings_run_again(old, capsys):
    """A `-c` file that names a flag that is no more: it is dropped, with a line."""
    assert 'distillation_type' in (old / 'runs/finished/args.yaml').read_text()
    assert train('-c', 'runs/finished/args.yaml', '--experiment', 'again', '--epochs', '1') == 0
    assert 'distillation' in capsys.readouterr().err


def test_a_masked_autoencoder_is_continued_with_its_decoder(old, capsys):
    assert train('photos', '--experiment', 'mae', '--resume', 'auto') == 0, capsys.readouterr().err
    state = checkpoint.load_last(old / 'runs/mae')
    assert state['epoch'] == 1 and 'decoder' in state['task_state']
