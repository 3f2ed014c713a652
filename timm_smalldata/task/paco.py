"""PaCo: parametric contrastive learning of a classifier, a teacher for long tails."""
from argparse import Namespace
from copy import deepcopy
from dataclasses import replace
from typing import Any, Dict, List, Optional, Sequence, Tuple

import torch
import torch.nn.functional as F
from torch import nn

from ..data.loader import Batch
from ..data.views import Augment, Crop, Erase, ViewSpec
from ..loss.contrastive import gather
from ..loss.paco import ParametricContrastiveLoss
from .base import TaskSetting
from .headed import HeadedModel, HeadedTask, pooled_width

SIMCLR = Augment(None, (0.4, 0.4, 0.4, 0.1), 0.8, 0.2, 0.5)
# Crop (None: that of the query) and colours of the key: on CIFAR, on ImageNet-LT, and neither of them.
KEY_VIEWS: Dict[str, Tuple[Optional[Crop], Augment]] = {
    'small': (Crop(scale=(0.2, 1.0), interpolation='bilinear'),
              Augment(None, (0.4, 0.4, 0.4, 0.1), 0.8, 0.2, pillow_blur_prob=0.5)),
    'large': (None, Augment(None, (0.4, 0.4, 0.4), 1.0, 0.2, pillow_blur_prob=0.5)),
    'crop': (None, SIMCLR),
}


class PaCoModel(HeadedModel):
    """A timm classifier and a projection of its features, in one forward."""

    def forward(self, x: torch.Tensor) -> Tuple[torch.Tensor, torch.Tensor]:  # type: ignore[override]
        """Return L2-normalised projections (N, D) and logits (N, C)."""
        backbone: Any = self.backbone
        features = backbone.forward_features(x)
        projected = self.head(backbone.forward_head(features, pre_logits=True))
        return F.normalize(projected.float(), dim=1), backbone.forward_head(features)


