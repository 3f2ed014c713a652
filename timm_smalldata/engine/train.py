"""One epoch of training, for every task alike."""
from contextlib import nullcontext
from functools import partial
from typing import Any, Callable, ContextManager, Dict, Iterator, List, Optional, Tuple

import torch
from timm.scheduler.scheduler import Scheduler

from ..data.loader import Batch, ViewLoader
from ..errors import UserError
from ..task import TaskHooks
from ..utils.distributed import World
from ..utils.random import seed_step
from .memory import in_memory

Autocast = Callable[[], ContextManager]
_STATISTICS = ('running_mean', 'running_var', 'num_batches_tracked')  # buffers that a forward pass in training moves


class NonFiniteLoss(UserError):
    """The loss or a weight became infinite or not a number."""


class Meters:
    """Running means of what a task returns; tensors, read only when asked."""

    def __init__(self) -> None:
        self.sums: Dict[str, torch.Tensor] = {}
        self.count = 0

    def add(self, result: Dict[str, Any], samples: int) -> None:
        """Add the scalars of one micro-batch, weighted by its samples."""
        for name, value in result.items():
            if isinstance(value, torch.Tensor) and value.ndim == 0:
                wide = torch.float32 if value.device.type == 'mps' else torch.float64  # MPS has no float64
                value = value.detach().to(wide) * samples
                self.sums[name] = self.sums[name] + value if name in self.sums else value
        self.count += samples

    def means(self, world: World = World()) -> Dict[str, float]:
        """Return the means over all ranks."""
        names = list(self.sums)
        values = torch.stack([self.sums[n] for n in names])
        values = torch.cat([values, values.new_tensor([self.count])])
        if world.distributed:
            torch.distributed.all_reduce(values)
        *sums, count = values.tolist()
        return {name: total / max(count, 1) for name, total in zip(names, sums)}


def trained_module(task: TaskHooks) -> torch.nn.Module:
    """Return all that a task trains."""
    module = task.get_trainable_module()
    assert module is not None
    return module


def windows(loader: ViewLoader, size: int) -> Iterator[List[Batch]]:
    """Group micro-batches into those of one update; a last, shorter group is an update too."""
    window: List[Batch] = []
    for batch in loader:
        window.append(batch)
        if len(window) == size:
            yield window
            window = []
    if window:
        yield window


def frozen_statistics(module: torch.nn.Module) -> ContextManager:
    """Keep running statistics of normalisation still inside the context (second passes over the same batch)."""
    return _FrozenStatistics(module)


class _FrozenStatistics:
    def __init__(self, module: torch.nn.Module):
        self.places = [
            (m, name) for m in module.modules() for name, _ in m.named_buffers(recurse=False) if name in _STATISTICS]

    def __enter__(self) -> None:
        self.kept = [getattr(m, name) for m, name in self.places]
        for (m, name), tensor in zip(self.places, self.kept):
            setattr(m, name, tensor.clone())

    def __exit__(self, *exc: object) -> None:
        for (m, name), tensor in zip(self.places, self.kept):
            setattr(m, name, tensor)


