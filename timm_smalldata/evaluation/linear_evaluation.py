"""The linear evaluations of papers: layers trained by gradient on features of augmented crops, update by update."""
import math
from dataclasses import dataclass, replace
from typing import List, Optional, Tuple

import torch
import torch.nn.functional as F
from torch import nn

NORM_BATCH = 512  # images that a batch norm sees at a time: the batch of one GPU in MAE's code


@dataclass(frozen=True)
class LinearProtocol:
    """How a linear layer is trained.

    Attributes:
        rates: Learning rates for 256 images an update; a layer is trained with each.
        epochs: Passes over the images.
        batch_size: Images of an update.
        optimizer: 'sgd' or 'lars', both with momentum 0.9 and without weight decay.
        warmup_epochs: Epochs in which the rate rises from 0; before 0 it is the first.
        by_update: The rate changes with every update, not with every epoch.
        normalise: A batch norm without weights comes first.
    """
    rates: Tuple[float, ...]
    epochs: int
    batch_size: int
    optimizer: str
    warmup_epochs: int = 0
    by_update: bool = False
    normalise: bool = False

    def shortened(self, epochs: Optional[int] = None, batch_size: Optional[int] = None) -> 'LinearProtocol':
        """Return the same with fewer epochs, of which as great a share warms up, or smaller updates."""
        epochs = epochs or self.epochs
        return replace(
            self, epochs=epochs, batch_size=batch_size or self.batch_size,
            warmup_epochs=round(self.warmup_epochs * epochs / self.epochs))

    def factor(self, epoch: float) -> float:
        """Return what a rate is multiplied with: a warm-up, and then half a cosine to 0.

        >>> [round(MAE_LINEAR.factor(epoch), 2) for epoch in (0, 5, 10, 50, 90)]
        [0.0, 0.5, 1.0, 0.5, 0.0]
        """
        epoch = epoch if self.by_update else math.floor(epoch)
        if epoch < self.warmup_epochs:
            return epoch / self.warmup_epochs
        return (1 + math.cos(math.pi * (epoch - self.warmup_epochs) / (self.epochs - self.warmup_epochs))) / 2


# Caron et al., ICCV 2021, https://arxiv.org/abs/2104.14294, and its eval_linear.py. It says to try rates (0.001 is its
# default) and not which: these are those that DINOv2 tries (https://arxiv.org/abs/2304.07193).
DINO_LINEAR = LinearProtocol(
    (1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, .1, .2, .3, .5),
    epochs=100, batch_size=1024, optimizer='sgd')
# He et al., CVPR 2022, https://arxiv.org/abs/2111.06377, appendix A.1, and its main_linprobe.py.
MAE_LINEAR = LinearProtocol(
    (0.1,), epochs=90, batch_size=16384, optimizer='lars', warmup_epochs=10, by_update=True, normalise=True)


class LinearEvaluation:
    """Linear layers, one for each rate of a protocol, that learn side by side from the same features.

    Where there are several rates, a second set of layers never sees the images that are held out; these choose the
    rate. All layers begin with the same weights, of deviation 0.01.

    Args:
        protocol: How they are trained.
        dim: Dimensions of the features.
        num_classes: C.
        updates_per_epoch: Updates that make an epoch.
        images: Images of an update, by which the rates are scaled; by default the protocol's.
        seed: Of the weights at the start.
        device: Where the features are.
    """

    def __init__(
            self,
            protocol: LinearProtocol,
            dim: int,
            num_classes: int,
            updates_per_epoch: int,
            images: Optional[int] = None,
            seed: int = 0,
            device: torch.device = torch.device('cpu'),
    ):
        self.protocol, self.updates_per_epoch, self.count = protocol, updates_per_epoch, 0
        self.scale = (images or protocol.batch_size) / 256
        self.norm = nn.BatchNorm1d(dim, eps=1e-6, affine=False).to(device) if protocol.normalise else None
        start = torch.randn(num_classes, dim, generator=torch.Generator().manual_seed(seed)) * 0.01
        self.layers = self._layers(start, device)
        self.choosers = self._layers(start, device) if len(protocol.rates) > 1 else []
        self.optimizers = [self._optimizer(layers) for layers in (self.layers, self.choosers) if layers]
        self.chosen = 0

    def _layers(self, start: torch.Tensor, device: torch.device) -> List[nn.Linear]:
        layers = [nn.Linear(start.shape[1], len(start)) for _ in self.protocol.rates]
        with torch.no_grad():
            for layer in layers:
                layer.weight.copy_(start)
                layer.bias.zero_()
        return [layer.to(device) for layer in layers]

    def _optimizer(self, layers: List[nn.Linear]) -> torch.optim.Optimizer:
        groups = [dict(params=[tensor], rate=rate, lr=0.0, **({} if self.protocol.optimizer == 'sgd' else dict(
            always_adapt=tensor.ndim > 1))) for rate, layer in zip(self.protocol.rates, layers)
            for tensor in layer.parameters()]
        if self.protocol.optimizer == 'sgd':
            return torch.optim.SGD(groups, lr=0.0, momentum=0.9)
        from timm.optim import Lars
        return Lars(groups, lr=0.0, momentum=0.9, trust_coeff=0.001)

    @torch.enable_grad()
    def update(self, features: torch.Tensor, labels: torch.Tensor, held_out: Optional[torch.Tensor] = None) -> None:
        """Take one step.

        Args:
            features: Features (B, D) of the images of an update.
            labels: Their classes (B,).
            held_out: Which of them do not count for the layers that choose the rate (B,), bool; None: every one counts.
        """
        factor = self.protocol.factor(self.count / self.updates_per_epoch)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group['lr'] = group['rate'] * self.scale * factor
            optimizer.zero_grad()
        features = features.detach().float()
        if self.norm is not None:
            self.norm.train()
            features = torch.cat([self.norm(part) for part in features.split(self._parts(len(features)))])
        torch.stack([F.cross_entropy(layer(features), labels) for layer in self.layers]).sum().backward()
        kept = torch.ones_like(labels, dtype=torch.bool) if held_out is None else ~held_out
        if self.choosers and kept.any():
            seen = [F.cross_entropy(layer(features[kept]), labels[kept]) for layer in self.choosers]
            torch.stack(seen).sum().backward()
        for optimizer in self.optimizers:
            optimizer.step()
        self.count += 1

    def _parts(self, images: int) -> List[int]:
        """Return the parts that a batch norm sees one after the other; none is of one image."""
        count = max(1, round(images / NORM_BATCH))
        return [images // count + (part < images % count) for part in range(count)]

    @torch.no_grad()
    def choose(self, features: torch.Tensor, labels: torch.Tensor) -> float:
        """Choose the rate whose layer is right most often on held-out images, the smallest of equals; returns it."""
        if self.choosers:
            hits = [int((layer(features.float()).argmax(1) == labels).sum()) for layer in self.choosers]
            self.chosen = hits.index(max(hits))
        return self.protocol.rates[self.chosen]

    @torch.no_grad()
    def __call__(self, features: torch.Tensor) -> torch.Tensor:
        """Return the logits (N, C) of features (N, D), by the layer of the chosen rate."""
        features = features.float()
        if self.norm is not None:
            features = self.norm.eval()(features)
        return self.layers[self.chosen](features)
