"""Folders and tars that are splits: found by their names, told from classes of such names, and nothing left unsaid."""
from pathlib import Path
from typing import Dict, List, Optional, Set, Tuple

from ..data.classes import listed
from ..data.formats import is_image_name
from ..data.listing import Listing, list_tar
from ..data.readers import folder_source, labelled_source
from ..data.source import ImageSource
from ..data.split_words import ROLES, SPLIT_WORDS, role_of
from ..errors import UserError
from ..utils.text import clean, shown_path

WHOLE = '.'  # as a split: the data folder itself, whatever its folders are called


class SplitFolders:
    """The splits of a data folder, or of a tar that holds such folders.

    Args:
        root: The folder or tar.
        folder_labels: Value of `--folder-labels`.
        words: Splits that the user names.
    """

    def __init__(self, root: Path, folder_labels: str, words: List[str]):
        self.notes: List[str] = []
        self.folder_labels = folder_labels
        self.root = self._unwrapped(root, words)
        self.used: Set[Path] = set()
        self.left: Set[Path] = set()  # and said

    def _unwrapped(self, root: Path, words: List[str]) -> Path:
        """Return the folder that holds the splits where `root` holds nothing but that folder."""
        inner = root
        while WHOLE not in words and not any(_exists(inner, word) for word in words) and not _splits_of(inner):
            folders, others = _visible(inner)
            if len(folders) != 1 or any(is_image_name(other.name) or other.suffix == '.tar' for other in others):
                return root
            inner = folders[0]
        if inner != root:
            self.notes.append(f'the splits lie in {shown_path(inner)}')
        return inner

    def read(self, path: Path) -> ImageSource:
        """Read a folder or tar as one split; names are unique over all splits."""
        self.used.add(path)
        try:
            source, note = folder_source(path, self.folder_labels)
        except UserError as error:
            if path == self.root or not path.is_dir() or not _is_flat(path):
                raise
            raise UserError(f'{error} If {clean(path.name)} is itself a class: --train-split {WHOLE}') from error
        if path != self.root:
            source.names = [f'{clean(path.name)}/{name}' for name in source.names]
        if note and note not in self.notes:
            self.notes.append(note)
        return source

    def named(self, word: str, role: str) -> ImageSource:
        """Read the split that the user calls `word`.

        Raises:
            UserError: There is no such folder.
        """
        synonyms = next((words for words in SPLIT_WORDS.values() if word in words), (word,))
        for name in (word, *synonyms):
            for path in (self.root / name, self.root / f'{name}.tar'):
                if path.is_dir() or path.is_file() and path.suffix == '.tar':
                    return self.read(path)
        there = sorted(clean(path.name) for path in _visible(self.root)[0])
        raise UserError(f'--{role}-split {word}: {shown_path(self.root)} has no such folder; it has: '
                        f'{listed(there) or "none"}.')

    def found(self) -> Dict[str, Optional[Path]]:
        """Return the folder (or else tar) of each role that has one by its name, in upper or lower case."""
        splits = _splits_of(self.root)
        if not splits:
            called = [clean(path.name) for path in _visible(self.root)[0] if role_of(path.name)]
            if called:
                self.notes.append(f'{listed(called)}: a class, not a split, since images lie directly in it as in the '
                                  'folders beside it')
        if 'train' in splits and not (splits['train'].is_dir() and _is_flat(splits['train'])):
            for role in ('val', 'test'):
                if role in splits and splits[role].is_dir() and _is_flat(splits[role]):
                    self.left.add(splits[role])
                    self.notes.append(f'{clean(splits.pop(role).name)}: not read, since its images lie in no folder '
                                      'named after a class')
        return {role: splits.get(role) for role in ROLES}

    def note_rest(self, named: bool) -> None:
        """Say what lies beside the splits and is in none of them.

        Args:
            named: The user named the splits, so that other folders with names of splits are left out on purpose.
        """
        folders, others = _visible(self.root)
        words = {word for words in SPLIT_WORDS.values() for word in words} if named else set()
        rest = [clean(p.name) for p in folders
                if p not in self.used | self.left and p.name.lower() not in words and _has_images(p)]
        rest += [clean(p.name) for p in others if p.suffix == '.tar' and p not in self.used
                 and p.stem.lower() not in words]
        loose = sum(is_image_name(p.name) for p in others)
        if rest:
            self.notes.append(
                f'beside the splits ({", ".join(sorted(clean(p.name) for p in self.used))}) and not read: '
                f'{listed(rest, 8)} (if all of these are classes: --train-split {WHOLE})')
        if loose:
            self.notes.append(f'{loose} image{"s" * (loose > 1)} directly in {shown_path(self.root)}, beside the '
                              'splits, not read')


