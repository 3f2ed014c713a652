"""YAML files of flags: strict about keys and types."""
import re
import reprlib
from typing import Any, Dict, List, Optional, Tuple

from ..errors import UserError, nearest
from .flags import BY_DEST, REMOVED, removed_lines


def check_value(name: str, value: Any, where: str) -> Tuple[str, Any]:
    """Check one YAML entry against its flag; return its dest and value.

    >>> check_value('epochs', 3, 'x.yaml')
    ('epochs', 3)
    """
    dest = str(name).replace('-', '_')
    if dest not in BY_DEST:
        raise UserError(f'{where}: unknown key {str(name)[:80]!r}{nearest(dest, BY_DEST)}.')
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
            raise UserError(f'{where}: {name} must be {flag.type.__name__}, not {type(item).__name__} '
                            f'({reprlib.repr(item)}).')
        if flag.choices and item not in flag.choices:
            choices = ', '.join(map(str, flag.choices))
            raise UserError(f'{where}: {name} must be one of {choices}, not {reprlib.repr(item)}.')
    if isinstance(flag.nargs, int) and len(values) != flag.nargs:
        raise UserError(f'{where}: {name} takes {flag.nargs} values, not {len(values)}.')
    try:
        values = [float(item) if flag.type is float else item for item in values]
    except OverflowError as error:
        raise UserError(f'{where}: {name} is too large a number ({reprlib.repr(values)}).') from error
    return dest, values if many else values[0]


def load_yaml(path: str) -> Any:
    """Read a YAML file; a file that is missing or broken is one clear line."""
    import yaml
    try:
        with open(path, encoding='utf-8') as stream:
            return yaml.safe_load(stream) or {}
    except OSError as error:
        raise UserError(f'Cannot read {path}: {error.strerror}.') from error
    except RecursionError as error:
        raise UserError(f'{path} is not valid YAML: it is nested too deep') from error
    except Exception as error:  # beside its own kind a dozen others, for dates and numbers that are none
        reason = ' '.join(str(error).split())[:300] or type(error).__name__
        raise UserError(f'{path} is not valid YAML: {reason}') from error


def load_config(path: str, notes: Optional[List[str]] = None) -> Dict[str, Any]:
    """Read a `-c FILE`: flags by name.

    Args:
        path: The file.
        notes: A line is added for each flag that is no more; it is left out.

    Raises:
        UserError: The file cannot be read, or it holds an unknown flag or a wrong type.
    """
    content = load_yaml(path)
    if not isinstance(content, dict):
        raise UserError(f'{path}: expected lines of the form "flag: value".')
    gone = [name for name in content if str(name).replace('-', '_') in REMOVED]
    if notes is not None:
        notes += removed_lines(gone, path)
    return dict(
        check_value(name, value, path) for name, value in content.items() if value is not None and name not in gone)
