"""Split and index files: plain JSON that names every image, with a hash that says it was not changed."""
import hashlib
import json
from typing import Any, Dict, Iterable, Mapping, Optional, Sequence

import numpy as np

from ..errors import UserError
from ..utils.files import write_json_atomic
from ..utils.text import clean


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
    write_json_atomic(path, {
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
    write_json_atomic(path, {'sha256': digest, 'names': kept})
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


def read_json(path: str, key: str) -> Dict:
    """Return the content of a JSON file of ours that must hold `key`; anything else is one clear line."""
    try:
        with open(path, encoding='utf-8') as file:
            content = json.load(file)
    except (OSError, ValueError, RecursionError) as e:
        reason = e.strerror if isinstance(e, OSError) else f'not JSON ({e})'
        raise UserError(f'{path}: cannot be read: {reason}.') from None
    if not isinstance(content, dict) or not {key, 'sha256'} <= set(content):
        raise UserError(f'{path}: holds no {key!r} with a sha256; was it written by this program?')
    return content


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
    alike = {clean(name): i for i, name in enumerate(names)}  # the file may come from a system with another form
    found = {name: positions.get(name, alike.get(clean(name), -1)) for name in needed}
    missing = [name for name, position in found.items() if position < 0]
    if missing:
        shown = ', '.join(map(repr, missing[:3])) + (', ...' if len(missing) > 3 else '')
        raise UserError(f'{path}: {len(missing)} of its {len(needed)} images are not in the data: {shown}. '
                        'Was it made for other data?')
    if len(positions) < len(names):
        raise UserError(f'{path}: cannot be used with data in which {len(names) - len(positions)} image names repeat.')
    return found


def _lookup(positions: Dict[str, int], names: Sequence[str]) -> np.ndarray:
    return np.array([positions[name] for name in names], dtype=np.int64)


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(name, str) for name in value)
