"""The teacher of a distillation: its classes in the student's order, and images as large as it takes them."""
from typing import Any, List, Optional, Sequence, Tuple

import torch
import torch.nn.functional as F
from torch import nn

from ..data.classes import listed
from ..errors import UserError
from .headed import pooled_width


def at_size(images: torch.Tensor, size: Tuple[int, ...]) -> torch.Tensor:
    """Return images (N, 3, h, w) of a size (height, width): bicubic without antialiasing, as DeiT-LT does it."""
    if images.shape[-2:] == size:
        return images
    return F.interpolate(images, size, mode='bicubic', align_corners=False, antialias=False)


class FittedTeacher(nn.Module):
    """A trained timm classifier for a student: it resizes what it sees, and gives its classes in the student's order.

    Args:
        model: The classifier.
        order: Its output for each class of the student; None: in the same order.

    >>> import timm
    >>> teacher = FittedTeacher(timm.create_model('resnet20_cifar', num_classes=3).eval(), [2, 0, 1])
    >>> teacher(torch.zeros(2, 3, 48, 48)).shape, teacher.num_features
    (torch.Size([2, 3]), 64)
    """

    def __init__(self, model: nn.Module, order: Optional[Sequence[int]] = None):
        super().__init__()
        self.model: Any = model
        config: Any = self.model.pretrained_cfg
        self.pretrained_cfg, self.size = config, tuple(config['input_size'][-2:])
        self.num_features = pooled_width(model)
        self.order: Optional[torch.Tensor]
        self.register_buffer('order', None if order is None else torch.tensor(list(order)), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        logits = self.model(at_size(x, self.size))
        return logits if self.order is None else logits[:, self.order]

    def forward_features(self, x: torch.Tensor) -> torch.Tensor:
        return self.model.forward_features(at_size(x, self.size))

    def forward_head(self, x: torch.Tensor, pre_logits: bool = False) -> torch.Tensor:
        return self.model.forward_head(x, pre_logits=pre_logits)


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
