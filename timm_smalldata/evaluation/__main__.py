"""The report of training for any finished model on any images: `timm-smalldata eval MODEL [DIR]`.

Without images, a run is judged again on its own test split: the numbers of its `report.json`. Nothing is held out: a
folder without splits is evaluated whole. Classes are matched by name.
"""
import argparse
import json
import sys
import tempfile
from argparse import Namespace
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import numpy as np
import timm
import torch
from timm.data import resolve_data_config
from timm.models import load_state_dict, resolve_model_input_args

from .. import checkpoint
from ..args import Settings, _key_value, _Parser, fail, load_config
from ..build import check_model, create_model, data_config, resolve_device
from ..data import roles
from ..data.cache import scan
from ..data.classes import ClassInfo, _listed, check_same_classes
from ..data.loader import create_loader
from ..data.readers import read_class_map, relabel
from ..data.sampler import SequentialSampler
from ..data.source import ImageSource, Joined, Subset
from ..data.split import _read_json
from ..data.views import eval_view
from ..distributed import World
from ..engine import evaluate
from ..errors import UserError, nearest
from ..files import write_csv_atomic
from ..flags import BY_DEST, FLAGS
from ..hub import CONFIG, KEY, find_model
from ..presets import check_contradictions
from ..report import build_report, format_report, write_report
from ..task import ClassificationTask
from ..tracking import Voice
from .shot_groups import parse_shot_split

SHARED = (  # flags with the name and meaning that they have in training
    'data_dir', 'dataset', 'class_map', 'class_stats', 'folder_labels', 'input_key', 'target_key', 'split_key',
    'image_root', 'on_bad_image', 'dataset_download', 'dataset_trust_remote_code', 'cache_dir', 'cache_size',
    'shot_split', 'model_kwargs', 'img_size', 'crop_pct', 'batch_size', 'device', 'workers')
HELP = dict(
    data_dir='folder, tar, CSV or list file with the images (a run knows its own)',
    class_map='text file with one class name per line: names of the model\'s outputs, in their order',
    class_stats='JSON with the training counts (timm format) that make many/medium/few',
    shot_split='many/medium/few: counts:100,20 or index:a,b (default: that of the training)',
    cache_dir='where decoded images are kept (default: a temporary folder)',
    img_size='side of the images in pixels (default: the model\'s)',
    crop_pct='share of the resized image that is kept (default: the model\'s)',
    batch_size='images per step',
    model_kwargs='constructor arguments for a plain model name with --checkpoint',
)


@dataclass
class Judged:
    """A finished model and what is known of it.

    Attributes:
        model: The model, with its weights.
        config: Preprocessing, in timm's terms.
        names: Names of its outputs, if it brought them.
        ours: What our training said of it: training counts, their cuts, the data hash.
        run: The run folder that it lies in.
        epoch: Epoch of the weights.
    """
    model: Any
    config: Dict[str, Any]
    names: Optional[List[str]] = None
    ours: Dict[str, Any] = field(default_factory=dict)
    run: Optional[Path] = None
    epoch: Optional[int] = None


def main(argv: Optional[List[str]] = None) -> int:
    """Run the eval command; returns the exit code (2: the user can put it right)."""
    try:
        run(list(sys.argv[1:] if argv is None else argv))
        return 0
    except UserError as error:
        return fail(error)


