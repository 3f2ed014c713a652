"""What is told while a run goes on: lines, bars, `summary.csv`, TensorBoard and wandb.

On the screen epochs count from 1, in files from 0 as timm's do.
"""
from argparse import Namespace
from pathlib import Path
from typing import Any, Dict, List, Optional

from ..errors import UserError
from ..utils.console import Voice
from ..utils.files import write_csv_atomic
from .starts import Starts


class EpochProgress:
    """Progress inside one epoch: a bar on a terminal, a line every `interval` updates elsewhere."""

    def __init__(self, voice: Voice, epoch: int, updates: int, interval: int, starts: Starts):
        self.voice, self.epoch, self.updates, self.interval = voice, epoch, updates, max(interval, 1)
        self.bar = voice.bar(updates, f'epoch {epoch + 1}') if voice.terminal else None
        self.starts = starts

    def __call__(self, update: int, meters: Any) -> None:
        self.starts.note(update)
        number = update % self.updates + 1
        if self.bar is not None:
            self.bar.update()
        if number % self.interval == 0 and number < self.updates:
            loss = (meters.sums['loss'] / meters.count).item()  # the only place where the loop waits for the device
            if self.bar is not None:
                self.bar.set_postfix(loss=f'{loss:.4f}')
            elif self.voice.primary:
                self.voice(f'  epoch {self.epoch + 1} update {number}/{self.updates} loss {loss:.4f}')

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()


def epoch_line(row: Dict[str, Any], epochs: int, better: bool, seconds: float) -> str:
    """Return one epoch in one line; a star marks the best so far."""
    shown = [f"epoch {row['epoch'] + 1:3d}/{epochs}  train loss {row['train_loss']:.4f}"]
    for name, label in (('loss', 'val loss'), ('top1', 'top1'), ('balanced_top1', 'balanced'), ('many', 'many'),
                        ('medium', 'medium'), ('few', 'few')):
        value = row.get(f'eval_{name}')
        if value is not None:
            shown.append(f'{label} {value:.4f}' if name == 'loss' else f'{label} {value:.1f}')
    return '  '.join(shown) + f'  {seconds:.1f} s' + ('  *' if better else '')


def write_summary(folder: Path, history: List[Dict[str, Any]]) -> None:
    """Write `summary.csv` from the metric history; columns are those of the first row."""
    if history:
        columns = list(history[0])
        write_csv_atomic(folder / 'summary.csv', columns, [[row.get(c) for c in columns] for row in history])


class Trackers:
    """TensorBoard and wandb, when asked for."""

    def __init__(self, args: Namespace, folder: Path, primary: bool):
        self.board: Any = None
        self.wandb: Any = None
        if args.log_tensorboard and primary:
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError as error:
                raise UserError(
                    "--log-tensorboard needs the extra: pip install 'timm-smalldata[tensorboard]'.") from error
            self.board = SummaryWriter(str(folder / 'tensorboard'))
        if args.log_wandb and primary:
            try:
                import wandb
            except ImportError as error:
                raise UserError("--log-wandb needs the extra: pip install 'timm-smalldata[wandb]'.") from error
            wandb.init(
                project=args.wandb_project, name=args.experiment,
                config=vars(args), tags=args.wandb_tags,
                resume='must' if args.wandb_resume_id else None, id=args.wandb_resume_id or None)
            self.wandb = wandb

    def log(self, row: Dict[str, Optional[float]]) -> None:
        """Send one epoch's row."""
        if self.board is not None:
            for name, value in row.items():
                if name != 'epoch' and value is not None:
                    self.board.add_scalar(name.replace('_', '/', 1), value, row['epoch'])
            self.board.flush()
        if self.wandb is not None:
            self.wandb.log(row)

    def close(self) -> None:
        if self.board is not None:
            self.board.close()
        if self.wandb is not None:
            self.wandb.finish()
