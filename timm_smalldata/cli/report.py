"""The verb report: the table and the page of a finished run again, or finished runs side by side."""
import argparse
import json
import sys
from pathlib import Path
from typing import Any, Dict, List, Optional

from ..errors import UserError
from ..report.page import write_page
from ..report.side_by_side import compare_runs, format_comparison
from ..report.table import format_report
from ..utils.command import typed
from ..utils.console import Voice, answer, print_safely
from ..utils.model_folder import stage_folders


def main(argv: Optional[List[str]] = None) -> int:
    """Run the report command; returns the exit code (2: the user can put it right)."""
    return answer(run, argv)


def run(argv: List[str]) -> None:
    """Print the table of a finished run and write its page, or compare runs."""
    parser = argparse.ArgumentParser(
        prog=typed('report'), allow_abbrev=False,
        description='Print the report of a finished run and write its report.html again; of several, compare them.')
    parser.add_argument(
        'runs', metavar='RUN_FOLDER', type=Path, nargs='+',
        help='folder of a run, or its report.json; several are compared: runs that differ in their seed alone are one '
             'row, differences to the first are paired by seed')
    parser.add_argument('--json', action='store_true', help='print the JSON instead of the table')
    args = parser.parse_args(argv)
    if len(args.runs) > 1:
        found = compare_runs([finished(path) for path in args.runs])
        print_safely(json.dumps(found, indent=2) if args.json else format_comparison(found))
        return
    report, folder = read(args.runs[0]), args.runs[0]
    print_safely(json.dumps(report, indent=2) if args.json else format_report(report))
    if folder.suffix != '.json':
        Voice()(f'page: {write_page(folder)}')


def finished(path: Path) -> Path:
    """Return the folder of a finished run: of one of several stages, that of its last stage."""
    folder = path.parent if path.name == 'report.json' else path
    stages = [stage for stage in stage_folders(folder) if (stage / 'report.json').is_file()]
    folder = stages[-1] if stages and not (folder / 'report.json').is_file() else folder
    read(folder)
    return folder


def read(path: Path) -> Dict[str, Any]:
    """Read the report of a run.

    Raises:
        UserError: There is none.
    """
    path = path if path.suffix == '.json' else path / 'report.json'
    try:
        report = json.loads(path.read_text(encoding='utf-8'))
        if not isinstance(report, dict):
            raise ValueError('not an object')
    except OSError as error:
        stages: List[str] = sorted(str(p.parent) for p in path.parent.glob('*/report.json'))
        hint = f'its stages have one: {", ".join(stages)}' if stages else 'is this the folder of a finished run?'
        raise UserError(f'cannot read {path}: {error.strerror}; {hint}') from error
    except ValueError as error:
        raise UserError(f'{path} is not a report: {error}') from error
    return report


if __name__ == '__main__':
    sys.exit(main())
