"""The eval command with --probe: features of any model, against the train split of a run or of named images."""
import json

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_model_data_config

from timm_smalldata.cli.eval import main
from timm_smalldata.evaluation.linear_evaluation import DINO_LINEAR


def photo(path, label, seed):
    pixels = np.random.RandomState(seed).normal(100 + 15 * label, 60, (8, 8, 3)).clip(0, 255).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).resize((36, 36)).save(path)


def make_splits(root, splits, names=('ant', 'bee', 'cat')):
    for number, (split, count) in enumerate(splits.items()):
        for label, name in enumerate(names):
            for i in range(count):
                photo(root / split / name / f'{i}.png', label, 1000 * number + 100 * label + i)
    return root


@pytest.fixture(scope='module')
def place(tmp_path_factory):
    """Photographs in splits, and a classifier that was trained on them."""
    import train_smalldata
    root = tmp_path_factory.mktemp('probe')
    make_splits(root / 'photos', {'train': 8, 'val': 4, 'test': 6})
    assert train_smalldata.main([
        str(root / 'photos'), '--model', 'test_vit', '--img-size', '32', '--epochs', '1', '--batch-size', '4',
        '--device', 'cpu', '--output', str(root / 'runs'), '--experiment', 'e', '--shot-split', 'counts:100,5']) == 0
    return root


@pytest.fixture
def judge(capsys):
    def call(*argv):
        capsys.readouterr()
        assert main([*map(str, argv), '--json', '--device', 'cpu']) == 0, capsys.readouterr().err
        return json.loads(capsys.readouterr().out)
    return call


@pytest.fixture
def refuse(capsys):
    def call(*argv):
        capsys.readouterr()
        assert main([*map(str, argv), '--device', 'cpu']) == 2
        out, err = capsys.readouterr()
        error, = [line for line in err.splitlines() if not line.startswith('note: ')]
        assert not out and error.startswith('error: ')
        return error
    return call


def nearest(folder, data, split, names=('ant', 'bee', 'cat')):
    """Balanced accuracy in percent of the nearest neighbour's class, with nothing but timm, before the classifier."""
    model = timm.create_model(f'local-dir:{folder}', pretrained=True).eval()
    transform = create_transform(**resolve_model_data_config(model))

    def features(name, cls):
        images = [transform(Image.open(path).convert('RGB')) for path in sorted((data / name / cls).iterdir())]
        with torch.no_grad():
            found = model.forward_head(model.forward_features(torch.stack(images)), pre_logits=True)
        return found / found.norm(dim=1, keepdim=True)

    train = [features('train', cls) for cls in names]
    labels = torch.cat([torch.full((len(f),), c) for c, f in enumerate(train)])
    recalls = [(labels[(features(split, cls) @ torch.cat(train).T).argmax(1)] == c).float().mean().item()
               for c, cls in enumerate(names)]
    return 100 * np.mean(recalls)


@pytest.mark.parametrize('split', ['test', 'val'])
def test_the_features_of_a_classifier(place, judge, split):
    run, data = place / 'runs/e', place / 'photos'
    known = nearest(run / 'model', data, split)
    assert 0 < known < 100
    for argv in ((run,), (run / 'model', data)):  # its own images, and the same ones by name
        report = judge(*argv, '--split', split, '--probe', 'knn', '--knn-k', '1')
        assert report['balanced_top1'] == pytest.approx(known, abs=1e-4)
        assert report['medium'] == pytest.approx(report['top1'])
        assert report['probe'] == dict(kind='knn', k=1, temperature=0.07) and report['loss'] is None
        assert report['split'] == split and report['shot_groups'] == 'counts:100,5'


def test_a_logistic_regression_and_a_table(place, judge, capsys):
    report = judge(place / 'runs/e', '--probe', 'linear')
    assert report['probe'] == dict(kind='linear', C=1.0) and report['num_images'] == 18
    assert main([str(place / 'runs/e'), '--probe', 'knn', '--device', 'cpu']) == 0
    assert 'features, judged by k-NN (k 20, temperature 0.07) among the training images' in capsys.readouterr().out


def test_classes_that_the_model_never_knew(place, judge):
    data = make_splits(place / 'others', {'train': 5, 'test': 3}, ('dog', 'emu'))
    report = judge(place / 'runs/e/model', data, '--probe', 'knn')
    assert report['classes'] == 2 and report['num_images'] == 6 and report['groups']['medium']['train_images'] == 10


@pytest.mark.parametrize('argv, words', [
    (['--split', 'train'], 'learns from the train split, so it cannot judge the split train'),
    ([], 'needs a train split to learn from: '), (['--split', 'all'], 'cannot judge the split all'),
    (['--knn-k', '0'], '--knn-k 0'),
    (['--posthoc-tau', '1'], 'leave them or --probe out')])
def test_what_a_user_can_get_wrong(place, refuse, argv, words):
    for c, name in enumerate(('ant', 'bee', 'cat')):
        photo(place / 'flat' / name / '0.png', c, c)
    assert words in refuse(place / 'runs/e/model', place / 'flat', '--probe', 'knn', *argv)


def test_images_that_were_learned_from_and_flags_without_it(place, refuse):
    run = place / 'runs/e'
    assert 'cannot judge the split train' in refuse(run, '--split', 'train', '--probe', 'linear')
    assert 'go with --probe knn' in refuse(run, '--knn-k', '3')
    alone = make_splits(place / 'alone', {'train': 2})
    assert 'has a train split and none to judge' in refuse(run / 'model', alone, '--probe', 'linear')
    only = make_splits(place / 'only', {'test': 2})
    assert '--probe knn needs a train split to learn from: ' in refuse(run / 'model', only, '--probe', 'knn')


@pytest.mark.parametrize('kind, words', [
    ('linear-dino', 'class tokens of the last 4 blocks'), ('linear-mae', 'its own features')])
def test_a_linear_evaluation_as_published(place, judge, capsys, kind, words):
    again = [judge(place / 'runs/e', '--probe', kind, '--probe-epochs', '2', '--probe-batch-size', '10')
             for _ in range(2)]
    report = again[0]
    assert again[1] == report and report['num_images'] == 18 and report['loss'] is None  # nothing is left to chance
    assert report['probe']['epochs'] == 2 and report['probe']['batch_size'] == 10
    assert report['probe']['features'] == words
    assert report['probe']['rate'] in ((0.1,) if kind == 'linear-mae' else DINO_LINEAR.rates)


def test_a_linear_layer_learns_what_is_plain_to_see(place, judge, tmp_path):
    """Black and white, features of an untrained model: every image is told right."""
    for split, count in (('train', 12), ('test', 5)):
        for label, name in enumerate(('black', 'white')):
            for i in range(count):
                (tmp_path / split / name).mkdir(parents=True, exist_ok=True)
                pixels = np.random.RandomState(i).randint(0, 40, (36, 36, 3)) + 200 * label
                Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / split / name / f'{i}.png')
    report = judge(place / 'runs/e/model', tmp_path, '--probe', 'linear-dino', '--probe-epochs', '15')
    assert report['top1'] == 100


def test_flags_of_a_linear_evaluation_go_with_it(place, refuse):
    run = place / 'runs/e'
    assert 'go with --probe linear-dino or linear-mae' in refuse(run, '--probe', 'knn', '--probe-epochs', '3')
    assert 'whole number' in refuse(run, '--probe', 'linear-mae', '--probe-epochs', '0')
