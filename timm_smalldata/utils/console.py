"""What a person reads: lines and bars on stderr, results on stdout, errors of one line."""
import os
import sys
from typing import Any, Callable, List, Optional, TextIO

from ..errors import UserError


class Voice:
    """Prints on stderr, on the first process only; stdout is left for results."""

    def __init__(self, primary: bool = True):
        self.primary = primary
        self.terminal = primary and sys.stderr.isatty()

    def __call__(self, text: str = '') -> None:
        if self.primary:
            print(text, file=sys.stderr, flush=True)

    def bar(self, total: int, text: str) -> Any:
        """Return a progress bar on a terminal; None elsewhere, where a long wait is announced by a line."""
        if self.terminal:
            from tqdm import tqdm
            return tqdm(total=total, desc=text, leave=False, dynamic_ncols=True)
        if total > 2000:
            self(f'{text}: {total} images')
        return None


def is_terminal(stream: TextIO) -> bool:
    """Return whether a person reads a stream, no program or file."""
    return stream.isatty()


def duration(seconds: float) -> str:
    """Return a time in a reader's words.

    >>> duration(9.6), duration(75), duration(3725)
    ('9.6 s', '1 min 15 s', '1 h 2 min')
    """
    if seconds < 60:
        return f'{seconds:.1f} s'
    minutes, rest = divmod(round(seconds), 60)
    return f'{minutes} min {rest} s' if minutes < 60 else f'{minutes // 60} h {minutes % 60} min'


def fail(error: Exception, rank: int = 0) -> int:
    """Print a user's error as one line on stderr; the exit code is 2."""
    print(f'error{f" (rank {rank})" if rank else ""}: ' + ' '.join(str(error).split()), file=sys.stderr)
    return 2


def answer(run: Callable[[List[str]], Any], argv: Optional[List[str]]) -> int:
    """Call a verb with its words, by default those of the command line; returns the exit code.

    That is what the verb returns, if it is a number, and 2 for a user's error.
    """
    try:
        found = run(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
        return found if isinstance(found, int) else 0
    except UserError as error:
        return fail(error)
    except BrokenPipeError:  # the reader has what it wanted, as `head` has
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains when it ends
        return 0


def print_safely(text: str) -> None:
    """Print on stdout, whatever letters class names have and the terminal lacks."""
    encoding = sys.stdout.encoding or 'utf-8'
    print(text.encode(encoding, 'backslashreplace').decode(encoding))
