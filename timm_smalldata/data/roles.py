"""Which images train, which choose, which judge: sources are found here and divided into three roles.

The order is fixed: bad images left out, splits joined, validation and test held out, long tail made. Training counts
are taken at the end, over the images that are really trained on.
"""
from argparse import Namespace
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Tuple

import numpy as np

from ..errors import UserError
from ..evaluation.shot_groups import parse_shot_split
from . import readers
from .cache import CachedSource, Scan, build_cache, data_hash, scan, stored_side
from .classes import ClassInfo, _listed, check_same_classes
from .long_tail import long_tailed_indices
from .samples import sample_source
from .source import ImageSource, Joined, Subset
from .split import classes_without_held, folds, group_keys, hold_out, parse_fold, read_indices, read_split

SYNONYMS = {
    'train': ('train', 'training'),
    'val': ('val', 'validation', 'valid', 'eval', 'evaluation', 'dev'),
    'test': ('test', 'testing'),
}
_ROLES = ('train', 'val', 'test')


@dataclass
class Data:
    """The three roles, their classes, and what is to be written beside the results."""
    train: ImageSource
    val: Optional[ImageSource]
    test: Optional[ImageSource]
    classes: ClassInfo
    groups: Dict[str, List[int]]
    split_names: Dict[str, List[str]]
    kept: Optional[np.ndarray] = None  # positions kept by the long tail, in `pool_names`
    pool_names: List[str] = field(default_factory=list)
    bad: Dict[str, str] = field(default_factory=dict)
    notes: List[str] = field(default_factory=list)


@dataclass
class Opened:
    """Sources by role before any image was left out or held out; every file was opened once."""
    parts: Dict[str, List[ImageSource]]
    scans: Dict[str, List[Scan]]
    pooled: bool
    notes: List[str]

    @property
    def num_train(self) -> int:
        return sum(len(s) for s in self.parts['train'])

    def median_side(self) -> int:
        sides = [s.median_side() for s in self.scans['train']]
        return int(np.median(sides)) if sides else 0


def open_data(args: Namespace, bar: Callable[[int, str], Any] = lambda total, text: None) -> Opened:
    """Find the sources of all roles, put them under one class list and open every file once."""
    parts, pooled, notes = _find(args)
    classes = _class_list(args, parts)
    for role, sources in parts.items():
        parts[role] = [readers.relabel(source, classes) for source in sources]
    total = sum(len(s) for sources in parts.values() for s in sources)
    if not total or not parts['train']:
        raise UserError(f'No images found in {args.data_dir or args.dataset}.')
    progress = bar(total, 'reading files')
    scans = args.world.first(
        lambda: {role: [scan(source, progress) for source in sources] for role, sources in parts.items()})
    if progress is not None:
        progress.close()
    return Opened(parts, scans, pooled, notes)


