"""Which updates each start of the process made: a line for each in `starts.txt`, true even after a kill."""
import os
import re
import shutil
from pathlib import Path
from typing import Any, Dict, List, Optional

NAME, WIDTH = 'starts.txt', 12  # two numbers of so many digits, a line of equal length for each start


class Starts:
    """First and last update of every start of a run.

    The last finished update is written in place after each one, without a flush: what a process has written survives
    its being killed, and costs some microseconds. (A machine that loses power may lose the last seconds of it.)

    Args:
        folder: The run folder; None (all ranks but the first) writes nothing.
        first_update: The update that this start begins with.
    """

    def __init__(self, folder: Optional[Path], first_update: int):
        self.file: Any = None
        if folder is None:
            return
        (folder / NAME).touch()
        self.file = open(folder / NAME, 'r+b', buffering=0)
        self.file.truncate(len(read_starts(folder)) * (2 * WIDTH + 2))  # half a line of a process killed as it began
        self.offset = self.file.seek(0, os.SEEK_END)
        self.file.write(f'{first_update:>{WIDTH}} {"-":>{WIDTH}}\n'.encode())

    def note(self, update: int) -> None:
        """An update is finished."""
        if self.file is not None:
            self.file.seek(self.offset + WIDTH + 1)
            self.file.write(f'{update:>{WIDTH}}'.encode())

    def close(self) -> None:
        if self.file is not None:
            self.file.close()
            self.file = None


def read_starts(folder: Path) -> List[Dict[str, Any]]:
    """Return the starts of a run: `first_update`, and `last_update` or None where none was finished."""
    try:
        text = (folder / NAME).read_text(encoding='ascii', errors='replace')
    except FileNotFoundError:
        return []
    lines = re.findall(r'^ *([0-9]+) +([0-9]+|-)\n', text, re.MULTILINE)  # half a line, or a damaged one, tells nothing
    return [dict(first_update=int(first), last_update=None if last == '-' else int(last)) for first, last in lines]


def copy_starts(source: Path, folder: Path) -> None:
    """Let a run that goes on in another folder know its earlier starts."""
    if (source / NAME).exists() and not (folder / NAME).exists():
        shutil.copyfile(source / NAME, folder / NAME)
