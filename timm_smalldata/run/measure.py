"""Seconds and memory of a step: some real steps on a copy, before the first epoch."""
import copy
import math
import os
import time
from argparse import Namespace
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional

import torch

from ..build.optimizer import create_optimizer, precision
from ..build.roles import Data
from ..data.loader import Batch, ViewLoader
from ..engine.checkpoint import save
from ..engine.evaluate import eval_model
from ..engine.memory import in_memory
from ..engine.train import frozen_statistics, trained_module
from ..errors import UserError
from ..optim import SAM
from ..task import TaskHooks
from ..utils.distributed import World
from ..utils.random import seed_step


def measure(
        args: Namespace,
        task: TaskHooks,
        loader: ViewLoader,
        val_loader: Optional[ViewLoader],
        folder: Path,
        seconds: float = 0.0,
) -> Dict[str, float]:
    """Run some steps and one evaluation batch on a copy of the task; nothing of the run itself changes.

    Args:
        args: The settings.
        task: The task.
        loader: Batches of training views.
        val_loader: Batches of evaluation.
        folder: Where a checkpoint would lie.
        seconds: How long steps are measured at least, after one that warms up: three, thirty at most. Their mean
            counts, as machines are not always at their best.

    Returns:
        `save` in seconds per checkpoint; `step` and `eval` in seconds per micro-batch (reading and rendering included;
        SAM: both passes); `memory` in bytes: what a step keeps for the backward pass, and weights, gradients, optimizer
        state and SAM's copy of the weights; on a GPU the peak that was allocated.
    """
    device = loader.device
    copied = copy.deepcopy(task)
    module = trained_module(copied)
    optimizer: Any = create_optimizer(args, module)
    autocast, _ = precision(args, device)
    two_passes = isinstance(optimizer, SAM)
    kept: Dict[int, int] = {}
    weights = sum(p.numel() * p.element_size() for p in module.parameters())

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    copied.train()
    copied.set_epoch(0)
    loader.set_epoch(0)
    times: List[float] = []
    batches = iter(loader)
    if device.type == 'cuda':
        torch.cuda.reset_peak_memory_stats(device)
    while len(times) < 4 or sum(times[1:]) < seconds and len(times) < 31:
        started = time.perf_counter()
        if times and len(times) % len(loader) == 0:  # a tiny set: begin again
            loader.set_epoch(0)
            batches = iter(loader)
        batch = next(batches)
        seed_step(args.seed, 0, 0, batch.step)
        input, target = copied.mix(batch)

        def passes(input: Any = input, target: Any = target) -> torch.Tensor:
            kept.clear()
            with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t), autocast(), _said_what_fails(args, input):
                loss = copied(input, target)['loss']
            loss.backward()
            return loss

        def part(size: int, batch: Batch = batch) -> Any:
            return passes(*copied.mix(batch.first(size)))

        backward = partial(in_memory, passes, len(batch), part, reserve=2 * weights, device=device)
        if two_passes:
            optimizer.step(backward)
        else:
            backward()
            optimizer.step()
        optimizer.zero_grad()
        if device.type == 'cuda':
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - started)
    memory = weights * (5 if two_passes else 4) + sum(kept.values())
    if device.type == 'cuda':
        memory = torch.cuda.max_memory_allocated(device)
    measured = dict(
        step=sum(times[1:]) / len(times[1:]), eval=0.0, save=_seconds_to_save(module, optimizer, folder), memory=memory)
    if val_loader is not None and len(val_loader):
        measured['eval'] = _seconds_to_judge(copied, val_loader)
    return measured


@contextmanager
def _said_what_fails(args: Namespace, input: Any) -> Iterator[None]:
    """Say in a line which model, task and shapes do not go together."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, AssertionError, ValueError) as error:
        parts = input if isinstance(input, list) else [input]
        shapes = ', '.join(map(str, dict.fromkeys(tuple(part.shape) for part in parts)))
        what = f'--task {args.task}' if args.task != 'classification' else f'--loss {args.loss}'
        raise UserError(
            f'{args.model} with {what} cannot take a batch of {shapes}: {error}. Check --img-size, --batch-size and '
            '--train-img-sizes (for several sizes a ViT needs --model-kwargs dynamic_img_size=True).') from error


def _seconds_to_judge(task: TaskHooks, loader: ViewLoader) -> float:
    """Return the seconds of one evaluation batch, reading included."""
    model = eval_model(task).eval()
    batches = iter(loader)
    with torch.no_grad(), frozen_statistics(model):
        started = time.perf_counter()
        views = next(batches).views[0]
        in_memory(partial(task.predict, model, views), len(views), lambda size: task.predict(model, views[:size]),
                  '--validation-batch-size', device=loader.device)
        if loader.device.type == 'cuda':
            torch.cuda.synchronize(loader.device)
        return time.perf_counter() - started


def _seconds_to_save(module: torch.nn.Module, optimizer: torch.optim.Optimizer, folder: Path) -> float:
    place = folder / f'.measure-{os.getpid()}.tmp'
    started = time.perf_counter()
    save(dict(state_dict=module.state_dict(), optimizer=optimizer.state_dict()), place)
    seconds = time.perf_counter() - started
    place.unlink()
    return seconds


def final_batches(args: Namespace, data: Data, world: World, probed: bool = False) -> int:
    """Return how many evaluation batches the end of a run takes: the split that is judged, and what goes with it.

    Args:
        args: Settings.
        data: The images.
        world: This process.
        probed: Features are judged, by those of the training images.
    """
    judged = data.test if data.test is not None else data.val
    alone = len(data.train) if args.head == 'cosine' else 0  # its features are measured for the export, on one process
    if data.val is not None and not probed:  # the temperature of the exported model, and the one that was asked for
        alone += len(data.val) * (1 + bool(args.temperature))
    size = args.validation_batch_size
    shared = 0 if judged is None else len(judged) + probed * len(data.train)
    return math.ceil(shared / (size * world.world_size)) + math.ceil(alone / size)