def divide(args: Namespace, opened: Opened, size: int, bar: Callable[[int, str], Any] = lambda total, text: None) -> Data:
    """Decode every image once, leave bad ones out, hold out what is missing, make the long tail, count.

    Args:
        args: Settings.
        opened: The sources.
        size: Largest image size of the run, for the size at which images are kept.
        bar: Makes a progress bar.
    """
    notes = list(opened.notes)
    whole, bad = {}, {}
    total = sum(len(s) for sources in opened.parts.values() for s in sources)
    progress = bar(total, 'decoding')
    for role in _ROLES:
        cached = [
            _decoded(args, source, scanned, size, progress, bad)
            for source, scanned in zip(opened.parts[role], opened.scans[role])]
        cached = [source for source in cached if len(source)]
        whole[role] = Joined(cached) if len(cached) > 1 else cached[0] if cached else None
    if progress is not None:
        progress.close()
    if bad and args.on_bad_image == 'stop':
        first, reason = next(iter(bad.items()))
        raise UserError(
            f'{len(bad)} image{"s" * (len(bad) > 1)} cannot be read: {first}: {reason}. '
            'Repair or remove it, or leave such files out with --on-bad-image skip.')
    if bad:
        notes.append(f'{len(bad)} bad image{"s" * (len(bad) > 1)} left out (listed in bad_images.csv)')
    train = whole['train']
    if train is None:
        raise UserError(f'No readable training image in {args.data_dir or args.dataset}.')
    for role in ('val', 'test'):
        before = {c for source in opened.parts[role] for c in source.targets.tolist()}
        left = whole[role]
        if before and left is None:
            raise UserError(f'No readable image in the {role} split of {args.data_dir or args.dataset}.')
        lost = sorted(before - set(left.targets.tolist())) if left is not None else []
        if lost:
            notes.append(f'{role} has no readable image of {_listed([train.classes[c] for c in lost])}')

    train, val, test = _hold_out(args, opened, train, whole['val'], whole['test'], notes)
    pool_names, kept = train.names, _long_tail(args, train)
    if kept is not None:
        train = Subset(train, kept)
    return _checked(args, Data(
        train, val, test, ClassInfo(train.classes, []), {},
        {role: s.names for role, s in zip(_ROLES, (train, val, test)) if s is not None},
        kept, pool_names, bad, notes))


def _checked(args: Namespace, data: Data) -> Data:
    """Count, and refuse class lists that cannot be trained or judged."""
    train = data.train
    counts = np.bincount(train.targets, minlength=len(train.classes))
    if len(train.classes) < 2:
        raise UserError(
            f'Only one class ({_listed(train.classes)}) in {args.data_dir or args.dataset}: a classifier needs two or '
            'more folders, one per class.')
    empty = [name for name, n in zip(train.classes, counts) if not n]
    if empty and not args.allow_missing_classes:
        raise UserError(
            f'Classes without a training image: {_listed(empty)}. Add images, or accept it with --allow-missing-classes.')
    if args.num_classes is not None and args.num_classes != len(train.classes):
        raise UserError(f'--num-classes {args.num_classes}, but the data have {len(train.classes)}: {_listed(train.classes)}.')
    if args.class_stats:
        counts = _read_class_stats(args.class_stats, len(train.classes))
    digests = _digests(train)
    data.classes = ClassInfo(
        list(train.classes), [int(n) for n in counts], data_hash(train.names, digests, train.targets))
    data.groups = parse_shot_split(args.shot_split, counts.tolist())
    return data


def _digests(source: ImageSource) -> np.ndarray:
    """Return the per-image digests that travelled with the cache, through subsets and joins."""
    if isinstance(source, Subset):
        return _digests(source.source)[source.indices]
    if isinstance(source, Joined):
        return np.concatenate([_digests(s) for s in source.sources])
    return source.digests  # type: ignore[attr-defined]


def _decoded(args: Namespace, source: ImageSource, scanned: Scan, size: int, progress: Any, bad: Dict) -> ImageSource:
    side = stored_side(scanned, size, args.cache_size)
    path, sizes, unreadable = args.world.first(
        lambda: build_cache(source, scanned, Path(args.cache_dir or Path(args.output) / '.cache'), side, progress))
    cached = CachedSource(source, path, sizes)
    cached.digests = scanned.digests  # type: ignore[attr-defined]
    bad.update({source.names[i]: reason for i, reason in unreadable.items()})
    if not unreadable:
        return cached
    return Subset(cached, [i for i in range(len(source)) if i not in unreadable])


