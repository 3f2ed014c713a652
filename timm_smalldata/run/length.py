"""How long a run is: its epochs where a time budget sets them, and when it will end, from a measurement."""
import time
from argparse import Namespace
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Dict

from ..config.length import eval_interval, follows, seconds, total_epochs
from ..config.sharpness import rho_schedule
from ..engine.probe import ProbeJudge
from ..utils.console import duration
from .job import Job, Parts
from .measure import final_batches, measure

SECONDS = 4.0  # for which steps are measured
SURE = 0.95  # share of the time that is planned for


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
        save: A checkpoint.
    """
    step: float
    eval: float
    batches: int
    val_batches: int
    last: int
    memory: float = 0.0
    save: float = 0.0

    @property
    def end(self) -> float:
        """Seconds of the evaluation after training."""
        return self.eval * self.last

    def epoch(self, interval: int) -> float:
        """Return the seconds of an epoch, its checkpoint and its share of an evaluation every `interval` epochs."""
        return self.step * self.batches + self.save + (self.eval * self.val_batches / interval if interval else 0.)

    def training(self, args: Namespace, epochs: int, interval: int) -> float:
        """Return the seconds of so many epochs; where SAM pauses, an update takes one pass of two."""
        rho = rho_schedule(args)
        saved = sum(self.step * self.batches * (1 - rho.cost(epoch)) for epoch in range(epochs))
        return self.epoch(interval) * epochs - saved


def measured_pace(job: Job, parts: Parts) -> Pace:
    """Measure a step and an evaluation batch; all processes get what the first one measured."""
    args, world = job.args, job.world
    last = final_batches(args, job.data, world, probed=isinstance(parts.judge, ProbeJudge))
    judged = parts.val_loader
    if judged is None and last:  # the test images are for the end
        judged = job.eval_loader(job.data.train, parts.eval_spec)
    thorough = SECONDS if args.time_budget else 0.0  # where much hangs on it
    measured, val_batches = world.broadcast((
        measure(args, parts.task, parts.loader, judged, job.folder, thorough), parts.judge.batches(parts.val_loader)))
    return Pace(batches=len(parts.loader), val_batches=val_batches, last=last, **measured)


def within_budget(job: Job, pace: Pace, spent: float) -> Dict[str, Any]:
    """Return the settings with which the run ends within its time budget: epochs, and what follows from them.

    Args:
        job: Its settings name the budget.
        pace: Measured.
        spent: Seconds since the run began.
    """
    args, settings = job.args, job.settings
    left = seconds(args.time_budget) - spent - pace.end

    def interval(epochs: int) -> int:
        values = follows(epochs, settings)
        return values.get('val_interval', values.get('probe_interval', eval_interval(args)))

    epochs = max(1, int(SURE * left / pace.epoch(interval(max(1, int(left / pace.epoch(1)))))))
    while pace.training(args, epochs + 1, interval(epochs + 1)) <= SURE * left:  # where some epochs need one pass only
        epochs += 1
    if pace.epoch(interval(1)) > left:
        job.say(f'--time-budget {args.time_budget} is less than one epoch and the final evaluation '
                f'({duration(pace.epoch(interval(1)) + pace.end)}): one epoch is trained.')
    return dict(epochs=epochs, **follows(epochs, settings))


def expectation(args: Namespace, pace: Pace) -> str:
    """Return in a line how long the run will take and what a step needs."""
    interval = eval_interval(args)
    epochs = total_epochs(args)
    training = pace.training(args, epochs, interval)
    ended = datetime.fromtimestamp(time.time() + training + pace.end)
    return (f'measured: {duration(pace.epoch(interval))} per epoch, {epochs} epoch{"s" * (epochs != 1)}: '
            f'{duration(training)}, with the final evaluation until about {ended:%H:%M}; '
            f'a step needs about {pace.memory / 2**20:.0f} MiB')
