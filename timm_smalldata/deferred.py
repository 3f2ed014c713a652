"""What begins late in a run: re-weighting and re-sampling (Cao et al., NeurIPS 2019, https://arxiv.org/abs/1906.07413),
and other radii of SAM.

All are functions of the epoch alone, so a resumed run is where an undisturbed one would be.
"""
from argparse import Namespace
from typing import List

from .config.flags import shown
from .sharpness import rho_steps


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
