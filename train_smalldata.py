#!/usr/bin/env python3
"""Train an image classifier from scratch on few or unevenly many images: one command from images to a checked model.

    python train_smalldata.py photos --loss balanced-bce --aug three-augment

parse -> plan -> run each stage -> report. The structure and the flags are those of timm's train.py
(https://github.com/huggingface/pytorch-image-models, Apache-2.0), the loop is timm_smalldata/engine.py.
"""
import json
import math
import os
import shlex
import signal
import sys
import time
from argparse import Namespace
from datetime import datetime
from pathlib import Path
from typing import Any, Dict, List, Optional

import torch
from timm.data.scheduled_sampler import ScheduledBatchSampler
from timm.utils import distribute_bn

from timm_smalldata import build, checkpoint, hub, rules
from timm_smalldata.args import fail
from timm_smalldata.data.classes import ClassInfo
from timm_smalldata.data.loader import ViewLoader, create_loader
from timm_smalldata.data.roles import Data, divide, open_data
from timm_smalldata.data.sampler import SequentialSampler, create_sampler
from timm_smalldata.data.source import ImageSource
from timm_smalldata.data.views import ViewSpec
from timm_smalldata.distributed import World, init_world
from timm_smalldata.engine import NonFiniteLoss, eval_model, evaluate, train_epoch
from timm_smalldata.errors import UserError, nearest
from timm_smalldata.evaluation import LongTailEvaluator
from timm_smalldata.measure import epoch_seconds, measure
from timm_smalldata.plan import Stage, finish_stage, plan
from timm_smalldata.report import build_report, format_report, write_report
from timm_smalldata.runfolder import describe, environment, write_data_files, write_static
from timm_smalldata.tracking import EpochProgress, Trackers, Voice, duration, write_summary


class Interrupted(Exception):
    """SIGTERM or Ctrl-C."""


def main(argv: Optional[List[str]] = None) -> int:
    """Run the train command; returns the exit code (2: the user can put it right)."""
    argv = list(sys.argv[1:] if argv is None else argv)
    state: Dict[str, Any] = {}
    try:
        with _signals():
            run(argv, state)
        return 0
    except UserError as error:
        return fail(error)
    except (Interrupted, KeyboardInterrupt):
        command = _continue_command(argv, state.get('experiment', ''))
        print(f'\ninterrupted; nothing that was saved is lost. Continue with:\n  {command}', file=sys.stderr)
        return 130


def console_main() -> None:
    """Entry point of the console command `train-smalldata`."""
    sys.exit(main())


def run(argv: List[str], state: Dict[str, Any]) -> List[Dict[str, Any]]:
    """Plan and run every stage; returns their reports."""
    stages = plan(argv)
    for name in stages[0].settings.get('device_modules') or []:
        __import__(name)
    device = build.resolve_device(stages[0].settings.get('device'))
    world = init_world(device)
    say = Voice(world.primary)
    reports, models = [], {}
    for number, stage in enumerate(stages, 1):
        settings = stage.settings
        if not settings.get('experiment'):
            settings.values['experiment'] = state.get('experiment') or world.broadcast(_new_name(settings))
        state['experiment'] = settings.values['experiment']
        if stage.name:
            say(f'stage {number} of {len(stages)}: {stage.name}')
        if stage.start_from:
            settings.layer(dict(initial_checkpoint=models[stage.start_from]), f'stage {stage.start_from}')
        report = run_stage(stage, world, device, say, resume=settings.get('resume') or ('auto' if stage.name else None))
        models[stage.name] = str(_folder(stage) / 'model')
        reports.append(report)
    return reports


