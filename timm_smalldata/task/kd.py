"""timm's own distillations, by logits, features or a token, with a teacher as the train command opens it."""
from argparse import Namespace
from typing import Any, Dict, List

import timm.task
import torch
from timm.utils import unwrap_model
from torch import nn

from ..errors import UserError
from .base import TaskHooks, TaskSetting
from .teacher import FittedTeacher, check_size, match_classes


class KDTask(TaskHooks):
    """What timm's three tasks share here: how the flags make one, and what it says of its teacher.

    The loss is timm's, and so is what its weights mean: `--task-loss-weight` and `--distill-loss-weight`, 1 each; of
    the first alone the second is the rest to 1. The teacher sees the student's images in its own normalisation, as in
    timm; at its own size, where timm hands it those of the student.

    Attributes:
        same_classes: Whether the teacher must know the student's classes.
    """
    same_classes = True
    teacher: Any
    student_mean: torch.Tensor
    student_std: torch.Tensor

    @classmethod
    def own_kwargs(cls, args: Namespace) -> Dict[str, Any]:
        """Return the arguments that timm's task has of its own."""
        raise NotImplementedError

    @classmethod
    def from_settings(cls, args: Namespace, model: nn.Module, setting: TaskSetting) -> 'KDTask':
        ours, order = setting.classes.names, None
        teacher, names = setting.load_teacher(args.teacher, args.teacher_path, len(ours))
        if cls.same_classes:
            order = match_classes(names, teacher.num_classes, ours, args.teacher)  # type: ignore[arg-type]
        fitted = FittedTeacher(teacher, order).to(setting.device)
        check_size(teacher, fitted.size, teacher.num_classes, args.teacher)  # type: ignore[arg-type]
        create: Any = cls
        try:
            task = create(
                model, fitted, criterion=setting.criterion(), distill_loss_weight=args.distill_loss_weight,
                task_loss_weight=args.task_loss_weight, device=setting.device, verbose=False, **cls.own_kwargs(args))
            task.teacher.requires_grad_(False)
            task.student_mean.copy_(torch.tensor(setting.view.mean).view(1, 3, 1, 1))
            task.student_std.copy_(torch.tensor(setting.view.std).view(1, 3, 1, 1))
            task.eval()
            with torch.no_grad():
                task.try_once(torch.zeros(1, 3, setting.view.size, setting.view.size, device=setting.device))
        except (ValueError, AttributeError, RuntimeError, NotImplementedError) as error:
            raise UserError(f'--task {args.task} with --model {args.model} and --teacher {args.teacher}: '
                            f'{str(error).splitlines()[0]}') from error
        return task

    def try_once(self, image: torch.Tensor) -> None:
        """Raise an error where student and teacher do not go together, seen on an image (1, 3, h, w)."""

    def notes(self) -> List[str]:
        fitted: Any = unwrap_model(self.teacher.model)
        count = sum(p.numel() for p in fitted.parameters()) / 1e6
        weights: Any = self
        return [
            f'teacher: {type(fitted.model).__name__}, {count:.2f} M parameters, sees what the student sees at '
            f'{fitted.size[0]} x {fitted.size[1]} px in its own normalisation; loss: {weights.task_loss_weight:g} of '
            f'the labels, {weights.distill_loss_weight:g} of the teacher']


class LogitKDTask(KDTask, timm.task.LogitDistillationTask):
    """timm's `LogitDistillationTask`: the student's probabilities follow the teacher's at a temperature.

    >>> import timm
    >>> student, teacher = (timm.create_model('resnet20_cifar', num_classes=3) for _ in range(2))
    >>> task = LogitKDTask(student, teacher, temperature=4.0, verbose=False)
    >>> sorted(task(torch.zeros(2, 3, 32, 32), torch.tensor([0, 2])))
    ['kd_loss', 'loss', 'output', 'task_loss']
    """
    name = 'kd-logit'

    @classmethod
    def own_kwargs(cls, args: Namespace) -> Dict[str, Any]:
        return dict(loss_type=args.kd_loss_type, temperature=args.kd_temperature)


class FeatureKDTask(KDTask, timm.task.FeatureDistillationTask):
    """timm's `FeatureDistillationTask`: pooled features follow the teacher's, through a linear layer where widths
    differ. The teacher may know other classes.

    >>> import timm
    >>> student = timm.create_model('test_vit', num_classes=3, img_size=32)
    >>> teacher = timm.create_model('resnet20_cifar', num_classes=7)
    >>> task = FeatureKDTask(student, teacher, verbose=False)
    >>> sorted(task(torch.zeros(2, 3, 32, 32), torch.tensor([0, 2])))
    ['kd_loss', 'loss', 'output', 'task_loss']
    """
    name = 'kd-feature'
    same_classes = False

    @classmethod
    def own_kwargs(cls, args: Namespace) -> Dict[str, Any]:
        return dict(student_feature_dim=args.kd_student_feature_dim, teacher_feature_dim=args.kd_teacher_feature_dim)

    def try_once(self, image: torch.Tensor) -> None:
        """timm's loss would stretch a width of 1 to any other, and warn of others."""
        ours, theirs = self.trainable_module(image)[1], self.teacher(image, return_features=True)
        if ours.shape != theirs.shape:
            raise ValueError(
                f"the student's features come out {ours.shape[1]} wide and the teacher's {theirs.shape[1]}: leave out "
                '--kd-student-feature-dim and --kd-teacher-feature-dim.')


class TokenKDTask(KDTask, timm.task.TokenDistillationTask):
    """timm's `TokenDistillationTask`: a distillation token follows the teacher's probabilities, or its class.

    >>> import timm
    >>> small = dict(img_size=32, patch_size=8, embed_dim=24, num_heads=2, depth=1, num_classes=3)
    >>> student = timm.create_model('deit_tiny_distilled_patch16_224', **small)
    >>> teacher = timm.create_model('resnet20_cifar', num_classes=3)
    >>> task = TokenKDTask(student, teacher, distill_type='hard', verbose=False)
    >>> sorted(task(torch.zeros(2, 3, 32, 32), torch.tensor([0, 2])))
    ['distill_loss', 'loss', 'output', 'task_loss']
    """
    name = 'kd-token'

    @classmethod
    def own_kwargs(cls, args: Namespace) -> Dict[str, Any]:
        return dict(distill_type=args.kd_token_distill_type, temperature=args.kd_temperature)

    def get_clip_parameters(self, exclude_head: bool = False) -> Any:
        student: Any = self.get_eval_model()
        heads = {id(p) for layer in student.get_classifier() for p in layer.parameters()} if exclude_head else set()
        return [p for p in student.parameters() if id(p) not in heads]
