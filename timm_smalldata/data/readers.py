"""Sources behind names and paths: folders and tars, files one by one, torchvision and Hugging Face data sets."""
import os
import stat
import tarfile
from collections import defaultdict
from pathlib import Path, PurePosixPath
from typing import Any, Dict, List, Optional, Sequence, Tuple, Union

import numpy as np
from PIL import Image

from .. import _compat
from ..errors import UserError
from ..utils.text import alike, clean, natural_key, shown_path
from .formats import MOST_BYTES
from .listing import Listing, list_folder, list_tar
from .source import ImageSource, Relabelled

_FLAGS = os.O_RDONLY | getattr(os, 'O_BINARY', 0) | getattr(os, 'O_NONBLOCK', 0)


class ReaderSource(ImageSource):
    """Images behind one of timm's readers."""

    def __init__(self, reader: Any, names: List[str], targets: Any, classes: List[str]):
        self.reader = reader
        self.names = names
        self.targets = np.asarray(targets, dtype=np.int64)
        self.classes = classes

    def raw(self, index: int) -> bytes:
        stream, *_ = self.reader[index]
        with stream:
            return stream.read()


class TorchSource(ImageSource):
    """A torchvision data set; its images arrive decoded, so the raw bytes are those of the pixels."""

    def __init__(self, dataset: Any, split: str = 'train'):
        self.dataset = dataset
        targets = getattr(dataset, 'targets', None)
        if targets is None:
            samples: Any = getattr(dataset, 'samples', None) or getattr(dataset, 'imgs', ())
            targets = [target for _, target in samples]
        self.targets = np.asarray(targets, dtype=np.int64)
        if self.targets.ndim != 1 or not len(self.targets):
            raise UserError(f'{type(dataset).__name__} has no plain class labels that can be read without its images.')
        self.classes = [str(c) for c in getattr(dataset, 'classes', None) or range(int(self.targets.max()) + 1)]
        self.names = [f'{split}/{i:07d}' for i in range(len(self.targets))]

    def raw(self, index: int) -> bytes:
        return self.dataset[index][0].tobytes()

    def read(self, index: int) -> Tuple[Image.Image, int]:
        return self.dataset[index][0].convert('RGB'), int(self.targets[index])


class PathSource(ImageSource):
    """Image files one by one.

    Args:
        root: Folder that relative paths start from.
        names: Name of each image.
        targets: Label of each image.
        classes: Names of the classes.
        files: Path of each image; by default its name.
    """
    parallel = True

    def __init__(self, root: Path, names: List[str], targets: Any, classes: List[str],
                 files: Optional[Sequence[Union[str, Path]]] = None):
        self.root, self.names, self.classes = root, names, classes
        self._folder = str(root) if root != Path() else ''
        self.targets = np.asarray(targets, dtype=np.int64)
        self.files = names if files is None else files

    def raw(self, index: int) -> bytes:
        return read_file(os.path.join(self._folder, self.files[index]))


class TarSource(ImageSource):
    """Images in a tar, read where they lie.

    Args:
        path: The tar.
        members: For each image the tar inside it that holds it (None: the tar itself), and the member.
        names: Name of each image.
        targets: Label of each image.
        classes: Names of the classes.
    """

    def __init__(self, path: Path, members: Sequence[Tuple[Any, Any]], names: List[str], targets: Any,
                 classes: List[str]):
        self.path, self.members, self.names, self.classes = path, members, names, classes
        self.targets = np.asarray(targets, dtype=np.int64)
        self._open: Dict[Any, Any] = {}

    def __getstate__(self) -> Dict:
        return {**self.__dict__, '_open': {}}

    def raw(self, index: int) -> bytes:
        outer, member = self.members[index]
        if member.size > MOST_BYTES:
            raise ValueError(f'a file of {member.size >> 20} MB; at most {MOST_BYTES >> 20} MB are read')
        tar = self._opened(None)
        if outer is not None:
            tar = self._opened(outer)
        try:
            with tar.extractfile(member) as stream:
                return stream.read()
        except tarfile.TarError as error:
            raise OSError(f'the tar is damaged there: {error}') from error

    def _opened(self, outer: Any) -> Any:
        key = None if outer is None else outer.offset
        if key not in self._open:
            self._open[key] = tarfile.open(self.path, 'r:') if outer is None else tarfile.open(
                fileobj=self._opened(None).extractfile(outer), mode='r:')
        return self._open[key]


def read_file(path: Union[str, Path]) -> bytes:
    """Return the content of a regular file; what would never end (a pipe, a device) is not waited for.

    Raises:
        OSError, ValueError: There is no such file, or it is too large.
    """
    handle = os.open(path, _FLAGS)  # a file object costs more than reading a small file does
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise OSError('a folder, not a file' if stat.S_ISDIR(status.st_mode) else 'not a regular file')
        if status.st_size > MOST_BYTES:
            raise ValueError(f'a file of {status.st_size >> 20} MB; at most {MOST_BYTES >> 20} MB are read')
        parts = [os.read(handle, status.st_size + 1)]
        while len(parts[-1]) and sum(map(len, parts)) < status.st_size:  # Linux reads 2 GiB at most at once
            parts.append(os.read(handle, status.st_size))
        return b''.join(parts)
    finally:
        os.close(handle)