def run(argv: List[str]) -> Dict[str, Any]:
    """Evaluate, write and print; returns the report."""
    given = parse(argv)
    say = Voice()
    output = _output(given.pop('output', None))
    judged = load_model(given['model'], given.get('checkpoint'), given)
    own = not ('data_dir' in given or 'dataset' in given)
    if own and judged.run is None:
        raise UserError('Which images? Name them with --data-dir FOLDER or --dataset NAME (only a run knows its own).')
    args = _settings(given, judged, own)
    device = resolve_device(args.device)
    view = eval_view(_side(judged.config), judged.config['crop_pct'], judged.config['interpolation'],
                     judged.config['mean'], judged.config['std'])
    if judged.config.get('crop_mode', 'center') != 'center':
        say(f"the model was published with crop mode {judged.config['crop_mode']}; here the centre is cut")

    with tempfile.TemporaryDirectory(prefix='timm-smalldata-', ignore_cleanup_errors=True) as temporary:
        args.cache_dir = args.cache_dir or (_kept_cache(judged) if own else None) or temporary
        if own:
            sources, split, wanted = run_images(args, judged.run, given.get('split'))
        else:
            sources, split, wanted = named_images(args, given.get('split'), say)
        names = class_names(args, judged, sources, say)
        where = f'{args.data_dir or args.dataset}, split {split}'
        source = decode(args, sources[split], wanted, names, where, view.size, output, say)
        _warn_of_training_images(judged, source, say)
        counts = training_counts(args, judged, names, say)
        shot_split = args.shot_split or judged.ours.get('shot_split') or 'counts:100,20'
        groups = parse_shot_split(shot_split, counts) if counts else {}
        task = ClassificationTask(
            judged.model, criterion=torch.nn.CrossEntropyLoss(), device=device, verbose=False,
        ).configure(classes=ClassInfo(names, counts or [0] * len(names)), groups=groups)
        loader = create_loader(
            source, SequentialSampler(len(source)), [view], given.get('batch_size') or args.validation_batch_size or 64,
            device=device, workers=args.workers or 0, channels_last=args.channels_last)
        evaluator = evaluate(task, loader, model=judged.model.to(device).float())[1]['logits']

    classes = ClassInfo(names, counts or [], judged.ours.get('data_hash', ''))
    before = _run_report(judged) if own else {}
    report = build_report(
        evaluator, classes, groups, split=split, selected_on=before.get('selected_on'),
        epoch=before.get('epoch', judged.epoch), shot_split=shot_split if counts else 'training counts unknown',
        extra=dict(
            {key: before[key] for key in ('select', 'eval_metric') if key in before},
            model=given['model'], data=str(args.data_dir or args.dataset)))
    if not counts:
        report['groups'] = None
    if output is not None:
        write_report(output, report, evaluator, classes, groups)
    text = json.dumps(report, indent=2) if given.get('json') else format_report(report)
    encoding = sys.stdout.encoding or 'utf-8'
    print(text.encode(encoding, 'backslashreplace').decode(encoding))  # a terminal without the letters of a class name
    return report


# --- the command line -----------------------------------------------------------------------------------------------

