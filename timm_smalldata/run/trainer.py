"""The training of one run, epoch by epoch: train, validate, record, watch."""
import math
import shlex
import time
from contextlib import contextmanager
from functools import partial
from typing import Any, Dict, Iterator, List, Optional

from timm.utils import distribute_bn

from ..build.optimizer import compile_and_distribute, create_optimizer, create_schedule, optimizer_of_epoch, precision
from ..config.flags import given_words
from ..config.length import eval_interval, total_epochs
from ..engine import checkpoint
from ..engine.evaluate import eval_model
from ..engine.features import gather_features
from ..engine.train import NonFiniteLoss, train_epoch, trained_module
from ..engine.writer import Writer
from ..utils.command import command
from .collapse import collapsed, spread, watched_images
from .describe import describe_switches
from .folder import environment, write_data_files, write_static
from .history import RunState, make_row
from .job import Job, Parts
from .log import EpochProgress, epoch_line, write_summary
from .preview import save_images
from .resume import stored_settings
from .starts import Starts, read_starts
from .trackers import Trackers, open_trackers

Metrics = Dict[str, Any]


class Trainer:
    """Trains the parts of a job to the end, or to where it is to stop; after every epoch a resumable checkpoint.

    Args:
        job: What is trained on what.
        parts: Task, loaders and judge.
        saved: The checkpoint to continue; None for a new run.
    """

    def __init__(self, job: Job, parts: Parts, saved: Optional[Dict[str, Any]] = None):
        self.job, self.parts, self.args, self.task = job, parts, job.args, parts.task
        args = self.args
        self.optimizer = create_optimizer(args, trained_module(self.task))
        self.autocast, self.scaler = precision(args, job.device)
        self.state = RunState.of(saved)
        self.first_epoch = 0 if saved is None else self.restore(saved)
        compile_and_distribute(args, self.task, job.world, job.device)
        self.schedule, self.num_epochs = create_schedule(args, self.optimizer, parts.updates, self.first_epoch)
        self.task.begin(total_epochs(args), parts.updates, self.optimizer)
        self.last_epoch = min(self.num_epochs, args.stop_epoch or self.num_epochs)
        self.watched = None if self.task.supervised else watched_images(
            args, job.data.train, parts.eval_spec, job.device)
        self.collapse = collapsed(args, self.task, parts.updates, self.state.history)
        self.metric_names = parts.judge.names() if parts.val_loader is not None else []
        self.epoch_times: List[float] = []
        self.trackers = Trackers()

    def restore(self, saved: Dict[str, Any]) -> int:
        """Put a checkpoint back; returns the number of the next epoch."""
        optimizer = None if self.args.no_resume_opt else self.optimizer
        epoch = checkpoint.restore(saved, self.task, optimizer, self.scaler)
        if self.state.best and self.state.best['metric'] != self.parts.metric:
            self.state.best = {}  # --force: values of two metrics do not compare
        self.job.say(f'continuing {self.job.folder} at epoch {epoch + 1} of {total_epochs(self.args)}, update '
                     f'{epoch * self.parts.updates}')
        return epoch

    def fit(self) -> bool:
        """Train; returns whether the last epoch was reached."""
        with self.logs():
            for epoch in range(self.first_epoch, self.last_epoch):
                with self.last_good_checkpoint_named():
                    trained = self.train(epoch)
                    judged = self.validate(epoch)
                self.record(epoch, trained, judged)
                if self.watch(epoch):
                    break
        if self.last_epoch < self.num_epochs:
            why = '--on-collapse stop' if self.collapse is not None else '--stop-epoch'
            self.job.say(f'stopped after epoch {self.last_epoch} ({why}); continue without it and with '
                         '--resume auto.')
        return self.last_epoch == self.num_epochs

    def train(self, epoch: int) -> Metrics:
        """Train one epoch; returns the means of what the task says of itself."""
        self.began, args, job = time.time(), self.args, self.job
        for line in describe_switches(args, epoch):
            job.say(line)
        progress = EpochProgress(job.say, epoch, self.parts.updates, args.log_interval, self.starts)
        try:
            metrics: Metrics = train_epoch(
                self.task, self.parts.loader, optimizer_of_epoch(args, self.optimizer, epoch), epoch=epoch,
                updates_per_epoch=self.parts.updates, seed=args.seed, world=job.world,
                accumulation=max(args.grad_accum_steps, 1), autocast=self.autocast, scaler=self.scaler,
                schedule=self.schedule, sync_first=args.sam_global, progress=progress)
        finally:
            progress.close()
        self.distribute_statistics()
        if self.watched is not None:
            metrics['feature_spread'] = job.world.first(self.feature_spread)
        return metrics

    def distribute_statistics(self) -> None:
        """Give all processes the same running statistics of batch norm."""
        world, args = self.job.world, self.args
        if not (world.distributed and args.dist_bn):
            return
        distribute_bn(self.task.get_trainable_module(), world.world_size, args.dist_bn == 'reduce')
        if self.task.has_ema():
            distribute_bn(eval_model(self.task), world.world_size, args.dist_bn == 'reduce')

    def feature_spread(self) -> float:
        """Return how far the features of some training images lie from each other."""
        assert self.watched is not None
        return spread(gather_features(self.task, eval_model(self.task), self.watched, autocast=self.autocast)[0])

    def validate(self, epoch: int) -> Metrics:
        """Judge the model on the validation images, where it is time to; returns the metrics."""
        interval = eval_interval(self.args)
        if self.parts.val_loader is None or ((epoch + 1) % interval and epoch + 1 != self.num_epochs):
            return {}
        metrics = self.parts.judge.judge(self.parts.val_loader, eval_model(self.task), self.autocast)[0]
        if 'loss' in self.metric_names and not math.isfinite(metrics.get('loss') or 0.0):
            raise NonFiniteLoss(f'the validation loss is not finite after epoch {epoch + 1}')  # one update too many
        return metrics

    def record(self, epoch: int, trained: Metrics, judged: Metrics) -> None:
        """Put an epoch into the history, the checkpoint, the tables and on the screen."""
        args, job, parts, groups = self.args, self.job, self.parts, self.optimizer.param_groups
        row = make_row(
            epoch, trained, self.metric_names, judged, lr=sum(group['lr'] for group in groups) / len(groups))
        better = self.state.add(row, parts.metric, parts.sign, latest=parts.judge.prefers_latest)
        value = judged.get(parts.metric or '')
        if self.schedule is not None:
            self.schedule.step(epoch + 1, value)
        if job.world.primary:
            state = checkpoint.make_state(
                self.task, self.optimizer, self.scaler, stored_settings(args, job.world), epoch,
                classes=job.data.classes.to_dict(), given=job.given, split=job.data.split_hash(), metric=value,
                **self.state.to_dict())
            best = better or (parts.metric is None and epoch + 1 == self.num_epochs)
            self.writer.submit(partial(self.save, checkpoint.copied(state), best))
            self.trackers.log(row)
        self.epoch_times.append(time.time() - self.began)
        job.say(epoch_line(row, self.num_epochs, better, self.epoch_times[-1]))

    def save(self, state: Dict[str, Any], best: bool) -> None:
        """Write what an epoch left; runs beside the next epoch, on a copy."""
        checkpoint.save_epoch(self.job.folder, state, best, self.args.save_epochs)
        write_summary(self.job.folder, state['history'])

    def watch(self, epoch: int) -> bool:
        """Tell a collapse, once; returns whether it ends the run."""
        before = self.collapse
        self.collapse = collapsed(self.args, self.task, self.parts.updates, self.state.history)
        stop = self.collapse is not None and self.args.on_collapse == 'stop'
        if self.collapse is not None and (before is None or stop):
            self.job.say(self.collapse)
        if stop:
            self.last_epoch = epoch + 1
        return stop

    @contextmanager
    def logs(self) -> Iterator[None]:
        """Write what an epoch does not change, and begin to track; `close` ends that."""
        job, args, primary = self.job, self.args, self.job.world.primary
        if primary:
            (job.folder / 'report.json').unlink(missing_ok=True)  # a run that goes on has not ended
            write_static(job.folder, args, dict(
                environment(job.device, job.world), command=shlex.join([*command(), *given_words(job.given)])))
            write_data_files(job.folder, job.data, args)
            write_summary(job.folder, self.state.history)
            if args.save_images:
                save_images(self.task, self.parts.loader, job.data.train.names, epoch=self.first_epoch, seed=args.seed,
                            folder=job.folder)
            self.trackers = open_trackers(args, job.folder, self.first_epoch, job.say)
        self.starts = Starts(job.folder if primary else None, self.first_epoch * self.parts.updates)
        try:
            with Writer() as self.writer:
                yield
        finally:
            self.starts.close()

    @contextmanager
    def last_good_checkpoint_named(self) -> Iterator[None]:
        """Say which checkpoint stays, where a loss is not finite."""
        try:
            yield
        except NonFiniteLoss as error:
            kept = self.job.folder / checkpoint.LAST if self.state.history else 'there is none yet'
            raise NonFiniteLoss(
                f'Stopped: {error}. The last good checkpoint stays: {kept}. Try a lower --lr or --clip-grad 1.'
            ) from error

    def close(self) -> None:
        """End what was kept open for the report."""
        self.trackers.close()

    def timing(self) -> Dict[str, Any]:
        """Return the seconds of each epoch, and which updates each start of the process made."""
        return dict(epochs=self.epoch_times, starts=read_starts(self.job.folder))
