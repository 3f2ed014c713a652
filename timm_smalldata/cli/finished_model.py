"""What the verbs for finished models share: their flags, and images under the model's classes and training counts."""
import argparse
import json
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, List, Optional, Tuple

from PIL import Image
from timm.utils import natural_key

from ..build import eval_sources
from ..build.roles import read_class_stats
from ..build.sources import Parts, class_list
from ..build.trained import TrainedModel, load_trained_model
from ..config.checks import check_contradictions
from ..config.flags import BY_DEST, FLAGS
from ..config.parser import add_flag
from ..config.settings import Settings
from ..config.yaml_file import load_config
from ..data.classes import listed
from ..data.readers import PathSource, read_class_map
from ..data.source import ImageSource
from ..errors import UserError, nearest

Bar = Callable[[int, str], Any]

SHARED = {  # flags with the name and meaning that they have in training; a text takes the place of theirs
    'data_dir': 'folder, tar, CSV or list file with the images (a run knows its own)',
    'dataset': '', 'folder_labels': '', 'input_key': '', 'target_key': '', 'split_key': '', 'image_root': '',
    'on_bad_image': '', 'dataset_download': '', 'dataset_trust_remote_code': '',
    'class_map': "text file with one class name per line: names of the model's outputs, in their order",
    'class_stats': 'JSON with the training counts (timm format), from which many, medium and few follow',
    'shot_split': "many/medium/few: counts:100,20 or index:a,b (default: the training's)",
    'cache_dir': 'where decoded images are kept (default: a temporary folder)', 'cache_size': '',
    'img_size': "side of the images in pixels (default: the model's)",
    'crop_pct': "share of the resized image that is kept (default: the model's)",
    'model_kwargs': '', 'batch_size': 'images per step', 'device': '', 'workers': '',
}


@dataclass
class Judged:
    """Images under the classes of a finished model.

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
        finished: TrainedModel,
        own: Optional[Path],
        split: Optional[str],
        notes: List[str],
        bar: Bar = lambda total, text: None,
        labelled: bool = True,
        loose: bool = False,
        names: Optional[List[str]] = None,
) -> Judged:
    """Find and decode the images that a finished model is to look at.

    Args:
        args: From `settings`, with a `cache_dir`.
        finished: The model.
        own: The run whose own images are meant; None for images that the user names.
        split: Which split of them.
        notes: Sentences about what was found are added here.
        bar: Makes a progress bar.
        labelled: Whether the images have to be of the model's classes; otherwise their own do, and there are no counts.
        loose: Take an image file, or images that lie directly in a folder, too; they have no class.
        names: The classes that the images have to be of, in place of the model's; then there are no counts.

    Raises:
        UserError: There are no such images, or the model does not know their classes.
    """
    wanted = None
    parts: Parts
    found = loose_images(args.data_dir) if loose and own is None and args.data_dir and not args.dataset else None
    if found is not None:
        parts, split, labelled = {'all': [found]}, 'all', False
    elif own is None:
        parts, split = eval_sources.named_images(args, split, notes)
    else:
        parts, split, wanted = eval_sources.run_images(args, own, split)
    counted = labelled and names is None
    if names is None:
        names = class_names(args, finished, parts, notes) if labelled else class_list(
            args, dict(train=parts[split], val=[], test=[]))
    source, bad = eval_sources.decoded(args, parts[split], names, wanted, called(args, split), notes, bar)
    _note_training_images(finished, source.names, notes)
    counts = training_counts(args, finished, names, notes) if counted else None
    return Judged(source, split, names, counts, bad, parts, own)


def loose_images(path: str) -> Optional[PathSource]:
    """Return an image file, or the images directly in a folder, as images of one class without a name."""
    place, suffixes = Path(path), set(Image.registered_extensions())
    if place.is_dir():
        names = sorted((file.name for file in place.iterdir() if file.suffix.lower() in suffixes and file.is_file()
                        and not file.name.startswith('.')), key=natural_key)
    else:
        names = [place.name] if place.is_file() and place.suffix.lower() in suffixes else []
    return PathSource(place if place.is_dir() else place.parent, names, [0] * len(names), ['']) if names else None


def called(args: Namespace, split: str) -> str:
    """Return what to call a split in a message."""
    return f'{args.data_dir or args.dataset} (split {split})'


# --- the command line -----------------------------------------------------------------------------------------------

def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add MODEL, DIR and the flags that these verbs share; those not given are to be absent from the result."""
    parser.add_argument(
        'model', metavar='MODEL', help='run folder, model folder, local-dir:FOLDER, hf-hub:OWNER/NAME or a timm model')
    parser.add_argument('data', nargs='?', metavar='DIR', help='the same as --data-dir')
    parser.add_argument(
        '--checkpoint', metavar='FILE', help='weights for a plain timm model name (default: its pretrained ones)')
    parser.add_argument(
        '--split', metavar='NAME', help='train, val, test, all or your own name of a split (default: test if there is '
        'one, else val, else all)')
    for dest, text in SHARED.items():
        add_flag(parser, BY_DEST[dest], text)


