#!/usr/bin/env python3
"""Train an image classifier from scratch on few or unevenly many images: one command from images to a checked model.

    python train_smalldata.py photos --loss balanced-bce --aug three-augment

parse -> plan -> run each stage -> report. The structure and the flags are those of timm's train.py
(https://github.com/huggingface/pytorch-image-models, Apache-2.0). One stage is timm_smalldata/run/stage.py, its epochs
are timm_smalldata/run/trainer.py, one epoch is timm_smalldata/engine/train.py.
"""
import os
import re
import sys
from contextlib import nullcontext
from datetime import datetime
from pathlib import Path
from typing import Any, Dict, List, Optional

import torch

from timm_smalldata.config.plan import Stage, plan
from timm_smalldata.config.settings import Settings
from timm_smalldata.errors import StorageError, UserError
from timm_smalldata.hub.push import check_push, push_model
from timm_smalldata.run.folder import leaving_nothing, new_name
from timm_smalldata.run.resume import EarlierRun, run_folder
from timm_smalldata.run.stage import run_stage
from timm_smalldata.run.trackers import asked
from timm_smalldata.utils.console import Voice, fail
from timm_smalldata.utils.device import resolve_device
from timm_smalldata.utils.distributed import (
    World,
    init_world,
    leave_world,
    lost_another,
    told_by_rank_0,
    wait_for_the_end,
)
from timm_smalldata.utils.files import storage_error
from timm_smalldata.utils.signals import Interrupted, catch_sigterm, continue_command

Reports = List[Dict[str, Any]]


def main(argv: Optional[List[str]] = None) -> int:
    """Run the train command; returns the exit code (2: the user can put it right, 130: interrupted)."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv[:1] == ['--version']:
        from timm_smalldata_cli import version_line
        print(version_line())
        return 0
    names: Dict[str, str] = {}
    rank = int(os.environ.get('RANK', 0))
    try:
        with catch_sigterm():
            run(argv, names)
        leave_world(together=True)
        return 0
    except UserError as error:
        if not (rank and told_by_rank_0(error)):
            fail(with_way_on(error, argv, names), rank)
        leave_world(together=False)
        return 2
    except OSError as error:
        full = storage_error(error, Path(error.filename or names.get('output', '.')))
        if full is None:
            raise
        fail(with_way_on(full, argv, names), rank)
        leave_world(together=False)
        return 2
    except RuntimeError as error:
        if not lost_another(error):
            raise
        wait_for_the_end()
        fail(UserError('another process has ended; what it said tells why. Nothing that was saved is lost.'), rank)
        leave_world(together=False)
        return 2
    except (Interrupted, KeyboardInterrupt):
        if rank == 0:
            command = continue_command(argv, names.get('experiment', ''))
            print(f'\ninterrupted; nothing that was saved is lost. Continue with:\n  {command}', file=sys.stderr)
        leave_world(together=False)
        return 130


def with_way_on(error: UserError, argv: List[str], names: Dict[str, str]) -> UserError:
    """Return the error; that of a full disk with the command that continues the run."""
    if not isinstance(error, StorageError):
        return error
    return UserError(f"{error} Continue with: {continue_command(argv, names.get('experiment', ''))}")


def run(argv: List[str], names: Dict[str, str]) -> Reports:
    """Plan and run every stage; returns their reports. `names` learns the experiment's name at once."""
    stages = plan(argv)
    first, last = stages[0].settings, stages[-1].settings
    if last.get('push_to_hub'):
        check_push(last.get('push_to_hub'))
    asked(last.get)
    earlier = EarlierRun(stages[0])
    device = resolve_device(first.get('device'), earlier.device)
    world = init_world(device)
    say = Voice(world.primary)
    output = Path(first.get('output'))
    with leaving_nothing(output, names) if first.get('dry_run') and world.primary else nullcontext():
        names['experiment'] = first.get('experiment') or world.first(lambda: new_name(output, telling_name(first)))
        reports = run_stages(stages, names['experiment'], earlier, device, world, say)
    if world.primary and last.get('push_to_hub') and reports[-1:] and reports[-1]:
        url = push_model(run_folder(stages[-1]) / 'model', last.get('push_to_hub'), private=not last.get('hub_public'),
                         license=last.get('hub_license'), say=say)
        say(f'pushed to {url}')
    return reports


def run_stages(
        stages: List[Stage], name: str, earlier: EarlierRun, device: torch.device, world: World, say: Voice,
) -> Reports:
    """Run one stage after the other; returns their reports, the last of them empty where a stage stopped early."""
    reports: Reports = []
    models: Dict[str, str] = {}
    for number, stage in enumerate(stages, 1):
        settings = stage.settings
        if not settings.get('experiment'):
            settings.resolve('experiment', name)
        if settings.get('device') == 'auto':
            settings.resolve('device', device.type)
        if len(stages) > 1:
            say(f'\nstage {number} of {len(stages)}: {stage.name}'
                + (f', starts from the model of stage {stage.start_from}' if stage.start_from else ''))
        if not follow(stage, models, say):
            continue
        reports.append(run_stage(stage, earlier if number == 1 else EarlierRun(stage), world, device, say))
        models[stage.name] = str(run_folder(stage) / 'model')
        if not reports[-1] and not settings.get('dry_run'):  # stopped early: the next stage has nothing to start from
            return reports
    return reports


def follow(stage: Stage, models: Dict[str, str], say: Voice) -> bool:
    """Hand the models of earlier stages to a stage; returns whether it can run."""
    settings, dry_run = stage.settings, stage.settings.get('dry_run')
    if stage.start_from and not dry_run:
        settings.layer(dict(initial_checkpoint=models[stage.start_from]), f'stage {stage.start_from}')
    if stage.taught_by and dry_run:
        say(f'its teacher is the model of stage {stage.taught_by}, which a dry run does not make: nothing to show.')
        return False
    if stage.taught_by:
        settings.resolve('teacher', models[stage.taught_by])
    return True


def telling_name(settings: Settings) -> str:
    """Return a name for a run: when, what, on which data."""
    data = settings.get('dataset') or settings.get('data_dir') or 'sample-digits'
    data = Path(data).resolve().stem if os.path.exists(data) else data
    task = settings.get('task')
    what = settings.get('recipe') or (settings.get('loss') if task == 'classification' else task)
    return re.sub(r'[^\w.+-]+', '-', f'{datetime.now():%Y%m%d-%H%M%S}-{what}-{data[:60]}')


if __name__ == '__main__':
    sys.exit(main())
