#!/usr/bin/env python3
"""Give every parser whatever hypothesis thinks of: it reads it, or says in one line why not, and nothing else happens.

    python tests/helpers/fuzz.py --examples 2000  # inputs for each parser; prints how many each had and refused

The suite (tests/data/test_hostile.py) does the same with few inputs that are always the same. A new parser adds a line
to PARSERS.
"""
import argparse
import csv
import io
import json
import sys
import tempfile
import time
from argparse import Namespace
from collections import Counter
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Optional

import numpy as np
import timm
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

if __name__ == '__main__':
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from timm_smalldata.build.eval_images import training_counts
from timm_smalldata.build.roles import read_class_stats
from timm_smalldata.build.trained import TrainedModel
from timm_smalldata.build.weights import open_weights
from timm_smalldata.config.choice import CHOICE, read_choice
from timm_smalldata.config.length import seconds
from timm_smalldata.config.plan import finish_stage, plan
from timm_smalldata.config.sharpness import rho_schedule
from timm_smalldata.config.yaml_file import load_config
from timm_smalldata.data.cache import CachedSource, build_cache
from timm_smalldata.data.classes import ClassInfo
from timm_smalldata.data.listing import list_tar
from timm_smalldata.data.scan import scan
from timm_smalldata.data.source import ImageSource
from timm_smalldata.data.split import group_keys, parse_fold
from timm_smalldata.data.split_file import read_indices, read_split, write_indices, write_split
from timm_smalldata.data.tables import list_source, read_class_map, table_source
from timm_smalldata.engine import checkpoint
from timm_smalldata.errors import UserError
from timm_smalldata.evaluation import parse_shot_split
from timm_smalldata.hub.export import export_model
from timm_smalldata.run.resume import EarlierRun
from timm_smalldata.run.starts import read_starts
from timm_smalldata.utils.model_folder import CONFIG, WEIGHTS, is_complete

PIECES = [piece.encode('utf-8', 'surrogatepass') for piece in (
    ',', ';', '\t', '|', '"', '\n', '\r', '\0', '\ufeff', '²', '-', '--5', '9' * 12, '9' * 400, '1e999', 'NaN', '.0',
    'path', 'label', 'split', 'fold', 'is_valid', 'sep=;\n', '[' * 1500, '{"a":' * 1500, '2001-99-99', '0x', '1_0',
    '!!timestamp x', '!!python/object:os.system x', '&a [*a]', '<<: ', '~', ': ', '? ', '\\', '../', '/etc/passwd',
    '\u202e\u2028\x85', '\ud800', 'sha256', 'names', 'null', 'true', '{}', '[]')]
PIECES += [b'\xff', b'\xff\xfe', b'x' * 140_000]
WORDS = st.one_of(st.text(max_size=12), st.sampled_from([
    'path', 'label', 'split', 'fold', 'is_valid', 'is_train', 'train', 'val', 'test', 'ant', 'bee', '0', '1', '0.0',
    '-1', 'nan', 'a.jpg', '../a.jpg', 'a\\b.jpg', '/a.jpg', '²', '9' * 30, ' ', '"', 'sep=;', '=1+1']))
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), WORDS),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(WORDS, inner, max_size=4)), max_leaves=12)


@st.composite
def mutated(draw: Any, seed: bytes) -> bytes:
    """Bytes of a good file with pieces cut out, doubled, changed and put in."""
    data = bytearray(seed)
    for _ in range(draw(st.integers(1, 5))):
        place, how = draw(st.integers(0, len(data))), draw(st.integers(0, 3))
        if how == 0:
            data[place:place] = draw(st.sampled_from(PIECES))
        elif how == 1:
            del data[place:place + draw(st.integers(1, 20))]
        elif how == 2:
            data[place:place] = data[place:place + draw(st.integers(1, 40))]
        elif data:
            data[place % len(data)] = draw(st.integers(0, 255))
    return bytes(data)


