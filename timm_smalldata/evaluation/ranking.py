"""What scores are worth beyond the first guess: macro F1, area under the ROC curve, the curves themselves."""
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

import numpy as np
import torch

MOST_SCORES = 50_000_000  # images times classes that are kept, 200 MB
POINTS = 51  # of a curve
DIGITS = 6  # of a probability; what differs less is a tie, so that the order of additions does not matter


class KeepScores:
    """Keep the scores of what is evaluated, batch by batch.

    Attributes:
        parts: Places (B,), classes (B,) and probabilities (B, C) of each batch; empty where it were too much.
    """

    def __init__(self, most: int = MOST_SCORES):
        self.most, self.kept = most, 0
        self.parts: List[Tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def __call__(self, logits: torch.Tensor, target: torch.Tensor, index: torch.Tensor) -> None:
        """Take a batch: logits (B, C), true classes (B,), places of the images (B,)."""
        self.kept += logits.numel()
        if self.kept > self.most:
            self.parts.clear()
            return
        scores = logits.float().softmax(dim=1)
        self.parts.append((index.cpu().numpy(), target.cpu().numpy(), scores.cpu().numpy()))


def ranking_metrics(
        parts: Sequence[Tuple[np.ndarray, np.ndarray, np.ndarray]],
        groups: Optional[Mapping[str, Sequence[int]]] = None,
) -> Dict[str, Any]:
    """Return macro F1, AUROC and ROC curves, from scikit-learn; nothing where scores are missing or not finite.

    Each class is judged against all others. Means are over the classes with images here; AUROC and the curves need at
    least two of them.

    Args:
        parts: From `KeepScores`; an image that occurs twice counts once.
        groups: Class indices of groups that get a curve of their own.

    Returns:
        `macro_f1` and `auroc` in percent, None where they are not defined, and `roc`: `false_positives` and, for `all`
        and each group with classes, the true positives at these, in percent.

    >>> scores = np.array([[.9, .1], [.6, .4], [.7, .3], [.2, .8]], dtype=np.float32)
    >>> found = ranking_metrics([(np.arange(4), np.array([0, 0, 1, 1]), scores)])
    >>> round(found['macro_f1'], 2), found['auroc']
    (73.33, 75.0)
    """
    if not parts:
        return {}
    from sklearn.metrics import f1_score
    places, labels, scores = (np.concatenate(columns) for columns in zip(*parts))
    places, first = np.unique(places, return_index=True)  # in one order, however they were shared out
    labels, scores = labels[first], scores[first]
    if not np.isfinite(scores).all():
        return {}
    present = np.unique(labels)
    f1 = f1_score(labels, scores.argmax(1), labels=present, average='macro', zero_division=0.0)
    scores = scores.round(DIGITS)
    areas, curves = _curves(labels, scores, present if len(present) > 1 else present[:0])
    grid = np.linspace(0, 100, POINTS)
    roc: Dict[str, List[float]] = {}
    for name, members in {'all': list(areas), **(groups or {})}.items():
        chosen = [curves[c] for c in members if c in curves]
        if chosen:
            roc[name] = [round(100 * float(value), 2) for value in np.mean(chosen, axis=0)]
    return dict(
        macro_f1=100 * float(f1), auroc=100 * float(np.mean(list(areas.values()))) if areas else None,
        roc=dict(false_positives=grid.round(2).tolist(), **roc) if roc else None)


def _curves(
        labels: np.ndarray, scores: np.ndarray, classes: np.ndarray,
) -> Tuple[Dict[int, float], Dict[int, np.ndarray]]:
    """Return the area and the true positives at even steps of false ones, by class."""
    from sklearn.metrics import auc, roc_curve
    areas: Dict[int, float] = {}
    curves: Dict[int, np.ndarray] = {}
    grid = np.linspace(0, 1, POINTS)
    for c in map(int, classes):
        false, true, _ = roc_curve(labels == c, scores[:, c])
        areas[c] = float(auc(false, true))
        curves[c] = np.interp(grid, false, true)
        curves[c][0] = 0.0
    return areas, curves
