"""Which images train, which choose, which judge: sources are found here and divided into three roles.

The order is fixed: bad images left out, splits joined, validation and test held out, long tail made. Training counts
are taken at the end, over the images that are really trained on.
"""
import hashlib
from argparse import Namespace
from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional, Tuple

import numpy as np

from ..data.cache import Scan, data_hash
from ..data.classes import ClassInfo, listed
from ..data.long_tail import long_tailed_indices
from ..data.readers import relabel
from ..data.source import ImageSource, Joined, Subset
from ..data.split import classes_without_held, folds, group_keys, hold_out, parse_fold
from ..data.split_file import read_indices, read_split
from ..errors import UserError
from ..evaluation.shot_groups import parse_shot_split
from ..utils.distributed import World
from .decode import Bar, decode_all, no_bar, scan_all
from .sources import ROLES, class_list, find_sources


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
    stored_side: Optional[int] = None  # of the cache; None: full size
    duplicates: int = 0  # images of val and test that are byte for byte images of another role

    def split_hash(self) -> str:
        """Return a sha256 over the names of the images of every role."""
        lines = [f'{role}\t{name}' for role, names in sorted(self.split_names.items()) for name in sorted(names)]
        return hashlib.sha256('\n'.join(lines).encode()).hexdigest()


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


def open_data(args: Namespace, world: World = World(), bar: Bar = no_bar) -> Opened:
    """Find the sources of all roles, put them under one class list and open every file once."""
    parts, pooled, notes = find_sources(args)
    classes = class_list(args, parts)
    for role, sources in parts.items():
        parts[role] = [relabel(source, classes) for source in sources]
    everything = [source for sources in parts.values() for source in sources]
    if not sum(map(len, everything)) or not parts['train']:
        raise UserError(f'No images found in {args.data_dir or args.dataset}.')
    scanned = iter(scan_all(everything, world, bar))
    scans = {role: [next(scanned) for _ in sources] for role, sources in parts.items()}
    return Opened(parts, scans, pooled, notes)


def divide(args: Namespace, opened: Opened, world: World = World(), bar: Bar = no_bar) -> Data:
    """Decode every image once, leave bad ones out, hold out what is missing, make the long tail, count.

    Args:
        args: Settings.
        opened: The sources.
        world: This process.
        bar: Makes a progress bar.
    """
    notes = list(opened.notes)
    whole: Dict[str, Any] = {}
    everything = [source for role in ROLES for source in opened.parts[role]]
    decoded, bad, side = decode_all(args, everything, [s for role in ROLES for s in opened.scans[role]], world, bar)
    left = iter(decoded)
    for role in ROLES:
        there = [source for source in (next(left) for _ in opened.parts[role]) if len(source)]
        whole[role] = Joined(there) if len(there) > 1 else there[0] if there else None
    if bad:
        notes.append(f'{len(bad)} bad image{"s" * (len(bad) > 1)} left out (listed in bad_images.csv)')
    train = whole['train']
    if train is None:
        raise UserError(f'No readable training image in {args.data_dir or args.dataset}.')
    for role in ('val', 'test'):
        before = {c for source in opened.parts[role] for c in source.targets.tolist()}
        rest = whole[role]
        if before and rest is None:
            raise UserError(f'No readable image in the {role} split of {args.data_dir or args.dataset}.')
        lost = sorted(before - set(rest.targets.tolist())) if rest is not None else []
        if lost:
            notes.append(f'{role} has no readable image of {listed([train.classes[c] for c in lost])}')

    train, val, test = _hold_out(args, opened, train, whole['val'], whole['test'], notes)
    pool_names, kept = train.names, _long_tail(args, train)
    if kept is not None:
        train = Subset(train, kept)
    return _checked(args, Data(
        train, val, test, ClassInfo(train.classes, []), {},
        dict(train=pool_names, **{
            role: part.names for role, part in (('val', val), ('test', test)) if part is not None}),
        kept, pool_names, bad, notes, side))


def _checked(args: Namespace, data: Data) -> Data:
    """Count, and refuse class lists that cannot be trained or judged."""
    train = data.train
    counts = np.bincount(train.targets, minlength=len(train.classes))
    if len(train.classes) < 2:
        raise UserError(
            f'Only one class ({listed(train.classes)}) in {args.data_dir or args.dataset}: a classifier needs two or '
            'more folders, one per class.')
    empty = [name for name, n in zip(train.classes, counts) if not n]
    if empty and not args.allow_missing_classes:
        raise UserError(
            f'Classes without a training image: {listed(empty)}. Add images, or accept it with '
            '--allow-missing-classes.')
    if args.num_classes is not None and args.num_classes != len(train.classes):
        raise UserError(
            f'--num-classes {args.num_classes}, but the data have {len(train.classes)}: {listed(train.classes)}.')
    if args.class_stats:
        counts = read_class_stats(args.class_stats, len(train.classes))
    digests = _digests(train)
    data.classes = ClassInfo(
        list(train.classes), [int(n) for n in counts], data_hash(train.names, digests, train.targets))
    data.groups = parse_shot_split(args.shot_split, counts.tolist())
    data.duplicates = _duplicates(dict(train=train, val=data.val, test=data.test), data.notes)
    return data


