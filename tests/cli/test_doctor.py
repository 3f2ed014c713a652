"""The doctor finds what was put into the data, says it as text, JSON and a page, and ends with a code."""
import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from timm_smalldata import __main__ as cli


@pytest.fixture
def doctor(tmp_path, monkeypatch, capsys):
    """`doctor(argv) -> (code, JSON or text, stderr)`."""
    monkeypatch.chdir(tmp_path)

    def call(*argv, as_json=True):
        capsys.readouterr()
        code = cli.main(['doctor', *(['--json'] if as_json else []), *map(str, argv)])
        out, err = capsys.readouterr()
        return code, json.loads(out) if as_json and code < 2 else out, err

    return call


def scene(seed, size=(60, 48)):
    """A smooth picture of its own: what photographs are, and noise is not."""
    grid = np.random.RandomState(seed).randint(0, 256, (6, 6, 3)).astype(np.uint8)
    return Image.fromarray(grid).resize(size, Image.Resampling.BICUBIC)


@pytest.fixture
def clean(tmp_path):
    """Three splits of two classes with 12, 4 and 4 images each."""
    seed = 0
    for split, number in (('train', 12), ('val', 4), ('test', 4)):
        for label in ('ant', 'bee'):
            (tmp_path / 'd' / split / label).mkdir(parents=True)
            for i in range(number):
                scene(seed).save(tmp_path / 'd' / split / label / f'{i}.png')
                seed += 1
    return tmp_path / 'd'


def found(report, kind):
    return [finding for finding in report['findings'] if finding['kind'] == kind]


def names(report, kind):
    return [{entry['name'] for entry in finding['images']} for finding in found(report, kind)]


def test_clean_data(clean, doctor):
    code, report, _ = doctor('d')
    assert (code, report['findings'], report['num_images'], report['num_classes']) == (0, [], 40, 2)
    code, text, _ = doctor('d', as_json=False)
    assert code == 0 and text == '40 images, 2 classes\n\nnothing found\n'


def test_every_kind_is_found(clean, doctor):
    shutil.copy(clean / 'train/ant/0.png', clean / 'test/ant/9.png')  # across splits
    shutil.copy(clean / 'train/ant/1.png', clean / 'train/bee/91.png')  # two labels
    shutil.copy(clean / 'train/bee/1.png', clean / 'train/bee/92.png')  # twice
    with Image.open(clean / 'train/ant/2.png') as image:  # looks alike, smaller and as JPEG: across splits
        image.resize((45, 36)).save(clean / 'val/ant/93.jpg', quality=80)
    with Image.open(clean / 'train/ant/3.png') as image:  # under two classes
        Image.eval(image, lambda v: min(v + 6, 255)).save(clean / 'train/bee/94.png')
    (clean / 'train/bee/95.png').write_bytes(b'%!PS-Adobe')
    scene(500, (900, 48)).save(clean / 'train/bee/96.png')
    scene(501).convert('L').save(clean / 'train/bee/97.png')
    Image.new('RGB', (60, 48), (255, 255, 255)).save(clean / 'train/bee/98.png')
    Image.new('RGB', (60, 48), (9, 99, 9)).save(clean / 'train/bee/99.png')
    for split in ('train', 'val'):
        (clean / split / 'cat').mkdir()
        scene(600 + len(split)).save(clean / split / 'cat' / '1.png')
    code, report, _ = doctor('d')
    assert code == 1
    assert names(report, 'across splits') == [{'train/ant/0.png', 'test/ant/9.png'}]
    assert names(report, 'two labels') == [{'train/ant/1.png', 'train/bee/91.png'}]
    assert names(report, 'twice') == [{'train/bee/1.png', 'train/bee/92.png'}]
    assert names(report, 'look alike across splits') == [{'train/ant/2.png', 'val/ant/93.jpg'}]
    assert names(report, 'look alike, two labels') == [{'train/ant/3.png', 'train/bee/94.png'}]
    assert [f['text'] for f in found(report, 'broken')] == ['train/bee/95.png: it holds PostScript, which is not read']
    assert [f['text'] for f in found(report, 'classes differ')] == ['test has no image of cat']
    assert [f['text'] for f in found(report, 'few images')] == ['cat: 1']
    assert [f['text'] for f in found(report, 'odd size')] == ['train/bee/96.png: 900 x 48 px']
    assert [f['text'] for f in found(report, 'odd mode')] == ['train/bee/97.png: L, not RGB']
    assert {f['text'] for f in found(report, 'odd brightness')} == {
        'train/bee/98.png: nearly white (mean 255 of 255)', 'train/bee/99.png: of one colour (mean 62 of 255)'}
    assert not found(report, 'look alike') and report['errors'] == 4 == sum(f['error'] for f in report['findings'])
    assert report['counts']['odd brightness'] == 2

    code, text, _ = doctor('d', as_json=False)
    assert code == 1 and 'across splits: 1 (the same image in two splits' in text
    assert '  train/ant/0.png = test/ant/9.png\n' in text and text.endswith('4 to put right, 8 to look at\n')


def test_the_page_shows_pictures_and_runs_nothing(clean, doctor, tmp_path):
    bad = clean / 'train' / '<script>x</script>'.replace('/', '_')
    bad.mkdir()
    shutil.copy(clean / 'train/ant/0.png', bad / "a&b'.png")
    code, report, err = doctor('d', '--html', 'page.html')
    page = (tmp_path / 'page.html').read_text()
    assert code == 1 and 'page: page.html' in err
    assert '<script' not in page and '&lt;script&gt;' in page and 'a&amp;b&#x27;.png' in page
    assert len(re.findall(r'src="data:image/jpeg;base64,[\w+/=]+"', page)) == 2 and 'http' not in page


def test_series_of_names_suggest_a_group(doctor, tmp_path):
    for label in ('ant', 'bee'):
        (tmp_path / 'd' / label).mkdir(parents=True)
        for i in range(12):
            scene(i + 100 * (label == 'bee')).save(tmp_path / 'd' / label / f'nest{i // 3}_{i}.png')
    _, report, _ = doctor('d')
    assert [f['text'][:52] for f in found(report, 'series')] == ['8 series of names, such as nest0_1, nest0_2: if each']
    assert "--group-regex '([^/]+)[_-]\\d+\\.\\w+$'" in found(report, 'series')[0]['text']


def test_tables_and_flags(clean, doctor, tmp_path):
    lines = [f'{p.relative_to(clean)};{p.parent.name};{p.parts[-3]}' for p in sorted(clean.glob('*/*/*.png'))]
    (clean / 't.csv').write_text('\n'.join(['path;label;split', *lines]))
    code, report, _ = doctor('d/t.csv', '--least', '13')
    assert code == 0 and report['counts'] == {'few images': 2} and report['num_images'] == 40


@pytest.mark.parametrize('argv, words', [
    (['nowhere'], 'nowhere'), ([], 'Which images?'), (['d', '--jsn'], "Unknown flag --jsn (did you mean '--json'"),
    (['d', '--data-dir', 'e'], 'given twice'), (['d', '--html', 'no/such/page.html'], '--html no/such/page.html'),
    (['d', '--least', 'x'], '--least')])
def test_wrong_words_are_one_line(clean, doctor, argv, words):
    code, _, err = doctor(*argv, as_json=False)
    assert code == 2 and words in err.splitlines()[-1] and 'Traceback' not in err