class PaCoTask(HeadedTask):
    """A classifier whose features are contrasted with class centres and with other images.

    Parametric contrastive learning (Cui et al., ICCV 2021, https://arxiv.org/abs/2107.12028). The class centres are
    the classifier's rows; features go through linear, batch norm, ReLU, linear to `dim`. The first view is the query;
    the key, a second view, goes through an average of the network, whose earlier outputs wait in a queue. Projection,
    average and queue lie in the task state; the user gets the plain timm classifier. The queue starts empty.

    Args:
        model: timm model with a classifier.
        class_counts: Training images per class (C,).
        alpha: Weight of a feature of the same class, beside 1 for the centre of the class.
        temperature: Of the contrast.
        queue: Keys that are kept; 0 for none.
        dim: Width of the projection.
        momentum: Of the average.
        norm: Batch norm in the projection.
        key_view: A key of `KEY_VIEWS`.
        device: Where the task lives.
        dtype: As in timm.
        verbose: timm's; nothing is logged here.

    >>> import timm
    >>> task = PaCoTask(timm.create_model('resnet20_cifar', num_classes=3), [9, 3, 1], queue=8)
    >>> input, target = torch.randn(4, 3, 32, 32), torch.tensor([0, 2])  # two images, the second views behind the first
    >>> task(input, target)['loss'].ndim, len(task.queue_feats)
    (0, 0)
    >>> task.after_step(0)
    >>> len(task.queue_feats)
    2
    """
    name = 'paco'
    predicted = ('logits',)
    supervised = True
    module_class = PaCoModel
    queue_feats: torch.Tensor
    queue_targets: torch.Tensor

    def __init__(
            self,
            model: nn.Module,
            class_counts: Sequence[int],
            alpha: float = 0.01,
            temperature: float = 0.05,
            queue: int = 1024,
            dim: int = 32,
            momentum: float = 0.999,
            norm: bool = True,
            key_view: str = 'small',
            device: Optional[torch.device] = None,
            dtype: Optional[torch.dtype] = None,
            verbose: bool = True,
    ):
        width = pooled_width(model)
        between = [nn.BatchNorm1d(width), nn.ReLU()] if norm else [nn.ReLU()]
        head = nn.Sequential(nn.Linear(width, width), *between, nn.Linear(width, dim))
        super().__init__(model, head, device, dtype, verbose)
        self.key_encoder = deepcopy(self.trainable_module).requires_grad_(False)
        self.criterion = ParametricContrastiveLoss(class_counts, alpha, temperature=temperature).to(self.device)
        self.queue, self.momentum, self.key_view = queue, momentum, key_view
        self.register_buffer('queue_feats', torch.zeros(0, dim, device=self.device), persistent=False)
        self.register_buffer(
            'queue_targets', torch.zeros(0, dtype=torch.long, device=self.device), persistent=False)
        self.waiting: Dict[int, Tuple[torch.Tensor, torch.Tensor]] = {}  # keys of this update, by micro-batch
        self.mixed = 0

    @classmethod
    def from_settings(cls, args: Namespace, model: nn.Module, setting: TaskSetting) -> 'PaCoTask':
        return cls(
            model, setting.classes.counts, alpha=args.paco_alpha, temperature=args.paco_temperature,
            queue=args.paco_queue, dim=args.paco_dim, momentum=args.paco_momentum, norm=args.paco_norm,
            key_view=args.paco_key_view, device=setting.device, verbose=False)

    def notes(self) -> List[str]:
        head = self.unwrapped().head
        return [f'queue of {self.queue} keys; projection {head[0].in_features} -> {head[-1].out_features}; a second '
                'network as large as the first makes the keys']

    def views(self) -> List[ViewSpec]:
        """Return the view of the query, which the flags describe, and that of the key."""
        assert self.view is not None
        crop, colours = KEY_VIEWS[self.key_view]
        own = self.view.crop
        crop = own if crop is None else replace(crop, hflip=own.hflip, vflip=own.vflip)
        return [self.view, replace(self.view, crop=crop, augment=colours, erase=Erase())]

    def before_step(self, update: int) -> None:
        self.waiting, self.mixed = {}, 0

    def mix(self, batch: Batch) -> Tuple[torch.Tensor, Any]:
        """Return queries, then keys (2B, 3, h, w), and the classes (B,) with the number of the micro-batch."""
        self.mixed += 1
        return torch.cat(batch.views), (batch.target, self.mixed - 1)

    def forward(self, input: torch.Tensor, target: Any) -> Dict[str, torch.Tensor]:
        """Compute the loss; the queue and the average move in `after_step`.

        Args:
            input: Images (2N, 3, h, w): all first views, then all second views.
            target: Classes (N,), or a pair of them and the number of the micro-batch in its update.

        Returns:
            `loss`, and the queries' logits (N, C) as `output`.
        """
        labels, number = target if isinstance(target, tuple) else (target, 0)
        first, second = input.chunk(2)
        queries, logits = self.trainable_module(first)
        with torch.no_grad():
            keys = self.key_encoder(second)[0]
        self.waiting[number] = keys, labels  # the same, however often this batch is seen
        loss = self.criterion(queries, keys, logits, labels, self.queue_feats, self.queue_targets)
        return {'loss': loss, 'output': logits}

    def after_step(self, update: int) -> None:
        super().after_step(update)
        if self.waiting:
            keys, labels = (torch.cat(parts) for parts in zip(*self.waiting.values()))
            self.enqueue(gather(keys), gather(labels))
            self.waiting = {}
        with torch.no_grad():
            for average, current in zip(self.key_encoder.parameters(), self.unwrapped().parameters()):
                average.lerp_(current, 1 - self.momentum)

    def enqueue(self, keys: torch.Tensor, labels: torch.Tensor) -> None:
        """Put keys (M, D) and their classes (M,) behind the queue; what it cannot hold leaves at the front."""
        first = max(len(self.queue_feats) + len(keys) - self.queue, 0)
        self.queue_feats = torch.cat([self.queue_feats, keys])[first:]
        self.queue_targets = torch.cat([self.queue_targets, labels])[first:]

    # --- what timm asks of a task -----------------------------------------------------------------------------------

    def get_task_state(self, module: Optional[nn.Module] = None, ema: bool = False) -> Dict[str, Any]:
        state = super().get_task_state(module, ema)
        if state and not ema:
            state.update(
                key_encoder=self.key_encoder.state_dict(), queue_feats=self.queue_feats,
                queue_targets=self.queue_targets)
        return state

    def load_task_state(
            self,
            state: Optional[Dict[str, Any]],
            strict: bool = True,
            module: Optional[nn.Module] = None,
            ema: bool = False,
    ) -> None:
        super().load_task_state(state, strict, module, ema)
        if state and not ema:
            self.key_encoder.load_state_dict(state['key_encoder'], strict=strict)
            self.queue_feats = state['queue_feats'].to(self.device)
            self.queue_targets = state['queue_targets'].to(self.device)
