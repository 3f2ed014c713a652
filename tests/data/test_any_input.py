"""Whatever bytes a file holds, its reader reads it or says so in one line; nothing else is raised, nothing is run."""
import io
import json
import pickle
import random

import numpy as np
import pytest
from PIL import Image

from timm_smalldata.config.yaml_file import load_config
from timm_smalldata.data.cache import CachedSource, build_cache
from timm_smalldata.data.formats import FORMATS
from timm_smalldata.data.listing import list_tar
from timm_smalldata.data.scan import scan
from timm_smalldata.data.source import ImageSource
from timm_smalldata.data.split_file import read_indices, read_split
from timm_smalldata.data.tables import list_source, read_class_map, table_source
from timm_smalldata.errors import UserError

ROUNDS = 300
PIECES = [
    b',', b';', b'\t', b'"', b'\n', b'\r', b'\0', b'\xff', b'\xff\xfe', b'\xef\xbb\xbf', '²'.encode(), b'-', b'--5',
    b'9' * 12, b'9' * 5000, b'1e999', b'NaN', b'nan', b'path', b'label', b'split', b'fold', b'is_valid', b'sep=;\n',
    b'[' * 1500, b'{"a":' * 1500, b'2001-99-99', b'!!timestamp x', b'!!python/object:os.system x', b'&a [*a]', b'~',
    b': ', b'? ', b'\\', b'../', b'x' * 140_000, '\u202e\u2028\x85'.encode(), b'\xed\xa0\x80', b'sha256', b'names',
]


def mutated(seed, rng):
    """Return bytes with pieces cut out, doubled, and put in."""
    data = bytearray(seed)
    for _ in range(rng.randint(1, 6)):
        place = rng.randint(0, len(data))
        what = rng.random()
        if what < 0.6:
            data[place:place] = rng.choice(PIECES)
        elif what < 0.8:
            del data[place:place + rng.randint(1, 20)]
        elif data:
            data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data)


def json_of(**content):
    return json.dumps(content).encode()


READERS = {
    'table': (b'path,label,split\na.jpg,ant,train\nb.jpg,bee,val\n', 'f.csv', lambda p: table_source(p, p.parent)),
    'list': (b'a/1.jpg 0\nb/2.jpg 3\n', 'f.txt', lambda p: list_source(p, p.parent)),
    'class map': (b'ant\nbee\ncat\n', 'f.txt', lambda p: read_class_map(str(p), None)),
    'yaml': (b'epochs: 3\nlr: 0.1\nmixup: 0.5\n', 'f.yaml', lambda p: load_config(str(p))),
    'split': (json_of(sha256='x', extra={}, split=dict(train=['a'])), 'f.json',
              lambda p: read_split(str(p), ['a', 'b'])),
    'indices': (json_of(sha256='x', names=['a']), 'f.json', lambda p: read_indices(str(p), ['a', 'b'])),
}


@pytest.mark.parametrize('kind', READERS)
def test_texts(tmp_path, kind):
    seed, name, read = READERS[kind]
    rng, refused = random.Random(kind), 0
    for _ in range(ROUNDS // 10 if kind == 'yaml' else ROUNDS):  # YAML is read slowly
        (tmp_path / name).write_bytes(mutated(seed, rng))
        try:
            read(tmp_path / name)
        except UserError as error:
            refused += 1
            assert len(str(error)) < 3000
    assert refused  # some inputs were bad


@pytest.mark.parametrize('format', [f for f in ('PNG', 'JPEG', 'GIF', 'BMP', 'TIFF', 'WEBP', 'PPM') if f in FORMATS])
def test_images(tmp_path, format):
    """Each is read, or bad with a reason; its neighbours are what they are."""
    stream = io.BytesIO()
    Image.linear_gradient('L').resize((20, 20)).convert('P' if format == 'GIF' else 'RGB').save(stream, format)
    rng, good = random.Random(format), stream.getvalue()
    source = Encoded([good, *(mutated(good, rng) for _ in range(100)), good])
    scanned = scan(source)
    path, sizes, bad = build_cache(source, scanned, tmp_path, side=20)
    cached = CachedSource(source, path, sizes)
    assert 0 not in bad and 101 not in bad and bad and all(bad.values())
    for index in set(range(102)) - set(bad):
        assert cached.read(index)[0].mode == 'RGB'
    assert np.array_equal(cached.read(101)[0], cached.read(0)[0])


def test_tars(tmp_path):
    import tarfile
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode='w') as tar:
        for i in range(3):
            info = tarfile.TarInfo(f'a/{i}.png')
            info.size = 700
            tar.addfile(info, io.BytesIO(bytes(700)))
    rng, good = random.Random(0), stream.getvalue()
    for _ in range(ROUNDS):
        data = bytearray(good)
        for _ in range(rng.randint(1, 8)):
            data[rng.randrange(4096)] = rng.randrange(256)
        (tmp_path / 'd.tar').write_bytes(data)
        try:
            list_tar(tmp_path / 'd.tar')
        except UserError:
            continue


class Encoded(ImageSource):
    def __init__(self, encoded):
        self.encoded, self.classes, self.targets = encoded, ['a'], np.zeros(len(encoded), dtype=np.int64)
        self.names = [f'x{i}' for i in range(len(encoded))]

    def raw(self, index):
        return self.encoded[index]


class Opened:
    """What runs when it is unpickled."""

    def __reduce__(self):
        return exec, ("raise AssertionError('a pickle was opened')",)


@pytest.mark.parametrize('name', ['f.txt', 'f.pkl', 'f.pickle', 'f.csv', 'f.yaml', 'f.json'])
def test_no_pickle_is_opened(tmp_path, name):
    path = tmp_path / name
    path.write_bytes(pickle.dumps(Opened()))
    for read in (lambda: read_class_map(str(path), None), lambda: table_source(path, tmp_path),
                 lambda: list_source(path, tmp_path), lambda: load_config(str(path)),
                 lambda: read_split(str(path), []), lambda: list_tar(path)):
        with pytest.raises(UserError):
            read()