def train_epoch(
        task: TaskHooks,
        loader: ViewLoader,
        optimizer: torch.optim.Optimizer,
        *,
        epoch: int,
        updates_per_epoch: int,
        seed: int,
        world: World = World(),
        accumulation: int = 1,
        autocast: Autocast = nullcontext,
        scaler: Optional[torch.amp.GradScaler] = None,
        schedule: Optional[Scheduler] = None,
        sync_first: bool = False,
        progress: Callable[[int, Meters], None] = lambda update, meters: None,
) -> Dict[str, float]:
    """Train one epoch.

    Args:
        task: A timm `TrainingTask` with the hooks of `task.base`.
        loader: Its training views.
        optimizer: timm's or torch's; one that `needs_closure` (SAM) calls the passes itself.
        epoch: Number of the epoch.
        updates_per_epoch: Optimizer steps in an epoch.
        seed: The run's seed.
        world: This process.
        accumulation: Micro-batches per update.
        autocast: Makes the autocast context.
        scaler: For float16.
        schedule: timm scheduler, told every update.
        sync_first: Average the gradients of a first of two passes over the ranks as well (SAM: one perturbation for
            all); else each rank has its own.
        progress: Called after every update.

    Returns:
        Means of the task's scalars over all ranks.

    Raises:
        UserError: The memory of the device is full.
        NonFiniteLoss: The mean loss or a weight is not finite at the end of the epoch.
        ValueError: A scaler for an optimizer that needs a closure.
    """
    two_passes = getattr(optimizer, 'needs_closure', False)
    if two_passes and scaler is not None:
        raise ValueError('A gradient scaler cannot drive an optimizer with two passes: use bfloat16.')
    task.train()
    task.set_epoch(epoch)
    loader.set_epoch(epoch)
    meters = Meters()
    reserve = 2 * sum(p.numel() * p.element_size() for p in trained_module(task).parameters() if p.requires_grad)
    for number, window in enumerate(windows(loader, accumulation)):
        update = epoch * updates_per_epoch + number
        task.before_step(update)
        inputs = []
        for batch in window:
            seed_step(seed, world.rank, batch.epoch, batch.step)
            inputs.append(task.mix(batch))

        def backward(window: List[Batch] = window, inputs: List[Tuple] = inputs, first: bool = True) -> Any:
            total: Any = 0.0
            synced = sync_first or not (first and two_passes)
            with nullcontext() if first else frozen_statistics(task):
                for micro, (batch, (input, target)) in enumerate(zip(window, inputs)):
                    seed_step(seed, world.rank, batch.epoch, batch.step)
                    with nullcontext() if synced and micro == len(window) - 1 else task.no_sync():
                        with autocast():
                            result = task(input, target)
                        loss = result['loss'] / len(window)
                        (loss if scaler is None else scaler.scale(loss)).backward()
                    total = total + loss.detach()
                    if first:
                        meters.add(result, len(batch))
            return total

        in_memory(
            partial(_step, task, optimizer, backward, scaler, update, two_passes), len(window[0]),
            partial(_try, task, optimizer, window[0], autocast), reserve=reserve, device=loader.device)
        task.after_step(update)
        if schedule is not None:
            schedule.step_update(num_updates=update + 1, metric=None)
        progress(update, meters)

    means = meters.means(world)
    finite = torch.stack([p.detach().isfinite().all() for p in trained_module(task).parameters()]).all()
    if not (torch.tensor(means['loss']).isfinite() and bool(finite)):
        raise NonFiniteLoss(f"the loss is not finite in epoch {epoch + 1} (mean {means['loss']})")
    return means


def _try(task: TaskHooks, optimizer: torch.optim.Optimizer, batch: Batch, autocast: Autocast, size: int) -> None:
    """Run the passes of some images of a batch, for what memory they take."""
    optimizer.zero_grad()
    input, target = task.mix(batch.first(size))
    with task.no_sync():
        with autocast():
            loss = task(input, target)['loss']
        loss.backward()


def _step(
        task: TaskHooks,
        optimizer: Any,
        backward: Callable,
        scaler: Optional[torch.amp.GradScaler],
        update: int,
        two_passes: bool,
) -> None:
    """One update: optimizers that perturb the weights get the closure, all others the plain order."""
    if two_passes:  # clipping and the like see the second gradient, the one that is stepped with
        passes = iter((True, False))
        optimizer.step(lambda: backward(first=next(passes)), before_step=lambda: task.after_backward(update))
        return
    optimizer.zero_grad()
    backward()
    if scaler is not None:
        scaler.unscale_(optimizer)
    task.after_backward(update)
    if scaler is None:
        optimizer.step()
    else:
        scaler.step(optimizer)
        scaler.update()
