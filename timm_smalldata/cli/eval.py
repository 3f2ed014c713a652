"""The report that ends a training, for any finished model on any images: `timm-smalldata eval MODEL [DIR]`.

Without images, a run is judged again on its own test split: the numbers of its report.json. Nothing is held out: a
folder without splits is evaluated whole. Classes are matched by name.
"""
import argparse
import json
import shlex
import sys
import tempfile
from argparse import Namespace
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional

import numpy as np
import torch

from ..build import eval_sources
from ..build.eval_images import called, find_images, loose_images
from ..build.judge import create_probe, create_trained_probe
from ..build.loaders import eval_loader
from ..build.model import check_head
from ..build.sources import Parts
from ..build.trained import TrainedModel
from ..config.fit import prior_lines
from ..config.late_checks import check_posthoc, wants_posthoc
from ..config.parser import Parser
from ..config.yaml_file import load_config
from ..data.classes import ClassInfo
from ..data.source import ImageSource
from ..data.views import eval_view
from ..engine.evaluate import Judge
from ..engine.posthoc import run_posthoc
from ..engine.probe import ProbeJudge
from ..engine.tokens import BlockFeatures
from ..errors import UserError
from ..evaluation.ranking import KeepScores, ranking_metrics
from ..evaluation.shot_groups import auto_shot_split, parse_shot_split
from ..report.assemble import build_report, headlines, write_report
from ..report.table import format_report
from ..task import ClassificationTask
from ..utils.command import as_typed, typed
from ..utils.command import command as command_of
from ..utils.console import Voice, answer, print_safely
from ..utils.device import resolve_device
from ..utils.distributed import World
from ..utils.files import write_csv_atomic
from . import model_flags, probing
from .copies import copies, format_copies
from .landmarks import format_landmarks, landmarks
from .retrieval import PICTURE, format_retrieval, retrieve
from .video import format_video, video

PUBLISHED = dict(landmarks=(landmarks, format_landmarks), copies=(copies, format_copies), video=(video, format_video))
_OF_THE_RUN = ('select', 'eval_metric', 'duplicates_across_splits', 'collapse')  # what the images do not tell


def main(argv: Optional[List[str]] = None) -> int:
    """Run the eval command; returns the exit code (2: the user can put it right)."""
    return answer(run, argv)


def run(argv: List[str]) -> Dict[str, Any]:
    """Evaluate, write and print; returns the report."""
    given, say = model_flags.parse(create_parser(), argv), Voice()
    output = model_flags.make_output(given['output']) if 'output' in given else None
    if given.get('probe') in PUBLISHED:
        judge_folder, format_found = PUBLISHED[given['probe']]
        found = judge_folder(given, output, say)
        print_safely(json.dumps(found, indent=2) if 'json' in given else format_found(found))
        return found
    trained, own = model_flags.load(given, scores=False)
    args = model_flags.settings(given, trained, own, 'eval')
    probed = probing.is_probed(given, args, trained, own)
    device = resolve_device(args.device)
    if args.probe == 'retrieval':
        found = retrieve(args, trained, own, given.get('split'), device, output, say)
        print_safely(json.dumps(found, indent=2) if 'json' in given else format_retrieval(found))
        say('' if output is None else f'picture: {output / PICTURE}')
        return found
    with tempfile.TemporaryDirectory(prefix='timm-smalldata-', ignore_cleanup_errors=True) as temporary:
        args.cache_dir = args.cache_dir or (own and model_flags.kept_cache(own)) or temporary
        notes: List[str] = []
        train = probing.training_images(args, trained, own, given.get('split'), notes, say.bar) if probed else None
        with predict_is_named(given['model'], args, own):
            images = find_images(
                args, trained, own, given.get('split'), notes, say.bar, names=None if train is None else train.classes)
        names, split = images.names, images.split
        counts = images.counts if train is None else np.bincount(train.targets, minlength=len(names)).tolist()
        if trained.config['crop_mode'] != 'center':
            notes.append(f"the model's crop mode is {trained.config['crop_mode']}, but here the centre is cut")
        check_head(args, trained.model)
        val = validation_images(args, own, images.parts, split, names, counts, notes, say)
        _note_prior(args, trained, notes)
        for note in notes:
            say(f'note: {note}')

        shot_split = args.shot_split or trained.training.get('shot_split') or 'counts:100,20'
        shot_split = auto_shot_split(counts) if counts and shot_split == 'auto' else shot_split
        groups = parse_shot_split(shot_split, counts) if counts else {}
        model = trained.model.to(device).float()
        task = ClassificationTask(model, criterion=torch.nn.CrossEntropyLoss(), device=device, verbose=False).configure(
            classes=ClassInfo(names, counts or [0] * len(names)), groups=groups)
        config = trained.config
        view = eval_view(args.img_size, config['crop_pct'], config['interpolation'], config['mean'], config['std'])
        loader = eval_loader(args, images.source, view, World(), device)
        assert loader is not None
        beside: Dict[str, Any] = {}
        judge = Judge(task)
        if train is not None:
            model.reset_classifier(0)
            judge = ProbeJudge(task, create_trained_probe(
                args, train, view, device, say.bar, **probing.lengths(given)
            ) if args.probe in probing.TRAINED else create_probe(args, train, view, World(), device))
        seen = BlockFeatures(model) if args.probe == 'linear-dino' else model
        scores = KeepScores()
        evaluators = judge.judge(  # all that the report of the run has
            loader, seen, final='probe' not in given, watch=scores)[1]
        beside.update(judge.describe(), **ranking_metrics(scores.parts, groups))
        evaluator = next(iter(evaluators.values()))
        if len(evaluators) > 1:
            beside['predictions'] = headlines(evaluators)
        if wants_posthoc(args):
            val_loader = eval_loader(args, val, view, World(), device)
            beside['posthoc'] = run_posthoc(
                task, model, loader, val_loader, counts or [], posthoc_tau=args.posthoc_tau, tau_norm=args.tau_norm,
                temperature=args.temperature)

    classes = ClassInfo(names, counts or [], trained.training.get('data_hash', ''))
    before = _read_report(own)
    report = build_report(
        evaluator, classes, groups, split=split, selected_on=before.get('selected_on'),
        epoch=before.get('epoch', trained.epoch), shot_split=shot_split if counts else 'training counts unknown',
        extra=dict({key: before[key] for key in _OF_THE_RUN if key in before},
                   model=given['model'], data=str(args.data_dir or args.dataset), **beside))
    if not counts:
        report['groups'] = None
    if probed:
        report['loss'] = None
    if output is not None:
        write_report(output, report, evaluator, classes, groups)
        if images.bad:
            write_csv_atomic(output / 'bad_images.csv', ['image', 'reason'], images.bad.items())
    print_safely(json.dumps(report, indent=2) if 'json' in given else format_report(report))
    return report


