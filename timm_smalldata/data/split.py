"""How images are held out: stratified by class, whole groups on one side, and split files that prove what was held.

Every choice is a function of (labels, seed, groups) alone. No class ever loses its last training image.
"""
import hashlib
import json
import os
import re
import warnings
from typing import Any, Dict, Iterable, List, Mapping, Optional, Sequence, Tuple

import numpy as np
from numpy.typing import ArrayLike

from ..errors import UserError


def held_per_class(counts: ArrayLike, fraction: float) -> np.ndarray:
    """Return how many images each class gives away: `min(n - 1, max(1 if n >= 4 else 0, fraction * n rounded))`.

    Halves round up. A class with one image gives none, one with four or more always gives at least one.

    >>> held_per_class([1, 2, 3, 4, 100], 0.1).tolist()
    [0, 0, 0, 1, 10]
    """
    n = np.asarray(counts, dtype=np.int64)
    rounded = np.floor(fraction * n + 0.5).astype(np.int64)
    return np.maximum(np.minimum(n - 1, np.maximum(n >= 4, rounded)), 0)


def hold_out(
        targets: ArrayLike,
        fraction: float,
        seed: int,
        groups: Optional[ArrayLike] = None,
) -> Tuple[np.ndarray, np.ndarray]:
    """Hold out a fraction of every class.

    Each class gives `held_per_class` images. With groups, whole groups move: in random order a group is held when that
    brings the classes in it closer to these numbers, then every class still without a held image gives its smallest
    group, unless that would take some class's last training image (so a class within one group stays in training).

    Args:
        targets: Label of each image (N,).
        fraction: Part to hold out, between 0 and 1.
        seed: Which images are held.
        groups: Key of each image (N,), an animal or a patient, say; images that share a key stay together.

    Returns:
        Kept and held positions, int64, ascending. `classes_without_held` names the classes that gave none.

    Raises:
        UserError: The fraction is out of range or groups and targets differ in length.

    >>> kept, held = hold_out([0] * 10 + [1] * 5 + [2], 0.2, seed=0)
    >>> len(kept), len(held)
    (13, 3)
    """
    if not 0 < fraction < 1:
        raise UserError(f'The held-out fraction must lie between 0 and 1 (0.2 holds out a fifth), got {fraction}.')
    label, counts = _dense(targets)
    wanted = held_per_class(counts, fraction)
    rng = np.random.RandomState(seed)
    if groups is None:
        order = _shuffled_by_class(label, rng)
        rank = np.arange(len(label)) - (np.cumsum(counts) - counts)[label[order]]  # place of the image in its class
        mask = np.zeros(len(label), dtype=bool)
        mask[order[rank < wanted[label[order]]]] = True
    else:
        mask = _hold_groups(label, wanted, _group_numbers(groups, len(label)), rng)
    return np.flatnonzero(~mask), np.flatnonzero(mask)


def folds(
        targets: ArrayLike,
        k: int,
        seed: int,
        groups: Optional[ArrayLike] = None,
) -> List[np.ndarray]:
    """Divide the images into k stratified folds for cross-validation.

    An image that is the only one of its class is in no fold, so it is trained on in all of them; with groups, the same
    holds for a group that a class cannot do without in its fold. Folds are empty where images or groups run out.

    Args:
        targets: Label of each image (N,).
        k: Number of folds, at least 2.
        seed: Which image goes where.
        groups: Key of each image (N,); images that share a key stay in one fold.

    Returns:
        k ascending int64 arrays of held-out positions, disjoint.

    Raises:
        UserError: k is below 2, or groups and targets differ in length.

    >>> [fold.tolist() for fold in folds([0, 0, 0, 0, 1], k=2, seed=0)]
    [[1, 2], [0, 3]]
    """
    if k < 2:
        raise UserError(f'Cross-validation needs at least 2 folds, got {k}: check --fold.')
    label, counts = _dense(targets)
    if groups is None:
        # Dealing out a class-sorted shuffle puts any two images of a small class into different folds.
        order = _shuffled_by_class(label, np.random.RandomState(seed))
        order = order[counts[label[order]] > 1]
        return [np.sort(order[i::k]) for i in range(k)]

    from sklearn.model_selection import StratifiedGroupKFold
    group = _group_numbers(groups, len(label))
    # scikit-learn refuses k when every class is smaller; k made-up images of one more class, each its own group, help.
    padded = np.append(label, np.full(k, len(counts)))
    padded_group = np.append(group, len(label) + np.arange(k))
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', UserWarning)  # that some classes are smaller than k is expected here
        splits = list(StratifiedGroupKFold(k, shuffle=True, random_state=seed).split(padded, padded, padded_group))
    return [_release(label, counts, group, held[held < len(label)]) for _, held in splits]


