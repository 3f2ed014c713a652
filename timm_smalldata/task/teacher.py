"""The teacher of a distillation: how its classes go with the student's, and whether it takes images of its size."""
from typing import Any, List, Optional, Sequence

import torch

from ..data.classes import listed
from ..errors import UserError


def match_classes(
        names: Optional[Sequence[str]], num_classes: int, ours: Sequence[str], where: str,
) -> Optional[List[int]]:
    """Return for each of our classes the teacher's output, or None where they come in the same order.

    Args:
        names: The teacher's class names, if it tells them; otherwise its outputs are taken in our order.
        num_classes: Its outputs.
        ours: Our class names.
        where: The teacher, for the error.

    Raises:
        UserError: Other classes.

    >>> match_classes(['bee', 'ant'], 2, ['ant', 'bee'], 'x')
    [1, 0]
    """
    if names is None:
        if num_classes != len(ours):
            raise UserError(
                f'--teacher {where} has {num_classes} outputs and names no classes; here are {len(ours)} classes: '
                f'{listed(ours)}.')
        return None
    if sorted(names) != sorted(ours):
        raise UserError(
            f'--teacher {where} knows other classes. The teacher ({len(names)}): {listed(names)}. '
            f'Here ({len(ours)}): {listed(ours)}.')
    order = [list(names).index(name) for name in ours]
    return None if order == list(range(len(ours))) else order


def check_size(model: Any, size: Sequence[int], num_classes: int, where: str) -> None:
    """Raise a UserError for a teacher that cannot take images of its own size (height, width)."""
    device = next(model.parameters()).device
    try:
        with torch.no_grad():
            shape = tuple(model(torch.zeros(1, 3, *size, device=device)).shape)
    except Exception as error:
        raise UserError(
            f'--teacher {where} cannot take RGB images of {size[0]} x {size[1]} pixels: {str(error)[:200]}') from error
    if shape != (1, num_classes):
        raise UserError(f'--teacher {where} gives {shape} for an image, not (1, {num_classes}) logits.')
