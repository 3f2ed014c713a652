"""Images that are not plain, from training to evaluation: read alike, stored with the model, said."""
import json
import os

import numpy as np
import pytest
import torch
from PIL import Image

from timm_smalldata.cli.eval import main as evaluate
from timm_smalldata.engine import checkpoint


@pytest.fixture
def microscope(tmp_path):
    """Two classes of 12 bits in 16: dark with a bright stripe, across or down; and some transparent pictures."""
    rng = np.random.RandomState(0)
    for label, name in enumerate(('across', 'down')):
        (tmp_path / 'cells' / name).mkdir(parents=True)
        for number in range(10):
            pixels = rng.randint(90, 300, (24, 24)).astype(np.uint16)
            view = pixels.T if label else pixels
            view[8:14] += 3500
            path = tmp_path / 'cells' / name / f'{number}.tif'
            if number < 7:
                Image.fromarray(pixels).save(path)
            else:
                grey, alpha = Image.fromarray((pixels >> 4).astype(np.uint8)), Image.fromarray(pixels > 3000)
                grey.putalpha(alpha.convert('L'))
                grey.save(path)
    return tmp_path / 'cells'


def judged(argv, capsys):
    capsys.readouterr()
    assert evaluate([*map(str, argv), '--json']) == 0
    out, err = capsys.readouterr()
    return json.loads(out), err