def create_parser() -> argparse.ArgumentParser:
    """Return the parser; flags that were not given are absent from its result."""
    parser = _Parser(
        'timm-smalldata eval', usage='%(prog)s MODEL [DIR] [flags]', description=__doc__, allow_abbrev=False,
        argument_default=argparse.SUPPRESS, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('model', metavar='MODEL', help='run folder, model folder, local-dir:FOLDER, hf-hub:owner/name or a timm model name')
    parser.add_argument('data', nargs='?', metavar='DIR', help='the same as --data-dir')
    parser.add_argument('--checkpoint', metavar='FILE', help='weights for a plain timm model name (default: its pretrained ones)')
    parser.add_argument('--split', metavar='NAME', help='train, val, test, all, or your own name of one (default: test if there is one, else val, else all)')
    parser.add_argument('--output', metavar='DIR', help='folder for report.json, per_class.csv and confusion.csv')
    parser.add_argument('--json', action='store_true', help='print the report as JSON instead of the table')
    for dest in SHARED:
        flag = BY_DEST[dest]
        names = ([f'-{flag.short}'] if flag.short else []) + [f'--{flag.name}']
        text = HELP.get(dest, flag.help)
        if flag.type is bool:
            parser.add_argument(*names, action='store_true', help=text)
        elif flag.type is dict:
            parser.add_argument(*names, nargs='*', type=_key_value, metavar='K=V', help=text)
        else:
            parser.add_argument(*names, type=flag.type, choices=flag.choices, help=text, metavar=None if flag.choices else (
                flag.metavar or {int: 'N', float: 'X'}.get(flag.type, 'NAME')))
    return parser


def parse(argv: List[str]) -> Dict[str, Any]:
    """Parse the command line to what was given."""
    parser = create_parser()
    namespace, unknown = parser.parse_known_args(argv)
    given = vars(namespace)
    if unknown:
        word = unknown[0].split('=')[0]
        known = [f'--{BY_DEST[dest].name}' for dest in SHARED] + ['--checkpoint', '--split', '--output', '--json']
        raise UserError(f'Unknown flag {word}{nearest(word, known)}; --help lists them all.')
    if 'data' in given:
        if 'data_dir' in given:
            raise UserError('The data folder was given twice: as DIR and as --data-dir.')
        given['data_dir'] = given.pop('data')
    if 'model_kwargs' in given:
        given['model_kwargs'] = dict(given['model_kwargs'])
    check_contradictions(given, 'command line')
    return given


def _settings(given: Dict[str, Any], judged: Judged, own: bool) -> Namespace:
    """Return all flags: those given, then of a run its batches and, if they are its images, where they come from."""
    settings = Settings()
    settings.layer({dest: value for dest, value in given.items() if dest in BY_DEST}, 'command line')
    if judged.run is not None:
        kept = {'channels_last', 'validation_batch_size'}
        if own:
            kept |= {flag.dest for flag in FLAGS if flag.group == 'Your images'} | {'train_img_sizes'}
            kept -= {'class_map', 'class_stats'}  # the model knows its classes
        values = load_config(str(judged.run / 'args.yaml'))
        settings.layer({dest: value for dest, value in values.items() if dest in kept}, 'the run')
    settings.values['allow_missing_classes'] = True
    args = settings.namespace()
    args.world = World()
    return args


def _output(path: Optional[str]) -> Optional[Path]:
    if path is None:
        return None
    folder = Path(path)
    if (folder / 'args.yaml').exists():
        raise UserError(f'--output {path} is the folder of a run, whose own report would be lost: name another one.')
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f'--output {path}: {error.strerror}.') from error
    return folder


# --- the model ------------------------------------------------------------------------------------------------------

def load_model(name: str, file: Optional[str] = None, given: Optional[Dict[str, Any]] = None) -> Judged:
    """Load a finished model.

    Args:
        name: Run folder, model folder, `local-dir:FOLDER`, `hf-hub:owner/name` or a timm model name.
        file: Weights for a timm model name, in place of its pretrained ones.
        given: `model_kwargs`, `img_size` and `crop_pct`, if the user gave them.

    Raises:
        UserError: There is no such model, or it gives no class scores.
    """
    given = given or {}
    kind, _, rest = name.partition(':')
    remote = kind in ('hf-hub', 'hf_hub')
    folder = None
    if kind == 'local-dir' or Path(name).is_dir():
        folder = Path(rest if kind == 'local-dir' else name)
        folder = folder if (folder / CONFIG).is_file() else find_model(folder)
        name = f'local-dir:{folder}'
    elif not remote:
        if any(mark in name for mark in '/\\:') or Path(name).exists():
            raise UserError(f'{name} is neither a folder with a model nor a timm model name; a model on the hub is '
                            'hf-hub:owner/name, a file of weights goes with MODEL --checkpoint FILE.')
        check_model(name)
    if file is not None:
        if remote or folder is not None:
            raise UserError(f'--checkpoint goes with a plain timm model name; {given.get("model", name)} has weights of its own.')
        judged = _with_checkpoint(name, Path(file), given)
    else:
        size = {'img_size': given['img_size']} if 'img_size' in given else {}
        try:
            model = timm.create_model(
                **resolve_model_input_args(name, size, **given.get('model_kwargs', {})), pretrained=True)
        except Exception as error:  # whatever timm, torch and the hub's client raise; the message says what is missing
            raise UserError(f'{name} cannot be loaded: {error}') from error
        config = resolve_data_config(
            {dest: given[dest] for dest in ('img_size', 'crop_pct') if dest in given}, pretrained_cfg=model.pretrained_cfg)
        judged = Judged(model, config, model.pretrained_cfg.get('label_names'))
        if folder is not None:
            judged.ours = json.loads((folder / CONFIG).read_text(encoding='utf-8')).get(KEY, {})
            judged.run = folder.parent if (folder.parent / 'args.yaml').is_file() else None
        elif remote:
            from huggingface_hub import hf_hub_download
            repo, _, revision = rest.partition('@')
            path = hf_hub_download(repo, CONFIG, revision=revision or None)
            judged.ours = json.loads(Path(path).read_text(encoding='utf-8')).get(KEY, {})
    outputs = judged.model.num_classes
    if not outputs:
        raise UserError(f'{name} gives features, no class scores: there is no accuracy to measure.')
    if judged.names and len(judged.names) != outputs:
        raise UserError(f'{name} has {outputs} outputs, but {len(judged.names)} label_names.')
    return judged


