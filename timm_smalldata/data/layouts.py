"""Folders in the layouts of published benchmarks: landmarks, copies, videos, objects; no image is decoded here."""
import io
import pickle
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

import numpy as np

from ..errors import UserError
from ..utils.text import natural_key
from .formats import is_image_name

NEEDED = {  # for arrays of positions, as Python 2 and 3 write them, and no more
    'numpy': ('ndarray', 'dtype'), 'numpy.core.multiarray': ('_reconstruct', 'scalar'),
    'numpy._core.multiarray': ('_reconstruct', 'scalar'), '_codecs': ('encode',), '__builtin__': ('bytes',),
    'builtins': ('bytes',)}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if name in NEEDED.get(module, ()):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f'it names {module}.{name}')


class Landmarks(NamedTuple):
    """Images of the database, queries with their boxes (left, top, right, bottom), and what is right for each."""
    database: List[Path]
    queries: List[Path]
    boxes: List[Optional[Tuple[float, ...]]]
    answers: List[Dict[str, List[int]]]


def images_in(folder: Path) -> List[Path]:
    """Return the images directly in a folder, in the order of their names; none where there is no folder."""
    if not folder.is_dir():
        return []
    return sorted((file for file in folder.iterdir() if is_image_name(file.name) and not file.name.startswith('.')),
                  key=lambda file: natural_key(file.name))


def find_landmarks(root: Path) -> Landmarks:
    """Read a folder as roxford5k and rparis6k are given out: `gnd_NAME.pkl` beside `jpg/` with the images.

    The pickle (or the same as `gnd_NAME.json`) has `imlist`, `qimlist`, names without suffix, and `gnd`, for each query
    `easy`, `hard` and `junk`, positions in `imlist`, and `bbx`. Nothing in it is run.

    Raises:
        UserError: There is no such file, it holds something else, or an image is not there.
    """
    files = [file for pattern in ('gnd_*.pkl', 'gnd_*.json') for file in sorted(root.glob(pattern))]
    if not files:
        raise UserError(f'{root} has no gnd_NAME.pkl (or .json) beside jpg/, as roxford5k and rparis6k have.')
    try:
        if files[0].suffix == '.json':
            import json
            truth = json.loads(files[0].read_text(encoding='utf-8'))
        else:
            truth = _Unpickler(io.BytesIO(files[0].read_bytes()), encoding='latin1').load()
        names, asked, rows = list(truth['imlist']), list(truth['qimlist']), list(truth['gnd'])
        answers = [{key: np.asarray(row.get(key, []), dtype=np.int64).ravel().tolist()
                    for key in ('easy', 'hard', 'junk')} for row in rows]
        boxes = [tuple(map(float, row['bbx'])) if row.get('bbx') is not None else None for row in rows]
    except Exception as error:  # a damaged pickle shows as one of many kinds
        raise UserError(f'{files[0]} is not a list of queries and answers: {error}.') from error
    wrong = [index for answer in answers for index in sum(answer.values(), []) if not 0 <= index < len(names)]
    if len(rows) != len(asked) or not asked or wrong:
        raise UserError(f'{files[0]}: {len(asked)} queries, {len(rows)} answers, {len(names)} images'
                        + (f', and an answer at position {wrong[0]}.' if wrong else '.'))
    by_stem = {file.stem: file for file in images_in(root / 'jpg')}
    missing = [name for name in [*names, *asked] if name not in by_stem]
    if missing:
        raise UserError(f'{root / "jpg"} lacks {len(missing)} of the images that {files[0].name} names; the first: '
                        f'{missing[0]}.')
    return Landmarks([by_stem[name] for name in names], [by_stem[name] for name in asked], boxes, answers)


class Copies(NamedTuple):
    """Originals; copies by block, with what each is a copy of; images for nothing; images to whiten by."""
    originals: List[Path]
    blocks: Dict[str, List[Tuple[Path, List[int]]]]
    distractors: List[Path]
    whitening: List[Path]


