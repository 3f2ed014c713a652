"""Images under the classes and training counts of a trained model."""
import json
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

from ..data.classes import listed
from ..data.formats import is_image_name
from ..data.readers import PathSource
from ..data.source import ImageSource
from ..data.tables import read_class_map
from ..errors import UserError
from ..utils.text import clean_names, natural_key
from . import eval_sources
from .roles import read_class_stats
from .sources import Parts, class_list
from .trained import TrainedModel

Bar = Callable[[int, str], Any]


@dataclass
class Judged:
    """Images under the classes of a trained model.

    Attributes:
        source: The images, decoded.
        split: The split they are.
        names: Names of the model's outputs.
        counts: Training images of each class, where they are known.
        bad: Images that were left out because they cannot be read, with the reason.
        parts: Sources of every split that was read.
        own: The run, if these are its own images.
    """
    source: ImageSource
    split: str
    names: List[str]
    counts: Optional[List[int]]
    bad: Dict[str, str]
    parts: Parts
    own: Optional[Path]


def find_images(
        args: Namespace,
        trained: TrainedModel,
        own: Optional[Path],
        split: Optional[str],
        notes: List[str],
        bar: Bar = lambda total, text: None,
        labelled: bool = True,
        loose: bool = False,
        names: Optional[List[str]] = None,
        found: Optional[PathSource] = None,
) -> Judged:
    """Find and decode the images that a trained model is to look at.

    Args:
        args: From `settings`, with a `cache_dir`.
        trained: The model.
        own: The run whose own images are meant; None for images that the user names.
        split: Which split of them.
        notes: Sentences about what was found are added here.
        bar: Makes a progress bar.
        labelled: Whether the images have to be of the model's classes; otherwise their own do, and there are no counts.
        loose: Take an image file, or images that lie directly in a folder, too; they have no class.
        names: The classes that the images have to be of, in place of the model's; then there are no counts.
        found: Images of one class without a name that were found already.

    Raises:
        UserError: There are no such images, or the model does not know their classes.
    """
    wanted = None
    parts: Parts
    if found is None and loose and own is None and args.data_dir and not args.dataset:
        found = loose_images(args.data_dir)
    if found is not None:
        parts, split, labelled = {'all': [found]}, 'all', False
    elif own is None:
        parts, split = eval_sources.named_images(args, split, notes)
    else:
        parts, split, wanted = eval_sources.run_images(args, own, split)
    counted = labelled and names is None
    if names is None:
        names = class_names(args, trained, parts, notes) if labelled else class_list(
            args, dict(train=parts[split], val=[], test=[]))
    source, bad = eval_sources.decoded(args, parts[split], names, wanted, called(args, split), notes, bar)
    _note_training_images(trained, source.names, notes)
    counts = training_counts(args, trained, names, notes) if counted else None
    return Judged(source, split, names, counts, bad, parts, own)


def loose_images(path: str) -> Optional[PathSource]:
    """Return an image file, or the images directly in a folder, as images of one class without a name."""
    place = Path(path)
    if place.is_dir():
        files = sorted((file for file in place.iterdir() if is_image_name(file.name) and file.is_file()
                        and not file.name.startswith('.')), key=lambda file: natural_key(file.name))
    else:
        files = [place] if place.is_file() and is_image_name(place.name) else []
    names = clean_names([file.name for file in files])[0]
    return PathSource(Path(), names, [0] * len(files), [''], files) if files else None


def called(args: Namespace, split: str) -> str:
    """Return what to call a split in a message."""
    return f'{args.data_dir or args.dataset} (split {split})'


def class_names(args: Namespace, trained: TrainedModel, parts: Parts, notes: List[str]) -> List[str]:
    """Return the names of the model's outputs: from `--class-map`, else from the model, else the classes of the data.

    Raises:
        UserError: There are not as many names as outputs.
    """
    outputs = trained.model.num_classes or 0  # features only: any classes go
    if args.class_map:
        names = read_class_map(args.class_map, args.data_dir)
        if outputs and len(names) != outputs:
            raise UserError(
                f'--class-map {args.class_map} names {len(names)} classes, but the model has {outputs} outputs.')
    elif trained.names or (not outputs and trained.training.get('class_names')):
        names = list(trained.names or trained.training['class_names'])
    else:
        everything = [source for sources in parts.values() for source in sources]
        names = class_list(args, dict(train=parts.get('train') or everything, val=[], test=[]))
        if not outputs:
            return names
        if len(names) != outputs:
            raise UserError(
                f'The model has {outputs} outputs without names, the data {len(names)} classes ({listed(names)}): '
                'name the outputs in their order with --class-map FILE.')
        notes.append(f'the model names no classes: the order of the data is assumed ({listed(names, 8)})')
    return names


def training_counts(args: Namespace, trained: TrainedModel, names: List[str], notes: List[str]) -> Optional[List[int]]:
    """Return the training images of each class, from `--class-stats` or else from the model; None if neither knows."""
    counts = trained.training.get('class_counts')
    if args.class_stats:
        if counts:
            notes.append(f'training counts from --class-stats {args.class_stats}, not those that the model carries')
        counts = read_class_stats(args.class_stats, len(names)).tolist()
        told = json.loads(Path(args.class_stats).read_text(encoding='utf-8')).get('class_names') or names
        if not isinstance(told, list) or not all(isinstance(name, str) for name in told):
            raise UserError(f'--class-stats {args.class_stats}: class_names is no list of names.')
        if sorted(told) != sorted(names):
            raise UserError(f'--class-stats {args.class_stats} is about other classes ({len(told)}): {listed(told)}. '
                            f'The model has ({len(names)}): {listed(names)}.')
        by_name = dict(zip(told, counts))
        counts = [by_name[name] for name in names]
    if not counts:
        notes.append('training counts are not known: no many, medium and few (--class-stats FILE names them)')
    return counts


def _note_training_images(trained: TrainedModel, names: List[str], notes: List[str]) -> None:
    if trained.run is not None and (trained.run / 'split.json').is_file():
        seen = set(eval_sources.names_by_role(trained.run).get('train', ()))
        shared = sum(name in seen for name in names)
        if shared:
            notes.append(f'{shared} of the {len(names)} images bear names of images that the model was trained on: the '
                         'result says little about new images')