def _duplicates(roles: Dict[str, Optional[ImageSource]], notes: List[str]) -> int:
    """Count the images that an earlier role has byte for byte too, and say so; they stay where they are."""
    seen: Dict[str, Dict[bytes, str]] = {}
    count = 0
    for role, source in roles.items():
        if source is None:
            continue
        digests = [bytes(digest) for digest in _digests(source)]
        for earlier, names in seen.items():
            pairs = [f'{name} = {names[d]}' for name, d in zip(source.names, digests) if d in names]
            if pairs:
                are = f'images of {role} are byte for byte images' if len(pairs) > 1 else (
                    f'image of {role} is byte for byte an image')
                notes.append(f'{len(pairs)} {are} of {earlier} (first: {pairs[0]})')
        count += sum(any(d in names for names in seen.values()) for d in digests)
        seen[role] = dict(zip(digests, source.names))
    return count


def _digests(source: ImageSource) -> np.ndarray:
    """Return the per-image digests that travelled with the cache, through subsets and joins."""
    if isinstance(source, Subset):
        return _digests(source.source)[source.indices]
    if isinstance(source, Joined):
        return np.concatenate([_digests(s) for s in source.sources])
    return source.digests  # type: ignore[attr-defined]


def _hold_out(
        args: Namespace, opened: Opened, train: ImageSource, val: Optional[ImageSource], test: Optional[ImageSource],
        notes: List[str]) -> Tuple[ImageSource, Optional[ImageSource], Optional[ImageSource]]:
    if args.split_file:
        _not_used(args, '--split-file names the images of each role', notes)
        everything = Joined([s for s in (train, val, test) if s is not None])
        roles = read_split(args.split_file, everything.names)
        if not len(roles.get('train', ())):
            raise UserError(f'{args.split_file} names no training images.')
        parts = [Subset(everything, roles[role]) if len(roles.get(role, ())) else None for role in ROLES]
        assert parts[0] is not None
        return parts[0], parts[1], parts[2]

    whole_val, whole_test = val, test

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
        notes.append(f'fold {number} of {k} is the {role} split'
                     + (', in place of the val split that there is' if role == 'val' and val is not None else ''))
        train, part = _cut(train, kept, held, role, notes)
        val, test = (val, part) if role == 'test' else (part, test)
    elif test is None:
        fraction = args.test_fraction if args.test_fraction is not None else (0.15 if opened.pooled else 0)
        train, test = take(fraction, 'test', train)
    for part, flag, value in ((whole_val, '--val-fraction', args.val_fraction),
                              (whole_test, '--test-fraction', args.test_fraction)):
        if part is not None and value:
            notes.append(f'{flag} {value:g} is not used: there is such a split')
    if whole_val is not None and whole_test is not None and not args.fold:
        _not_used(args, 'nothing is held out', notes)
    if val is None:
        train, val = take(0.15 if args.val_fraction is None else args.val_fraction, 'val', train)
    return train, val, test


def _not_used(args: Namespace, why: str, notes: List[str]) -> None:
    for dest in ('split_seed', 'group_regex', 'group_column'):
        value = getattr(args, dest)
        if value:
            notes.append(f'--{dest.replace("_", "-")} {value} is not used: {why}')


def _cut(pool: ImageSource, kept: np.ndarray, held: np.ndarray, role: str, notes: List[str]) -> Tuple:
    if not len(held):
        notes.append(f'no image could be held out as {role}: every class or group is too small')
        return pool, None
    notes.append(f'{len(held)} of {len(pool)} images held out as {role}, stratified by class')
    spared = [pool.classes[c] for c in classes_without_held(pool.targets, held)]
    if spared:
        notes.append(f'too few images to hold any out for {role}, they stay in training: {listed(spared, 8)}')
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


def read_class_stats(path: str, num_classes: int) -> np.ndarray:
    """Return the counts of a `--class-stats` file (timm's format)."""
    from timm.loss import load_class_stats
    try:
        counts: Any = load_class_stats(path)[0]  # type: ignore[index]
    except (OSError, ValueError, TypeError, RuntimeError) as error:  # the last two: entries that are no numbers
        raise UserError(f'--class-stats {path}: {error}') from error
    if len(counts) != num_classes:
        raise UserError(f'--class-stats {path} holds {len(counts)} counts, but the data have {num_classes} classes.')
    return counts.numpy().astype(np.int64)
