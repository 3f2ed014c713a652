"""From the command line and YAML to settings that know what set them.

Strict: unknown names and wrong types are errors.
"""
import argparse
import re
from argparse import Namespace
from typing import Any, Dict, List, Optional, Tuple

from .errors import UserError, nearest
from .flags import BY_DEST, FLAGS, Flag

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
        'train_smalldata.py',
        usage='%(prog)s [DIR] [flags]',
        description=DESCRIPTION,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog='Flags of one stage of a recipe: --STAGE.flag value. Full reference: docs/flags.md.',
    )
    parser.add_argument('data', nargs='?', metavar='DIR', help='the same as --data-dir')
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
    given = _given(plain)
    if 'data' in given:
        if 'data_dir' in given:
            raise UserError('The data folder was given twice: as DIR and as --data-dir.')
        given['data_dir'] = given.pop('data')
    if given.get('data_dir') == '':
        raise UserError('The data folder is an empty text: name a folder, or leave it out for the embedded sample.')
    return given, {stage: _given(words) for stage, words in staged.items()}


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
        known = [f'--{flag.name}' for flag in FLAGS]
        raise UserError(f'Unknown flag {word}{nearest(word, known)}; --help lists them all.')
    given = vars(namespace)
    for dest, flag in BY_DEST.items():
        if flag.type is dict and dest in given:
            given[dest] = dict(given[dest])
    return given


def check_value(name: str, value: Any, where: str) -> Tuple[str, Any]:
    """Check one YAML entry against its flag; return its dest and value.

    >>> check_value('epochs', 3, 'x.yaml')
    ('epochs', 3)
    """
    dest = str(name).replace('-', '_')
    if dest not in BY_DEST:
        raise UserError(f'{where}: unknown key {name!r}{nearest(dest, BY_DEST)}.')
    flag = BY_DEST[dest]
    if value is None:
        return dest, None
    many = flag.nargs in ('+',) or isinstance(flag.nargs, int)
    values = value if many and isinstance(value, list) else [value]
    for item in values:
        if flag.type is float and isinstance(item, str) and re.fullmatch(r'[-+]?\d+e[-+]?\d+', item):
            dotted = item.replace('e', '.0e')
            raise UserError(f'{where}: {name} must be float; {item!r} is text to YAML: write {dotted}.')
        right = isinstance(item, flag.type) or (flag.type is float and isinstance(item, int))
        if not right or (isinstance(item, bool) and flag.type is not bool):
            raise UserError(f'{where}: {name} must be {flag.type.__name__}, not {type(item).__name__} ({item!r}).')
        if flag.choices and item not in flag.choices:
            raise UserError(f'{where}: {name} must be one of {", ".join(map(str, flag.choices))}, not {item!r}.')
    if isinstance(flag.nargs, int) and len(values) != flag.nargs:
        raise UserError(f'{where}: {name} takes {flag.nargs} values, not {len(values)}.')
    values = [float(item) if flag.type is float else item for item in values]
    return dest, values if many else values[0]


def load_yaml(path: str) -> Any:
    """Read a YAML file; a file that is missing or broken is one clear line."""
    import yaml
    try:
        with open(path, encoding='utf-8') as stream:
            return yaml.safe_load(stream) or {}
    except OSError as error:
        raise UserError(f'Cannot read {path}: {error.strerror}.') from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f'{path} is not valid YAML: {" ".join(str(error).split())}') from error


def load_config(path: str) -> Dict[str, Any]:
    """Read a `-c FILE`: flags by name."""
    content = load_yaml(path)
    if not isinstance(content, dict):
        raise UserError(f'{path}: expected lines of the form "flag: value".')
    return dict(check_value(name, value, path) for name, value in content.items() if value is not None)


class Settings:
    """Values by flag, each with what set it; a layer only fills what no earlier (higher) layer has set."""

    def __init__(self) -> None:
        self.values: Dict[str, Any] = {}
        self.sources: Dict[str, str] = {}
        self.notes: List[str] = []
        self.order: List[str] = []

    def layer(self, values: Dict[str, Any], source: str) -> None:
        """Add a lower layer."""
        if source not in self.order:
            self.order.append(source)
        for dest, value in values.items():
            if dest not in self.values:
                self.values[dest], self.sources[dest] = value, source

    def resolve(self, dest: str, value: Any) -> None:
        """Put what `auto` means in its place."""
        self.values[dest] = value
        self.sources.setdefault(dest, 'default')

    def get(self, dest: str, default: Any = None) -> Any:
        """Return a value, or the flag's own default where no layer has set it."""
        value = self.values.get(dest)
        if value is not None:
            return value
        flag = BY_DEST.get(dest)
        return default if flag is None or flag.default is None else flag.default

    def is_set(self, dest: str) -> bool:
        return dest in self.values

    def source(self, dest: str) -> Optional[str]:
        return self.sources.get(dest)

    def below(self, dest: str, other: str) -> bool:
        """Return whether `dest` was set by a lower layer than `other` was."""
        def rank(name: str) -> int:
            source = self.sources.get(name)
            return self.order.index(source) if source in self.order else len(self.order)
        return rank(dest) > rank(other)

    def namespace(self) -> Namespace:
        """Return all flags as plain values (lists and dicts copied), defaults filled in."""
        import copy
        filled = {dest: copy.deepcopy(flag.default) for dest, flag in BY_DEST.items()}
        filled.update(copy.deepcopy({k: v for k, v in self.values.items() if v is not None or k not in filled}))
        return Namespace(**filled)
