"""Tables and lists of images as people have them: CSV with any usual separator, list files, class lists."""
import csv
import io
import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

from ..errors import UserError, nearest
from ..utils.text import alike, clean, natural_key, shown_path, strip
from .classes import listed
from .paths import settle_paths
from .readers import PathSource
from .split_words import role_of

TABLE_SUFFIXES = ('.csv', '.tsv')
LIST_SUFFIXES = ('.txt', '.lst', '.list')
MOST_CLASSES = 1_000_000  # of a list of numbers
COLUMNS = {
    'path': ('path', 'image', 'file', 'filename', 'file_name', 'filepath', 'image_path', 'img', 'image_id'),
    'label': ('label', 'class', 'target', 'category', 'species', 'y'),
    'split': ('split', 'set', 'subset', 'partition', 'fold_name'),
}
_FLAGS = {'path': '--input-key', 'label': '--target-key', 'split': '--split-key'}
_MARKS = {  # columns of yes and no: the split that each answer means, '' for: another column or the rest decides
    'is_test': ('test', ''), 'is_valid': ('val', ''), 'is_val': ('val', ''), 'is_validation': ('val', ''),
    'is_train': ('train', 'test'), 'is_training': ('train', 'test'), 'is_training_image': ('train', 'test'),
}
_YES, _NO = ('1', '1.0', 'true', 't', 'yes', 'y'), ('0', '0.0', 'false', 'f', 'no', 'n', '')
_NO_LABEL = ('', 'nan', '<na>')
_SEPARATORS = ',;\t|'


class TableSource(PathSource):
    """Image files that a table or list names, with its other columns in `extra`."""

    def __init__(self, root: Path, names: List[str], targets: Any, classes: List[str],
                 extra: Optional[Dict[str, List[str]]] = None, files: Optional[Sequence[Any]] = None):
        super().__init__(root, names, targets, classes, files)
        self.extra = extra or {}


@dataclass
class Table:
    """A table as it was read: names of columns, rows, and the line of the file in which each row begins."""
    path: Path
    header: List[str]
    rows: List[List[str]]
    lines: List[int]
    notes: List[str] = field(default_factory=list)

    def column(self, name: str) -> List[str]:
        """Return the values of a column, without blanks around them."""
        place = self.header.index(name)
        return [row[place] if place < len(row) else '' for row in self.rows]


# --- text -----------------------------------------------------------------------------------------------------------

def read_text(path: Path) -> str:
    """Return the text of a file in UTF-8, or in UTF-16 as spreadsheets save it.

    Raises:
        UserError: There is no such file, or it is in another encoding.
    """
    try:
        raw = path.read_bytes()
    except FileNotFoundError as error:
        raise UserError(f'No such file: {shown_path(path)}') from error
    except (OSError, ValueError) as error:
        raise UserError(f'Cannot read {shown_path(path)}: {getattr(error, "strerror", None) or error}') from error
    encoding = 'utf-16' if raw[:2] in (b'\xff\xfe', b'\xfe\xff') else 'utf-8-sig'
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError as error:
        before = raw[:error.start]
        line = before.count(b'\n') + 1
        shown = raw[before.rfind(b'\n') + 1:error.start + 20].partition(b'\n')[0]
        raise UserError(f'Cannot read {shown_path(path)}: line {line} is not UTF-8 ({ascii(shown[-40:])[1:]}): save it '
                        'as UTF-8 (in a spreadsheet: CSV UTF-8).') from error


def read_table(path: Path) -> Table:
    """Read a table with a header line; its separator (comma, semicolon, tab or |) is the one that the header has.

    Raises:
        UserError: It is no table.
    """
    text = read_text(path)
    told = re.match(r'sep=(.)\r?\n', text)  # a hint of spreadsheets to themselves
    separator = told.group(1) if told else _separator(text, path)
    body = text[told.end():] if told else text
    reader = csv.reader(io.StringIO(body, newline=''), delimiter=separator)
    rows, lines, line = list[List[str]](), list[int](), 1 + bool(told)
    try:
        for row in reader:
            if any(map(strip, row)):
                rows.append([clean(strip(value)) for value in row])
                lines.append(line)
            line = reader.line_num + 1 + bool(told)
    except csv.Error as error:
        raise UserError(f'{shown_path(path)}, line {line}: {error}; is a quotation mark not closed?') from error
    if len(rows) < 2:
        raise UserError(f'{shown_path(path)} has no rows: expected a header line such as path,label and one line per '
                        'image.')
    return Table(path, rows[0], rows[1:], lines[1:])


