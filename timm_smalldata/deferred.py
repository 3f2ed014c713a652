"""What begins late in a run: re-weighting and re-sampling (Cao et al., NeurIPS 2019, https://arxiv.org/abs/1906.07413),
and other radii of SAM.

All are functions of the epoch alone, so a resumed run is where an undisturbed one would be.
"""
from argparse import Namespace
from typing import Any, List, Sequence

from .config.flags import shown
from .errors import UserError
from .sharpness import rho_steps


def reweighting(args: Namespace, reweighted: Any, counts: Sequence[int]) -> Any:
    """Return (epoch, class weights (C,)) of deferred re-weighting, or None where it is not asked for.

    Raises:
        UserError: The loss takes no class weights.
    """
    if args.drw_epoch is None:
        return None
    from .loss import effective_number_weights
    if not hasattr(reweighted, 'set_class_weight'):
        raise UserError(
            f'--drw-epoch weighs the classes, which --loss {args.loss} does not take: use ce, focal, ldam, '
            'class-balanced-ce or class-balanced-focal.')
    return args.drw_epoch, effective_number_weights(counts, args.drw_beta)


def news(args: Namespace, epoch: int) -> List[str]:
    """Return a line for each switch that happens before this epoch."""
    lines = []
    if epoch == args.drw_epoch:
        lines.append(f'epoch {epoch}: class weights begin (--drw-epoch), beta {shown(args.drw_beta)}')
    if epoch == args.drs_epoch:
        which = 'class-balanced' if args.sampler == 'instance' else args.sampler
        if args.sampler_power is not None:
            which = f'images(class) ** -{shown(args.sampler_power)}'
        lines.append(f'epoch {epoch}: re-sampling begins (--drs-epoch), {which}')
    if epoch in rho_steps(args) and args.sam_rho_schedule:
        lines.append(f'epoch {epoch}: rho {shown(rho_steps(args)[epoch])} (--sam-rho-schedule)')
    return lines
