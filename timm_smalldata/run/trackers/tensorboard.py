"""TensorBoard: files in the run folder, under `tensorboard/`."""
from typing import Any, Mapping

from .base import Tracker


class TensorBoardTracker(Tracker):
    """A curve for each number; what a run that is continued has written beyond its checkpoint is hidden."""

    def __init__(self, *args: Any):
        super().__init__(*args)
        from torch.utils.tensorboard import SummaryWriter
        self.writer: Any = SummaryWriter(str(self.folder / 'tensorboard'), purge_step=self.first_epoch or None)

    def log(self, row: Mapping[str, float]) -> None:
        for name, value in row.items():
            if name != 'epoch':
                self.writer.add_scalar(name.replace('_', '/', 1), value, row['epoch'])
        self.writer.flush()

    def report(self, numbers: Mapping[str, float]) -> None:
        for name, value in numbers.items():
            self.writer.add_scalar(f'report/{name}', value)

    def close(self) -> None:
        self.writer.close()