def _separator(text: str, path: Path) -> str:
    header = re.sub(r'"[^"]*"', '', next(filter(strip, text.splitlines()), ''))
    usual = '\t' if path.suffix.lower() == '.tsv' else ','
    return max(usual + _SEPARATORS, key=lambda mark: (header.count(mark), mark == usual))


# --- tables ---------------------------------------------------------------------------------------------------------

def table_source(
        path: Path,
        root: Path,
        input_key: Optional[str] = None,
        target_key: Optional[str] = None,
        split_key: Optional[str] = None,
        notes: Optional[List[str]] = None,
) -> Dict[str, TableSource]:
    """Read a table of images.

    Args:
        path: The table, with a header line.
        root: Folder that the paths start from.
        input_key: Column with the paths; by default one with a usual name.
        target_key: Column with the labels.
        split_key: Column with the splits.
        notes: Sentences about what was read in another way than it is written are added here.

    Returns:
        Sources by the value of the split column; one source under '' where there is no such column.

    Raises:
        UserError: It is no table, lacks a column, or a row lacks a value.
    """
    table = read_table(path)
    image = _pick_column(table, 'path', input_key)
    label = _pick_column(table, 'label', target_key)
    split = _pick_column(table, 'split', split_key)
    names, labels = table.column(image), table.column(label)
    splits = table.column(split) if split else _marked_splits(table)
    _refuse_empty(table, image, names, ('',))
    _refuse_empty(table, label, labels, _NO_LABEL)
    if split:
        _refuse_empty(table, split, splits, ('',))
    labels = _whole_numbers(labels, table.notes)
    names, files = settle_paths(root, names, table.notes)
    if notes is not None:
        notes.extend(note for note in table.notes if note not in notes)
    classes = sorted(sorted(set(labels)), key=natural_key)
    if notes is not None and alike(classes):
        notes.append(alike(classes))
    number = {name: i for i, name in enumerate(classes)}
    rows: Dict[str, List[int]] = defaultdict(list)
    for i, value in enumerate(splits):
        rows[value].append(i)
    twice = {name for name, n in Counter(table.header).items() if n > 1}
    columns = {name: table.column(name) for name in table.header if name not in twice}
    return {
        value: TableSource(
            root, [names[i] for i in part], [number[labels[i]] for i in part], classes,
            {name: [values[i] for i in part] for name, values in columns.items()}, [files[i] for i in part])
        for value, part in rows.items()
    }


def _pick_column(table: Table, kind: str, given: Optional[str]) -> Any:
    """Return the column of a kind; None where there is no column of splits."""
    header, path = table.header, shown_path(table.path)
    if given:
        column = clean(strip(given))
        if column not in header:
            close = nearest(given, [name[:40] for name in header])
            raise UserError(f'{path} has no column {given!r}{close}; its columns: {_listed(header)}.')
        if header.count(column) > 1:
            raise UserError(f'{path} has two columns {column[:40]!r}: give one of them another name.')
        return column
    for word in COLUMNS[kind]:
        found = [name for name in header if name.lower() == word]
        if len(found) > 1:
            raise UserError(f'{path} has two columns {found[0]!r} and {found[1]!r}: give one of them another name'
                            + (f', or name the one to use with {_FLAGS[kind]}.' if len(set(found)) > 1 else '.'))
        if found:
            return found[0]
    if kind == 'split':
        return None
    raise UserError(f'{path}: which column holds the {kind}? Columns: {_listed(header)}. Name it with '
                    f'{_FLAGS[kind]}.')


def _listed(names: Sequence[str]) -> str:
    return listed([name[:40] for name in names])


