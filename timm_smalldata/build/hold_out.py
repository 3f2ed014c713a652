"""Validation and test images are held out where no split names them; a long tail is made where it is asked for."""
from argparse import Namespace
from typing import List, Optional, Tuple

import numpy as np

from ..data.classes import listed
from ..data.long_tail import long_tailed_indices
from ..data.source import ImageSource, Joined, Subset
from ..data.split import classes_without_held, folds, group_keys, hold_out, parse_fold
from ..data.split_file import read_indices, read_split
from ..data.split_words import ROLES
from ..errors import UserError


def hold_out_missing(
        args: Namespace,
        pooled: bool,
        train: ImageSource,
        val: Optional[ImageSource],
        test: Optional[ImageSource],
        notes: List[str],
) -> Tuple[ImageSource, Optional[ImageSource], Optional[ImageSource]]:
    """Return the images of each role; what no split names is held out of the training images.

    Args:
        args: Settings.
        pooled: The images came as one pool, without splits.
        train: Training images.
        val: Validation images, where there is such a split.
        test: Test images, likewise.
        notes: Sentences about what was held out are added here.

    Raises:
        UserError: A split file, fold or group that the images do not allow.
    """
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
        fraction = args.test_fraction if args.test_fraction is not None else (0.15 if pooled else 0)
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


def long_tail_of(args: Namespace, train: ImageSource) -> Optional[np.ndarray]:
    """Return the positions that the long tail keeps, or None where none is asked for."""
    if args.imbalance_indices:
        return read_indices(args.imbalance_indices, train.names)
    if not args.imbalance_factor:
        return None
    try:
        return long_tailed_indices(train.targets, args.imbalance_factor, args.imbalance_profile, args.imbalance_seed)
    except ValueError as error:
        raise UserError(f'--imbalance-factor {args.imbalance_factor}: {error}') from error
