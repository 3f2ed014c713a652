"""One file is the truth: `last.pth.tar`, in timm's format and keys, whole or not there; the one before is kept."""
import zipfile
from argparse import Namespace
from pathlib import Path
from typing import IO, Any, Callable, Dict, List, Optional, Tuple, cast

import torch
from timm.models import clean_state_dict

from ..errors import UserError
from ..task import TaskHooks
from ..utils.files import open_atomic

LAST, BEST = 'last.pth.tar', 'model_best.pth.tar'
_TO_GO_ON = ('optimizer', 'amp_scaler')  # entries that only training needs
_HYPERPARAMETERS = ('lr', 'weight_decay', 'momentum', 'betas', 'eps')


def previous(path: Path) -> Path:
    """Return where the checkpoint before this one is kept."""
    return path.with_name(path.name.replace('.pth.tar', '.previous.pth.tar'))


def save(state: Dict[str, Any], path: Path) -> None:
    """Write a checkpoint so that a kill at any moment leaves a whole one; what was there before is kept beside it.

    Raises:
        StorageError: The disk is full; what was there before stays.
    """
    _write(state, path, previous(path) if path.is_file() and not damage(path) else None)  # no torn one for a whole one


def _write(state: Dict[str, Any], path: Path, kept: Optional[Path] = None) -> None:
    with open_atomic(path, binary=True, needs=num_bytes(state), keep=kept) as file:
        stream = _Stream(file)
        try:
            torch.save(state, cast(IO[bytes], stream))
        except RuntimeError:  # torch's word for a write that failed
            if stream.error is None:
                raise
            raise stream.error from None


class _Stream:
    """Passes bytes on and remembers the error of a write."""

    def __init__(self, file: IO):
        self.file = file
        self.error: Optional[OSError] = None

    def write(self, content: Any) -> int:
        try:
            return self.file.write(content)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self.file.flush()


def num_bytes(state: Any) -> int:
    """Return the bytes of all tensors in a nest of dictionaries and lists."""
    if isinstance(state, torch.Tensor):
        return state.numel() * state.element_size()
    values = state.values() if isinstance(state, dict) else state if isinstance(state, (list, tuple)) else ()
    return sum(map(num_bytes, values))


