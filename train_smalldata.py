#!/usr/bin/env python3
"""Train an image classifier from scratch on few or unevenly many images: one command from images to a checked model.

    python train_smalldata.py photos --loss balanced-bce --aug three-augment

parse -> plan -> run each stage -> report. The structure and the flags are those of timm's train.py
(https://github.com/huggingface/pytorch-image-models, Apache-2.0); the loop itself is timm_smalldata/engine/train.py.
"""
import json
import math
import os
import re
import sys
import time
from argparse import Namespace
from datetime import datetime
from pathlib import Path
from typing import Any, Dict, List, Optional

import torch
from timm.utils import distribute_bn

from timm_smalldata.build import loaders
from timm_smalldata.build.model import check_head, create_model
from timm_smalldata.build.optimizer import compile_and_distribute, create_optimizer, create_schedule, precision
from timm_smalldata.build.prepare import prepare
from timm_smalldata.build.roles import Data
from timm_smalldata.build.sharpness import at_epoch
from timm_smalldata.build.task import create_task, selection
from timm_smalldata.build.views import create_views, data_config
from timm_smalldata.config import auto
from timm_smalldata.config.checks import wants_posthoc
from timm_smalldata.config.plan import Stage, finish_stage, plan
from timm_smalldata.config.settings import Settings
from timm_smalldata.data.views import ViewSpec
from timm_smalldata.engine import checkpoint, posthoc
from timm_smalldata.engine.evaluate import eval_model, evaluate, metric_names
from timm_smalldata.engine.features import gather_features
from timm_smalldata.engine.probe import Probe
from timm_smalldata.engine.train import NonFiniteLoss, train_epoch
from timm_smalldata.errors import UserError
from timm_smalldata.hub.export import export_model
from timm_smalldata.hub.push import check_push, push_model
from timm_smalldata.report.assemble import build_report, headlines, write_report
from timm_smalldata.report.table import format_report
from timm_smalldata.run.collapse import collapsed, spread, watched_images
from timm_smalldata.run.describe import describe, news
from timm_smalldata.run.finish import plain_model
from timm_smalldata.run.folder import environment, write_data_files, write_static
from timm_smalldata.run.history import RunState, make_row
from timm_smalldata.run.log import EpochProgress, Trackers, epoch_line, write_summary
from timm_smalldata.run.measure import announce, final_batches, measure
from timm_smalldata.run.preview import save_images
from timm_smalldata.run.resume import check_same_data, find_run, kept_device
from timm_smalldata.run.starts import Starts, read_starts
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
from timm_smalldata.utils.model_folder import is_complete
from timm_smalldata.utils.signals import Interrupted, catch_sigterm, continue_command

# What a finished run has beside its model; one that lacks a file is judged again from its checkpoint.
RESULTS = ('report.json', 'per_class.csv', 'summary.csv', 'args.yaml', 'environment.json')


def main(argv: Optional[List[str]] = None) -> int:
    """Run the train command; returns the exit code (2: the user can put it right)."""
    argv = list(sys.argv[1:] if argv is None else argv)
    names: Dict[str, str] = {}
    rank = int(os.environ.get('RANK', 0))
    try:
        with catch_sigterm():
            run(argv, names)
        leave_world(together=True)
        return 0
    except UserError as error:
        if not (rank and told_by_rank_0(error)):
            fail(error, rank)
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
            command = continue_command(sys.argv[0], argv, names.get('experiment', ''))
            print(f'\ninterrupted; nothing that was saved is lost. Continue with:\n  {command}', file=sys.stderr)
        leave_world(together=False)
        return 130


def console_main() -> None:
    """Entry point of the console command `train-smalldata`."""
    sys.exit(main())


