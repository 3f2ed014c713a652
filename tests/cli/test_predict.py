"""The predict command and `timm_smalldata.load`: what stock timm says of the same images, calibrated where it is."""
import csv
import io
import json
import os
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_model_data_config

import timm_smalldata
from timm_smalldata.cli.predict import main

COUNTS = {'ant': 42, 'bee': 33, 'cat': 24}


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """A run with validation images, every third of a colour that misleads: its model knows a temperature."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from conftest import TINY, draw_photo, make_photos

    import train_smalldata
    root = tmp_path_factory.mktemp('trained')
    make_photos(root / 'photos', COUNTS, suffixes=('.png',))
    for label, (name, count) in enumerate(COUNTS.items()):
        for number in range(0, count, 3):
            draw_photo(label + 1, 100 + number).save(root / 'photos' / name / f'{number}.png')
    argv = [str(root / 'photos'), *TINY, '--val-fraction', '0.35', '--epochs', '2', '--batch-size', '8']
    argv[argv.index('runs')] = str(root / 'runs')
    assert train_smalldata.main(argv) == 0
    return root / 'runs' / 'e'


@pytest.fixture
def images(photo_folder):
    """Photographs and, among them, a file that is no image."""
    folder = photo_folder('new', {'winter': 3, 'summer': 2})
    (folder / 'winter' / '1.jpg').write_bytes(b'torn')
    (folder / 'winter' / 'notes.txt').write_text('no image by its name')
    return folder


@pytest.fixture
def predict(capsys):
    """Call the command: `predict(...) -> (stdout, stderr)`."""
    def call(*argv):
        capsys.readouterr()
        assert main([*map(str, argv)]) == 0, capsys.readouterr().err
        return capsys.readouterr()
    return call


def reference(folder, path, temperature=1.0):
    """Return the probabilities by class with nothing but timm."""
    net = timm.create_model(f'local-dir:{folder}', pretrained=True).eval()
    transform = create_transform(**resolve_model_data_config(net))
    with torch.no_grad():
        logits = net(transform(Image.open(path).convert('RGB'))[None])[0]
    return dict(zip(net.pretrained_cfg['label_names'], (logits / temperature).softmax(-1).tolist()))


def temperature_of(run):
    return json.loads((run / 'model' / 'config.json').read_text())['timm_smalldata']['temperature']


def without_temperature(run, to):
    """Return a copy of the model that knows no temperature, as one without validation images."""
    shutil.copytree(run / 'model', to)
    config = json.loads((to / 'config.json').read_text())
    del config['timm_smalldata']['temperature']
    (to / 'config.json').write_text(json.dumps(config))
    return to


def test_the_model_knows_the_temperature_of_its_validation_images(trained):
    """As the eval command fits it."""
    from timm_smalldata.cli import eval as judging
    report = judging.run([str(trained), '--temperature', '--json'])
    assert temperature_of(trained) == pytest.approx(report['posthoc']['temperature']['temperature'], rel=1e-6)
    assert temperature_of(trained) != 1


def test_probabilities_are_those_of_stock_timm_over_the_temperature(trained, images, predict):
    for model in (trained, trained / 'model', f'local-dir:{trained}/model'):
        out, err = predict(model, images, '--json', '--top-k', 2, '--no-amp', '--batch-size', 2)
        rows = json.loads(out)
        assert [Path(row['path']).relative_to(images).as_posix() for row in rows] == [
            'summer/0.png', 'summer/1.jpg', 'winter/0.png', 'winter/1.jpg', 'winter/2.png']
        assert [row['error'] is None for row in rows] == [True, True, True, False, True]
        assert rows[3]['class'] is rows[3]['probability'] is None and 'no image of a kind' in rows[3]['error']
        for row in rows[:3]:
            known = reference(trained / 'model', row['path'], temperature_of(trained))
            best = sorted(known, key=known.get, reverse=True)[:2]
            assert [top['class'] for top in row['top']] == best and row['class'] == best[0]
            assert [top['probability'] for top in row['top']] == pytest.approx([known[name] for name in best], abs=1e-5)
        assert 'calibrated: temperature' in err and err.count('cannot be read') == 1 and 'winter/1.jpg' in err


def test_a_model_without_a_temperature_says_so(trained, images, predict, tmp_path):
    model = without_temperature(trained, tmp_path / 'plain')
    out, err = predict(model, images / 'summer', '--json', '--no-amp')
    row = json.loads(out)[0]
    assert row['probability'] == pytest.approx(max(reference(model, row['path']).values()), abs=1e-5)
    assert "the model's own, not calibrated" in err


def test_a_model_on_the_hub(trained, images, predict, monkeypatch):
    """With the one function replaced that fetches a file."""
    import huggingface_hub
    import timm.models._hub
    for module in (huggingface_hub, timm.models._hub):
        monkeypatch.setattr(module, 'hf_hub_download', lambda repo_id, filename, **_: str(trained / 'model' / filename))
    assert predict('hf-hub:me/plants', images, '--json').out == predict(trained, images, '--json').out


def test_tables(trained, images, predict):
    out, err = predict(trained, images, '--csv', '--top-k', 3, '--min-confidence', 1)
    rows = list(csv.DictReader(io.StringIO(out)))
    assert len(rows) == 5 and list(rows[0]) == [
        'path', 'class', 'probability', 'class_1', 'probability_1', 'class_2', 'probability_2', 'class_3',
        'probability_3', 'error']
    good = [row for row in rows if not row['error']]
    assert len(good) == 4 and all(row['class'] == 'unsure' and row['class_1'] in COUNTS for row in good)
    assert all(sum(float(row[f'probability_{n}']) for n in (1, 2, 3)) == pytest.approx(1, abs=1e-5) for row in good)
    assert '4 of 4 images are unsure: below a probability of 1' in err
    assert list(csv.DictReader(io.StringIO(predict(trained, images, '--csv', '--top-k', 1).out)))[0].keys() == {
        'path', 'class', 'probability', 'error'}
    lines = predict(trained, images, '--min-confidence', 0).out.splitlines()
    assert len(lines) == 5 and lines[0].split() == ['image', 'class', 'probability']
    assert lines[1].split()[0].endswith('summer/0.png') and lines[1].split()[1] in COUNTS
    assert float(lines[1].split()[2]) == pytest.approx(float(good[0]['probability_1']), abs=1e-3)


def test_paths_from_standard_input(trained, images, predict, monkeypatch):
    monkeypatch.setattr(sys, 'stdin', io.StringIO(f'{images}/winter/2.png\n\n{images}/summer\n'))
    rows = json.loads(predict(trained, '-', '--json').out)
    assert [Path(row['path']).name for row in rows] == ['2.png', '0.png', '1.jpg']


@pytest.mark.parametrize('argv, words', [
    (['nowhere', 'new'], "Unknown model 'nowhere'"), (['RUN', 'nowhere.jpg'], 'No such image or folder'),
    (['RUN'], 'required: IMAGES'), (['RUN', 'empty'], 'No image in the folder'), (['RUN', '-'], 'No image was named'),
    (['RUN', 'new/winter/1.jpg'], 'No image can be read'), (['RUN', 'new', '--top-k', '0'], '--top-k'),
    (['RUN', 'new', '--min-confidence', '50'], 'between 0 and 1'), (['RUN', 'new', '--csv', '--json'], 'not allowed'),
    (['RUN', 'new', '--topk', '3'], 'topk')])
def test_what_cannot_be_done_is_one_line(trained, images, monkeypatch, capsys, argv, words):
    monkeypatch.chdir(images.parent)
    monkeypatch.setattr(sys, 'stdin', io.StringIO('\n'))
    Path('empty').mkdir()
    capsys.readouterr()
    assert main([str(trained) if word == 'RUN' else word for word in argv]) == 2
    out, err = capsys.readouterr()
    assert not out and err.startswith('error: ') and err.count('\n') == 1 and words in err


def test_from_python(trained, images):
    predictor = timm_smalldata.load(trained, device='cpu', amp=False)
    assert predictor.names == ['ant', 'bee', 'cat'] and predictor.temperature == temperature_of(trained)
    path = images / 'summer' / '0.png'
    image = Image.open(path)
    one = predictor.predict(path)[0]
    assert one.path == str(path) and one.name == one.top[0][0] and one.probability == one.top[0][1] and not one.unsure
    assert sum(probability for _, probability in one.top) == pytest.approx(1, abs=1e-5)
    for same in (str(path), image, np.asarray(image.convert('RGB'))):
        assert predictor.predict(same)[0].top == one.top
    several = predictor.predict([path, images / 'winter', image], top_k=1, min_confidence=1.0)
    assert [p.error is None for p in several] == [True, True, False, True, True]
    assert all(p.name == 'unsure' and p.unsure and len(p.top) == 1 for p in several if p.error is None)
    assert several[-1].path == '4'  # no file: its number


def test_images_are_read_as_training_reads_them(trained, tmp_path):
    """16 bits, which Pillow would cut off at 255: the same as the 8 bits that they hold."""
    grey = np.arange(1600, dtype=np.uint16).reshape(40, 40) % 256
    Image.fromarray(grey * 257).save(tmp_path / 'deep.png')
    Image.fromarray(grey.astype(np.uint8)).save(tmp_path / 'plain.png')
    deep, plain = timm_smalldata.load(trained).predict([tmp_path / 'deep.png', tmp_path / 'plain.png'])
    assert deep.error is None and deep.top == plain.top


def test_eval_on_images_without_labels_names_the_verb(trained, images, capsys):
    from timm_smalldata.cli import eval as judging
    assert judging.main([str(trained), str(images / 'summer')]) == 2
    err = capsys.readouterr().err
    assert err.startswith('error: ') and err.count('\n') == 1
    assert f'predict {trained} {images / "summer"}' in err
    assert judging.main([str(trained), str(images)]) == 2  # classes, but others: no such hint
    assert 'predict' not in capsys.readouterr().err


def test_a_pipe_is_a_bad_image_and_nobody_waits_for_it(trained, images, tmp_path):
    pipe = tmp_path / 'pipe.png'
    os.mkfifo(pipe)
    good = str(next(images.rglob('*.png')))
    found = timm_smalldata.load(str(trained)).predict([good, str(pipe)])
    assert found[0].error is None and found[1].error == 'not a regular file'
