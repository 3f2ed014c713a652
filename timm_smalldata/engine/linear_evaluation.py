"""The linear evaluations of papers on the images of a loader: augmented crops, a backbone that stands still."""
from contextlib import nullcontext
from typing import Any, Callable, Dict, List, Optional, Sequence

import numpy as np
import torch
from torch import nn

from ..data.loader import ViewLoader
from ..errors import UserError
from ..evaluation.linear_evaluation import DINO_LINEAR, MAE_LINEAR, LinearEvaluation, LinearProtocol
from ..task import TaskHooks
from ..utils.distributed import World
from .evaluate import Reader
from .features import gather_features
from .probe import Probe
from .tokens import BlockFeatures
from .train import Autocast

PROTOCOLS = {'linear-dino': DINO_LINEAR, 'linear-mae': MAE_LINEAR}


class TrainedProbe(Probe):
    """A linear layer that is trained on augmented crops, in one process.

    Args:
        loader: The labelled images in the evaluation view, in their order: held-out ones choose the rate.
        crops: The same images augmented, in micro-batches; `set_epoch` is called.
        kind: 'linear-dino' or 'linear-mae'.
        protocol: How the layer is trained.
        seed: Of its weights at the start.
        bar: Makes a progress bar over the crops.
    """

    def __init__(
            self, loader: ViewLoader, crops: ViewLoader, kind: str, protocol: LinearProtocol, seed: int = 0,
            bar: Callable[[int, str], Any] = lambda total, text: None):
        super().__init__(loader, kind, world=World())
        self.crops, self.protocol, self.seed, self.bar = crops, protocol, seed, bar
        self.rate: Optional[float] = None
        self.features = ''

    def kinds(self) -> List[str]:
        return [self.kind]

    def fit(
            self,
            task: TaskHooks,
            model: nn.Module,
            autocast: Autocast = nullcontext,
            kinds: Sequence[str] = (),
    ) -> Dict[str, Reader]:
        """Train the layer and return it by name: from features (N, D) to logits (N, C)."""
        source = self.loader.source
        images = min(self.protocol.batch_size, len(source))
        whole = self.protocol.optimizer == 'lars'  # its code leaves the rest of an epoch out
        updates = len(source) // images if whole else -(-len(source) // images)
        held = torch.as_tensor(held_out(source.targets))
        if len(self.protocol.rates) > 1 and not held.any():
            raise UserError(f'--probe {self.kind} chooses a rate on some of the training images: no class has two.')
        evaluation: Optional[LinearEvaluation] = None
        bar = self.bar(self.protocol.epochs * len(source), 'linear evaluation')
        model.eval()
        self.features = model.describe() if isinstance(model, BlockFeatures) else 'its own features'
        for epoch in range(self.protocol.epochs):
            self.crops.set_epoch(epoch)
            parts: List[Sequence[torch.Tensor]] = []
            for batch in self.crops:
                with torch.no_grad(), autocast():
                    features = task.predict(model, batch.views[0])[task.predicted[0]].float()
                _check(features)
                parts.append((features, batch.target, held[batch.index].to(features.device)))
                # a micro-batch may reach over the end of an update
                while sum(len(part[1]) for part in parts) >= images:
                    joined = [torch.cat(values) for values in zip(*parts)]
                    evaluation = evaluation or self._begin(joined[0], updates, images)
                    evaluation.update(*(values[:images] for values in joined))
                    parts = [tuple(values[images:] for values in joined)] if len(joined[1]) > images else []
                if bar is not None:
                    bar.update(len(batch))
            if parts and not whole:
                assert evaluation is not None
                evaluation.update(*(torch.cat(values) for values in zip(*parts)))
        if bar is not None:
            bar.close()
        assert evaluation is not None
        if len(self.protocol.rates) > 1:
            features, labels = gather_features(task, model, self.loader, self.world, autocast)
            self.rate = evaluation.choose(features[held], labels[held])
        else:
            self.rate = self.protocol.rates[0]
        return {self.kind: evaluation}

    def _begin(self, features: torch.Tensor, updates: int, images: int) -> LinearEvaluation:
        return LinearEvaluation(
            self.protocol, features.shape[1], self.num_classes, updates, images, self.seed, features.device)

    def describe(self) -> Dict[str, Any]:
        """Return the entry `probe` of the report."""
        return dict(
            kind=self.kind, epochs=self.protocol.epochs, rate=self.rate, features=self.features,
            batch_size=min(self.protocol.batch_size, len(self.loader.source)))


def held_out(targets: np.ndarray) -> np.ndarray:
    """Return which images choose the rate (N,), bool: every fifth of each class, the last one of two to four.

    >>> held_out(np.array([0] * 6 + [1] * 3 + [2])).nonzero()[0].tolist()
    [4, 8]
    """
    chosen = np.zeros(len(targets), dtype=bool)
    for label in np.unique(targets):
        mine = np.flatnonzero(targets == label)
        chosen[mine[4::5] if len(mine) >= 5 else mine[1:][-1:]] = True
    return chosen


def _check(features: torch.Tensor) -> None:
    if features.ndim != 2 or not features.isfinite().all():
        raise UserError('A linear evaluation needs one vector of finite features for each image.')