def parse(parser: argparse.ArgumentParser, argv: List[str], others: Iterable[str]) -> Dict[str, Any]:
    """Return what was given, by argparse destination; `others` are the verb's own flags."""
    namespace, unknown = parser.parse_known_args(argv)
    if unknown:
        word = unknown[0].split('=')[0]
        known = ['--checkpoint', '--split', *others, *(f'--{BY_DEST[dest].name}' for dest in SHARED)]
        raise UserError(f'Unknown flag {word}{nearest(word, known)}; --help lists them all.')
    given = vars(namespace)
    if 'data' in given:
        if 'data_dir' in given:
            raise UserError('The data folder was given twice: as DIR and as --data-dir.')
        given['data_dir'] = given.pop('data')
    if 'model_kwargs' in given:
        given['model_kwargs'] = dict(given['model_kwargs'])
    check_contradictions(given, 'command line')
    return given


def load(given: Dict[str, Any], scores: bool = True) -> Tuple[TrainedModel, Optional[Path]]:
    """Load the model; with it comes the run whose own images are meant, where no other ones were named.

    Raises:
        UserError: It cannot be loaded, gives no class scores where they are needed, or there are no images to look at.
    """
    finished = load_trained_model(
        given['model'], given.get('checkpoint'), img_size=given.get('img_size'), crop_pct=given.get('crop_pct'),
        model_kwargs=given.get('model_kwargs'), features=not scores)
    named = 'data_dir' in given or 'dataset' in given
    if not named and finished.run is None:
        raise UserError('Which images? Name them: MODEL DIR, or --dataset NAME (only a run knows its own).')
    return finished, None if named else finished.run


def settings(
        given: Dict[str, Any], finished: TrainedModel, own: Optional[Path], flags: Iterable[str] = tuple(SHARED),
) -> Namespace:
    """Return all flags: those given; of a run its batches and, where its images are judged, where they come from."""
    layers = Settings()
    layers.layer({dest: value for dest, value in given.items() if dest in flags}, 'command line')
    _, height, width = finished.config['input_size']
    if height != width:
        raise UserError(f'The model takes images of {height} x {width}; here only squares: see --img-size.')
    layers.layer(dict(img_size=height), 'the model')
    if 'batch_size' in given:
        layers.layer(dict(validation_batch_size=given['batch_size']), 'command line')
    if finished.run is not None:
        kept = {'channels_last', 'validation_batch_size', 'probe', 'knn_k', 'knn_temperature'}
        if own is not None:
            kept |= {flag.dest for flag in FLAGS if flag.group == 'Your images'} | {'train_img_sizes'}
            kept -= {'class_map', 'class_stats'}  # the model knows its classes
        values = load_config(str(finished.run / 'args.yaml'))
        layers.layer({dest: value for dest, value in values.items() if dest in kept}, 'the run')
    layers.layer(dict(validation_batch_size=64), 'default')
    args = layers.namespace()
    args.allow_missing_classes = True
    return args


def kept_cache(folder: Path) -> Optional[str]:
    """Return the decoded images that a run left in its output folder, if they are still there."""
    return next((str(p / '.cache') for p in list(folder.resolve().parents)[:2] if (p / '.cache').is_dir()), None)


def make_output(path: str) -> Path:
    folder = Path(path)
    if (folder / 'args.yaml').exists():
        raise UserError(f'--output {path} is the folder of a run, whose own report would be lost: name another one.')
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f'--output {path}: {error.strerror}.') from error
    return folder


# --- classes --------------------------------------------------------------------------------------------------------

def class_names(args: Namespace, finished: TrainedModel, parts: Parts, notes: List[str]) -> List[str]:
    """Return the names of the model's outputs: from `--class-map`, else from the model, else the classes of the data.

    Raises:
        UserError: There are not as many names as outputs.
    """
    outputs = finished.model.num_classes or 0  # features only: any classes go
    if args.class_map:
        names = read_class_map(args.class_map, args.data_dir)
        if outputs and len(names) != outputs:
            raise UserError(
                f'--class-map {args.class_map} names {len(names)} classes, but the model has {outputs} outputs.')
    elif finished.names or (not outputs and finished.training.get('class_names')):
        names = list(finished.names or finished.training['class_names'])
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


def training_counts(args: Namespace, finished: TrainedModel, names: List[str], notes: List[str]) -> Optional[List[int]]:
    """Return the training images of each class, from `--class-stats` or else from the model; None if neither knows."""
    counts = finished.training.get('class_counts')
    if args.class_stats:
        if counts:
            notes.append(f'training counts from --class-stats {args.class_stats}, not those that the model carries')
        counts = read_class_stats(args.class_stats, len(names)).tolist()
        told = json.loads(Path(args.class_stats).read_text(encoding='utf-8')).get('class_names') or names
        if sorted(told) != sorted(names):
            raise UserError(f'--class-stats {args.class_stats} is about other classes ({len(told)}): {listed(told)}. '
                            f'The model has ({len(names)}): {listed(names)}.')
        by_name = dict(zip(told, counts))
        counts = [by_name[name] for name in names]
    if not counts:
        notes.append('training counts are not known: no many, medium and few (--class-stats FILE names them)')
    return counts


def _note_training_images(finished: TrainedModel, names: List[str], notes: List[str]) -> None:
    if finished.run is not None and (finished.run / 'split.json').is_file():
        trained = set(eval_sources.names_by_role(finished.run).get('train', ()))
        shared = sum(name in trained for name in names)
        if shared:
            notes.append(f'{shared} of the {len(names)} images bear names of images that the model was trained on: the '
                         'result says little about new images')