def read_tar(
        root: Path, folder_labels: str, wanted: Dict[str, List[str]], notes: List[str],
) -> Tuple[Dict[str, List[ImageSource]], bool]:
    """Read a tar: its folders `train/`, `val/`, `test/` are splits where it holds such, else it is one pool.

    Returns:
        The sources of each role, and whether they are one pool.

    Raises:
        UserError: A split that the user names is not in it.
    """
    listing = list_tar(root)
    inner, folders = listing, _first_level(listing)
    while len(folders) == 1 and not (set(folders) & _words(wanted)) and role_of(folders[0]) is None and all(
            '/' in name.partition('/')[2] for name in inner.names):
        inner = inner.below(folders[0])
        folders = _first_level(inner)
    by_role: Dict[str, List[str]] = {}
    for role in ROLES:
        for word in wanted[role]:
            same = [name for name in folders if name == word or role_of(word) and role_of(name) == role_of(word)]
            if not same:
                raise UserError(f'--{role}-split {word}: {shown_path(root)} holds no such folder; it has: '
                                f'{listed(folders) or "none"}.')
            by_role.setdefault(role, []).append(word if word in same else same[0])
    for role in ROLES:
        free = [name for name in folders if role_of(name) == role and name not in sum(by_role.values(), [])]
        if not wanted[role] and free:
            by_role[role] = free[:1]
    flat = {name.partition('/')[0] for name in inner.names if name.count('/') < 2}
    if 'train' not in by_role or not _words(wanted) and flat & set(by_role['train']):
        source, note = labelled_source(root, listing, folder_labels)
        notes.extend([note] if note else [])
        return dict(train=[source], val=[], test=[]), True
    parts: Dict[str, List[ImageSource]] = {role: [] for role in ROLES}
    for role, names in by_role.items():
        for name in names:
            source, note = labelled_source(root, inner.below(name), folder_labels)
            source.names = [f'{name}/{inside}' for inside in source.names]
            parts[role].append(source)
            notes.extend([note] if note and note not in notes else [])
    notes.extend(listing.notes)
    rest = [name for name in folders if name not in sum(by_role.values(), [])]
    if rest:
        notes.append(f'beside the splits in {shown_path(root)} and not read: {listed(rest, 8)}')
    return parts, False


def _first_level(listing: Listing) -> List[str]:
    return list(dict.fromkeys(name.partition('/')[0] for name in listing.names if '/' in name))


def _words(wanted: Dict[str, List[str]]) -> Set[str]:
    return {word for words in wanted.values() for word in words}


def _visible(root: Path) -> Tuple[List[Path], List[Path]]:
    """Return the folders in a folder and its other files, without hidden ones, in order."""
    try:
        there = sorted(path for path in root.iterdir() if not path.name.startswith('.')) if root.is_dir() else []
    except OSError as error:
        raise UserError(f'Cannot read {shown_path(root)}: {error.strerror}.') from error
    folders = [path for path in there if path.is_dir()]
    return folders, [path for path in there if path not in set(folders)]


def _exists(root: Path, word: str) -> bool:
    return word != WHOLE and ((root / word).exists() or (root / f'{word}.tar').exists())


def _splits_of(root: Path) -> Dict[str, Path]:
    """Return the folder, or else the tar, of each role.

    Folders that are called like splits and hold images directly are classes where a folder of another name beside them
    does so too.
    """
    folders, others = _visible(root)
    by_name = {path.name.lower(): path for path in folders}
    tars = {path.name.lower(): path for path in others if path.suffix.lower() == '.tar'}
    found = {}
    for role, words in SPLIT_WORDS.items():
        places = [by_name[word] for word in words if word in by_name]
        places += [tars[f'{word}.tar'] for word in words if f'{word}.tar' in tars]
        if places:
            found[role] = places[0]
    if found and all(path.is_dir() and _is_flat(path) for path in found.values()):
        if any(_is_flat(path) for path in folders if role_of(path.name) is None):
            return {}
    return found


def _is_flat(folder: Path) -> bool:
    """Return whether images lie directly in a folder and none in a folder inside it."""
    folders, others = _visible(folder)
    return any(is_image_name(path.name) for path in others) and not any(map(_has_images, folders))


def _has_images(folder: Path, depth: int = 4) -> bool:
    """Return whether there is an image in a folder, or a few levels below it."""
    folders, others = _visible(folder)
    return any(is_image_name(path.name) for path in others) or (
        depth > 0 and any(_has_images(inner, depth - 1) for inner in folders if not inner.is_symlink()))
