"""Look at images before a training: `timm-smalldata doctor DATA`.

Broken files; the same image twice, across splits, under two classes, byte for byte or by what it shows; classes that
splits lack; classes with few images; odd sizes, kinds and brightness; series of names. Nothing is changed.
--deep also names labels that are likely wrong: small models are trained, each without a part of the images, and judge
that part; --runs RUN ... lets finished runs (of --fold) judge. What follows -- are flags of the train command.
Exit code 0: nothing to put right, 1: something is (broken, across splits, two labels, classes differ), 2: no such data.
"""
import argparse
import json
import sys
import tempfile
from argparse import Namespace
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

from PIL import Image

from ..build.sources import find_sources
from ..config.checks import check_contradictions
from ..config.flags import BY_DEST
from ..config.parser import Parser, add_flag, parse_known
from ..config.plan import plan
from ..config.settings import Settings
from ..data.findings import Finding, find_all
from ..data.pixels import PixelRule
from ..data.source import ImageSource
from ..data.survey import Survey, survey
from ..errors import UserError
from ..report.doctor import counts, format_findings, page
from ..utils.command import as_typed, typed
from ..utils.console import Voice, answer, print_safely
from ..utils.files import write_text_atomic
from . import doctor_deep

FLAGS = ('data_dir', 'dataset', 'train_split', 'val_split', 'test_split', 'folder_labels', 'input_key', 'target_key',
         'split_key', 'image_root', 'alpha', 'grey_range')
DEEP: Dict[str, Any] = dict(deep=False, folds=None, runs=None, output=None, train=[])
FOLDS = 5


def main(argv: Optional[List[str]] = None) -> int:
    """Run the doctor; returns the exit code."""
    return answer(run, argv)


def run(argv: List[str]) -> int:
    """Look, write and print; returns 1 where something is to be put right."""
    given, say = _parse(argv), Voice()
    settings = Settings()
    settings.layer({dest: value for dest, value in given.items() if dest in FLAGS}, 'command line')
    args = settings.namespace()
    if not args.data_dir and not args.dataset:
        raise UserError('Which images? Name them: timm-smalldata doctor DATA, or --dataset NAME.')
    parts, pooled, notes = find_sources(args)
    parts = {'all': parts['train']} if pooled else {role: sources for role, sources in parts.items() if sources}
    for note in notes:
        say(f'note: {note}')
    number = sum(len(source) for sources in parts.values() for source in sources)
    if not number:
        raise UserError(f'No images found in {args.data_dir or args.dataset}.')
    seen = survey(parts, PixelRule.of(args), say.bar(number, 'looking at images'))
    deep, facts = _deep(given, parts, seen, say)
    found = find_all(seen, given.get('least', 10), say.bar(number, 'comparing images'), deep)
    about = str(args.data_dir or args.dataset)
    if 'html' in given:
        places: Dict[Tuple[str, str], Tuple[Any, int]] = {
            (role, name): (source, i) for role, sources in parts.items() for source in sources
            for i, name in enumerate(source.names)}
        _write(given['html'], page(found, f'{about}: what the doctor found', lambda entry: _picture(places, entry)))
        say(f'page: {given["html"]}')
    if 'json' in given:
        print_safely(json.dumps(dict(
            data=about, num_images=number, num_classes=len(set(seen.labels)), counts=counts(found),
            errors=sum(finding.is_error for finding in found), notes=notes, deep=facts,
            findings=[finding.to_dict() for finding in found]), indent=2))
    else:
        print_safely(format_findings(found, number, len(set(seen.labels))))
        if facts is not None:
            print_safely(doctor_deep.words_on(facts))
    return int(any(finding.is_error for finding in found))


def create_parser() -> argparse.ArgumentParser:
    """Return the parser; flags that were not given are absent from its result."""
    parser = Parser(
        typed('doctor'), usage='%(prog)s DATA [flags]', description=as_typed(__doc__), allow_abbrev=False,
        argument_default=argparse.SUPPRESS, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('data', nargs='?', metavar='DATA', help='the same as --data-dir')
    parser.add_argument('--json', action='store_true', help='print all findings as JSON')
    parser.add_argument('--html', metavar='FILE', help='write one page with small pictures')
    parser.add_argument('--least', type=int, metavar='N', help='name classes with fewer training images [10]')
    parser.add_argument('--deep', action='store_true', help='also look for wrong labels, with models that are trained')
    parser.add_argument('--folds', type=int, metavar='K', help=f'how many of them, each without a K-th [{FOLDS}]')
    parser.add_argument('--runs', nargs='+', type=Path, metavar='RUN', help='with the models of these runs instead')
    parser.add_argument('--output', type=Path, metavar='DIR', help='keep the trained models here; again, it goes on')
    for dest in FLAGS:
        add_flag(parser, BY_DEST[dest])
    return parser


def _parse(argv: List[str]) -> Dict[str, Any]:
    cut = argv.index('--') if '--' in argv else len(argv)
    given = parse_known(create_parser(), argv[:cut])
    given['train'] = argv[cut + 1:]
    doctor_deep.check_deep(Namespace(**{**DEEP, **given}))
    check_contradictions({dest: value for dest, value in given.items() if dest in FLAGS}, 'command line')
    return given


def _deep(
        given: Dict[str, Any], parts: Dict[str, List[ImageSource]], seen: Survey, say: Voice,
) -> Tuple[List[Finding], Optional[Dict[str, Any]]]:
    """Return the labels that are likely wrong, and what they were judged by; nothing where that is not asked for."""
    if not (given.get('deep') or given.get('runs')):
        return [], None
    places = [(source, i) for sources in parts.values() for source in sources for i in range(len(source))]
    device = plan(given['train'])[-1].settings.get('device')
    if given.get('runs'):
        return doctor_deep.judge_labels(given['runs'], seen, places, device, say)
    with tempfile.TemporaryDirectory() as temporary:
        data = {dest: value for dest, value in given.items() if dest in FLAGS}
        output = given.get('output') or Path(temporary)
        runs = doctor_deep.train_folds(data, given.get('folds', FOLDS), given['train'], len(seen), output, say)
        return doctor_deep.judge_labels(runs, seen, places, device, say)


def _picture(places: Dict[Tuple[str, str], Tuple[Any, int]], entry: Dict[str, str]) -> Optional[Image.Image]:
    source, index = places[entry['split'], entry['name']]
    try:
        return source.read(index)[0]
    except Exception:  # broken: it is named without a picture
        return None


def _write(path: str, text: str) -> None:
    try:
        write_text_atomic(Path(path), text)
    except OSError as error:
        raise UserError(f'--html {path}: {error.strerror or error}.') from error


if __name__ == '__main__':
    sys.exit(main())
