"""SAM in the train command: the radius by epoch, the cost, what does not go with it."""
import re
from argparse import Namespace
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from timm_smalldata.build.optimizer import optimizer_of_epoch, precision
from timm_smalldata.config.sharpness import rho_schedule
from timm_smalldata.errors import UserError
from timm_smalldata.optim import SAM
from timm_smalldata.run.length import Pace, expectation, within_budget


def flags(**values):
    return Namespace(**{**dict(sam_rho=None, sam_rho_schedule=None, sam_adaptive=False), **values})


@pytest.fixture
def updates(monkeypatch):
    """Note the optimizer, rho and number of forward passes of every call to train_epoch."""
    from timm_smalldata.run import trainer
    seen = []
    train_epoch = trainer.train_epoch

    def noted(task, loader, optimizer, **kw):
        passes = [0]
        hook = task.get_trainable_module().register_forward_pre_hook(lambda *_: passes.__setitem__(0, passes[0] + 1))
        result = train_epoch(task, loader, optimizer, **kw)
        hook.remove()
        rho = (optimizer.rho, optimizer.adaptive) if isinstance(optimizer, SAM) else None
        seen.append((rho, passes[0] / len(loader)))
        return result

    monkeypatch.setattr(trainer, 'train_epoch', noted)
    return seen


# --- the schedule ---------------------------------------------------------------------------------------------------

def test_a_value_holds_from_its_epoch_on():
    args = flags(sam_rho_schedule=' 0:0.05  5:.1 60:0 61:2. ')
    radii = [rho_schedule(args).at(epoch) for epoch in (0, 4, 5, 59, 60, 61, 999)]
    assert radii == [0.05, 0.05, 0.1, 0.1, 0.0, 2.0, 2.0]
    assert [rho_schedule(flags(sam_rho=0.3)).at(epoch) for epoch in (0, 9)] == [0.3, 0.3]
    assert not any(map(rho_schedule, (flags(), flags(sam_rho=0.0), flags(sam_rho_schedule='0:0 3:0'))))


@pytest.mark.parametrize('text, words', [
    ('', 'from epoch 0'), ('0.05', "'0.05'"), ('1:0.1', 'from epoch 0'), ('0:0.1 5', "'5'"), ('0:1, 5:2', "'0:1,'"),
    ('0:0.1 5:-1', "'5:-1'"), ('0:nan', "'0:nan'"), ('0:1e400', "'0:1e400'"), ('0:0.1 5:0.2 5:0.3', '5 comes after'),
    ('0:0.1 7:0.2 5:0.3', '5 comes after epoch 7'), ('-1:0.1', "'-1:0.1'"), ('0:0.1 1.5:2', "'1.5:2'"),
    ('0:0.1 ٣:2', '٣'), ('0:inf', "'0:inf'"), ('0: 0.1', "'0:'")])
def test_a_schedule_that_is_none(text, words):
    with pytest.raises(UserError, match='--sam-rho-schedule') as error:
        rho_schedule(flags(sam_rho_schedule=text))
    assert words in str(error.value) and 'EPOCH:RHO' in str(error.value) and '\n' not in str(error.value)


def test_where_rho_is_zero_the_base_steps_alone():
    args = flags(sam_rho_schedule='0:0 2:0.3', sam_adaptive=True)
    optimizer = SAM.wrap(torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], lr=1.0), 7.0)
    assert optimizer_of_epoch(args, optimizer, 1) is optimizer.base
    assert optimizer_of_epoch(args, optimizer, 2) is optimizer and (optimizer.rho, optimizer.adaptive) == (0.3, True)
    assert optimizer_of_epoch(args, optimizer.base, 2) is optimizer.base


# --- a run ----------------------------------------------------------------------------------------------------------

def test_sam_trains_with_two_passes(run, photos, updates, tmp_path):
    argv = [photos, '--epochs', '2', '--drop', '0.2', '--mixup', '0.3', '--clip-grad', '1']
    code, _, err = run([*argv, '--sam-rho', '0.05'])
    assert code == 0 and 'sam-rho=0.05' in err
    assert updates == [((0.05, False), 2.0)] * 2
    assert run([*argv, '--experiment', 'plain'])[0] == 0 and updates[2:] == [(None, 1.0)] * 2
    assert run([*argv, '--experiment', 'zero', '--sam-rho', '0'])[0] == 0 and updates[4:] == [(None, 1.0)] * 2
    a, b, c = (load_file(tmp_path / f'runs/{name}/model/model.safetensors') for name in ('e', 'plain', 'zero'))
    assert any(not torch.equal(a[name], b[name]) for name in b) and all(torch.equal(b[name], c[name]) for name in b)


def test_rho_by_epoch_is_told_and_paid_for(run, photos, updates):
    code, _, err = run([photos, '--epochs', '4', '--sam-rho-schedule', '0:0.05 1:0 2:0.1', '--sam-adaptive'])
    assert code == 0
    assert re.findall(r'epoch (\d): rho (\S+) \(--sam-rho-schedule\)', err) == [('1', '0.05'), ('2', '0'), ('3', '0.1')]
    assert updates == [((0.05, True), 2.0), (None, 1.0), ((0.1, True), 2.0), ((0.1, True), 2.0)]


def test_a_resumed_run_has_the_rho_of_its_epoch(run, photos, updates):
    argv = [photos, '--epochs', '3', '--sam-rho-schedule', '0:0.05 2:0.5']
    assert run([*argv, '--stop-epoch', '1'])[0] == 0
    assert run([*argv, '--resume', 'auto'])[0] == 0
    assert [rho for rho, _ in updates] == [(0.05, False), (0.05, False), (0.5, False)]


