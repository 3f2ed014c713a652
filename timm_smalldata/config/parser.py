"""From the words of a command line to values of flags; unknown names and wrong types are errors."""
import argparse
from typing import Any, Dict, List, Tuple

from ..errors import UserError, nearest
from ..utils.command import typed
from .flags import BY_DEST, FLAGS, REMOVED, Flag
from .help import add_help

DESCRIPTION = """\
Train an image classifier from scratch on few or unevenly many images of your own.
Without --data-dir an embedded sample is used. Results lie in OUTPUT/EXPERIMENT/, the model in its model/."""


class Parser(argparse.ArgumentParser):
    """A parser whose errors are UserErrors, with the nearest right flag."""

    def error(self, message: str) -> Any:
        raise UserError(message)


def _key_value(text: str) -> Tuple[str, Any]:
    import ast
    key, separator, value = text.partition('=')
    if not separator:
        raise argparse.ArgumentTypeError(f'expected key=value, got {text!r}')
    try:
        return key, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return key, value


def create_parser() -> argparse.ArgumentParser:
    """Return the parser of the train command; flags that were not given are absent from its result."""
    parser = Parser(
        typed(),
        usage='%(prog)s [DIR] [flags]',
        description=DESCRIPTION,
        allow_abbrev=False,
        add_help=False,
        argument_default=argparse.SUPPRESS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog='Flags of one stage of a recipe: --STAGE.flag value. Full reference: docs/flags.md.',
    )
    parser.add_argument('data', nargs='?', metavar='DIR', help='the same as --data-dir')
    add_help(parser)
    groups: Dict[str, Any] = {}
    for flag in FLAGS:
        if flag.group not in groups:
            groups[flag.group] = parser.add_argument_group(flag.group)
        add_flag(groups[flag.group], flag)
    return parser


def add_flag(parser: Any, flag: Flag, text: str = '') -> None:
    """Add a row of the table of flags to a parser; `text` takes the place of its help."""
    names = ([f'-{flag.short}'] if flag.short else []) + [f'--{flag.name}']
    text = text or flag.help + _shown_default(flag)
    if flag.type is bool:
        parser.add_argument(*names, action='store_true', help=text)
        if not flag.name.startswith('no-'):  # switches off what a file or recipe switched on
            parser.add_argument(f'--no-{flag.name}', dest=flag.dest, action='store_false', help=argparse.SUPPRESS)
    elif flag.type is dict:
        parser.add_argument(*names, nargs='*', type=_key_value, metavar='K=V', help=text)
    else:
        metavar = None if flag.choices else flag.metavar or {int: 'N', float: 'X'}.get(flag.type, 'NAME')
        extra = {} if flag.const is None else dict(const=flag.const)
        parser.add_argument(
            *names, type=flag.type, nargs=flag.nargs, choices=flag.choices, metavar=metavar, help=text, **extra)


def _shown_default(flag: Flag) -> str:
    if flag.default in (None, '', False) or flag.default == {} or flag.default == []:
        return ''
    return f' [{flag.default}]'.replace('%', '%%')


def parse_flags(argv: List[str]) -> Tuple[Dict[str, Any], Dict[str, Dict[str, Any]]]:
    """Parse the command line.

    Returns:
        What was given for all stages, and what was given for single ones (`--STAGE.flag`), by stage.
    """
    plain: List[str] = []
    staged: Dict[str, List[str]] = {}
    rest = list(argv)
    while rest:
        word = rest.pop(0)
        if word == '--scale' and rest and not _is_number(rest[0]):  # of a recipe; with numbers it is timm's
            word = '--recipe-scale'
        stage, dot, flag = word[2:].partition('.') if word.startswith('--') else ('', '', '')
        if not dot or '=' in stage:
            plain.append(word)
            continue
        words = [f'--{flag}']
        while rest and not _is_flag(rest[0]):
            words.append(rest.pop(0))
        staged.setdefault(stage, []).extend(words)
    given = join_data(_given(plain))
    if given.get('data_dir') == '':
        raise UserError('The data folder is an empty text: name a folder, or leave it out for the embedded sample.')
    return given, {stage: _given(words) for stage, words in staged.items()}


def parse_known(parser: argparse.ArgumentParser, argv: List[str]) -> Dict[str, Any]:
    """Return what was given to a verb, by destination.

    Raises:
        UserError: A flag that it has not, or the data folder twice.
    """
    namespace, unknown = parser.parse_known_args(argv)
    if unknown:
        word = unknown[0].split('=')[0]
        known = [word for action in parser._actions for word in action.option_strings]
        raise UserError(f'Unknown flag {word}{nearest(word, known)}; --help lists them all.')
    return join_data(vars(namespace))


def join_data(given: Dict[str, Any]) -> Dict[str, Any]:
    """Return what was given with the positional data folder as `data_dir`."""
    if 'data' in given:
        if 'data_dir' in given:
            raise UserError('The data folder was given twice: by its place and as --data-dir.')
        given['data_dir'] = given.pop('data')
    return given


def _is_flag(word: str) -> bool:
    return word.startswith('-') and word != '-' and not _is_number(word)


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _given(words: List[str]) -> Dict[str, Any]:
    namespace, unknown = create_parser().parse_known_args(words)
    if unknown:
        word = unknown[0].split('=')[0]
        if word[2:].replace('-', '_') in REMOVED:
            raise UserError(f'{word} is no more: {REMOVED[word[2:].replace("-", "_")]}. Leave it out.')
        known = [f'--{flag.name}' for flag in FLAGS]
        raise UserError(f'Unknown flag {word}{nearest(word, known)}; --help-all lists them all.')
    given = vars(namespace)
    for dest, flag in BY_DEST.items():
        if flag.type is dict and dest in given:
            given[dest] = dict(given[dest])
    return given
