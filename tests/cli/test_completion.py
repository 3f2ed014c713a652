"""A shell completes our verbs, their flags and the values that are known."""
import subprocess
import sys

import pytest

from timm_smalldata.cli.completion import main

ASK = """
COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))
$(complete -p {command} | sed 's/.*-F \\([^ ]*\\).*/\\1/')
echo "${{COMPREPLY[@]}}"
"""


def completed(script, *words):
    ask = ASK.format(words=' '.join(words), command=words[0])
    return subprocess.run(['bash', '-c', script + ask], capture_output=True, text=True).stdout.split()


def test_a_shell_is_told(capsys):
    pytest.importorskip('shtab')
    assert main(['bash']) == 0
    script = capsys.readouterr().out
    assert completed(script, 'timm-smalldata', 'pre') == ['predict']
    assert completed(script, 'timm-smalldata', 'push', '--lic') == ['--license']
    assert completed(script, 'timm-smalldata', 'train', '--time') == ['--time-budget']
    assert 'balanced-bce' in completed(script, 'timm-smalldata', 'train', '--loss', 'bal')
    assert main(['bash', '--of', 'train-smalldata']) == 0
    assert completed(capsys.readouterr().out, 'train-smalldata', '--time') == ['--time-budget']


def test_a_missing_package_is_one_line(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, 'shtab', None)
    assert main(['zsh']) == 2
    assert "pip install 'timm-smalldata[completion]'" in capsys.readouterr().err
