"""One process at a time works in a folder; another one is told which."""
import errno
import os
import platform
import time
from pathlib import Path
from typing import IO, Any, Optional, Set

from ..errors import UserError

try:
    import fcntl
except ImportError:  # Windows: nothing is locked there
    fcntl = None  # type: ignore[assignment]

NAME = '.lock'
_held: Set[Path] = set()  # of this process: the system asks processes, not threads


class FolderLock:
    """A lock on a folder, which the system takes back when its process ends, however that ends.

    Child processes do not hold it (POSIX record locks are not inherited). A file system without locks locks nothing.

    Args:
        folder: The folder; it is there.
    """

    def __init__(self, folder: Path):
        self.path = folder.resolve() / NAME
        self.shown = folder
        self._file: Optional[IO] = None

    def take(self) -> None:
        """Lock the folder.

        Raises:
            UserError: Another run works in it; which one is said.
        """
        if self.path in _held:
            raise self._taken(f'this process ({os.getpid()})')
        lockf: Any = getattr(fcntl, 'lockf', None)
        while lockf is not None:
            file = open(self.path, 'a+', encoding='utf-8')
            try:
                lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                file.seek(0)
                holder = file.read().strip()
                file.close()
                if error.errno in (errno.EACCES, errno.EAGAIN):
                    raise self._taken(holder or 'another process') from error
                return
            if self._is_current(file):
                break
            file.close()  # its last holder has just removed it
        else:
            return
        self._file = file
        file.truncate(0)
        file.write(f'process {os.getpid()} on {platform.node()}, since {time.strftime("%Y-%m-%d %H:%M:%S")}\n')
        file.flush()
        _held.add(self.path)

    def release(self) -> None:
        """Unlock the folder, if it is locked; nothing of the lock stays behind."""
        if self._file is not None:
            self.path.unlink(missing_ok=True)
            self._file.close()
            self._file = None
            _held.discard(self.path)

    def _is_current(self, file: Any) -> bool:
        try:
            return os.path.samestat(os.fstat(file.fileno()), os.stat(self.path))
        except FileNotFoundError:
            return False

    def _taken(self, holder: str) -> UserError:
        return UserError(f'{self.shown} is in use by {holder}: wait for that run, or choose another --experiment.')
