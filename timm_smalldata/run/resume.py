"""The checkpoint that a run continues: found, and compared with what is asked for now."""
from argparse import Namespace
from functools import cached_property
from pathlib import Path
from typing import Any, Dict, List, Optional

from ..build.roles import Data
from ..config.flags import BY_DEST, FLAGS, removed_lines
from ..config.plan import Stage
from ..config.settings import CONTINUED
from ..data.classes import ClassInfo
from ..engine import checkpoint
from ..errors import UserError
from ..utils.console import Voice
from ..utils.distributed import World
from .folder import check_writable
from .starts import copy_starts

_OURS = dict(args=Namespace, classes=dict, history=list, best=dict)  # what ours hold beside timm's entries


def run_folder(stage: Stage) -> Path:
    """Return where a stage puts its results."""
    return Path(stage.settings.get('output')) / stage.settings.get('experiment') / stage.folder


class EarlierRun:
    """The run that a stage goes on with, if there is one; its checkpoint is read once.

    Args:
        stage: `--resume` names the run; stages of a recipe go on by themselves.
    """

    def __init__(self, stage: Stage):
        self.stage = stage
        self.resume: Optional[str] = stage.settings.get('resume') or ('auto' if stage.name else None)

    @property
    def named(self) -> bool:
        """Whether `--resume` names a checkpoint, or the folder of another run."""
        return self.resume not in (None, 'auto')

    @property
    def place(self) -> Path:
        """The checkpoint or run folder that is looked into."""
        return Path(self.resume or '') if self.named else run_folder(self.stage)

    @cached_property
    def checkpoint(self) -> Optional[Dict[str, Any]]:
        """The last whole checkpoint, or None; `damages` says where it is not the one that was written last."""
        self.damages: List[str] = []
        if not self.named or self.place.is_dir():
            state = checkpoint.load_last(self.place, self.damages.append)
        elif self.place.name == checkpoint.LAST and self.place.is_file():
            state = checkpoint.load_last(self.place.parent, self.damages.append)
        else:
            state = checkpoint.load(self.place)
        if state is not None and not all(isinstance(state.get(key), kind) for key, kind in _OURS.items()):
            raise UserError(
                f'{self.place} was not written by this program (perhaps by train.py of timm): its settings and classes '
                'are not known, so it cannot be continued. Its weights can start a new run: --initial-checkpoint FILE '
                'instead of --resume.')
        return state

    @property
    def device(self) -> Optional[str]:
        """Device of the run that is to be continued; None for a new one."""
        unnamed = self.resume == 'auto' and not self.stage.settings.get('experiment')
        if not self.resume or unnamed or not self.place.exists() or self.checkpoint is None:
            return None
        device = getattr(self.checkpoint['args'], 'device', None)
        return device if isinstance(device, str) else None

    def continue_(self, world: World, say: Voice, finished: bool = False) -> Optional[Dict[str, Any]]:
        """Return the checkpoint to continue, or None; its settings fill what the user does not give now.

        Raises:
            UserError: The folder holds a run and nothing was said about resuming; settings changed; nothing can be
                written.
        """
        stage, settings, folder = self.stage, self.stage.settings, run_folder(self.stage)
        if self.checkpoint is None:
            del self.checkpoint  # another process may have written one until the folder was ours
        saved = self.checkpoint
        for line in self.damages:
            say(line)
        if self.named:
            if saved is None:
                raise UserError(f'--resume {self.resume}: no checkpoint there.')
            source = self.place if self.place.is_dir() else self.place.parent
            if source.resolve() != folder.resolve():
                world.first(lambda: _take_along(saved, source, folder))
        elif (saved is not None or finished) and self.resume is None:
            raise UserError(
                f'{folder} already holds a run: continue it with --resume auto, or choose another --experiment.')
        elif saved is None and self.resume == 'auto' and not stage.name and not finished:
            say(f'--resume auto: no checkpoint in {folder} yet, starting at epoch 0.')
        world.first(lambda: check_writable(folder))
        if saved is not None:
            check_unchanged(saved, stage.given, world.world_size, settings.get('force'), settings.notes)
            _keep_settings(stage, saved)
        return saved


