"""Paths as tables write them, and the files that they mean."""
import os
from pathlib import Path
from typing import Dict, List, Tuple

from ..errors import UserError
from ..utils.text import clean, counted, shown_path
from .formats import is_image_name


def settle_paths(root: Path, names: List[str], notes: List[str]) -> Tuple[List[str], List[str]]:
    """Return names and paths of the files that a table means.

    A path is taken as it is written where there is such a file. Elsewhere backslashes become slashes, a name in
    another Unicode form or encoding is found, and so is a file whose suffix the table leaves out.

    Args:
        root: Folder that relative paths start from.
        names: What the table says.
        notes: Sentences about what was read in another way are added here.

    Returns:
        Names, with slashes, and for each the path of its file relative to `root`; of files that are not there the
        path as it is written.

    Raises:
        UserError: A name without a suffix means two files.
    """
    folders = _Folders(root)
    settled, files = [], []
    counts = dict.fromkeys(('backslash', 'suffix', 'form'), 0)
    for name in names:
        file = name
        if not os.path.lexists(os.path.join(root, name)):
            file = name.replace('\\', '/')
            counts['backslash'] += file != name
            name = file
            if not os.path.lexists(os.path.join(root, file)):
                file, how = folders.find(name)
                if how:
                    counts[how] += 1
                    name = clean(file) if how == 'suffix' else name
        settled.append(name)
        files.append(file)
    if counts['backslash']:
        notes.append(f'{counted(counts["backslash"], "path has", "paths have")} backslashes, read as slashes')
    if counts['suffix']:
        notes.append(f'{counted(counts["suffix"], "path names its file", "paths name their files")} without the suffix')
    if counts['form']:
        notes.append(f'{counted(counts["form"], "path is", "paths are")} written in another form of Unicode than the '
                     'name of the file')
    return settled, files


class _Folders:
    """What lies in folders, read once each."""

    def __init__(self, root: Path):
        self.root = root
        self.known: Dict[str, Tuple[Dict[str, str], Dict[str, List[str]]]] = {}

    def find(self, name: str) -> Tuple[str, str]:
        """Return the path of the file that a name means, and what differs: 'form', 'suffix', '' where there is none."""
        folder, last = os.path.split(name)
        by_name, by_stem = self._in(folder)
        if clean(last) in by_name:
            return os.path.join(folder, by_name[clean(last)]), 'form'
        files = by_stem.get(clean(last), [])
        if len(files) > 1:
            raise UserError(f'{name} names several files in {shown_path(self.root / folder)}: '
                            f'{", ".join(map(clean, files[:3]))}; write the suffix.')
        return (os.path.join(folder, files[0]), 'suffix') if files else (name, '')

    def _in(self, folder: str) -> Tuple[Dict[str, str], Dict[str, List[str]]]:
        if folder not in self.known:
            try:
                there = sorted(os.listdir(self.root / folder))
            except (OSError, ValueError):
                there = []
            by_stem: Dict[str, List[str]] = {}
            for file in filter(is_image_name, there):
                by_stem.setdefault(clean(file).rpartition('.')[0], []).append(file)
            self.known[folder] = {clean(file): file for file in there}, by_stem
        return self.known[folder]
