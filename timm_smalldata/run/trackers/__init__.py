"""Where the numbers of a run are sent while it trains, behind one small interface; a file each, an extra each."""
from argparse import Namespace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Callable, Dict, List, Mapping, Optional, Tuple

from ...errors import UserError, nearest
from .base import Tracker

TRACKERS: Dict[str, Tuple[str, str]] = {  # name, which is that of its module and extra: what it needs, its class
    'tensorboard': ('torch.utils.tensorboard', 'TensorBoardTracker'),
    'wandb': ('wandb', 'WandbTracker'),
    'mlflow': ('mlflow', 'MLflowTracker'),
    'trackio': ('trackio', 'TrackioTracker'),
}


class Trackers:
    """All that were asked for; on processes other than the first there are none.

    One that fails is left out from there on, with a line: the training and what it writes do not depend on it.
    """

    def __init__(self, trackers: Optional[List[Tracker]] = None, say: Callable[[str], Any] = print):
        self.trackers, self.say = trackers or [], say

    def log(self, row: Mapping[str, Optional[float]]) -> None:
        """Send an epoch's row."""
        numbers = {name: value for name, value in row.items() if value is not None}
        self._each(lambda tracker: tracker.log(numbers))

    def report(self, report: Mapping[str, Any]) -> None:
        """Send the numbers of the report, as `test_top1` and so on."""
        numbers = {f'{report["split"]}_{name}': float(value) for name, value in report.items()
                   if isinstance(value, (int, float)) and not isinstance(value, bool) and name != 'epoch'}
        self._each(lambda tracker: tracker.report(numbers))

    def close(self) -> None:
        """End them; a second call does nothing."""
        self._each(lambda tracker: tracker.close())
        self.trackers = []

    def _each(self, call: Callable[[Tracker], Any]) -> None:
        for tracker in list(self.trackers):
            try:
                call(tracker)
            except Exception as error:  # whatever a client of a service raises
                self.trackers.remove(tracker)
                said = ' '.join(str(error).split()) or type(error).__name__
                self.say(f'warning: {type(tracker).__name__} failed and gets no more numbers: {said}')


def asked(get: Callable[[str], Any]) -> List[str]:
    """Return the names of the trackers that settings ask for, each once.

    Args:
        get: Returns the value of a flag.

    Raises:
        UserError: There is none of that name, or its package is missing.
    """
    names = [name for words in get('log_to') or [] for name in words.split(',') if name]
    flags = {name: '--log-to ' + name for name in names}
    flags.update((name, f'--log-{name}') for name in ('tensorboard', 'wandb') if get(f'log_{name}'))
    for name, flag in flags.items():
        if name not in TRACKERS:
            raise UserError(f'Unknown --log-to {name!r}{nearest(name, TRACKERS)}; there are: {", ".join(TRACKERS)}.')
        try:  # torch's module is always there, and needs the package
            missing = find_spec(TRACKERS[name][0]) is None or find_spec(name) is None
        except (ImportError, ValueError):
            missing = True
        if missing:
            raise UserError(f"{flag} needs the extra: pip install 'timm-smalldata[{name}]'.")
    return list(flags)


def open_trackers(
        args: Namespace, folder: Path, first_epoch: int, say: Callable[[str], Any] = print) -> Trackers:
    """Start those that settings ask for, on the first process.

    Args:
        args: Settings.
        folder: Run folder.
        first_epoch: Above 0 for a run that is continued.
        say: Where it is said that one has failed.

    Raises:
        UserError: One cannot begin.
    """
    trackers = Trackers(say=say)
    for name in asked(lambda dest: getattr(args, dest)):
        module = import_module(f'.{name}', __name__)
        try:
            trackers.trackers.append(getattr(module, TRACKERS[name][1])(args, folder, first_epoch))
        except Exception as error:
            trackers.close()
            raise UserError(f'The tracker {name} cannot begin: {error or type(error).__name__}. Put it right, or leave '
                            f'out --log-to {name}.') from error
    return trackers
