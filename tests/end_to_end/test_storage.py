"""Full disks, damaged files and second processes: one line, and nothing that was saved is lost."""
import errno
import os
import re
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest
import torch

from timm_smalldata.engine import checkpoint
from timm_smalldata.hub import export
from timm_smalldata.utils import files
from timm_smalldata.utils.lock import FolderLock

FULL = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def last_line(err):
    lines = err.rstrip().split('\n')
    assert [line for line in lines if line.startswith('error:')] == lines[-1:] and 'Traceback' not in err
    return lines[-1]


def filled(monkeypatch, name, call=1):
    """From the call-th time on that a file of this name is flushed, the disk is full."""
    seen, fsync = [], os.fsync

    def flush(handle):
        if name in os.readlink(f'/proc/self/fd/{handle}'):
            seen.append(handle)
            if len(seen) >= call:
                raise FULL
        fsync(handle)

    monkeypatch.setattr(os, 'fsync', flush)


@pytest.mark.skipif(not Path('/proc/self/fd').exists(), reason='asks Linux for the name of a file')
@pytest.mark.parametrize('name', ['last.pth.tar', 'model_best.pth.tar', 'summary.csv'])
def test_a_disk_that_fills_up_while_training(run, photos, tmp_path, monkeypatch, name):
    argv = [photos, '--epochs', '3', '--eval-metric', 'loss']
    filled(monkeypatch, name, call=2 if name != 'summary.csv' else 1)
    code, _, err = run(argv)
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    line = last_line(err)
    told = rf'Cannot write runs/e/{name}: No space left on device \(it needs .*free there\)'
    assert code == 2 and re.search(told, line)
    assert '--resume auto' in line and '--experiment e' in line
    assert not list((tmp_path / 'runs/e').glob('.*'))
    saved = checkpoint.load_last(tmp_path / 'runs/e')['epoch']
    code, _, err = run([*argv, '--resume', 'auto'])
    assert code == 0 and f'continuing runs/e at epoch {saved + 2}' in err  # the screen counts from 1


@pytest.mark.parametrize('how', ['system', 'safetensors'])
def test_a_disk_that_fills_up_while_the_model_is_exported(run, photos, tmp_path, monkeypatch, how):
    from safetensors import SafetensorError

    def half(model, folder, **kwargs):
        Path(folder).mkdir()
        Path(folder, 'model.safetensors').write_bytes(b'half')
        raise FULL if how == 'system' else SafetensorError(
            'Error while serializing: I/O error: No space left on device (os error 28)')

    monkeypatch.setattr(export, 'save_for_hf', half)
    code, _, err = run([photos])
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    line = last_line(err)
    assert code == 2 and re.search(r'Cannot write runs/e/model: No space left on device \(it needs \d+\.\d MB', line)
    assert not list((tmp_path / 'runs/e').glob('.*')) and not (tmp_path / 'runs/e/model').exists()
    assert run([photos, '--resume', 'auto'])[0] == 0


def test_other_errors_are_not_taken_for_a_full_disk():
    assert files.storage_error(ValueError('x'), Path('x')) is None
    assert files.storage_error(PermissionError(errno.EACCES, 'x'), Path('x')) is None


# --- damaged files --------------------------------------------------------------------------------------------------

def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_a_flipped_bit_is_said_and_the_checkpoint_before_is_continued(run, photos, tmp_path):
    argv = [photos, '--epochs', '4']
    assert run([*argv, '--stop-epoch', '2'])[0] == 0
    flip(tmp_path / 'runs/e/last.pth.tar')
    for resume in ('auto', 'runs/e/last.pth.tar'):
        code, _, err = run([*argv, '--resume', resume, '--dry-run'])
        assert code == 0 and 'runs/e/last.pth.tar is damaged: ' in err
        assert 'is continued: last.previous.pth.tar, epoch 1' in err
    code, _, err = run([*argv, '--resume', 'auto', '--stop-epoch', '3'])  # a finished run keeps no checkpoint before
    assert code == 0 and 'continuing runs/e at epoch 2' in err
    flip(tmp_path / 'runs/e/last.pth.tar'), flip(tmp_path / 'runs/e/last.previous.pth.tar')
    line = last_line(run([*argv, '--resume', 'auto'])[2])
    assert 'last.pth.tar is damaged' in line and 'last.previous.pth.tar is damaged' in line


@pytest.mark.parametrize('name', ['last.pth.tar', 'report.json', 'summary.csv'])
def test_a_folder_where_a_file_belongs(run, photos, tmp_path, name):
    (tmp_path / 'runs/e' / name).mkdir(parents=True)
    for more in ([], ['--resume', 'auto']):
        code, _, err = run([photos, *more])
        assert code == 2 and f'runs/e/{name} is a folder' in last_line(err)


