"""What is trained: timm `TrainingTask`s with the hooks that our loop calls."""
from .base import TaskHooks, TaskSetting, with_hooks
from .classification import ClassificationTask
from .factory import TASKS, create_task

__all__ = ['TASKS', 'ClassificationTask', 'TaskHooks', 'TaskSetting', 'create_task', 'with_hooks']
