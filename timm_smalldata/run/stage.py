"""One stage of a plan, from its settings to its report."""
import json
import shutil
import time
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Dict, Iterator, Optional

import torch

from ..config.plan import Stage, finish_stage
from ..report.table import format_report
from ..utils.console import Voice
from ..utils.distributed import World
from ..utils.model_folder import is_complete
from .choose import settle
from .describe import describe
from .finish import finish
from .folder import locked
from .job import build_parts, create_job
from .length import expectation
from .resume import EarlierRun, check_same_data, run_folder
from .trainer import Trainer

# What a finished run has beside its model; one that lacks a file is judged again from its checkpoint.
RESULTS = ('report.json', 'per_class.csv', 'summary.csv', 'args.yaml', 'environment.json')


def run_stage(stage: Stage, earlier: EarlierRun, world: World, device: torch.device, say: Voice) -> Dict[str, Any]:
    """Train, choose, export and judge one model; returns its report (empty when it was not trained to the end)."""
    with locked(run_folder(stage), world):
        return _run_locked(stage, earlier, world, device, say)


def _run_locked(stage: Stage, earlier: EarlierRun, world: World, device: torch.device, say: Voice) -> Dict[str, Any]:
    started, folder = time.time(), run_folder(stage)
    finished = is_finished(folder)  # with --keep best there is no checkpoint to tell it
    saved = earlier.continue_(world, say, finished)
    if finished and (saved is not None or earlier.resume == 'auto') and not stage.settings.get('force'):
        return read_finished(folder, say)
    finish_stage(stage)
    with scratch_cache(stage, world):
        return _run(stage, saved, world, device, say, started)


@contextmanager
def scratch_cache(stage: Stage, world: World) -> Iterator[None]:
    """Let a dry run decode images into a folder that goes with it, where no decoded images are kept already."""
    settings = stage.settings
    kept = settings.get('cache_dir') or (Path(settings.get('output')) / '.cache').is_dir()
    if not settings.get('dry_run') or kept:
        yield
        return
    folder = run_folder(stage) / '.cache'
    settings.values['cache_dir'] = str(folder)
    try:
        yield
    finally:
        if world.primary:
            shutil.rmtree(folder, ignore_errors=True)


def _run(
        stage: Stage, saved: Optional[Dict[str, Any]], world: World, device: torch.device, say: Voice, started: float,
) -> Dict[str, Any]:
    folder = run_folder(stage)
    job = create_job(stage, folder, world, device, say)
    if saved is not None:
        check_same_data(saved, job.data, job.args.force, job.notes)
    pace = None
    if saved is None:
        job, parts, pace = settle(job, started)
    else:
        parts = build_parts(job)
    say(describe(job, parts))
    if pace is not None:
        say(expectation(job.args, pace))
    if job.args.dry_run:
        say('dry run: nothing was trained.')
        return {}
    with closing(Trainer(job, parts, saved)) as trainer:
        return finish(trainer, started) if trainer.fit() else {}


def is_finished(folder: Path) -> bool:
    """Return whether a run folder holds a complete model and all results."""
    try:
        whole = 'top1' in json.loads((folder / 'report.json').read_text(encoding='utf-8'))
    except (OSError, ValueError, TypeError):  # not there, or damaged: it is made again
        return False
    return whole and is_complete(folder / 'model') and all((folder / name).exists() for name in RESULTS)


def read_finished(folder: Path, say: Voice) -> Dict[str, Any]:
    """Return the report of a finished run, and print it."""
    say(f'{folder} is finished.')
    report = json.loads((folder / 'report.json').read_text(encoding='utf-8'))
    say(format_report(report))
    return report