@pytest.mark.parametrize('name', ['report.json', 'starts.txt', 'choice.json', 'summary.csv', 'args.yaml', 'split.json'])
@pytest.mark.parametrize('content', [b'', b'[1, 2]', b'\xff\0{'])
def test_what_is_derived_may_be_damaged(run, photos, tmp_path, name, content):
    argv = [photos, '--epochs', '2']
    assert run([*argv, '--stop-epoch', '1'])[0] == 0
    (tmp_path / 'runs/e' / name).write_bytes(content)
    code, _, err = run([*argv, '--resume', 'auto'])
    assert code == 0, err
    good = (tmp_path / 'runs/e' / name).read_bytes()
    (tmp_path / 'runs/e' / name).write_bytes(content)
    code, _, err = run([*argv, '--resume', 'auto'])
    assert code == 0 and (name != 'report.json' or good[:200] == (tmp_path / 'runs/e' / name).read_bytes()[:200])


@pytest.mark.parametrize('flag', ['--experiment', '--output', '--data-dir', '--resume', '--initial-checkpoint',
                                  '--class-map', '--cache-dir'])
@pytest.mark.parametrize('name, words', [('x' * 300, 'at most 255 bytes, this one 300'), ('a\0b', 'NUL byte')])
def test_names_that_no_file_has(run, photos, flag, name, words):
    code, _, err = run([*([] if flag == '--data-dir' else [photos]), flag, name])
    assert code == 2 and f'{flag} ' in last_line(err) and words in last_line(err)


def test_a_data_folder_with_a_long_name(run, photo_folder, tmp_path):
    photo_folder('y' * 250)
    assert run(['y' * 250, '--experiment', ''])[0] == 0  # the run names itself
    assert len([path for path in (tmp_path / 'runs').glob('2*') if (path / 'report.json').exists()]) == 1


def test_a_damaged_cache_is_told(run, photos, tmp_path):
    assert run([photos])[0] == 0
    flip(next((tmp_path / 'runs/.cache').glob('*.u8')))
    code, _, err = run([photos, '--experiment', 'f'])
    assert code == 0 and 'its bytes have changed; it is made again' in err


# --- checkpoints of others ------------------------------------------------------------------------------------------

@pytest.fixture
def of_timm(tmp_path):
    """A checkpoint as train.py of timm saves it."""
    import timm
    from timm.utils import CheckpointSaver
    model = timm.create_model('test_vit', num_classes=3, img_size=32)
    args = Namespace(model='test_vit', device='cuda', lr=0.1, opt='sgd', data_dir='/data')
    saver = CheckpointSaver(model, torch.optim.SGD(model.parameters(), lr=0.1), args, checkpoint_dir=str(tmp_path),
                            recovery_dir=str(tmp_path))
    saver.save_checkpoint(3, metric=50.0)
    return tmp_path / 'last.pth.tar'


def test_a_checkpoint_of_timm_is_not_continued_but_its_weights_start_a_run(run, photos, of_timm):
    for place in (of_timm, of_timm.parent):
        code, _, err = run([photos, '--resume', place])
        assert code == 2 and 'was not written by this program' in last_line(err)
        assert '--initial-checkpoint' in last_line(err)
    code, _, err = run([photos, '--initial-checkpoint', of_timm])
    assert code == 0, err


# --- two at once ----------------------------------------------------------------------------------------------------

def test_a_second_run_on_one_folder_is_refused_with_the_other_named(run, photos, tmp_path):
    (tmp_path / 'runs/e').mkdir(parents=True)
    code = ('import sys, time; from pathlib import Path; from timm_smalldata.utils.lock import FolderLock\n'
            'lock = FolderLock(Path(sys.argv[1])); lock.take(); print(1, flush=True); time.sleep(60)')
    other = subprocess.Popen([sys.executable, '-c', code, str(tmp_path / 'runs/e')], stdout=subprocess.PIPE)
    try:
        other.stdout.readline()
        for more in ([], ['--resume', 'auto']):
            code, _, err = run([photos, *more])
            assert code == 2 and f'runs/e is in use by process {other.pid} on ' in last_line(err)
    finally:
        other.kill()
        other.wait()
    assert run([photos])[0] == 0 and not (tmp_path / 'runs/e/.lock').exists()


def test_a_folder_is_free_again_after_an_error(run, photos, tmp_path):
    assert run([photos, '--lr', '1e30', '--epochs', '3'])[0] == 2
    lock = FolderLock(tmp_path / 'runs/e')
    lock.take()
    lock.release()


def test_unnamed_runs_of_one_second_get_folders_of_their_own(tmp_path, monkeypatch):
    from timm_smalldata.run.folder import new_name
    assert [new_name(tmp_path / 'out', 'a') for _ in range(3)] == ['a', 'a-2', 'a-3']
    assert len(list((tmp_path / 'out').iterdir())) == 3