def copied(state: Any) -> Any:
    """Return a copy on the CPU that training does not change; tensors that share their memory share it in the copy."""
    memory: Dict[Tuple, torch.Tensor] = {}

    def copy(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            key = (value.data_ptr(), value.dtype, value.device, value.shape, value.stride())
            if key not in memory or not value.numel():
                memory[key] = value.detach().to('cpu', copy=True)
            return memory[key]
        if isinstance(value, dict):
            return type(value)((name, copy(item)) for name, item in value.items())
        return [copy(item) for item in value] if isinstance(value, list) else value

    return copy(state)


def damage(path: Path) -> str:
    """Return what is wrong with a file that torch has saved, by the checksums in it; an empty string for nothing.

    Files of torch are zip archives whose parts each carry a CRC-32, which torch itself does not look at when it reads.
    """
    if not zipfile.is_zipfile(path):
        return 'it is cut short, or no checkpoint'
    try:
        with zipfile.ZipFile(path) as archive:
            broken = archive.testzip()
    except Exception as error:  # a torn archive shows as one of many kinds
        return f'it cannot be read ({type(error).__name__})'
    return f'the checksum of its part {broken} is wrong' if broken else ''


def load(path: Path) -> Dict[str, Any]:
    """Read a checkpoint without running code from it.

    Raises:
        UserError: There is none, it is damaged, or it is no checkpoint of a training.
    """
    if path.is_dir():
        raise UserError(f'{path} is a folder, not a checkpoint: move it away.')
    try:
        broken = damage(path) if zipfile.is_zipfile(path) else ''  # torch's old format has no checksums
        if broken:
            raise UserError(f'{path} is damaged: {broken}.')
        with torch.serialization.safe_globals([Namespace]):
            state = torch.load(path, map_location='cpu', weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f'No such checkpoint: {path}') from error
    except UserError:
        raise
    except Exception as error:  # a torn file shows as one of many kinds
        raise UserError(f'{path} is not a readable checkpoint ({type(error).__name__}).') from error
    if not isinstance(state, dict) or 'state_dict' not in state or 'epoch' not in state:
        raise UserError(f'{path} is not a training checkpoint: it has no state_dict and epoch.')
    return state


def load_last(folder: Path, say: Callable[[str], Any] = lambda line: None) -> Optional[Dict[str, Any]]:
    """Return the last whole checkpoint of a run folder, or None.

    Args:
        folder: The run folder.
        say: Hears where it is not the one that was written last.

    Raises:
        UserError: There are checkpoints, and none is whole.
    """
    last = folder / LAST
    if last.is_dir():  # the next one could not take its place
        raise UserError(f'{last} is a folder, and the checkpoint belongs there: move it away.')
    failures: List[str] = []
    for path in (last, previous(last)):
        if not path.exists():
            continue
        try:
            state = load(path)
        except UserError as error:
            failures.append(str(error))
            continue
        if path != last:
            say(f'{failures[0] if failures else f"{last} is gone."} The one before it is whole and is continued: '
                f'{path.name}, epoch {state["epoch"] + 1}')
        return state
    if failures:
        raise UserError(' '.join(failures))
    return None


def load_best(folder: Path, epoch: int) -> Optional[Dict[str, Any]]:
    """Return the best weights that `last.pth.tar` speaks of: those of the given epoch."""
    for path in (folder / BEST, previous(folder / BEST)):
        try:
            state = load(path)
        except UserError:  # not there, or torn
            continue
        if state['epoch'] == epoch:
            return state
    return None


def restore_selected(folder: Path, task: TaskHooks, best: Dict[str, Any], last_epoch: int) -> None:
    """Put the weights of the best epoch into the task; without one (or where it is the last) nothing changes."""
    if not best or best['epoch'] == last_epoch:
        return
    state = load_best(folder, best['epoch'])
    if state is None:
        raise UserError(
            f"{folder / BEST} is gone or damaged, so the weights of epoch {best['epoch'] + 1} cannot be exported; "
            'those of the last epoch can: --select last --resume auto --force.')
    restore(state, task, None)


def save_epoch(folder: Path, state: Dict[str, Any], better: bool, milestones: Optional[List[int]] = None) -> None:
    """Save what an epoch left: the best first, so that `last.pth.tar` never speaks of weights that are not there."""
    if better:
        save(state, folder / BEST)
    save(state, folder / LAST)
    if milestones and state['epoch'] + 1 in milestones:
        save(state, folder / f"milestone-{state['epoch'] + 1}.pth.tar")


def prune(folder: Path, keep: str) -> None:
    """Remove checkpoints that a finished run needs no more; milestones stay.

    The best one keeps its weights alone: what the optimizer knew then is of use only where training goes on, and it
    goes on from the last one.

    Args:
        folder: Run folder, with its model and report.
        keep: 'last', 'best' or 'all' (both); the ones before them go in any case.
    """
    for name, kept in ((LAST, keep != 'best'), (BEST, keep != 'last')):
        previous(folder / name).unlink(missing_ok=True)
        if not kept:
            (folder / name).unlink(missing_ok=True)
    if keep != 'last' and (folder / BEST).is_file():
        state = load(folder / BEST)
        if any(key in state for key in _TO_GO_ON):
            _write({key: value for key, value in state.items() if key not in _TO_GO_ON}, folder / BEST)


def make_state(
        task: TaskHooks,
        optimizer: torch.optim.Optimizer,
        scaler: Optional[torch.amp.GradScaler],
        args: Namespace,
        epoch: int,
        **facts: Any,
) -> Dict[str, Any]:
    """Collect everything that a resumed run needs, under timm's keys.

    Args:
        task: Its weights, average and state.
        optimizer: Its state.
        scaler: Of float16, or None.
        args: Settings, plain values only.
        epoch: The epoch that was just finished.
        **facts: Classes, metric history, best epoch.
    """
    state: Dict[str, Any] = dict(epoch=epoch, arch=args.model, version=2, args=args)
    state['optimizer'] = optimizer.state_dict()
    state.update(task.get_checkpoint_state())
    if task.has_ema():
        state.update(task.get_checkpoint_state(ema=True))
    if scaler is not None:
        state['amp_scaler'] = scaler.state_dict()
    return {**state, **facts}


def restore(
        state: Dict[str, Any], task: TaskHooks, optimizer: Optional[torch.optim.Optimizer],
        scaler: Optional[torch.amp.GradScaler] = None,
) -> int:
    """Put a checkpoint back; returns the number of the next epoch."""
    task.load_checkpoint_state(clean_state_dict(state['state_dict']), state.get('task_state'))
    if task.has_ema() and 'state_dict_ema' in state:
        task.load_checkpoint_state(
            clean_state_dict(state['state_dict_ema']), state.get('task_state_ema'), ema=True)
    if optimizer is not None:
        if 'optimizer' not in state:
            raise UserError('The checkpoint holds weights only, as the best one of a finished run does: continue from '
                            f'{LAST}, or with --no-resume-opt.')
        now = [{name: group[name] for name in _HYPERPARAMETERS if name in group} for group in optimizer.param_groups]
        optimizer.load_state_dict(state['optimizer'])
        for group, values in zip(optimizer.param_groups, now):
            group.update(values)  # those of the settings: equal, unless --force changed them
            group.pop('initial_lr', None)  # the scheduler notes it anew
        if scaler is not None and 'amp_scaler' in state:
            scaler.load_state_dict(state['amp_scaler'])
    return state['epoch'] + 1
