"""What is told while a run goes on: lines, bars and `summary.csv`.

On the screen epochs count from 1, in files from 0 as timm's do.
"""
import math
from pathlib import Path
from typing import Any, Dict, List

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
        if name == 'balanced_top1' and value is not None and abs(value - row.get('eval_top1', math.inf)) < 1e-6:
            continue  # as many images of each class: the same number
        if value is not None:
            shown.append(f'{label} {value:.4f}' if name == 'loss' else f'{label} {value:.1f}')
    return '  '.join(shown) + f'  {seconds:.1f} s' + ('  *' if better else '')


def write_summary(folder: Path, history: List[Dict[str, Any]]) -> None:
    """Write `summary.csv` from the metric history; columns are those of the first row."""
    if history:
        columns = list(history[0])
        write_csv_atomic(folder / 'summary.csv', columns, [[row.get(c) for c in columns] for row in history])
