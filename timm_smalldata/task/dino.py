"""DINO: a student learns from a teacher that is its own average, on crops of two sizes."""
import copy
import math
from argparse import Namespace
from dataclasses import replace
from itertools import groupby
from typing import Any, Dict, List, Optional, Sequence, Tuple

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import clip_grad_norm_

from ..data.loader import Batch
from ..data.views import Augment, Crop, ViewSpec
from ..errors import UserError
from ..loss.dino import DINOLoss, collapse_statistics
from ..models.projection import ProjectionHead
from .base import TaskSetting
from .headed import HeadedModel, HeadedTask, feature_width

GLOBAL = 2  # crops that the teacher sees
BLUR, SOLARIZE = (1.0, 0.1, 0.5), (0.0, 0.2, 0.0)  # probabilities: first global crop, second, local ones
VIEW = ViewSpec(224, Crop('rrc', scale=(0.4, 1.0)), Augment(None, (0.4, 0.4, 0.2, 0.1), 0.8, 0.2))


def cosine(step: int, steps: int, start: float, end: float) -> float:
    """Return a half cosine from `start` at step 0 to `end` at step `steps` and after it (DINO's schedules).

    >>> [round(cosine(step, 10, 0.04, 0.4), 4) for step in (0, 5, 12)]
    [0.04, 0.22, 0.4]
    """
    return end + 0.5 * (start - end) * (1 + math.cos(math.pi * min(step / max(steps, 1), 1)))


def warm_temperature(epoch: int, start: float, end: float, epochs: int) -> float:
    """Return the teacher's temperature: linear from `start`, reaching `end` in the last of `epochs` epochs, then `end`.

    >>> [round(warm_temperature(epoch, 0.04, 0.07, 3), 3) for epoch in range(5)]
    [0.04, 0.055, 0.07, 0.07, 0.07]
    """
    return end if epoch >= epochs else start + (end - start) * epoch / max(epochs - 1, 1)


class MultiCropModel(HeadedModel):
    """Backbone and head on a list of views: one pass of the backbone per size, one of the head for all."""

    def forward(self, views: Sequence[torch.Tensor]) -> List[torch.Tensor]:  # type: ignore[override]
        """Return the outputs of each view, list of (B, K); views of one size stand together."""
        sizes = groupby(views, key=lambda view: view.shape[-2:])
        features = torch.cat([self.backbone(torch.cat(list(group))) for _, group in sizes])
        return list(self.head(features).split([len(view) for view in views]))


