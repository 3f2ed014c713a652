"""How long a run is: its epochs where a time budget sets them, and when it will end, from a measurement."""
import time
from argparse import Namespace
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Dict, Tuple

from ..config import auto
from ..config.late_checks import check_deferred
from ..config.sharpness import rho_schedule
from ..engine.probe import ProbeJudge
from ..utils.console import duration
from .job import Job, Parts, build_parts
from .measure import final_batches, measure


@dataclass(frozen=True)
class Pace:
    """What the parts of a run cost, in seconds.

    Attributes:
        step: A training batch.
        eval: An evaluation batch.
        batches: Training batches of an epoch.
        val_batches: Batches of an evaluation between epochs.
        last: Evaluation batches after training.
        memory: Bytes that a step needs.
    """
    step: float
    eval: float
    batches: int
    val_batches: int
    last: int
    memory: float = 0.0

    @property
    def end(self) -> float:
        """Seconds of the evaluation after training."""
        return self.eval * self.last

    def epoch(self, interval: int) -> float:
        """Return the seconds of an epoch, its share of an evaluation every `interval` epochs included."""
        return self.step * self.batches + (self.eval * self.val_batches / interval if interval else 0.)

    def training(self, args: Namespace, epochs: int, interval: int) -> float:
        """Return the seconds of so many epochs; where SAM pauses, an update takes one pass of two."""
        rho = rho_schedule(args)
        saved = sum(self.step * self.batches * (1 - rho.cost(epoch)) for epoch in range(epochs))
        return self.epoch(interval) * epochs - saved


def settle_length(job: Job, parts: Parts, started: float) -> Tuple[Job, Parts]:
    """Measure a step, let a time budget set the epochs, and say when the run will end.

    Args:
        job: The job.
        parts: Its parts; where the epochs change they are built again.
        started: When the run began, as `time.time()` tells it.
    """
    args, world = job.args, job.world
    probed = isinstance(parts.judge, ProbeJudge)
    last = final_batches(args, job.data, world, probed=probed)
    judged = parts.val_loader
    if judged is None and last:  # the test images are for the end
        judged = job.eval_loader(job.data.train, parts.eval_spec)
    seconds, spent, val_batches = world.broadcast(
        (measure(args, parts.task, parts.loader, judged), time.time() - started, parts.judge.batches(parts.val_loader)))
    pace = Pace(seconds['step'], seconds['eval'], len(parts.loader), val_batches, last, seconds['memory'])
    if args.time_budget:
        source = f'--time-budget {args.time_budget}, measured'
        for dest, value in within_budget(job, pace, spent).items():
            job.settings.settle(dest, value, source)
        job = replace(job, args=job.settings.namespace())
        check_deferred(job.args)
        parts = build_parts(job)
    job.say(expectation(job.args, pace))
    return job, parts


def within_budget(job: Job, pace: Pace, spent: float) -> Dict[str, Any]:
    """Return the settings with which the run ends within its time budget: epochs, and what follows from them.

    Args:
        job: Its settings name the budget.
        pace: Measured.
        spent: Seconds since the run began.
    """
    args, settings = job.args, job.settings
    interval = auto.eval_interval(args)
    left = auto.seconds(args.time_budget) - spent - pace.end
    follows = settings.source('probe_interval') == 'default'  # it depends on the epochs, which depend on it
    if follows:
        interval = auto.probe_interval(int(left / pace.epoch(1)))
    epochs = max(1, int(0.95 * left / pace.epoch(interval)))
    while pace.training(args, epochs + 1, interval) <= 0.95 * left:  # where some epochs need one pass only
        epochs += 1
    if pace.epoch(interval) > left:
        job.say(f'--time-budget {args.time_budget} is less than one epoch and the final evaluation '
                f'({duration(pace.epoch(interval) + pace.end)}): one epoch is trained.')
    values = dict(epochs=epochs)
    if settings.source('warmup_epochs') == 'default':
        values['warmup_epochs'] = auto.warmup(epochs, args.task)
    if follows:
        values['probe_interval'] = auto.probe_interval(epochs)
    return values


def expectation(args: Namespace, pace: Pace) -> str:
    """Return in a line how long the run will take and what a step needs."""
    interval = auto.eval_interval(args)
    training = pace.training(args, args.epochs, interval)
    ended = datetime.fromtimestamp(time.time() + training + pace.end)
    return (f'measured: {duration(pace.epoch(interval))} per epoch, {args.epochs} epochs: {duration(training)}, with '
            f'the final evaluation until about {ended:%H:%M}; a step needs about {pace.memory / 2**20:.0f} MiB')
