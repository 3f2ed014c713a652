"""One evaluation, for every task alike."""
from contextlib import nullcontext
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple

import torch
from timm.task import TrainingTask
from timm.utils import unwrap_model

from ..data.loader import ViewLoader
from ..utils.distributed import World
from .train import Autocast

Reader = Callable[[torch.Tensor], torch.Tensor]  # from features (N, D) to logits (N, C)


def eval_model(task: TrainingTask) -> torch.nn.Module:
    """Return the model that users get: the average where there is one, without any wrapper."""
    model = task.get_eval_model(ema=task.has_ema())
    assert model is not None
    return unwrap_model(model)


def metric_names(task: Any) -> List[str]:
    """Return the names of what `evaluate` measures: plain for the first prediction, prefixed for the others.

    What is read off features has no loss.
    """
    names = [name for name in task.create_evaluator().metric_names if task.supervised or name != 'loss']
    return [_prefix(number, name) + metric for number, name in enumerate(task.predicted) for metric in names]


def _prefix(number: int, predicted: str) -> str:
    return f'{predicted}_' if number else ''


@torch.no_grad()
def evaluate(
        task: Any,
        loader: ViewLoader,
        *,
        model: Optional[torch.nn.Module] = None,
        world: World = World(),
        autocast: Autocast = nullcontext,
        readers: Optional[Mapping[str, Reader]] = None,
) -> Tuple[Dict[str, Any], Dict[str, Any]]:
    """Evaluate the model that users get, on one deterministic view of each image.

    Args:
        task: A task with hooks.
        loader: This rank's share of the images.
        model: By default the task's.
        world: This process.
        autocast: Makes the autocast context.
        readers: Make predictions, by name, of the features that the task predicts first (see `probe.py`).

    Returns:
        Metrics by name (those of the first prediction plain, the others prefixed) and the evaluators.
    """
    model = eval_model(task) if model is None else model
    training = model.training
    model.eval()
    evaluators = {name: task.create_evaluator() for name in (task.predicted if readers is None else readers)}
    for batch in loader:
        with autocast():
            outputs = task.predict(model, batch.views[0])
        if readers is not None:
            features = outputs[task.predicted[0]]
            outputs = {name: read(features) for name, read in readers.items()}
        for name, evaluator in evaluators.items():
            evaluator.update(outputs[name], batch.target)
    model.train(training)
    metrics: Dict[str, Any] = {}
    for number, (name, evaluator) in enumerate(evaluators.items()):
        values = evaluator.compute(distributed=world.distributed)
        metrics.update({_prefix(number, name) + metric: value for metric, value in values.items()})
    return metrics, evaluators
