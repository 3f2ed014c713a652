"""Class names, their order and their training counts: one object that travels with every weight file."""
from dataclasses import asdict, dataclass
from typing import Any, Dict, List, Sequence

import numpy as np

from ..errors import UserError
from ..utils.text import clean, difference


@dataclass(frozen=True)
class ClassInfo:
    """What a classifier was trained on.

    Attributes:
        names: Class names; their position is the class index.
        counts: Training images per class, counted over the images really trained on.
        data_hash: sha256 over the sorted (relative path, bytes, label) of those images, or an empty string.
    """
    names: List[str]
    counts: List[int]
    data_hash: str = ''

    def __len__(self) -> int:
        return len(self.names)

    def to_dict(self) -> Dict:
        return asdict(self)

    @classmethod
    def from_dict(cls, state: Dict) -> 'ClassInfo':
        return cls(list(state['names']), [int(n) for n in state['counts']], state.get('data_hash', ''))


def dataset_targets(dataset: Any) -> np.ndarray:
    """Return the label of each image without decoding any.

    Args:
        dataset: Anything with labels that can be read without images: `targets`, `labels` or timm's `reader.samples`.

    Returns:
        int64 array (N,).

    Raises:
        ValueError: The data set offers no labels without decoding, as one that streams.
    """
    targets = getattr(dataset, 'targets', None)
    if targets is None:
        targets = getattr(dataset, 'labels', None)
    if targets is None and hasattr(getattr(dataset, 'reader', None), 'samples'):
        targets = [label for _, label in dataset.reader.samples]
    if targets is None:
        raise ValueError(
            f'{type(dataset).__name__} has no targets, labels or reader.samples to count without decoding: counts and '
            'samplers need a data set that knows its labels, not one that streams.')
    return np.asarray(targets, dtype=np.int64)


def class_counts(dataset: Any, num_classes: int = 0) -> np.ndarray:
    """Count the images of each class without decoding any.

    Args:
        dataset: See `dataset_targets`.
        num_classes: Least length of the answer; classes above the largest label get 0.

    Returns:
        int64 array (C,).

    Raises:
        ValueError: The data set offers no labels without decoding.

    >>> from types import SimpleNamespace
    >>> class_counts(SimpleNamespace(targets=[0, 2, 2]))
    array([1, 0, 2])
    """
    return np.bincount(dataset_targets(dataset), minlength=num_classes)


def check_same_classes(expected: Sequence[str], found: Sequence[str], where: str) -> None:
    """Raise a UserError that shows both lists when `found` holds a class that `expected` does not.

    Names are compared in one form of Unicode; of names that look alike all the same, the message shows what differs.
    """
    known = set(map(clean, expected))
    unknown = [name for name in found if clean(name) not in known]
    if unknown:
        alike = '; '.join(filter(None, (difference(name, expected) for name in unknown[:3])))
        raise UserError(
            f'The classes of {where} do not match: {listed(unknown)} not in the class list'
            f'{f" ({alike})" if alike else ""}. '
            f'Class list ({len(expected)}): {listed(expected)}. {where} ({len(found)}): {listed(found)}. '
            'Rename the folders, or name the list to use with --class-map.')


def listed(names: Sequence[str], most: int = 30) -> str:
    """Return names in one line, the first ones of many."""
    shown = ', '.join(map(str, names[:most]))
    return shown + (f', ... ({len(names) - most} more)' if len(names) > most else '')
