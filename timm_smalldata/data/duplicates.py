"""Images that are byte for byte the same in two roles, or under two labels."""
from typing import Dict, Iterable, List, Optional

import numpy as np

from .source import ImageSource, Joined, Subset


def count_duplicates(roles: Dict[str, Optional[ImageSource]], notes: List[str]) -> int:
    """Count the images that an earlier role has byte for byte too, and say so; they stay where they are."""
    seen: Dict[str, Dict[bytes, str]] = {}
    count = 0
    for role, source in roles.items():
        if source is None:
            continue
        digests = [bytes(digest) for digest in digests_of(source)]
        for earlier, names in seen.items():
            pairs = [f'{name} = {names[d]}' for name, d in zip(source.names, digests) if d in names]
            if pairs:
                are = f'images of {role} are byte for byte images' if len(pairs) > 1 else (
                    f'image of {role} is byte for byte an image')
                notes.append(f'{len(pairs)} {are} of {earlier} (first: {pairs[0]})')
        count += sum(any(d in names for names in seen.values()) for d in digests)
        seen[role] = dict(zip(digests, source.names))
    return count


def count_two_labels(sources: Iterable[Optional[ImageSource]]) -> int:
    """Count the images, each of them once, that are byte for byte the same under two labels."""
    label: Dict[bytes, int] = {}
    twice = set()
    for source in sources:
        if source is None:
            continue
        for digest, target in zip(map(bytes, digests_of(source)), source.targets.tolist()):
            if label.setdefault(digest, target) != target:
                twice.add(digest)
    return len(twice)


def digests_of(source: ImageSource) -> np.ndarray:
    """Return the per-image digests that travelled with the cache, through subsets and joins."""
    if isinstance(source, Subset):
        return digests_of(source.source)[source.indices]
    if isinstance(source, Joined):
        return np.concatenate([digests_of(s) for s in source.sources])
    return source.digests  # type: ignore[attr-defined]
