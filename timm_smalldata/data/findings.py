"""What is to be known of a set of images before a training: broken, twice, mislabelled, rare, odd."""
import re
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, field
from typing import Any, Dict, List, Sequence, Tuple

import numpy as np

from .survey import Survey, equal_images, near_pairs

KINDS = {  # kind: what it means, in the order of weight
    'broken': 'cannot be read',
    'across splits': 'the same image in two splits: results look better than they are',
    'two labels': 'the same image under two classes',
    'classes differ': 'classes that are not in every split',
    'likely wrong label': 'models that were not trained on the image say another class, from the surest on',
    'look alike across splits': 'images in two splits that show the same',
    'look alike, two labels': 'images under two classes that show the same',
    'twice': 'the same image twice in one split',
    'look alike': 'images in one split that show the same',
    'few images': 'classes with few training images',
    'odd size': 'images whose size is far from that of the others',
    'odd mode': 'images of another kind than nearly all',
    'odd brightness': 'images that are nearly black, nearly white, or of one colour',
    'series': 'names that look like series of one object',
}
ERRORS = ('broken', 'across splits', 'two labels', 'classes differ')


@dataclass
class Finding:
    """One thing that was found.

    Attributes:
        kind: Which of `KINDS`.
        text: What it is, in words.
        images: Names of the images that it is about, each with its split and label.
    """
    kind: str
    text: str
    images: List[Dict[str, str]] = field(default_factory=list)

    @property
    def is_error(self) -> bool:
        """Whether it makes a training or its result wrong."""
        return self.kind in ERRORS

    def to_dict(self) -> Dict[str, Any]:
        """Return it as plain JSON values."""
        return dict(asdict(self), error=self.is_error)


def find_all(
        seen: Survey, least: int = 10, progress: Any = None, more: Sequence[Finding] = (),
) -> List[Finding]:
    """Return all that is to be known, in the order of `KINDS`.

    Args:
        seen: The images.
        least: Classes with fewer training images are named.
        progress: tqdm bar of the comparison of all pairs.
        more: What was found elsewhere.
    """
    found = [
        *(finding_of(seen, 'broken', f'{seen.names[i]}: {reason}', [i]) for i, reason in seen.bad.items()),
        *(_same(seen, group, '', 'twice') for group in equal_images(seen)),
        *(_same(seen, list(pair), 'look alike', 'look alike') for pair in near_pairs(seen, progress=progress)),
        *_classes(seen, least), *_odd(seen), *_series(seen), *more]
    order = list(KINDS)
    return sorted(found, key=lambda finding: order.index(finding.kind))


def finding_of(seen: Survey, kind: str, text: str, indices: Sequence[int]) -> Finding:
    """Return a finding about some of the images."""
    return Finding(kind, text, [
        dict(name=seen.names[i], split=seen.splits[i], label=seen.labels[i]) for i in indices])


def _same(seen: Survey, group: List[int], how: str, kind: str) -> Finding:
    """Return what it means that images are, or look, the same."""
    splits, labels = {seen.splits[i] for i in group}, {seen.labels[i] for i in group}
    if len(labels) > 1:
        kind = f'{how}, two labels' if how else 'two labels'
    elif len(splits) > 1:
        kind = f'{how} across splits'.strip()
    text = (' ~ ' if how else ' = ').join(seen.names[i] for i in group)
    return finding_of(seen, kind, text + (f' ({", ".join(sorted(labels))})' if len(labels) > 1 else ''), group)


def _classes(seen: Survey, least: int) -> List[Finding]:
    by_split: Dict[str, Counter] = defaultdict(Counter)
    for i, (split, label) in enumerate(zip(seen.splits, seen.labels)):
        by_split[split][label] += i not in seen.bad
    training = by_split.get('train') or by_split.get('all') or Counter()
    found = []
    for split, counts in by_split.items():
        unknown = sorted(set(counts) - set(training))
        absent = sorted(label for label in training if not counts[label])
        if unknown:
            found.append(Finding('classes differ', f'{split} has classes that train lacks: {_some(unknown)}'))
        if absent:
            found.append(Finding('classes differ', f'{split} has no image of {_some(absent)}'))
    found += [Finding('few images', f'{label}: {n}') for label, n in sorted(training.items(), key=lambda item: item[1])
              if n < least]
    return found


def _some(names: List[str]) -> str:
    return ', '.join(names[:12]) + (f', ... ({len(names) - 12} more)' if len(names) > 12 else '')


def _odd(seen: Survey) -> List[Finding]:
    good = [i for i in range(len(seen)) if i not in seen.bad]
    if not good:
        return []
    side = np.log(seen.sizes[good].min(1))
    shape = np.log(seen.sizes[good, 0] / seen.sizes[good, 1])
    found = []
    away = np.maximum(np.abs(side - np.median(side)), np.abs(shape - np.median(shape)))
    for i, far in zip(good, away):
        if far > np.log(4):
            width, height = seen.sizes[i]
            found.append(finding_of(seen, 'odd size', f'{seen.names[i]}: {width} x {height} px', [i]))
    modes = Counter(seen.modes[i] for i in good)
    usual, most = modes.most_common(1)[0]
    if most > 0.9 * len(good):
        found += [finding_of(seen, 'odd mode', f'{seen.names[i]}: {seen.modes[i]}, not {usual}', [i])
                  for i in good if seen.modes[i] != usual]
    for i in good:
        bright = seen.brightness[i]
        what = 'nearly black' if bright < 8 else 'nearly white' if bright > 247 else (
            'of one colour' if seen.contrast[i] < 1 else '')
        if what:
            found.append(finding_of(seen, 'odd brightness', f'{seen.names[i]}: {what} (mean {bright:.0f} of 255)', [i]))
    return found


def _series(seen: Survey) -> List[Finding]:
    """Suggest a group where most names are `WORD_NUMBER`, with many words that have several numbers."""
    groups: Dict[Tuple[str, str], int] = Counter()
    for name, label in zip(seen.names, seen.labels):
        match = re.search(r'([^/]+)[_-]\d+\.\w+$', name)
        if match:
            groups[match.group(1), label] += 1
    several = [n for n in groups.values() if n > 1]
    if len(several) < 2 * len(set(seen.labels)) or sum(several) < len(seen) / 2:
        return []
    first = next(word for (word, _), n in groups.items() if n > 1)
    return [Finding('series', f'{len(several)} series of names, such as {first}_1, {first}_2: if each is one object, '
                              "--group-regex '([^/]+)[_-]\\d+\\.\\w+$' keeps it on one side")]