def _with_checkpoint(name: str, path: Path, given: Dict[str, Any]) -> Judged:
    """Build a plain timm model and load weights from a file; a checkpoint of ours says how it was built."""
    if not path.is_file():
        raise UserError(f'No such file: {path} (--checkpoint).')
    try:
        weights = load_state_dict(str(path))
    except Exception as error:  # a torn file shows as one of many kinds
        raise UserError(f'--checkpoint {path} cannot be read: {error}') from error
    try:
        saved = checkpoint.load(path)
    except UserError:  # weights alone
        saved = {}
    if 'classes' in saved:
        if saved['arch'] != name:
            raise UserError(f'--checkpoint {path} is of {saved["arch"]}, not of {name}.')
        args = saved['args']
        args.pretrained, args.pretrained_path, args.initial_checkpoint = False, None, None
        for dest in ('model_kwargs', 'img_size', 'crop_pct'):
            setattr(args, dest, given.get(dest, getattr(args, dest)))
        classes = ClassInfo.from_dict(saved['classes'])
        model: Any = create_model(args, classes.names)
        judged = Judged(model, data_config(args, model), classes.names, epoch=saved['epoch'], ours=dict(
            class_counts=classes.counts, data_hash=classes.data_hash, shot_split=args.shot_split))
    else:
        cfg: Any = timm.get_pretrained_cfg(name)
        head = cfg.classifier[0] if isinstance(cfg.classifier, (tuple, list)) else cfg.classifier
        outputs = len(weights[f'{head}.weight']) if f'{head}.weight' in weights else cfg.num_classes
        size = {'img_size': given['img_size']} if 'img_size' in given else {}
        try:
            model = timm.create_model(**resolve_model_input_args(
                name, size, num_classes=outputs, **given.get('model_kwargs', {})))
        except (TypeError, AssertionError, RuntimeError, ValueError) as error:
            raise UserError(f'{name} cannot be built: {error}') from error
        judged = Judged(model, resolve_data_config(
            {dest: given[dest] for dest in ('img_size', 'crop_pct') if dest in given}, pretrained_cfg=model.pretrained_cfg))
    try:
        judged.model.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(f'--checkpoint {path} does not fit {name} (see --model-kwargs): {error}') from error
    return judged


def _side(config: Dict[str, Any]) -> int:
    _, height, width = config['input_size']
    if height != width:
        raise UserError(f'The model takes images of {height} x {width}; only squares are evaluated here: name one with --img-size.')
    return height


