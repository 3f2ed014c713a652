"""Trackio: a dashboard on this machine, or a Space on the Hugging Face hub."""
from typing import Any, Mapping

from .base import PROJECT, Tracker, changed_settings


class TrackioTracker(Tracker):
    """A run of the project `--log-project`; one that is continued goes on under its name."""

    def __init__(self, *args: Any):
        super().__init__(*args)
        import trackio
        self.trackio: Any = trackio
        trackio.init(
            project=self.args.log_project or PROJECT, name=self.args.experiment, config=changed_settings(self.args),
            resume='allow' if self.first_epoch else 'never')

    def log(self, row: Mapping[str, float]) -> None:
        self.trackio.log({name: value for name, value in row.items() if name != 'epoch'}, step=int(row['epoch']))

    def report(self, numbers: Mapping[str, float]) -> None:
        self.trackio.log(dict(numbers))

    def close(self) -> None:
        self.trackio.finish()
