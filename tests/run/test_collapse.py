"""The alarm for collapsed runs: each symptom, how long it takes, runs that are forced to collapse, and healthy ones."""
import json
import math
from functools import partial

import pytest
import timm
import torch

from timm_smalldata.data.views import ViewSpec
from timm_smalldata.run.collapse import Alarm, spread
from timm_smalldata.task import DINOTask

HEALTHY = dict(train_loss=5.0, train_feature_spread=0.2, train_teacher_entropy=5.0, train_teacher_kl_uniform=1.9,
               train_teacher_mean_entropy=6.5)
SICK = {
    'the features of all images are the same': dict(train_feature_spread=9e-4),
    'that of the uniform distribution': dict(train_teacher_kl_uniform=0.009),
    'the teacher answers the same to every image': dict(train_teacher_mean_entropy=5.009),
    'a model that knows nothing': dict(train_loss=5.98),
}


def history(*sick):
    """Epochs, sick or not."""
    return [{**HEALTHY, 'epoch': number, **change} for number, change in enumerate(sick)]


@pytest.mark.parametrize('words, change', SICK.items())
def test_each_symptom_and_how_long_it_takes(words, change):
    alarm = Alarm(epochs=20, warmup=2, updates=50, chance=6.0)
    wait = 6 if 'knows nothing' in words else 3  # 300 updates, or 3 epochs
    rows = history(*[change] * 12)
    rang = [alarm(rows[:n]) for n in range(13)]
    assert rang[:2 + wait] == [None] * (2 + wait) and all(rang[2 + wait:])  # the warm-up does not count
    assert words in rang[2 + wait] and f'epoch {2 + wait}: for {wait} epochs ' in rang[2 + wait]
    assert '\n' not in rang[-1]
    broken = history(*[change] * 3, {}, *[change] * (wait - 1))
    assert alarm(broken) is None and alarm([*broken, {**broken[-1], 'epoch': len(broken)}])


@pytest.mark.parametrize('epochs, updates, lasting, long', [(800, 8, 80, 200), (20, 10, 10, 30), (10, 5000, 3, 3)])
def test_windows_follow_the_run(epochs, updates, lasting, long):
    alarm = Alarm(epochs, 0, updates)
    assert (alarm.lasting, alarm.long) == (lasting, long)


def test_nothing_to_say():
    alarm = Alarm(10, 0, 100, chance=6.0)
    assert alarm([]) is None and alarm(history(*[{}] * 10)) is None
    assert Alarm(10, 0, 100)(history(*[dict(train_loss=99.0)] * 10)) is None  # a loss without a number for chance
    plain = [dict(epoch=n, train_loss=0.4) for n in range(10)]  # a history without what tells a collapse
    assert alarm(plain) is None
    assert alarm(history(*[dict(train_feature_spread=math.nan)] * 10)) is None


def test_spread_against_distances():
    """Half the mean square distance of two images, over the mean square length."""
    features = torch.randn(9, 4, generator=torch.Generator().manual_seed(0)) + 3
    pairs = sum((a - b).square().sum() for a in features for b in features) / 81
    assert spread(features) == pytest.approx(math.sqrt(pairs / 2 / features.square().sum(1).mean()), rel=1e-5)
    assert spread(1000 * features) == pytest.approx(spread(features)) and spread(torch.full((4, 3), 7.0)) == 0


# --- runs -----------------------------------------------------------------------------------------------------------