def class_names(args: Namespace, judged: Judged, parts: Dict[str, List[ImageSource]], say: Voice) -> List[str]:
    """Return the names of the model's outputs: from `--class-map`, the model, or last the order of the data."""
    outputs = judged.model.num_classes
    if args.class_map:
        names = read_class_map(args.class_map, args.data_dir)
        if len(names) != outputs:
            raise UserError(f'--class-map {args.class_map} names {len(names)} classes, but the model has {outputs} outputs.')
        return names
    if judged.names:
        return list(judged.names)
    listed = {role: parts.get(role, []) for role in ('train', 'val', 'test')}
    listed['train'] = listed['train'] or [source for sources in parts.values() for source in sources]
    names = roles._class_list(args, listed)
    if len(names) != outputs:
        raise UserError(
            f'The model has {outputs} outputs without names, the data {len(names)} classes ({_listed(names)}): name the '
            'outputs in their order with --class-map FILE.')
    say(f"the model names no classes: the order of the data is assumed ({_listed(names, 8)})")
    return names


def training_counts(args: Namespace, judged: Judged, names: List[str], say: Voice) -> Optional[List[int]]:
    """Return the training images of each class: from `--class-stats`, else from the model; None if nobody knows."""
    counts = judged.ours.get('class_counts')
    if args.class_stats:
        if counts:
            say(f'training counts from --class-stats {args.class_stats} instead of those that the model carries')
        counts = roles._read_class_stats(args.class_stats, len(names)).tolist()
        told = json.loads(Path(args.class_stats).read_text(encoding='utf-8')).get('class_names')
        if told and list(told) != names:
            if sorted(told) != sorted(names):
                raise UserError(f'--class-stats {args.class_stats} is about other classes: {_listed(told)}. '
                                f'The model has: {_listed(names)}.')
            by_name = dict(zip(told, counts))
            counts = [by_name[name] for name in names]
    if not counts or len(counts) != len(names):
        say('training counts are not known: many, medium and few stay empty (--class-stats FILE names them)')
        return None
    return list(counts)


# --- the images -----------------------------------------------------------------------------------------------------

Found = Tuple[Dict[str, List[ImageSource]], str, Optional[List[str]]]


def named_images(args: Namespace, split: Optional[str], say: Voice) -> Found:
    """Find the images that the user names, all splits that are there; returns them, the chosen split and None."""
    data = args.data_dir or args.dataset
    kind = str(args.dataset or '').partition('/')[0]
    own_name = split not in (None, 'all', *roles._ROLES)
    try:
        if own_name or (kind in ('torch', 'hfds') and split not in (None, 'all')):
            parts = {split: _read(args, split)}
        elif kind == 'hfds':
            raise UserError(f'--dataset {args.dataset}: name the split to evaluate, e.g. --split test.')
        else:
            parts = _splits(args, say)
    except UserError as error:
        raise UserError(str(error).replace('--train-split', '--split')) from error
    parts = {role: sources for role, sources in parts.items() if sources}
    if split is None:
        split = next((role for role in ('test', 'val') if role in parts), 'all')
    if split == 'all':
        parts['all'] = [source for sources in parts.values() for source in sources]
    if split not in parts:
        raise UserError(f'{data} has no {split} split; it has: {", ".join(parts)}. '
                        'Without --split the test split is taken, or else val, or else everything.')
    if split == 'all' or kind in ('torch', 'hfds'):
        say(f'evaluating {split}: {sum(map(len, parts[split]))} images')
    return parts, split, None


def _read(args: Namespace, name: Optional[str]) -> List[ImageSource]:
    """Read one split alone, as if it were the training split: nothing else has to be there."""
    return roles._find(Namespace(**{**vars(args), 'train_split': name}))[0]['train']


def _splits(args: Namespace, say: Voice) -> Dict[str, List[ImageSource]]:
    """Return all splits of a folder or table; here they need no training split among them."""
    try:
        parts, pooled, notes = roles._find(args)
    except UserError:
        alone = {}
        for role in ('test', 'val'):
            for name in roles.SYNONYMS[role]:
                try:
                    alone.setdefault(role, _read(args, name))
                except UserError:
                    continue
        if not alone:
            raise
        return alone
    for note in notes:
        say(f'note: {note}')
    return {'all': parts['train']} if pooled else parts


