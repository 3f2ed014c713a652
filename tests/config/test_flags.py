"""The table of flags: timm's names and meanings, documented, explained, strict."""
import importlib.util
import json
from pathlib import Path

import pytest

from timm_smalldata.config.flags import BY_DEST, FLAGS
from timm_smalldata.config.parser import create_parser, parse_flags
from timm_smalldata.config.yaml_file import check_value, load_config
from timm_smalldata.errors import UserError

ROOT = Path(__file__).parents[2]
TIMM = json.loads((ROOT / 'tests' / 'vectors' / 'timm_flags.json').read_text())  # names of timm 1.0.31's flags


def _docs():
    spec = importlib.util.spec_from_file_location('make_flags', ROOT / 'docs' / 'make_flags.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_docs_are_what_the_table_says():
    assert (ROOT / 'docs' / 'flags.md').read_text() == _docs().render(), 'run python docs/make_flags.py'


def test_every_flag_of_timm_is_kept_or_listed_as_left_out():
    left_out = {name.strip() for names in _docs().LEFT_OUT for name in names.split(',')}
    ours = {flag.name for flag in FLAGS}
    for name in TIMM:
        kept, listed = name in ours, name in left_out or (name.startswith('naflex') and 'naflex-*' in left_out)
        assert kept != listed, f'--{name}: kept {kept}, listed as left out {listed}'
    assert {flag.name for flag in FLAGS if not flag.own} - {'config'} <= set(TIMM)


def test_help_explains_every_flag():
    text = create_parser().format_help()
    for flag in FLAGS:
        assert f'--{flag.name}' in text and len(flag.help) > 5 and not flag.help.endswith('.')


def test_only_given_flags_are_returned():
    assert parse_flags([]) == ({}, {})
    given, staged = parse_flags(
        ['photos', '--lr', '1e-3', '--model-kwargs', 'depth=2', 'x=a', '--no-amp', '--low.epochs', '3', '-b', '8'])
    assert given == dict(data_dir='photos', lr=1e-3, model_kwargs=dict(depth=2, x='a'), amp=False, batch_size=8)
    assert staged == {'low': {'epochs': 3}}


@pytest.mark.parametrize('argv, words', [
    (['--epoch', '3'], ['--epoch', "'--epochs'"]),  # no abbreviations
    (['--epochs', 'three'], ['--epochs', 'three']),
    (['--select', 'worst'], ['--select', 'best']),
    (['a', '--data-dir', 'b'], ['twice']),
    (['--low.epoch', '3'], ['--epoch']),
])
def test_wrong_flags_are_one_clear_line(argv, words):
    with pytest.raises(UserError) as error:
        parse_flags(argv)
    assert all(word in str(error.value) for word in words) and '\n' not in str(error.value)


@pytest.mark.parametrize('text, words', [
    ('epochz: 3', ["'epochs'"]), ('epochs: three', ['int', 'three']), ('epochs: true', ['int']), ('lr: [1]', ['float']),
    ('select: worst', ['best']), ('- 3', ['flag: value']), ('a: [', ['YAML']), ('scale: [1.0]', ['2 values'])])
def test_yaml_is_strict(tmp_path, text, words):
    path = tmp_path / 'x.yaml'
    path.write_text(text)
    with pytest.raises(UserError) as error:
        load_config(str(path))
    assert all(word in str(error.value) for word in words) and 'x.yaml' in str(error.value)


def test_yaml_takes_every_default_of_the_table():
    for dest, flag in BY_DEST.items():
        assert check_value(flag.name, flag.default, 'x')[0] == dest
