"""The verb export: a trained model as ONNX or as a program of torch.export, checked against itself."""
import json
import sys
from pathlib import Path
from typing import Any, Dict, List, Optional

from ..build.trained import load_trained_model
from ..build.weights import find_place
from ..config.parser import Parser
from ..errors import UserError
from ..hub.deploy import FORMATS, deploy, metadata_of
from ..utils.command import typed
from ..utils.console import answer, print_safely


def main(argv: Optional[List[str]] = None) -> int:
    """Run the export command; returns the exit code (2: the user can put it right)."""
    return answer(run, argv)


def run(argv: List[str]) -> Dict[str, Any]:
    """Export, check and print; returns what is printed."""
    parser = Parser(
        typed('export'), allow_abbrev=False,
        description='Write a trained model as one file that runs without this package, with class names and '
                    'preprocessing in it; it is run once and compared before it is kept.')
    parser.add_argument(
        'model', metavar='MODEL', help='run folder, model folder, local-dir:FOLDER, hf-hub:OWNER/NAME or a timm model')
    parser.add_argument('--format', choices=FORMATS, default='onnx', help='what to write [onnx]')
    parser.add_argument('--output', metavar='DIR', help='folder for the file (default: export/ in the run, or here)')
    parser.add_argument('--json', action='store_true', help='print JSON instead of lines')
    args = parser.parse_args(argv)
    trained = load_trained_model(args.model)
    metadata = metadata_of(trained.config, trained.names, trained.training.get('temperature'))
    place = find_place(args.model)
    inside = trained.run if trained.run is not None else place.folder if place is not None else None
    folder = Path(args.output) if args.output else (inside or Path()) / 'export'
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f'--output {folder}: {error.strerror}.') from error
    found = deploy(trained.model, folder, args.format, metadata)
    print_safely(json.dumps(found, indent=2) if args.json else '\n'.join([
        f'written: {found["file"]} ({found["bytes"] / 1e6:.1f} MB)',
        f'checked: batches of 1 and 3 images, probabilities differ by at most {found["difference"]:.1g}',
        f'one image on this processor: {found["ms"]:.1f} ms, {found["ms_before"]:.1f} ms in PyTorch']))
    return found


if __name__ == '__main__':
    sys.exit(main())
