"""How long a run will take and how much memory it needs: a few real steps on a copy, before the first epoch."""
import copy
import time
from argparse import Namespace
from typing import Any, Dict, Optional

import torch

from .build import create_optimizer, precision
from .data.loader import ViewLoader
from .engine import eval_model, frozen_statistics
from .rng import seed_step


def measure(args: Namespace, task: Any, loader: ViewLoader, val_loader: Optional[ViewLoader], steps: int = 3) -> Dict:
    """Run a few steps and one evaluation batch on a copy of the task; nothing of the run itself changes.

    Returns:
        `step` and `eval` in seconds per micro-batch (reading and rendering included), `memory` in bytes: what a step
        keeps for the backward pass, and weights, gradients and optimizer state; on a GPU the peak that was allocated.
    """
    device = loader.device
    copied = copy.deepcopy(task)
    module = copied.get_trainable_module()
    optimizer = create_optimizer(args, module)
    autocast, _ = precision(args, device)
    kept: Dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    copied.train()
    copied.set_epoch(0)
    loader.set_epoch(0)
    times = []
    batches = iter(loader)
    if device.type == 'cuda':
        torch.cuda.reset_peak_memory_stats(device)
    for number in range(min(steps, len(loader)) + 1):
        started = time.perf_counter()
        if number == len(loader):  # a tiny set: begin again
            batches = iter(loader)
        batch = next(batches)
        seed_step(args.seed, 0, 0, batch.step)
        input, target = copied.mix(batch)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t), autocast():
            loss = copied(input, target)['loss']
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if device.type == 'cuda':
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - started)
    weights = sum(p.numel() * p.element_size() for p in module.parameters())
    memory = weights * 4 + sum(kept.values())
    if device.type == 'cuda':
        memory = torch.cuda.max_memory_allocated(device)
    seconds = dict(step=min(times[1:]), eval=0.0, memory=memory)
    if val_loader is not None and len(val_loader):
        model = eval_model(copied).eval()
        batches = iter(val_loader)
        with torch.no_grad(), frozen_statistics(model):
            started = time.perf_counter()
            copied.predict(model, next(batches).views[0])
            if device.type == 'cuda':
                torch.cuda.synchronize(device)
            seconds['eval'] = time.perf_counter() - started
    return seconds


def epoch_seconds(measured: Dict, batches: int, val_batches: int, val_interval: int) -> float:
    """Return the expected seconds of one epoch, its share of evaluation included."""
    return measured['step'] * batches + measured['eval'] * val_batches / max(val_interval, 1)