@st.composite
def tables(draw: Any) -> bytes:
    """A CSV of any words, separator and encoding."""
    stream, width = io.StringIO(), draw(st.integers(1, 4))
    writer = csv.writer(stream, delimiter=draw(st.sampled_from(',;\t|')))
    for _ in range(draw(st.integers(0, 5))):
        writer.writerow(draw(st.lists(WORDS, min_size=1, max_size=width)))
    return stream.getvalue().encode(draw(st.sampled_from(['utf-8', 'utf-16', 'utf-8-sig', 'latin-1'])), 'replace')


def files(seed: bytes, *more: Any) -> Any:
    """A good file changed, bytes of any kind, and what else is named."""
    return st.one_of(mutated(seed), st.binary(max_size=200), *more)


def json_files(good: Dict[str, Any]) -> Any:
    """A good JSON file changed, any JSON, and the right keys with any values."""
    values = st.fixed_dictionaries({}, optional={key: JSON for key in good})
    return files(json.dumps(good).encode(), JSON.map(as_json), st.builds(lambda new: as_json({**good, **new}), values))


def as_json(value: Any) -> bytes:
    return json.dumps(value).encode('utf-8', 'surrogatepass')


def yaml_values() -> Any:
    """Lines `flag: value` of real flags and of others."""
    names = st.one_of(WORDS, st.sampled_from(['epochs', 'lr', 'mixup', 'betas', 'model-kwargs', 'recipe', 'opt', 'aug',
                                              'img-size', 'scale', 'drw-epoch', 'seed', 'fold', 'time-budget']))
    return st.dictionaries(names, JSON, max_size=5).map(as_json)  # JSON is YAML


# --- what needs a file that was written before -----------------------------------------------------------------------

class Encoded(ImageSource):
    """Two images."""

    def __init__(self) -> None:
        self.names, self.classes, self.targets = ['a', 'b'], ['x'], np.zeros(2, dtype=np.int64)
        stream = io.BytesIO()
        Image.linear_gradient('L').resize((5, 5)).convert('RGB').save(stream, 'PNG')
        self.encoded = stream.getvalue()

    def raw(self, index: int) -> bytes:
        return self.encoded


def cache_file(suffix: str) -> Callable[[Path, bytes], Any]:
    """A cache whose file is what it is not: it is made again, and the pixels are right."""
    def read(folder: Path, data: bytes) -> None:
        source = Encoded()
        scanned = scan(source)
        path, _, _ = build_cache(source, scanned, folder)
        path.with_suffix(suffix).write_bytes(data)
        path, sizes, bad = build_cache(source, scanned, folder)
        right = np.asarray(Image.open(io.BytesIO(source.encoded)))
        assert not bad and np.array_equal(CachedSource(source, path, sizes).pixels(1), right)
    return read


def good_cache(suffix: str) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        source = Encoded()
        return build_cache(source, scan(source), Path(folder))[0].with_suffix(suffix).read_bytes()


def good_checkpoint() -> Dict[str, Any]:
    return dict(epoch=0, arch='test_vit', version=2, args=Namespace(model='test_vit', task='classification', seed=1),
                state_dict=dict(w=torch.zeros(2)), optimizer={}, classes=dict(names=['a'], counts=[1], data_hash=''),
                history=[], best={})