def test_other_settings_on_a_resumed_run(run, photos, updates):
    argv = [photos, '--epochs', '3']
    assert run([*argv, '--sam-rho-schedule', '0:0.05 2:0.5', '--stop-epoch', '1'])[0] == 0
    code, _, err = run([*argv, '--sam-rho', '0.2', '--resume', 'auto'])
    assert code == 2 and '--sam-rho None -> 0.2' in err and '--force' in err
    argv += ['--resume', 'auto', '--force']
    code, _, err = run([*argv, '--sam-rho', '0.2', '--sam-adaptive', '--stop-epoch', '2'])
    assert code == 0 and '(--sam-rho-schedule)' not in err
    assert run([*argv, '--sam-rho', '0', '--no-sam-adaptive'])[0] == 0
    assert [rho for rho, _ in updates] == [(0.05, False), (0.2, True), None]


def test_settings_that_a_run_wrote_start_it_again(run, photos, updates, tmp_path):
    assert run([photos, '--sam-rho-schedule', '0:0.05'])[0] == 0
    assert run(['-c', tmp_path / 'runs/e/args.yaml', '--experiment', 'again'])[0] == 0
    assert updates == [((0.05, False), 2.0)] * 2


@pytest.mark.parametrize('more', [
    ['--opt', 'muon'], ['--opt', 'lamb'], ['--amp'], ['--layer-decay', '0.7', '--model-ema', '--sched', 'poly'],
    ['--torchcompile', 'eager', '--model', 'test_resnet'], ['--loss', 'class-balanced-ce']],
    ids=lambda flags: flags[0] + flags[1] if len(flags) > 1 else flags[0])
def test_what_goes_with_sam(run, photos, updates, more):
    argv = [photos, '--sam-rho', '0.05', '--sam-adaptive', *more]
    code, _, err = run(argv)
    assert code == 0, err
    assert updates[0] == ((0.05, True), 2.0)


# --- what it costs --------------------------------------------------------------------------------------------------

def test_a_measured_step_makes_both_passes(run, photos, monkeypatch):
    """`measure` runs the passes that an update makes, on a copy."""
    from timm_smalldata.run import measure
    counts = {}
    create = measure.create_optimizer

    def created(args, module):
        counts[args.experiment] = 0

        def count(*_):
            counts[args.experiment] += torch.is_grad_enabled()

        module.register_forward_pre_hook(count)
        return create(args, module)

    monkeypatch.setattr(measure, 'create_optimizer', created)
    assert run([photos, '--dry-run', '--experiment', 'plain'])[0] == 0
    assert run([photos, '--dry-run', '--experiment', 'sam', '--sam-rho', '0.05'])[0] == 0
    assert counts['plain'] > 0 and counts['sam'] == 2 * counts['plain']


@pytest.mark.parametrize('values, epochs, told', [
    (dict(sam_rho=0.1), 9, '10.0 s per epoch, 9 epochs: 1 min 30 s'),
    (dict(sam_rho_schedule='0:0 5:0.1'), 12, '10.0 s per epoch, 12 epochs: 1 min 35 s'),  # five epochs of half
    (dict(), 9, '10.0 s per epoch, 9 epochs: 1 min 30 s')])
def test_the_announced_time_counts_passes(values, epochs, told):
    from timm_smalldata.config.settings import Settings
    args = flags(val_interval=1, time_budget='100s', probe_interval=None, task='classification', warmup_prefix=False,
                 **values)
    pace = Pace(step=1.0, eval=0.0, batches=10, val_batches=0, last=0)
    job = SimpleNamespace(args=args, settings=Settings(), say=print)
    args.epochs = within_budget(job, pace, spent=0.0)['epochs']
    assert args.epochs == epochs and told in expectation(args, pace)


# --- what does not go on --------------------------------------------------------------------------------------------

@pytest.mark.parametrize('argv, words', [
    (['--sam-rho', '-0.1'], ['--sam-rho -0.1', 'at least 0']), (['--sam-rho', 'nan'], ['--sam-rho', 'finite']),
    (['--sam-adaptive'], ['--sam-adaptive goes with --sam-rho']),
    (['--sam-global', '--sam-rho', '0'], ['--sam-global goes with --sam-rho']),
    (['--sam-rho', '0.1', '--sam-rho-schedule', '0:0.1'], ['--sam-rho 0.1 contradicts --sam-rho-schedule 0:0.1']),
    (['--sam-rho-schedule', '0:0.1 x'], ["--sam-rho-schedule '0:0.1 x'", "'x'", 'EPOCH:RHO']),
    (['--sam-rho-schedule', '0:0.1 1:0.2'], ['epoch 1 lies beyond the run', 'last epoch is 0']),
    (['--sam-rho', '0.1', '--amp', '--amp-dtype', 'float16'], ['float16', 'bfloat16'])])
def test_bad_input(run, photos, argv, words):
    code, _, err = run([photos, *argv])
    line = err.strip().splitlines()[-1]
    assert code == 2 and 'Traceback' not in err and line.startswith('error:')
    assert all(word in line for word in words), line


def test_no_gradient_scaler_on_a_gpu():
    args = flags(amp=True, amp_dtype='float16', sam_rho=0.1)
    with pytest.raises(UserError, match='float16.*SAM.*bfloat16'):
        precision(args, torch.device('cuda'))
    assert precision(flags(amp=True, amp_dtype='bfloat16', sam_rho=0.1), torch.device('cuda'))[1] is None