def _marked_splits(table: Table) -> List[str]:
    """Return the split of each row where columns like `is_valid` or `fold` tell it; '' where nothing does."""
    by_name = {name.lower(): name for name in reversed(table.header)}
    if 'fold' in by_name:
        values = table.column(by_name['fold'])
        if all(map(role_of, values)):
            return values
        table.notes.append(
            f'the column {by_name["fold"]} of {shown_path(table.path)} is not used: --split-key {by_name["fold"]} with '
            f'--train-split and --test-split makes splits of its values ({_listed(sorted(set(values))[:4])}, ...)')
    marks = [by_name[name] for name in _MARKS if name in by_name]
    if not marks:
        return [''] * len(table.rows)
    splits = [''] * len(table.rows)
    for name in marks:
        for i, value in enumerate(table.column(name)):
            if value.lower() not in _YES + _NO:
                raise UserError(f'{shown_path(table.path)}, line {table.lines[i]}: {name} is {value[:40]!r}; expected '
                                'true or false.')
            splits[i] = splits[i] or _MARKS[name.lower()][value.lower() in _NO]
    table.notes.append(f'splits from the column{"s" * (len(marks) > 1)} {", ".join(marks)}')
    return [split or 'train' for split in splits]


def _refuse_empty(table: Table, column: str, values: Sequence[str], empty: Tuple[str, ...]) -> None:
    for line, value in zip(table.lines, values):
        if value.lower() in empty:
            what = f'empty {column}' if not value else f'the {column} is {value}, which is none'
            raise UserError(f'{shown_path(table.path)}, line {line}: {what}.')


def _whole_numbers(labels: List[str], notes: List[str]) -> List[str]:
    """Return labels that are all numbers without the `.0` that a program for tables gave some of them."""
    if not all(re.fullmatch(r'-?[0-9]+(\.0*)?', label) for label in labels):
        return labels
    whole = [label.partition('.')[0] for label in labels]
    if whole != labels:
        first = next(label for label in labels if '.' in label)
        notes.append(f'labels are whole numbers: {first} is read as {first.partition(".")[0]}')
    return whole


# --- lists ----------------------------------------------------------------------------------------------------------

def list_source(path: Path, root: Path, notes: Optional[List[str]] = None) -> TableSource:
    """Read a list file: `relative/path label` per line, labels 0-based (ImageNet-LT, iNaturalist, Places-LT).

    Raises:
        UserError: A line is not of that form.
    """
    names, targets = [], []
    for number, line in enumerate(read_text(path).splitlines(), 1):
        line = clean(strip(line))
        if not line:
            continue
        name, label = (line.rsplit(None, 1) + [''])[:2]
        where = f'{shown_path(path)}, line {number}'
        if not re.fullmatch(r'-?[0-9]+(\.0*)?', label):
            raise UserError(f'{where}: expected "relative/path label" with a number, got {line[:60]!r}.')
        label = label.partition('.')[0]
        if label.startswith('-'):
            raise UserError(f'{where}: label {label[:20]} is negative.')
        if len(label.lstrip('0')) > 7 or int(label) >= MOST_CLASSES:
            raise UserError(f'{where}: label {label[:20]} is no number of a class: they count from 0, below '
                            f'{MOST_CLASSES}.')
        names.append(name)
        targets.append(int(label))
    if not names:
        raise UserError(f'{shown_path(path)} lists no images.')
    names, files = settle_paths(root, names, [] if notes is None else notes)
    return TableSource(root, names, targets, [str(i) for i in range(max(targets) + 1)], None, files)


def read_class_map(path: str, root: Optional[str]) -> List[str]:
    """Return the class names of a `--class-map` file in index order: a text file, one name per line.

    Raises:
        UserError: It cannot be read, or a name is missing or there twice.
    """
    place = Path(path)
    if not place.is_file() and root:
        place = Path(root) / path
    if place.suffix.lower() in ('.pkl', '.pickle'):
        raise UserError(f'--class-map {path}: a pickle may run code when it is opened, so none is: write the names '
                        'into a text file (.txt), one per line.')
    if place.suffix.lower() != '.txt':
        raise UserError(f'--class-map {path}: expected a text file with the extension .txt, one name per line.')
    try:
        names = [clean(strip(line)) for line in read_text(place).splitlines()]
    except UserError as error:
        raise UserError(f'--class-map {path}: {error}') from error
    while names and not names[-1]:
        names.pop()
    for number, name in enumerate(names, 1):
        if not name:
            raise UserError(f'--class-map {path}: line {number} is empty; the indices must be 0..{len(names) - 1} '
                            'without gaps.')
    twice = [name for name, n in Counter(names).items() if n > 1]
    if twice:
        raise UserError(f'--class-map {path}: {twice[0]} is there twice; the indices must be without gaps.')
    if not names:
        raise UserError(f'--class-map {path} names no classes.')
    return names


