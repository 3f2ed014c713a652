"""Sharpness-aware minimisation as the flags ask for it."""
from typing import Any

from ..errors import UserError
from ..optim.rho_schedule import RhoSchedule


def rho_schedule(args: Any) -> RhoSchedule:
    """Return the radius by epoch that the flags ask for.

    Args:
        args: Anything with the attributes `sam_rho` and `sam_rho_schedule`.

    Raises:
        UserError: `--sam-rho-schedule` is no schedule.
    """
    if args.sam_rho_schedule is None:
        return RhoSchedule({0: args.sam_rho} if args.sam_rho else {})
    try:
        return RhoSchedule.parse(args.sam_rho_schedule)
    except ValueError as error:
        raise UserError(f'--sam-rho-schedule {args.sam_rho_schedule!r}: {error}. Write EPOCH:RHO, e.g. '
                        '"0:0.05 5:0.1 60:0.5".') from error
