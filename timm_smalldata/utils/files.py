"""Files that are either complete or not there: written beside their place, flushed to disk, then renamed over it."""
import csv
import io
import json
import os
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Iterable, Iterator, Sequence, Union

PathLike = Union[str, 'os.PathLike[str]']


@contextmanager
def open_atomic(path: PathLike, binary: bool = False) -> Iterator[IO]:
    """Open a file for writing that takes its name only when the block ends without an error.

    Text is UTF-8 with line ends as given; what UTF-8 cannot hold (file names that are no text) is written as `\\udcff`.
    """
    path = Path(path)
    temporary = path.with_name(f'.{path.name}.{os.getpid()}.tmp')
    encoding = {} if binary else {'encoding': 'utf-8', 'errors': 'backslashreplace', 'newline': ''}
    try:
        with open(temporary, 'wb' if binary else 'w', **encoding) as file:  # type: ignore[call-overload]
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def write_text_atomic(path: PathLike, text: str) -> None:
    """Write text: afterwards the file holds all of it, or what it held before."""
    with open_atomic(path) as file:
        file.write(text)


def write_json_atomic(path: PathLike, data: Any) -> None:
    """Write JSON that every reader takes; raises ValueError for NaN and infinity, which JSON does not have."""
    write_text_atomic(path, json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + '\n')


def write_csv_atomic(path: PathLike, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a table; None becomes an empty field."""
    text = io.StringIO(newline='')
    writer = csv.writer(text, lineterminator='\n')
    writer.writerow(header)
    writer.writerows(rows)
    write_text_atomic(path, text.getvalue())


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
