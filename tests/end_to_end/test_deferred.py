"""Deferred schedules, the lade term, classifier re-training: through the train command, and survived by a resume."""
import csv
import json

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file

from timm_smalldata.loss import create_loss, effective_number_weights

COUNTS = {'ant': 10, 'bee': 6, 'cat': 4}


@pytest.fixture
def divided(photo_folder):
    """Training and validation folders, so that the counts are known exactly."""
    photo_folder('data/val')
    return photo_folder('data/train', COUNTS).parent


def weights_by_epoch(monkeypatch):
    """Note the class weights that the criterion holds at each forward pass of training."""
    from timm_smalldata.loss import CrossEntropy
    seen = []
    compute = CrossEntropy.compute

    def noted(self, x, t):
        if torch.is_grad_enabled():
            seen.append(None if self.class_weight is None else self.class_weight.clone())
        return compute(self, x, t)

    monkeypatch.setattr(CrossEntropy, 'compute', noted)
    return seen


def test_reweighting_begins_and_is_told(run, divided, monkeypatch):
    seen = weights_by_epoch(monkeypatch)
    code, _, err = run([divided, '--epochs', '3', '--drw-epoch', '1', '--drw-beta', '0.9'])
    assert code == 0 and 'epoch 2: class weights begin (--drw-epoch 1), beta 0.9' in err
    expected = effective_number_weights(list(COUNTS.values()), 0.9)
    trained = seen[-15:]  # five batches an epoch; before them the measured steps
    assert all(w is None for w in trained[:5])
    assert all(torch.allclose(w, expected) for w in trained[5:])


def test_reweighting_of_a_resumed_run(run, divided, monkeypatch):
    flags = [divided, '--epochs', '3', '--drw-epoch', '1']
    assert run([*flags, '--stop-epoch', '2'])[0] == 0
    seen = weights_by_epoch(monkeypatch)
    assert run([*flags, '--resume', 'auto'])[0] == 0
    assert torch.allclose(seen[-1], effective_number_weights(list(COUNTS.values())))


@pytest.mark.parametrize('loss', ['ce', 'focal', 'class-balanced-ce', 'class-balanced-focal'])
def test_reweighting_of_every_loss_that_takes_weights(run, divided, loss):
    assert run([divided, '--loss', loss, '--epochs', '2', '--drw-epoch', '1'])[0] == 0


def test_deferred_weights_of_a_class_balanced_loss_are_off_at_first(run, divided, monkeypatch):
    seen = weights_by_epoch(monkeypatch)
    assert run([divided, '--loss', 'class-balanced-ce', '--epochs', '2', '--drw-epoch', '1'])[0] == 0
    assert seen[-10] is None and seen[-1] is not None


def served(run, divided, monkeypatch, argv):
    """Return the labels of each epoch's draws."""
    from timm_smalldata.data.loader import ViewDataset
    epochs = {}
    getitem = ViewDataset.__getitem__

    def noted(self, item):
        draw = item[0] if isinstance(item, tuple) else item
        if self.seed is not None:
            epochs.setdefault(draw.epoch, {})[draw.position] = int(self.source.targets[int(draw)])
        return getitem(self, item)

    monkeypatch.setattr(ViewDataset, '__getitem__', noted)
    code, _, err = run([divided, '--augment-on', 'image', *argv])
    assert code == 0
    return [list(epochs[e].values()) for e in sorted(epochs)], err


def test_resampling_begins_and_is_told(run, divided, monkeypatch):
    labels, err = served(run, divided, monkeypatch, ['--epochs', '3', '--drs-epoch', '1'])
    assert 'epoch 2: re-sampling begins (--drs-epoch 1), class-balanced' in err
    assert np.bincount(labels[0]).tolist() == list(COUNTS.values())
    assert np.bincount(labels[1]).tolist() != list(COUNTS.values())
    from timm_smalldata.data import ClassBalancedSampler
    targets = np.repeat([0, 1, 2], list(COUNTS.values()))
    sampler = ClassBalancedSampler(targets, seed=42)
    sampler.set_epoch(2)
    assert labels[2] == targets[list(sampler)].tolist()


@pytest.mark.parametrize('flags', [
    ['--sampler', 'class-balanced'], ['--sampler', 'sqrt'], ['--sampler', 'progressive'], ['--sampler-power', '0.3'],
    ['--sampler', 'class-balanced', '--aug-repeats', '2'],
    ['--sampler', 'class-balanced', '--train-img-sizes', '32', '48', '--model-kwargs', 'dynamic_img_size=True'],
    ['--sampler', 'sqrt', '--workers', '1']])
def test_every_sampler_trains(run, divided, flags):
    assert run([divided, *flags])[0] == 0


def test_lade_is_its_term_beside_the_cross_entropy_of_the_prior(run, divided, monkeypatch):
    from timm_smalldata.build import task
    made = []
    create = task.create_criterion
    monkeypatch.setattr(task, 'create_criterion', lambda *args: made.append(create(*args)) or made[-1])
    assert run([divided, '--loss', 'lade', '--lade-weight', '0.3', '--loss-kwargs', 'remine_lambda=0.2'])[0] == 0
    x, y = torch.randn(5, 3), torch.tensor([0, 1, 2, 0, 0])
    n = list(COUNTS.values())
    expected = torch.nn.functional.cross_entropy(x + torch.tensor(n).float().log(), y)
    expected = expected + 0.3 * create_loss('lade', n, remine_lambda=0.2)(x, y)
    torch.testing.assert_close(made[0](x, y), expected)


