"""Sharpness-aware minimisation as the flags ask for it.

Its radius rho is a function of the epoch alone, so a resumed run is where an undisturbed one would be. A rho that grows
in steps is used on long tails by Rangwani et al., NeurIPS 2022, https://arxiv.org/abs/2212.13827.
"""
import re
from argparse import Namespace
from typing import Any, Dict

import torch

from ..errors import UserError
from ..optim import SAM


def rho_steps(args: Any) -> Dict[int, float]:
    """Return the epochs where rho changes, and its values from there on; empty without SAM.

    Args:
        args: Anything with the attributes `sam_rho` and `sam_rho_schedule`.

    Raises:
        UserError: The schedule is none.

    >>> rho_steps(Namespace(sam_rho=0.0, sam_rho_schedule='0:0.05 5:0.1'))
    {0: 0.05, 5: 0.1}
    """
    steps = {0: args.sam_rho} if args.sam_rho else {}
    if args.sam_rho_schedule is not None:
        steps = _parse(args.sam_rho_schedule)
    return steps if any(steps.values()) else {}


def _parse(text: str) -> Dict[int, float]:
    def wrong(why: str) -> UserError:
        return UserError(f'--sam-rho-schedule {text!r}: {why}. Write EPOCH:RHO, e.g. "0:0.05 5:0.1 60:0.5".')

    steps: Dict[int, float] = {}
    for word in text.split():
        match = re.fullmatch(r'(\d{1,9}):(\d+\.?\d*|\.\d+)', word, re.ASCII)
        if match is None:
            raise wrong(f'{word!r} is no epoch with a rho of at least 0')
        epoch = int(match[1])
        if steps and epoch <= max(steps):
            raise wrong(f'epoch {epoch} comes after epoch {max(steps)}')
        steps[epoch] = float(match[2])
    if 0 not in steps:
        raise wrong('it does not say what holds from epoch 0 on')
    return steps


def rho_at(args: Any, epoch: int) -> float:
    """Return rho of an epoch; 0 where SAM is off."""
    return ([0.0] + [rho for first, rho in rho_steps(args).items() if first <= epoch])[-1]


def share_of_step(args: Any, epoch: int) -> float:
    """Return what an update of this epoch costs, as a share of the most: half where SAM pauses."""
    return 0.5 if rho_steps(args) and not rho_at(args, epoch) else 1.0


def around(args: Namespace, optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """Return the optimizer inside SAM, or as it is where no flag asks for SAM."""
    steps = rho_steps(args)
    return SAM.around(optimizer, max(steps.values()), args.sam_adaptive) if steps else optimizer


def at_epoch(args: Namespace, optimizer: torch.optim.Optimizer, epoch: int) -> torch.optim.Optimizer:
    """Set rho for an epoch; returns what makes its updates: the base alone, in one pass, where rho is 0."""
    if not isinstance(optimizer, SAM):
        return optimizer
    optimizer.rho, optimizer.adaptive = rho_at(args, epoch), args.sam_adaptive
    return optimizer if optimizer.rho else optimizer.base
