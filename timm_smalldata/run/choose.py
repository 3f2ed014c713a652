"""The model and the length that a time budget allows: candidates are measured for seconds, one is taken.

What was taken is written into the run's folder before the first step: a run that is started again reads it.
"""
import time
from copy import deepcopy
from dataclasses import replace
from typing import Any, Dict, Optional, Tuple

from ..config import auto
from ..config.choice import CHOICE, read_choice, write_choice
from ..config.flags import BY_DEST
from ..config.late_checks import check_deferred
from ..utils.console import duration
from .job import Job, Parts, build_parts
from .length import Pace, measured_pace, within_budget


def settle(job: Job, started: float) -> Tuple[Job, Parts, Optional[Pace]]:
    """Choose what the time allows and build it; returns what was measured as well.

    Args:
        job: The job, with what the rule assumes before anything is measured.
        started: When the run began, as `time.time()` tells it.
    """
    chosen = job.world.first(lambda: read_choice(job.folder, _reason(job)))
    if chosen is not None:
        job.say(f'{job.folder / CHOICE} says what to train: nothing is measured')
        job = with_values(job, chosen, CHOICE)
        return job, build_parts(job), None
    if not job.args.time_budget:
        parts = build_parts(job)
        pace = measured_pace(job, parts)
    else:
        job, parts, pace = _within_time(job, started)
        check_deferred(job.args)
    if not job.args.dry_run or (job.folder / CHOICE).exists():  # an empty file asks a dry run for what it chooses
        job.world.first(lambda: write_choice(job.folder, _reason(job), _chosen(job)))
    return job, parts, pace


def with_values(job: Job, values: Dict[str, Any], source: str) -> Job:
    """Return the job with other values, where nobody but the rule has set them."""
    settings = deepcopy(job.settings)
    for dest, value in values.items():
        if auto.is_open(settings, dest):
            settings.settle(dest, value, source)
    return replace(job, settings=settings, args=settings.namespace())


def _within_time(job: Job, started: float) -> Tuple[Job, Parts, Pace]:
    """Measure the smallest candidate, and a larger one as long as the time is better spent on that."""
    taken = _measured(job, started)
    if not auto.is_open(job.settings, 'model') or job.args.model != auto.CANDIDATES[0].model:
        return taken
    for larger in auto.CANDIDATES[1:]:
        if taken[0].args.epochs < larger.epochs * auto.LARGER_COSTS:
            break
        tried = _measured(with_values(job, dict(model=larger.model), _measured_by(job)), started)
        if tried[0].args.epochs < larger.epochs:
            break
        taken = tried
    return taken


def _measured(job: Job, started: float) -> Tuple[Job, Parts, Pace]:
    """Measure a job, give it the epochs that its budget allows and build it with them."""
    began, args = time.time(), job.args
    parts = build_parts(job)
    pace = measured_pace(job, parts)
    spent = job.world.broadcast(time.time() - started)
    values = within_budget(job, pace, spent)
    job.say(f'measured {args.model} at {args.img_size} px for {duration(time.time() - began)}: '
            f'{args.batch_size * job.world.world_size / pace.step:.0f} images a second, {values["epochs"]} epochs in '
            f'{args.time_budget}')
    job = with_values(job, values, _measured_by(job))
    return job, build_parts(job), pace


def _measured_by(job: Job) -> str:
    return f'{auto.MEASURED} {job.args.time_budget}'


def _chosen(job: Job) -> Dict[str, Any]:
    """Return the values that no flag, file or recipe has set."""
    return {dest: value for dest, value in sorted(job.settings.values.items())
            if dest in BY_DEST and auto.is_open(job.settings, dest)}


def _reason(job: Job) -> Dict[str, Any]:
    """Return what the choice depends on."""
    given = {dest: value for dest, value in sorted(job.given.items())
             if dest in BY_DEST and not BY_DEST[dest].may_change and BY_DEST[dest].kept}
    return dict(given=given, images=job.data.classes.data_hash, split=job.data.split_hash(),
                processes=job.world.world_size, device=job.device.type)
