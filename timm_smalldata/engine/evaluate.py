"""One evaluation, for every task alike."""
from contextlib import nullcontext
from functools import partial
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple

import torch
from timm.task import TrainingTask
from timm.utils import unwrap_model

from ..data.loader import ViewLoader
from ..task import TaskHooks
from ..utils.distributed import World
from .memory import in_memory
from .train import Autocast

Reader = Callable[[torch.Tensor], torch.Tensor]  # from features (N, D) to logits (N, C)
Watch = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], None]  # sees logits (B, C), classes and places (B,)
Judgement = Tuple[Dict[str, Any], Dict[str, Any]]  # metrics by name, and the evaluators by prediction


def eval_model(task: TrainingTask) -> torch.nn.Module:
    """Return the model that users get: the average where there is one, without any wrapper."""
    model = task.get_eval_model(ema=task.has_ema())
    assert model is not None
    return unwrap_model(model)


def all_of(*watches: Optional[Watch]) -> Watch:
    """Return one that shows what it sees to several; None is nobody."""
    def show(logits: torch.Tensor, target: torch.Tensor, index: torch.Tensor) -> None:
        for watch in watches:
            if watch is not None:
                watch(logits, target, index)
    return show


def metric_names(task: TaskHooks) -> List[str]:
    """Return the names of what `evaluate` measures: plain for the first prediction, prefixed for the others.

    What is read off features has no loss.
    """
    names = [name for name in task.create_evaluator().metric_names if task.supervised or name != 'loss']
    return [_prefix(number, name) + metric for number, name in enumerate(task.predicted) for metric in names]


def _prefix(number: int, predicted: str) -> str:
    return f'{predicted}_' if number else ''


@torch.no_grad()
def evaluate(
        task: TaskHooks,
        loader: ViewLoader,
        *,
        model: Optional[torch.nn.Module] = None,
        world: World = World(),
        autocast: Autocast = nullcontext,
        readers: Optional[Mapping[str, Reader]] = None,
        watch: Optional[Watch] = None,
) -> Judgement:
    """Evaluate the model that users get, on one deterministic view of each image.

    Args:
        task: A timm `TrainingTask` with the hooks of `task.base`.
        loader: This rank's share of the images.
        model: By default the task's.
        world: This process.
        autocast: Makes the autocast context.
        readers: Make predictions, by name, of the features that the task predicts first (see `probe.py`).
        watch: Is shown the first prediction of each batch.

    Returns:
        Metrics by name (those of the first prediction plain, the others prefixed) and the evaluators.
    """
    model = eval_model(task) if model is None else model
    training = model.training
    model.eval()
    evaluators = {name: task.create_evaluator() for name in (task.predicted if readers is None else readers)}
    for batch in loader:
        with autocast():
            outputs = in_memory(
                partial(task.predict, model, batch.views[0]), len(batch),
                partial(_try, task, model, batch.views[0]), '--validation-batch-size', device=loader.device)
        if readers is not None:
            features = outputs[task.predicted[0]]
            outputs = {name: read(features) for name, read in readers.items()}
        for name, evaluator in evaluators.items():
            evaluator.update(outputs[name], batch.target)
        if watch is not None:
            watch(outputs[next(iter(evaluators))], batch.target, batch.index)
    model.train(training)
    metrics: Dict[str, Any] = {}
    for number, (name, evaluator) in enumerate(evaluators.items()):
        values = evaluator.compute(distributed=world.distributed)
        metrics.update({_prefix(number, name) + metric: value for metric, value in values.items()})
    return metrics, evaluators


def _try(task: TaskHooks, model: torch.nn.Module, views: torch.Tensor, size: int) -> None:
    task.predict(model, views[:size])


class Judge:
    """Judges a model on images by the class scores that it gives.

    Attributes:
        prefers_latest: Of equally good epochs the last one is the best; otherwise the first one stays.

    Args:
        task: A timm `TrainingTask` with the hooks of `task.base`.
        world: This process.
    """
    prefers_latest = False

    def __init__(self, task: TaskHooks, world: World = World()):
        self.task, self.world = task, world

    def names(self) -> List[str]:
        """Return the names of the metrics."""
        return metric_names(self.task)

    def judge(
            self,
            loader: ViewLoader,
            model: torch.nn.Module,
            autocast: Autocast = nullcontext,
            final: bool = False,
            watch: Optional[Watch] = None,
    ) -> Judgement:
        """Return metrics by name, and the evaluators by prediction; every rank must call it.

        Args:
            loader: This rank's share of the images.
            model: The model that users get.
            autocast: Makes the autocast context.
            final: The finished model: all that its report holds.
            watch: Is shown the chief prediction of each batch.
        """
        return evaluate(self.task, loader, model=model, world=self.world, autocast=autocast, watch=watch)

    def batches(self, loader: Optional[ViewLoader]) -> int:
        """Return how many batches judging the images of a loader takes."""
        return 0 if loader is None else len(loader)

    def describe(self) -> Dict[str, Any]:
        """Return what the report says of the way of judging."""
        return {}
