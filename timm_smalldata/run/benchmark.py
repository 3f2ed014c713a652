"""What a machine does with a model and data: reading, views, the model alone and all together, in images a second."""
import itertools
import statistics
import time
from argparse import Namespace
from contextlib import ExitStack
from typing import Any, Callable, Dict, Iterator

import torch

from ..build.optimizer import compile_and_distribute, create_optimizer, precision
from ..data.loader import Batch, ViewLoader
from ..data.source import innermost
from ..engine.evaluate import eval_model
from ..engine.train import trained_module
from ..optim import SAM
from ..utils.random import seed_step
from .job import Job, Parts

ROUNDS = 5  # each thing is measured so often, in turn, and the median counts: machines are not always at their best
RATIOS = (('end to end / step', 'end_to_end', 'step'), ('evaluation / forward', 'evaluation', 'forward'))


def benchmark(job: Job, parts: Parts, seconds: float) -> Dict[str, Any]:
    """Measure everything that a training and an evaluation do, in turn.

    Args:
        job: The job.
        parts: Its parts; what is trained here is lost.
        seconds: How long each thing is measured.

    Returns:
        `images_per_second` by what was done, with the lowest and highest round; `views`: views of an image; `ratios`:
        how much of the model's own speed is left with reading and rendering; `memory`: bytes at the peak on a GPU.
    """
    args = job.args
    compile_and_distribute(args, parts.task, job.world, job.device)
    works = dict(
        decode=_decode(parts), views=_views(parts.loader), step=_step(job, parts, _same(parts.loader)),
        end_to_end=_step(job, parts, _endless(parts.loader)))
    judged = parts.val_loader or job.eval_loader(job.data.test or job.data.train, parts.eval_spec)
    assert judged is not None
    works.update(
        forward=_forward(job, parts, _same(judged)), evaluation=_forward(job, parts, _endless(judged)))
    rates: Dict[str, list] = {name: [] for name in works}
    for round_ in range(ROUNDS + 1):
        for name, work in works.items():
            rate = _rate(work, seconds / ROUNDS if round_ else 0.0, job.device)
            if round_:  # the first one warms up
                rates[name].append(rate)
    return dict(
        images_per_second={
            name: dict(median=statistics.median(found), lowest=min(found), highest=max(found))
            for name, found in rates.items()},
        views=len(parts.loader.specs),
        ratios={name: statistics.median(a / b for a, b in zip(rates[above], rates[below]))
                for name, above, below in RATIOS},
        memory=torch.cuda.max_memory_allocated(job.device) if job.device.type == 'cuda' else None)


def _rate(work: Iterator[int], seconds: float, device: torch.device) -> float:
    """Return images a second of something that says after each batch how many it did."""
    done, began = 0, time.perf_counter()
    while not done or time.perf_counter() - began < seconds:
        done += next(work)
    if device.type == 'cuda':
        torch.cuda.synchronize(device)
    return done / (time.perf_counter() - began)


def _decode(parts: Parts) -> Iterator[int]:
    """Open and decode files, on one thread."""
    source = next(innermost(parts.loader.source))
    for index in itertools.cycle(range(len(source))):
        source.read(index)
        yield 1


def _views(loader: ViewLoader) -> Iterator[int]:
    """Render what the task wants to see, from decoded images."""
    for batch in _endless(loader):
        yield len(batch)


def _endless(loader: ViewLoader) -> Iterator[Batch]:
    for epoch in itertools.count():
        loader.set_epoch(epoch)
        yield from loader


def _same(loader: ViewLoader) -> Iterator[Batch]:
    """Give one batch again and again: what is left is the model."""
    loader.set_epoch(0)
    return itertools.repeat(next(iter(loader)))


def _step(job: Job, parts: Parts, batches: Iterator[Batch]) -> Iterator[int]:
    """Train on batches: mixing, forward and backward pass, update."""
    args, task = job.args, parts.task
    optimizer: Any = create_optimizer(args, trained_module(task))
    autocast, scaler = precision(args, job.device)
    task.begin(args.epochs, parts.updates, optimizer)
    task.set_epoch(0)
    for batch in batches:
        task.train()
        seed_step(args.seed, job.world.rank, batch.epoch, batch.step)
        backward = _backward(task, batch, autocast, scaler)
        if isinstance(optimizer, SAM):
            optimizer.step(backward)
        else:
            optimizer.zero_grad()
            backward()
            if scaler is None:
                optimizer.step()
            else:
                scaler.step(optimizer)
                scaler.update()
        yield len(batch)


def _backward(task: Any, batch: Batch, autocast: Callable, scaler: Any) -> Callable[[], torch.Tensor]:
    input, target = task.mix(batch)

    def backward() -> torch.Tensor:
        with autocast():
            loss = task(input, target)['loss']
        (loss if scaler is None else scaler.scale(loss)).backward()
        return loss.detach()

    return backward


def _forward(job: Job, parts: Parts, batches: Iterator[Batch]) -> Iterator[int]:
    """Predict batches."""
    autocast, _ = precision(job.args, job.device)
    for batch in batches:
        model = eval_model(parts.task)
        with ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            stack.enter_context(autocast())
            parts.task.predict(model.eval(), batch.views[0])
        yield len(batch)


def conditions(args: Namespace, job: Job) -> Dict[str, Any]:
    """Return what the numbers depend on."""
    return dict(
        model=args.model, img_size=args.img_size, batch_size=args.batch_size, task=args.task, amp=args.amp,
        fused_attn=args.fused_attn, channels_last=args.channels_last, torchcompile=args.torchcompile, opt=args.opt,
        workers=args.workers, threads=torch.get_num_threads(), device=job.device.type)
