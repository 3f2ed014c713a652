"""One file is the truth: `last.pth.tar`, in timm's format and keys, whole or not there; the one before is kept."""
import os
import shutil
import zipfile
from argparse import Namespace
from pathlib import Path
from typing import Any, Dict, List, Optional

import torch
from timm.models import clean_state_dict

from ..errors import UserError
from ..task import TaskHooks
from ..utils.files import open_atomic

LAST, BEST = 'last.pth.tar', 'model_best.pth.tar'
_HYPERPARAMETERS = ('lr', 'weight_decay', 'momentum', 'betas', 'eps')


def previous(path: Path) -> Path:
    """Return where the checkpoint before this one is kept."""
    return path.with_name(path.name.replace('.pth.tar', '.previous.pth.tar'))


def save(state: Dict[str, Any], path: Path) -> None:
    """Write a checkpoint so that a kill at any moment leaves a whole one; what was there before is kept beside it."""
    if path.exists() and zipfile.is_zipfile(path):  # a torn one must not take the place of the whole one before it
        spare = path.with_name(f'.{path.name}.spare')
        spare.unlink(missing_ok=True)
        try:
            os.link(path, spare)
        except OSError:  # file systems without hard links
            shutil.copyfile(path, spare)
        os.replace(spare, previous(path))
    with open_atomic(path, binary=True) as stream:
        torch.save(state, stream)


def load(path: Path) -> Dict[str, Any]:
    """Read a checkpoint without running code from it."""
    try:
        with torch.serialization.safe_globals([Namespace]):
            state = torch.load(path, map_location='cpu', weights_only=True)
    except FileNotFoundError as error:
        raise UserError(f'No such checkpoint: {path}') from error
    except Exception as error:  # a torn file shows as one of many kinds
        raise UserError(f'{path} is not a readable checkpoint ({type(error).__name__}).') from error
    if not isinstance(state, dict) or 'state_dict' not in state or 'epoch' not in state:
        raise UserError(f'{path} is not a training checkpoint: it has no state_dict and epoch.')
    return state


def load_last(folder: Path) -> Optional[Dict[str, Any]]:
    """Return the last whole checkpoint of a run folder, or None."""
    failure: Optional[UserError] = None
    for path in (folder / LAST, previous(folder / LAST)):
        if path.exists():
            try:
                return load(path)
            except UserError as error:
                failure = error
    if failure is not None:
        raise failure
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
            f"{folder / BEST} is gone, so the weights of epoch {best['epoch']} cannot be exported; those of the last "
            'epoch can: --select last --resume auto --force.')
    restore(state, task, None)


def save_epoch(folder: Path, state: Dict[str, Any], better: bool, milestones: Optional[List[int]] = None) -> None:
    """Save what an epoch left: the best first, so that `last.pth.tar` never speaks of weights that are not there."""
    if better:
        save(state, folder / BEST)
    save(state, folder / LAST)
    if milestones and state['epoch'] + 1 in milestones:
        save(state, folder / f"milestone-{state['epoch'] + 1}.pth.tar")


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
        now = [{name: group[name] for name in _HYPERPARAMETERS if name in group} for group in optimizer.param_groups]
        optimizer.load_state_dict(state['optimizer'])
        for group, values in zip(optimizer.param_groups, now):
            group.update(values)  # those of the settings: equal, unless --force changed them
            group.pop('initial_lr', None)  # the scheduler notes it anew
        if scaler is not None and 'amp_scaler' in state:
            scaler.load_state_dict(state['amp_scaler'])
    return state['epoch'] + 1
