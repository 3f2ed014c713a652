"""The verb completion: the script by which a shell completes our commands, their flags and their values."""
import argparse
import sys
from importlib import import_module
from typing import Any, List, Optional
from unittest import mock

from ..config.parser import Parser, create_parser
from ..config.recipe import recipe_names
from ..errors import UserError
from ..loss import LOSSES
from ..task import TASKS
from ..utils.command import SCRIPT, VERBS, typed
from ..utils.console import answer

SHELLS = ('bash', 'zsh', 'tcsh', 'fish')


def main(argv: Optional[List[str]] = None) -> int:
    """Run the completion command; returns the exit code (2: the user can put it right)."""
    return answer(run, argv)


def run(argv: List[str]) -> str:
    """Print the script; returns it."""
    parser = Parser(
        typed('completion'), allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter,
        description='Print a script that lets a shell complete timm-smalldata and train-smalldata. For bash:\n\n'
                    '  timm-smalldata completion bash > ~/.local/share/bash-completion/completions/timm-smalldata\n'
                    '  timm-smalldata completion bash --of train-smalldata > '
                    '~/.local/share/bash-completion/completions/train-smalldata')
    parser.add_argument('shell', choices=SHELLS, help='the shell')
    parser.add_argument('--of', choices=(VERBS, SCRIPT), default=VERBS, help=f'the command [{VERBS}]')
    args = parser.parse_args(argv)
    try:
        import shtab
    except ImportError as error:
        raise UserError("completion needs the extra: pip install 'timm-smalldata[completion]'.") from error
    script = shtab.complete(_train() if args.of == SCRIPT else _verbs(), args.shell)
    print(script)
    return script


def _train() -> argparse.ArgumentParser:
    parser = create_parser()
    parser.prog = SCRIPT
    _complete_values(parser)
    return parser


def _verbs() -> argparse.ArgumentParser:
    """Return one parser with a part for each verb."""
    from ..__main__ import VERBS as modules
    root = argparse.ArgumentParser(VERBS)
    root.add_argument('--version', action='store_true', help='print versions')
    parts: Any = root.add_subparsers()
    for verb, (module, text) in modules.items():
        part = create_parser() if verb == 'train' else parser_of(module)
        _complete_values(part)
        parts.add_parser(verb, help=text, parents=[part], add_help=False)
    return root


class _Found(Exception):
    """Carries a parser out of its command."""


def parser_of(module: str) -> argparse.ArgumentParser:
    """Return the parser that a verb makes, before it parses anything."""
    def stop(parser: argparse.ArgumentParser, *_: Any, **__: Any) -> None:
        raise _Found(parser)
    try:
        with mock.patch.object(argparse.ArgumentParser, 'parse_known_args', stop):
            import_module(module).main([])
    except _Found as found:
        return found.args[0]
    raise AssertionError(f'{module} parses nothing')


def _complete_values(parser: argparse.ArgumentParser) -> None:
    """Let files and folders be completed where a value is one, and names where they are known."""
    import shtab
    names = {'loss': LOSSES, 'recipe': recipe_names(), 'task': TASKS}
    for action in parser._actions:
        if action.dest in names and action.choices is None:
            action.choices = list(names[action.dest])
        words = str(action.metavar or '')
        if words in ('DIR', 'RUN', 'MODEL', 'OUTPUT'):
            action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]
        elif words in ('FILE', 'PATH'):
            action.complete = shtab.FILE  # type: ignore[attr-defined]


if __name__ == '__main__':
    sys.exit(main())
