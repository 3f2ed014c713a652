"""Many, medium and few: classes grouped by the number of images they were trained on."""
import re
from decimal import Decimal
from typing import Dict, List, Sequence, Union

import numpy as np
import torch

from ..errors import UserError

GROUPS = ('many', 'medium', 'few')
Counts = Union[Sequence[int], np.ndarray, torch.Tensor]


def shot_groups(class_counts: Counts, many: int = 100, few: int = 20) -> Dict[str, List[int]]:
    """Group classes by their number of training images, as ImageNet-LT results are reported.

    The cuts are those of OLTR (Liu et al., "Large-Scale Long-Tailed Recognition in an Open World", CVPR 2019,
    https://arxiv.org/abs/1904.05160, section 4): more than 100 images, 20 to 100, fewer than 20.

    Args:
        class_counts: Training images per class (C,), in any class order.
        many: A class with more images than this belongs to `many`.
        few: A class with fewer images than this belongs to `few`.

    Returns:
        'many', 'medium' and 'few', each an ascending list of class indices, empty where no class belongs to it.

    Raises:
        ValueError: A class would belong to `many` and to `few`.

    >>> shot_groups([101, 100, 20, 19])
    {'many': [0], 'medium': [1, 2], 'few': [3]}
    """
    if few > many + 1:
        raise ValueError(f'The cuts overlap: many is over {many} images and few is under {few}.')
    groups: Dict[str, List[int]] = {name: [] for name in GROUPS}
    for index, count in enumerate(torch.as_tensor(class_counts).tolist()):
        groups['many' if count > many else 'few' if count < few else 'medium'].append(index)
    return groups


def auto_shot_split(class_counts: Counts) -> str:
    """Return the cuts that `--shot-split auto` means: 100 and 20, or thirds of the classes where a group were empty.

    The thirds are cut between different counts, as near to a third and two thirds of the classes as that can be, so
    classes of equal counts stay together. With two different counts nothing lies between them, and classes that are all
    alike cannot be grouped by counts: those keep 100 and 20.

    Args:
        class_counts: Training images per class (C,).

    >>> auto_shot_split([500, 50, 5]), auto_shot_split([12, 8, 6]), auto_shot_split([9, 9, 3]), auto_shot_split([9, 9])
    ('counts:100,20', 'counts:8,8', 'counts:3,4', 'counts:100,20')
    """
    counts = sorted(torch.as_tensor(class_counts).tolist(), reverse=True)
    usual = 'counts:100,20'
    borders = [place for place in range(1, len(counts)) if counts[place - 1] > counts[place]]
    if all(shot_groups(counts).values()) or not borders:
        return usual
    first = min(borders[:-1] or borders, key=lambda place: abs(place - len(counts) / 3))
    after = [place for place in borders if place > first]
    if not after:
        return f'counts:{counts[first]},{counts[first] + 1}'
    second = min(after, key=lambda place: abs(place - 2 * len(counts) / 3))
    return f'counts:{counts[first]},{counts[second - 1]}'


def parse_shot_split(text: str, class_counts: Counts) -> Dict[str, List[int]]:
    """Read the value of `--shot-split`.

    Args:
        text: `counts:100,20` cuts by training images, as `shot_groups` does. `index:a,b` cuts the classes in the order
            of falling count (equal counts in class order): many [0, a), medium [a, b), few [b, C), as DeiT-LT
            (https://arxiv.org/abs/2404.02900) reports its results. With a point they are shares of the classes, cut
            down to whole ones: `index:0.36,0.71` is 36 and 71 of 100, 3 and 7 of 10. `auto` is what `auto_shot_split`
            returns.
        class_counts: Training images per class (C,).

    Returns:
        The groups, as from `shot_groups`.

    Raises:
        UserError: The text is neither form, or its cuts do not fit the classes.

    >>> parse_shot_split('index:1,3', [5, 900, 30, 30])
    {'many': [1], 'medium': [2, 3], 'few': [0]}
    """
    counts = np.asarray(torch.as_tensor(class_counts).tolist())
    text = auto_shot_split(counts) if text.strip() == 'auto' else text
    match = re.fullmatch(r'(counts|index):([0-9]+),([0-9]+)|index:(0\.[0-9]+),(0\.[0-9]+)', text.strip())
    if match is None:
        raise _bad_split(text, 'not one of its forms')
    if match[1] is None:  # as decimals: 0.29 * 100 is less than 29 in binary
        first, second = (int(Decimal(share) * len(counts)) for share in match.groups()[3:])
    else:
        first, second = int(match[2]), int(match[3])
    if match[1] == 'counts':
        if second > first + 1:
            raise _bad_split(text, 'its cuts overlap, the larger one comes first')
        return shot_groups(counts, many=first, few=second)
    if not first <= second <= len(counts):
        raise _bad_split(text, f'its cuts must rise and end at the number of classes, {len(counts)}')
    order = np.argsort(-counts, kind='stable')
    return {name: sorted(part.tolist()) for name, part in zip(GROUPS, np.split(order, [first, second]))}


def _bad_split(text: str, why: str) -> UserError:
    return UserError(
        f'--shot-split {text!r}: {why}. Write counts:100,20 (many: over 100 training images, few: under 20) '
        'or index:36,71 (classes by falling count: the first 36, up to the 71st, the rest), also as shares, '
        'index:0.36,0.71, or auto.')
