"""`--help` is one screen, `--help-all` lists every flag, and both begin with the command as it was called."""
import pytest

import train_smalldata
from timm_smalldata.config import help as helping
from timm_smalldata.config.flags import FLAGS
from timm_smalldata.config.parser import parse_flags
from timm_smalldata.config.recipe import recipe_names


def printed(capsys, *argv):
    with pytest.raises(SystemExit) as stop:
        train_smalldata.main(list(argv))
    assert stop.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize('word', ['-h', '--help'])
def test_help_is_one_screen(word, capsys):
    text = printed(capsys, word)
    lines = text.splitlines()
    assert len(lines) <= 40 and max(map(len, lines)) <= 100
    assert len(helping.CHIEF) == 10 and all(f'  --{dest.replace("_", "-")}' in text for dest in helping.CHIEF)
    assert not any(helping._row(dest).endswith('...') for dest in helping.CHIEF)
    assert all(f'\n  {name} ' in text for name in recipe_names())


def test_help_all_lists_every_flag(capsys):
    text = printed(capsys, '--help-all')
    assert all(flag.word in text for flag in FLAGS) and len(text.splitlines()) > 300


@pytest.mark.parametrize('program, name', [
    ('/bin/train-smalldata', 'train-smalldata'), ('/bin/timm-smalldata', 'timm-smalldata train'),
    ('train_smalldata.py', 'python train_smalldata.py')])
def test_the_command_is_named_as_it_was_called(program, name, monkeypatch, capsys):
    monkeypatch.setattr('sys.argv', [program])
    text = printed(capsys, '--help')
    assert text.startswith(f'usage: {name} [DIR]')
    example = next(line for line in text.splitlines() if line.startswith(f'  {name} photos'))
    parse_flags(example.removeprefix(f'  {name} ').split())  # it can be typed
    assert printed(capsys, '--help-all').startswith(f'usage: {name} [DIR]')


def test_versions(capsys):
    assert train_smalldata.main(['--version']) == 0
    assert capsys.readouterr().out.startswith('timm-smalldata ')