def test_classifier_retraining(run, divided, tmp_path):
    code, _, err = run([divided, '--recipe', 'crt', '--features.epochs', '2', '--classifier.epochs', '2', '--drop-path',
                        '0.1'])
    assert code == 0 and 'stage 2 of 2: classifier' in err
    first, second = (load_file(tmp_path / f'runs/e/{stage}/model/model.safetensors')
                     for stage in ('1-features', '2-classifier'))
    changed = [name for name in first if not torch.equal(first[name], second[name])]
    assert changed == ['head.bias', 'head.weight']
    # a new head, not the old one trained further: at a rate of zero it is not the old one either
    assert run([divided, '--epochs', '1', '--lr', '0', '--warmup-lr', '0', '--min-lr', '0', '--freeze-backbone',
                '--reset-head', '--experiment', 'new', '--initial-checkpoint', 'runs/e/1-features/model'])[0] == 0
    fresh = load_file(tmp_path / 'runs/new/model/model.safetensors')
    assert not torch.equal(fresh['head.weight'], first['head.weight'])
    assert torch.equal(fresh['norm.weight'], first['norm.weight'])
    assert timm.create_model(f'local-dir:{tmp_path}/runs/e/2-classifier/model', pretrained=True).num_classes == 3


def test_a_frozen_backbone_keeps_its_statistics(run, divided, tmp_path):
    flags = [divided, '--model', 'test_resnet', '--epochs', '1']
    assert run([*flags, '--experiment', 'a'])[0] == 0
    assert run([*flags, '--experiment', 'b', '--initial-checkpoint', 'runs/a/model', '--freeze-backbone'])[0] == 0
    a, b = (load_file(tmp_path / f'runs/{name}/model/model.safetensors') for name in 'ab')
    assert any('running_mean' in name for name in a)
    assert [name for name in a if not torch.equal(a[name], b[name])] == ['fc.bias', 'fc.weight']


def test_killed_and_continued_the_schedule_is_the_same(run, divided, tmp_path):
    flags = [divided, '--epochs', '3', '--drw-epoch', '2', '--drs-epoch', '1', '--sampler', 'progressive']
    assert run([*flags, '--experiment', 'whole'])[0] == 0
    assert run([*flags, '--experiment', 'parts', '--stop-epoch', '1'])[0] == 0
    assert run([*flags, '--experiment', 'parts', '--resume', 'auto'])[0] == 0
    whole, parts = (load_file(tmp_path / f'runs/{name}/model/model.safetensors') for name in ('whole', 'parts'))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    tables = [list(csv.DictReader(open(tmp_path / f'runs/{name}/summary.csv'))) for name in ('whole', 'parts')]
    assert tables[0] == tables[1]
    reports = [json.loads((tmp_path / f'runs/{name}/report.json').read_text()) for name in ('whole', 'parts')]
    assert [{k: v for k, v in r.items() if k != 'timing'} for r in reports][0] == {
        k: v for k, v in reports[1].items() if k != 'timing'}


@pytest.mark.parametrize('flags, words', [
    (['--drw-epoch', '2', '--epochs', '2'], ['--drw-epoch 2', 'beyond the run', 'last epoch is 1']),
    (['--drs-epoch', '9'], ['--drs-epoch 9', 'beyond the run']),
    (['--drw-epoch', '0', '--loss', 'balanced-softmax'], ['--drw-epoch', 'balanced-softmax does not take']),
    (['--loss', 'lade', '--mixup', '0.2'], ['lade takes class indices only', '--mixup']),
    (['--lade-weight', '0.2'], ['--lade-weight', 'only goes with --loss lade']),
    (['--sampler', 'balanced'], ['--sampler', 'class-balanced']),
    (['--sampler-power', '-1'], ['--sampler-power', 'at least 0']),
    (['--drw-beta', '1'], ['--drw-beta', 'out of range']),
    (['--freeze-backbone'], ['--freeze-backbone', '--initial-checkpoint']),
    (['--reset-head'], ['--reset-head', '--initial-checkpoint']),
    (['--loss-kwargs', 'gama=2', '--loss', 'focal'], ['--loss focal', 'gama']),
    (['--loss-kwargs', 'shape=round', '--loss', 'label-aware-smoothing'], ['label-aware-smoothing', 'round']),
])
def test_bad_input(run, divided, flags, words):
    code, out, err = run([divided, *flags])
    assert code == 2 and 'Traceback' not in err
    line = err.strip().splitlines()[-1]
    assert line.startswith('error') and all(word in line for word in words), line


@pytest.mark.parametrize('name', ['wds/photos', 'hfids/owner/photos', 'tfds/photos'])
def test_a_stream_has_no_classes_to_draw_by(run, name):
    code, _, err = run(['--dataset', name, '--sampler', 'class-balanced'])
    assert code == 2 and err.strip().splitlines()[-1].startswith(f'error: --dataset {name} streams')
