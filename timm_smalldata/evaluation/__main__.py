"""The report that ends a training, for any finished model on any images: `timm-smalldata eval MODEL [DIR]`.

Without images, a run is judged again on its own test split: the numbers of its report.json. Nothing is held out: a
folder without splits is evaluated whole. Classes are matched by name.
"""
import argparse
import json
import sys
import tempfile
from argparse import Namespace
from pathlib import Path
from typing import Any, Dict, List, Optional

import torch

from .. import posthoc
from ..args import Parser, Settings, add_flag, fail, load_config
from ..build import resolve_device
from ..data import judged
from ..data.classes import ClassInfo, listed
from ..data.find import Parts, class_list
from ..data.readers import read_class_map
from ..data.roles import read_class_stats
from ..data.source import ImageSource
from ..data.views import eval_view
from ..distributed import World
from ..engine import evaluate
from ..errors import UserError, nearest
from ..files import write_csv_atomic
from ..finished import Finished, load_finished
from ..flags import BY_DEST, FLAGS
from ..loaders import eval_loader
from ..presets import check_contradictions, prior_lines
from ..report import build_report, format_report, write_report
from ..task import ClassificationTask
from ..tracking import Voice
from .shot_groups import parse_shot_split

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
    'posthoc_tau': '', 'tau_norm': '', 'temperature': 'scale the logits by a temperature fitted on the split val',
    'model_kwargs': '', 'batch_size': 'images per step', 'device': '', 'workers': '',
}
_OF_THE_RUN = ('select', 'eval_metric', 'duplicates_across_splits')  # what the images do not tell


def main(argv: Optional[List[str]] = None) -> int:
    """Run the eval command; returns the exit code (2: the user can put it right)."""
    try:
        run(list(sys.argv[1:] if argv is None else argv))
        return 0
    except UserError as error:
        return fail(error)


def run(argv: List[str]) -> Dict[str, Any]:
    """Evaluate, write and print; returns the report."""
    given, say = parse(argv), Voice()
    output = _make_output(given['output']) if 'output' in given else None
    finished = load_finished(
        given['model'], given.get('checkpoint'), img_size=given.get('img_size'), crop_pct=given.get('crop_pct'),
        model_kwargs=given.get('model_kwargs'))
    named = 'data_dir' in given or 'dataset' in given
    if not named and finished.run is None:
        raise UserError('Which images? Name them: MODEL DIR, or --dataset NAME (only a run knows its own).')
    own = None if named else finished.run  # the run whose own images are judged
    args = settings(given, finished, own)
    device = resolve_device(args.device)
    with tempfile.TemporaryDirectory(prefix='timm-smalldata-', ignore_cleanup_errors=True) as temporary:
        args.cache_dir = args.cache_dir or (own and _kept_cache(own)) or temporary
        notes: List[str] = []
        wanted = None
        if own is None:
            parts, split = judged.named_images(args, given.get('split'), notes)
        else:
            parts, split, wanted = judged.run_images(args, own, given.get('split'))
        names = class_names(args, finished, parts, notes)
        where = f'{args.data_dir or args.dataset} (split {split})'
        source, bad = judged.decoded(args, parts[split], names, wanted, where, notes, say.bar)
        _note_training_images(finished, source.names, notes)
        counts = training_counts(args, finished, names, notes)
        if finished.config['crop_mode'] != 'center':
            notes.append(f"the model's crop mode is {finished.config['crop_mode']}, but here the centre is cut")
        posthoc.check_head(args, finished.model)
        val = validation_images(args, own, parts, split, names, counts, notes, say)
        _note_prior(args, finished, notes)
        for note in notes:
            say(f'note: {note}')

        shot_split = args.shot_split or finished.training.get('shot_split') or 'counts:100,20'
        groups = parse_shot_split(shot_split, counts) if counts else {}
        model = finished.model.to(device).float()
        task = ClassificationTask(model, criterion=torch.nn.CrossEntropyLoss(), device=device, verbose=False).configure(
            classes=ClassInfo(names, counts or [0] * len(names)), groups=groups)
        config = finished.config
        view = eval_view(args.img_size, config['crop_pct'], config['interpolation'], config['mean'], config['std'])
        loader = eval_loader(args, source, view, World(), device)
        assert loader is not None
        evaluator = evaluate(task, loader, model=model)[1][task.predicted[0]]
        beside: Dict[str, Any] = {}
        if posthoc.wanted(args):
            val_loader = eval_loader(args, val, view, World(), device)
            beside = dict(posthoc=posthoc.run_posthoc(args, task, model, loader, val_loader, counts or []))

    classes = ClassInfo(names, counts or [], finished.training.get('data_hash', ''))
    before = _read_report(own)
    report = build_report(
        evaluator, classes, groups, split=split, selected_on=before.get('selected_on'),
        epoch=before.get('epoch', finished.epoch), shot_split=shot_split if counts else 'training counts unknown',
        extra=dict({key: before[key] for key in _OF_THE_RUN if key in before},
                   model=given['model'], data=str(args.data_dir or args.dataset), **beside))
    if not counts:
        report['groups'] = None
    if output is not None:
        write_report(output, report, evaluator, classes, groups)
        if bad:
            write_csv_atomic(output / 'bad_images.csv', ['image', 'reason'], bad.items())
    text = json.dumps(report, indent=2) if 'json' in given else format_report(report)
    encoding = sys.stdout.encoding or 'utf-8'
    print(text.encode(encoding, 'backslashreplace').decode(encoding))  # a terminal without the letters of a class name
    return report


