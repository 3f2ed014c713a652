"""Whether a run without labels has collapsed: a sentence while it runs, read off its history (docs/self-supervised.md).

Nothing is remembered, so a run that is continued says what an undisturbed one would have said.
"""
import math
from argparse import Namespace
from typing import Any, Dict, Mapping, Optional, Sequence

import numpy as np
import torch

from ..build.loaders import eval_loader
from ..config.length import total_epochs
from ..data.loader import ViewLoader
from ..data.source import ImageSource, Subset
from ..data.views import ViewSpec
from ..task import TaskHooks
from ..utils.distributed import World

# How long it must have lasted, after the warm-up: epochs, updates, share of the run.
LASTING, LONG = (3, 100, 0.1), (3, 300, 0.25)
IMAGES = 64  # whose features are looked at
SPREAD = 1e-3  # of the features around their mean, relative to their length
NATS = 0.01  # what the teacher's answer tells about the image, or differs from the uniform one
CHANCE = 0.995  # of the loss of a model that knows nothing, for long: rows of IDMM's head learn late


class Alarm:
    """Tells a collapse from the last epochs of a run.

    Args:
        epochs: Of the run.
        warmup: First epochs, which do not count: the learning rate is not up yet.
        updates: Of an epoch.
        chance: Loss of a model that knows nothing; None if there is no such number.

    >>> alarm = Alarm(epochs=20, warmup=2, updates=100)
    >>> history = [dict(epoch=n, train_loss=7.0, train_feature_spread=1e-6) for n in range(6)]
    >>> [alarm(history[:n]) is not None for n in range(1, 7)]
    [False, False, False, False, True, True]
    """

    def __init__(self, epochs: int, warmup: int, updates: int, chance: Optional[float] = None):
        self.warmup, self.chance = warmup, chance
        self.lasting, self.long = (
            max(least, math.ceil(share * epochs), math.ceil(steps / max(updates, 1))) for least, steps, share in
            (LASTING, LONG))

    def __call__(self, history: Sequence[Mapping[str, Any]]) -> Optional[str]:
        """Return what is wrong in each of the last epochs, in one sentence; None if nothing is."""
        rows = [self.symptoms(row) for row in history[self.warmup:]]
        for name, text in rows[-1].items() if rows else ():
            window = self.long if name == 'chance' else self.lasting
            if len(rows) >= window and all(name in row for row in rows[-window:]):
                return f'collapse, epoch {history[-1]["epoch"] + 1}: for {window} epochs {text}'
        return None

    def symptoms(self, row: Mapping[str, Any]) -> Dict[str, str]:
        """Return what is wrong in an epoch, by name, the most telling first."""
        found = {}
        spread, loss = row.get('train_feature_spread'), row['train_loss']
        if spread is not None and spread < SPREAD:
            found['constant'] = (
                f'the features of all images are the same (spread {spread:.1g} of their length). Lower --lr or '
                '--weight-decay.')
        uniform, entropy, mean = (
            row.get(f'train_teacher_{name}') for name in ('kl_uniform', 'entropy', 'mean_entropy'))
        if uniform is not None and uniform < NATS:
            found['teacher'] = (
                f'the entropy of the teacher is that of the uniform distribution ({entropy:.4f}, {uniform:.1g} below '
                'log K). Lower --dino-teacher-temp, or sharpen.')
        elif mean is not None and mean - entropy < NATS:
            found['teacher'] = (
                f'the teacher answers the same to every image (entropy {entropy:.4f}, that of the mean answer '
                f'{mean:.4f}). Centre it, or lower --lr.')
        if self.chance is not None and loss > CHANCE * self.chance:
            found['chance'] = (
                f'the loss ({loss:.4f}) is that of a model that knows nothing ({self.chance:.4f}). Try another --lr, '
                'or a longer warm-up.')
        return found


def collapsed(args: Namespace, task: TaskHooks, updates: int, history: Sequence[Mapping[str, Any]]) -> Optional[str]:
    """Return what is wrong with a run of `updates` an epoch so far; classifiers are judged by their validation."""
    return None if task.supervised else Alarm(total_epochs(args), args.warmup_epochs, updates, task.chance)(history)


def watched_images(args: Namespace, source: ImageSource, spec: ViewSpec, device: torch.device) -> ViewLoader:
    """Return a loader of a few training images, taken evenly from all of them, as an evaluation sees them."""
    chosen = np.linspace(0, len(source) - 1, min(IMAGES, len(source))).round().astype(int)
    alone = Namespace(**{**vars(args), 'workers': 0})  # processes would start anew in every epoch
    loader = eval_loader(alone, Subset(source, chosen), spec, World(), device, keep=True)
    assert loader is not None
    return loader


def spread(features: torch.Tensor) -> float:
    """Return how far features (N, D) lie from their mean, relative to their length: `sqrt(E|f - E f|^2 / E|f|^2)`.

    0 where all are the same, 1 where their mean is 0.

    >>> round(spread(torch.tensor([[3., 1.], [3., -1.]])), 4), spread(torch.ones(5, 2)), spread(torch.zeros(5, 2))
    (0.3162, 0.0, 0.0)
    """
    features = features.cpu().double()
    length = features.square().sum(dim=1).mean()
    return ((features - features.mean(dim=0)).square().sum(dim=1).mean() / length.clamp(min=1e-30)).sqrt().item()
