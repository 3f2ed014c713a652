"""Every kind of image that Pillow decodes by itself is read, in each place; no other program is called."""
import io
import subprocess
import tarfile

import numpy as np
import pytest
from PIL import Image

from timm_smalldata.data.formats import FORMATS, SUFFIXES, open_image, suffix_of
from timm_smalldata.data.readers import folder_source
from timm_smalldata.data.tables import table_source

KINDS = {  # suffix: Pillow's name of what is written under it
    '.png': 'PNG', '.jpg': 'JPEG', '.jpeg': 'JPEG', '.jpe': 'JPEG', '.jfif': 'JPEG', '.webp': 'WEBP', '.bmp': 'BMP',
    '.dib': 'BMP', '.tif': 'TIFF', '.tiff': 'TIFF', '.gif': 'GIF', '.jp2': 'JPEG2000', '.j2k': 'JPEG2000',
    '.ppm': 'PPM', '.pgm': 'PPM', '.pbm': 'PPM', '.pnm': 'PPM', '.avif': 'AVIF', '.JPG': 'JPEG', '.WebP': 'WEBP'}
MODES = {'.pgm': 'L', '.pbm': '1'}
HERE = [suffix for suffix, kind in KINDS.items() if kind in FORMATS]
POSTSCRIPT = b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n0 0 9 9 rectfill\n%%EOF\n'


@pytest.fixture
def zoo(tmp_path):
    """One image of each kind, in a folder for each of two classes."""
    for number, suffix in enumerate(HERE):
        path = tmp_path / 'zoo' / 'ab'[number % 2] / f'{number}{suffix}'
        path.parent.mkdir(parents=True, exist_ok=True)
        colour = {'L': 200, '1': 1}.get(MODES.get(suffix), (250, 10, 10))
        Image.new(MODES.get(suffix, 'RGB'), (16, 12), colour).save(path, KINDS[suffix])
    return tmp_path / 'zoo'


def sources(zoo, tmp_path):
    with tarfile.open(tmp_path / 'zoo.tar', 'w') as tar:
        tar.add(zoo, 'zoo')
    files = sorted(zoo.glob('*/*'))
    lines = ['path,label', *(f'{file.relative_to(zoo)},{file.parent.name}' for file in files)]
    (zoo / 't.csv').write_text('\n'.join(lines))
    yield table_source(zoo / 't.csv', zoo)['']
    (zoo / 't.csv').unlink()
    for path in (zoo, tmp_path / 'zoo.tar'):
        source, note = folder_source(path)
        assert 'not read' not in note
        yield source


def test_every_kind_is_read_from_folder_tar_and_table(zoo, tmp_path):
    assert {'PNG', 'JPEG', 'WEBP', 'BMP', 'TIFF', 'GIF', 'PPM'} <= set(FORMATS)
    for source in sources(zoo, tmp_path):
        assert len(source) == len(HERE) and source.classes == ['a', 'b']
        for index, name in enumerate(source.names):
            image, label = source.read(index)
            assert image.mode == 'RGB' and image.size == (16, 12) and source.classes[label] in name
            red, green, _ = np.asarray(image).reshape(-1, 3).mean(0)
            expected = {'.pgm': (200, 200), '.pbm': (255, 255)}.get(suffix_of(name), (250, 10))
            assert abs(red - expected[0]) < 6 and abs(green - expected[1]) < 8, name


def test_every_suffix_on_the_list_is_tried_here():
    assert {suffix.lower() for suffix in HERE} | {'.apng', '.j2c', '.jpc', '.jpf', '.jpx'} >= SUFFIXES


def test_other_files_are_counted_by_suffix(zoo):
    before = len(folder_source(zoo)[0])
    for name in ('a/1.heic', 'a/2.HEIC', 'c/3.heic', 'a/none', 'notes.txt', 'a/.hidden.png'):
        (zoo / name).parent.mkdir(exist_ok=True)
        (zoo / name).write_bytes(b'x')
    source, note = folder_source(zoo)
    assert len(source) == before and source.classes == ['a', 'b']
    assert f'not read in {zoo}: 3 .heic (first: ' in note and '1 without a suffix (first: a/none)' in note
    assert '1 .txt (first: notes.txt)' in note and 'no image that is read in: c' in note and '1 hidden files' in note


def test_the_first_bytes_tell_the_kind(tmp_path):
    stream = io.BytesIO()
    Image.new('RGB', (5, 4)).save(stream, 'JPEG')
    assert open_image(stream.getvalue()).format == 'JPEG'  # whatever the file is called


@pytest.mark.parametrize('raw, reason', [
    (b'', 'the file is empty'), (POSTSCRIPT, 'it holds PostScript, which is not read'),
    (b'\xc5\xd0\xd3\xc6' + bytes(40), 'it holds PostScript'), (b'\xd7\xcd\xc6\x9a' + bytes(80), 'it holds WMF'),
    (b'\n <html>', 'it holds HTML or XML'), (b'%PDF-1.4', 'it holds PDF'),
    (b'words', 'no image of a kind that is read'),
])
def test_what_is_not_read_says_what_it_is(raw, reason, monkeypatch):
    def called(*args, **kwargs):
        raise AssertionError('an outside program is called')

    for name in ('Popen', 'run', 'call', 'check_call', 'check_output'):
        monkeypatch.setattr(subprocess, name, called)
    with pytest.raises(OSError, match=reason):
        open_image(raw).load()


def test_the_list_holds_nothing_that_calls_a_program():
    assert not {'EPS', 'WMF', 'IPTC', 'GRIB', 'BUFR', 'HDF5', 'FITS', 'MPEG'} & set(FORMATS)


def test_files_and_images_that_are_too_large(monkeypatch):
    stream = io.BytesIO()
    Image.new('1', (14000, 13000)).save(stream, 'PNG')
    with pytest.raises(ValueError, match='more than 178 million pixels, which is too large: store it smaller'):
        open_image(stream.getvalue())
    monkeypatch.setattr('timm_smalldata.data.formats.MOST_BYTES', 99)
    with pytest.raises(ValueError, match='a file of 0 MB; at most'):
        open_image(stream.getvalue())


def test_suffixes():
    assert [suffix_of(name) for name in ('a.JPG', 'a.tar.gz', '.png', 'a.b/c', 'a.', 'x/.a.png')] == [
        '.jpg', '.gz', '', '', '', '.png']