def find_copies(root: Path) -> Copies:
    """Read a folder as Copydays is given out: `original/`, and copies in `strong/`, `jpegqual/N/` or others.

    A copy has the name of its original, or (as those in `strong/`) begins with the same four characters. `distractors/`
    and `whitening/` may hold other images.

    Raises:
        UserError: There are no originals or no copies, or a copy is of nothing.
    """
    originals = images_in(root / 'original')
    if not originals:
        raise UserError(f'{root} has no images in original/, as Copydays has, with copies in folders beside it.')
    folders = [
        folder for folder in sorted(root.rglob('*'), key=lambda folder: natural_key(str(folder)))
        if folder.is_dir() and folder.relative_to(root).parts[0] not in ('original', 'distractors', 'whitening')]
    blocks: Dict[str, List[Tuple[Path, List[int]]]] = {}
    for folder in folders:
        pairs = [(file, _originals_of(file, originals)) for file in images_in(folder)]
        if pairs:
            blocks[folder.relative_to(root).as_posix()] = pairs
    if not blocks:
        raise UserError(f'{root} has no copies beside original/: name their folder as you like, such as strong/.')
    return Copies(originals, blocks, images_in(root / 'distractors'), images_in(root / 'whitening'))


def _originals_of(file: Path, originals: List[Path]) -> List[int]:
    same = [place for place, other in enumerate(originals) if other.stem == file.stem]
    same = same or [place for place, other in enumerate(originals) if other.stem[:4] == file.stem[:4]]
    if not same:
        raise UserError(f'{file} is a copy of no image in original/: it needs the name of one, or its first four '
                        'characters.')
    return same


class Video(NamedTuple):
    """Frames in their order, and the mask of each, None where there is none."""
    name: str
    frames: List[Path]
    masks: List[Optional[Path]]


def find_videos(root: Path) -> List[Video]:
    """Read a folder as DAVIS is given out: `JPEGImages/480p/NAME/`, `Annotations/480p/NAME/` with a PNG for a frame.

    The level `480p` may be left out. `ImageSets/2017/val.txt` (or `2016/`) names the videos, where it is there; else
    all are taken.

    Raises:
        UserError: There are no videos, or one has no mask of its first frame.
    """
    images, masks = (root / part / '480p' if (root / part / '480p').is_dir() else root / part
                     for part in ('JPEGImages', 'Annotations'))
    lists = [root / 'ImageSets' / year / 'val.txt' for year in ('2017', '2016')]
    chosen = next((file for file in lists if file.is_file()), None)
    if chosen is not None:
        names = list(dict.fromkeys(
            Path(line.split()[0]).stem if '2017' in chosen.parts else Path(line.split()[0]).parent.name
            for line in chosen.read_text(encoding='utf-8').splitlines() if line.strip()))
    else:
        names = sorted((folder.name for folder in images.iterdir() if folder.is_dir()) if images.is_dir() else [],
                       key=natural_key)
    videos = []
    for name in names:
        frames = images_in(images / name)
        known = {file.stem: file for file in images_in(masks / name)}
        if len(frames) < 3 or frames[0].stem not in known:
            raise UserError(f'{images / name} needs three frames or more, and {masks / name} a mask of the first.')
        videos.append(Video(name, frames, [known.get(frame.stem) for frame in frames]))
    if not videos:
        raise UserError(f'{root} has no videos in JPEGImages/480p/NAME/, with masks in Annotations/480p/NAME/, as '
                        'DAVIS has.')
    return videos


def find_objects(root: Path) -> List[Tuple[Path, Path]]:
    """Read a folder as PASCAL VOC is given out: images in `JPEGImages/`, their masks in `SegmentationObject/`.

    `SegmentationClass/` serves where the first is not there. `ImageSets/Segmentation/val.txt` names the images, where
    it is there; else all that have a mask are taken.

    Returns:
        Images with their masks.

    Raises:
        UserError: There are none.
    """
    folder = next((root / name for name in ('SegmentationObject', 'SegmentationClass') if (root / name).is_dir()), None)
    images = {file.stem: file for file in images_in(root / 'JPEGImages')}
    masks = {file.stem: file for file in images_in(folder)} if folder is not None else {}
    chosen = root / 'ImageSets' / 'Segmentation' / 'val.txt'
    names = chosen.read_text(encoding='utf-8').split() if chosen.is_file() else [
        name for name in images if name in masks]
    missing = [name for name in names if name not in images or name not in masks]
    if missing or not names:
        raise UserError(f'{root} needs images in JPEGImages/ and a mask of each in SegmentationObject/ or '
                        'SegmentationClass/, as PASCAL VOC has' + (f'; {missing[0]} lacks one.' if missing else '.'))
    return [(images[name], masks[name]) for name in names]