def classes_without_held(targets: ArrayLike, held: np.ndarray) -> List[int]:
    """Return the classes (ascending) that have images but none among those held out: nothing measures them.

    >>> classes_without_held([0, 0, 1, 2, 2], held=[1, 4])
    [1]
    """
    labels = np.asarray(targets)
    return np.setdiff1d(labels, labels[np.asarray(held, dtype=np.int64)]).tolist()


def parse_fold(text: str) -> Tuple[int, int]:
    """Read `i/k`: the i-th of k folds, counted from 1.

    >>> parse_fold('2/5')
    (2, 5)
    """
    match = re.fullmatch(r'\s*(\d+)\s*/\s*(\d+)\s*', str(text))
    i, k = map(int, match.groups()) if match else (0, 0)
    if k < 2 or not 1 <= i <= k:
        raise UserError(f"--fold {text!r} is not a fold: write I/K with K at least 2 and I from 1 to K, such as '1/5'.")
    return i, k


def group_keys(names: Sequence[str], regex: str) -> np.ndarray:
    """Return the group of each image: what the first bracket (or else all) of `regex` finds in its relative name.

    >>> group_keys(['cat/tom_1.jpg', 'cat/tom_2.jpg', 'cat/kit_1.jpg'], r'([a-z]+)_').tolist()
    ['tom', 'tom', 'kit']
    """
    try:
        pattern = re.compile(regex)
    except re.error as e:
        raise UserError(f'The group pattern {regex!r} is not a regular expression: {e}.') from None
    keys = []
    for name in names:
        match = pattern.search(name)
        key = match.group(min(pattern.groups, 1)) if match else None
        if key is None:
            raise UserError(f'The group pattern {regex!r} finds no group in the image name {name!r}; '
                            'every image needs one.')
        keys.append(key)
    return np.array(keys, dtype=str)


def write_split(path: str, split: Mapping[str, Sequence[str]], extra: Optional[Dict] = None) -> str:
    """Write which image plays which role (train, val, ...) to a JSON file, atomically.

    Args:
        path: File to write; its folder is made if need be.
        split: Image names of each role.
        extra: Whatever should be remembered of how the split was made; plain JSON values.

    Returns:
        sha256 over the sorted (role, name) pairs: the same for equal splits in any order.

    Raises:
        UserError: An image is listed twice.
    """
    digest = _split_hash(split, path)
    _write_json(path, {
        'sha256': digest, 'extra': extra or {}, 'split': {role: list(names) for role, names in split.items()}})
    return digest


def read_split(path: str, names: Sequence[str]) -> Dict[str, np.ndarray]:
    """Read a split file back as positions in `names`.

    Args:
        path: File from `write_split`.
        names: Names of the images at hand; those that the file does not mention play no role.

    Returns:
        Ascending int64 positions of each role.

    Raises:
        UserError: The file is missing, unreadable, or changed since it was written; an image of it is not at hand, or
            is listed twice (then training images would leak into the test).
    """
    content = read_json(path, 'split')
    split = content['split']
    if not isinstance(split, dict) or not all(map(_is_names, split.values())):
        raise UserError(f'{path}: not a split file (no list of image names for each role).')
    _check_hash(path, content['sha256'], _split_hash(split, path))
    positions = _positions(names, [name for listed in split.values() for name in listed], path)
    return {role: np.sort(_lookup(positions, listed)) for role, listed in split.items()}


def write_indices(path: str, indices: Sequence[int], names: Sequence[str]) -> str:
    """Write which images were kept (of a long tail, say), in their order, by name; return the sha256 over the list."""
    kept = [names[int(i)] for i in indices]
    digest = _hash(kept)
    _write_json(path, {'sha256': digest, 'names': kept})
    return digest


def read_indices(path: str, names: Sequence[str]) -> np.ndarray:
    """Read a file from `write_indices` back as int64 positions in `names`, in the order in which they were written.

    Raises:
        UserError: As for `read_split`.
    """
    content = read_json(path, 'names')
    kept = content['names']
    if not _is_names(kept):
        raise UserError(f'{path}: not an index file (no list of image names).')
    _check_hash(path, content['sha256'], _hash(kept))
    return _lookup(_positions(names, kept, path), kept)


def _dense(targets: ArrayLike) -> Tuple[np.ndarray, np.ndarray]:
    """Return labels renumbered without gaps (N,), and their counts."""
    _, label, counts = np.unique(np.asarray(targets), return_inverse=True, return_counts=True)
    return label, counts


