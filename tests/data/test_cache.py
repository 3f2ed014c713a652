"""Decoded once, equal to direct decoding, used again, and every bad file found before the first epoch."""
import io
import os
import pickle

import numpy as np
import pytest
from PIL import Image

from timm_smalldata.data.cache import CachedSource, build_cache
from timm_smalldata.data.pixels import Kinds, PixelRule, decode
from timm_smalldata.data.readers import folder_source
from timm_smalldata.data.scan import data_hash, scan
from timm_smalldata.data.source import ArraySource, ImageSource, Joined, Subset
from timm_smalldata.data.stored import stored_side
from timm_smalldata.errors import UserError
from timm_smalldata.utils.files import open_atomic


class Encoded(ImageSource):
    """Encoded images in memory; counts how often their bytes are asked for."""

    def __init__(self, encoded):
        self.encoded, self.classes = encoded, ['a']
        self.targets = np.zeros(len(encoded), dtype=np.int64)
        self.names = [f'x{i}' for i in range(len(encoded))]
        self.looks = 0

    def raw(self, index):
        self.looks += 1
        return self.encoded[index]


def noise(size, channels=3, seed=0):
    shape = (size[1], size[0], channels) if channels > 1 else (size[1], size[0])
    return np.random.RandomState(seed).randint(0, 256, shape).astype(np.uint8)


def encoded(image, format, **kwargs):
    stream = io.BytesIO()
    image.save(stream, format, **kwargs)
    return stream.getvalue()


def every_mode():
    rgb = Image.fromarray(noise((37, 21)))
    rgba = Image.fromarray(noise((20, 31), 4), 'RGBA')
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by 90 degrees
    return [
        encoded(rgb, 'PNG'), encoded(rgb, 'JPEG', quality=90), encoded(rgb, 'WEBP'), encoded(rgb, 'BMP'),
        encoded(rgb.convert('L'), 'PNG'), encoded(rgb.convert('L'), 'JPEG'), encoded(rgb.convert('1'), 'PNG'),
        encoded(rgb.convert('P'), 'PNG'), encoded(rgb.convert('P'), 'PNG', transparency=3),
        encoded(rgb.convert('P'), 'GIF'),
        encoded(rgba, 'PNG'), encoded(rgba.convert('LA'), 'PNG'), encoded(rgb.convert('CMYK'), 'JPEG'),
        encoded(rgb.convert('CMYK'), 'TIFF'), encoded(rgb, 'JPEG', exif=exif), encoded(rgb, 'JPEG', progressive=True),
        encoded(rgb.resize((1, 1)), 'PNG'), encoded(rgb.resize((1, 300)), 'PNG'),
    ]


def cache(source, folder, side=None):
    path, sizes, bad = build_cache(source, scan(source), folder, side)
    return CachedSource(source, path, sizes), bad


def direct(content):
    with Image.open(io.BytesIO(content)) as image:
        if image.mode in ('RGBA', 'LA') or 'transparency' in image.info:  # see test_pixels.py
            return np.asarray(decode(content))
        return np.asarray(image.convert('RGB'))


def test_pixels_are_those_of_direct_decoding(tmp_path):
    contents = every_mode()
    cached, bad = cache(Encoded(contents), tmp_path)
    assert not bad
    for index, content in enumerate(contents):
        image, label = cached.read(index)
        assert image.mode == 'RGB' and label == 0 and np.array_equal(image, direct(content)), index


def test_more_images_than_are_decoded_at_once(tmp_path):
    contents = [encoded(Image.fromarray(noise((3 + i % 5, 4), seed=i)), 'PNG') for i in range(150)]
    cached, _ = cache(Encoded(contents), tmp_path)
    for index in (149, 0, 63, 64, 127, 128):
        assert np.array_equal(cached.read(index)[0], direct(contents[index]))


def test_arrays_are_kept_as_they_are(tmp_path):
    images = [noise((5, 4), seed=i) for i in range(3)]
    source = ArraySource(images, [1, 0, 1], ['a', 'b'])
    for wrapped in (source, Joined([source, Subset(source, [2])])):
        cached, bad = cache(wrapped, tmp_path)
        assert not bad and all(np.array_equal(cached.read(i)[0], images[min(i, 2)]) for i in range(len(wrapped)))
        assert cached.targets.tolist() == wrapped.targets.tolist() and cached.raw(0) == images[0].tobytes()


def test_large_images_are_stored_smaller_and_small_ones_as_they_are(tmp_path):
    large, small = Image.fromarray(noise((100, 60))), Image.fromarray(noise((90, 20)))
    cached, _ = cache(Encoded([encoded(large, 'PNG'), encoded(small, 'PNG')]), tmp_path, side=30)
    assert cached.read(0)[0].size == (50, 30) and cached.read(1)[0].size == (90, 20)
    assert np.array_equal(cached.read(0)[0], large.resize((50, 30), Image.Resampling.BICUBIC))
    assert np.array_equal(cached.read(1)[0], small)


