"""Checks that need the data or the length of the run: what begins late, and tools after training."""
from argparse import Namespace
from typing import Optional, Sequence

from ..errors import UserError
from .length import total_epochs
from .sharpness import rho_schedule

POSTHOC = ('posthoc_tau', 'tau_norm', 'temperature')


def check_deferred(args: Namespace) -> None:
    """Raise a UserError for a switch that would never happen."""
    epochs = total_epochs(args)
    for dest in ('drw_epoch', 'drs_epoch'):
        epoch = getattr(args, dest)
        if epoch is not None and epoch >= epochs:
            raise UserError(
                f"--{dest.replace('_', '-')} {epoch} lies beyond the run, whose last epoch is {epochs - 1}: "
                'choose an earlier one, or more --epochs.')
    last = rho_schedule(args).last_change
    if last >= epochs:
        raise UserError(
            f'--sam-rho-schedule {args.sam_rho_schedule!r}: epoch {last} lies beyond the run, whose last epoch is '
            f'{epochs - 1}: choose an earlier one, or more --epochs.')


def wants_posthoc(args: Namespace) -> bool:
    """Return whether any of the tools is asked for."""
    return any(getattr(args, dest) not in (None, False) for dest in POSTHOC)


def check_posthoc(
        args: Namespace,
        split: str,
        has_val: bool,
        remedy: str,
        counts: Optional[Sequence[int]] = (),
) -> None:
    """Raise a UserError for a tool that has not what it needs.

    Args:
        args: `posthoc_tau` and `temperature`.
        split: Name of the images that are judged.
        has_val: Whether there are validation images.
        remedy: What the user can do where the images do not allow a temperature.
        counts: Training images per class; None if they are not known.
    """
    if args.temperature and not has_val:
        raise UserError(f'--temperature is fitted on validation images, and there are none: leave it out, or {remedy}.')
    if args.temperature and split in ('val', 'all'):  # it would be judged on what it was fitted to
        raise UserError('--temperature is fitted on the validation images, so it cannot be judged on them (here the '
                        f'split {split}): leave it out, or {remedy}.')
    if args.posthoc_tau is not None and counts is None:
        raise UserError('--posthoc-tau needs the training counts, which the model does not carry: --class-stats FILE.')