def folder_source(root: Path, folder_labels: str = 'auto') -> Tuple[ImageSource, str]:
    """Read an image folder or tar.

    The class is the innermost folder, as in timm. That goes wrong when images of one class lie in sub-folders: where
    an innermost name occurs under several parents, or a folder holds images and sub-folders with images, the first
    level is the class ('auto'). 'leaf' and 'first' decide it by hand.

    Returns:
        The source and a sentence about what was found (empty when all was read and folders are plain).

    Raises:
        UserError: It cannot be read, holds no images, or images without a class.
    """
    listing = list_tar(root) if root.is_file() else list_folder(root)
    return labelled_source(root, listing, folder_labels)


def labelled_source(root: Path, listing: Listing, folder_labels: str = 'auto') -> Tuple[ImageSource, str]:
    """Put what was found in a folder or tar under the classes that its folders name; see `folder_source`."""
    names = listing.names
    if not names:
        what = ', '.join(f'{n} {what}' for what, n in listing.unread.items())
        raise UserError(f'No images found in {shown_path(root)}: expected {shown_path(root)}/CLASS/*.jpg (or png, '
                        'bmp, webp, tif, ...)' + (f'; not read: {what}.' if what else '.'))
    loose = [name for name in names if '/' not in name]
    if loose:
        raise UserError(
            f'{len(loose)} images lie directly in {shown_path(root)} (first: {loose[0]}) and so have no class: '
            'put each image into a folder named after its class.')
    labels, note = _labels_of(names, folder_labels)
    classes = sorted(sorted(set(labels)), key=natural_key)
    number = {name: i for i, name in enumerate(classes)}
    targets = [number[label] for label in labels]
    if root.is_file():
        source: ImageSource = TarSource(root, listing.places, names, targets, classes)
    else:
        source = PathSource(Path(), names, targets, classes, listing.places)
    return source, '; '.join(filter(None, [note, *listing.notes, alike(classes)]))


def _labels_of(names: List[str], rule: str) -> Tuple[List[str], str]:
    """Return the class of each name, and a sentence where folders are nested."""
    of_names = [name.rpartition('/')[0] for name in names]
    folders = list(dict.fromkeys(of_names))  # few beside the images
    parents = [PurePosixPath(folder) for folder in folders]
    nested = any(len(folder.parts) > 1 for folder in parents)
    note = ''
    if rule == 'auto':
        parents = _unwrapped(parents)
        unique = set(parents)
        by_leaf = defaultdict(set)
        for folder in unique:
            by_leaf[folder.name].add(folder)
        ambiguous = any(len(where) > 1 for where in by_leaf.values())
        mixed = any(ancestor in unique for folder in unique for ancestor in folder.parents)
        rule = 'first' if ambiguous or mixed else 'leaf'
    if nested:
        what = 'first folder level' if rule == 'first' else 'innermost folder'
        note = f'nested folders: the {what} is the class (--folder-labels first|leaf decides it by hand)'
    label = {
        name: folder.parts[0] if rule == 'first' else folder.name for name, folder in zip(folders, parents)}
    return [label[name] for name in of_names], note


def _unwrapped(parents: List[PurePosixPath]) -> List[PurePosixPath]:
    """Return folders without those that wrap them all, as `photos/` in `photos/ant/` and `photos/bee/`."""
    while all(len(folder.parts) > 1 for folder in parents) and len({folder.parts[0] for folder in parents}) == 1:
        parents = [PurePosixPath(*folder.parts[1:]) for folder in parents]
    return parents


def torch_source(name: str, root: Optional[str], split: str, download: bool) -> ImageSource:
    """Open one of timm's `torch/...` data sets."""
    from timm.data import create_dataset
    try:
        dataset: Any = create_dataset(name, root=root or '.', split=split, download=download)
        source = TorchSource(dataset, split)
    except AssertionError as error:
        raise UserError(f'--dataset {name}: {error}') from error
    except (RuntimeError, OSError) as error:
        raise UserError(f'--dataset {name} (in {root}): {error} (--dataset-download fetches it)') from error
    samples = getattr(dataset, 'samples', None)
    if samples and isinstance(samples[0][0], str) and hasattr(dataset, 'loader'):  # files, which we decode ourselves
        return PathSource(Path(), source.names, source.targets, source.classes, [p for p, _ in samples])
    return source


def hfds_source(
        name: str, root: Optional[str], split: str, input_key: str, target_key: str, trust: bool) -> ImageSource:
    """Open a Hugging Face data set (map style) through timm's reader."""
    try:
        import datasets  # noqa: F401
    except ImportError as error:
        raise UserError(f"--dataset {name} needs the extra: pip install 'timm-smalldata[hfds]'.") from error
    try:
        reader = _compat.hfds_reader()(
            name.split('/', 1)[1], root=root, split=split, input_key=input_key or 'image',
            target_key=target_key or 'label', trust_remote_code=trust)
    except Exception as error:  # the library raises a dozen kinds; each says in its message what is missing
        raise UserError(f'--dataset {name}, split {split}: {error}'.replace('\n', ' ')) from error
    names = [f'{split}/{i:07d}' for i in range(len(reader))]
    by_index = {index: label for label, index in reader.class_to_idx.items()}
    targets = list(reader.iter_targets())
    classes = [str(by_index.get(i, i)) for i in range(max(list(by_index) + targets) + 1)]
    return ReaderSource(reader, names, targets, classes)


def relabel(source: ImageSource, classes: List[str]) -> ImageSource:
    """Put a source under a class list that holds all of its classes; names that differ in accents' form are one."""
    if source.classes == classes:
        return source
    number = {clean(name): i for i, name in enumerate(classes)}
    return Relabelled(source, classes, [number.get(clean(name), -1) for name in source.classes])