def run_stage(stage: Stage, world: World, device: torch.device, say: Voice, resume: Optional[str]) -> Dict[str, Any]:
    """Train, choose, export and judge one model; returns its report."""
    settings, folder = stage.settings, _folder(stage)
    started = time.time()
    saved = _resumed(stage, folder, resume, world, say)
    if saved is not None and hub.is_complete(folder / 'model') and (folder / 'report.json').exists() \
            and not settings.get('push_to_hub'):
        say(f'{folder} is finished.')
        report = json.loads((folder / 'report.json').read_text(encoding='utf-8'))
        say(format_report(report))
        return report
    finish_stage(stage)
    args, data, lines = prepare(stage, world, device, say)
    classes, groups = data.classes, data.groups
    if saved is not None:
        _check_same_data(saved, classes, settings.get('force'), lines)

    torch.manual_seed(args.seed)
    model = build.create_model(args, classes.names)
    config = build.data_config(args, model)
    view, eval_spec = build.create_views(args, config)
    task = build.create_task(args, model, classes, groups, view, device)
    loader = _train_loader(args, data.train, task.views(), world, device)
    val_loader = _eval_loader(args, data.val, eval_spec, world, device)
    accumulation = max(args.grad_accum_steps, 1)
    updates_per_epoch = math.ceil(len(loader) / accumulation)

    say(describe(settings, args, data, model, config, len(loader), updates_per_epoch, world, device, lines))
    if saved is None:
        timing = world.first(lambda: measure(args, task, loader, val_loader))
        _announce(args, settings, timing, loader, val_loader, started, say)
    if args.dry_run:
        say(f'dry run: nothing is trained. Memory of a step: about {timing["memory"] / 2**20:.0f} MiB.' if saved is None
            else 'dry run: nothing is trained.')
        return {}

    metric, sign = _metric(args, task, data, say)
    optimizer = build.create_optimizer(args, task.get_trainable_module())
    autocast, scaler = build.precision(args, device)
    history: List[Dict[str, Any]] = []
    best: Dict[str, Any] = {}
    starts: List[Dict[str, Any]] = []
    first_epoch = 0
    if saved is not None:
        first_epoch = checkpoint.restore(saved, task, None if args.no_resume_opt else optimizer, scaler)
        history, best, starts = saved['history'], saved['best'], saved['starts']
        say(f'continuing {folder} at epoch {first_epoch} of {args.epochs} (update {first_epoch * updates_per_epoch})')
    if args.torchcompile:
        task.compile(backend=args.torchcompile, mode=args.torchcompile_mode)
        if task.has_ema():
            task.compile_ema(backend=args.torchcompile, mode=args.torchcompile_mode)
    if world.distributed:
        if args.sync_bn and device.type == 'cuda':
            task.trainable_module = torch.nn.SyncBatchNorm.convert_sync_batchnorm(task.trainable_module)
        task.prepare_distributed(
            device_ids=None if device.type == 'cpu' else [device], broadcast_buffers=not args.no_ddp_bb)
    schedule, num_epochs = build.create_schedule(args, optimizer, updates_per_epoch)
    if schedule is not None:
        schedule.step_update(first_epoch * updates_per_epoch) if args.sched_on_updates else schedule.step(first_epoch)

    if world.primary:
        write_static(folder, args, settings, environment(device, world))
        write_data_files(folder, data, args)
        write_summary(folder, history)
    trackers = Trackers(args, folder, world.primary)
    starts.append(dict(first_update=first_epoch * updates_per_epoch, last_update=None, epochs=0))
    last_epoch = min(num_epochs, args.stop_epoch or num_epochs)
    epoch_times: List[float] = []
    for epoch in range(first_epoch, last_epoch):
        began = time.time()
        progress = EpochProgress(say, epoch, updates_per_epoch, args.log_interval)
        try:
            train_metrics = train_epoch(
                task, loader, optimizer, epoch=epoch, updates_per_epoch=updates_per_epoch, seed=args.seed, world=world,
                accumulation=accumulation, autocast=autocast, scaler=scaler, schedule=schedule, progress=progress)
        except NonFiniteLoss as error:
            raise NonFiniteLoss(
                f'Stopped: {error}. The last good checkpoint stays: {folder / checkpoint.LAST if history else "none yet"}. '
                'Try a lower --lr, --clip-grad 1, or no --amp.') from error
        finally:
            progress.close()
        if world.distributed and args.dist_bn:
            distribute_bn(task.get_trainable_module(), world.world_size, args.dist_bn == 'reduce')
        lr = sum(group['lr'] for group in optimizer.param_groups) / len(optimizer.param_groups)
        evaluated = val_loader is not None and ((epoch + 1) % args.val_interval == 0 or epoch + 1 == num_epochs)
        metrics = evaluate(task, val_loader, world=world, autocast=autocast)[0] if evaluated and val_loader else {}
        names = task.create_evaluator().metric_names if data.val is not None else ()
        row = dict(epoch=epoch, **{f'train_{k}': v for k, v in train_metrics.items()},
                   **{f'eval_{k}': metrics.get(k) for k in names}, lr=lr)
        history.append(row)
        if schedule is not None:
            schedule.step(epoch + 1, metrics.get(metric) if metric else None)
        value = metrics.get(metric) if metric else None
        better = value is not None and math.isfinite(value) and (
            not best or best['value'] is None or sign * value > sign * best['value'])
        if better:
            best = dict(epoch=epoch, value=value, metric=metric)
        starts[-1].update(last_update=(epoch + 1) * updates_per_epoch - 1, epochs=epoch + 1 - first_epoch)
        if world.primary:
            state = checkpoint.make_state(
                task, optimizer, scaler, args, epoch, classes=classes.to_dict(), history=history, best=best,
                starts=starts, metric=value)
            if better:
                checkpoint.save(state, folder / checkpoint.BEST)
            checkpoint.save(state, folder / checkpoint.LAST)
            if args.save_epochs and epoch + 1 in args.save_epochs:
                checkpoint.save(state, folder / f'milestone-{epoch + 1}.pth.tar')
            write_summary(folder, history)
            trackers.log(row)
        epoch_times.append(time.time() - began)
        say(_epoch_line(row, epoch, num_epochs, better, epoch_times[-1]))
    trackers.close()
    if last_epoch < num_epochs and first_epoch <= last_epoch:
        say(f'stopped after epoch {last_epoch - 1} (--stop-epoch); --resume auto continues.')
        return {}

    if world.primary:
        _select(args, task, folder, best, num_epochs - 1, say)
    timing_report = dict(seconds=time.time() - started, epochs=epoch_times, starts=starts)
    report = finish(args, folder, task, config, data, eval_spec, best, num_epochs - 1, timing_report, world, device, say)
    if world.primary:
        results: Dict[str, Any] = dict(all=[_result(row) for row in history])
        if best:
            results['best'] = results['all'][best['epoch']]
        print(f'--result\n{json.dumps(results, indent=4)}')
        if args.push_to_hub:
            url = hub.push_model(
                folder / 'model', args.push_to_hub, private=not args.hub_public, license=args.hub_license)
            say(f'pushed to {url}')
    return report