def run(argv: List[str], names: Dict[str, str]) -> List[Dict[str, Any]]:
    """Plan and run every stage; returns their reports. `names` learns the experiment's name at once."""
    stages = plan(argv)
    for module in stages[0].settings.get('device_modules') or []:
        try:
            __import__(module)
        except ImportError as error:
            raise UserError(f'--device-modules {module}: {error}') from error
    if stages[-1].settings.get('push_to_hub'):
        check_push(stages[-1].settings.get('push_to_hub'))
    kept = kept_device(stages[0], run_folder(stages[0]), resume_of(stages[0]))
    device = resolve_device(stages[0].settings.get('device'), kept)
    world = init_world(device)
    say = Voice(world.primary)
    reports: List[Dict[str, Any]] = []
    models: Dict[str, str] = {}
    for number, stage in enumerate(stages, 1):
        settings = stage.settings
        if not settings.get('experiment'):
            settings.values['experiment'] = names.get('experiment') or world.broadcast(new_name(settings))
        names['experiment'] = settings.values['experiment']
        if settings.get('device') == 'auto':
            settings.resolve('device', device.type)
        if len(stages) > 1:
            say(f'\nstage {number} of {len(stages)}: {stage.name}'
                + (f', starts from the model of stage {stage.start_from}' if stage.start_from else ''))
        if stage.start_from and not settings.get('dry_run'):
            settings.layer(dict(initial_checkpoint=models[stage.start_from]), f'stage {stage.start_from}')
        if stage.taught_by and settings.get('dry_run'):
            say(f'its teacher is the model of stage {stage.taught_by}, which a dry run does not make: nothing to show.')
            continue
        if stage.taught_by:
            settings.values['teacher'] = models[stage.taught_by]
        reports.append(run_stage(stage, world, device, say))
        models[stage.name] = str(run_folder(stage) / 'model')
        if not reports[-1] and not settings.get('dry_run'):  # stopped early: the next stage has nothing to start from
            return reports
    if world.primary and settings.get('push_to_hub') and reports[-1]:
        push(settings.namespace(), run_folder(stage), say)
    return reports


