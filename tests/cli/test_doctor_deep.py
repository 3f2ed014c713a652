"""The doctor finds labels that are wrong, with models that it trains or with those of finished runs."""
import sys
from pathlib import Path

import pytest
import timm

from timm_smalldata.data.classes import ClassInfo
from timm_smalldata.hub.export import export_model

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
from conftest import make_photos  # noqa: E402
from test_doctor import doctor, found  # noqa: E402, F401

FLAGS = ['--model', 'test_vit', '--img-size', '32', '--epochs', '8', '--batch-size', '4', '--lr', '3e-3',
         '--device', 'cpu', '--workers', '0']


@pytest.fixture
def mixed_up(tmp_path):
    """Photographs of three classes, two of them in the folder of another one."""
    root = make_photos(tmp_path / 'photos', {'ant': 14, 'bee': 12, 'cat': 12})
    (root / 'ant' / '3.jpg').rename(root / 'bee' / '93.jpg')
    (root / 'cat' / '4.png').rename(root / 'ant' / '94.png')
    return root


def test_wrong_labels_are_found_with_trained_and_with_finished_runs(mixed_up, doctor, tmp_path):  # noqa: F811
    code, report, err = doctor(
        'photos', '--deep', '--folds', '2', '--output', 'folds', '--html', 'page.html', '--', *FLAGS)
    wrong = found(report, 'likely wrong label')
    assert code == 0 and {f['images'][0]['name'] for f in wrong[:2]} == {'bee/93.jpg', 'ant/94.png'}
    assert wrong[0]['text'].count('%') == 2 and not wrong[0]['error']
    assert report['deep']['likely_wrong'] == len(wrong) and report['deep']['models'] == 2
    assert (report['deep']['judged'], report['deep']['not_judged']) == (38, 0) and report['deep']['top1'] > 80
    page = (tmp_path / 'page.html').read_text()
    assert 'likely wrong label: ' in page and page.count('<img') >= len(wrong)
    assert err.count('top1') == 2 and (tmp_path / 'folds' / 'fold-1-of-2' / 'report.json').is_file()

    _, again, _ = doctor('photos', '--runs', 'folds/fold-1-of-2', 'folds/fold-2-of-2')
    assert again['deep'] == report['deep'] and found(again, 'likely wrong label') == wrong
    _, half, _ = doctor('photos', '--runs', 'folds/fold-1-of-2')
    assert half['deep']['judged'] == 19 and half['deep']['not_judged'] == 19
    code, text, _ = doctor('photos', '--runs', 'folds/fold-1-of-2', as_json=False)
    assert code == 0 and 'images were judged by models that were not trained on them, 19 by none' in text

    make_photos(tmp_path / 'others', {'dog': 3, 'elk': 3})
    code, _, err = doctor('others', '--runs', 'folds/fold-1-of-2', as_json=False)
    assert code == 2 and 'was trained on other images' in err.splitlines()[-1]


@pytest.mark.parametrize('argv, words', [
    (['photos', '--deep', '--folds', '1'], '--folds 1'), (['photos', '--folds', '3'], 'go with --deep'),
    (['photos', '--runs', 'x', '--folds', '3'], 'nothing is trained'), (['photos', '--runs', 'nowhere'], 'nowhere'),
    (['photos', '--deep', '--', '--fold', '1/2'], '--fold is set by the doctor'),
    (['photos', '--deep', '--', '--epoch', '1'], "Unknown flag --epoch"),
    (['photos', '--deep', '--', '--model', 'nosuch', '--epochs', '1'], 'fold 1 of 5: ')])
def test_wrong_words_are_one_line(mixed_up, doctor, argv, words):  # noqa: F811
    code, _, err = doctor(*argv, as_json=False)
    assert code == 2 and words in err.splitlines()[-1] and 'Traceback' not in err


def test_a_run_without_a_split_is_refused(mixed_up, doctor, tmp_path):  # noqa: F811

    config = dict(input_size=(3, 32, 32), mean=(.5,) * 3, std=(.5,) * 3, crop_pct=1.0, interpolation='bicubic')
    export_model(timm.create_model('test_vit', img_size=32, num_classes=2), tmp_path / 'model',
                 classes=ClassInfo(['ant', 'bee'], [1, 1]), data_config=config)
    code, _, err = doctor('photos', '--runs', 'model', as_json=False)
    assert code == 2 and 'training images are not known' in err.splitlines()[-1]
