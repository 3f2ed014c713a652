"""Ctrl-C and SIGTERM: an exception at a safe distance from files, and the command that continues."""
import os
import shlex
import signal
from pathlib import Path
from types import TracebackType
from typing import Any, List, Optional, Type


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


def continue_command(program: str, argv: List[str], experiment: str) -> str:
    """Return the command that continues an interrupted run.

    >>> continue_command('train_smalldata.py', ['photos', '--resume', 'x'], 'a b')
    "python train_smalldata.py photos --experiment 'a b' --resume auto"
    """
    words = list(argv)
    if '--resume' in words:
        at = words.index('--resume')
        del words[at:at + 2]
    if '--experiment' not in words and experiment:
        words += ['--experiment', experiment]
    name = Path(program).name
    start = {'timm-smalldata': [name, 'train'], 'train-smalldata': [name]}.get(name, ['python', 'train_smalldata.py'])
    if int(os.environ.get('WORLD_SIZE', 1)) > 1:
        start = ['torchrun', '--nproc-per-node', os.environ['WORLD_SIZE'], 'train_smalldata.py']
    return shlex.join([*start, *words, '--resume', 'auto'])