def run_stage(stage: Stage, world: World, device: torch.device, say: Voice) -> Dict[str, Any]:
    """Train, choose, export and judge one model; returns its report (empty when it was not trained to the end)."""
    settings, folder, started = stage.settings, run_folder(stage), time.time()
    saved = find_run(stage, folder, resume_of(stage), world, say)
    ended = is_complete(folder / 'model') and all((folder / name).exists() for name in RESULTS)
    if saved is not None and ended and not settings.get('force'):
        say(f'{folder} is finished.')
        report = json.loads((folder / 'report.json').read_text(encoding='utf-8'))
        say(format_report(report))
        return report
    finish_stage(stage)
    args, data, lines = prepare(stage, world, device, say)
    if saved is not None:
        check_same_data(saved, data, args.force, lines)

    torch.manual_seed(args.seed)
    model = create_model(args, data.classes.names)
    check_head(args, model)
    config = data_config(args, model)
    view, eval_spec = create_views(args, config)
    task = create_task(args, model, data, view, device)
    loader = loaders.train_loader(args, data.train, task.views(), world, device)
    interval = auto.eval_interval(args)
    val_loader = loaders.eval_loader(args, data.val if interval else None, eval_spec, world, device)
    metric, sign = selection(args, task, data)
    probe = None if task.supervised else Probe(args, data.train, eval_spec, world, device)
    updates = math.ceil(len(loader) / max(args.grad_accum_steps, 1))

    lines += task.notes() + (probe.notes(metric) if probe is not None else [])
    say(describe(settings, args, data, model, len(loader), updates, world, device, lines))
    if saved is None:
        last = final_batches(args, data, world, probed=probe is not None)
        judging = val_loader if val_loader is not None or not last else loaders.eval_loader(
            args, data.train, eval_spec, world, device)  # the test images are for the end
        timing = world.broadcast({**measure(args, task, loader, judging), 'spent': time.time() - started})
        val_batches = world.broadcast(0 if val_loader is None else len(val_loader) + len(probe.loader if probe else ()))
        announce(args, settings, timing, len(loader), val_batches, say, last)
        if args.time_budget and args.train_img_sizes:  # sizes are scheduled over the epochs that were just set
            loader = loaders.train_loader(args, data.train, task.views(), world, device)
        interval = auto.eval_interval(args)  # a time budget moves it
    if args.dry_run:
        say('dry run: nothing was trained.')
        return {}

    optimizer = create_optimizer(args, task.get_trainable_module())
    autocast, scaler = precision(args, device)
    state, first_epoch = RunState.of(saved), 0
    if saved is not None:
        first_epoch = checkpoint.restore(saved, task, None if args.no_resume_opt else optimizer, scaler)
        if state.best and state.best['metric'] != metric:  # --force: values of two metrics do not compare
            state.best = {}
        say(f'continuing {folder} at epoch {first_epoch} of {args.epochs}, update {first_epoch * updates}')
    compile_and_distribute(args, task, world, device)
    task.begin(args.epochs, updates, optimizer)
    schedule, num_epochs = create_schedule(args, optimizer, updates, first_epoch)
    if world.primary:
        (folder / 'report.json').unlink(missing_ok=True)  # a run that goes on has not ended
        write_static(folder, args, settings, environment(device, world))
        write_data_files(folder, data, args)
        write_summary(folder, state.history)
        if args.save_images:
            save_images(task, loader, data.train.names, epoch=first_epoch, seed=args.seed, folder=folder)
    trackers = Trackers(args, folder, world.primary)
    starts = Starts(folder if world.primary else None, first_epoch * updates)
    last_epoch, epoch_times = min(num_epochs, args.stop_epoch or num_epochs), []
    watched = None if task.supervised else watched_images(args, data.train, eval_spec, device)
    collapse = collapsed(args, task, updates, state.history)
    names = metric_names(task) if val_loader is not None else ()

    for epoch in range(first_epoch, last_epoch):
        began, metrics = time.time(), dict[str, Any]()
        for line in news(args, epoch):
            say(line)
        progress = EpochProgress(say, epoch, updates, args.log_interval, starts)
        try:
            train_metrics = train_epoch(
                task, loader, at_epoch(args, optimizer, epoch), epoch=epoch, updates_per_epoch=updates, seed=args.seed,
                world=world, accumulation=max(args.grad_accum_steps, 1), autocast=autocast, scaler=scaler,
                schedule=schedule, sync_first=args.sam_global, progress=progress)
            if world.distributed and args.dist_bn:
                distribute_bn(task.get_trainable_module(), world.world_size, args.dist_bn == 'reduce')
                if task.has_ema():
                    distribute_bn(eval_model(task), world.world_size, args.dist_bn == 'reduce')
            if watched is not None:
                train_metrics['feature_spread'] = world.first(
                    lambda: spread(gather_features(task, eval_model(task), watched, autocast=autocast)[0]))
            if val_loader is not None and ((epoch + 1) % interval == 0 or epoch + 1 == num_epochs):
                readers = probe.fit(task, eval_model(task), autocast) if probe is not None else None
                metrics = evaluate(task, val_loader, world=world, autocast=autocast, readers=readers)[0]
            if 'loss' in names and not math.isfinite(metrics.get('loss') or 0.0):  # the last update was one too many
                raise NonFiniteLoss(f'the validation loss is not finite after epoch {epoch}')
        except NonFiniteLoss as error:
            kept = folder / checkpoint.LAST if state.history else 'there is none yet'
            raise NonFiniteLoss(
                f'Stopped: {error}. The last good checkpoint stays: {kept}. Try a lower --lr or --clip-grad 1.'
            ) from error
        finally:
            progress.close()
        lr = sum(group['lr'] for group in optimizer.param_groups) / len(optimizer.param_groups)
        row = make_row(epoch, train_metrics, names, metrics, lr)
        better = state.add(row, metric, sign, latest=probe is not None)  # features have longer to grow
        if schedule is not None:
            schedule.step(epoch + 1, metrics.get(metric or ''))
        if world.primary:
            checkpoint.save_epoch(folder, checkpoint.make_state(
                task, optimizer, scaler, args, epoch, classes=data.classes.to_dict(), given=stage.given,
                split=data.split_hash(), metric=metrics.get(metric or ''), **state.to_dict()),
                better or (metric is None and epoch + 1 == num_epochs), args.save_epochs)
            write_summary(folder, state.history)
            trackers.log(row)
        epoch_times.append(time.time() - began)
        say(epoch_line(row, num_epochs, better, epoch_times[-1]))
        before, collapse = collapse, collapsed(args, task, updates, state.history)
        if collapse is not None and (before is None or args.on_collapse == 'stop'):
            say(collapse)
        if collapse is not None and args.on_collapse == 'stop':
            last_epoch = epoch + 1
            break
    trackers.close()
    starts.close()
    if last_epoch < num_epochs:
        why = '--on-collapse stop' if collapse is not None else '--stop-epoch'
        say(f'stopped after epoch {last_epoch - 1} ({why}); continue without it and with --resume auto.')
        return {}
    if world.primary:
        checkpoint.restore_selected(folder, task, state.best if args.select == 'best' else {}, num_epochs - 1)
    report = finish(
        args, folder, task, config, data, eval_spec, probe, state, collapse, num_epochs - 1,
        dict(seconds=time.time() - started, epochs=epoch_times, starts=read_starts(folder)), world, device, say)
    if world.primary:
        print(f'--result\n{json.dumps(state.results(), indent=4)}')
    return report


