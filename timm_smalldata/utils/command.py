"""The name under which a command was called, so that help and hints name what can be typed again."""
import os
import re
import shlex
import sys
from pathlib import Path
from typing import List, Mapping, Optional

NAMES = ('train', 'predict', 'eval', 'doctor', 'report', 'push', 'export', 'analyse', 'experiment',
         'cache', 'benchmark', 'completion')
SCRIPT, VERBS, FILE = 'train-smalldata', 'timm-smalldata', 'train_smalldata.py'


def command(
        verb: str = 'train',
        program: Optional[str] = None,
        module: Optional[str] = None,
        environ: Mapping[str, str] = os.environ,
) -> List[str]:
    """Return the words that begin a command of ours, in the way that this process was called.

    Args:
        verb: Which command is meant; it need not be the one that runs.
        program: How this process was called, by default `sys.argv[0]`.
        module: The module that `python -m` runs, by default as Python tells it.
        environ: Says whether torchrun started this process, and on how many nodes.

    >>> command('train', '/usr/bin/train-smalldata', ''), command('push', '/usr/bin/train-smalldata', '')
    (['train-smalldata'], ['timm-smalldata', 'push'])
    >>> command('train', 'a/train_smalldata.py', ''), command('push', 'a/train_smalldata.py', '')
    (['python', 'a/train_smalldata.py'], ['python', '-m', 'timm_smalldata', 'push'])
    """
    program = sys.argv[0] if program is None else program
    module = _module() if module is None else module
    name = Path(program).name.removesuffix('.exe')
    if verb == 'train':
        words = _train(program, name, module)
        return [*_torchrun(environ), *_inside(words)] if int(environ.get('WORLD_SIZE', 1)) > 1 else words
    return ['python', '-m', 'timm_smalldata', verb] if module or name == FILE else [VERBS, verb]


def _train(program: str, name: str, module: str) -> List[str]:
    if name == VERBS:
        return [VERBS, 'train']
    if module.startswith('timm_smalldata'):
        return ['python', '-m', 'timm_smalldata', 'train']
    if module == 'train_smalldata':
        return ['python', '-m', module]
    return [SCRIPT] if name == SCRIPT else ['python', program if name == FILE else FILE]


def _inside(words: List[str]) -> List[str]:
    """Return what torchrun is given: a script or a module."""
    return words[1:] if words[0] == 'python' else ['-m', 'train_smalldata']


def _torchrun(environ: Mapping[str, str]) -> List[str]:
    nodes = environ.get('GROUP_WORLD_SIZE', '1')
    words = ['torchrun', '--nproc-per-node', environ.get('LOCAL_WORLD_SIZE') or environ.get('WORLD_SIZE', '1')]
    if nodes != '1':  # the same words on each of them; which one it is they find out by themselves
        words += ['--nnodes', nodes, '--rdzv-backend', 'c10d', '--rdzv-endpoint',
                  f'{environ.get("MASTER_ADDR", "HOST")}:29500']
    return words


def _module() -> str:
    spec = getattr(sys.modules.get('__main__'), '__spec__', None)
    name = getattr(spec, 'name', '') or ''
    return name if name.startswith(('timm_smalldata', 'train_smalldata')) else ''


def typed(verb: str = 'train') -> str:
    """Return the same as text."""
    return shlex.join(command(verb))


def as_typed(text: Optional[str]) -> str:
    """Return a text that speaks of `timm-smalldata VERB` in the words that this process was called with."""
    return re.sub(rf'{VERBS} ({"|".join(NAMES)})\b', lambda match: typed(match[1]), text or '')