class DINOTask(HeadedTask):
    """Self-distillation without labels (Caron et al., ICCV 2021, https://arxiv.org/abs/2104.14294).

    Two global crops and several small ones of each image. The teacher sees the global ones, the student all; the
    student's answer to a crop is drawn to the teacher's answers to the other crops (`loss.DINOLoss`). After every
    update the teacher moves towards the student. It gets no gradient, has neither dropout nor drop path, and its batch
    norms see its own batches. The teacher's backbone is what users get: it is the task's average of the weights.

    Temperature and frozen layer are functions of the epoch, momentum and weight decay of the update; without `begin`
    the last two stay at their first values.

    Args:
        model: timm model; it is used without its classifier. Fixed-size models (ViTs) need `dynamic_img_size=True`
            for local crops of another size: their position embedding is then interpolated.
        out_dim: Outputs K of the head.
        local_crops: Small crops of each image; 0: only the two global ones.
        local_size: Their side in pixels; default 3/7 of the view's, in whole patches (96 for 224).
        local_scale: Range of their area.
        student_temp: Temperature of the student.
        teacher_temp: Temperature of the teacher after its warm-up.
        warmup_teacher_temp: At its beginning.
        teacher_temp_epochs: Epochs of that warm-up; default 30, at most three tenths of the run.
        momentum: Share of the teacher that an update leaves, at the first and the last update; (0, 0): the teacher
            is the student.
        weight_decay_end: Weight decay at the end, a half cosine from the optimizer's own; groups without weight decay
            stay without. None: constant.
        freeze_last_layer: Epochs in which the last layer of the student is not trained.
        norm_last_layer: Hold its gain at 1.
        centering: Centre the teacher.
        sharpening: Otherwise the teacher is as warm as the student.
        device: Device of the task.
        dtype: Its dtype.
        verbose: timm's; nothing is logged here.

    Raises:
        ValueError: Crops that do not consist of whole patches, or sizes that the model does not take.

    >>> import timm
    >>> model = timm.create_model('test_vit', num_classes=0, img_size=32, patch_size=8, dynamic_img_size=True)
    >>> task = DINOTask(model, out_dim=64, local_crops=3).configure(view=VIEW.at(32))
    >>> [view.size for view in task.views()]
    [32, 32, 16, 16, 16]
    >>> sorted(task([torch.randn(2, 3, view.size, view.size) for view in task.views()]))
    ['loss', 'teacher_entropy', 'teacher_kl_uniform', 'teacher_mean_entropy']
    """
    name = 'dino'
    owns_ema = True
    view: Optional[ViewSpec] = VIEW
    module_class = MultiCropModel

    def __init__(
            self,
            model: nn.Module,
            out_dim: int = 65536,
            local_crops: int = 8,
            local_size: Optional[int] = None,
            local_scale: Tuple[float, float] = (0.05, 0.4),
            student_temp: float = 0.1,
            teacher_temp: float = 0.07,
            warmup_teacher_temp: float = 0.04,
            teacher_temp_epochs: Optional[int] = None,
            momentum: Tuple[float, float] = (0.996, 1.0),
            weight_decay_end: Optional[float] = 0.4,
            freeze_last_layer: int = 1,
            norm_last_layer: bool = True,
            centering: bool = True,
            sharpening: bool = True,
            device: Optional[torch.device] = None,
            dtype: Optional[torch.dtype] = None,
            verbose: bool = True,
    ):
        head = ProjectionHead(feature_width(model), out_dim, norm_last_layer=norm_last_layer)
        super().__init__(model, head, device, dtype, verbose)
        self.local_crops, self.local_size, self.local_scale = local_crops, local_size, tuple(local_scale)
        self.temperatures = (warmup_teacher_temp, teacher_temp) if sharpening else (student_temp, student_temp)
        self.teacher_temp_epochs = teacher_temp_epochs
        self.momentum, self.weight_decay_end = tuple(momentum), weight_decay_end
        self.freeze_last_layer = freeze_last_layer
        self.criterion = DINOLoss(
            out_dim, student_temp, self.temperatures[0], 0.9 if centering else 1.0).to(self.device)
        # outside the optimizer's reach, in timm's place for an average of the weights
        self.trainable_module_ema = copy.deepcopy(self.trainable_module).requires_grad_(False)
        self.epoch, self.epochs, self.updates = 0, 0, 0
        self.decays: List[Tuple[Dict[str, Any], float]] = []
        self.planned: Optional[int] = None
        self.means: List[torch.Tensor] = []  # of the teacher's outputs in this update, one (1, K) for each micro-batch

    @classmethod
    def from_settings(cls, args: Namespace, model: nn.Module, setting: TaskSetting) -> 'DINOTask':
        try:
            task = cls(
                model, args.dino_out_dim, args.dino_local_crops, args.dino_local_size, args.dino_local_scale,
                args.dino_student_temp, args.dino_teacher_temp, args.dino_warmup_teacher_temp,
                args.dino_teacher_temp_epochs, args.dino_momentum, args.dino_weight_decay_end,
                args.dino_freeze_last_layer, args.dino_norm_last_layer, args.dino_centering, args.dino_sharpening,
                device=setting.device, verbose=False).configure(view=setting.view)
            task.views()
        except ValueError as error:
            raise UserError(f'--task dino with --model {args.model}: {error}') from error
        if not args.time_budget:  # otherwise the epochs are not known yet
            batch = args.batch_size * setting.world_size * max(args.grad_accum_steps, 1)
            task.planned = (args.epochs + args.warmup_prefix * args.warmup_epochs) * setting.num_images // batch
        return task

    @classmethod
    def model_kwargs(cls, args: Namespace, fixed_size: bool) -> Dict[str, Any]:
        return dict(dynamic_img_size=True) if fixed_size and args.dino_local_crops else {}

    def notes(self) -> List[str]:
        sizes = [view.size for view in self.views()]
        local = f', {self.local_crops} local ones of {sizes[-1]} px' if self.local_crops else ', no local ones'
        lines = [
            f'{GLOBAL} global crops of {sizes[0]} px{local}; head of {self.criterion.center.shape[1]} outputs, '
            f'{sum(p.numel() for p in self.unwrapped().head.parameters()) / 1e6:.2f} M parameters']
        start = self.momentum[0]
        if self.planned is not None and self.planned * (1 - start) < 8:
            lines.append(
                f'the teacher follows over about {1 / max(1 - start, 1e-9):.0f} updates (--dino-momentum {start:g}), '
                f'and the run has about {self.planned}: lower the momentum, or train longer')
        return lines

    # --- crops ------------------------------------------------------------------------------------------------------

    def views(self) -> List[ViewSpec]:
        """Return the two global crops, then the local ones; each has its own blur and solarisation."""
        assert self.view is not None
        local = replace(self.view.crop, scale=(self.local_scale[0], self.local_scale[1]))
        small = replace(self.view, crop=local).at(self._local_size())
        kinds = [
            replace(spec, augment=replace(spec.augment, pillow_blur_prob=blur, solarize_prob=solarize))
            for spec, blur, solarize in zip((self.view, self.view, small), BLUR, SOLARIZE)]
        for spec in kinds[:GLOBAL + bool(self.local_crops)]:
            self.check_size(spec.size)
        return kinds[:GLOBAL] + kinds[GLOBAL:] * self.local_crops

    def _local_size(self) -> int:
        assert self.view is not None
        unit = self._patch() or 8
        return self.local_size or max(round(self.view.size * 3 / 7 / unit), 1) * unit

    def _patch(self) -> int:
        """Return the side of a patch in pixels; 0 for models without a patch embedding."""
        embed: Any = getattr(self.unwrapped().backbone, 'patch_embed', None)
        return int(embed.feat_ratio()) if hasattr(embed, 'feat_ratio') else 0

    def check_size(self, size: int) -> None:
        """Raise a ValueError for crops that the model does not take."""
        backbone, patch = self.unwrapped().backbone, self._patch()
        if patch and size % patch:
            raise ValueError(
                f'Crops of {size} pixels do not consist of whole patches of {patch}: choose multiples of {patch} for '
                'the image size and the local crops.')
        strict = getattr(getattr(backbone, 'patch_embed', None), 'strict_img_size', False)
        if strict and backbone.patch_embed.img_size not in (None, (size, size)):
            raise ValueError(
                f'The model takes images of {backbone.patch_embed.img_size[0]} pixels only, but a crop has {size}: '
                'create it with dynamic_img_size=True.')

    def mix(self, batch: Batch) -> Tuple[List[torch.Tensor], torch.Tensor]:
        """Return the views as they are, list of (B, 3, h, w), and the class of each image (B,), which is not used."""
        return batch.views, batch.target

    # --- one step ---------------------------------------------------------------------------------------------------

    def forward(  # type: ignore[override]
            self,
            input: List[torch.Tensor],
            target: Optional[torch.Tensor] = None,
    ) -> Dict[str, torch.Tensor]:
        """Return the loss, and what tells a collapse (`loss.dino.collapse_statistics`)."""
        with torch.no_grad():
            teacher = self.trainable_module_ema(input[:GLOBAL])
            self.means.append(torch.cat([view.float() for view in teacher]).mean(dim=0, keepdim=True))
        student = self.trainable_module(input)
        statistics = collapse_statistics(self.criterion.targets(teacher))
        return {'loss': self.criterion(student, teacher, move_center=False), **statistics}

    def train(self, mode: bool = True) -> 'DINOTask':
        super().train(mode)
        for module in self.trainable_module_ema.modules():
            module.train(mode and isinstance(module, _BatchNorm))
        return self

    def begin(self, epochs: int, updates_per_epoch: int, optimizer: torch.optim.Optimizer) -> None:
        self.epochs, self.updates = epochs, epochs * updates_per_epoch
        self.decays = [(group, group['weight_decay']) for group in optimizer.param_groups if group.get('weight_decay')]

    def set_epoch(self, epoch: int) -> None:
        super().set_epoch(epoch)
        self.epoch = epoch
        epochs = self.teacher_temp_epochs
        if epochs is None:
            epochs = min(30, round(0.3 * self.epochs)) if self.epochs else 30
        self.criterion.teacher_temp = warm_temperature(epoch, *self.temperatures, epochs)

    def before_step(self, update: int) -> None:
        self.means = []
        if self.weight_decay_end is not None:
            for group, start in self.decays:
                group['weight_decay'] = cosine(update, self.updates, start, self.weight_decay_end)

    def after_backward(self, update: int) -> None:
        """Clip each tensor by its own norm; leave out the last layer as long as it is frozen."""
        if self.clip_grad and self.clip_mode == 'norm':
            for parameter in self.get_clip_parameters():
                clip_grad_norm_(parameter, self.clip_grad)
        elif self.clip_grad:
            super().after_backward(update)
        if self.epoch < self.freeze_last_layer:
            for parameter in self.unwrapped().head.last_layer.parameters():
                parameter.grad = None

    @torch.no_grad()
    def update_ema(self, step: Optional[int] = None) -> None:
        """Move the centre once, and the teacher towards the student; `step` counts the updates that are done.

        The loop calls it in `after_step`. Buffers of the teacher are its own.
        """
        if self.means:
            self.criterion.move_center(self.means)
            self.means = []
        momentum = cosine((step or 1) - 1, self.updates, *self.momentum) if self.updates else self.momentum[0]
        for ours, theirs in zip(self.unwrapped(ema=True).parameters(), self.unwrapped().parameters()):
            ours.lerp_(theirs, 1 - momentum)

    # --- what timm asks of a task -----------------------------------------------------------------------------------

    def setup_ema(self, *args: Any, **kwargs: Any) -> nn.Module:
        raise ValueError("DINO's teacher is the average of the weights: there is no other.")

    def compile_ema(
            self,
            backend: str = 'inductor',
            mode: Optional[str] = None,
            **compile_kwargs: Any,
    ) -> nn.Module:
        """Compile the teacher."""
        self.trainable_module_ema = torch.compile(  # type: ignore[assignment]
            self.unwrapped(ema=True), backend=backend, mode=mode, **compile_kwargs)
        return self.trainable_module_ema

    def get_task_state(self, module: Optional[nn.Module] = None, ema: bool = False) -> Dict[str, Any]:
        state = super().get_task_state(module, ema)
        return state if ema else {**state, 'center': self.criterion.center}

    def load_task_state(
            self,
            state: Optional[Dict[str, Any]],
            strict: bool = True,
            module: Optional[nn.Module] = None,
            ema: bool = False,
    ) -> None:
        super().load_task_state(state, strict, module, ema)
        if state and not ema:
            self.criterion.center.copy_(state['center'])
