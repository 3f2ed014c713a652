"""What a tracker is."""
from argparse import Namespace
from pathlib import Path
from typing import Any, Dict, Mapping

from ...config.flags import BY_DEST

PROJECT = 'timm-smalldata'


class Tracker:
    """Sends numbers somewhere.

    Args:
        args: Settings of the run.
        folder: Its folder.
        first_epoch: Above 0 for a run that is continued.
    """

    def __init__(self, args: Namespace, folder: Path, first_epoch: int):
        self.args, self.folder, self.first_epoch = args, folder, first_epoch

    def log(self, row: Mapping[str, float]) -> None:
        """Send an epoch: `epoch` (from 0) and what was measured."""
        raise NotImplementedError

    def report(self, numbers: Mapping[str, float]) -> None:
        """Send what the finished model reached."""
        raise NotImplementedError

    def close(self) -> None:
        """End the run there."""


def changed_settings(args: Namespace) -> Dict[str, Any]:
    """Return the settings that are not at their default."""
    return {dest: value for dest, value in vars(args).items()
            if dest in BY_DEST and value not in (None, BY_DEST[dest].default)}
