"""What features are worth: a classifier read off the features of the training images judges other images.

The features are those of the evaluation view, so nothing is random, and nothing of it reaches the model.
"""
from contextlib import nullcontext
from functools import partial
from typing import Any, Callable, Dict, List, Optional, Sequence

import torch
from torch import nn

from ..data.loader import ViewLoader
from ..errors import UserError
from ..evaluation.knn import knn_predict
from ..evaluation.linear_probe import fit_linear_probe
from ..task import TaskHooks
from ..utils.distributed import World
from .evaluate import Judge, Judgement, Reader, Watch, evaluate
from .features import gather_features
from .train import Autocast

KINDS = ('knn', 'linear')
Scores = Callable[[torch.Tensor], torch.Tensor]


class Probe:
    """Nearest neighbours, or a logistic regression, on the features of labelled images.

    Args:
        loader: This process's share of the labelled images: those that the model was trained on.
        kind: 'knn' or 'linear'.
        k: Number of neighbours; all images where there are fewer.
        temperature: A neighbour weighs exp(cosine / temperature).
        world: This process.
    """

    def __init__(
            self,
            loader: ViewLoader,
            kind: str = 'knn',
            k: int = 20,
            temperature: float = 0.07,
            world: World = World(),
    ):
        source = loader.source
        self.loader, self.kind, self.world, self.temperature = loader, kind, world, temperature
        self.k, self.num_classes = min(k, len(source)), len(source.classes)

    def kinds(self) -> List[str]:
        """Return the kinds of probes, the one that was asked for first."""
        return sorted(KINDS, key=lambda kind: kind != self.kind)

    def fit(
            self,
            task: TaskHooks,
            model: nn.Module,
            autocast: Autocast = nullcontext,
            kinds: Sequence[str] = (),
    ) -> Dict[str, Reader]:
        """Return functions from features (N, D) to logits (N, C), by kind; every rank must call it.

        The logits are logarithms of shares of the vote, or of probabilities; minus infinity for a class without any.

        Args:
            task: `predict` gives the features.
            model: Whose features.
            autocast: Makes the autocast context.
            kinds: 'knn', 'linear'; by default the one that was asked for.

        Raises:
            UserError: A feature is not finite, or the model does not give one vector for each image.
        """
        features, labels = gather_features(task, model, self.loader, self.world, autocast)
        if not features.isfinite().all():
            raise UserError('The features of some training images are not finite: there is nothing to judge.')
        return {kind: partial(_logits, self._scores(kind, features, labels)) for kind in kinds or [self.kind]}

    def _scores(self, kind: str, features: torch.Tensor, labels: torch.Tensor) -> Scores:
        if kind == 'linear':
            return fit_linear_probe(features, labels, self.num_classes)
        return partial(
            knn_predict, features, labels, num_classes=self.num_classes, k=self.k, temperature=self.temperature)

    def describe(self) -> Dict[str, Any]:
        """Return the entry `probe` of the report."""
        if self.kind == 'linear':
            return dict(kind='linear', C=1.0)
        return dict(kind='knn', k=self.k, temperature=self.temperature)


class ProbeJudge(Judge):
    """Judges features, by what a probe reads off them.

    Args:
        task: `predict` gives the features.
        probe: Knows the labelled images.
        world: This process.
    """
    prefers_latest = True  # features have longer to grow

    def __init__(self, task: TaskHooks, probe: Probe, world: World = World()):
        super().__init__(task, world)
        self.probe = probe

    def judge(
            self,
            loader: ViewLoader,
            model: nn.Module,
            autocast: Autocast = nullcontext,
            final: bool = False,
            watch: Optional[Watch] = None,
    ) -> Judgement:
        readers = self.probe.fit(self.task, model, autocast, self.probe.kinds() if final else ())
        return evaluate(self.task, loader, model=model, world=self.world, autocast=autocast, readers=readers,
                        watch=watch)

    def batches(self, loader: Optional[ViewLoader]) -> int:
        return 0 if loader is None else len(loader) + len(self.probe.loader)

    def describe(self) -> Dict[str, Any]:
        return dict(probe=self.probe.describe())


def _logits(scores: Scores, features: torch.Tensor) -> torch.Tensor:
    values = scores(features)
    return (values / values.sum(dim=1, keepdim=True)).log()
