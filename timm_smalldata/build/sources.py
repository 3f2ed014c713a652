"""Where the splits lie: folders, tars, tables, list files and named data sets, by role, under one class list."""
from argparse import Namespace
from pathlib import Path
from typing import Dict, List, Optional, Tuple

import numpy as np
from timm.utils import natural_key

from ..data import readers
from ..data.classes import check_same_classes, listed
from ..data.samples import sample_source
from ..data.source import ImageSource
from ..errors import UserError

SYNONYMS = {
    'train': ('train', 'training'),
    'val': ('val', 'validation', 'valid', 'eval', 'evaluation', 'dev'),
    'test': ('test', 'testing'),
}
ROLES = ('train', 'val', 'test')
Parts = Dict[str, List[ImageSource]]


def find_sources(args: Namespace) -> Tuple[Parts, bool, List[str]]:
    """Return sources by role, whether they came as one pool without splits, and sentences about it."""
    kind = str(args.dataset or '').partition('/')[0].lower()
    if kind == 'sample':
        name = args.dataset.partition('/')[2]
        return {role: [sample_source(name, role)] for role in ROLES}, False, []
    if kind in ('torch', 'hfds'):
        return _named(args, kind)
    if kind in ('wds', 'hfids', 'tfds'):
        raise UserError(
            f'--dataset {args.dataset} streams, and a stream has no labels to count, to divide or to draw classes by: '
            'unpack it into folders, or name a map-style data set (hfds/OWNER/NAME, torch/NAME).')
    if args.dataset:
        raise UserError(f'Unknown --dataset {args.dataset!r}: expected sample/NAME, torch/NAME or hfds/OWNER/NAME; '
                        'for your own images use --data-dir.')
    root = Path(args.data_dir)
    if not root.exists():
        raise UserError(f'No such folder or file: {root} (--data-dir).')
    if root.suffix.lower() in readers.TABLE_SUFFIXES:
        return _table(args, root)
    if root.is_file() and root.suffix.lower() in readers.LIST_SUFFIXES:
        return _list(args, root)
    if root.is_file() and root.suffix.lower() != '.tar':
        raise UserError(f'{root} is neither a folder nor a .tar, .csv, .tsv or .txt file.')
    return _folders(args, root)


def _words(text: Optional[str]) -> List[str]:
    return [word for word in (text or '').split('+') if word]


def _file_of(word: str, root: Path) -> Optional[Path]:
    """A split that is itself a table or list file, found as given or beside the data."""
    if Path(word).suffix.lower() not in readers.TABLE_SUFFIXES + readers.LIST_SUFFIXES:
        return None
    folder = root if root.is_dir() else root.parent
    for path in (Path(word), folder / word):
        if path.is_file():
            return path
    raise UserError(f'No such split file: {word} (looked here and in {folder}).')


def _read_file(args: Namespace, path: Path, folder: Path) -> List[ImageSource]:
    """The sources of a split that is a table or list file of its own."""
    root = Path(args.image_root or folder)
    if path.suffix.lower() in readers.LIST_SUFFIXES:
        return [readers.list_source(path, root)]
    return list(readers.table_source(path, root, args.input_key, args.target_key, args.split_key).values())


def _wanted(args: Namespace) -> Dict[str, List[str]]:
    return {'train': _words(args.train_split), 'val': _words(args.val_split), 'test': _words(args.test_split)}


def _list(args: Namespace, path: Path) -> Tuple[Parts, bool, List[str]]:
    parts: Parts = {role: [] for role in ROLES}
    for role, words in _wanted(args).items():
        for word in words:
            file = _file_of(word, path)
            if file is None:
                raise UserError(f'--{role}-split {word}: beside the list file {path} a split is a file of its own.')
            parts[role].extend(_read_file(args, file, path.parent))
    parts['train'] = parts['train'] or _read_file(args, path, path.parent)
    return parts, not (parts['val'] or parts['test']), []


def _folders(args: Namespace, root: Path) -> Tuple[Parts, bool, List[str]]:
    parts: Parts = {role: [] for role in ROLES}
    notes: List[str] = []
    wanted = _wanted(args)
    named = set()  # what is named for one role is not found for another one

    def read(path: Path) -> ImageSource:
        source, note = readers.folder_source(path, args.folder_labels)
        if path != root:  # names are unique over all splits
            source.names = [f'{path.name}/{name}' for name in source.names]
        if note and note not in notes:
            notes.append(note)
        return source

    for role in ROLES:
        for word in wanted[role]:
            file = _file_of(word, root)
            if file is not None:
                parts[role].extend(_read_file(args, file, root))
            else:
                path = _split_folder(root, word, role)
                named.add(path)
                parts[role].append(read(path))
    found = {role: None if wanted[role] else _find_split(root, role) for role in ROLES}
    for role, there in found.items():
        if there is not None and there not in named and (role == 'train' or parts['train']):
            parts[role].append(read(there))
    if parts['train']:
        return parts, False, notes
    if wanted['val'] or wanted['test']:
        raise UserError(f'{root} has no folder train/ beside the named split; name it with --train-split.')
    loose = found['val'] or found['test']
    if loose:
        raise UserError(f'{root} holds {loose.name} but no train/; name the training folder with --train-split.')
    parts['train'].append(read(root))
    return parts, True, notes


