"""What is left on disk: checkpoints by --keep, decoded images until they are pruned, of a dry run nothing."""
import json
import os
import time

import pytest
import torch

from timm_smalldata.cli.cache import main


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_decoded_images_are_listed_and_pruned_and_made_again(run, photos, tmp_path, capsys):
    assert run([photos])[0] == 0
    cache = tmp_path / 'runs' / '.cache'
    (cache / 'notes.txt').write_text('not ours')
    files = sorted(cache.glob('*.u8'))
    assert files
    capsys.readouterr()
    assert main(['runs', '--json']) == 0
    found = json.loads(capsys.readouterr().out)
    assert found['unused'] == [] and found['bytes'] == sum(
        path.stat().st_size for path in cache.iterdir() if path.suffix in ('.u8', '.npz'))
    assert main(['runs', '--prune']) == 0 and sorted(cache.glob('*.u8')) == files  # used just now
    before = time.time() - 10 * 86400
    for path in files[:1]:
        os.utime(path, (before, before))
    assert main(['runs', '--prune']) == 0
    assert '1 of them' in capsys.readouterr().out and sorted(cache.glob('*.u8')) == files[1:]
    assert run([photos, '--experiment', 'again'])[0] == 0 and sorted(cache.glob('*.u8')) == files
    assert main([str(cache), '--prune', '--days', '0']) == 0
    assert names(cache) == ['notes.txt']


def test_use_counts(run, photos, tmp_path):
    assert run([photos])[0] == 0
    file = next((tmp_path / 'runs' / '.cache').glob('*.u8'))
    os.utime(file, (1, 1))
    assert run([photos, '--experiment', 'again'])[0] == 0
    assert file.stat().st_mtime > 1e9


@pytest.mark.parametrize('keep, kept', [
    ('all', ['last.pth.tar', 'model_best.pth.tar']), ('last', ['last.pth.tar']), ('best', ['model_best.pth.tar'])])
def test_checkpoints_of_a_finished_run(run, photos, tmp_path, keep, kept):
    argv = [photos, '--epochs', '2', '--val-fraction', '0.2', '--keep', keep]
    assert run(argv)[0] == 0
    folder = tmp_path / 'runs' / 'e'
    assert [name for name in names(folder) if name.endswith('.tar')] == kept
    if keep != 'last':  # weights alone: training goes on from the last checkpoint
        best = torch.load(folder / 'model_best.pth.tar', weights_only=False)
        assert 'state_dict' in best and 'optimizer' not in best and best['epoch'] == json.loads(
            (folder / 'report.json').read_text())['epoch']
        code, _, err = run([*argv, '--experiment', 'f', '--resume', f'{folder}/model_best.pth.tar'])
        assert code == 2 and 'weights only' in err and '--no-resume-opt' in err
    report = (folder / 'report.json').read_bytes()
    code, _, err = run(argv)
    assert code == 2 and 'already holds a run' in err
    code, _, err = run([*argv, '--resume', 'auto'])
    assert code == 0 and 'is finished' in err and 'epoch ' not in err.partition('is finished')[0]
    assert (folder / 'report.json').read_bytes() == report


def test_an_unfinished_run_keeps_what_it_needs(run, photos, tmp_path):
    assert run([photos, '--epochs', '3', '--stop-epoch', '2', '--keep', 'best'])[0] == 0
    assert {'last.pth.tar', 'last.previous.pth.tar'} <= set(names(tmp_path / 'runs' / 'e'))


def test_a_dry_run_leaves_nothing(run, photos, tmp_path):
    before = names(tmp_path)
    assert run([photos, '--dry-run', '--output', 'deep/runs'])[0] == 0
    assert names(tmp_path) == before
    (tmp_path / 'runs' / 'e').mkdir(parents=True)
    assert run([photos, '--dry-run'])[0] == 0
    assert names(tmp_path / 'runs') == ['e'] and names(tmp_path / 'runs' / 'e') == []  # which was there before


@pytest.mark.parametrize('argv, words', [(['nowhere'], 'No such folder'), (['.', '--days', '-1'], '--days')])
def test_what_cannot_be_done_is_one_line(argv, words, capsys):
    assert main(argv) == 2
    err = capsys.readouterr().err
    assert err.startswith('error: ') and err.count('\n') == 1 and words in err
