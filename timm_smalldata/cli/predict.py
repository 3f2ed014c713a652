"""Say what is on images: `timm-smalldata predict MODEL IMAGES...`.

IMAGES are files, folders (all images below them) or - (one path a line on standard input). The table, CSV or JSON goes
to standard output; images that cannot be read are listed on standard error and stop nothing.
"""
import argparse
import csv
import json
import sys
from typing import Any, Dict, List, Optional, Sequence

from ..build.predict import Prediction, Predictor, find_images, load
from ..config.parser import Parser
from ..errors import UserError
from ..report.table import columns_of, fit, printable
from ..utils.command import as_typed, typed
from ..utils.console import Voice, answer, print_safely
from ..utils.text import as_cell

SHOWN = 20  # bad images that are named one by one
MOST, LEAST = 60, 5  # columns of a path in the table


def main(argv: Optional[List[str]] = None) -> int:
    """Run the predict command; returns the exit code (2: the user can put it right)."""
    return answer(run, argv)


def run(argv: List[str]) -> List[Prediction]:
    """Predict and print; returns the predictions."""
    args, say = parse(argv), Voice()
    paths = [path for word in args.images for path in (_listed() if word == '-' else [word])]
    images = find_images(paths)
    predictor = load(args.model, args.device, args.batch_size, args.workers, args.amp)
    bar = say.bar(len(images), 'images')
    found = predictor.predict(images, args.top_k, args.min_confidence, None if bar is None else bar.update)
    if bar is not None:
        bar.close()
    bad = [p for p in found if p.error is not None]
    if len(bad) == len(found):
        raise UserError(f'No image can be read; the first: {bad[0].path}: {bad[0].error}.')
    if args.json:
        print(json.dumps([as_dict(p) for p in found], indent=2))
    elif args.csv:
        _write_csv(found, min(args.top_k, len(predictor.names)))
    else:
        print_safely(format_predictions(found))
    say(f'note: {calibration_words(predictor)}')
    if args.min_confidence:
        say(f'{sum(p.unsure for p in found)} of {len(found) - len(bad)} images are unsure: below a probability of '
            f'{args.min_confidence:g}')
    for p in bad[:SHOWN]:
        say(f'cannot be read: {p.path}: {p.error}')
    if len(bad) > SHOWN:
        say(f'cannot be read: {len(bad) - SHOWN} more (--csv and --json list all)')
    return found


def parse(argv: List[str]) -> argparse.Namespace:
    """Parse the command line.

    Raises:
        UserError: A flag or a value that there is not.
    """
    parser = Parser(
        typed('predict'), usage='%(prog)s MODEL IMAGES|FOLDER|- ... [flags]', description=as_typed(__doc__),
        allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        'model', metavar='MODEL', help='run folder, model folder, local-dir:FOLDER, hf-hub:OWNER/NAME or a timm model')
    parser.add_argument(
        'images', metavar='IMAGES', nargs='+', help='files, folders, or - for a list of paths on standard input')
    what = parser.add_mutually_exclusive_group()
    what.add_argument('--csv', action='store_true', help='print CSV instead of the table')
    what.add_argument('--json', action='store_true', help='print JSON instead of the table')
    parser.add_argument('--top-k', type=int, default=3, metavar='N', help='how many classes are named [3]')
    parser.add_argument(
        '--min-confidence', type=float, default=0.0, metavar='P',
        help='call a class of less probability (0 to 1) "unsure" [0]')
    parser.add_argument('-b', '--batch-size', type=int, default=64, metavar='N', help='images per step [64]')
    parser.add_argument('-j', '--workers', type=int, default=0, metavar='N', help='processes that read images [0]')
    parser.add_argument('--device', default='auto', help='auto, cpu, cuda, cuda:1, mps [auto]')
    parser.add_argument('--amp', action=argparse.BooleanOptionalAction, default=None,
                        help='compute in bfloat16 (default: where the machine does so in hardware)')
    args = parser.parse_args(argv)
    if args.top_k < 1 or args.batch_size < 1 or args.workers < 0:
        raise UserError('--top-k and --batch-size must be 1 or more, --workers 0 or more.')
    if not 0 <= args.min_confidence <= 1:
        raise UserError(f'--min-confidence {args.min_confidence:g}: a probability lies between 0 and 1.')
    return args


def _listed() -> List[str]:
    paths = [line.rstrip('\r\n') for line in sys.stdin]
    return [path for path in paths if path.strip()]


def calibration_words(predictor: Predictor) -> str:
    """Return in words how far probabilities can be trusted."""
    if predictor.temperature is None:
        return ("probabilities are the model's own, not calibrated: it brings no temperature, which a training fits on "
                'its validation images (--val-fraction; 30 or more, some of them misjudged)')
    return f'probabilities are calibrated: temperature {predictor.temperature:.3g}, fitted on validation images'


def as_dict(prediction: Prediction) -> Dict[str, Any]:
    """Return a prediction as it stands in the JSON."""
    return {'path': prediction.path, 'class': prediction.name, 'probability': prediction.probability,
            'unsure': prediction.unsure, 'error': prediction.error,
            'top': [{'class': name, 'probability': p} for name, p in prediction.top]}


def _write_csv(found: Sequence[Prediction], top_k: int) -> None:
    writer = csv.writer(sys.stdout, lineterminator='\n')
    ranks = range(1, top_k + 1) if top_k > 1 else ()
    writer.writerow(['path', 'class', 'probability', *(f'{what}_{n}' for n in ranks for what in (
        'class', 'probability')), 'error'])
    for p in found:
        cells = [cell for n in ranks for cell in (p.top[n - 1] if p.top else ('', ''))]
        writer.writerow([as_cell(cell) for cell in (p.path, p.name, p.probability, *cells, p.error)])


def format_predictions(found: Sequence[Prediction]) -> str:
    """Return the table: path, class, probability, and what else it could be."""
    good = [p for p in found if p.error is None]
    path = min(max(LEAST, *(columns_of(printable(p.path)) for p in good)), MOST) + 2
    name = min(max(LEAST, *(columns_of(printable(str(p.name))) for p in good)), 30) + 2
    lines = [f'{"image":<{path}}{"class":<{name}}probability']
    for p in good:
        others = p.top if p.unsure else p.top[1:]
        rest = ', '.join(f'{printable(other)} {probability:.3f}' for other, probability in others)
        lines.append(f'{fit(_tail(p.path), path)}{fit(str(p.name), name)}{p.probability:11.3f}'
                     + (f'   {"perhaps" if p.unsure else "or"} {rest}' if rest else ''))
    return '\n'.join(lines)


def _tail(path: str) -> str:
    return path if len(path) <= MOST else f'...{path[3 - MOST:]}'


if __name__ == '__main__':
    sys.exit(main())
