"""The hooks that the training loop calls on a task, each with a default that does the plain thing.

A timm `TrainingTask` computes a loss; these hooks say which views it sees, how a batch is mixed, and what happens
before and after an update. Name `TaskHooks` before the timm class, or hand a stock timm task to `with_hooks`.
"""
from argparse import Namespace
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Optional, Tuple, Type, TypeVar

import torch
from timm.data import Mixup
from timm.task import TrainingTask
from timm.utils import dispatch_clip_grad
from torch import nn

from ..data.classes import ClassInfo
from ..data.loader import Batch
from ..data.views import ViewSpec


def no_teacher(name: str, path: Optional[str], num_classes: int) -> Tuple[nn.Module, Optional[List[str]]]:
    """Take the place of what loads a teacher, where nothing does; raises a ValueError."""
    raise ValueError(f'Nothing loads the teacher {name}: set load_teacher of the TaskSetting.')


@dataclass(frozen=True)
class TaskSetting:
    """What the train command knows when it creates a task.

    Attributes:
        classes: Names and training counts.
        num_images: Training images.
        view: The training view of a classifier at these flags: size, crop, augmentation, normalisation.
        device: Where the task lives.
        criterion: Makes the loss that the flags name, with the counts of the data; takes another `smoothing`.
        world_size: Processes that train together.
        load_teacher: `load_teacher(name, file of weights or None, number of classes)` returns a trained model, and the
            names of its classes where it tells them; by default it raises a ValueError.
    """
    classes: ClassInfo
    num_images: int
    view: ViewSpec
    device: torch.device
    criterion: Callable[..., nn.Module]
    world_size: int = 1
    load_teacher: Callable[[str, Optional[str], int], Tuple[nn.Module, Optional[List[str]]]] = no_teacher


TASKS: Dict[str, Type['TaskHooks']] = {}  # by name; a class with a name of its own puts itself in


Hooked = TypeVar('Hooked', bound='TaskHooks')


