"""From settings to what judges a model: its class scores, or a probe of its features."""
from argparse import Namespace
from dataclasses import replace
from typing import Optional

import torch

from ..data.loader import create_loader
from ..data.sampler import InstanceSampler
from ..data.source import ImageSource
from ..data.views import Crop, ViewSpec
from ..engine.evaluate import Judge
from ..engine.linear_evaluation import PROTOCOLS, TrainedProbe
from ..engine.probe import Probe, ProbeJudge
from ..task import TaskHooks
from ..utils.distributed import World
from .decode import Bar, no_bar
from .loaders import eval_loader
from .roles import Data


def create_probe(
        args: Namespace, source: ImageSource, spec: ViewSpec, world: World, device: torch.device,
) -> Probe:
    """Create a probe that learns from the labelled images of a source."""
    loader = eval_loader(args, source, spec, world, device, keep=True)
    assert loader is not None
    return Probe(loader, args.probe, args.knn_k, args.knn_temperature, world)


def create_trained_probe(
        args: Namespace, source: ImageSource, spec: ViewSpec, device: torch.device, bar: Bar = no_bar,
        epochs: Optional[int] = None, batch_size: Optional[int] = None,
) -> TrainedProbe:
    """Create a linear evaluation as published: random resized crops and mirror images of the labelled images.

    Args:
        args: Settings; `probe` names the protocol.
        source: The labelled images.
        spec: The evaluation view.
        device: Where the model is.
        bar: Makes a progress bar.
        epochs: In place of the protocol's.
        batch_size: Likewise.
    """
    crop = Crop('rrc', scale=(0.08, 1.0), interpolation='bicubic' if args.probe == 'linear-mae' else 'bilinear')
    crops = create_loader(
        source, InstanceSampler(len(source), seed=args.seed), [replace(spec, crop=crop)], args.validation_batch_size,
        seed=args.seed, device=device, workers=args.workers or 0, pin_memory=args.pin_mem,
        channels_last=args.channels_last)
    ordered = eval_loader(args, source, spec, World(), device)
    assert ordered is not None
    protocol = PROTOCOLS[args.probe].shortened(epochs, batch_size)
    return TrainedProbe(ordered, crops, args.probe, protocol, args.seed, bar)


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