def saved(state: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(state, stream)
    return stream.getvalue()


def checkpoints() -> Any:
    """A checkpoint changed, and one whose parts hold anything."""
    good = good_checkpoint()
    values = st.fixed_dictionaries({}, optional={key: JSON for key in good})
    named = st.dictionaries(st.sampled_from(['task', 'model', 'device', 'head', 'seed', 'lr']), JSON).map(
        lambda new: Namespace(**new))
    return files(saved(good), st.builds(lambda new: saved({**good, **new}), values),
                 st.builds(lambda args: saved({**good, 'args': args}), named))


def read_checkpoint(folder: Path, data: bytes) -> None:
    """What opens a checkpoint: as one to continue, and as weights for another run."""
    (folder / 'e').mkdir(exist_ok=True)
    path = folder / 'e' / checkpoint.LAST
    path.write_bytes(data)
    weights = open_weights(path)
    assert weights.head and (weights.names is None or isinstance(weights.names, list))
    if weights.saved is not None:
        assert isinstance(weights.classes, ClassInfo)
    stage = plan(['photos', '--output', str(folder), '--experiment', 'e', '--resume', 'auto'])[0]
    earlier = EarlierRun(stage)
    assert earlier.device is None or isinstance(earlier.device, str)
    assert earlier.checkpoint is not None


def good_model() -> Dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / 'model'
        export_model(timm.create_model('test_vit', num_classes=1), place, classes=ClassInfo(['a'], [1]),
                     data_config=dict(input_size=(3, 160, 160), mean=(.5,) * 3, std=(.5,) * 3, crop_pct=1.0,
                                      interpolation='bicubic'))
        return {name: (place / name).read_bytes() for name in (CONFIG, WEIGHTS)}


def model_file(name: str, good: Dict[str, bytes]) -> Callable[[Path, bytes], Any]:
    """An exported folder with another file in it: it is complete, or it is not."""
    def read(folder: Path, data: bytes) -> None:
        for other, content in good.items():
            (folder / other).write_bytes(data if other == name else content)
        if not is_complete(folder):
            raise UserError('not complete')
    return read


# --- parsers ----------------------------------------------------------------------------------------------------------

class Parser(NamedTuple):
    """What makes inputs, and what reads one in a folder of its own."""
    inputs: Any
    read: Callable[[Path, Any], Any]


def in_file(name: str, read: Callable[[Path], Any]) -> Callable[[Path, bytes], Any]:
    def call(folder: Path, data: bytes) -> Any:
        (folder / name).write_bytes(data)
        return read(folder / name)
    return call


def planned(path: Path) -> None:
    for stage in plan(['photos', '-c', str(path)]):
        finish_stage(stage)


def counted(path: Path) -> None:
    """Class counts for a training, and for an evaluation of a model with classes of these names."""
    read_class_stats(str(path), 2)
    args = Namespace(class_stats=str(path))
    counts = training_counts(args, TrainedModel(None, {}, ['ant', 'bee']), ['ant', 'bee'], [])  # type: ignore[arg-type]
    assert counts is not None and len(counts) == 2


def create_parsers() -> Dict[str, Parser]:
    stats = dict(pos_counts=[3, 4], num_samples=7, class_names=['ant', 'bee'])
    split = written(lambda path: write_split(path, dict(train=['a'], val=['b'])))
    indices = written(lambda path: write_indices(path, [0], ['a', 'b']))
    table = b'path,label,split\na.jpg,ant,train\nb.jpg,bee,val\n'
    model = good_model()
    text = st.one_of(st.text(max_size=20), st.from_regex(r'[0-9ifconutsdex:/,. mhsd-]{0,12}', fullmatch=True))
    return {
        'table .csv': Parser(files(table, tables()), in_file('f.csv', lambda p: table_source(p, p.parent))),
        'table .tsv': Parser(files(table.replace(b',', b'\t'), tables()),
                             in_file('f.tsv', lambda p: table_source(p, p.parent))),
        'list': Parser(files(b'a/1.jpg 0\nb/2.jpg 3\n', tables()),
                       in_file('f.txt', lambda p: list_source(p, p.parent))),
        'class map': Parser(files(b'ant\nbee\n', tables()), in_file('f.txt', lambda p: read_class_map(str(p), None))),
        'YAML of flags': Parser(files(b'epochs: 3\nlr: 0.1\nmixup: 0.5\nbetas: [0.9, 0.95]\n', yaml_values()),
                                in_file('f.yaml', lambda p: load_config(str(p)))),
        'YAML, planned': Parser(yaml_values(), in_file('f.yaml', planned)),
        'class stats': Parser(json_files(stats), in_file('f.json', counted)),
        'split file': Parser(json_files(split), in_file('f.json', lambda p: read_split(str(p), ['a', 'b']))),
        'index file': Parser(json_files(indices),
                             in_file('f.json', lambda p: read_indices(str(p), ['a', 'b']))),
        'cache index': Parser(files(good_cache('.npz')), cache_file('.npz')),
        'cache pixels': Parser(files(good_cache('.u8')), cache_file('.u8')),
        'checkpoint': Parser(checkpoints(), read_checkpoint),
        'model config': Parser(json_files(json.loads(model[CONFIG])), model_file(CONFIG, model)),
        'model weights': Parser(mutated(model[WEIGHTS]), model_file(WEIGHTS, model)),
        'choice': Parser(json_files(dict(chosen_for='all runs of an experiment', values={})),
                         in_file(CHOICE, lambda p: read_choice(p.parent, {}))),
        'starts': Parser(files(b'           0           12\n'), in_file('starts.txt', lambda p: read_starts(p.parent))),
        'tar': Parser(files(good_tar()), in_file('f.tar', list_tar)),
        '--fold': Parser(text, lambda _, word: parse_fold(word)),
        '--time-budget': Parser(text, lambda _, word: seconds(word)),
        '--shot-split': Parser(text, lambda _, word: parse_shot_split(word, [3, 2, 1])),
        '--sam-rho-schedule': Parser(text, lambda _, word: rho_schedule(Namespace(sam_rho_schedule=word))),
        '--group-regex': Parser(st.text(max_size=12), lambda _, word: group_keys(['a/b_1.jpg'], word)),
    }


def written(write: Callable[[str], Any]) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        write(f'{folder}/f.json')
        return json.loads(Path(folder, 'f.json').read_text())


def good_tar() -> bytes:
    import tarfile
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode='w') as tar:
        for name in ('a/1.png', 'b/2.png'):
            tar.addfile(tarfile.TarInfo(name))
    return stream.getvalue()[:2048]


