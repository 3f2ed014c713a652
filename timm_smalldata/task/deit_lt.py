"""Distillation through a token: DeiT, and with class weights from a late epoch on DeiT-LT."""
from argparse import Namespace
from typing import Any, Dict, List, Optional, Sequence, Tuple

import torch
import torch.nn.functional as F
from timm.task import TokenDistillationTask
from timm.utils import unwrap_model
from torch import nn

from ..data.loader import Batch
from ..data.views import ViewSpec
from ..errors import UserError
from ..loss import CrossEntropy
from ..loss.distillation import hard_term, soft_term
from .base import TaskSetting
from .teacher import at_size, check_size, match_classes
from .wrapping import WrappedModelTask

PREDICTED = ('avg', 'cls', 'dist')
KINDS = ('hard', 'soft', 'none')


def two_heads(model: Any, tokens: torch.Tensor) -> Tuple[torch.Tensor, torch.Tensor]:
    """Return the logits (N, C) of the CLS and of the DIST head for the tokens (N, 2 + L, D) of `forward_features`."""
    return model.head(model.head_drop(tokens[:, 0])), model.head_dist(model.head_drop(tokens[:, 1]))


class DistilledStudent(nn.Module):
    """A distilled vision transformer that gives both heads, and the cosine of its two tokens, in one forward."""

    model: Any

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> Tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        tokens = self.model.forward_features(x)
        cls, dist = tokens[:, 0].detach().float(), tokens[:, 1].detach().float()
        return (*two_heads(self.model, tokens), F.cosine_similarity(cls, dist, eps=1e-6).mean())

    def no_weight_decay(self) -> set:
        return {f'model.{name}' for name in self.model.no_weight_decay()}


