"""The verb eval on features: whether they are judged, and against which images."""
import argparse
from argparse import Namespace
from pathlib import Path
from typing import Any, Dict, List, Optional

from ..build import eval_sources
from ..build.eval_images import Bar, called
from ..build.sources import class_list
from ..build.trained import TrainedModel
from ..config.late_checks import wants_posthoc
from ..data.source import ImageSource
from ..engine.linear_evaluation import PROTOCOLS
from ..errors import UserError

TRAINED = tuple(PROTOCOLS)
FOLDERS = ('landmarks', 'copies', 'video')  # judged on a folder in the layout of a benchmark
KINDS = ('knn', 'linear', *TRAINED, 'retrieval', *FOLDERS)
SCALES = {'paper': {}, 'cpu': dict(epochs=20, batch_size=256)}


def is_probed(given: Dict[str, Any], args: Namespace, trained: TrainedModel, own: Optional[Path]) -> bool:
    """Return whether features are judged: where that is asked for, or where a run did so itself.

    Raises:
        UserError: The model gives no class scores and nothing was said; flags that do not go together.
    """
    without_head = not trained.model.num_classes
    if 'probe' not in given and without_head and own is None:
        raise UserError(f'{given["model"]} gives features, no class scores: --probe knn judges them.')
    probed = 'probe' in given or without_head
    if probed and wants_posthoc(args):
        raise UserError('--posthoc-tau, --tau-norm and --temperature change class scores: leave them or --probe out.')
    if (not probed or args.probe != 'knn') and any(dest in given for dest in ('knn_k', 'knn_temperature')):
        raise UserError('--knn-k and --knn-temperature go with --probe knn.')
    if 'multi_scale' in given or 'crop_queries' in given:
        raise UserError('--multi-scale and --crop-queries go with --probe landmarks.')
    if args.probe not in TRAINED and any(dest in given for dest in ('probe_scale', 'probe_epochs', 'probe_batch_size')):
        raise UserError(f'--probe-scale, --probe-epochs and --probe-batch-size go with --probe {" or ".join(TRAINED)}.')
    return probed


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of evaluations of papers, which only the verb eval has."""
    parser.add_argument(
        '--probe-scale', choices=tuple(SCALES), help='linear-dino, linear-mae: as published (paper), or 20 epochs of '
        'updates of 256 images (cpu) [paper]')
    parser.add_argument('--probe-epochs', type=_positive, metavar='N', help='these: epochs [100, 90]')
    parser.add_argument('--probe-batch-size', type=_positive, metavar='N', help='these: images of an update, '
                        'which the rate is scaled by [1024, 16384; at most all]')
    parser.add_argument(
        '--multi-scale', action='store_true', help='landmarks: the mean feature of three sizes (1, 0.71, 0.5)')
    parser.add_argument('--crop-queries', action='store_true', help='landmarks: cut the box out of each query')


def lengths(given: Dict[str, Any]) -> Dict[str, int]:
    """Return `epochs` and `batch_size` of a linear evaluation, as far as they are not the published ones.

    >>> lengths(dict(probe_scale='cpu', probe_epochs=5))
    {'epochs': 5, 'batch_size': 256}
    """
    own = {name: given[f'probe_{name}'] for name in ('epochs', 'batch_size') if f'probe_{name}' in given}
    return {**SCALES[given.get('probe_scale', 'paper')], **own}


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f'expected a whole number from 1 on, got {text!r}')
    return int(text)


def training_images(
        args: Namespace,
        trained: TrainedModel,
        own: Optional[Path],
        split: Optional[str],
        notes: List[str],
        bar: Bar,
) -> ImageSource:
    """Return the images whose features are known by class: the train split of the data, or of the run itself.

    Args:
        args: From `model_flags.settings`, with a `cache_dir`.
        trained: The model.
        own: The run whose own images are meant; None for images that the user names.
        split: The split to judge, as far as it was named.
        notes: Sentences about what was found are added here.
        bar: Makes a progress bar.

    Raises:
        UserError: There are none, or they are among those to judge.
    """
    remedy = 'the data need a split train and another one (--split NAME).'
    if split in ('train', 'all'):
        raise UserError(
            f'--probe {args.probe} learns from the train split, so it cannot judge the split {split}: {remedy}')
    wanted = None
    if own is not None:
        parts, _, wanted = eval_sources.run_images(args, own, 'train')
        if split is None and not {'val', 'test'} & set(eval_sources.names_by_role(own)):
            raise UserError(f'--probe {args.probe}: the run in {own} has held no images out; name some: MODEL DIR.')
    else:
        try:
            parts, _ = eval_sources.named_images(args, 'train', [])
        except UserError as error:
            raise UserError(f'--probe {args.probe} needs a train split to learn from: {error}') from error
        if split is None and not {'val', 'test'} & set(parts):
            raise UserError(f'--probe {args.probe}: {args.data_dir or args.dataset} has a train split and none to '
                            f'judge: {remedy}')
    names = None if own is None else trained.names or trained.training.get('class_names')
    names = names or class_list(args, dict(train=parts['train'], val=[], test=[]))
    where = called(args, 'train')
    return eval_sources.decoded(args, parts['train'], names, wanted, where, notes, bar)[0]