def _shuffled_by_class(label: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
    """Return all positions, class after class, shuffled within each."""
    order = rng.permutation(len(label))
    return order[np.argsort(label[order], kind='stable')]


def _group_numbers(groups: ArrayLike, length: int) -> np.ndarray:
    groups = np.asarray(groups)
    if len(groups) != length:
        raise UserError(f'There are {len(groups)} group keys for {length} images: give one for each.')
    return np.unique(np.asarray(groups), return_inverse=True)[1]


def _hold_groups(label: np.ndarray, wanted: np.ndarray, group: np.ndarray, rng: np.random.RandomState) -> np.ndarray:
    """Return a mask (N,) of held images made of whole groups; see `hold_out`."""
    sizes = np.bincount(group)
    members = np.split(np.argsort(group, kind='stable'), np.cumsum(sizes)[:-1])
    contents = [np.unique(label[m], return_counts=True) for m in members]  # classes of a group, images of each
    left = np.bincount(label)
    missing = wanted.copy()
    held = np.zeros(len(sizes), dtype=bool)
    order = rng.permutation(len(sizes))

    def can_go(g: int) -> bool:
        c, n = contents[g]
        return not held[g] and bool((left[c] > n).all())

    def hold(g: int) -> None:
        c, n = contents[g]
        held[g], left[c], missing[c] = True, left[c] - n, missing[c] - n

    for g in order:
        c, n = contents[g]
        if can_go(g) and np.abs(missing[c] - n).sum() < np.abs(missing[c]).sum():
            hold(g)
    for c in np.argsort(wanted, kind='stable'):
        if wanted[c] > 0 and missing[c] == wanted[c]:  # nothing of this class is held yet
            choices = [g for g in order[np.isin(order, group[label == c])] if can_go(g)]
            if choices:
                hold(min(choices, key=lambda g: sizes[g]))
    return held[group]


def _release(label: np.ndarray, counts: np.ndarray, group: np.ndarray, held: np.ndarray) -> np.ndarray:
    """Give groups back to training, smallest first, until no class is held out entirely."""
    while True:
        emptied = np.flatnonzero(np.bincount(label[held], minlength=len(counts)) == counts)
        if not len(emptied):
            return np.sort(held)
        candidates = np.unique(group[held[label[held] == emptied[0]]])
        smallest = min(candidates, key=lambda g: np.sum(group[held] == g))
        held = held[group[held] != smallest]


def _hash(lines: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(line.encode('utf-8', 'surrogatepass') + b'\n')
    return digest.hexdigest()


def _split_hash(split: Mapping[str, Sequence[str]], path: str) -> str:
    pairs = [(role, name) for role, listed in split.items() for name in listed]
    roles: Dict[str, str] = {}
    for role, name in pairs:
        if name in roles:
            raise UserError(f'{path}: the image {name!r} is listed twice, in {roles[name]!r} and in {role!r}; '
                            'an image may play one role only.')
        roles[name] = role
    return _hash(f'{role}\0{name}' for role, name in sorted(pairs))


def _check_hash(path: str, stored: Any, computed: str) -> None:
    if stored != computed:
        raise UserError(f'{path}: its names do not match its sha256; the file was changed after it was written. '
                        'Restore it, or make the split again.')


def _positions(names: Sequence[str], needed: Sequence[str], path: str) -> Dict[str, int]:
    positions = {name: i for i, name in enumerate(names)}
    missing = [name for name in needed if name not in positions]
    if missing:
        shown = ', '.join(map(repr, missing[:3])) + (', ...' if len(missing) > 3 else '')
        raise UserError(f'{path}: {len(missing)} of its {len(needed)} images are not in the data: {shown}. '
                        'Was it made for other data?')
    if len(positions) < len(names):
        raise UserError(f'{path}: cannot be used with data in which {len(names) - len(positions)} image names repeat.')
    return positions


def _lookup(positions: Dict[str, int], names: Sequence[str]) -> np.ndarray:
    return np.array([positions[name] for name in names], dtype=np.int64)


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)


def read_json(path: str, key: str) -> Dict:
    """Return the content of a JSON file of ours that must hold `key`; anything else is one clear line."""
    try:
        with open(path, encoding='utf-8') as file:
            content = json.load(file)
    except (OSError, ValueError) as e:
        reason = e.strerror if isinstance(e, OSError) else f'not JSON ({e})'
        raise UserError(f'{path}: cannot be read: {reason}.') from None
    if not isinstance(content, dict) or not {key, 'sha256'} <= set(content):
        raise UserError(f'{path}: holds no {key!r} with a sha256; was it written by this program?')
    return content


def _write_json(path: str, content: Dict) -> None:
    """Write beside the file, then rename over it: a reader sees the old file or the new one, never half of one."""
    path = os.path.abspath(path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    temporary = f'{path}.{os.getpid()}.tmp'
    try:
        with open(temporary, 'w', encoding='utf-8') as file:
            json.dump(content, file, indent=1)
            file.write('\n')
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        if os.path.exists(temporary):
            os.unlink(temporary)