def _hold_out(
        args: Namespace, opened: Opened, train: ImageSource, val: Optional[ImageSource], test: Optional[ImageSource],
        notes: List[str]) -> Tuple[ImageSource, Optional[ImageSource], Optional[ImageSource]]:
    if args.split_file:
        everything = Joined([s for s in (train, val, test) if s is not None])
        roles = read_split(args.split_file, everything.names)
        if not len(roles.get('train', ())):
            raise UserError(f'{args.split_file} names no training images.')
        parts = [Subset(everything, roles[role]) if len(roles.get(role, ())) else None for role in _ROLES]
        assert parts[0] is not None
        return parts[0], parts[1], parts[2]

    def take(fraction: Optional[float], role: str, pool: ImageSource) -> Tuple[ImageSource, Optional[ImageSource]]:
        if not fraction:
            return pool, None
        kept, held = hold_out(pool.targets, fraction, args.split_seed, _groups(args, pool))
        return _cut(pool, kept, held, role, notes)

    if args.fold:
        role = 'test' if test is None else 'val'
        number, k = parse_fold(args.fold)
        held = folds(train.targets, k, args.split_seed, _groups(args, train))[number - 1]
        kept = np.setdiff1d(np.arange(len(train)), held)
        notes.append(f'fold {number} of {k} is the {role} split')
        train, part = _cut(train, kept, held, role, notes)
        val, test = (val, part) if role == 'test' else (part, test)
    elif test is None:
        fraction = args.test_fraction if args.test_fraction is not None else (0.15 if opened.pooled else 0)
        train, test = take(fraction, 'test', train)
    if val is None:
        train, val = take(0.15 if args.val_fraction is None else args.val_fraction, 'val', train)
    return train, val, test


def _cut(pool: ImageSource, kept: np.ndarray, held: np.ndarray, role: str, notes: List[str]) -> Tuple:
    if not len(held):
        notes.append(f'no image could be held out as {role}: every class or group is too small')
        return pool, None
    notes.append(f'{len(held)} of {len(pool)} images held out as {role}, stratified by class')
    spared = [pool.classes[c] for c in classes_without_held(pool.targets, held)]
    if spared:
        notes.append(f'too few images to hold any out for {role}, they stay in training: {_listed(spared, 8)}')
    return Subset(pool, kept), Subset(pool, held)


def _groups(args: Namespace, pool: ImageSource) -> Optional[np.ndarray]:
    if args.group_regex:
        return group_keys(pool.names, args.group_regex)
    if not args.group_column:
        return None
    return np.array(_column(pool, args.group_column))


def _column(source: ImageSource, name: str) -> List[str]:
    if isinstance(source, Subset):
        column = _column(source.source, name)
        return [column[i] for i in source.indices]
    if isinstance(source, Joined):
        return [value for s in source.sources for value in _column(s, name)]
    inner = getattr(source, 'source', None)
    if inner is not None:
        return _column(inner, name)
    extra = getattr(source, 'extra', {})
    if name not in extra:
        raise UserError(
            f'--group-column {name}: ' + (f'the table has the columns {", ".join(extra)}.' if extra else
                                          'only CSV tables have columns; for files use --group-regex.'))
    return extra[name]


def _long_tail(args: Namespace, train: ImageSource) -> Optional[np.ndarray]:
    if args.imbalance_indices:
        return read_indices(args.imbalance_indices, train.names)
    if not args.imbalance_factor:
        return None
    try:
        return long_tailed_indices(train.targets, args.imbalance_factor, args.imbalance_profile, args.imbalance_seed)
    except ValueError as error:
        raise UserError(f'--imbalance-factor {args.imbalance_factor}: {error}') from error


def _read_class_stats(path: str, num_classes: int) -> np.ndarray:
    from timm.loss import load_class_stats
    try:
        counts, _ = load_class_stats(path)
    except (OSError, ValueError, TypeError, RuntimeError) as error:  # the last two: entries that are no numbers
        raise UserError(f'--class-stats {path}: {error}') from error
    if len(counts) != num_classes:
        raise UserError(f'--class-stats {path} holds {len(counts)} counts, but the data have {num_classes} classes.')
    return counts.numpy().astype(np.int64)


