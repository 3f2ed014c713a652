"""Where the splits lie: folders, tars, tables, list files and named data sets, by role, under one class list."""
from argparse import Namespace
from pathlib import Path
from typing import Dict, List, Optional, Tuple

import numpy as np

from ..data import readers, tables
from ..data.classes import check_same_classes, listed
from ..data.samples import sample_source
from ..data.source import ImageSource
from ..data.split_words import ROLES, role_of
from ..errors import UserError
from ..utils.text import clean, natural_key
from .split_folders import WHOLE, SplitFolders, read_tar

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
    if root.suffix.lower() in tables.TABLE_SUFFIXES:
        return _table(args, root)
    if root.is_file() and root.suffix.lower() in tables.LIST_SUFFIXES:
        return _list(args, root)
    if root.is_file() and root.suffix.lower() != '.tar':
        raise UserError(f'{root} is neither a folder nor a .tar, .csv, .tsv or .txt file.')
    return _folders(args, root)


def _words(text: Optional[str]) -> List[str]:
    return [word for word in (text or '').split('+') if word]


def _file_of(word: str, root: Path) -> Optional[Path]:
    """A split that is itself a table or list file, found as given or beside the data."""
    if Path(word).suffix.lower() not in tables.TABLE_SUFFIXES + tables.LIST_SUFFIXES:
        return None
    folder = root if root.is_dir() else root.parent
    for path in (Path(word), folder / word):
        if path.is_file():
            return path
    raise UserError(f'No such split file: {word} (looked here and in {folder}).')


def _read_file(args: Namespace, path: Path, folder: Path, notes: List[str]) -> List[ImageSource]:
    """The sources of a split that is a table or list file of its own."""
    root = Path(args.image_root or folder)
    if path.suffix.lower() in tables.LIST_SUFFIXES:
        return [tables.list_source(path, root, notes)]
    return list(tables.table_source(path, root, args.input_key, args.target_key, args.split_key, notes).values())


def _wanted(args: Namespace) -> Dict[str, List[str]]:
    return {'train': _words(args.train_split), 'val': _words(args.val_split), 'test': _words(args.test_split)}


def _list(args: Namespace, path: Path) -> Tuple[Parts, bool, List[str]]:
    parts: Parts = {role: [] for role in ROLES}
    notes: List[str] = []
    for role, words in _wanted(args).items():
        for word in words:
            file = _file_of(word, path)
            if file is None:
                raise UserError(f'--{role}-split {word}: beside the list file {path} a split is a file of its own.')
            parts[role].extend(_read_file(args, file, path.parent, notes))
    parts['train'] = parts['train'] or _read_file(args, path, path.parent, notes)
    return parts, not (parts['val'] or parts['test']), notes


def _folders(args: Namespace, root: Path) -> Tuple[Parts, bool, List[str]]:
    parts: Parts = {role: [] for role in ROLES}
    wanted = _wanted(args)
    words = [word for words in wanted.values() for word in words]
    files = {word: _file_of(word, root) for word in words}
    if root.is_file():
        notes: List[str] = []
        return (*read_tar(root, args.folder_labels, wanted, notes), notes)
    folders = SplitFolders(root, args.folder_labels, [word for word in words if files[word] is None])
    for role in ROLES:
        for word in wanted[role]:
            file = files[word]
            if file is not None:
                parts[role].extend(_read_file(args, file, root, folders.notes))
            elif word == WHOLE:
                parts[role].append(folders.read(folders.root))
            else:
                parts[role].append(folders.named(word, role))
    if WHOLE in words:
        return parts, not (parts['val'] or parts['test']), folders.notes
    pooled = _found_folders(folders, wanted, parts)
    if not pooled and not any(files.values()):
        folders.note_rest(bool(words))
    return parts, pooled, folders.notes


def _found_folders(folders: SplitFolders, wanted: Dict[str, List[str]], parts: Parts) -> bool:
    """Add the folders of the roles that nobody named; without any, all is one pool, which is what is returned."""
    found = {role: None if wanted[role] else there for role, there in folders.found().items()}
    for role, there in found.items():
        if there is not None and there not in folders.used and (role == 'train' or parts['train']):
            parts[role].append(folders.read(there))
    if parts['train']:
        return False
    if wanted['val'] or wanted['test']:
        raise UserError(f'{folders.root} has no folder train/ beside the named split; name it with --train-split.')
    loose = found['val'] or found['test']
    if loose:
        raise UserError(
            f'{folders.root} holds {loose.name} but no train/; name the training folder with --train-split (if '
            f'{loose.name} is a class: --train-split {WHOLE}).')
    parts['train'].append(folders.read(folders.root))
    return True


def _table(args: Namespace, path: Path) -> Tuple[Parts, bool, List[str]]:
    notes: List[str] = []
    there = tables.table_source(
        path, Path(args.image_root or path.parent), args.input_key, args.target_key, args.split_key, notes)
    parts: Parts = {role: [] for role in ROLES}
    wanted = _wanted(args)
    named = {word for words in wanted.values() for word in words}
    for role in ROLES:
        for word in wanted[role]:
            file = _file_of(word, path)
            if file is not None:
                parts[role].extend(_read_file(args, file, file.parent, notes))
            elif word in there:
                parts[role].append(there[word])
            else:
                raise UserError(f'--{role}-split {word}: the split column of {path} holds: {listed(sorted(there))}.')
        if not wanted[role]:
            parts[role].extend(there[word] for word in there if role_of(word) == role and word not in named)
    if parts['train']:
        used = {id(source) for sources in parts.values() for source in sources}
        unused = [name for name, source in there.items() if id(source) not in used and name]
        notes += [f'rows of these splits are not used: {listed(unused)}'] if unused else []
        return parts, False, notes
    if '' not in there:
        raise UserError(f'{path}: no row is in a training split; the split column holds: {listed(sorted(there))}.')
    parts['train'].append(there[''])
    return parts, not (parts['val'] or parts['test']), notes


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
        classes = tables.read_class_map(args.class_map, args.data_dir)
        numbers = list(dict.fromkeys(name for names in train for name in names))
        if numbers and all(name.isdecimal() for name in numbers) and not any(name.isdecimal() for name in classes):
            raise UserError(
                f'--class-map {args.class_map} holds {listed(classes, 8)}, but in {args.data_dir or args.dataset} the '
                f'classes are numbers, {min(numbers, key=natural_key)} to {max(numbers, key=natural_key)}: list these, '
                'one per line, or leave --class-map out.')
    else:
        classes = list(dict.fromkeys(name for names in train for name in names))
        if len(train) > 1:
            classes.sort(key=natural_key)
        if classes and all(name.isdecimal() for name in classes):  # list files: labels are numbers
            classes.sort(key=natural_key)
    folders = str(args.dataset or '').partition('/')[0] not in ('torch', 'hfds')
    for role, sources in parts.items():
        for source in sources:
            present = [source.classes[c] for c in np.unique(source.targets)]
            check_same_classes(classes, present, f'the {role} split')
            there = set(map(clean, present))
            missing = [name for name in classes if clean(name) not in there]
            if role != 'train' and missing and folders and not args.allow_missing_classes and not _is_table(source):
                raise UserError(
                    f'The {role} split has no image of {listed(missing)}. Class list ({len(classes)}): '
                    f'{listed(classes)}. {role} ({len(present)}): {listed(present)}. Add the folders, or accept it '
                    'with --allow-missing-classes.')
    return classes


def _is_table(source: ImageSource) -> bool:
    return isinstance(source, tables.TableSource)
