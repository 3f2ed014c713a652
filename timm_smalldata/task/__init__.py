"""What is trained: timm `TrainingTask`s with the hooks that our loop calls."""
from .base import TASKS, TaskHooks, TaskSetting, with_hooks
from .classification import ClassificationTask
from .contrastive import SimCLRTask, SupConTask
from .cosub import CoSubTask
from .deit_lt import DeiTLTTask
from .dino import DINOTask
from .factory import create_task, task_class
from .headed import HeadedModel, HeadedTask
from .idmm import InstanceDiscriminationTask
from .kd import FeatureKDTask, LogitKDTask, TokenKDTask
from .mae import MAETask
from .paco import PaCoTask

__all__ = [
    'TASKS',
    'ClassificationTask',
    'CoSubTask',
    'DeiTLTTask',
    'DINOTask',
    'FeatureKDTask',
    'HeadedModel',
    'HeadedTask',
    'InstanceDiscriminationTask',
    'LogitKDTask',
    'MAETask',
    'PaCoTask',
    'SimCLRTask',
    'SupConTask',
    'TaskHooks',
    'TaskSetting',
    'TokenKDTask',
    'create_task',
    'task_class',
    'with_hooks',
]
