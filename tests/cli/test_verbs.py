"""The console command: verbs, their errors, and that a verb is imported only when it is called."""
import platform
import subprocess
import sys
from importlib import import_module
from importlib.metadata import version
from pathlib import Path

import pytest
import timm

from timm_smalldata import __main__ as cli
from timm_smalldata import __version__
from timm_smalldata.errors import UserError

VERSIONS = (f'timm-smalldata {__version__} (timm {timm.__version__}, torch {version("torch")}, torchvision '
            f'{version("torchvision")}, Python {platform.python_version()})\n')


def test_every_verb_is_there():
    for module, text in cli.VERBS.values():
        assert callable(import_module(module).main) and text


def test_help_imports_no_verb(monkeypatch, capsys):
    monkeypatch.setattr(cli, 'import_module', lambda name: pytest.fail(f'imported {name}'))
    assert cli.main(['--help']) == cli.main(['-h']) == 0
    text = capsys.readouterr().out
    assert all(f'\n  {verb} ' in text for verb in cli.VERBS)
    assert cli.main(['--version']) == 0
    assert capsys.readouterr().out == VERSIONS
    assert cli.main([]) == 2


def test_unknown_verb(capsys):
    assert cli.main(['evla', 'x']) == 2
    out, err = capsys.readouterr()
    assert not out and err == (
        f"error: Unknown verb 'evla' (did you mean 'eval'?); there are: {', '.join(cli.VERBS)}.\n")


@pytest.mark.parametrize('verb', cli.VERBS)
def test_a_verb_gets_its_words_and_gives_its_code(verb, monkeypatch):
    calls = []
    module = type('Module', (), {'main': staticmethod(lambda argv: calls.append(argv) or 7)})
    monkeypatch.setattr(cli, 'import_module', lambda name: calls.append(name) or module)
    assert cli.main([verb, 'a', '--b']) == 7
    assert calls == [cli.VERBS[verb][0], ['a', '--b']]


def test_analyze_is_analyse(monkeypatch, capsys):
    monkeypatch.setattr(cli, 'import_module', lambda name: type('Module', (), {'main': staticmethod(lambda argv: 7)}))
    assert cli.main(['analyze']) == 7
    assert 'analyze' not in cli.usage()


@pytest.mark.parametrize('error, code, said', [
    (UserError('two\nlines'), 2, 'error: two lines\n'), (SystemExit(0), 0, ''), (SystemExit(2), 2, ''),
    (KeyboardInterrupt(), 130, 'interrupted\n'),
])
def test_how_a_verb_can_end(error, code, said, monkeypatch, capsys):
    def main(argv):
        raise error
    monkeypatch.setattr(cli, 'import_module', lambda name: type('Module', (), {'main': staticmethod(main)}))
    assert cli.main(['push']) == code
    assert capsys.readouterr().err == said


@pytest.mark.parametrize('argv', [
    ['train', '--epoch', '3'], ['eval', 'nowhere/run', 'x'], ['doctor', 'nowhere'], ['report', 'nowhere'],
    ['push', 'nowhere', 'me/x'], ['completion', 'csh'], ['experiment', '--vary', 'los=ce,bce'],
])
def test_a_wrong_word_is_one_line(argv, capsys):
    assert cli.main(argv) == 2
    out, err = capsys.readouterr()
    assert not out and err.startswith('error: ') and err.count('\n') == 1


@pytest.mark.parametrize('verb', cli.VERBS)
def test_help_of_a_verb(verb, capsys):
    assert cli.main([verb, '--help']) == 0
    assert capsys.readouterr().out.startswith('usage: ')


def test_as_a_module():
    done = subprocess.run(
        [sys.executable, '-m', 'timm_smalldata', 'experimnt'], cwd=Path(__file__).parents[2], capture_output=True,
        text=True)
    assert done.returncode == 2 and "did you mean 'experiment'" in done.stderr


@pytest.mark.parametrize('command', ['timm_smalldata', 'train_smalldata'])
def test_the_version_is_printed_before_anything_is_imported(command):
    code = f"""
import sys, timm_smalldata_cli
sys.argv = ['{command}', '--version']
assert timm_smalldata_cli.{command}() == 0
assert not {{'torch', 'timm', 'timm_smalldata', 'train_smalldata'}} & set(sys.modules)"""
    done = subprocess.run(
        [sys.executable, '-c', code], cwd=Path(__file__).parents[2], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == VERSIONS


@pytest.mark.parametrize('command, target', [
    ('timm_smalldata', 'timm_smalldata.__main__'), ('train_smalldata', 'train_smalldata')])
def test_the_console_commands_lead_to_their_main(command, target, monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2]))
    monkeypatch.setattr(sys, 'argv', [command, 'x'])
    monkeypatch.setattr(import_module(target), 'main', lambda: 7)
    assert getattr(import_module('timm_smalldata_cli'), command)() == 7


def test_a_reader_that_has_read_enough(tmp_path):
    """As in `timm-smalldata completion bash | head -1`: no traceback."""
    script = ("import sys; from timm_smalldata.utils.console import answer; "
              "sys.exit(answer(lambda argv: print('line\\n' * 100_000), []))")
    process = subprocess.Popen(
        [sys.executable, '-c', script], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        cwd=Path(__file__).parents[2])
    assert process.stdout.readline() == 'line\n'
    process.stdout.close()
    assert process.stderr.read() == '' and process.wait() == 0