def trained(updates=200, **kw):
    """Return the history of DINO on noise whose brightness two views roughly share, 10 updates an epoch."""
    torch.manual_seed(0)
    model = timm.create_model('test_vit', num_classes=0, img_size=16, patch_size=8, dynamic_img_size=True)
    task = DINOTask(
        model, out_dim=64, local_crops=1, local_size=8, momentum=(0.9, 1), teacher_temp=0.04, verbose=False, **kw)
    task.configure(view=ViewSpec(16))
    optimizer = torch.optim.AdamW(task.get_trainable_module().parameters(), lr=1e-3, weight_decay=0.04)
    task.begin(updates // 10, 10, optimizer)
    task.train()
    rows = []
    for epoch in range(updates // 10):
        task.set_epoch(epoch)
        means = dict.fromkeys(('loss', 'teacher_entropy', 'teacher_kl_uniform', 'teacher_mean_entropy'), 0.)
        for update in range(10 * epoch, 10 * epoch + 10):
            shared = torch.randn(8, 3, 1, 1)
            result = task([
                shared + 0.5 * torch.randn(8, 3, 1, 1) + torch.randn(8, 3, size, size) for size in (16, 16, 8)])
            optimizer.zero_grad()
            result['loss'].backward()
            task.after_backward(update)
            optimizer.step()
            task.after_step(update)
            means = {name: value + result[name].item() / 10 for name, value in means.items()}
        rows.append(dict(epoch=epoch, **{f'train_{name}': value for name, value in means.items()}))
    return rows


@pytest.fixture
def small_head(monkeypatch):
    from timm_smalldata.task import dino
    monkeypatch.setattr(dino, 'ProjectionHead', partial(dino.ProjectionHead, hidden_dim=64, bottleneck_dim=32))


@pytest.mark.parametrize('broken, words', [
    (dict(centering=False), 'the teacher answers the same to every image'),
    (dict(sharpening=False), 'the entropy of the teacher is that of the uniform distribution')])
def test_half_of_dino_collapses_within_200_updates(small_head, broken, words):
    """10 updates an epoch, so 10 epochs are waited for. The loss would not say it: without centring it is nearly 0."""
    rows, alarm = trained(**broken), Alarm(20, 0, 10)
    assert words in alarm(rows)


def test_whole_dino_is_healthy(small_head):
    rows, alarm = trained(), Alarm(20, 0, 10)
    assert all(alarm(rows[:n]) is None for n in range(21)) and not alarm.symptoms(rows[-1])


CONSTANT = ['--task', 'idmm', '--weight-decay', '1000', '--lr', '1e-3', '--warmup-epochs', '0', '--epochs', '5']


@pytest.fixture
def three_epochs(monkeypatch):
    """Three epochs are enough, however few their updates."""
    from timm_smalldata.run import collapse
    monkeypatch.setattr(collapse, 'LASTING', (3, 1, 0.1))


def test_features_that_decay_to_nothing(run, photos, tmp_path, three_epochs):
    """AdamW multiplies each weight by 1 - lr * decay = 0 in every update."""
    code, _, err = run([photos, *CONSTANT])
    assert code == 0, err
    told = [line for line in err.splitlines() if line.startswith('collapse')]
    assert len(told) == 1 and told[0].startswith(
        'collapse, epoch 3: for 3 epochs the features of all images are the same (spread ')
    report = json.loads((tmp_path / 'runs/e/report.json').read_text())
    assert report['collapse'].startswith('collapse, epoch 5: ')


def test_a_run_that_stops_and_goes_on(run, photos, tmp_path, three_epochs):
    code, _, err = run([photos, *CONSTANT, '--on-collapse', 'stop'])
    assert code == 0, err
    assert 'collapse, epoch 3: ' in err and 'stopped after epoch 3 (--on-collapse stop)' in err
    folder = tmp_path / 'runs/e'
    assert (folder / 'last.pth.tar').exists() and not (folder / 'report.json').exists()
    code, _, err = run([photos, *CONSTANT, '--on-collapse', 'warn', '--resume', 'auto'])
    assert code == 0 and (folder / 'report.json').exists(), err


@pytest.mark.parametrize('argv', [
    ['--task', 'idmm', '--lr', '3e-3'], ['--task', 'mae', '--model-kwargs', 'patch_size=8', '--lr', '3e-3'],
    ['--task', 'simclr', '--lr', '1e-3']], ids=lambda argv: argv[1])
def test_healthy_runs_end_without_a_symptom(run, photos, tmp_path, argv, monkeypatch):
    from timm_smalldata.run import collapse
    seen = []
    monkeypatch.setattr(collapse.Alarm, '__call__', lambda self, rows: seen.append((self, rows)))
    code, _, err = run([photos, *argv, '--epochs', '15', '--probe-interval', '0'])
    assert code == 0, err
    watch, rows = seen[-1]
    assert len(rows) == 15 and rows[-1]['train_feature_spread'] > 0.01 and watch.chance is not None
    assert watch.symptoms(rows[-1]) == {}


def test_a_classifier_is_not_watched(run, photos):
    code, _, err = run([photos, '--on-collapse', 'stop'])
    assert code == 2 and '--on-collapse stop' in err.splitlines()[-1]
