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
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

NAME, HOLDER = '.lock', '.lock-holder'
_held: Set[Path] = set()  # of this process: the system asks processes, not threads


def _this_process() -> str:
    return f'process {os.getpid()} on {platform.node()}, since {time.strftime("%Y-%m-%d %H:%M:%S")}\n'


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
        self._lock: Any = None  # filelock's, where there are no record locks

    def take(self) -> None:
        """Lock the folder.

        Raises:
            UserError: Another run works in it; which one is said.
        """
        if self.path in _held:
            raise self._taken(f'this process ({os.getpid()})')
        lockf: Any = getattr(fcntl, 'lockf', None)
        if lockf is None:
            self._take_whole()
            return
        while True:
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
        self._file = file
        file.truncate(0)
        file.write(_this_process())
        file.flush()
        _held.add(self.path)

    def _take_whole(self) -> None:
        """Lock as filelock does on Windows, where nobody reads a locked file: a second one names the holder."""
        from filelock import FileLock, Timeout
        lock, holder = FileLock(self.path, blocking=False, thread_local=False), self.path.with_name(HOLDER)
        try:
            lock.acquire()
        except Timeout as error:
            told = holder.read_text(encoding='utf-8').strip() if holder.is_file() else ''
            raise self._taken(told or 'another process') from error
        except (OSError, NotImplementedError):  # a file system without locks
            return
        holder.write_text(_this_process(), encoding='utf-8')
        self._lock = lock
        _held.add(self.path)

    def release(self) -> None:
        """Unlock the folder, if it is locked; nothing of the lock stays behind."""
        if self._lock is not None:
            self.path.with_name(HOLDER).unlink(missing_ok=True)
            self._lock.release()
            self._lock = None
            _held.discard(self.path)
            try:
                self.path.unlink(missing_ok=True)
            except OSError:  # Windows, where another process has just taken it
                pass
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
