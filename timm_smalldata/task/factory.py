"""Tasks by name."""
from typing import Any, Type

from torch import nn

from ..errors import UserError, nearest
from .base import TASKS, TaskHooks


def task_class(name: str) -> Type[TaskHooks]:
    """Return the class of a task."""
    if name not in TASKS:
        raise UserError(f'Unknown --task {name!r}{nearest(name, TASKS)}; known: {", ".join(sorted(TASKS))}.')
    return TASKS[name]


def create_task(name: str, model: nn.Module, **kwargs: Any) -> Any:
    """Create a training task.

    Args:
        name: A key of `TASKS`.
        model: Any timm model.
        **kwargs: Arguments of the task, e.g. `criterion` and `device` for 'classification', `num_images` for
            'idmm'.

    Raises:
        ValueError: Unknown name.
    """
    if name not in TASKS:
        raise ValueError(f'Unknown task {name!r}{nearest(name, TASKS)}; known: {", ".join(sorted(TASKS))}.')
    create: Any = TASKS[name]  # each takes arguments of its own
    return create(model, **kwargs)
