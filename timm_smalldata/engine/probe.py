"""What features are worth: a classifier read off the features of the training images judges other images.

The features are those of the evaluation view, so nothing is random, and nothing of it reaches the model.
"""
from argparse import Namespace
from contextlib import nullcontext
from functools import partial
from typing import Any, Callable, Dict, List, Optional, Sequence

import torch
from torch import nn

from ..build.loaders import eval_loader
from ..data.source import ImageSource
from ..data.views import ViewSpec
from ..errors import UserError
from ..evaluation.knn import knn_predict
from ..evaluation.linear_probe import fit_linear_probe
from ..report.table import probe_words
from ..utils.distributed import World
from .evaluate import Reader
from .features import gather_features
from .train import Autocast

KINDS = ('knn', 'linear')
Scores = Callable[[torch.Tensor], torch.Tensor]


class Probe:
    """Nearest neighbours, or a logistic regression, on the features of labelled images.

    Args:
        args: `probe` ('knn' or 'linear'), `knn_k` and `knn_temperature`; those that `loaders.eval_loader` takes.
        source: The labelled images: those that the model was trained on.
        spec: The evaluation view.
        world: This process; each takes its share of the images.
        device: Where the model is.
    """

    def __init__(self, args: Namespace, source: ImageSource, spec: ViewSpec, world: World, device: torch.device):
        loader = eval_loader(args, source, spec, world, device)
        assert loader is not None
        self.args, self.loader, self.world, self.num_classes = args, loader, world, len(source.classes)
        self.k = min(args.knn_k, len(source))

    def kinds(self) -> List[str]:
        """Return the kinds of probes, the one that was asked for first."""
        return sorted(KINDS, key=lambda kind: kind != self.args.probe)

    def fit(
            self,
            task: Any,
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
        return {kind: partial(_logits, self._scores(kind, features, labels)) for kind in kinds or [self.args.probe]}

    def _scores(self, kind: str, features: torch.Tensor, labels: torch.Tensor) -> Scores:
        if kind == 'linear':
            return fit_linear_probe(features, labels, self.num_classes)
        return partial(
            knn_predict, features, labels, num_classes=self.num_classes, k=self.k,
            temperature=self.args.knn_temperature)

    def describe(self) -> Dict[str, Any]:
        """Return the entry `probe` of the report."""
        if self.args.probe == 'linear':
            return dict(kind='linear', C=1.0)
        return dict(kind='knn', k=self.k, temperature=self.args.knn_temperature)

    def notes(self, metric: Optional[str]) -> List[str]:
        """Return what the user should know before the training starts; `metric` chooses the weights, if any does."""
        lines = [f'features are judged by {probe_words(self.describe())} among the training images']
        if metric is not None:
            every = self.args.probe_interval
            often = 'ten times in the run' if self.args.time_budget else 'every epoch' if every == 1 else (
                f'every {every} epochs')
            lines[0] += f', on val {often} (--probe-interval)'
            lines.append(f'exported are the weights with the best {metric} on val; --select last takes the last ones'
                         if self.args.select == 'best' else 'exported are the last weights (--select last)')
        if self.k < self.args.knn_k and self.args.probe == 'knn':
            lines.append(f'--knn-k {self.args.knn_k} is more than the {self.k} training images: all of them vote')
        return lines


def _logits(scores: Scores, features: torch.Tensor) -> torch.Tensor:
    values = scores(features)
    return (values / values.sum(dim=1, keepdim=True)).log()
