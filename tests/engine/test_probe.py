"""Features judged in training and at the end: the numbers, the interval, which weights are chosen."""
import csv
import json
from argparse import Namespace

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_model_data_config
from timm.task import TrainingTask
from torch import nn

from timm_smalldata.build.judge import create_probe
from timm_smalldata.data.views import eval_view
from timm_smalldata.engine.evaluate import evaluate
from timm_smalldata.engine.features import gather_features
from timm_smalldata.errors import UserError
from timm_smalldata.run.history import RunState
from timm_smalldata.task import TaskHooks
from timm_smalldata.utils.distributed import World

MAE = ['--task', 'mae', '--model-kwargs', 'patch_size=8']


def noisy_photos(root, counts):
    """Photographs that colour does not tell apart for sure, so that no share is 0 or 100."""
    rng = np.random.RandomState(0)
    for label, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True)
        for number in range(count):
            pixels = rng.normal(100 + 12 * label, 60, (8, 8, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).resize((36, 36)).save(root / name / f'{number}.png')
    return root


def by_hand(folder, data, split):
    """Shares of right answers per class, in percent, by stock timm and a loop: 1 nearest neighbour."""
    model = timm.create_model(f'local-dir:{folder / "model"}', pretrained=True).eval()
    transform = create_transform(**resolve_model_data_config(model))
    names = json.loads((folder / 'split.json').read_text())['split']

    def features(role):
        with torch.no_grad():
            found = model(torch.stack([transform(Image.open(data / name).convert('RGB')) for name in names[role]]))
        return found / found.norm(dim=1, keepdim=True), [name.split('/')[0] for name in names[role]]

    (train, labels), (test, truth) = features('train'), features(split)
    guessed = [labels[i] for i in (test @ train.T).argmax(1)]
    hits = {name: [g == t for g, t in zip(guessed, truth) if t == name] for name in truth}
    return 100 * np.mean(sum(hits.values(), [])), 100 * np.mean([np.mean(h) for h in hits.values()])


def test_the_numbers_are_those_of_the_exported_backbone(run, tmp_path, capsys):
    """A run, the same by hand, and the same by the verb eval."""
    from timm_smalldata.cli.eval import main
    photos = noisy_photos(tmp_path / 'photos', {'ant': 24, 'bee': 18, 'cat': 12})
    code, _, err = run([photos, *MAE, '--knn-k', '1', '--test-fraction', '0.4', '--epochs', '2', '--select', 'last',
                        '--shot-split', 'counts:100,20'])
    assert code == 0, err
    assert 'features are judged by k-NN (k 1, temperature 0.07) among the training images, on val every epoch' in err
    assert 'exported are the last weights' in err
    folder = tmp_path / 'runs/e'
    report = json.loads((folder / 'report.json').read_text())
    assert 0 < report['balanced_top1'] < 100 and report['few'] == report['balanced_top1'] and report['many'] is None
    assert (report['top1'], report['balanced_top1']) == pytest.approx(by_hand(folder, photos, 'test'))
    rows = list(csv.DictReader(open(folder / 'summary.csv', newline='')))
    assert float(rows[1]['eval_balanced_top1']) == pytest.approx(by_hand(folder, photos, 'val')[1])
    assert report['selected_on'] == 'none' and report['epoch'] == 1
    assert list(report['predictions']) == ['knn', 'linear']
    assert report['predictions']['knn']['top1'] == report['top1']

    capsys.readouterr()
    assert main([str(folder), '--json']) == 0
    again = json.loads(capsys.readouterr().out)
    del report['timing']
    assert {**again, 'model': 0, 'data': 0} == {**report, 'model': 0, 'data': 0}


@pytest.mark.parametrize('argv, judged, chosen', [
    (['--epochs', '3', '--probe-interval', '2'], [1, 2], 2), (['--epochs', '2', '--probe-interval', '0'], [], None),
    (['--epochs', '2', '--val-fraction', '0'], [], None)])
def test_the_interval_and_which_epoch_is_chosen(run, photos, tmp_path, argv, judged, chosen):
    """All epochs reach 100 % here, and of equals the last is chosen."""
    code, _, err = run([photos, *MAE, *argv])
    assert code == 0, err
    rows = list(csv.DictReader(open(tmp_path / 'runs/e/summary.csv', newline='')))
    assert [int(row['epoch']) for row in rows if row.get('eval_top1')] == judged
    report = json.loads((tmp_path / 'runs/e/report.json').read_text())
    assert report['selected_on'] == ('none' if chosen is None else 'val')
    assert report['epoch'] == len(rows) - 1 and report['split'] == 'test' and report['balanced_top1'] == 100
    state = torch.load(tmp_path / 'runs/e/model_best.pth.tar', weights_only=False)
    assert state['epoch'] == len(rows) - 1


def test_which_of_equals_is_the_best():
    rows = [dict(epoch=epoch, eval_x=value) for epoch, value in enumerate([5., 7., 7., 6., float('nan')])]
    for latest, epoch in ((False, 1), (True, 2)):
        state = RunState()
        stars = [state.add(row, 'x', 1, latest) for row in rows]
        assert state.best == dict(epoch=epoch, value=7., metric='x')
        assert stars == [True, True, latest, False, False]


def test_the_loss_of_training_never_selects(run, photos):
    code, _, err = run([photos, *MAE, '--eval-metric', 'loss'])
    last = err.rstrip().split('\n')[-1]
    assert code == 2 and "error: Unknown --eval-metric 'loss'" in last and '--task mae' in last


def test_args_yaml_makes_the_same_run_again(run, photos, tmp_path):
    assert run([photos, *MAE, '--probe', 'linear'])[0] == 0
    code, _, err = run(['-c', 'runs/e/args.yaml', '--experiment', 'again'])
    assert code == 0, err
    first, second = (json.loads((tmp_path / f'runs/{name}/report.json').read_text()) for name in ('e', 'again'))
    assert first['probe'] == dict(kind='linear', C=1.0)
    assert {**first, 'timing': 0} == {**second, 'timing': 0}
    assert (tmp_path / 'runs/e/summary.csv').read_text() == (tmp_path / 'runs/again/summary.csv').read_text()


# --- without a run --------------------------------------------------------------------------------------------------

class Colours(TaskHooks, TrainingTask):
    """Features are the mean colours of an image."""
    predicted = ('features',)
    supervised = False

    def __init__(self):
        super().__init__(verbose=False)
        self.trainable_module = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def get_eval_model(self, module=None, ema=False):
        return self.trainable_module


@pytest.fixture
def setting(divided, photos):
    data = divided([photos, '--test-fraction', '0.3'])
    args = Namespace(
        probe='knn', knn_k=3, knn_temperature=0.07, probe_interval=1, select='best', time_budget=None,
        validation_batch_size=4, workers=0, pin_mem=False, channels_last=False)
    return args, data, eval_view(32, 1.0, 'bicubic', (0.5,) * 3, (0.25,) * 3)


def test_ranks_put_features_back_in_order(setting, monkeypatch):
    """Three ranks one after the other; the last one hears what all have said."""
    args, data, view = setting
    said = []
    monkeypatch.setattr(World, 'gather', lambda world, value: said.append(value) or list(said))
    task, device = Colours(), torch.device('cpu')
    whole = create_probe(args, data.train, view, World(), device)
    features, labels = gather_features(task, task.get_eval_model(), whole.loader)
    said.clear()
    assert labels.tolist() == data.train.targets.tolist() and features.shape == (len(labels), 3)
    for rank in range(3):
        world = World(rank, 3)
        share = create_probe(args, data.train, view, world, device)
        together = gather_features(task, task.get_eval_model(), share.loader, world)
    torch.testing.assert_close(together, (features, labels))


@pytest.mark.parametrize('kind', ['knn', 'linear'])
def test_logits_are_logarithms_of_probabilities(setting, kind):
    args, data, view = setting
    args.probe = kind
    task = Colours().configure(classes=data.classes, groups=data.groups)
    probe = create_probe(args, data.train, view, World(), torch.device('cpu'))
    read = probe.fit(task, task.get_eval_model())[kind]
    logits = read(torch.randn(5, 3))
    torch.testing.assert_close(logits.exp().sum(1), torch.ones(5))
    loader = create_probe(args, data.test, view, World(), torch.device('cpu')).loader
    metrics, _ = evaluate(task, loader, readers={kind: read})
    assert metrics['top1'] == metrics['balanced_top1'] == 100 and np.isfinite(metrics['ece'])
    assert task.trainable_module.training


def test_maps_of_features_are_refused(setting):
    args, data, view = setting
    task = Colours()
    task.trainable_module = nn.Identity()
    with pytest.raises(UserError, match='--gp avg'):
        create_probe(args, data.train, view, World(), torch.device('cpu')).fit(task, task.trainable_module)
