"""The verb cache: what decoded images take on disk, and which of them nobody used for a while."""
import argparse
import json
import re
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any, Dict, List, Optional

from ..config.parser import Parser
from ..errors import UserError
from ..utils.command import typed
from ..utils.console import answer

DAY = 86400.0
OURS = re.compile(r'[0-9a-f]{24}\.u8')  # build_cache names them


def main(argv: Optional[List[str]] = None) -> int:
    """Run the cache command; returns the exit code (2: the user can put it right)."""
    return answer(run, argv)


def run(argv: List[str]) -> Dict[str, Any]:
    """List, prune where that is asked for, and print; returns what was found."""
    parser = Parser(
        typed('cache'), allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter,
        description='Show what decoded images take on disk. They are made again when a run needs them: remove them\n'
                    'with --prune, but not while a run trains on them.')
    parser.add_argument('output', metavar='OUTPUT', nargs='?', default='output',
                        help='folder of runs, or of decoded images (--cache-dir) [output]')
    parser.add_argument('--prune', action='store_true', help='remove what was not used for --days')
    parser.add_argument('--days', type=float, default=7.0, metavar='N', help='days without use; 0: all [7]')
    parser.add_argument('--json', action='store_true', help='print JSON instead of lines')
    args = parser.parse_args(argv)
    if args.days < 0:
        raise UserError(f'--days {args.days:g} is less than 0.')
    files = find_files(Path(args.output))
    old = [file for file in files if time.time() - file.stat().st_mtime >= args.days * DAY]
    found: Dict[str, Any] = dict(files=[_row(file) for file in files], bytes=sum(map(_size, files)),
                                 unused=[str(file) for file in old], unused_bytes=sum(map(_size, old)))
    if args.prune:
        for file in old:
            file.with_suffix('.npz').unlink(missing_ok=True)  # first: without it the pixels are made again
            file.unlink(missing_ok=True)
    if args.json:
        print(json.dumps(found, indent=2))
        return found
    for row in found['files']:
        print(f'{row["bytes"] / 1e6:10.1f} MB  last used {row["used"]}  {row["file"]}')
    print(f'{len(files)} sets of decoded images, {found["bytes"] / 1e6:.1f} MB; {len(old)} of them, '
          f'{found["unused_bytes"] / 1e6:.1f} MB, were not used for {args.days:g} days'
          + (' and are removed' if args.prune else ': --prune removes them' if old else ''))
    return found


def find_files(place: Path) -> List[Path]:
    """Return files of decoded pixels in a folder or its `.cache`, the least used first.

    Raises:
        UserError: There is no such folder.
    """
    if not place.is_dir():
        raise UserError(f'No such folder: {place} (name the folder of runs, --output of the training).')
    files = [file for folder in (place, place / '.cache') if folder.is_dir() for file in folder.iterdir()
             if OURS.fullmatch(file.name)]
    return sorted(files, key=lambda file: file.stat().st_mtime)


def _size(file: Path) -> int:
    return sum(part.stat().st_size for part in (file, file.with_suffix('.npz')) if part.exists())


def _row(file: Path) -> Dict[str, Any]:
    used = datetime.fromtimestamp(file.stat().st_mtime)
    return dict(file=str(file), bytes=_size(file), used=f'{used:%Y-%m-%d %H:%M}')


if __name__ == '__main__':
    sys.exit(main())