def test_the_size_that_is_stored(tmp_path, monkeypatch):
    scanned = scan(Encoded([encoded(Image.fromarray(noise((100, 60))), 'PNG')]))
    assert scanned.median_side() == 60 and scanned.decoded_bytes() == 18000
    assert stored_side([scanned], 32) is None and stored_side([scanned], 32, '48') == 48
    monkeypatch.setattr('timm_smalldata.data.stored.FULL_SIZE_LIMIT', 18000)
    assert stored_side([scanned], 32) is None and stored_side([scanned, scanned], 32) == 64  # all splits together
    monkeypatch.setattr('timm_smalldata.data.stored.FULL_SIZE_LIMIT', 17999)
    assert stored_side([scanned], 32) == 64 and stored_side([scanned], 32, 'full') is None
    for wanted in ('big', '0', '-5', '1.5', ''):
        with pytest.raises(UserError, match='--cache-size'):
            stored_side([scanned], 32, wanted)


def test_an_equal_cache_is_used_again(tmp_path):
    contents = every_mode()
    first, _ = cache(Encoded(contents), tmp_path)
    source = Encoded(contents)
    scanned = scan(source)
    source.looks = 0
    path, sizes, _ = build_cache(source, scanned, tmp_path)
    assert path == first.path and source.looks == 0 and np.array_equal(sizes, first.sizes)
    assert len(list(tmp_path.iterdir())) == 2  # pixels and their index, nothing temporary


@pytest.mark.parametrize('change', ['order', 'bytes', 'fewer', 'side'])
def test_another_cache_is_made_for_other_images(tmp_path, change):
    contents = [encoded(Image.fromarray(noise((40, 40), seed=i)), 'PNG') for i in range(3)]
    others = {'order': contents[::-1], 'bytes': [contents[2]] + contents[1:], 'fewer': contents[:2], 'side': contents}
    first, _ = cache(Encoded(contents), tmp_path)
    second, _ = cache(Encoded(others[change]), tmp_path, 20 if change == 'side' else None)
    assert first.path != second.path
    assert np.array_equal(first.read(0)[0], direct(contents[0]))
    if change != 'side':
        assert np.array_equal(second.read(0)[0], direct(others[change][0]))


