"""The verb report: print the report of a finished run again."""
import argparse
import json
import sys
from pathlib import Path
from typing import Optional, Sequence

from ..report.table import format_report
from ..utils.command import typed
from ..utils.console import print_safely


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Print the table of a finished run again; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog=typed('report'), description='Print the report of a finished run.', allow_abbrev=False)
    parser.add_argument('run', metavar='RUN_FOLDER', type=Path, help='folder of a run, or its report.json')
    parser.add_argument('--json', action='store_true', help='print the JSON instead of the table')
    args = parser.parse_args(argv)
    path = args.run if args.run.suffix == '.json' else args.run / 'report.json'
    try:
        report = json.loads(path.read_text(encoding='utf-8'))
        if not isinstance(report, dict):
            raise ValueError('not an object')
    except OSError as error:
        stages = sorted(str(p.parent) for p in path.parent.glob('*/report.json'))
        hint = f'its stages have one: {", ".join(stages)}' if stages else 'is this the folder of a finished run?'
        print(f'error: cannot read {path}: {error.strerror}; {hint}', file=sys.stderr)
        return 2
    except ValueError as error:
        print(f'error: {path} is not a report: {error}', file=sys.stderr)
        return 2
    text = json.dumps(report, indent=2) if args.json else format_report(report)
    print_safely(text)
    return 0