def create_parser() -> argparse.ArgumentParser:
    """Return the parser; flags that were not given are absent from its result."""
    parser = Parser(
        typed('eval'), usage='%(prog)s MODEL [DIR] [flags]', description=as_typed(__doc__), allow_abbrev=False,
        argument_default=argparse.SUPPRESS, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--output', metavar='DIR', help='folder for report.json, per_class.csv and confusion.csv')
    parser.add_argument('--json', action='store_true', help='print the report as JSON instead of the table')
    probing.add_flags(parser)
    model_flags.add_flags(parser, 'eval', probe=probing.KINDS)
    return parser


@contextmanager
def predict_is_named(model: str, args: Namespace, own: Optional[Path]) -> Iterator[None]:
    """Name the verb for images without labels, where such images are why nothing can be judged."""
    try:
        yield
    except UserError as error:
        if own is not None or not args.data_dir or loose_images(args.data_dir) is None:
            raise
        command = shlex.join([*command_of('predict'), model, args.data_dir])
        raise UserError(f'{error} What the model says of images without labels: {command}') from error


def validation_images(
        args: Namespace, own: Optional[Path], parts: Parts, split: str, names: List[str], counts: Optional[List[int]],
        notes: List[str], say: Voice,
) -> Optional[ImageSource]:
    """Return the images that a temperature is fitted on: the split val of the run or of the data; None without one.

    Raises:
        UserError: There is no such split, it is the one to judge, or another tool lacks something.
    """
    wanted, has_val = None, 'val' in (parts if own is None else eval_sources.names_by_role(own))
    remedy = 'give the data a split val and judge another one (--split NAME)'
    check_posthoc(args, split, has_val, remedy, counts)
    if not args.temperature:
        return None
    if own is not None:
        parts, _, wanted = eval_sources.run_images(args, own, 'val')
    where = called(args, 'val')
    return eval_sources.decoded(args, parts['val'], names, wanted, where, notes, say.bar)[0]


def _note_prior(args: Namespace, trained: TrainedModel, notes: List[str]) -> None:
    """Say so where the training, as far as a run tells of it, has already taken out the prior."""
    if trained.run is not None:
        then = {**vars(args), **load_config(str(trained.run / 'args.yaml')), 'posthoc_tau': args.posthoc_tau}
        notes.extend(prior_lines(Namespace(**then)) if args.posthoc_tau else ())


def _read_report(folder: Optional[Path]) -> Dict[str, Any]:
    path = folder / 'report.json' if folder is not None else None
    return json.loads(path.read_text(encoding='utf-8')) if path is not None and path.is_file() else {}


if __name__ == '__main__':
    sys.exit(main())
