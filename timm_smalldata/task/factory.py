"""Tasks by name."""
from typing import Any, Dict

from timm.task import TrainingTask
from torch import nn

from ..errors import UserError, nearest
from .classification import ClassificationTask
from .contrastive import SimCLRTask, SupConTask
from .deit_lt import DeiTLTTask
from .dino import DINOTask
from .idmm import InstanceDiscriminationTask
from .mae import MAETask
from .paco import PaCoTask

TASKS: Dict[str, Any] = {
    'classification': ClassificationTask,
    'deit-lt': DeiTLTTask,
    'dino': DINOTask,
    'idmm': InstanceDiscriminationTask,
    'mae': MAETask,
    'paco': PaCoTask,
    'simclr': SimCLRTask,
    'supcon': SupConTask,
}


def task_class(name: str) -> Any:
    """Return the class of a task."""
    if name not in TASKS:
        raise UserError(f'Unknown --task {name!r}{nearest(name, TASKS)}; known: {", ".join(TASKS)}.')
    return TASKS[name]


def create_task(name: str, model: nn.Module, **kwargs: Any) -> TrainingTask:
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
        raise ValueError(f'Unknown task {name!r}{nearest(name, TASKS)}; known: {", ".join(TASKS)}.')
    return TASKS[name](model, **kwargs)
