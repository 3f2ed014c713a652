"""Sources behind names and paths: folders and tars, torchvision and Hugging Face data sets, CSV tables, list files."""
import csv
import io
import os
import pickle
import tarfile
from collections import defaultdict
from pathlib import Path, PurePosixPath
from typing import Any, Dict, List, Optional, Tuple

import numpy as np
from PIL import Image
from timm.utils import natural_key

from .. import _compat
from ..errors import UserError, nearest
from .source import ImageSource, Relabelled

TABLE_SUFFIXES = ('.csv', '.tsv')
LIST_SUFFIXES = ('.txt', '.lst', '.list')
COLUMNS = {
    'path': ('path', 'image', 'file', 'filename', 'file_name', 'filepath', 'image_path', 'img'),
    'label': ('label', 'class', 'target', 'category', 'species', 'y'),
    'split': ('split', 'set', 'subset', 'partition', 'fold_name'),
}


class ReaderSource(ImageSource):
    """Images behind one of timm's readers; names are paths relative to the reader's root."""

    def __init__(self, reader: Any, names: List[str], targets: Any, classes: List[str]):
        self.reader = reader
        self.names = names
        self.targets = np.asarray(targets, dtype=np.int64)
        self.classes = classes

    def raw(self, index: int) -> bytes:
        stream, *_ = self.reader[index]
        with stream:
            return stream.read()


class TorchSource(ImageSource):
    """A torchvision data set; its images arrive decoded, so the raw bytes are those of the pixels."""

    def __init__(self, dataset: Any, split: str = 'train'):
        self.dataset = dataset
        targets = getattr(dataset, 'targets', None)
        if targets is None:
            samples: Any = getattr(dataset, 'samples', None) or getattr(dataset, 'imgs', ())
            targets = [target for _, target in samples]
        self.targets = np.asarray(targets, dtype=np.int64)
        if self.targets.ndim != 1 or not len(self.targets):
            raise UserError(f'{type(dataset).__name__} has no plain class labels that can be read without its images.')
        self.classes = [str(c) for c in getattr(dataset, 'classes', None) or range(int(self.targets.max()) + 1)]
        self.names = [f'{split}/{i:07d}' for i in range(len(self.targets))]

    def raw(self, index: int) -> bytes:
        return self.dataset[index][0].tobytes()

    def read(self, index: int) -> Tuple[Image.Image, int]:
        return self.dataset[index][0].convert('RGB'), int(self.targets[index])


class PathSource(ImageSource):
    """Image files named one by one (CSV tables, list files), relative to a root folder."""

    def __init__(self, root: Path, names: List[str], targets: Any, classes: List[str],
                 extra: Optional[Dict[str, List[str]]] = None):
        self.root, self.names, self.classes = root, names, classes
        self.targets = np.asarray(targets, dtype=np.int64)
        self.extra = extra or {}

    def raw(self, index: int) -> bytes:
        return (self.root / self.names[index]).read_bytes()


