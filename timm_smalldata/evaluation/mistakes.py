"""The mistakes that a classifier is surest of: where to look for wrong labels and for classes that look alike."""
from typing import Iterable, List, NamedTuple

import torch


class Mistake(NamedTuple):
    """One image that was misjudged: its place, true class, predicted class, and the probability of the latter."""
    place: int
    target: int
    predicted: int
    confidence: float


class ConfidentMistakes:
    """Keep the most confident mistakes of what is evaluated, batch by batch.

    Args:
        most: How many are kept.

    >>> watch = ConfidentMistakes(1)
    >>> watch(torch.tensor([[0., 4.], [0., 2.]]), torch.tensor([0, 0]), torch.tensor([7, 8]))
    >>> [(m.place, m.predicted, round(m.confidence, 2)) for m in watch.kept]
    [(7, 1, 0.98)]
    """

    def __init__(self, most: int = 24):
        self.most = most
        self.kept: List[Mistake] = []

    def __call__(self, logits: torch.Tensor, target: torch.Tensor, index: torch.Tensor) -> None:
        """Take a batch: logits (B, C), true classes (B,), places of the images (B,)."""
        confidence, predicted = logits.float().softmax(dim=1).max(dim=1)
        wrong = (predicted != target).cpu()
        columns = (part.cpu()[wrong].tolist() for part in (index, target, predicted, confidence))
        self.add(Mistake(*row) for row in zip(*columns))

    def add(self, mistakes: Iterable[Mistake]) -> None:
        """Take mistakes that were found elsewhere, as by other processes."""
        ranked = sorted({*self.kept, *mistakes}, key=lambda m: (-m.confidence, m.place))
        self.kept = ranked[:self.most]
