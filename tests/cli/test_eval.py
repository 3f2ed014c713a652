"""The eval command: a run is judged to the same numbers again, and any model on any images as stock timm would."""
import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_model_data_config

from timm_smalldata.cli.eval import main

COUNTS = {'ant': 20, 'bee': 12, 'cat': 6}
COLOURS = {'ant': (200, 60, 60), 'bee': (60, 200, 60), 'cat': (60, 60, 200), 'dog': (120, 120, 120)}
TINY = ['--model', 'test_vit', '--img-size', '32', '--epochs', '2', '--batch-size', '4', '--device', 'cpu',
        '--shot-split', 'counts:7,5', '--loss', 'balanced-bce', '--experiment', 'e']


def photo(path, colour, seed):
    noise = np.random.RandomState(seed).normal(0, 70, (36, 44, 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)).save(path)


def make_photos(root, counts=COUNTS, first=0):
    """Make a folder of classes by colour; every third image has the colour of another class and cannot be right."""
    for name, count in counts.items():
        at = list(COLOURS).index(name)
        for number in range(count):
            colour = list(COLOURS.values())[at - (number % 3 == 1)]
            photo(root / name / f'{number}.png', colour, first + 100 * at + number)
    return root


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A run on a folder without splits: test and val were held out."""
    import train_smalldata
    root = tmp_path_factory.mktemp('trained')
    make_photos(root / 'photos')
    (root / 'photos' / 'bee' / '3.png').write_bytes(b'no image')
    assert train_smalldata.main([
        str(root / 'photos'), *TINY, '--output', str(root / 'runs'), '--on-bad-image', 'skip',
        '--test-fraction', '0.4']) == 0
    return root / 'runs' / 'e'


@pytest.fixture
def model(trained, tmp_path):
    """A copy of the exported model alone, to be changed."""
    return Path(shutil.copytree(trained / 'model', tmp_path / 'alone'))


@pytest.fixture
def judge(capsys):
    """Call the command: `judge(...) -> (report, stderr)`."""
    def call(*argv):
        capsys.readouterr()
        assert main([*map(str, argv), '--json']) == 0, capsys.readouterr().err
        out, err = capsys.readouterr()
        return json.loads(out), err
    return call


@pytest.fixture
def refuse(capsys):
    """Call the command: `refuse(...) -> the one line of the error`."""
    def call(*argv):
        capsys.readouterr()
        assert main([*map(str, argv)]) == 2
        out, err = capsys.readouterr()
        errors = [line for line in err.splitlines() if not line.startswith('note: ')]
        assert not out and len(errors) == 1 and errors[0].startswith('error: ')
        return errors[0]
    return call


def edit_config(folder, **changes):
    config = json.loads((folder / 'config.json').read_text())
    for key, value in changes.items():
        config.pop(key) if value is None else config.update({key: value})
    (folder / 'config.json').write_text(json.dumps(config))


def reference(folder, images):
    """Return top-1 and balanced accuracy in percent with nothing but timm; images is [(file, class name)]."""
    net = timm.create_model(f'local-dir:{folder}', pretrained=True).eval()
    transform = create_transform(**resolve_model_data_config(net))
    names, hits = net.pretrained_cfg['label_names'], {}
    for path, name in images:
        with torch.no_grad():
            guess = net(transform(Image.open(path).convert('RGB'))[None]).argmax().item()
        hits.setdefault(name, []).append(names[guess] == name)
    return 100 * np.mean(sum(hits.values(), [])), 100 * np.mean([np.mean(h) for h in hits.values()])


def test_a_run_gives_the_same_numbers_again(trained, judge, tmp_path):
    known = json.loads((trained / 'report.json').read_text())
    assert known.pop('timing') and known['split'] == 'test' and known['num_images'] > 6
    assert known['many'] is not None and 0 < known['balanced_top1'] < 100  # else equality would say little
    for number, name in enumerate([trained, trained / 'model', f'local-dir:{trained}/model']):
        report, err = judge(name, '--output', tmp_path / str(number))
        assert report.pop('model') == str(name) and report.pop('data') == str(trained.parents[1] / 'photos')
        assert report == known
        assert 'bad image left out: bee/3.png' in err and 'trained on' not in err
        for file in ('per_class.csv', 'confusion.csv'):
            assert (tmp_path / str(number) / file).read_bytes() == (trained / file).read_bytes()
        assert json.loads((tmp_path / str(number) / 'report.json').read_text())['loss'] == known['loss']


def test_the_other_splits_of_a_run(trained, judge, refuse):
    split = json.loads((trained / 'split.json').read_text())['split']
    val, _ = judge(trained, '--split', 'val')
    assert val['num_images'] == len(split['val']) and val['split_note'] == 'validation, used for selection'
    everything, err = judge(trained, '--split', 'all')
    assert everything['num_images'] == sum(COUNTS.values()) - 1
    assert f'{len(split["train"])} of the 37 images bear names of images that the model was trained on' in err
    assert 'has no split new; it has: train, val, test' in refuse(trained, '--split', 'new')


def test_a_run_without_its_images(trained, tmp_path, judge, refuse, monkeypatch):
    copy = Path(shutil.copytree(trained.parents[1], tmp_path / 'copy'))
    values = (copy / 'runs' / 'e' / 'args.yaml').read_text()
    (copy / 'runs' / 'e' / 'args.yaml').write_text(values.replace(str(trained.parents[1]), str(copy)))
    shutil.rmtree(copy / 'runs' / '.cache')
    known = json.loads((trained / 'report.json').read_text())
    report, _ = judge(copy / 'runs' / 'e')
    assert {**report, 'timing': 0, 'model': 0, 'data': 0} == {**known, 'timing': 0, 'model': 0, 'data': 0}
    assert not (copy / 'runs' / '.cache').exists()
    first = json.loads((trained / 'split.json').read_text())['split']['test'][0]
    (copy / 'photos' / first).unlink()
    assert f'1 of the {known["num_images"]} images of the split test are no longer in' in refuse(copy / 'runs' / 'e')
    shutil.rmtree(copy / 'photos')
    assert 'No such folder or file' in refuse(copy / 'runs' / 'e')


@pytest.mark.parametrize('counts', [{'bee': 9, 'cat': 4}, {'ant': 5, 'bee': 3, 'cat': 7}])
def test_other_images_as_stock_timm_judges_them(trained, tmp_path, judge, counts):
    """A folder without splits is taken whole; classes are matched by name, also where the data lack some."""
    photos = make_photos(tmp_path / 'photos', counts, first=7000)
    report, err = judge(trained, photos)
    images = [(path, path.parent.name) for path in photos.rglob('*.png')]
    top1, balanced = reference(trained / 'model', images)
    assert report['top1'] == pytest.approx(top1) and report['balanced_top1'] == pytest.approx(balanced)
    assert report['num_images'] == len(images) and report['split'] == 'all' and report['classes'] == 3
    assert report['classes_without_images'] == 3 - len(counts)
    assert ("of 1 of the model's 3 classes: ant" in err) == (len(counts) == 2)
    assert report['selected_on'] is report['epoch'] is None
    counted = json.loads((trained / 'class_stats.json').read_text())['pos_counts']
    assert [report['groups'][name]['train_images'] for name in ('many', 'medium', 'few')] == [
        sum(n for n in counted if n > 7), sum(n for n in counted if 5 <= n <= 7), sum(n for n in counted if n < 5)]


def test_splits_of_a_folder(trained, tmp_path, judge, refuse):
    data = tmp_path / 'data'
    for split, count in (('train', 4), ('validation', 3), ('test', 2), ('winter', 5)):
        make_photos(data / split, dict.fromkeys(COUNTS, count))
    for argv, split, images in (
            ([], 'test', 6), (['--split', 'val'], 'val', 9), (['--split', 'train'], 'train', 12),
            (['--split', 'winter'], 'winter', 15), (['--split', 'all'], 'all', 27)):
        report, _ = judge(trained, '--data-dir', data, *argv)
        assert (report['split'], report['num_images']) == (split, images)
    assert '--split autumn: ' in refuse(trained, data, '--split', 'autumn')
    shutil.rmtree(data / 'train')  # only what is judged has to be there
    assert judge(trained, data)[0]['num_images'] == 6
    assert judge(trained, data, '--split', 'val')[0]['num_images'] == 9
    shutil.rmtree(data / 'test')
    assert judge(trained, data)[0]['split'] == 'val'
    assert 'has no split test; it has: val' in refuse(trained, data, '--split', 'test')


def test_tables_and_samples(trained, tmp_path, judge, refuse):
    photos = make_photos(tmp_path / 'photos')
    rows = [f'{name}/{number}.png,{name},{"test" if number < 2 else "rest"}' for name in COUNTS for number in range(4)]
    (tmp_path / 'table.csv').write_text('\n'.join(['image,species,part', *rows]))
    argv = (trained, tmp_path / 'table.csv', '--image-root', photos, '--split-key', 'part')
    assert judge(*argv)[0]['num_images'] == 6 and judge(*argv, '--split', 'rest')[0]['num_images'] == 6
    error = refuse(trained, '--dataset', 'sample/digits')
    assert 'Class list (3): ant, bee, cat.' in error and '(10): 0, 1, 2, 3, 4, 5, 6, 7, 8, 9.' in error


def test_a_class_that_the_model_does_not_know(trained, tmp_path, refuse):
    photos = make_photos(tmp_path / 'photos', {'bee': 2, 'dog': 3})
    error = refuse(trained, photos)
    assert 'dog not in the class list' in error
    assert 'Class list (3): ant, bee, cat.' in error and '(2): bee, dog.' in error


def test_a_model_without_names(model, trained, tmp_path, judge, refuse):
    photos = make_photos(tmp_path / 'photos', first=300)
    known, _ = judge(model, photos)
    edit_config(model, label_names=None)
    report, err = judge(model, photos)
    assert 'the order of the data is assumed (ant, bee, cat)' in err and report == known
    shutil.rmtree(photos / 'ant')
    assert 'has 3 outputs without names, the data 2 classes (bee, cat)' in refuse(model, photos)
    (tmp_path / 'names.txt').write_text('ant\nbee\ncat\n')
    named, err = judge(model, photos, '--class-map', tmp_path / 'names.txt')
    assert 'assumed' not in err
    assert named == judge(trained / 'model', photos)[0] | {'model': str(model), 'epoch': None}
    (tmp_path / 'names.txt').write_text('ant\nbee\n')
    assert 'names 2 classes, but the model has 3 outputs' in refuse(
        model, photos, '--class-map', tmp_path / 'names.txt')


def test_a_class_map_renames_the_outputs(model, tmp_path, judge):
    photos = make_photos(tmp_path / 'photos', first=300)
    known, _ = judge(model, photos)
    for old, new in zip(COUNTS, ('Zecke', 'Ameise', 'Maus')):
        (photos / old).rename(photos / new)
    (tmp_path / 'names.txt').write_text('Zecke\nAmeise\nMaus\n')
    report, _ = judge(model, photos, '--class-map', tmp_path / 'names.txt')
    assert report['top1'] == known['top1'] and report['loss'] == known['loss'] and report['worst']['class'] in (
        'Zecke', 'Ameise', 'Maus')


def test_training_counts(model, trained, tmp_path, judge, refuse, capsys):
    photos = make_photos(tmp_path / 'photos', first=300)
    known, _ = judge(model, photos)
    assert known['shot_groups'] == 'counts:7,5' and known['many'] is not None
    edit_config(model, timm_smalldata=None)
    report, err = judge(model, photos, '--output', tmp_path / 'out')
    assert 'training counts are not known' in err
    assert report['groups'] is report['many'] is report['medium'] is report['few'] is None
    assert report['balanced_top1'] == known['balanced_top1']
    with open(tmp_path / 'out' / 'per_class.csv', newline='') as stream:
        assert [row['train_images'] for row in csv.DictReader(stream)] == ['', '', '']
    assert main([str(model), str(photos)]) == 0
    assert 'training counts unknown' in capsys.readouterr().out
    stats = json.loads((trained / 'class_stats.json').read_text())
    order = [2, 0, 1]  # named counts are matched by name
    for key in ('pos_counts', 'class_names'):
        stats[key] = [stats[key][i] for i in order]
    (tmp_path / 'stats.json').write_text(json.dumps(stats))
    argv = (model, photos, '--class-stats', tmp_path / 'stats.json')
    for name in ('many', 'medium', 'few', 'groups', 'weakest'):
        assert judge(*argv, '--shot-split', 'counts:7,5')[0][name] == known[name]
    stats['class_names'] = ['x', 'y', 'z']
    (tmp_path / 'stats.json').write_text(json.dumps(stats))
    assert 'is about other classes (3): x, y, z. The model has (3): ant, bee, cat' in refuse(*argv)


def test_a_file_of_weights(trained, tmp_path, judge, refuse):
    photos = make_photos(tmp_path / 'photos', first=300)
    epoch = json.loads((trained / 'report.json').read_text())['epoch']
    state = torch.load(trained / 'model_best.pth.tar', weights_only=False)
    assert state['epoch'] == epoch
    known = judge(trained, photos)[0] | {'model': 'test_vit', 'epoch': epoch}
    report = judge('test_vit', photos, '--checkpoint', trained / 'model_best.pth.tar')[0]
    assert {k: v for k, v in report.items() if not isinstance(v, float)} == {
        k: v for k, v in known.items() if not isinstance(v, float)}
    floats = {k: v for k, v in known.items() if isinstance(v, float)}  # attention may be another kernel's
    assert {k: report[k] for k in floats} == pytest.approx(floats, rel=1e-5)
    weights = tmp_path / 'weights.pth'
    torch.save(state['state_dict'], weights)
    argv = ('test_vit', photos, '--checkpoint', weights, '--img-size', '32', '--crop-pct', '1.0')
    report, err = judge(*argv)
    assert report['top1'] == known['top1'] and 'order of the data is assumed' in err and report['epoch'] is None
    assert 'does not fit test_vit' in refuse('test_vit', photos, '--checkpoint', weights)  # made for 160 px
    assert 'is of test_vit, not of test_vit2' in refuse(
        'test_vit2', photos, '--checkpoint', trained / 'model_best.pth.tar')
    assert 'goes with a plain timm model name' in refuse(trained, photos, '--checkpoint', weights)
    assert 'No such file' in refuse('test_vit', photos, '--checkpoint', tmp_path / 'none.pth')
    (tmp_path / 'torn.pth').write_bytes(b'PK')
    assert 'cannot be read' in refuse('test_vit', photos, '--checkpoint', tmp_path / 'torn.pth')


def test_a_model_on_the_hub(trained, tmp_path, judge, monkeypatch):
    """With the one function replaced that fetches a file."""
    import huggingface_hub
    import timm.models._hub
    asked = []

    def fetch(repo_id, filename, revision=None, **_):
        asked.append((repo_id, filename, revision))
        return str(trained / 'model' / filename)

    monkeypatch.setattr(huggingface_hub, 'hf_hub_download', fetch)
    monkeypatch.setattr(timm.models._hub, 'hf_hub_download', fetch)
    photos = make_photos(tmp_path / 'photos', first=300)
    report, _ = judge('hf-hub:me/plants@v2', photos)
    assert report == judge(trained / 'model', photos)[0] | {'model': 'hf-hub:me/plants@v2'}
    assert set(asked) >= {('me/plants', 'config.json', 'v2'), ('me/plants', 'model.safetensors', 'v2')}


def test_bad_images(trained, tmp_path, judge, refuse):
    photos = make_photos(tmp_path / 'photos')
    (photos / 'cat' / '2.png').write_bytes((photos / 'cat' / '2.png').read_bytes()[:400])
    error = refuse(trained, photos)
    assert '1 image cannot be read: cat/2.png' in error and '--on-bad-image skip' in error
    report, err = judge(trained, photos, '--on-bad-image', 'skip', '--output', tmp_path / 'out')
    assert report['num_images'] == 37 and '1 bad image left out: cat/2.png' in err
    assert (tmp_path / 'out' / 'bad_images.csv').read_text().splitlines()[1].startswith('cat/2.png,')


def test_another_size(trained, tmp_path, judge, capsys):
    photos = make_photos(tmp_path / 'photos', first=300)
    at_32, at_64 = judge(trained, photos)[0], judge(trained, photos, '--img-size', '64', '-b', '5')[0]
    assert at_32['loss'] != at_64['loss']
    assert judge(trained, photos, '--img-size', '64', '--crop-pct', '0.5')[0]['loss'] != at_64['loss']


def test_what_a_user_can_get_wrong(trained, model, tmp_path, refuse, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert 'Which images?' in refuse(model)
    assert "did you mean '--data-dir'" in refuse(model, '--data-di', 'x')
    assert 'given twice' in refuse(model, 'x', '--data-dir', 'y')
    assert 'No such folder or file: x' in refuse(model, 'x')
    assert 'whose own report would be lost' in refuse(trained, '--output', trained)
    assert "did you mean 'test_vit" in refuse('test_vitt', 'x')
    assert 'neither a folder with a model nor a timm model name' in refuse('nowhere/run', 'x')
    assert 'holds no complete model' in refuse(tmp_path, 'x')
    assert 'holds no complete model' in refuse('local-dir:nowhere', 'x')
    edit_config(model, label_names=['a', 'b'])
    assert 'has 3 outputs, but 2 label_names' in refuse(model, 'x')
    assert 'there is no sample' in refuse(trained, '--dataset', 'sample/digit').lower()


def test_a_run_on_a_sample(tmp_path, judge):
    """Its long tail was cut from a training split of its own; the test split is that of the sample."""
    import train_smalldata
    assert train_smalldata.main([
        '--dataset', 'sample/digits', '--model', 'vit_tiny_patch16_224', '--model-kwargs', 'patch_size=8',
        'embed_dim=24', 'num_heads=2', 'depth=1', '--epochs', '2', '--device', 'cpu', '--output', str(tmp_path),
        '--experiment', 'e']) == 0
    known = json.loads((tmp_path / 'e' / 'report.json').read_text())
    report, _ = judge(tmp_path / 'e')
    assert known['num_images'] == 500
    assert {**report, 'timing': 0, 'model': 0, 'data': 0} == {**known, 'timing': 0, 'model': 0, 'data': 0}
