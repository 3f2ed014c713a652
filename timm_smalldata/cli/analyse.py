"""Look into a finished model: `timm-smalldata analyse KIND MODEL [IMAGES] --output FOLDER`.

Writes FOLDER/KIND.png and FOLDER/KIND.csv. Kinds:
  attention-distance  how far each head looks, block by block, in pixels
  attention           where the class token looks, head by head, drawn over the images
  overlap             how well that meets the objects of a folder in the layout of PASCAL VOC
  feature-rank        how many directions the features of (rare) classes use, block by block
  tokens              distance of class and distillation token, block by block (distilled models)
  divergence          the same distance epoch by epoch, from the history of a run of --task deit-lt; needs no images
  experts             recall of either token's head on each class, over its training images (distilled models)
  reconstruction      images, what is left of them, and what a run of --task mae predicts

Without images, those of a run's own test split are taken.
"""
import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import numpy as np

from ..analysis.capture import patch_grid
from ..analysis.figures import KINDS, Found, Study, divergence
from ..analysis.tokens import is_distilled
from ..build.eval_images import find_images
from ..build.loaders import eval_loader
from ..build.trained import load_autoencoder
from ..config.parser import Parser
from ..data.source import ImageSource, Subset
from ..data.views import eval_view
from ..errors import UserError, nearest
from ..evaluation import parse_shot_split
from ..evaluation.shot_groups import GROUPS
from ..utils.command import as_typed, typed
from ..utils.console import Voice, answer
from ..utils.device import resolve_device
from ..utils.distributed import World
from ..utils.files import open_atomic, write_csv_atomic
from . import analyse_subjects, model_flags

ALL = [*KINDS, 'divergence']


def main(argv: Optional[List[str]] = None) -> int:
    """Run the analyse command; returns the exit code (2: the user can put it right)."""
    return answer(run, argv)


def run(argv: List[str]) -> List[Path]:
    """Analyse, write and print; returns the files."""
    given, say = model_flags.parse(create_parser(), argv), Voice()
    kind = check_kind(given)
    output = model_flags.make_output(given['output'])
    if kind == 'divergence':
        found, about = divergence(*analyse_subjects.read_history(given['model'])), given['model']
    else:
        found, about = look(kind, given, say)
    print(f'{kind} of {about}')
    print('\n'.join(found.lines))
    files = [output / f'{kind}.png', output / f'{kind}.csv']
    with open_atomic(files[0], binary=True) as stream:
        found.figure.savefig(stream, format='png', dpi=100, metadata={'Software': None})
    write_csv_atomic(files[1], found.header, found.rows)
    print(f'written: {files[0]} and {files[1]}')
    return files


def look(kind: str, given: Dict[str, Any], say: Voice) -> Tuple[Found, str]:
    """Show images to the model; returns what was found, and a sentence about model and images."""
    spec = KINDS[kind]
    trained, own = model_flags.load(given, scores=kind == 'experts')
    args = model_flags.settings(given, trained, own, 'analyse')
    check_model(kind, given['model'], trained.model, args.img_size)
    device = resolve_device(args.device)
    reconstruct = None
    if kind == 'reconstruction':
        autoencoder = load_autoencoder(trained.run, given['model'], device)
        reconstruct = analyse_subjects.reconstructor(autoencoder)
    with tempfile.TemporaryDirectory(prefix='timm-smalldata-', ignore_cleanup_errors=True) as temporary:
        args.cache_dir = args.cache_dir or (own and model_flags.kept_cache(own)) or temporary
        notes: List[str] = []
        grouped = given.get('group', 'all') != 'all'
        objects, masks_of = analyse_subjects.objects_of(given) if kind == 'overlap' else (None, {})
        images = find_images(
            args, trained, own, given.get('split'), notes, say.bar, labelled=spec.labels != 'no' or grouped,
            loose=spec.labels != 'yes' and not grouped, found=objects)
        shot_split = args.shot_split or trained.training.get('shot_split') or 'counts:100,20'
        groups = parse_shot_split(shot_split, images.counts) if images.counts else {}
        group = given.get('group') or default_group(kind, groups, images.source, notes)
        config = trained.config
        view = eval_view(args.img_size, config['crop_pct'], config['interpolation'], config['mean'], config['std'])
        known = kind == 'attention' and args.dataset == 'sample/shapes'  # measured, not only drawn: on all images
        source = choose(images.source, group, groups, given.get('images', None if known else spec.images))
        for note in notes:
            say(f'note: {note}')
        loader = eval_loader(args, source, view, World(), device)
        assert loader is not None
        study = Study(
            trained.model.to(device).float().eval(), ((batch.views[0], batch.target) for batch in loader),
            source.names, source.targets.tolist(), images.names, images.counts, groups, config['mean'], config['std'],
            masks=analyse_subjects.object_masks(masks_of, source.names, view) if objects else
            analyse_subjects.figure_masks(args.dataset, source.names, view) if known else None,
            reconstruct=reconstruct,
            **{name: given[name] for name in ('threshold', 'mass') if name in given})
        try:
            found = spec.study(study)
        except ValueError as error:
            raise UserError(f'{given["model"]} cannot be analysed: {error}') from error
    number = f'{len(source)} image{"s" * (len(source) > 1)}'
    where = '' if images.names == [''] else f', split {images.split}, classes: {group}'
    return found, f'{given["model"]}: {number} of {args.data_dir or args.dataset}{where}'