def test_bad_files_are_named_with_a_reason(tmp_path):
    good = encoded(Image.fromarray(noise((40, 40))), 'PNG')
    jpeg = encoded(Image.fromarray(noise((40, 40))), 'JPEG')
    source = Encoded([good, b'', good[:len(good) // 2], jpeg[:len(jpeg) // 2], b'<html>', good])
    scanned = scan(source)
    assert sorted(scanned.bad) == [1, 4] and scanned.sizes[1].tolist() == [0, 0]  # their headers cannot be read
    _, sizes, bad = build_cache(source, scanned, tmp_path)
    assert sorted(bad) == [1, 2, 3, 4] and all(bad.values()) and sizes[2].tolist() == [0, 0]
    assert 'truncated' in bad[3] and '0x' not in ''.join(bad.values())  # no addresses: equal runs say equal things
    cached = CachedSource(source, tmp_path / _.name, sizes)
    assert np.array_equal(cached.read(0)[0], direct(good)) and np.array_equal(cached.read(5)[0], direct(good))
    assert build_cache(source, scanned, tmp_path)[2] == bad  # known from the index as well


def test_what_is_not_plain_is_counted():
    deep = [np.full((4, 4), value, dtype=np.uint16) for value in (7, 30000)] + [np.full((4, 4), np.nan, np.float32)]
    contents = [encoded(Image.fromarray(pixels), 'TIFF') for pixels in deep]
    frames = [Image.fromarray(noise((9, 9), seed=i)) for i in range(2)]
    contents += [encoded(frames[0], 'WEBP', save_all=True, append_images=frames[1:])]
    scanned = scan(Encoded(contents + every_mode()))
    assert scanned.kinds == Kinds(alpha=3, deep=2, animated=1, lowest=0, highest=30000)
    assert scanned.bad == {2: 'values that are not finite (NaN or infinity)'}


def test_other_pixels_are_another_cache(tmp_path):
    source = Encoded(every_mode())
    paths = {build_cache(source, scan(source), tmp_path, rule=rule)[0]
             for rule in (PixelRule(), PixelRule('black'), PixelRule('drop'), PixelRule('drop', (0, 9)), PixelRule())}
    assert len(paths) == 4


def test_a_file_that_is_gone_is_bad(photos):
    source, _ = folder_source(photos)
    (photos / source.names[3]).unlink()
    assert list(scan(source).bad) == [3]


def test_only_bad_files(tmp_path):
    source = Encoded([b'', b'x'])
    assert scan(source).median_side() == 0
    assert sorted(build_cache(source, scan(source), tmp_path)[2]) == [0, 1]


def test_an_interrupted_cache_leaves_nothing(tmp_path):
    class Bar:
        def update(self):
            raise KeyboardInterrupt

    source = Encoded(every_mode())
    scanned = scan(source)
    with pytest.raises(KeyboardInterrupt):
        build_cache(source, scanned, tmp_path, progress=Bar())
    assert not list(tmp_path.iterdir())
    assert not build_cache(source, scanned, tmp_path)[2]


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / 'file').write_text('x')
    source = Encoded(every_mode()[:1])
    with pytest.raises(UserError, match='Cannot write the image cache in .*file.*--cache-dir'):
        build_cache(source, scan(source), tmp_path / 'file')


def test_a_worker_gets_the_file_and_not_the_images(tmp_path):
    contents = every_mode()
    cached, _ = cache(Encoded(contents), tmp_path)
    cached.read(0)
    sent = pickle.dumps(Subset(cached, [5, 2]))
    assert len(sent) < 5000
    received = pickle.loads(sent)
    assert np.array_equal(received.read(0)[0], direct(contents[5])) and received.names == ['x5', 'x2']


def test_the_data_hash_does_not_depend_on_order():
    digests = np.arange(64, dtype=np.uint8).reshape(2, 32)
    value = data_hash(['a', 'b'], digests, [0, 1])
    assert value == data_hash(['b', 'a'], digests[::-1], np.array([1, 0])) and len(value) == 64
    for other in (data_hash(['a', 'c'], digests, [0, 1]), data_hash(['a', 'b'], digests, [0, 0]),
                  data_hash(['a', 'b'], digests[::-1], [0, 1])):
        assert other != value


def test_files_are_flushed_before_they_get_their_name(tmp_path, monkeypatch):
    done = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, 'fsync', lambda handle: (done.append('fsync'), fsync(handle)))
    monkeypatch.setattr(os, 'replace', lambda a, b: (done.append(f'rename {str(b)[-3:]}'), replace(a, b)))
    cache(Encoded(every_mode()[:2]), tmp_path)
    assert [step for step in done if step.startswith('rename')] == ['rename .u8', 'rename npz']
    assert done[0] == 'fsync' and 'fsync' in done[done.index('rename .u8'):done.index('rename npz')]


def spoil(path, how):
    content = path.read_bytes()
    if how == 'gone':
        path.unlink()
    else:
        path.write_bytes({
            'cut short': content[:-5], 'empty': b'', 'longer': content + b'x',
            'altered': content[:40] + bytes([content[40] ^ 1]) + content[41:]}[how])


@pytest.mark.parametrize('which', ['u8', 'npz'])
@pytest.mark.parametrize('how', ['cut short', 'empty', 'longer', 'altered', 'gone'])
def test_a_damaged_cache_is_made_again_and_said(tmp_path, which, how):
    contents, said = every_mode()[:4], []
    first, _ = cache(Encoded(contents), tmp_path)
    spoil(first.path.with_suffix(f'.{which}'), how)
    source = Encoded(contents)
    scanned = scan(source)
    path, sizes, _ = build_cache(source, scanned, tmp_path, say=said.append)
    if not said:  # what was appended to an archive, or changed in a part that nobody reads
        assert how == 'gone' or which == 'npz'
    else:
        assert len(said) == 1 and said[0].startswith(f'image cache {path}: ') and 'made again' in said[0]
    cached = CachedSource(source, path, sizes)
    for index, content in enumerate(contents):
        assert np.array_equal(cached.read(index)[0], direct(content))
    assert build_cache(source, scanned, tmp_path, say=said.append)[0] == path and len(said) <= 1


def test_a_cache_from_elsewhere_is_not_taken(tmp_path):
    """Files of other images under the name of these."""
    contents = [encoded(Image.fromarray(noise((40, 40), seed=i)), 'PNG') for i in range(2)]
    mine, _ = cache(Encoded(contents), tmp_path / 'mine')
    other, _ = cache(Encoded(contents[::-1]), tmp_path / 'other')
    for suffix in ('.u8', '.npz'):
        mine.path.with_suffix(suffix).write_bytes(other.path.with_suffix(suffix).read_bytes())
    said, source = [], Encoded(contents)
    path, sizes, _ = build_cache(source, scan(source), tmp_path / 'mine', say=said.append)
    assert 'its index belongs to other images' in said[0]
    assert np.array_equal(CachedSource(source, path, sizes).read(0)[0], direct(contents[0]))


def test_what_killed_processes_left_is_removed_and_what_is_written_stays(tmp_path):
    (tmp_path / '.0123.u8.77-ab.tmp').write_bytes(b'half')
    source = Encoded(every_mode()[:2])
    with open_atomic(tmp_path / 'other.u8', binary=True) as file:
        file.write(b'whole')
        cache(source, tmp_path)
    assert (tmp_path / 'other.u8').read_bytes() == b'whole'
    assert sorted(path.suffix for path in tmp_path.iterdir()) == ['.npz', '.u8', '.u8']