def run_images(args: Namespace, folder: Any, split: Optional[str]) -> Found:
    """Find the images of a run's own split; returns their sources, the split and the names of the images."""
    listed = _read_json(str(folder / 'split.json'), 'split')['split']
    if split is None:
        split = next((role for role in ('test', 'val') if role in listed), 'all')
    names = [name for names in listed.values() for name in names] if split == 'all' else listed.get(split)
    if names is None:
        raise UserError(f'The run in {folder} has no {split} split; it has: {", ".join(listed)}.')
    wanted = set(names)
    parts = roles._find(args)[0]
    sources = [source for found in parts.values() for source in found if wanted.intersection(source.names)]
    missing = wanted.difference(*(source.names for source in sources))
    if missing:
        raise UserError(f'{len(missing)} of the {len(wanted)} images of the split {split} are no longer in '
                        f'{args.data_dir or args.dataset}; the first: {min(missing)}.')
    return {split: sources}, split, names


def decode(
        args: Namespace, sources: List[ImageSource], wanted: Optional[List[str]], names: List[str], where: str, size: int,
        output: Optional[Path], say: Voice,
) -> ImageSource:
    """Put the images under the model's classes and decode them once, as training does; bad ones stop or are left out."""
    chosen = None if wanted is None else set(wanted)
    present = [
        source.classes[c] for source in sources for c in np.unique(
            [target for name, target in zip(source.names, source.targets) if chosen is None or name in chosen])]
    check_same_classes(names, sorted(set(present), key=present.index), where)
    absent = [name for name in names if name not in set(present)]
    if absent:
        say(f"{len(absent)} of the model's {len(names)} classes have no image here: {_listed(absent, 8)}")
    sources = [relabel(source, names) for source in sources]
    total = sum(map(len, sources))
    bar = say.bar(total, 'reading files')
    scans = [scan(source, bar) for source in sources]
    bar = say.bar(total, 'decoding')
    bad: Dict[str, str] = {}
    size = max([size, *(args.train_img_sizes or [])])
    cached = [roles._decoded(args, source, scanned, size, bar, bad) for source, scanned in zip(sources, scans)]
    if bad:
        first, reason = next(iter(bad.items()))
        if args.on_bad_image == 'stop':
            raise UserError(f'{len(bad)} image{"s" * (len(bad) > 1)} cannot be read: {first}: {reason}. '
                            'Repair or remove it, or leave such files out with --on-bad-image skip.')
        say(f'{len(bad)} bad image{"s" * (len(bad) > 1)} left out, the first: {first}: {reason}')
        if output is not None:
            write_csv_atomic(output / 'bad_images.csv', ['image', 'reason'], bad.items())
    whole = Joined(cached)
    if chosen is not None:
        whole = Subset(whole, [i for i, name in enumerate(whole.names) if name in chosen])
    if not len(whole):
        raise UserError(f'No readable image in {where}.')
    return whole


def _warn_of_training_images(judged: Judged, source: ImageSource, say: Voice) -> None:
    if judged.run is None or not (judged.run / 'split.json').is_file():
        return
    trained = set(_read_json(str(judged.run / 'split.json'), 'split')['split'].get('train', ()))
    shared = sum(name in trained for name in source.names)
    if shared:
        say(f'{shared} of the {len(source)} images have the names of images that the model was trained on: '
            'this is no estimate for new images')


def _kept_cache(judged: Judged) -> Optional[str]:
    """Return the folder of decoded images that the run left, if it is still there."""
    assert judged.run is not None
    return next((str(p / '.cache') for p in list(judged.run.resolve().parents)[:2] if (p / '.cache').is_dir()), None)


def _run_report(judged: Judged) -> Dict[str, Any]:
    path = judged.run / 'report.json' if judged.run is not None else None
    return json.loads(path.read_text(encoding='utf-8')) if path is not None and path.is_file() else {}


if __name__ == '__main__':
    sys.exit(main())
