"""How images are held out: stratified by class, whole groups on one side.

Every choice is a function of (labels, seed, groups) alone. No class ever loses its last training image.
"""
import re
import warnings
from typing import List, Optional, Sequence, Tuple

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