def folder_source(root: Path, folder_labels: str = 'auto') -> Tuple[ImageSource, str]:
    """Read an image folder or tar through timm's readers.

    timm takes the innermost folder as the class. That goes wrong when images of one class lie in sub-folders: where
    an innermost name occurs under several parents, or a folder holds images and sub-folders with images, the first
    level is the class ('auto'). 'leaf' and 'first' decide it by hand.

    Returns:
        The source and a sentence about the labels (empty when folders are plain).
    """
    try:
        if root.is_file():
            reader = _compat.reader('tar')(str(root), cache_tarinfo=False)
            names = [PurePosixPath(sample[0].path).as_posix() for sample in reader.samples]  # './cat/1.jpg' too
        else:
            reader = _compat.reader('folder')(str(root))
            names = [Path(os.path.relpath(path, root)).as_posix() for path, _ in reader.samples]
    except (RuntimeError, ValueError, StopIteration) as error:  # the readers' ways of saying: no images
        raise UserError(f'No images found in {root}: expected {root}/CLASS/*.jpg (or png, bmp, webp, ...).') from error
    except (OSError, EOFError, tarfile.TarError) as error:
        raise UserError(f'Cannot read {root}: {error}') from error

    shown = [i for i, name in enumerate(names) if not any(part.startswith('.') for part in name.split('/'))]
    hidden = len(names) - len(shown)
    if hidden:  # .ipynb_checkpoints/, ._photo.jpg and their like are no images of anybody's
        names = [names[i] for i in shown]
        reader.samples = [reader.samples[i] for i in shown]
        if hasattr(reader, 'targets'):
            reader.targets = [reader.targets[i] for i in shown]
    if not names:
        raise UserError(f'No images found in {root}: expected {root}/CLASS/*.jpg (or png, bmp, webp, ...).')
    loose = [name for name in names if '/' not in name]
    if loose:
        raise UserError(
            f'{len(loose)} images lie directly in {root} (first: {loose[0]}) and so have no class: '
            'put each image into a folder named after its class.')
    labels, note = _labels_of(names, folder_labels)
    if hidden:
        note = '; '.join(filter(None, [note, f'{hidden} hidden files (names that begin with a point) left out']))
    classes = sorted(set(labels), key=natural_key)
    number = {name: i for i, name in enumerate(classes)}
    return ReaderSource(reader, names, [number[label] for label in labels], classes), note


def _labels_of(names: List[str], rule: str) -> Tuple[List[str], str]:
    parents = [PurePosixPath(name).parent for name in names]
    folders = set(parents)
    if rule == 'auto':
        by_leaf = defaultdict(set)
        for folder in folders:
            by_leaf[folder.name].add(folder)
        ambiguous = any(len(where) > 1 for where in by_leaf.values())
        mixed = any(ancestor in folders for folder in folders for ancestor in folder.parents)
        rule = 'first' if ambiguous or mixed else 'leaf'
    nested = any(len(folder.parts) > 1 for folder in folders)
    note = ''
    if nested:
        what = 'first folder level' if rule == 'first' else 'innermost folder'
        note = f'nested folders: the {what} is the class (--folder-labels first|leaf decides it by hand)'
    return [folder.parts[0] if rule == 'first' else folder.name for folder in parents], note


def torch_source(name: str, root: Optional[str], split: str, download: bool) -> ImageSource:
    """Open one of timm's `torch/...` data sets."""
    from timm.data import create_dataset
    try:
        return TorchSource(create_dataset(name, root=root or '.', split=split, download=download), split)
    except AssertionError as error:
        raise UserError(f'--dataset {name}: {error}') from error
    except (RuntimeError, OSError) as error:
        raise UserError(f'--dataset {name} (in {root}): {error} (--dataset-download fetches it)') from error


def hfds_source(
        name: str, root: Optional[str], split: str, input_key: str, target_key: str, trust: bool) -> ImageSource:
    """Open a Hugging Face data set (map style) through timm's reader."""
    try:
        import datasets  # noqa: F401
    except ImportError as error:
        raise UserError(f"--dataset {name} needs the extra: pip install 'timm-smalldata[hfds]'.") from error
    try:
        reader = _compat.reader('hfds')(
            name.split('/', 1)[1], root=root, split=split, input_key=input_key or 'image',
            target_key=target_key or 'label', trust_remote_code=trust)
    except Exception as error:  # the library raises a dozen kinds; each says in its message what is missing
        raise UserError(f'--dataset {name}, split {split}: {error}'.replace('\n', ' ')) from error
    names = [f'{split}/{i:07d}' for i in range(len(reader))]
    by_index = {index: label for label, index in reader.class_to_idx.items()}
    targets = list(reader.iter_targets())
    classes = [str(by_index.get(i, i)) for i in range(max(list(by_index) + targets) + 1)]
    return ReaderSource(reader, names, targets, classes)


