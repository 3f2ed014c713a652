"""What one run is: its job (settled settings, data, folder), and the parts that are built for it."""
import math
from argparse import Namespace
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Optional

import torch

from ..build.judge import create_judge
from ..build.loaders import eval_loader, train_loader
from ..build.model import check_head, create_model
from ..build.prepare import prepare
from ..build.roles import Data
from ..build.stem import initialise_stem
from ..build.task import average_weights, create_task, selection
from ..build.views import create_views, data_config, place_of_augmentation
from ..config.length import eval_interval
from ..config.plan import Stage
from ..config.settings import Settings
from ..data.loader import ViewLoader
from ..data.views import ViewSpec
from ..engine.evaluate import Judge
from ..task import TaskHooks
from ..utils.console import Voice
from ..utils.distributed import World


@dataclass(frozen=True)
class Job:
    """What is to be trained on what.

    Attributes:
        args: The settled settings, a value for every flag.
        settings: The same with what set them.
        given: What the user gave; a resumed run is compared with it.
        data: Images by role.
        folder: The run folder.
        world: This process.
        device: Where it trains.
        say: Prints.
        notes: What the user should know before the training starts.
    """
    args: Namespace
    settings: Settings
    given: Dict[str, Any]
    data: Data
    folder: Path
    world: World
    device: torch.device
    say: Voice
    notes: List[str] = field(default_factory=list)

    def eval_loader(
            self, source: Any, spec: ViewSpec, alone: bool = False, keep: bool = False) -> Optional[ViewLoader]:
        """Return a loader of the evaluation view.

        Args:
            source: The images, or None.
            spec: The view.
            alone: This process sees all images, not its share.
            keep: It is used again and again.
        """
        return eval_loader(self.args, source, spec, World() if alone else self.world, self.device, keep)


@dataclass(frozen=True)
class Parts:
    """What trains and what judges.

    Attributes:
        task: The task, with the model.
        config: Preprocessing, in timm's terms.
        eval_spec: The evaluation view.
        loader: Batches of training views.
        val_loader: Batches of validation images; None where nothing is judged between epochs.
        judge: Judges the model.
        metric: The metric that chooses the weights, if any does.
        sign: 1 where more of it is better, -1 where less is.
        updates: Optimizer steps of an epoch.
    """
    task: TaskHooks
    config: Dict[str, Any]
    eval_spec: ViewSpec
    loader: ViewLoader
    val_loader: Optional[ViewLoader]
    judge: Judge
    metric: Optional[str]
    sign: int
    updates: int


def create_job(stage: Stage, folder: Path, world: World, device: torch.device, say: Voice) -> Job:
    """Open the data and settle the settings that depend on them."""
    args, data, notes = prepare(stage, world, device, say)
    return Job(args, stage.settings, stage.given, data, folder, world, device, say, notes)


def build_parts(job: Job) -> Parts:
    """Build model, task, loaders and judge; the initial weights are a function of the seed."""
    args, data = job.args, job.data
    torch.manual_seed(args.seed)
    model = create_model(args, data.classes.names)
    check_head(args, model)
    config = data_config(args, model)
    view, eval_spec = create_views(args, config)
    initialise_stem(args, model, data.train, eval_spec)
    task = create_task(args, model, data, view, job.device, job.world)
    views = task.views()
    args.augment_on = place_of_augmentation(args.augment_on, views, job.device.type)  # stored: stays on resume
    loader = train_loader(args, data.train, views, job.world, job.device)
    val_loader = job.eval_loader(data.val if eval_interval(args) else None, eval_spec, keep=True)
    metric, sign = selection(args, task, data)
    judge = create_judge(args, task, data, eval_spec, job.world, job.device)
    updates = math.ceil(len(loader) / max(args.grad_accum_steps, 1))
    average_weights(args, task, updates * args.epochs)
    return Parts(task, config, eval_spec, loader, val_loader, judge, metric, sign, updates)
