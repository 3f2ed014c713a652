"""Which images train, which choose, which judge: sources are found here and divided into three roles.

The order is fixed: bad images left out, splits joined, validation and test held out, long tail made. Training counts
are taken at the end, over the images that are really trained on.
"""
import hashlib
from argparse import Namespace
from dataclasses import dataclass, field
from typing import Any, Dict, List, Optional, Tuple

import numpy as np

from ..data.classes import ClassInfo, listed
from ..data.duplicates import count_duplicates, count_two_labels, digests_of
from ..data.pixels import grey_range, notes_on, total
from ..data.readers import relabel
from ..data.scan import Scan, data_hash
from ..data.source import ImageSource, Joined, Subset
from ..data.split_words import ROLES
from ..errors import UserError
from ..evaluation.shot_groups import auto_shot_split, parse_shot_split
from ..utils.distributed import World
from .decode import Bar, decode_all, no_bar, pixel_rule, scan_all
from .hold_out import hold_out_missing, long_tail_of
from .sources import class_list, find_sources


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
    cache: str = 'disk'  # where decoded images are
    stored: str = ''  # the same in words
    shot_split: str = ''  # how the groups were cut
    duplicates: int = 0  # images of val and test that are byte for byte images of another role
    two_labels: int = 0  # images that are there under two labels

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

    def pixel_range(self) -> Optional[Tuple[float, float]]:
        """Return the range of greyscale images of more than 8 bits, of training ones where there are such."""
        for some in (self.scans['train'], [scanned for scans in self.scans.values() for scanned in scans]):
            kinds = total(scanned.kinds for scanned in some)
            if kinds.deep:
                return grey_range(kinds.lowest, kinds.highest)
        return None

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
    scans = [scanned for role in ROLES for scanned in opened.scans[role]]
    notes += notes_on(total(scanned.kinds for scanned in scans), pixel_rule(args, scans))
    decoded = decode_all(args, everything, scans, world, bar, notes)
    left, bad = iter(decoded.sources), decoded.bad
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

    train, val, test = hold_out_missing(args, opened.pooled, train, whole['val'], whole['test'], notes)
    pool_names, kept = train.names, long_tail_of(args, train)
    if kept is not None:
        train = Subset(train, kept)
    return _checked(args, Data(
        train, val, test, ClassInfo(train.classes, []), {},
        dict(train=pool_names, **{
            role: part.names for role, part in (('val', val), ('test', test)) if part is not None}),
        kept, pool_names, bad, notes, decoded.side, decoded.place, decoded.text))


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
    digests = digests_of(train)
    data.classes = ClassInfo(
        list(train.classes), [int(n) for n in counts], data_hash(train.names, digests, train.targets))
    data.shot_split = args.shot_split
    if data.shot_split == 'auto':
        data.shot_split = auto_shot_split(counts.tolist())
    data.groups = parse_shot_split(data.shot_split, counts.tolist())
    if args.shot_split == 'auto' and data.shot_split != 'counts:100,20':
        data.notes.append('many, medium and few are thirds of the classes, as the usual counts:100,20 would leave a '
                          f'group empty: --shot-split {data.shot_split}')
    data.duplicates = count_duplicates(dict(train=train, val=data.val, test=data.test), data.notes)
    data.two_labels = count_two_labels((train, data.val, data.test))
    return data


def read_class_stats(path: str, num_classes: int) -> np.ndarray:
    """Return the counts of a `--class-stats` file (timm's format)."""
    from timm.loss import load_class_stats
    try:
        counts: Any = load_class_stats(path)[0].numpy()  # type: ignore[index]
        if not np.isfinite(counts).all():
            raise ValueError('its counts are not finite')
    except (OSError, ValueError, TypeError, RuntimeError, OverflowError) as error:  # no JSON, no numbers, nested deep
        raise UserError(f'--class-stats {path}: {str(error)[:300]}') from error
    if len(counts) != num_classes:
        raise UserError(f'--class-stats {path} holds {len(counts)} counts, but the data have {num_classes} classes.')
    return counts.astype(np.int64)
