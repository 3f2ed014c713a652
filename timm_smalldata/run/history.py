"""What a run remembers beside its weights: the metric history and the best epoch."""
import math
from dataclasses import asdict, dataclass, field
from typing import Any, Dict, List, Optional


@dataclass
class RunState:
    """Lies in `last.pth.tar`; `summary.csv` and the report are derived from it.

    Attributes:
        history: One row per epoch; its columns never change.
        best: Epoch, value and metric of the best evaluation; empty before the first.
    """
    history: List[Dict[str, Any]] = field(default_factory=list)
    best: Dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, checkpoint: Optional[Dict[str, Any]]) -> 'RunState':
        """Return the state that a checkpoint holds, or that of a new run."""
        if checkpoint is None:
            return cls()
        return cls(checkpoint['history'], checkpoint['best'])

    def to_dict(self) -> Dict[str, Any]:
        return asdict(self)

    def add(self, row: Dict[str, Any], metric: Optional[str], sign: int, latest: bool = False) -> bool:
        """Add an epoch's row; returns whether it is the best so far.

        Args:
            row: Metrics of the epoch, `eval_` before those of the validation split.
            metric: The metric that selects, or None.
            sign: 1 where more is better, -1 where less is.
            latest: Of equals the last one is the best; otherwise the first one stays.
        """
        self.history.append(row)
        value = row.get(f'eval_{metric}')
        if value is None or not math.isfinite(value):
            return False
        gain = sign * (value - self.best['value']) if self.best else 1
        if gain < 0 or (gain == 0 and not latest):
            return False
        self.best = dict(epoch=row['epoch'], value=value, metric=metric)
        return True

    def results(self) -> Dict[str, Any]:
        """Return the history as timm's train.py prints it."""
        results: Dict[str, Any] = dict(all=[_result(row) for row in self.history])
        if self.best:
            results['best'] = results['all'][self.best['epoch']]
        return results


def make_row(epoch: int, train: Dict[str, float], names: Any, metrics: Dict[str, Any], lr: float) -> Dict[str, Any]:
    """Return one row of the history; epochs without an evaluation have blanks in the same columns."""
    return dict(
        epoch=epoch, **{f'train_{name}': value for name, value in train.items()},
        **{f'eval_{name}': metrics.get(name) for name in names}, lr=lr)


def _result(row: Dict[str, Any]) -> Dict[str, Any]:
    split: Dict[str, Any] = dict(epoch=row['epoch'], train={}, validation={})
    for name, value in row.items():
        part, _, metric = name.partition('_')
        if part in ('train', 'eval') and value is not None:
            split['train' if part == 'train' else 'validation'][metric] = value
    return split