class DeiTLTTask(WrappedModelTask, TokenDistillationTask):
    """The class token learns the labels, the distillation token what a teacher says of the same augmented images.

    DeiT-LT (Rangwani et al., CVPR 2024, https://arxiv.org/abs/2404.02900); without `reweight` it is DeiT's
    distillation (Touvron et al., ICML 2021, https://arxiv.org/abs/2012.12877). From the epoch of `reweight` on the
    DIST loss is weighted by the teacher's class, and (`mixup_off_drw`) mixing and label smoothing end. The teacher
    is no part of a checkpoint.

    Args:
        model: timm model with a distillation token, e.g. 'deit_tiny_distilled_patch16_224'.
        teacher: A trained timm classifier; here in evaluation mode, without gradients. Of no use to kind 'none'.
        criterion: Loss of the CLS head.
        drw_criterion: The same without label smoothing, for the epochs of `reweight`; by default `criterion`.
        alpha: Share of the DIST loss.
        order: Output of the teacher for each class of the student; None: in the same order.
        teacher_renorm: 'none': the teacher sees the student's normalisation, as published; 'auto': its own.
        teacher_view: 'student': the teacher sees what the student sees, as published; 'weak': another crop, with a
            mirror image only, mixed as the student's.
        kind: 'hard': the DIST head learns the teacher's class; 'soft': its probabilities at `temperature`; 'none': the
            labels, by cross-entropy, weighted by the true class (the plain student of the published code).
        temperature: Of 'soft'.
        mixup_off_drw: End mixing and label smoothing when the weights begin.
        fusion: Prediction whose metrics carry plain names and select: 'avg' (of the logits), 'cls' or 'dist'.
        device: Where the task lives.
        dtype: As in timm.
        verbose: As in timm.

    Raises:
        ValueError: The model has no distillation token, or an unknown choice.

    >>> import timm
    >>> small = dict(img_size=32, patch_size=8, embed_dim=24, num_heads=2, depth=1, num_classes=3)
    >>> task = DeiTLTTask(timm.create_model('deit_tiny_distilled_patch16_224', **small),
    ...                   timm.create_model('resnet20_cifar', num_classes=3), verbose=False)
    >>> result = task(torch.randn(2, 3, 32, 32), torch.tensor([0, 2]))
    >>> sorted(task.predict(task.get_eval_model(), torch.randn(2, 3, 32, 32)))
    ['avg', 'cls', 'dist']
    """
    name = 'deit-lt'
    model_name, part_name = 'model', ''

    def __init__(
            self,
            model: nn.Module,
            teacher: Optional[nn.Module],
            criterion: Optional[nn.Module] = None,
            drw_criterion: Optional[nn.Module] = None,
            alpha: float = 0.5,
            order: Optional[Sequence[int]] = None,
            teacher_renorm: str = 'none',
            teacher_view: str = 'student',
            mixup_off_drw: bool = True,
            fusion: str = 'avg',
            kind: str = 'hard',
            temperature: float = 1.0,
            device: Optional[torch.device] = None,
            dtype: Optional[torch.dtype] = None,
            verbose: bool = True,
    ):
        student: Any = unwrap_model(model)
        if not all(hasattr(student, name) for name in ('dist_token', 'head_dist', 'set_distilled_training')):
            raise ValueError(
                f'{type(student).__name__} has no distillation token: take a distilled model, such as '
                'deit_tiny_distilled_patch16_224.')
        for value, known in ((teacher_renorm, ('none', 'auto')), (teacher_view, ('student', 'weak')),
                             (fusion, PREDICTED), (kind, KINDS)):
            if value not in known:
                raise ValueError(f'{value!r} is none of {", ".join(known)}.')
        if teacher is None and kind != 'none':
            raise ValueError(f'{kind} distillation needs a teacher.')
        super().__init__(
            student_model=model, teacher_model=nn.Identity() if teacher is None else teacher,
            criterion=criterion or CrossEntropy(), distill_type='hard', task_loss_weight=1 - alpha, device=device,
            dtype=dtype, verbose=verbose)
        self.teacher.requires_grad_(False)
        self.trainable_module = DistilledStudent(model)
        self.kind, self.temperature = kind, temperature
        self.drw_criterion = drw_criterion or self.criterion
        self.teacher_renorm, self.teacher_view, self.mixup_off_drw = teacher_renorm, teacher_view, mixup_off_drw
        self.predicted = (fusion, *(name for name in PREDICTED if name != fusion))
        taught: Any = student if teacher is None else unwrap_model(self.teacher.model)
        self.teacher_size = tuple(taught.pretrained_cfg['input_size'][-2:])
        self.teacher_named, self.deferred = True, False
        self.class_weight: Optional[torch.Tensor]
        self.order: Optional[torch.Tensor]
        self.register_buffer('class_weight', None, persistent=False)
        self.register_buffer('order', None if order is None else torch.tensor(list(order)), persistent=False)
        self.to(self.device)

    @classmethod
    def from_settings(cls, args: Namespace, model: nn.Module, setting: TaskSetting) -> 'DeiTLTTask':
        if args.fusion != 'avg' and any((args.posthoc_tau, args.tau_norm, args.temperature)):
            raise UserError(
                f'--fusion {args.fusion} does not go with --posthoc-tau, --tau-norm and --temperature, which judge the '
                'average of the heads, as the exported model gives it.')
        ours, order, names = setting.classes.names, None, None
        kind, teacher = args.kd_token_distill_type, None
        if kind != 'none':
            teacher, names = setting.load_teacher(args.teacher, args.teacher_path, len(ours))
            order = match_classes(names, teacher.num_classes, ours, args.teacher)  # type: ignore[arg-type]
        try:
            task = cls(
                model, teacher, setting.criterion(), setting.criterion(smoothing=0.0), args.distillation_alpha, order,
                args.teacher_renorm, args.teacher_view, args.mixup_off_drw, args.fusion, kind, args.kd_temperature,
                device=setting.device, verbose=False)
        except ValueError as error:
            raise UserError(f'--task deit-lt with --model {args.model}: {error}') from error
        if teacher is not None:
            check_size(teacher, task.teacher_size, len(ours), args.teacher)
        task.teacher_named = names is not None
        return task

    def notes(self) -> List[str]:
        lines = [] if self.kind == 'none' else self.notes_of_teacher()
        if self.reweight is None:
            lines.append({
                'hard': 'no --drw-epoch: plain hard distillation, as in DeiT',
                'soft': 'no --drw-epoch: plain soft distillation, as in DeiT',
                'none': 'no teacher and no --drw-epoch: both heads learn the labels'}[self.kind])
        elif self.mixup_off_drw:
            lines.append(f'from epoch {self.reweight[0] + 1} on mixing and label smoothing are off (--no-mixup-off-drw '
                         'keeps them)')
        if self.predicted[0] != 'avg':
            lines.append(f'plain metrics are those of {self.predicted[0]}; the exported model, called by itself, gives '
                         'the average of both heads')
        return lines

    def notes_of_teacher(self) -> List[str]:
        """Return lines about the teacher and what it sees."""
        teacher: Any = unwrap_model(self.teacher.model)
        size = ' x '.join(map(str, self.teacher_size))
        sees = 'what the student sees' if self.teacher_view == 'student' else 'a crop and mirror image of its own'
        norm = "the student's" if self.teacher_renorm == 'none' else 'its own'
        lines = [
            f'teacher: {type(teacher).__name__}, {sum(p.numel() for p in teacher.parameters()) / 1e6:.2f} M '
            f'parameters, sees {sees} at {size} px in {norm} normalisation']
        config: Any = teacher.pretrained_cfg
        own = tuple(tuple(config[name]) for name in ('mean', 'std'))
        if self.teacher_renorm == 'none' and own != self.normalisation():
            lines.append('the teacher was trained with another normalisation, and may know little in this one: '
                         '--teacher-renorm auto gives it its own')
        if not self.teacher_named:
            lines.append('the teacher names no classes: its outputs are taken in the order of the classes here')
        return lines

    # --- what it sees -----------------------------------------------------------------------------------------------

    def views(self) -> List[ViewSpec]:
        if self.view is None:
            raise ValueError('The task has no view: call configure(view=ViewSpec(...)).')
        weak = self.teacher_view == 'weak' and self.kind != 'none'
        return [self.view, self.view.clean()] if weak else [self.view]

    def reweighted(self) -> Any:
        return self

    def set_class_weight(self, class_weight: Optional[torch.Tensor]) -> None:
        """Weigh the DIST loss from now on; None means no weights."""
        self.class_weight = None if class_weight is None else torch.as_tensor(
            class_weight, dtype=torch.float32, device=self.device)

    def set_epoch(self, epoch: int) -> None:
        super().set_epoch(epoch)
        self.deferred = self.reweight is not None and epoch >= self.reweight[0]

    def mix(self, batch: Batch) -> Tuple[torch.Tensor, torch.Tensor]:
        """Return the images (B, 3, h, w), or (B, 6, h, w) with the teacher's behind the student's, and the target."""
        images = torch.cat(batch.views, dim=1)  # a copy, which timm may mix in place; both views in the same way
        if self.mixup is None or (self.deferred and self.mixup_off_drw):
            return images, batch.target
        return self.mixup(images, batch.target)

    def seen(self, batch: Batch) -> Dict[str, torch.Tensor]:
        """Return what student and teacher see."""
        images = self.mix(batch)[0]
        if self.kind == 'none':
            return {'student': images}
        return {'student': images[:, :3], 'teacher': at_size(images[:, -3:], self.teacher_size)}

    def normalisation(self) -> Tuple[Tuple[float, ...], Tuple[float, ...]]:
        """Return mean and standard deviation by which the images are normalised."""
        config: Any = self.get_eval_model().pretrained_cfg
        mean, std = (config['mean'], config['std']) if self.view is None else (self.view.mean, self.view.std)
        return tuple(mean), tuple(std)

    @torch.no_grad()
    def teach(self, images: torch.Tensor) -> torch.Tensor:
        """Return the teacher's logits (N, C), in the student's classes, for images as the student's loader has them."""
        if self.teacher_renorm == 'auto':
            used = (images.new_tensor(x).view(1, 3, 1, 1) for x in self.normalisation())
            images = self.teacher.normalize_input(images, *used)
        logits = self.teacher(at_size(images, self.teacher_size))
        return logits if self.order is None else logits[:, self.order]

    # --- training and evaluation ------------------------------------------------------------------------------------

    def forward(self, input: torch.Tensor, target: torch.Tensor) -> Dict[str, torch.Tensor]:
        """Compute the loss.

        Args:
            input: Images (N, 3, h, w), or (N, 6, h, w): the student's and, behind them, the teacher's.
            target: Class indices (N,) or dense rows (N, C).

        Returns:
            `loss`; `output`, the mean of both heads' logits; detached scalars `loss_cls`, `loss_dist`, `token_cosine`,
            `disagreement` of the heads and (not of kind 'none') `teacher_top1` (of a mixed image: its larger class) in
            percent, `teacher_entropy` in nats.
        """
        cls, dist, cosine = self.trainable_module(input[:, :3])
        criterion = self.drw_criterion if self.deferred and self.mixup_off_drw else self.criterion
        with torch.autocast(cls.device.type, enabled=False):
            loss_cls = criterion(cls.float(), target)
        said = None if self.kind == 'none' else self.teach(input[:, -3:])
        loss_dist = self.loss_dist(dist, target, said)
        alpha = 1 - self.task_loss_weight
        with torch.no_grad():
            told = dict(
                loss_cls=loss_cls.detach(), loss_dist=loss_dist.detach(), token_cosine=cosine.detach(),
                disagreement=100 * (cls.argmax(dim=1) != dist.argmax(dim=1)).float().mean())
            if said is not None:
                log_p, true = said.float().log_softmax(dim=1), target if target.ndim == 1 else target.argmax(dim=1)
                told.update(
                    teacher_top1=100 * (said.argmax(dim=1) == true).float().mean(),
                    teacher_entropy=-(log_p.exp() * log_p).sum(dim=1).mean())
        return {'loss': (1 - alpha) * loss_cls + alpha * loss_dist, 'output': (cls + dist) / 2, **told}

    def loss_dist(self, dist: torch.Tensor, target: torch.Tensor, said: Optional[torch.Tensor]) -> torch.Tensor:
        """Return the loss of the DIST head (N, C) for what the teacher says (N, C), or for the labels."""
        if said is None:
            return CrossEntropy(class_weight=self.class_weight)(dist, target)
        if self.kind == 'soft':
            return soft_term(dist, said, self.class_weight, self.temperature)
        return hard_term(dist, said, self.class_weight)

    def predict(self, model: nn.Module, input: torch.Tensor) -> Dict[str, torch.Tensor]:
        """Return the logits of both heads and their mean, which is what the model itself gives in evaluation mode."""
        student: Any = unwrap_model(model)
        cls, dist = two_heads(student, student.forward_features(input))
        return {'avg': (cls + dist) / 2, 'cls': cls, 'dist': dist}

    # --- what timm asks of a task -----------------------------------------------------------------------------------

    def get_clip_parameters(self, exclude_head: bool = False) -> List[nn.Parameter]:
        student = self.get_eval_model()
        heads = {id(p) for layer in student.get_classifier() for p in layer.parameters()} if exclude_head else set()
        return [p for p in student.parameters() if id(p) not in heads]

    def compile(  # type: ignore[override]
            self,
            backend: str = 'inductor',
            mode: Optional[str] = None,
            **compile_kwargs: Any,
    ) -> Optional[nn.Module]:
        """Compile the student and the teacher; returns the plain student, which shares its weights."""
        self.teacher.compile(backend=backend, mode=mode, **compile_kwargs)
        return super().compile(backend=backend, mode=mode, **compile_kwargs)
