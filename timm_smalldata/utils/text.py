"""Names as people see them: one form for names that look alike, and words for what differs where they do not."""
import os
import re
import unicodedata
from typing import Any, Dict, Iterable, List, Sequence, Tuple, Union

INVISIBLE = '\ufeff\u200b\u200c\u200d\u2060\0'  # byte order mark, zero-width characters, NUL

FORMULA = ('=', '+', '-', '@', '\t', '\r')  # how text begins that a spreadsheet runs or hides


def natural_key(text: str) -> List[Union[int, str]]:
    """Return a sorting key by which 9 comes before 10: timm's, for every name that a file can have.

    >>> sorted(['b10', 'b²', 'b9'], key=natural_key)
    ['b9', 'b10', 'b²']
    """
    return [int(part) if place % 2 and len(part) < 4000 else part
            for place, part in enumerate(re.split(r'(\d+)', text.lower()))]


def as_cell(value: Any) -> Any:
    """Return what to write into a table: text that a spreadsheet would run as a formula begins with an apostrophe.

    >>> as_cell('=cmd|x'), as_cell('@x'), as_cell('-1'), as_cell(-1), as_cell('ant')
    ("'=cmd|x", "'@x", '-1', -1, 'ant')
    """
    if isinstance(value, str) and value[:1] in FORMULA and not re.fullmatch(r'[-+]?[0-9]*\.?[0-9]+', value):
        return f"'{value}"
    return value


def from_cell(value: Any) -> Any:
    """Return what `as_cell` was given."""
    return value[1:] if isinstance(value, str) and value[:1] == "'" and value[1:2] in FORMULA else value


def clean(name: str) -> str:
    """Return a name in the composed form (NFC); bytes that are not UTF-8 are read as Latin-1.

    >>> clean('Ku\\u0308he'), clean(os.fsdecode(b'K\\xfche'))
    ('Kühe', 'Kühe')
    """
    if not is_unicode(name):
        name = re.sub('[\udc80-\udcff]', lambda found: chr(ord(found.group()) - 0xdc00), name)
        name = name.encode('utf-8', 'backslashreplace').decode('utf-8')  # other lone surrogates
    return unicodedata.normalize('NFC', name)


def is_unicode(name: str) -> bool:
    """Return whether a name is text: Python shows bytes that are not UTF-8 as lone surrogates."""
    try:
        name.encode('utf-8')
    except UnicodeEncodeError:
        return False
    return True


def clean_names(names: Sequence[str]) -> Tuple[List[str], str]:
    """Return file names in one form, each once, and a sentence where that changed one (else an empty one).

    Of two names that become equal, the second gets a number: `ant/1.png`, `ant/1 (2).png`.
    """
    taken, cleaned = set[str](), list[str]()
    latin, other = list[str](), list[str]()
    for name in names:
        nice = clean(name)
        if nice != name:
            (other if is_unicode(name) else latin).append(nice)
        stem, point, suffix = nice.rpartition('.')
        number = 1
        while nice in taken:
            number += 1
            nice = f'{stem} ({number}).{suffix}' if point else f'{suffix} ({number})'
        taken.add(nice)
        cleaned.append(nice)
    parts = []
    if latin:
        parts.append(f'{counted(len(latin), "name is", "names are")} not UTF-8 and read as Latin-1 (first: {latin[0]})')
    if other:
        parts.append(f'{counted(len(other), "name is", "names are")} written with separate accents (Unicode NFD) and '
                     f'read as NFC (first: {other[0]})')
    return cleaned, '; '.join(parts)


def look(name: str) -> str:
    """Return what two names share that a reader would hold for one: no case, blanks, or invisible characters."""
    name = unicodedata.normalize('NFKC', clean(name)).casefold()
    return ''.join(character for character in name if not character.isspace() and character not in INVISIBLE)


def difference(name: str, known: Iterable[str]) -> str:
    """Return words that tell a name from one of `known` that looks like it; empty where none does.

    >>> difference('ant ', ['ant', 'bee'])
    "'ant ' is not 'ant'"
    """
    for other in known:
        if look(other) == look(name) and other != name:
            return f'{ascii(name)} is not {ascii(other)}'
    return ''


def alike(classes: Iterable[str]) -> str:
    """Return a sentence about classes that a reader would hold for one; empty where there are none.

    >>> alike(['ant', 'Ant ', 'bee'])
    "classes whose names look alike: 'Ant ' is not 'ant'"
    """
    seen: Dict[str, str] = {}
    pairs = []
    for name in classes:
        other = seen.setdefault(look(name), name)
        if other != name:
            pairs.append(f'{ascii(name)} is not {ascii(other)}')
    return f'classes whose names look alike: {"; ".join(pairs[:8])}' if pairs else ''


def counted(number: int, one: str, many: str) -> str:
    """Return a number with its word: `1 name is`, `2 names are`."""
    return f'{number} {one if number == 1 else many}'


def strip(text: str) -> str:
    """Return a text without blanks and invisible characters at its ends.

    >>> strip('\\ufeffant\\xa0 ')
    'ant'
    """
    before = None
    while before != text:
        before, text = text, text.strip().strip(INVISIBLE)
    return text


def shown_path(path: Union[str, 'os.PathLike[str]']) -> str:
    """Return a path for a message, whatever bytes it has."""
    return clean(os.fspath(path))


def size_of(count: int) -> str:
    """Return a number of bytes in a reader's words.

    >>> size_of(1_234_567), size_of(45_600_000_000)
    ('1.2 MB', '45.6 GB')
    """
    return f'{count / 1e6:.1f} MB' if count < 1e9 else f'{count / 1e9:.1f} GB'