def prepare(stage: Stage, world: World, device: torch.device, say: Voice) -> Any:
    """Open the data, let the rule fill what nobody set, divide the data; returns settings, data and lines to print."""
    settings = stage.settings
    args = settings.namespace()
    args.world = world
    if settings.get('dataset', '').startswith('sample/') and settings.source('dataset') == 'no data named':
        say(f'No data named: training on the embedded sample {args.dataset}. For your own images: '
            'train_smalldata.py FOLDER (FOLDER/CLASS/*.jpg).')
    if settings.get('model'):
        build.check_model(settings.get('model'))
    opened = open_data(args, say.bar)
    side = opened.median_side()
    if not side:
        _all_bad(opened)
    rule = f'rule for {opened.num_train} images of about {side} px on {device.type}'
    settings.layer(rules.choose(opened.num_train, side, device.type, settings), rule)
    args = settings.namespace()
    args.world = world
    data = divide(args, opened, max([args.img_size, *(args.train_img_sizes or [])]), say.bar)
    lines = list(settings.notes) + data.notes

    count = len(data.train)
    if settings.source('batch_size') in (rule, f'{args.dataset}') and world.distributed:
        settings.values['batch_size'] = max(args.batch_size // world.world_size, 1)
    per_process = settings.values['batch_size']
    settings.values['batch_size'] = rules.fit_batch(per_process, count, world.world_size, lines)
    settings.layer(dict(validation_batch_size=max(2 * settings.values['batch_size'], 64)), rule)
    settings.layer(dict(warmup_epochs=rules.warmup(settings.get('epochs'))), 'default')
    global_batch = settings.values['batch_size'] * world.world_size * max(args.grad_accum_steps, 1)
    settings.layer(dict(lr=rules.learning_rate(
        args.lr_base, args.lr_base_size, args.lr_base_scale, args.opt, global_batch)),
        f'--lr-base {args.lr_base:g} at a global batch of {global_batch}')
    args = settings.namespace()
    args.world = world
    if build.mixes(args) and args.batch_size % 2:
        raise UserError(f'--batch-size {args.batch_size} is odd, but mixup and cutmix pair images: choose an even one.')
    return args, data, lines


def finish(
        args: Namespace, folder: Path, task: Any, config: Dict[str, Any], data: Data, spec: ViewSpec,
        best: Dict[str, Any], last_epoch: int, timing: Dict[str, Any], world: World, device: torch.device, say: Voice,
) -> Dict[str, Any]:
    """Export the chosen weights, judge what was exported, write and print the report."""
    if world.primary:
        hub.export_model(
            eval_model(task), folder / 'model', classes=data.classes, data_config=config,
            metadata=dict(shot_split=args.shot_split), fine_tuned=bool(args.pretrained))
    world.barrier()
    import timm
    model = timm.create_model(f'local-dir:{folder / "model"}', pretrained=True).to(device).float()
    split = 'test' if data.test is not None else 'val'
    source = data.test if data.test is not None else data.val
    selected = args.select == 'best' and bool(best)
    if source is None:
        say(f'Neither a test nor a validation split: nothing was measured. The model is in {folder / "model"}.')
        evaluator: Any = LongTailEvaluator(data.classes.counts, groups=data.groups)
        evaluator.compute()
        split = 'none'
    else:
        loader = _eval_loader(args, source, spec, world, device)
        assert loader is not None
        evaluator = list(evaluate(task, loader, model=model, world=world)[1].values())[0]
    report = build_report(
        evaluator, data.classes, data.groups, split=split, selected_on='val' if selected else 'none',
        epoch=best['epoch'] if selected else last_epoch, shot_split=args.shot_split,
        extra=dict(select=args.select, eval_metric=args.eval_metric))
    report['timing'] = timing
    if world.primary:
        write_report(folder, report, evaluator, data.classes, data.groups)
    if source is not None:
        say(format_report(report))
    say(f'model: {folder / "model"}   (timm.create_model(\'local-dir:{folder / "model"}\', pretrained=True))')
    return report


# --- small parts ----------------------------------------------------------------------------------------------------

def _folder(stage: Stage) -> Path:
    return Path(stage.settings.get('output')) / stage.settings.values['experiment'] / stage.folder


def _new_name(settings: Any) -> str:
    size = settings.get('img_size') or 'auto'
    model = (settings.get('model') or settings.get('recipe') or 'auto').replace('/', '_').replace(':', '_')
    return f'{datetime.now():%Y%m%d-%H%M%S}-{model}-{size}'


def _resumed(stage: Stage, folder: Path, resume: Optional[str], world: World, say: Voice) -> Optional[Dict[str, Any]]:
    """Find the checkpoint to continue; its settings fill what the user does not give now."""
    settings = stage.settings
    if resume and resume != 'auto':
        path = Path(resume)
        saved = checkpoint.load_last(path) if path.is_dir() else checkpoint.load(path)
        if saved is None:
            raise UserError(f'--resume {resume}: no checkpoint there.')
    else:
        saved = checkpoint.load_last(folder)
        if saved is not None and resume is None:
            raise UserError(
                f'{folder} already holds a run: continue it with --resume auto, or choose another --experiment.')
        if resume == 'auto' and saved is None and not stage.name:
            say(f'--resume auto: no checkpoint in {folder} yet, starting at epoch 0.')
    if world.primary:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            probe = folder / f'.write-{os.getpid()}'
            probe.write_bytes(b'')
            probe.unlink()
        except OSError as error:
            raise UserError(f'Cannot write to {folder}: {error.strerror}. Choose another --output.') from error
    if saved is not None:
        old = vars(saved['args'])
        if settings.is_set('time_budget') and old.get('time_budget') == settings.values['time_budget']:
            pass  # the epochs that it stood for were stored
        checkpoint.check_unchanged(saved['args'], stage.given, world.world_size, settings.get('force'), settings.notes)
        keep = {k: v for k, v in old.items() if k != 'world_size' and k not in ('resume', 'dry_run', 'force', 'push_to_hub')}
        settings.layer(keep, 'the run that is continued')
    return saved


def _check_same_data(saved: Dict[str, Any], classes: ClassInfo, force: bool, lines: List[str]) -> None:
    old = ClassInfo.from_dict(saved['classes'])
    if old == classes:
        return
    what = 'classes' if old.names != classes.names else 'training images'
    text = f'The {what} are not those that the run was started with ({old.names if what == "classes" else old.data_hash[:12]} '
    text += f'then, {classes.names if what == "classes" else classes.data_hash[:12]} now)'
    if not force:
        raise UserError(text + ': start a new --experiment, or insist with --force.')
    lines.append(text + ' (--force)')


def _train_loader(args: Namespace, source: ImageSource, views: List[ViewSpec], world: World, device: Any) -> ViewLoader:
    sampler = create_sampler(len(source), args.aug_repeats, args.seed, world.rank, world.world_size)
    batch_sampler = None
    if args.train_img_sizes:
        sizes = args.train_img_sizes
        batches = args.train_batch_sizes or [args.batch_size] * len(sizes)
        if len(batches) != len(sizes):
            raise UserError(f'--train-batch-sizes names {len(batches)} sizes, --train-img-sizes {len(sizes)}.')
        try:
            batch_sampler = ScheduledBatchSampler(
                sampler, batches, args.train_size_probs, seed=args.seed, num_batches=args.train_batches_per_epoch,
                choice_schedule=args.train_size_schedule, schedule_epochs=args.epochs,
                schedule_spread=args.train_size_schedule_spread, schedule_random_mix=args.train_size_random_mix)
        except ValueError as error:
            raise UserError(f'--train-img-sizes: {error}') from error
    return create_loader(
        source, sampler, views, args.batch_size, seed=args.seed, device=device, drop_last=True, workers=args.workers or 0,
        pin_memory=args.pin_mem, channels_last=args.channels_last, sizes=args.train_img_sizes, batch_sampler=batch_sampler)


def _eval_loader(
        args: Namespace, source: Optional[ImageSource], spec: ViewSpec, world: World, device: Any) -> Optional[ViewLoader]:
    if source is None:
        return None
    sampler = SequentialSampler(len(source), world.rank, world.world_size)
    return create_loader(
        source, sampler, [spec], args.validation_batch_size, device=device, workers=args.workers or 0,
        pin_memory=args.pin_mem, channels_last=args.channels_last)


def _announce(args: Namespace, settings: Any, timing: Dict, loader: ViewLoader, val_loader: Any, started: float, say: Voice) -> None:
    """Set the epochs from a time budget, once; say how long the run will take."""
    each = epoch_seconds(timing, len(loader), len(val_loader or ()), args.val_interval)
    if args.time_budget:
        left = rules.seconds(args.time_budget) - (time.time() - started)
        args.epochs = max(1, int(0.95 * left / each))
        settings.values['epochs'], settings.sources['epochs'] = args.epochs, f'--time-budget {args.time_budget}, measured'
        if settings.source('warmup_epochs') == 'default':
            args.warmup_epochs = settings.values['warmup_epochs'] = rules.warmup(args.epochs)
        if each > left:
            say(f'--time-budget {args.time_budget} is less than one epoch ({duration(each)}): one epoch is trained.')
    total = each * args.epochs
    end = datetime.fromtimestamp(time.time() + total)
    say(f'measured: {duration(each)} per epoch, {args.epochs} epochs: {duration(total)}, until about {end:%H:%M}')


def _metric(args: Namespace, task: Any, data: Data, say: Voice) -> Any:
    """Return the metric that selects (None without a validation split) and its direction."""
    evaluator = task.create_evaluator()
    known = list(evaluator.metric_names)
    if args.eval_metric not in known:
        raise UserError(f'Unknown --eval-metric {args.eval_metric!r}{nearest(args.eval_metric, known)}; known: {", ".join(known)}.')
    if args.eval_metric in data.groups and not data.groups[args.eval_metric]:
        raise UserError(
            f'--eval-metric {args.eval_metric}: no class is in that group with --shot-split {args.shot_split}.')
    if data.val is None:
        if args.select == 'best':
            say('no validation split: the last epoch is exported.')
        return None, 1
    return args.eval_metric, -1 if args.eval_metric in getattr(evaluator, 'decreasing', ()) else 1


def _select(args: Namespace, task: Any, folder: Path, best: Dict[str, Any], last_epoch: int, say: Voice) -> None:
    """Put the chosen weights into the task."""
    if args.select != 'best' or not best or best['epoch'] == last_epoch:
        return
    state = checkpoint.load_best(folder, best['epoch'])
    if state is None:
        raise UserError(f"{folder / checkpoint.BEST} is gone: the weights of epoch {best['epoch']} cannot be exported. "
                        'Export the last ones with --select last --resume auto --force.')
    checkpoint.restore(state, task, None)


def _epoch_line(row: Dict[str, Any], epoch: int, epochs: int, better: bool, seconds: float) -> str:
    shown = [f"epoch {epoch:3d}/{epochs}  train loss {row['train_loss']:.4f}"]
    for name, label in (('loss', 'val loss'), ('top1', 'top1'), ('balanced_top1', 'balanced'), ('many', 'many'),
                        ('medium', 'medium'), ('few', 'few')):
        value = row.get(f'eval_{name}')
        if value is not None:
            shown.append(f'{label} {value:.4f}' if name == 'loss' else f'{label} {value:.1f}')
    return '  '.join(shown) + f'  {seconds:.1f} s' + ('  *' if better else '')


def _result(row: Dict[str, Any]) -> Dict[str, Any]:
    """Return a row of the history as timm prints it."""
    split: Dict[str, Any] = dict(epoch=row['epoch'], train={}, validation={})
    for name, value in row.items():
        part, _, metric = name.partition('_')
        if part in ('train', 'eval') and value is not None:
            split['train' if part == 'train' else 'validation'][metric] = value
    return split


def _all_bad(opened: Any) -> None:
    name, reason = next(
        (source.names[i], why) for role in opened.parts for source, scanned in zip(opened.parts[role], opened.scans[role])
        for i, why in scanned.bad.items())
    raise UserError(f'No image can be read; the first: {name}: {reason}.')


class _signals:
    """Turn SIGTERM into an exception while a run goes on, and put the old handler back."""

    def __enter__(self) -> None:
        def stop(*_: Any) -> None:
            raise Interrupted
        try:
            self.old = signal.signal(signal.SIGTERM, stop)
        except ValueError:  # not the main thread
            self.old = None

    def __exit__(self, *exc: Any) -> None:
        if self.old is not None:
            signal.signal(signal.SIGTERM, self.old)


def _continue_command(argv: List[str], experiment: str) -> str:
    words = list(argv)
    if '--resume' in words:
        at = words.index('--resume')
        del words[at:at + 2]
    if '--experiment' not in words and experiment:
        words += ['--experiment', experiment]
    return shlex.join(['python', 'train_smalldata.py', *words, '--resume', 'auto'])


if __name__ == '__main__':
    sys.exit(main())
