"""A folder in the memory of the machine, for the decoded images of one run; all processes of the machine see it."""
import os
import shutil
import tempfile
import time
import weakref
from pathlib import Path
from typing import Optional

from ..errors import UserError
from ..utils.lock import FolderLock

_PREFIX, _PLACE = 'timm-smalldata-ram-', Path('/dev/shm')


class MemoryFolder:
    """A folder that goes away with this object, at the latest when the process ends.

    On Linux it lies in memory. Elsewhere it is a temporary folder, which the system keeps in memory as far as it can.

    Attributes:
        path: The folder.
    """

    def __init__(self) -> None:
        place = memory_place()
        remove_left_behind(Path(place or tempfile.gettempdir()))
        self.path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=place))
        lock = FolderLock(self.path)
        lock.take()
        weakref.finalize(self, _remove, self.path, lock, os.getpid())


def memory_place() -> Optional[Path]:
    """Return the file system that lies in memory; None where there is none."""
    return _PLACE if _PLACE.is_dir() and os.access(_PLACE, os.W_OK) else None


def free_memory() -> int:
    """Return the bytes that decoded images may take in memory: half of what the system can give."""
    place = memory_place()
    if place is None:
        return shutil.disk_usage(tempfile.gettempdir()).free // 2
    try:
        lines = Path('/proc/meminfo').read_text(encoding='ascii').splitlines()
        available = next(int(line.split()[1]) << 10 for line in lines if line.startswith('MemAvailable'))
    except (OSError, StopIteration, ValueError):
        available = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') // 2
    return min(available, shutil.disk_usage(place).free) // 2


def remove_left_behind(place: Path) -> None:
    """Remove folders of processes that were killed: their locks are free."""
    for folder in place.glob(f'{_PREFIX}*'):
        lock = FolderLock(folder)
        try:
            if time.time() - folder.stat().st_mtime > 60 and any(folder.glob('*.u8')):  # a new one is locked soon
                lock.take()
                shutil.rmtree(folder, ignore_errors=True)
        except (OSError, UserError):  # somebody else's, or in use
            continue
        finally:
            lock.release()


def _remove(folder: Path, lock: FolderLock, process: int) -> None:
    if os.getpid() == process:  # no worker process of it
        shutil.rmtree(folder, ignore_errors=True)
        lock.release()
