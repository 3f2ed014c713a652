"""What lies in a folder or a tar: image files under clean names, and a count of all that is not read."""
import os
import stat
import tarfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Optional, Set, Tuple

from ..errors import UserError
from ..utils.text import clean, clean_names, counted, natural_key, shown_path
from .formats import is_image_name, suffix_of


@dataclass
class Listing:
    """Image files in natural order.

    Attributes:
        names: Relative path of each, in one form (see `clean_names`), each once.
        places: Where each lies: a path, or a member of a tar with the tar that it is in.
        notes: Sentences about what was not read, or read under another name.
        folders: Folders that hold files of which none is read.
        unread: Numbers of files that are not read, by what they are.
    """
    names: List[str]
    places: List[Any]
    notes: List[str] = field(default_factory=list)
    folders: List[str] = field(default_factory=list)
    unread: Dict[str, int] = field(default_factory=dict)

    def below(self, folder: str) -> 'Listing':
        """Return what lies in a folder, with names as seen from there; the notes stay behind."""
        start = f'{folder}/'
        inside = [i for i, name in enumerate(self.names) if name.startswith(start)]
        return Listing([self.names[i][len(start):] for i in inside], [self.places[i] for i in inside])


class _Collector:
    """Sorts files, as they are met, into images, hidden ones and others."""

    def __init__(self) -> None:
        self.images: List[Tuple[str, Any]] = []
        self.hidden = 0
        self.others: Counter = Counter()
        self.first: Dict[str, str] = {}
        self.without: Set[str] = set()

    def add(self, name: str, place: Any, is_file: bool = True) -> None:
        hidden = name.startswith('.') or '/.' in name
        if hidden:  # .ipynb_checkpoints/, ._photo.jpg and their like are no images of anybody's
            self.hidden += is_image_name(name)
        elif is_file and is_image_name(name):
            self.images.append((name, place))
        else:
            what = (suffix_of(name) or 'without a suffix') if is_file else 'no regular file'
            self.others[what] += 1
            self.first.setdefault(what, name)
            self.without.add(name.rpartition('/')[0])

    def listing(self, root: Path, notes: List[str]) -> Listing:
        self.images.sort(key=lambda image: natural_key(image[0]))
        names, note = clean_names([name for name, _ in self.images])
        notes = [*notes, *([note] if note else [])]
        if self.others:
            kinds = ', '.join(f'{n} {what} (first: {clean(self.first[what])})' if place < 8 else f'{n} {what}'
                              for place, (what, n) in enumerate(self.others.most_common()))
            notes.append(f'not read in {shown_path(root)}: {kinds}')
        if self.hidden:
            notes.append(f'{self.hidden} hidden files (names that begin with a point) left out')
        used = {name.rpartition('/')[0] for name in names}
        folders = sorted((folder for folder in map(clean, self.without)
                          if folder and not any(u == folder or u.startswith(f'{folder}/') for u in used)),
                         key=natural_key)
        if folders and names:
            notes.append(f'no image that is read in: {_some(folders)}')
        return Listing(names, [place for _, place in self.images], notes, folders, dict(self.others))


def _some(names: List[str]) -> str:
    return ', '.join(names[:8]) + (f', ... ({len(names) - 8} more)' if len(names) > 8 else '')


def list_folder(root: Path) -> Listing:
    """Walk a folder. Links are followed, but no folder is read twice, so loops end; only regular files are opened.

    Raises:
        UserError: It cannot be read.
    """
    found, again, denied = _Collector(), list[str](), list[str]()
    seen: Set[Tuple[int, int]] = set()
    links: List[Tuple[str, str]] = []  # folders that are links wait: the folder itself comes before a link to it

    def visit(path: str, name: str) -> None:
        try:
            status = os.stat(path)
            if (status.st_dev, status.st_ino) in seen:
                again.append(name)
                return
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(path) as inside:
                entries = sorted(inside, key=lambda entry: entry.name)
        except OSError as error:
            if not name:
                raise UserError(f'Cannot read {shown_path(root)}: {error.strerror}.') from error
            denied.append(f'{clean(name)} ({error.strerror})')
            return
        for entry in entries:
            inner = f'{name}/{entry.name}' if name else entry.name
            if entry.is_dir(follow_symlinks=False):
                stack.append((entry.path, inner))
            elif entry.is_symlink() and os.path.isdir(entry.path):
                links.append((entry.path, inner))
            else:
                # only what is no plain file is asked for: a system call for each file would be most of the walk
                found.add(inner, entry.path, entry.is_file(follow_symlinks=False) or _may_be_read(entry.path))

    stack = [(str(root), '')]
    while stack or links:
        visit(*(stack.pop() if stack else links.pop(0)))
    notes = []
    if again:
        which = counted(len(again), 'link leads to a folder that is', 'links lead to folders that are')
        notes.append(f'{which} read already, left out (first: {clean(min(again))})')
    if denied:
        notes.append(f'folders that cannot be opened: {_some(denied)}')
    return found.listing(root, notes)


def _may_be_read(path: str) -> bool:
    """Return whether a path is a regular file; a link to nothing counts, so that it is named as a bad image."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return True


def list_tar(path: Path) -> Listing:
    """Read the table of contents of a tar, and of tars in it; nothing is written anywhere.

    Members are read where they lie in the archive; a name like `../x` or `/x` leads nowhere else.

    Raises:
        UserError: It cannot be read.
    """
    members: Dict[str, Tuple[Any, bool]] = {}  # a later member of the same name takes the place of an earlier one
    try:
        with tarfile.open(path, 'r:') as tar:
            for member in tar:
                if member.isfile() and suffix_of(member.name) == '.tar':
                    with tarfile.open(fileobj=tar.extractfile(member), mode='r:') as inner:
                        _add_members(members, inner, member, f'{member.name[:-4]}/')
            _add_members(members, tar, None, '')
    except (OSError, EOFError, ValueError, tarfile.TarError) as error:
        raise UserError(f'Cannot read {shown_path(path)}: {error} (expected a .tar that is not compressed).') from error
    found = _Collector()
    for name, (place, is_file) in members.items():
        found.add(name, place, is_file)
    return found.listing(path, [])


def _add_members(members: Dict[str, Tuple[Any, bool]], tar: Any, outer: Optional[Any], folder: str) -> None:
    there: Dict[str, Any] = {}
    for member in tar:
        content = member if member.isfile() else None
        if member.islnk():  # a hard link: a second name of a file that came before
            content = there.get(member.linkname)
        if content is not None:
            there[member.name] = content
        parts = [part for part in f'{folder}{member.name}'.split('/') if part not in ('', '.', '..')]
        is_tar = content is not None and outer is None and suffix_of(member.name) == '.tar'
        if parts and not member.isdir() and not is_tar:
            members['/'.join(parts)] = ((outer, content), content is not None)
