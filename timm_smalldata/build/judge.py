"""From settings to what judges a model: its class scores, or a probe of its features."""
from argparse import Namespace

import torch

from ..data.source import ImageSource
from ..data.views import ViewSpec
from ..engine.evaluate import Judge
from ..engine.probe import Probe, ProbeJudge
from ..task import TaskHooks
from ..utils.distributed import World
from .loaders import eval_loader
from .roles import Data


def create_probe(
        args: Namespace, source: ImageSource, spec: ViewSpec, world: World, device: torch.device,
) -> Probe:
    """Create a probe that learns from the labelled images of a source."""
    loader = eval_loader(args, source, spec, world, device, keep=True)
    assert loader is not None
    return Probe(loader, args.probe, args.knn_k, args.knn_temperature, world)


def create_judge(
        args: Namespace,
        task: TaskHooks,
        data: Data,
        spec: ViewSpec,
        world: World,
        device: torch.device,
) -> Judge:
    """Return the judge that goes with a task.

    Args:
        args: Settings.
        task: A timm `TrainingTask` with the hooks of `task.base`.
        data: The images; a probe learns from those of training.
        spec: The evaluation view.
        world: This process.
        device: Where the model is.
    """
    if task.supervised:
        return Judge(task, world)
    return ProbeJudge(task, create_probe(args, data.train, spec, world, device), world)