def _keep_settings(stage: Stage, saved: Dict[str, Any]) -> None:
    """Let what a preset or recipe says today give way to what the run was started with."""
    settings, old = stage.settings, vars(saved['args'])
    settings.notes += removed_lines(old, 'the checkpoint')
    kept = {flag.dest: old.get(flag.dest, flag.value_before()) for flag in FLAGS if flag.kept}
    for dest in kept:
        left = dest not in stage.given or (BY_DEST[dest].auto and stage.given[dest] == 'auto')
        if left and settings.is_set(dest) and dest not in ('output', 'experiment'):
            del settings.values[dest], settings.sources[dest]
    settings.layer(kept, CONTINUED)


def stored_settings(args: Namespace, world: World) -> Namespace:
    """Return the settings as plain values: what may lie in a checkpoint, which is read without running code."""
    return Namespace(**{dest: getattr(args, dest) for dest in BY_DEST}, world_size=world.world_size)


def _take_along(saved: Dict[str, Any], source: Path, folder: Path) -> None:
    """Bring the best weights and the earlier starts along when a checkpoint of another folder is continued."""
    best = saved.get('best')
    state = checkpoint.load_best(source, best['epoch']) if best else None
    if best and state is None:
        raise UserError(
            f"{source / checkpoint.BEST} is gone: the run's best epoch {best['epoch'] + 1} cannot be continued.")
    check_writable(folder)
    copy_starts(source, folder)
    if state is not None:
        checkpoint.save(state, folder / checkpoint.BEST)


def check_same_data(saved: Dict[str, Any], data: Data, force: bool, lines: List[str]) -> None:
    """Refuse to continue a run on other images, or on classes of other names."""
    old, classes = ClassInfo.from_dict(saved['classes']), data.classes
    if old == classes and saved.get('split', '') == data.split_hash():
        return
    if old == classes:
        text = 'The validation or test images are not those that the run was started with'
        if not force:
            raise UserError(f'{text}: start a new --experiment, or insist with --force.')
        lines.append(f'{text} (--force)')
        return
    what = 'classes' if old.names != classes.names else 'training images'
    then, now = (old.names, classes.names) if what == 'classes' else (old.data_hash[:12], classes.data_hash[:12])
    text = f'The {what} are not those that the run was started with ({then} then, {now} now)'
    if not force:
        raise UserError(f'{text}: start a new --experiment, or insist with --force.')
    lines.append(f'{text} (--force)')


def check_unchanged(
        saved: Dict[str, Any], given: Dict[str, Any], world_size: int, force: bool, lines: List[str],
) -> None:
    """Refuse to resume with other settings, by name; those that cannot change the result may differ.

    Args:
        saved: The checkpoint: settings, and what the user gave then.
        given: What the user gives now.
        world_size: Processes now.
        force: Only say it.
        lines: Where it is said.
    """
    old = vars(saved['args'])
    then = {**old, **saved.get('given', {})}  # a batch may have shrunk to the data since
    then.update((flag.dest, old[flag.dest]) for flag in FLAGS if flag.auto and flag.dest in old)
    then = {**{flag.dest: flag.value_before() for flag in FLAGS}, **then}
    changed = [
        f'--{BY_DEST[dest].name} {then[dest]} -> {value}' for dest, value in given.items()
        if dest in BY_DEST and not BY_DEST[dest].may_change and not _same(dest, then[dest], value)]
    if old.get('world_size', 1) != world_size:
        changed.append(f"processes {old.get('world_size', 1)} -> {world_size}")
    if not changed:
        return
    if not force:
        raise UserError(
            f'The run was started with other settings: {"; ".join(changed)}. Leave them out to continue it, start a '
            'new --experiment, or insist with --force.')
    lines.append(f'resuming with changed settings (--force): {"; ".join(changed)}')


def _same(dest: str, then: Any, now: Any) -> bool:
    if BY_DEST[dest].auto and now == 'auto':
        return True
    if dest == 'device':  # the second GPU is as good as the first
        return str(then).partition(':')[0] == str(now).partition(':')[0]
    return then == now
