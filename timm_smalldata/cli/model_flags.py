"""What the verbs for trained models share on the command line: MODEL, DIR and flags of the train command."""
import argparse
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

from ..build.trained import TrainedModel, load_trained_model
from ..config.checks import check_contradictions
from ..config.flags import BY_DEST, FLAGS, Flag
from ..config.parser import add_flag, parse_known
from ..config.settings import Settings
from ..config.yaml_file import load_config
from ..errors import UserError

KEPT = ('channels_last', 'validation_batch_size', 'probe', 'knn_k', 'knn_temperature')  # of the run of a model


def shared_flags(verb: str) -> List[Flag]:
    """Return the flags of the train command that a verb shares."""
    return [flag for flag in FLAGS if verb in flag.verbs]


# --- the command line -----------------------------------------------------------------------------------------------

def add_flags(parser: argparse.ArgumentParser, verb: str, **choices: Tuple[str, ...]) -> None:
    """Add MODEL, DIR and the flags that a verb shares with the train command.

    Args:
        parser: Flags that were not given are to be absent from its result.
        verb: The verb.
        **choices: Choices of a flag there, in place of its own.
    """
    parser.add_argument(
        'model', metavar='MODEL', help='run folder, model folder, local-dir:FOLDER, hf-hub:OWNER/NAME or a timm model')
    parser.add_argument('data', nargs='?', metavar='DIR', help='the same as --data-dir')
    parser.add_argument(
        '--checkpoint', metavar='FILE', help='weights for a plain timm model name (default: its pretrained ones)')
    parser.add_argument(
        '--split', metavar='NAME', help='train, val, test, all or your own name of a split (default: test if there is '
        'one, else val, else all)')
    for flag in shared_flags(verb):
        add_flag(parser, replace(flag, choices=choices.get(flag.dest, flag.choices)), flag.verb_help)


def parse(parser: argparse.ArgumentParser, argv: List[str]) -> Dict[str, Any]:
    """Return what was given, by argparse destination."""
    given = parse_known(parser, argv)
    if 'model_kwargs' in given:
        given['model_kwargs'] = dict(given['model_kwargs'])
    check_contradictions(given, 'command line')
    return given


def load(given: Dict[str, Any], scores: bool = True) -> Tuple[TrainedModel, Optional[Path]]:
    """Load the model; with it comes the run whose own images are meant, where no other ones were named.

    Raises:
        UserError: It cannot be loaded, gives no class scores where they are needed, or there are no images to look at.
    """
    trained = load_trained_model(
        given['model'], given.get('checkpoint'), img_size=given.get('img_size'), crop_pct=given.get('crop_pct'),
        model_kwargs=given.get('model_kwargs'), features=not scores)
    named = 'data_dir' in given or 'dataset' in given
    if not named and trained.run is None:
        raise UserError('Which images? Name them: MODEL DIR, or --dataset NAME (only a run knows its own).')
    return trained, None if named else trained.run


def settings(
        given: Dict[str, Any], trained: TrainedModel, own: Optional[Path], verb: str,
) -> Namespace:
    """Return all flags: those given; of a run its batches and, where its images are judged, where they come from."""
    layers = Settings()
    shared = {flag.dest for flag in shared_flags(verb)}
    layers.layer({dest: value for dest, value in given.items() if dest in shared}, 'command line')
    _, height, width = trained.config['input_size']
    if height != width:
        raise UserError(f'The model takes images of {height} x {width}; here only squares: see --img-size.')
    layers.layer(dict(img_size=height), 'the model')
    if 'batch_size' in given:
        layers.layer(dict(validation_batch_size=given['batch_size']), 'command line')
    if trained.training:  # how images were read then; models from before that was stored have the value of then
        pixels = trained.training.get('pixels') or {}
        layers.layer({dest: pixels.get(dest, BY_DEST[dest].value_before()) for dest in ('alpha', 'grey_range')},
                     'the model')
    if trained.run is not None:
        kept = set(KEPT)
        if own is not None:
            kept |= {flag.dest for flag in FLAGS if flag.group == 'Your images'} | {'train_img_sizes'}
            kept -= {'class_map', 'class_stats'}  # the model knows its classes
        values = load_config(str(trained.run / 'args.yaml'))
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
