"""Images to judge a finished model on: found like those of a training, but nothing is held out of them."""
from argparse import Namespace
from pathlib import Path
from typing import Dict, List, Optional, Set, Tuple

from ..data.classes import check_same_classes, listed
from ..data.pixels import notes_on, total
from ..data.readers import relabel
from ..data.source import ImageSource, Joined, Subset
from ..data.split_file import read_json
from ..data.split_words import ROLES, SPLIT_WORDS
from ..errors import UserError
from ..utils.text import clean
from .decode import Bar, decode_all, no_bar, pixel_rule, scan_all
from .sources import Parts, find_sources


def named_images(args: Namespace, split: Optional[str], notes: List[str]) -> Tuple[Parts, str]:
    """Find the images that the user names.

    Args:
        args: Settings.
        split: `train`, `val`, `test`, `all`, or a name that the data have for a split; by default test if there is one,
            else val, else all.
        notes: Sentences about what was found are added here.

    Returns:
        The sources of each split that was read, and which split to judge.

    Raises:
        UserError: There are no such data, or they have no such split.
    """
    kind = str(args.dataset or '').partition('/')[0]
    try:
        if split not in (None, 'all', *ROLES) or (kind in ('torch', 'hfds') and split not in (None, 'all')):
            return {str(split): _read_alone(args, str(split))}, str(split)
        if kind == 'hfds':
            raise UserError(f'--dataset {args.dataset}: name the split to evaluate, e.g. --split test.')
        parts = {role: sources for role, sources in _splits(args, notes).items() if sources}
    except UserError as error:
        raise UserError(str(error).replace('--train-split', '--split')) from error
    if split is None:
        split = next((role for role in ('test', 'val') if role in parts), 'all')
        notes.append(f'evaluating the split {split} (--split names another one)')
    if split == 'all':
        parts['all'] = [source for sources in parts.values() for source in sources]
    if split not in parts:
        raise UserError(f'{args.data_dir or args.dataset} has no split {split}; it has: {", ".join(parts)}.')
    return parts, split


def _splits(args: Namespace, notes: List[str]) -> Parts:
    """Return all splits of a folder or table; here there need be no training split among them."""
    try:
        parts, pooled, found = find_sources(args)
    except UserError:
        parts = {}
        for role in ('val', 'test'):
            for name in SPLIT_WORDS[role]:
                try:
                    parts.setdefault(role, _read_alone(args, name))
                except UserError:
                    continue
        if not parts:
            raise
        return parts
    notes.extend(found)
    return {'all': parts['train']} if pooled else parts


def _read_alone(args: Namespace, name: str) -> List[ImageSource]:
    """Read one split as if it were the training split: nothing else has to be there."""
    return find_sources(Namespace(**{**vars(args), 'train_split': name}))[0]['train']


def names_by_role(folder: Path) -> Dict[str, List[str]]:
    """Return the image names of each split of a run."""
    names = read_json(str(folder / 'split.json'), 'split')['split']
    if (folder / 'train_images.json').is_file():  # a long tail was made: these were trained on
        names['train'] = read_json(str(folder / 'train_images.json'), 'names')['names']
    return {role: [clean(name) for name in there] for role, there in names.items()}


def run_images(args: Namespace, folder: Path, split: Optional[str]) -> Tuple[Parts, str, Set[str]]:
    """Find the images of a run's own split again.

    Args:
        args: The settings of the run.
        folder: The run folder.
        split: `train`, `val`, `test` or `all`; by default the one that its report is about.

    Returns:
        The sources in which they are, the split, and the names of the images.

    Raises:
        UserError: The run has no such split, or images are gone.
    """
    by_role = names_by_role(folder)
    split = split or next((role for role in ('test', 'val') if role in by_role), 'all')
    if split != 'all' and split not in by_role:
        raise UserError(f'The run in {folder} has no split {split}; it has: {", ".join(by_role)}.')
    wanted = {name for role, names in by_role.items() for name in names if split in ('all', role)}
    sources = [
        source for found in find_sources(args)[0].values() for source in found if not wanted.isdisjoint(source.names)]
    missing = wanted.difference(*(source.names for source in sources))
    if missing:
        raise UserError(f'{len(missing)} of the {len(wanted)} images of the split {split} are no longer in '
                        f'{args.data_dir or args.dataset}; the first: {min(missing)}.')
    return {split: sources}, split, wanted


def decoded(
        args: Namespace,
        sources: List[ImageSource],
        names: List[str],
        wanted: Optional[Set[str]],
        where: str,
        notes: List[str],
        bar: Bar = no_bar,
) -> Tuple[ImageSource, Dict[str, str]]:
    """Put images under a model's classes and decode them once, as for a training.

    Args:
        args: Settings; `img_size` is that of the model.
        sources: Where the images are.
        names: The model's classes.
        wanted: Names of the images to take; None takes all.
        where: What to call them in a message.
        notes: Sentences about what was found are added here.
        bar: Makes a progress bar.

    Returns:
        The images, and those that were left out because they cannot be read, with the reason.

    Raises:
        UserError: The model does not know a class of the images; an image cannot be read; none is left.
    """
    present = dict.fromkeys(
        source.classes[c] for source in sources for c in sorted(
            {int(c) for name, c in zip(source.names, source.targets) if wanted is None or name in wanted}))
    check_same_classes(names, list(present), where)
    seen = set(map(clean, present))
    absent = [name for name in names if clean(name) not in seen]
    if absent:
        notes.append(f"no image in {where} of {len(absent)} of the model's {len(names)} classes: {listed(absent, 8)}")
    sources = [relabel(source, names) for source in sources]
    scans = scan_all(sources, bar=bar)
    notes += notes_on(total(scanned.kinds for scanned in scans), pixel_rule(args, scans))
    found = decode_all(args, sources, scans, bar=bar, notes=notes)
    bad = found.bad
    whole: ImageSource = Joined(found.sources)
    if bad:
        first = '{}: {}'.format(*next(iter(bad.items())))
        notes.append(f'{len(bad)} bad image{"s" * (len(bad) > 1)} left out: {first}')
    if wanted is not None:
        whole = Subset(whole, [i for i, name in enumerate(whole.names) if name in wanted])
    if not len(whole):
        raise UserError(f'No readable image in {where}.')
    return whole, bad