def create_parser() -> argparse.ArgumentParser:
    """Return the parser; flags that were not given are absent from its result."""
    parser = Parser(
        typed('analyse'), usage='%(prog)s KIND MODEL [IMAGES] --output FOLDER [flags]', description=as_typed(__doc__),
        allow_abbrev=False, argument_default=argparse.SUPPRESS, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('kind', metavar='KIND', help=', '.join(ALL))
    model_flags.add_flags(parser, 'analyse')
    parser.add_argument('--output', metavar='FOLDER', help='folder for the picture and the table')
    parser.add_argument(
        '--images', type=_positive, metavar='N', help='number of images, evenly spaced over the chosen ones (default: '
        + ', '.join(f'{name} {kind.images or "all"}' for name, kind in KINDS.items())
        + '; attention on sample/shapes all)')
    parser.add_argument(
        '--group', choices=[*GROUPS, 'all'], help='classes whose images are taken (default: feature-rank few, if there '
        'are any, else all)')
    parser.add_argument('--threshold', type=_share, metavar='X', help='feature-rank: share of the variance [0.99]')
    parser.add_argument('--mass', type=_share, metavar='X', help='attention: share of it inside the outline [0.6]')
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f'expected a whole number from 1 on, got {text!r}')
    return int(text)


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f'expected a share over 0 and at most 1, got {text!r}')
    return value


def check_kind(given: Dict[str, Any]) -> str:
    """Return the kind; raises UserError for an unknown one, and for flags that it does not have."""
    kind = given['kind']
    if kind not in ALL:
        raise UserError(f'Unknown kind {kind!r}{nearest(kind, ALL)}; there are: {", ".join(ALL)}.')
    for flag, goes_with in (('threshold', ('feature-rank',)), ('mass', ('attention', 'overlap'))):
        if flag in given and kind not in goes_with:
            raise UserError(f'--{flag} goes with {" and ".join(goes_with)}, not with {kind}.')
    if kind == 'divergence':
        others = [f'--{dest.replace("_", "-")}' for dest in given if dest not in ('kind', 'model', 'output')]
        if others:
            raise UserError(f'divergence reads the history of a run and shows it no images: leave out {others[0]}.')
    if kind == 'reconstruction' and 'img_size' in given:
        raise UserError('--img-size does not go with reconstruction: the decoder knows one size.')
    if 'output' not in given:
        raise UserError(f'Where to? Name a folder for {kind}.png and {kind}.csv with --output FOLDER.')
    return kind


def check_model(kind: str, name: str, model: Any, size: int) -> None:
    """Raise UserError where a kind cannot look into such a model."""
    try:
        patch_grid(model, (size, size))
    except ValueError as error:
        raise UserError(f'{name} cannot be analysed: {error}') from error
    if kind in ('attention', 'overlap') and getattr(model, 'cls_token', None) is None:
        raise UserError(f'{name} has no class token whose attention could be drawn; see attention-distance.')
    if kind in ('tokens', 'experts') and not is_distilled(model):
        raise UserError(f'{name} has no distillation token; {kind} goes with distilled models '
                        '(deit_*_distilled_patch16_224).')


def default_group(kind: str, groups: Dict[str, List[int]], source: ImageSource, notes: List[str]) -> str:
    """Return whose images are taken: of the rare classes for the rank, where it is known which they are."""
    if kind != 'feature-rank':
        return 'all'
    if set(groups.get('few', ())) & set(source.targets.tolist()):
        return 'few'
    notes.append('no image of a class that is known to be rare: the rank is that of all classes')
    return 'all'


def choose(source: ImageSource, group: str, groups: Dict[str, List[int]], number: Optional[int]) -> ImageSource:
    """Return the images of a group of classes, at most `number` of them, evenly spaced over their order."""
    chosen = np.arange(len(source))
    if group != 'all':
        if not groups:
            raise UserError(f'--group {group}: the training counts are not known; name them with --class-stats FILE.')
        chosen = chosen[np.isin(source.targets, groups[group])]
        if not len(chosen):
            raise UserError(f'--group {group}: no image of such a class (--shot-split cuts the groups).')
    if number is not None and number < len(chosen):
        chosen = chosen[np.linspace(0, len(chosen) - 1, number).round().astype(int)]
    return Subset(source, chosen.tolist())


if __name__ == '__main__':
    sys.exit(main())