# --- the command line -----------------------------------------------------------------------------------------------

def create_parser() -> argparse.ArgumentParser:
    """Return the parser; flags that were not given are absent from its result."""
    parser = Parser(
        'timm-smalldata eval', usage='%(prog)s MODEL [DIR] [flags]', description=__doc__, allow_abbrev=False,
        argument_default=argparse.SUPPRESS, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        'model', metavar='MODEL', help='run folder, model folder, local-dir:FOLDER, hf-hub:OWNER/NAME or a timm model')
    parser.add_argument('data', nargs='?', metavar='DIR', help='the same as --data-dir')
    parser.add_argument(
        '--checkpoint', metavar='FILE', help='weights for a plain timm model name (default: its pretrained ones)')
    parser.add_argument(
        '--split', metavar='NAME', help='train, val, test, all or your own name of a split (default: test if there is '
        'one, else val, else all)')
    parser.add_argument('--output', metavar='DIR', help='folder for report.json, per_class.csv and confusion.csv')
    parser.add_argument('--json', action='store_true', help='print the report as JSON instead of the table')
    for dest, text in SHARED.items():
        add_flag(parser, BY_DEST[dest], text)
    return parser


def parse(argv: List[str]) -> Dict[str, Any]:
    """Return what was given, by argparse destination."""
    namespace, unknown = create_parser().parse_known_args(argv)
    if unknown:
        word = unknown[0].split('=')[0]
        known = ['--checkpoint', '--split', '--output', '--json', *(f'--{BY_DEST[dest].name}' for dest in SHARED)]
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


def settings(given: Dict[str, Any], finished: Finished, own: Optional[Path]) -> Namespace:
    """Return all flags: those given; of a run its batches and, where its images are judged, where they come from."""
    layers = Settings()
    layers.layer({dest: value for dest, value in given.items() if dest in SHARED}, 'command line')
    _, height, width = finished.config['input_size']
    if height != width:
        raise UserError(f'The model takes images of {height} x {width}; here only squares: see --img-size.')
    layers.layer(dict(img_size=height), 'the model')
    if 'batch_size' in given:
        layers.layer(dict(validation_batch_size=given['batch_size']), 'command line')
    if finished.run is not None:
        kept = {'channels_last', 'validation_batch_size'}
        if own is not None:
            kept |= {flag.dest for flag in FLAGS if flag.group == 'Your images'} | {'train_img_sizes'}
            kept -= {'class_map', 'class_stats'}  # the model knows its classes
        values = load_config(str(finished.run / 'args.yaml'))
        layers.layer({dest: value for dest, value in values.items() if dest in kept}, 'the run')
    layers.layer(dict(validation_batch_size=64), 'default')
    args = layers.namespace()
    args.world, args.allow_missing_classes = World(), True
    return args