class TaskHooks(TrainingTask):
    """What the training loop calls on a task, beside what timm asks of it; it stands before timm's class of the task.

    Attributes:
        name: What `create_task` and `--task` call it; empty for a class that is no task by itself.
        predicted: Names of what `predict` returns; the metrics of the first one carry plain names.
        owns_ema: Whether the task's average of the weights is part of the method (a teacher), not a user's choice.
        supervised: Whether it trains a classifier; otherwise it is given the model without a head (`num_classes=0`).
        chance: Loss of a model that knows nothing; None where there is no such number.
    """
    name = ''
    predicted: Tuple[str, ...] = ('logits',)
    owns_ema = False
    supervised = True
    chance: Optional[float] = None

    view: Optional[ViewSpec] = None
    classes: Optional[ClassInfo] = None
    groups: Optional[Dict[str, List[int]]] = None
    mixup: Optional[Mixup] = None
    mixup_off_epoch = 0
    aug_splits = 0
    resplit = False
    clip_grad: Optional[float] = None
    clip_mode = 'norm'
    reweight: Optional[Tuple[int, torch.Tensor]] = None
    frozen = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if cls.__dict__.get('name'):
            TASKS[cls.name] = cls

    @classmethod
    def from_settings(cls, args: Namespace, model: nn.Module, setting: TaskSetting) -> 'TaskHooks':
        """Create the task as the train command's flags ask for; `configure` follows."""
        create: Any = cls  # a task takes a model, which timm's base does not
        return create(model, device=setting.device, verbose=False)

    @classmethod
    def model_kwargs(cls, args: Namespace, fixed_size: bool) -> Dict[str, Any]:
        """Return what the task needs of `timm.create_model`; `fixed_size`: the model is built for one image size."""
        return {}

    def configure(self: Hooked, **settings: Any) -> Hooked:
        """Set attributes of this class by name; returns the task."""
        for name, value in settings.items():
            if name not in vars(TaskHooks):
                raise TypeError(f'{type(self).__name__} has no setting {name!r}.')
            setattr(self, name, value)
        return self

    def views(self) -> List[ViewSpec]:
        """Return what the task wants to see of each image: one view, or several (JSD: the first one clean)."""
        if self.view is None:
            raise ValueError('The task has no view: call configure(view=ViewSpec(...)).')
        if self.aug_splits < 2:
            return [self.view]
        clean = self.view.clean()
        if not self.resplit:
            clean = ViewSpec(clean.size, clean.crop, clean.augment, self.view.erase, clean.mean, clean.std)
        return [clean] + [self.view] * (self.aug_splits - 1)

    def notes(self) -> List[str]:
        """Return lines that the user should read before the training starts."""
        return []

    def begin(self, epochs: int, updates_per_epoch: int, optimizer: torch.optim.Optimizer) -> None:
        """Called once before the first epoch of a process: the length of the run, for schedules that span it."""

    def reweighted(self) -> Any:
        """Return the loss to which deferred re-weighting hands class weights, by `set_class_weight`."""
        return getattr(self, 'criterion', None)

    def set_epoch(self, epoch: int) -> None:
        """Set what depends on the epoch alone."""
        if self.mixup is not None and self.mixup_off_epoch:
            self.mixup.mixup_enabled = epoch < self.mixup_off_epoch
        if self.reweight is not None:
            first, weights = self.reweight
            self.reweighted().set_class_weight(weights if epoch >= first else None)
        if self.frozen:  # what is not trained stands still: no dropout, no moving statistics
            trained = self.get_trainable_module()
            for module in () if trained is None else trained.modules():
                parameters = list(module.parameters())
                if parameters and not any(p.requires_grad for p in parameters):
                    module.eval()

    def before_step(self, update: int) -> None:
        """Called before the forward passes of an update."""

    def mix(self, batch: Batch) -> Tuple[Any, torch.Tensor]:
        """Return the input and target of one micro-batch; the batch itself stays as it is."""
        if len(batch.views) > 1:
            return torch.cat(batch.views), batch.target.repeat(len(batch.views))
        if self.mixup is None:
            return batch.views[0], batch.target
        return self.mixup(batch.views[0].clone(), batch.target)  # timm mixes in place

    def seen(self, batch: Batch) -> Dict[str, torch.Tensor]:
        """Return by name what the model sees of each image, normalised (B, 3, h, w): all views, after mixing."""
        input = self.mix(batch)[0]
        parts = list(input) if isinstance(input, list) else list(input.split(len(batch)))
        return {f'view {number}': part for number, part in enumerate(parts, 1)}

    def after_backward(self, update: int) -> None:
        """Called when the gradients of an update are complete: clipping."""
        if self.clip_grad is not None:
            parameters = self.get_clip_parameters(exclude_head='agc' in self.clip_mode)
            dispatch_clip_grad(parameters, value=self.clip_grad, mode=self.clip_mode)

    def after_step(self, update: int) -> None:
        """Called after the optimizer's step: averages and queues move here."""
        self.update_ema(step=update + 1)

    def predict(self, model: nn.Module, input: torch.Tensor) -> Dict[str, torch.Tensor]:
        """Return logits (or features) by name, one entry for each name in `predicted`."""
        return {self.predicted[0]: model(input)}

    def create_evaluator(self, **kwargs: Any) -> Any:
        """Return the long-tail evaluator where the classes are known, else timm's."""
        if self.classes is None:
            return super().create_evaluator(**kwargs)
        from ..evaluation import LongTailEvaluator
        return LongTailEvaluator(self.classes.counts, device=self.device, groups=self.groups, **kwargs)


def with_hooks(task: TrainingTask) -> Any:
    """Give a stock timm task the hooks; a task that has them is returned as it is."""
    if not isinstance(task, TaskHooks):
        task.__class__ = type(f'Hooked{type(task).__name__}', (TaskHooks, type(task)), {})
    return task
