"""Stop and go: a run that was killed anywhere ends as the unbroken one, with fewer updates than starting again."""
import json
import os
import signal
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import torch
import yaml

sys.path.insert(0, str(Path(__file__).parents[1] / 'helpers'))
import kill_and_resume as harness  # noqa: E402
from kill_and_resume import TASKS, call, command, differences, dying, report_of, saved_epochs  # noqa: E402

from timm_smalldata.engine import checkpoint  # noqa: E402
from timm_smalldata.run.starts import read_starts  # noqa: E402


def leave_half(path, **kwargs):
    """What a kill in the middle of writing leaves: the beginning of a file beside its place."""
    path.with_name(f'.{path.name}.1.tmp').write_bytes(b'half')


def writes(name):
    return lambda path, **kwargs: path.name == name


# Where the process dies, and how many epochs are saved by then. A death is a function called for the n-th time.
DEATHS = {
    'in the middle of epoch 1': (None, 1),
    'during an evaluation': (lambda: dying('timm_smalldata.run.trainer.Trainer.validate', 2), 1),
    'before a save': (lambda: dying('timm_smalldata.engine.checkpoint.save_epoch', 2), 1),
    'while the best is saved': (
        lambda: dying('timm_smalldata.engine.checkpoint.open_atomic', 2, writes('model_best.pth.tar'), leave_half), 1),
    'while the last is saved': (
        lambda: dying('timm_smalldata.engine.checkpoint.open_atomic', 2, writes('last.pth.tar'), leave_half), 1),
    'after a save': (lambda: dying('timm_smalldata.run.trainer.write_summary', 3), 2),
    'before the export': (lambda: dying('timm_smalldata.run.finish.export_model'), 3),
    'before the report': (lambda: dying('timm_smalldata.run.finish.write_report'), 3),
}


CASES = [pytest.param(name, extra, death, id=f'{name}-{death}') for name, extra in TASKS for death in DEATHS]


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    """A folder with photographs, and the unbroken run of each task with its number of updates."""
    folder, back = tmp_path_factory.mktemp('resume'), os.getcwd()
    os.chdir(folder)
    harness.make_data(folder)
    totals = {}
    for name, extra in TASKS:
        code, totals[name] = call(command(extra, name))
        assert code == 0
    yield folder, totals
    os.chdir(back)


@pytest.fixture(autouse=True)
def here(place, monkeypatch):
    monkeypatch.chdir(place[0])