def finish(
        args: Namespace,
        folder: Path,
        task: Any,
        config: Dict[str, Any],
        data: Data,
        spec: ViewSpec,
        probe: Optional[Probe],
        state: RunState,
        collapse: Optional[str],
        last_epoch: int,
        timing: Dict[str, Any],
        world: World,
        device: torch.device,
        say: Voice,
) -> Dict[str, Any]:
    """Export the chosen weights, judge what was exported, write and print the report."""
    import timm
    if world.primary:
        model, metadata = plain_model(args, eval_model(task), data, spec, device)
        for line in metadata.get('notes', ()):
            say(line)
        export_model(
            model, folder / 'model', classes=data.classes, data_config=config,
            metadata=dict(metadata, shot_split=args.shot_split), fine_tuned=bool(args.pretrained))
    world.barrier()
    name = f'local-dir:{folder / "model"}'
    split, source = ('test', data.test) if data.test is not None else ('val', data.val)
    evaluator = task.create_evaluator()
    evaluator.compute()
    extra: Dict[str, Any] = dict(
        select=args.select, eval_metric=args.eval_metric, duplicates_across_splits=data.duplicates)
    if source is not None:
        loader = loaders.eval_loader(args, source, spec, world, device)
        assert loader is not None
        model = timm.create_model(name, pretrained=True).to(device).float()
        readers = probe.fit(task, model, kinds=probe.kinds()) if probe is not None else None
        evaluators = evaluate(task, loader, model=model, world=world, readers=readers)[1]
        evaluator = evaluators[next(iter(evaluators))]
        if len(evaluators) > 1:
            extra['predictions'] = headlines(evaluators)
        if probe is not None:
            extra['probe'] = probe.describe()
        if wants_posthoc(args):
            val_loader = loaders.eval_loader(args, data.val, spec, World(), device)
            extra['posthoc'] = posthoc.run_posthoc(args, task, model, loader, val_loader, data.classes.counts, world)
    selected = args.select == 'best' and bool(state.best)
    report = build_report(
        evaluator, data.classes, data.groups, split=split if source is not None else 'none',
        selected_on='val' if selected else 'none', epoch=state.best['epoch'] if selected else last_epoch,
        shot_split=args.shot_split, extra=extra)
    if probe is not None:
        report['loss'], report['collapse'] = None, collapse
    report['timing'] = timing
    if world.primary:
        write_report(folder, report, evaluator, data.classes, data.groups)
    say('\n' + format_report(report) if source is not None else
        'neither a test nor a validation split: nothing was measured.')
    say(f"\nmodel: {folder / 'model'}\nload:  timm.create_model('{name}', pretrained=True)")
    return report


def push(args: Namespace, folder: Path, say: Voice) -> None:
    """Send the exported model to the hub."""
    url = push_model(folder / 'model', args.push_to_hub, private=not args.hub_public, license=args.hub_license)
    say(f'pushed to {url}')


def run_folder(stage: Stage) -> Path:
    """Return where a stage puts its results."""
    return Path(stage.settings.get('output')) / stage.settings.get('experiment') / stage.folder


def resume_of(stage: Stage) -> Optional[str]:
    """Return what a stage continues: stages of a recipe go on by themselves."""
    return stage.settings.get('resume') or ('auto' if stage.name else None)


def new_name(settings: Settings) -> str:
    """Return a name for a run: when, what, on which data."""
    data = settings.get('dataset') or settings.get('data_dir') or 'sample-digits'
    data = Path(data).resolve().stem if os.path.exists(data) else data
    task = settings.get('task')
    what = settings.get('recipe') or (settings.get('loss') if task == 'classification' else task)
    return re.sub(r'[^\w.+-]+', '-', f'{datetime.now():%Y%m%d-%H%M%S}-{what}-{data}')


if __name__ == '__main__':
    sys.exit(main())