def _make_output(path: str) -> Path:
    folder = Path(path)
    if (folder / 'args.yaml').exists():
        raise UserError(f'--output {path} is the folder of a run, whose own report would be lost: name another one.')
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f'--output {path}: {error.strerror}.') from error
    return folder


# --- classes --------------------------------------------------------------------------------------------------------

def class_names(args: Namespace, finished: Finished, parts: Parts, notes: List[str]) -> List[str]:
    """Return the names of the model's outputs: from `--class-map`, else from the model, else the classes of the data.

    Raises:
        UserError: There are not as many names as outputs.
    """
    outputs = finished.model.num_classes
    if args.class_map:
        names = read_class_map(args.class_map, args.data_dir)
        if len(names) != outputs:
            raise UserError(
                f'--class-map {args.class_map} names {len(names)} classes, but the model has {outputs} outputs.')
    elif finished.names:
        names = list(finished.names)
    else:
        everything = [source for sources in parts.values() for source in sources]
        names = class_list(args, dict(train=parts.get('train') or everything, val=[], test=[]))
        if len(names) != outputs:
            raise UserError(
                f'The model has {outputs} outputs without names, the data {len(names)} classes ({listed(names)}): '
                'name the outputs in their order with --class-map FILE.')
        notes.append(f'the model names no classes: the order of the data is assumed ({listed(names, 8)})')
    return names


def training_counts(args: Namespace, finished: Finished, names: List[str], notes: List[str]) -> Optional[List[int]]:
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


def validation_images(
        args: Namespace, own: Optional[Path], parts: Parts, split: str, names: List[str], counts: Optional[List[int]],
        notes: List[str], say: Voice,
) -> Optional[ImageSource]:
    """Return the images that a temperature is fitted on: the split val of the run or of the data; None without one.

    Raises:
        UserError: There is no such split, it is the one to judge, or another tool lacks something.
    """
    wanted, has_val = None, 'val' in (parts if own is None else judged.names_by_role(own))
    remedy = 'give the data a split val and judge another one (--split NAME)'
    posthoc.check_posthoc(args, split, has_val, remedy, counts)
    if not args.temperature:
        return None
    if own is not None:
        parts, _, wanted = judged.run_images(args, own, 'val')
    where = f'{args.data_dir or args.dataset} (split val)'
    return judged.decoded(args, parts['val'], names, wanted, where, notes, say.bar)[0]


# --- what a run left ------------------------------------------------------------------------------------------------

def _note_training_images(finished: Finished, names: List[str], notes: List[str]) -> None:
    if finished.run is not None and (finished.run / 'split.json').is_file():
        trained = set(judged.names_by_role(finished.run).get('train', ()))
        shared = sum(name in trained for name in names)
        if shared:
            notes.append(f'{shared} of the {len(names)} images bear names of images that the model was trained on: the '
                         'result says little about new images')


def _note_prior(args: Namespace, finished: Finished, notes: List[str]) -> None:
    """Say so where the training, as far as a run tells of it, has already taken out the prior."""
    if finished.run is not None:
        trained = {**vars(args), **load_config(str(finished.run / 'args.yaml')), 'posthoc_tau': args.posthoc_tau}
        notes.extend(prior_lines(Namespace(**trained)) if args.posthoc_tau else ())


def _kept_cache(folder: Path) -> Optional[str]:
    """Return the decoded images that a run left in its output folder, if they are still there."""
    return next((str(p / '.cache') for p in list(folder.resolve().parents)[:2] if (p / '.cache').is_dir()), None)


def _read_report(folder: Optional[Path]) -> Dict[str, Any]:
    path = folder / 'report.json' if folder is not None else None
    return json.loads(path.read_text(encoding='utf-8')) if path is not None and path.is_file() else {}


if __name__ == '__main__':
    sys.exit(main())