def test_how_they_were_read_is_stored_and_done_again(run, microscope, tmp_path, capsys):
    code, _, err = run([microscope])
    assert code == 0, err
    assert 'note: 6 images have transparency: laid on white (--alpha)' in err
    assert 'note: 14 greyscale images have more than 8 bits: 0 to 4095 becomes 0 to 255 (--grey-range)' in err
    assert 'set by the images: grey-range=0.0 4095.0' in err
    stored = dict(alpha='white', grey_range=[0.0, 4095.0])
    folder = tmp_path / 'runs/e'
    assert json.loads((folder / 'model/config.json').read_text())['timm_smalldata']['pixels'] == stored
    assert json.loads((folder / 'class_stats.json').read_text())['pixels'] == stored

    own, _ = judged(['runs/e'], capsys)
    report = json.loads((folder / 'report.json').read_text())
    assert own['loss'] == pytest.approx(report['loss'], abs=1e-6) and own['top1'] == report['top1']

    # images from elsewhere, darker: their own range would be another one, but the model's is taken
    (tmp_path / 'new').mkdir()
    for name in ('across', 'down'):
        (tmp_path / 'new' / name).mkdir()
        for path in sorted((microscope / name).glob('[0-5].tif')):
            with Image.open(path) as image:
                Image.fromarray(np.asarray(image) // 8).save(tmp_path / 'new' / name / path.name)
    new, err = judged(['runs/e', 'new'], capsys)
    assert '0 to 4095 becomes 0 to 255' in err and 'values seen: 0 to 4' in err
    same, _ = judged(['runs/e/model', 'new', '--grey-range', '0', '4095', '--alpha', 'white'], capsys)
    assert same['loss'] == new['loss']
    other, err = judged(['runs/e', 'new', '--grey-range', '0', '511'], capsys)
    assert other['loss'] != new['loss'] and '0 to 511 becomes 0 to 255' in err


def test_flags_decide_and_a_resumed_run_keeps_them(run, microscope, tmp_path):
    argv = [microscope, '--alpha', 'black', '--grey-range', '0', '65535', '--epochs', '2']
    assert run([*argv, '--stop-epoch', '1'])[0] == 0
    code, _, err = run([microscope, '--epochs', '2', '--resume', 'auto'])
    assert code == 0 and 'laid on black' in err and '0 to 65535 becomes 0 to 255' in err
    code, _, err = run([microscope, '--alpha', 'white', '--resume', 'auto'])
    assert code == 2 and '--alpha black -> white' in err.splitlines()[-1]
    code, _, err = run([microscope, '--experiment', 'f', '--grey-range', '9', '1'])
    assert code == 2 and '--grey-range' in err.splitlines()[-1]


def test_a_run_from_before_goes_on_as_it_did(run, microscope, tmp_path, capsys):
    """Such a run dropped transparency; so does its continuation, and so does eval for its model."""
    for path in microscope.glob('*/[0-6].tif'):
        path.unlink()
    argv = [microscope, '--epochs', '2', '--alpha', 'drop']
    assert run([*argv, '--stop-epoch', '1'])[0] == 0
    place = tmp_path / 'runs/e/last.pth.tar'
    state = checkpoint.load(place)
    del state['args'].alpha, state['args'].grey_range
    state['given'].pop('alpha', None)
    torch.save(state, place)
    code, _, err = run([microscope, '--epochs', '2', '--resume', 'auto'])
    assert code == 0 and 'their transparency is dropped' in err
    config = tmp_path / 'runs/e/model/config.json'
    content = json.loads(config.read_text())
    del content['timm_smalldata']['pixels']
    config.write_text(json.dumps(content))
    assert 'their transparency is dropped' in judged(['runs/e/model', microscope], capsys)[1]


def test_analyse_reads_as_the_training_did(run, microscope, tmp_path, capsys):
    from timm_smalldata.cli.analyse import main as analyse
    assert run([microscope, '--alpha', 'grey'])[0] == 0
    capsys.readouterr()
    assert analyse(['attention-distance', 'runs/e', str(microscope), '--output', 'pictures']) == 0
    err = capsys.readouterr().err
    assert 'laid on grey' in err and '0 to 4095 becomes 0 to 255' in err


def test_other_kinds_train_and_what_is_not_read_is_said(run, photo_folder, tmp_path, capsys):
    root = photo_folder('d/train', suffixes=('.webp', '.bmp', '.tif', '.gif'))
    photo_folder('d/val', {'ant': 2, 'bee': 2, 'cat': 2}, suffixes=('.jfif', '.ppm'))
    photo_folder('d/test', {'ant': 2, 'bee': 2, 'cat': 2}, suffixes=('.jp2', '.tiff'))
    (root / 'ant' / 'new.heic').write_bytes(b'heic')
    code, _, err = run(['d'])
    assert code == 0, err
    assert 'images: train 26, val 6, test 6' in err
    assert 'note: not read in d/train: 1 .heic (first: ant/new.heic)' in err
    report, _ = judged(['runs/e', 'd', '--split', 'test'], capsys)
    assert report['num_images'] == 6


def test_names_that_are_not_utf8_from_training_to_evaluation(run, photo_folder, tmp_path, capsys):
    root = os.fsencode(tmp_path / 'd')
    photo_folder('d', {'ant': 6, 'x': 6})
    os.rename(root + b'/x', root + b'/K\xfche')
    os.rename(root + b'/ant/0.png', root + b'/ant/\xe4.png')
    code, _, err = run(['d', '--save-images'])
    assert code == 0, err
    assert 'note: 7 names are not UTF-8 and read as Latin-1 (first: ' in err
    assert json.loads((tmp_path / 'runs/e/model/config.json').read_text())['label_names'] == ['ant', 'Kühe']
    split = json.loads((tmp_path / 'runs/e/split.json').read_text(encoding='utf-8'))['split']
    assert {'ant/ä.png', 'Kühe/0.png'} <= {name for names in split.values() for name in names}
    assert judged(['runs/e'], capsys)[0]['num_images'] == 2 and judged(['runs/e', 'd'], capsys)[0]['num_images'] == 12
    assert run(['d', '--experiment', 'f', '--split-file', 'runs/e/split.json'])[0] == 0


def test_a_class_list_in_another_form_of_unicode_fits(run, photo_folder, tmp_path, capsys):
    import unicodedata
    nfd = unicodedata.normalize('NFD', 'Kühe')
    photo_folder('d/train', {'Kühe': 6, 'ant': 6}), photo_folder('d/val', {nfd: 2, 'ant': 2})
    (tmp_path / 'map.txt').write_text(f'{nfd}\nant\n')
    assert run(['d', '--class-map', 'map.txt'])[0] == 0
    assert json.loads((tmp_path / 'runs/e/model/config.json').read_text())['label_names'] == ['Kühe', 'ant']
    photo_folder('new', {nfd: 3, 'ant ': 3})
    assert evaluate(['runs/e', 'new']) == 2
    err = capsys.readouterr().err
    assert "ant  not in the class list ('ant ' is not 'ant')".replace('  ', ' ') in err and 'Traceback' not in err