def _pick_column(header: List[str], kind: str, given: Optional[str], path: Path, flag: str) -> Optional[str]:
    if given:
        if given not in header:
            raise UserError(
                f'{path} has no column {given!r}{nearest(given, header)}; its columns: {", ".join(header)}.')
        return given
    known = {name.lower().strip(): name for name in reversed(header)}
    for candidate in COLUMNS[kind]:
        if candidate in known:
            return known[candidate]
    if kind == 'split':
        return None
    raise UserError(f'{path}: which column holds the {kind}? Columns: {", ".join(header)}. Name it with {flag}.')


def table_source(
        path: Path,
        root: Path,
        input_key: Optional[str] = None,
        target_key: Optional[str] = None,
        split_key: Optional[str] = None,
) -> Dict[str, PathSource]:
    """Read a CSV (or TSV) file with a header line.

    Returns:
        Sources by the value of the split column; one source under '' where there is no such column.
    """
    with _open_text(path) as stream:
        rows = list(csv.DictReader(stream, delimiter='\t' if path.suffix.lower() == '.tsv' else ','))
    if not rows:
        raise UserError(f'{path} has no rows: expected a header line such as path,label and one line per image.')
    header = [column for column in rows[0] if column is not None]
    image = _pick_column(header, 'path', input_key, path, '--input-key')
    label = _pick_column(header, 'label', target_key, path, '--target-key')
    split = _pick_column(header, 'split', split_key, path, '--split-key')
    for line, row in enumerate(rows, 2):
        for column in (image, label, split):
            if column and row[column] in (None, ''):
                raise UserError(f'{path}, line {line}: empty {column}.')
    classes = sorted({row[label] for row in rows}, key=natural_key)
    number = {name: i for i, name in enumerate(classes)}
    parts: Dict[str, List[Dict]] = defaultdict(list)
    for row in rows:
        parts[row[split] if split else ''].append(row)
    return {
        name: PathSource(
            root, [row[image] for row in part], [number[row[label]] for row in part], classes,
            {column: [row[column] for row in part] for column in header})
        for name, part in parts.items()
    }


def list_source(path: Path, root: Path) -> PathSource:
    """Read a list file: `relative/path label` per line, labels 0-based (ImageNet-LT, iNaturalist, Places-LT)."""
    names, targets = [], []
    with _open_text(path) as stream:
        for number, line in enumerate(stream, 1):
            if not line.strip():
                continue
            name, label = (line.rsplit(None, 1) + [''])[:2]
            if not label.lstrip('-').isdigit():
                raise UserError(
                    f'{path}, line {number}: expected "relative/path label" with a number, got {line[:60]!r}.')
            if int(label) < 0:
                raise UserError(f'{path}, line {number}: label {label} is negative.')
            names.append(name.strip())
            targets.append(int(label))
    if not names:
        raise UserError(f'{path} lists no images.')
    return PathSource(root, names, targets, [str(i) for i in range(max(targets) + 1)])


def _open_text(path: Path) -> Any:
    try:
        return io.StringIO(path.read_text(encoding='utf-8-sig'), newline='')
    except FileNotFoundError as error:
        raise UserError(f'No such file: {path}') from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f'Cannot read {path}: {error}') from error


def read_class_map(path: str, root: Optional[str]) -> List[str]:
    """Return the class names of a `--class-map` file (timm's formats), in index order."""
    try:
        mapping = dict(_compat.load_class_map(path, root or ''))
        mapping.pop('', None)  # empty lines at the end
        names = sorted(mapping, key=mapping.__getitem__)
    except (AssertionError, ValueError, TypeError, OSError, EOFError, pickle.UnpicklingError) as error:
        raise UserError(f'--class-map {path}: {error}') from error
    if sorted(mapping.values()) != list(range(len(names))):
        raise UserError(f'--class-map {path}: the indices must be 0..{len(names) - 1} without gaps.')
    return [str(name) for name in names]


def relabel(source: ImageSource, classes: List[str]) -> ImageSource:
    """Put a source under a class list that holds all of its classes."""
    if source.classes == classes:
        return source
    number = {name: i for i, name in enumerate(classes)}
    return Relabelled(source, classes, [number.get(name, -1) for name in source.classes])