def _class_list(args: Namespace, parts: Dict[str, List[ImageSource]]) -> List[str]:
    train = [source.classes for source in parts['train']]
    if args.class_map:
        classes = readers.read_class_map(args.class_map, args.data_dir)
    else:
        classes = list(dict.fromkeys(name for names in train for name in names))
        if len(train) > 1:
            classes.sort(key=readers.natural_key)
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
                    f'The {role} split has no image of {_listed(missing)}. Class list ({len(classes)}): '
                    f'{_listed(classes)}. {role} ({len(present)}): {_listed(present)}. Add the folders, or accept it with '
                    '--allow-missing-classes.')
    return classes


def _is_table(source: ImageSource) -> bool:
    return isinstance(source, readers.PathSource)


# --- finding the splits ---------------------------------------------------------------------------------------------

def _find(args: Namespace) -> Tuple[Dict[str, List[ImageSource]], bool, List[str]]:
    """Return sources by role, whether they came as one pool without splits, and sentences about it."""
    kind = str(args.dataset or '').partition('/')[0].lower()
    if kind == 'sample':
        name = args.dataset.partition('/')[2]
        return {role: [sample_source(name, role)] for role in _ROLES}, False, []
    if kind in ('torch', 'hfds'):
        return _named(args, kind)
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


def _list(args: Namespace, path: Path) -> Tuple[Dict[str, List[ImageSource]], bool, List[str]]:
    parts: Dict[str, List[ImageSource]] = {role: [] for role in _ROLES}
    for role, words in _wanted(args).items():
        for word in words:
            listed = _file_of(word, path)
            if listed is None:
                raise UserError(f'--{role}-split {word}: beside the list file {path} a split is a file of its own.')
            parts[role].extend(_read_file(args, listed, path.parent))
    parts['train'] = parts['train'] or _read_file(args, path, path.parent)
    return parts, not (parts['val'] or parts['test']), []


def _folders(args: Namespace, root: Path) -> Tuple[Dict[str, List[ImageSource]], bool, List[str]]:
    parts: Dict[str, List[ImageSource]] = {role: [] for role in _ROLES}
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

    for role in _ROLES:
        for word in wanted[role]:
            listed = _file_of(word, root)
            if listed is not None:
                parts[role].extend(_read_file(args, listed, root))
            else:
                path = _split_folder(root, word, role)
                named.add(path)
                parts[role].append(read(path))
    found = {role: None if wanted[role] else _find_split(root, role) for role in _ROLES}
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
    raise UserError(f'--{role}-split {word}: {root} has no such folder; it has: {_listed(there) or "none"}.')


def _table(args: Namespace, path: Path) -> Tuple[Dict[str, List[ImageSource]], bool, List[str]]:
    tables = readers.table_source(
        path, Path(args.image_root or path.parent), args.input_key, args.target_key, args.split_key)
    parts: Dict[str, List[ImageSource]] = {role: [] for role in _ROLES}
    wanted = _wanted(args)
    named = {word for words in wanted.values() for word in words}
    for role in _ROLES:
        for word in wanted[role]:
            listed = _file_of(word, path)
            if listed is not None:
                parts[role].extend(_read_file(args, listed, listed.parent))
            elif word in tables:
                parts[role].append(tables[word])
            else:
                raise UserError(f'--{role}-split {word}: the split column of {path} holds: {_listed(sorted(tables))}.')
        if not wanted[role]:
            parts[role].extend(tables[word] for word in tables if word.lower() in SYNONYMS[role] and word not in named)
    if parts['train']:
        used = {id(source) for sources in parts.values() for source in sources}
        unused = [name for name, source in tables.items() if id(source) not in used and name]
        return parts, False, [f'rows of these splits are not used: {_listed(unused)}'] if unused else []
    if '' not in tables:
        raise UserError(f'{path}: no row is in a training split; the split column holds: {_listed(sorted(tables))}.')
    parts['train'].append(tables[''])
    return parts, not (parts['val'] or parts['test']), []


def _named(args: Namespace, kind: str) -> Tuple[Dict[str, List[ImageSource]], bool, List[str]]:
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