def try_parser(parser: Parser, examples: int, always_the_same: bool = True) -> Counter:
    """Give a parser inputs; returns how many it had (`inputs`) and refused in one line (`refused`)."""
    count: Counter = Counter()

    @settings(max_examples=examples, derandomize=always_the_same, database=None, deadline=None, print_blob=False,
              suppress_health_check=list(HealthCheck))
    @given(parser.inputs)
    def check(data: Any) -> None:
        count['inputs'] += 1
        with tempfile.TemporaryDirectory() as folder:
            try:
                parser.read(Path(folder), data)
            except UserError as error:
                count['refused'] += 1
                assert len(str(error)) < 3000

    check()
    return count


def main(argv: Optional[List[str]] = None) -> int:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument('--examples', type=int, default=2000, metavar='N', help='inputs for each parser [2000]')
    asked.add_argument('--only', nargs='+', metavar='PARSER', help='these parsers alone')
    args = asked.parse_args(argv)
    total, failed, started = 0, 0, time.time()
    for name, parser in create_parsers().items():
        if args.only and name not in args.only:
            continue
        try:
            count = try_parser(parser, args.examples, always_the_same=False)
        except BaseException as error:  # several failures come as a group
            import traceback
            traceback.print_exception(error)
            failed += 1
            print(f'{name}: FAILED ({type(error).__name__})', flush=True)
            if isinstance(error, KeyboardInterrupt):
                return 130
            continue
        total += count['inputs']
        print(f'| {name} | {count["inputs"]} | {count["refused"]} |', flush=True)
    print(f'{total} inputs, {failed} parsers failed, {time.time() - started:.0f} s')
    return int(failed > 0)


if __name__ == '__main__':
    sys.exit(main())
