"""Ctrl-C and SIGTERM: an exception at a safe distance from files, and the command that continues."""
import shlex
import signal
from types import TracebackType
from typing import Any, List, Optional, Type

from .command import command


class Interrupted(Exception):
    """SIGTERM arrived."""


class catch_sigterm:
    """Turn SIGTERM into `Interrupted` inside the block; the old handler comes back after it."""

    def __enter__(self) -> None:
        def stop(*_: Any) -> None:
            raise Interrupted
        try:
            self.old: Any = signal.signal(signal.SIGTERM, stop)
        except ValueError:  # not in the main thread: signals go elsewhere
            self.old = None

    def __exit__(
            self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType],
    ) -> None:
        if self.old is not None:
            signal.signal(signal.SIGTERM, self.old)


def continue_command(argv: List[str], experiment: str, start: Optional[List[str]] = None) -> str:
    """Return the command that continues an interrupted run.

    Args:
        argv: Flags of the run.
        experiment: Its name, where the flags do not tell it.
        start: Words that begin the command; by default those that it was called with.

    >>> continue_command(['photos', '--resume', 'x'], 'a b', ['train-smalldata'])
    "train-smalldata photos --experiment 'a b' --resume auto"
    """
    words = list(argv)
    if '--resume' in words:
        at = words.index('--resume')
        del words[at:at + 2]
    if '--experiment' not in words and experiment:
        words += ['--experiment', experiment]
    return shlex.join([*(command() if start is None else start), *words, '--resume', 'auto'])