@pytest.mark.parametrize('name, extra, death', CASES)
def test_a_killed_run_ends_as_the_unbroken_one(place, request, name, extra, death):
    folder, totals = place
    experiment = request.node.name
    run, per_epoch = folder / 'runs' / experiment, totals[name] // harness.EPOCHS
    fatal, saved = DEATHS[death]
    code, before = call(command(extra, experiment), *([fatal()] if fatal else []),
                        die_after=None if fatal else per_epoch + per_epoch // 2)
    assert code is None and not (run / 'report.json').exists()  # it died, with work left to do
    assert saved_epochs(run) == saved and before >= saved * per_epoch

    code, updates = call(command(extra, experiment, '--resume', 'auto'))
    assert code == 0
    assert updates == totals[name] - saved * per_epoch < totals[name]
    assert differences(run, folder / 'runs' / name) == []
    assert not [path for path in run.rglob('.*') if path.name.endswith('.tmp')]
    starts = report_of(run)['timing']['starts']
    assert [start['first_update'] for start in starts] == [0, saved * per_epoch]
    assert starts[0]['last_update'] == before - (2 if fatal is None else 1)  # killed inside its last update, or later
    assert starts[1]['last_update'] == (totals[name] - 1 if updates else None)
    assert [harness.finished(start) for start in starts] == [before - (fatal is None), updates]


def test_two_unbroken_runs_are_equal_and_another_seed_is_not(place):
    """Without this, equality after a kill would prove little."""
    folder, _ = place
    name, extra = TASKS[0]
    assert call(command(extra, 'again'))[0] == 0
    assert differences(folder / 'runs' / 'again', folder / 'runs' / name) == []
    assert call(command(extra, 'seed', '--seed', '43'))[0] == 0
    found = differences(folder / 'runs' / 'seed', folder / 'runs' / name)
    assert 'summary.csv' in found and any(what.startswith('tensor') for what in found)


def test_killed_twice_and_stopped_in_between(place):
    folder, totals = place
    name, extra = TASKS[1]
    per_epoch = totals[name] // harness.EPOCHS
    assert call(command(extra, 'twice'), die_after=1) == (None, 1)  # nothing is saved yet
    assert call(command(extra, 'twice', '--resume', 'auto', '--stop-epoch', '1')) == (0, per_epoch)
    assert call(command(extra, 'twice', '--resume', 'auto'), die_after=per_epoch + 1) == (None, per_epoch + 1)
    assert call(command(extra, 'twice', '--resume', 'auto')) == (0, per_epoch)
    assert differences(folder / 'runs' / 'twice', folder / 'runs' / name) == []
    assert report_of(folder / 'runs' / 'twice')['timing']['starts'] == [  # the first died inside its first update
        dict(first_update=0, last_update=None), dict(first_update=0, last_update=per_epoch - 1),
        dict(first_update=per_epoch, last_update=2 * per_epoch - 1),
        dict(first_update=2 * per_epoch, last_update=3 * per_epoch - 1)]


def test_a_run_goes_on_in_another_folder(place):
    folder, totals = place
    name, extra = TASKS[0]
    per_epoch = totals[name] // harness.EPOCHS
    assert call(command(extra, 'here'), die_after=per_epoch + 2)[0] is None
    assert call(command(extra, 'there', '--resume', 'runs/here')) == (0, totals[name] - per_epoch)
    assert differences(folder / 'runs' / 'there', folder / 'runs' / name) == []
    assert report_of(folder / 'runs' / 'there')['timing']['starts'] == [
        dict(first_update=0, last_update=per_epoch), dict(first_update=per_epoch, last_update=totals[name] - 1)]


def test_workers_and_what_is_only_shown_may_change(place):
    folder, totals = place
    name, extra = TASKS[0]
    assert call(command(extra, 'workers', '--stop-epoch', '2'))[0] == 0
    code, updates = call(command(extra, 'workers', '--resume', 'auto', '--workers', '1', '--log-interval', '1',
                                 '--validation-batch-size', '64'))
    assert (code, updates) == (0, totals[name] // harness.EPOCHS)
    assert differences(folder / 'runs' / 'workers', folder / 'runs' / name) == []


@pytest.mark.parametrize('change, named', [
    (['--lr', '0.5'], {'--lr 0.000125 -> 0.5'}), (['--epochs', '5'], {'--epochs 3 -> 5'}),
    (['--seed', '1'], {'--seed 42 -> 1'}), (['--smoothing', '0.1'], {'--smoothing 0.0 -> 0.1'}),
    (['--no-model-ema'], {'--model-ema True -> False'}), (['--val-fraction', '0.2'], {'--val-fraction None -> 0.2'}),
    (['--mixup', '0', '--batch-size', '6'], {'--mixup 0.8 -> 0.0', '--batch-size 4 -> 6'}),
])
def test_changed_arguments_are_refused_by_name(place, capsys, change, named):
    if not Path('runs/changed').exists():
        assert call(command(TASKS[0][1], 'changed', '--stop-epoch', '1'))[0] == 0
    before = Path('runs/changed/last.pth.tar').read_bytes()
    words = command(TASKS[0][1], 'changed', '--resume', 'auto', *change)
    capsys.readouterr()
    assert call(words) == (2, 0)
    error = capsys.readouterr().err.strip().splitlines()[-1]
    start, end = 'error: The run was started with other settings: ', '. Leave them out to continue it'
    assert error.startswith(start) and end in error
    assert set(error[len(start):error.index(end)].split('; ')) == named
    assert Path('runs/changed/last.pth.tar').read_bytes() == before


def test_changed_arguments_are_allowed_by_force(place, capsys):
    extra = TASKS[0][1]
    assert call(command(extra, 'forced', '--stop-epoch', '1'))[0] == 0
    capsys.readouterr()
    code, updates = call(command(extra, 'forced', '--resume', 'auto', '--lr', '0.01', '--force'))
    assert code == 0 and updates
    assert 'resuming with changed settings (--force): --lr ' in capsys.readouterr().err
    assert differences(Path('runs/forced'), Path('runs') / TASKS[0][0])
    assert yaml.safe_load(Path('runs/forced/args.yaml').read_text())['lr'] == 0.01
    rows = Path('runs/forced/summary.csv').read_text().splitlines()
    lr = [float(row.rsplit(',', 1)[1]) for row in rows[1:]]  # cosine from 0.01 at epochs 1 and 2 of 3
    assert lr[1] == pytest.approx(0.01 * 0.25, rel=0.5) and lr[1] > 10 * lr[0]


def test_a_run_is_made_longer_by_force(place):
    name, extra = TASKS[1]
    total = place[1][name]
    assert call(command(extra, 'longer'))[0] == 0
    code, updates = call(command(extra, 'longer', '--resume', 'auto', '--epochs', '5', '--force'), die_after=3)
    assert code is None and updates == 3
    code, updates = call(command(extra, 'longer', '--resume', 'auto', '--epochs', '5'))  # its old report does not count
    assert (code, updates) == (0, total // harness.EPOCHS)
    assert len(Path('runs/longer/summary.csv').read_text().splitlines()) == 6


@pytest.mark.parametrize('name, extra', TASKS, ids=[name for name, _ in TASKS])
def test_what_is_left_out_is_as_it_was(place, name, extra):
    """The name of the run is enough: everything else lies in its checkpoint."""
    folder, totals = place
    assert call(command(extra, f'few-{name}', '--stop-epoch', '1'))[0] == 0
    code, updates = call(['--output', 'runs', '--experiment', f'few-{name}', '--resume', 'auto'])
    assert (code, updates) == (0, totals[name] * 2 // harness.EPOCHS)
    assert differences(folder / 'runs' / f'few-{name}', folder / 'runs' / name) == []


@pytest.mark.parametrize('more', [[], ['--device', 'auto', '--cache-size', 'auto']], ids=['left out', 'auto'])
def test_what_auto_meant_is_kept(place, monkeypatch, capsys, more):
    """Even where it would mean something else by now: another device, another size of the cache."""
    name, extra = TASKS[1]
    argv = [*command(extra, f'auto-{len(more)}'), *more]
    at = argv.index('--device')
    del argv[at:at + 2]
    monkeypatch.setattr('torch.cuda.is_available', lambda: False)
    monkeypatch.setattr('torch.backends.mps.is_available', lambda: False)
    assert call([*argv, '--stop-epoch', '1'])[0] == 0
    run = Path('runs') / f'auto-{len(more)}'
    settings = yaml.safe_load((run / 'args.yaml').read_text())
    assert (settings['device'], settings['cache_size']) == ('cpu', 'full')
    monkeypatch.setattr('torch.backends.mps.is_available', lambda: True)
    monkeypatch.setattr('timm_smalldata.data.stored.FULL_SIZE_LIMIT', 100)
    assert call([*argv, '--resume', 'auto'])[0] == 0
    assert differences(run, place[0] / 'runs' / name) == []
    settings = yaml.safe_load((run / 'args.yaml').read_text())
    assert (settings['device'], settings['cache_size']) == ('cpu', 'full')


def test_a_device_that_is_gone_is_an_error_that_names_the_way_on(place, capsys):
    name, extra = TASKS[1]
    argv = command(extra, 'gone-device')
    assert call([*argv, '--stop-epoch', '1'])[0] == 0
    path = Path('runs/gone-device/last.pth.tar')
    state = checkpoint.load(path)
    state['args'].device, state['given'] = 'mps', {**state['given'], 'device': 'auto'}
    checkpoint.save(state, path)
    at = argv.index('--device')
    without = [*argv[:at], *argv[at + 2:]]
    for words in (without, [*without, '--device', 'auto']):
        assert call([*words, '--resume', 'auto']) == (2, 0)
        error = capsys.readouterr().err.strip().splitlines()[-1]
        assert error.startswith('error: The run was started on mps, and this machine has no such device')
        assert error.endswith('by --device cpu --force.')
    assert call([*argv, '--resume', 'auto']) == (2, 0)
    assert 'other settings: --device mps -> cpu.' in capsys.readouterr().err
    assert call([*argv, '--resume', 'auto', '--force'])[0] == 0
    assert 'changed settings (--force): --device mps -> cpu' in capsys.readouterr().err


def test_changed_images_are_refused(place, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    harness.make_data(tmp_path)
    extra = TASKS[0][1]
    assert call(command(extra, 'data', '--stop-epoch', '1'))[0] == 0
    victim = next(name for name in json.loads(Path('runs/data/split.json').read_text())['split']['train'])
    Path('photos', victim).write_bytes(next(Path('photos').rglob('*.png')).read_bytes() + b'more')
    assert call(command(extra, 'data', '--resume', 'auto')) == (2, 0)
    assert 'The training images are not those that the run was started with' in capsys.readouterr().err
    assert call(command(extra, 'data', '--resume', 'auto', '--force'))[0] == 0


@pytest.mark.parametrize('length', [['--epochs', '2'], ['--time-budget', '1s']], ids=['epochs', 'time budget'])
def test_args_yaml_makes_the_same_run_again(place, length):
    name, run, argv = 'yaml' + length[1], Path('runs'), command(TASKS[1][1], 'yaml' + length[1])
    at = argv.index('--epochs')
    assert call([*argv[:at], *length, *argv[at + 2:]])[0] == 0
    assert call(['-c', f'runs/{name}/args.yaml', '--experiment', f'{name}-again'])[0] == 0
    assert differences(run / f'{name}-again', run / name) == []


def test_a_run_is_not_overwritten_without_a_word(place, capsys):
    name, extra = TASKS[0]
    before = {path: path.read_bytes() for path in Path('runs', name).rglob('*') if path.is_file()}
    assert call(command(extra, name)) == (2, 0)
    assert 'already holds a run: continue it with --resume auto, or choose another' in capsys.readouterr().err
    assert {path: path.read_bytes() for path in Path('runs', name).rglob('*') if path.is_file()} == before


def test_a_finished_run_stays_as_it_is(place, capsys):
    name, extra = TASKS[0]
    before = {path: path.read_bytes() for path in Path('runs', name).rglob('*') if path.is_file()}
    assert call(command(extra, name, '--resume', 'auto')) == (0, 0)
    assert f'runs/{name} is finished' in capsys.readouterr().err
    assert {path: path.read_bytes() for path in Path('runs', name).rglob('*') if path.is_file()} == before


@pytest.mark.parametrize('gone', ['report.json', 'model', 'summary.csv', 'per_class.csv', 'split.json'])
def test_what_is_derived_is_made_again(place, gone):
    """last.pth.tar is the truth; a file that was lost comes back without training, where the run was not finished."""
    folder, _ = place
    name, extra = TASKS[0]
    run = folder / 'runs' / f'gone-{gone}'
    assert call(command(extra, run.name), dying('timm_smalldata.run.finish.write_report'))[0] is None
    path = run / gone
    if path.is_dir():
        for file in path.iterdir():
            file.unlink()
    else:
        path.unlink(missing_ok=True)
    assert call(command(extra, run.name, '--resume', 'auto')) == (0, 0)
    assert differences(run, folder / 'runs' / name) == []


def test_stages_that_are_finished_are_not_trained_again(place):
    folder, _ = place
    argv = ['photos', '--recipe', 'fixres', '--model', 'test_vit', '--batch-size', '4', '--device', 'cpu',
            '--workers', '0', '--output', 'runs', '--low.epochs', '2', '--high.epochs', '2', '--low.img-size', '32',
            '--high.img-size', '48']
    code, total = call([*argv, '--experiment', 'stages'])
    per_epoch = total // 4
    assert code == 0 and per_epoch
    argv += ['--experiment', 'stages-killed']
    assert call(argv, die_after=3 * per_epoch + 1) == (None, 3 * per_epoch + 1)  # in the last epoch of the second stage
    assert call(argv) == (0, per_epoch)
    for stage in ('1-low', '2-high'):
        assert differences(folder / 'runs' / 'stages-killed' / stage, folder / 'runs' / 'stages' / stage) == []
    assert call(argv) == (0, 0)


# --- torn files -----------------------------------------------------------------------------------------------------

def tear(path):
    path.write_bytes(path.read_bytes()[:path.stat().st_size // 2])


@pytest.mark.parametrize('how', ['torn', 'empty', 'gone'])
def test_a_torn_checkpoint_falls_back_to_the_one_before(place, how):
    folder, totals = place
    name, extra = TASKS[0]
    run, per_epoch = folder / 'runs' / f'{how}', totals[name] // harness.EPOCHS
    assert call(command(extra, run.name, '--stop-epoch', '2'))[0] == 0
    last = run / 'last.pth.tar'
    tear(last) if how == 'torn' else last.write_bytes(b'') if how == 'empty' else last.unlink()
    assert saved_epochs(run) == 1
    assert call(command(extra, run.name, '--resume', 'auto')) == (0, 2 * per_epoch)
    assert differences(run, folder / 'runs' / name) == []


def test_a_second_kill_after_a_torn_checkpoint_still_leaves_a_whole_one(place):
    """The torn file must not push out the whole one before it while the next is being written."""
    folder, totals = place
    name, extra = TASKS[0]
    run = folder / 'runs' / 'torn-and-killed'
    assert call(command(extra, run.name, '--stop-epoch', '2'))[0] == 0
    tear(run / 'last.pth.tar')
    fatal = dying('timm_smalldata.engine.checkpoint.open_atomic', 1, writes('last.pth.tar'), leave_half)
    assert call(command(extra, run.name, '--resume', 'auto'), fatal)[0] is None
    assert saved_epochs(run) == 1
    assert call(command(extra, run.name, '--resume', 'auto'))[0] == 0
    assert differences(run, folder / 'runs' / name) == []


def test_two_torn_checkpoints_are_an_error(place, capsys):
    run = place[0] / 'runs' / 'both-torn'
    assert call(command(TASKS[0][1], run.name, '--stop-epoch', '2'))[0] == 0
    tear(run / 'last.pth.tar'), tear(run / 'last.previous.pth.tar')
    assert call(command(TASKS[0][1], run.name, '--resume', 'auto')) == (2, 0)
    assert 'is not a readable checkpoint' in capsys.readouterr().err


def test_the_best_is_found_where_its_file_is_torn(place):
    run = place[0] / 'runs' / 'best'
    assert call(command(TASKS[0][1], run.name, '--stop-epoch', '2'))[0] == 0
    tear(run / 'model_best.pth.tar')
    assert checkpoint.load_best(run, 0)['epoch'] == 0 and checkpoint.load_best(run, 1) is None


def test_the_best_weights_that_are_gone_are_an_error(place, capsys):
    extra = [*TASKS[0][1], '--eval-metric', 'top1']  # 100 % from epoch 0 on; the first of equals is the best
    run = place[0] / 'runs' / 'best-gone'
    assert call(command(extra, run.name), dying('timm_smalldata.engine.checkpoint.restore_selected'))[0] is None
    assert checkpoint.load_last(run)['best']['epoch'] < harness.EPOCHS - 1
    for path in run.glob('model_best*'):
        path.unlink()
    assert call(command(extra, run.name, '--resume', 'auto')) == (2, 0)
    assert '--select last' in capsys.readouterr().err


def test_a_checkpoint_is_plain_data(place):
    """It is read without running code from it, by torch and by timm."""
    import timm
    from timm.models import clean_state_dict, load_checkpoint
    path = place[0] / 'runs' / TASKS[1][0] / 'last.pth.tar'
    state = checkpoint.load(path)
    assert state['arch'] == 'test_resnet' and state['epoch'] == harness.EPOCHS - 1 and state['classes']['names'] == [
        'ant', 'bee', 'cat']
    model = timm.create_model('test_resnet', num_classes=3)
    load_checkpoint(model, str(path))
    weights = clean_state_dict(state['state_dict'])
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize('path, message', [
    ('nope.pth.tar', 'No such checkpoint: nope.pth.tar'), ('photos', '--resume photos: no checkpoint')])
def test_a_checkpoint_to_resume_that_is_not_there(place, capsys, path, message):
    assert call(command(TASKS[0][1], 'x', '--resume', path)) == (2, 0)
    assert message in capsys.readouterr().err


# --- signals --------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize('kind', [signal.SIGTERM, signal.SIGINT])
def test_a_signal_spoils_nothing_and_prints_the_command_that_continues(place, request, capsys, kind):
    folder, totals = place
    name, extra = TASKS[0]
    per_epoch = totals[name] // harness.EPOCHS
    experiment = f'signal-{kind}'

    def shoot(count):
        if count == per_epoch + 1:
            os.kill(os.getpid(), kind)

    request.addfinalizer(partial(signal.signal, signal.SIGINT, signal.getsignal(signal.SIGINT)))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts background jobs deaf to it
    handler = signal.getsignal(signal.SIGTERM)
    with harness.counted_updates(shoot):
        assert harness.train_smalldata.main(command(extra, experiment)) == 130
    assert signal.getsignal(signal.SIGTERM) == handler
    said = capsys.readouterr().err.strip().splitlines()
    assert said[-2] == 'interrupted; nothing that was saved is lost. Continue with:'
    words = said[-1].split()
    assert words[:2] == ['python', 'train_smalldata.py'] and words[-2:] == ['--resume', 'auto']
    assert call(words[2:]) == (0, totals[name] - per_epoch)
    assert differences(folder / 'runs' / experiment, folder / 'runs' / name) == []


def test_the_harness_sees_a_difference(place, tmp_path):
    """A changed tensor, a changed table and a changed number in the report are each found."""
    import shutil

    from safetensors.torch import load_file, save_file
    reference, copy = place[0] / 'runs' / TASKS[0][0], tmp_path / 'copy'
    shutil.copytree(reference, copy)
    assert differences(copy, reference) == []
    tensors = load_file(copy / 'model' / 'model.safetensors')
    name = sorted(tensors)[0]
    tensors[name] = tensors[name] + 1e-6
    save_file(tensors, copy / 'model' / 'model.safetensors')
    (copy / 'summary.csv').write_text((copy / 'summary.csv').read_text() + '\n')
    (copy / 'report.json').write_text(json.dumps({**report_of(copy), 'top1': -1}))
    assert differences(copy, reference) == [f'tensor {name}', 'summary.csv', 'report top1']


def test_a_process_that_is_really_killed(place):
    """The long form of the harness, once; `tests/helpers/kill_and_resume.py --sigkill N` does it N times a task."""
    folder, totals = place
    name, extra = TASKS[1]
    argv = command(extra, 'sigkill', '--resume', 'auto')
    process, counter = harness.start(folder, argv)
    while process.poll() is None and counter.stat().st_size <= 2 * totals[name] // harness.EPOCHS:
        time.sleep(0.002)  # in the third epoch: the checkpoint of the first one was waited for before the second
    process.kill()
    assert process.wait() == -signal.SIGKILL
    saved, counted = saved_epochs(folder / 'runs' / 'sigkill'), counter.stat().st_size
    assert saved >= 1
    assert harness.wrong_record([], read_starts(folder / 'runs' / 'sigkill'), 0, counted) == []
    updates = harness.finish(folder, argv)
    assert updates == totals[name] - saved * totals[name] // harness.EPOCHS < totals[name]
    starts = report_of(folder / 'runs' / 'sigkill')['timing']['starts']
    assert [start['first_update'] for start in starts] == [0, totals[name] - updates]
    assert counted - harness.finished(starts[0]) in (0, 1) and harness.finished(starts[1]) == updates
    assert differences(folder / 'runs' / 'sigkill', folder / 'runs' / name) == []


@pytest.mark.parametrize('dies, code', [(True, 0), (False, 1)])
def test_the_harness_fails_where_nothing_was_killed(monkeypatch, capsys, dies, code):
    """A run that was never killed is equal, and proves nothing."""
    monkeypatch.setattr(harness, 'make_data', lambda folder: None)
    monkeypatch.setattr(harness, 'finish', lambda *args, **kwargs: 0)
    monkeypatch.setattr(harness, 'kill_at_random', lambda *args: harness.Kill(dies, 0))
    monkeypatch.setattr(harness, 'saved_epochs', lambda folder: 0)
    monkeypatch.setattr(harness, 'read_starts', lambda folder: [])
    monkeypatch.setattr(harness, 'differences', lambda *args: [])
    monkeypatch.setattr(harness, 'report_of', lambda folder: dict(timing=dict(starts=[dict(
        first_update=0, last_update=None)])))
    assert harness.sigkill(2, 0, only=['dino']) == code
    said = capsys.readouterr().out
    assert ('dino: 0 kills, and 2 were to be' in said) == (not dies)
    assert f'{6 * dies} kills in 2 runs: all equal' in said