def _find_split(root: Path, role: str) -> Optional[Path]:
    """The folder (or else tar) of a role that nobody named, in upper or lower case."""
    there = {path.name.lower(): path for path in sorted(root.iterdir())} if root.is_dir() else {}
    folders = (there[name] for name in SYNONYMS[role] if name in there and there[name].is_dir())
    tars = (there[f'{name}.tar'] for name in SYNONYMS[role] if f'{name}.tar' in there)
    return next(folders, None) or next(tars, None)


def _split_folder(root: Path, word: str, role: str) -> Path:
    names = next((synonyms for synonyms in SYNONYMS.values() if word in synonyms), (word,))
    for name in (word, *names):
        if (root / name).is_dir():
            return root / name
        if (root / f'{name}.tar').is_file():
            return root / f'{name}.tar'
    there = sorted(p.name for p in root.iterdir() if p.is_dir()) if root.is_dir() else []
    raise UserError(f'--{role}-split {word}: {root} has no such folder; it has: {listed(there) or "none"}.')


def _table(args: Namespace, path: Path) -> Tuple[Parts, bool, List[str]]:
    tables = readers.table_source(
        path, Path(args.image_root or path.parent), args.input_key, args.target_key, args.split_key)
    parts: Parts = {role: [] for role in ROLES}
    wanted = _wanted(args)
    named = {word for words in wanted.values() for word in words}
    for role in ROLES:
        for word in wanted[role]:
            file = _file_of(word, path)
            if file is not None:
                parts[role].extend(_read_file(args, file, file.parent))
            elif word in tables:
                parts[role].append(tables[word])
            else:
                raise UserError(f'--{role}-split {word}: the split column of {path} holds: {listed(sorted(tables))}.')
        if not wanted[role]:
            parts[role].extend(tables[word] for word in tables if word.lower() in SYNONYMS[role] and word not in named)
    if parts['train']:
        used = {id(source) for sources in parts.values() for source in sources}
        unused = [name for name, source in tables.items() if id(source) not in used and name]
        return parts, False, [f'rows of these splits are not used: {listed(unused)}'] if unused else []
    if '' not in tables:
        raise UserError(f'{path}: no row is in a training split; the split column holds: {listed(sorted(tables))}.')
    parts['train'].append(tables[''])
    return parts, not (parts['val'] or parts['test']), []


def _named(args: Namespace, kind: str) -> Tuple[Parts, bool, List[str]]:
    def read(split: str) -> ImageSource:
        if kind == 'torch':
            return readers.torch_source(args.dataset, args.data_dir, split, args.dataset_download)
        return readers.hfds_source(
            args.dataset, args.data_dir, split, args.input_key, args.target_key, args.dataset_trust_remote_code)

    # torchvision's train/test pairs: timm calls the second one validation; here it is the test split
    test = args.test_split or ('validation' if kind == 'torch' and not args.val_split else None)
    parts = {
        'train': [read(word) for word in _words(args.train_split or 'train')],
        'val': [read(word) for word in _words(args.val_split)],
        'test': [read(word) for word in _words(test)],
    }
    return parts, False, []


def class_list(args: Namespace, parts: Parts) -> List[str]:
    """Return the one class list, from `--class-map` or the training sources; every split is checked against it."""
    train = [source.classes for source in parts['train']]
    if args.class_map:
        classes = readers.read_class_map(args.class_map, args.data_dir)
        numbers = list(dict.fromkeys(name for names in train for name in names))
        if numbers and all(name.isdigit() for name in numbers) and not any(name.isdigit() for name in classes):
            raise UserError(
                f'--class-map {args.class_map} holds {listed(classes, 8)}, but in {args.data_dir or args.dataset} the '
                f'classes are numbers, {min(numbers, key=int)} to {max(numbers, key=int)}: list these, one per line, '
                'or leave --class-map out.')
    else:
        classes = list(dict.fromkeys(name for names in train for name in names))
        if len(train) > 1:
            classes.sort(key=natural_key)
        if classes and all(name.isdigit() for name in classes):  # list files: labels are numbers
            classes.sort(key=int)
    folders = str(args.dataset or '').partition('/')[0] not in ('torch', 'hfds')
    for role, sources in parts.items():
        for source in sources:
            present = [source.classes[c] for c in np.unique(source.targets)]
            check_same_classes(classes, present, f'the {role} split')
            missing = [name for name in classes if name not in set(present)]
            if role != 'train' and missing and folders and not args.allow_missing_classes and not _is_table(source):
                raise UserError(
                    f'The {role} split has no image of {listed(missing)}. Class list ({len(classes)}): '
                    f'{listed(classes)}. {role} ({len(present)}): {listed(present)}. Add the folders, or accept it '
                    'with --allow-missing-classes.')
    return classes


def _is_table(source: ImageSource) -> bool:
    return isinstance(source, readers.PathSource)
