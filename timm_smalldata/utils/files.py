"""Files that are either complete or not there: written beside their place, flushed to disk, then renamed over it."""
import csv
import errno
import io
import json
import os
import re
import shutil
import uuid
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Dict, Iterable, Iterator, List, Optional, Sequence, Union

from ..errors import StorageError
from .text import as_cell, from_cell, size_of

try:
    import fcntl
except ImportError:  # Windows, which removes no file that is open
    fcntl = None  # type: ignore[assignment]

PathLike = Union[str, 'os.PathLike[str]']
_REFUSALS = {  # what a disk says that is full or fails
    getattr(errno, name) for name in ('ENOSPC', 'EDQUOT', 'EFBIG', 'EIO', 'EROFS', 'ESTALE') if hasattr(errno, name)}


@contextmanager
def open_atomic(
        path: PathLike, binary: bool = False, needs: int = 0, keep: Optional[Path] = None,
) -> Iterator[IO]:
    """Open a file for writing that takes its name only when the block ends without an error.

    Text is UTF-8 with line ends as given; what UTF-8 cannot hold (file names that are no text) is written as `\\udcff`.

    Args:
        path: Name of the file.
        binary: For bytes instead of text.
        needs: Bytes that it will have, as far as they are known; for the message of a full disk.
        keep: Where to put what had the name before.

    Raises:
        StorageError: The disk is full, or fails.
    """
    path = Path(path)
    temporary = path.with_name(f'.{path.name[:100]}.{os.getpid()}-{uuid.uuid4().hex[:8]}.tmp')
    encoding = {} if binary else {'encoding': 'utf-8', 'errors': 'backslashreplace', 'newline': ''}
    try:
        with open(temporary, 'wb' if binary else 'w', **encoding) as file:  # type: ignore[call-overload]
            _hold(file)
            yield file
            file.flush()
            os.fsync(file.fileno())
            if keep is not None:
                _keep(path, keep)
            os.replace(temporary, path)
    except BaseException as error:
        try:
            temporary.unlink(missing_ok=True)
        except OSError:  # of a disk that fails
            pass
        full = storage_error(error, path, needs)
        if full is not None:
            raise full from error
        raise
    sync(path.parent)


def storage_error(error: BaseException, path: Path, needs: int = 0) -> Optional[StorageError]:
    """Return the line for a disk that is full or fails; None for every other error.

    Args:
        error: What was raised; also by libraries that tell the system's error in their words.
        path: What was being written.
        needs: Bytes that it takes, where they are known.
    """
    told = re.search(r'os error (\d+)', str(error))
    number: int = getattr(error, 'errno', None) or (int(told[1]) if told else 0)
    if number not in _REFUSALS:
        return None
    try:
        free = f', {size_of(shutil.disk_usage(path.parent).free)} are free there'
    except OSError:
        free = ''
    wanted = f'it needs {size_of(needs)}' if needs else 'it needs more space'
    return StorageError(
        f'Cannot write {path}: {os.strerror(number)} ({wanted}{free}). Make room; what was saved before is whole.')


def _keep(path: Path, keep: Path) -> None:
    """Give what has a name a second one, without a moment at which either is not there."""
    spare = keep.with_name(f'.{keep.name}.spare')
    spare.unlink(missing_ok=True)
    try:
        os.link(path, spare)
    except OSError:  # file systems without hard links
        shutil.copyfile(path, spare)
    os.replace(spare, keep)


def _hold(file: IO) -> None:
    """Mark a file as being written, for as long as it is open or its process lives."""
    try:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # file systems without locks
        pass


def remove_orphans(folder: Path) -> None:
    """Remove what processes that were killed have left half written; files that are being written stay."""
    for path in folder.glob('.*.tmp'):
        try:
            with open(path, 'rb') as file:
                if fcntl is not None:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
        except OSError:  # another process writes it, or has just renamed it
            continue


def write_text_atomic(path: PathLike, text: str) -> None:
    """Write text: afterwards the file holds all of it, or what it held before."""
    with open_atomic(path) as file:
        file.write(text)


def write_json_atomic(path: PathLike, data: Any) -> None:
    """Write JSON that every reader takes; raises ValueError for NaN and infinity, which JSON does not have."""
    write_text_atomic(path, json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + '\n')


def write_csv_atomic(path: PathLike, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table; None becomes an empty field, and text that a spreadsheet would run is quoted (`as_cell`)."""
    text = io.StringIO(newline='')
    writer = csv.writer(text, lineterminator='\n')
    writer.writerows([as_cell(value) for value in row] for row in (header, *rows))
    write_text_atomic(path, text.getvalue())


def read_csv(path: PathLike) -> List[Dict[str, str]]:
    """Return the rows of a table that was written here, as they were before they were quoted."""
    with open(path, newline='', encoding='utf-8') as stream:
        return [{key: from_cell(value) for key, value in row.items()} for row in csv.DictReader(stream)]


def sync(path: Path) -> None:
    """Flush a file to disk, or make the names in a folder durable, where the system can do that.

    Windows opens no folders, and some network file systems do not flush them.
    """
    folder = path.is_dir()
    try:
        handle = os.open(path, os.O_RDONLY if folder else os.O_RDWR)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError:
        if not folder:
            raise
