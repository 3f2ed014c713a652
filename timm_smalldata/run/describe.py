"""What will be trained on what, as lines for the screen."""
from argparse import Namespace
from typing import Any, Dict, List

import torch

from ..build.roles import Data
from ..build.sharpness import rho_steps
from ..config.flags import BY_DEST, shown
from ..config.layers import CONTINUED
from ..config.settings import Settings
from ..utils.distributed import World


def describe(
        settings: Settings, args: Namespace, data: Data, model: Any, batches: int, updates: int,
        world: World, device: torch.device, lines: List[str],
) -> str:
    """Return what will be trained on what, and what set every setting, as lines for the screen."""
    counts = data.classes.counts
    parts = [f'train {len(data.train)}'] + [
        f'{role} {len(source)}' for role, source in (('val', data.val), ('test', data.test)) if source is not None]
    order = sorted(range(len(counts)), key=lambda c: -counts[c])
    nonzero = [n for n in counts if n] or [1]
    text = [
        f'images: {", ".join(parts)}',
        f'training classes: {len(counts)}; largest {data.classes.names[order[0]]} ({max(counts)}), smallest '
        f'{data.classes.names[order[-1]]} ({min(counts)}), ratio {max(counts) / min(nonzero):.1f}',
        'many/medium/few (' + args.shot_split + '): ' + ', '.join(
            f'{name} {len(members)} classes ({sum(counts[c] for c in members)} images)'
            for name, members in data.groups.items()),
        f'model: {args.model}, {sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters, '
        f'{args.img_size} px, on {device} x {world.world_size}',
        f'batch: {args.batch_size} x {world.world_size} processes x {max(args.grad_accum_steps, 1)} accumulation = '
        f'{args.batch_size * world.world_size * max(args.grad_accum_steps, 1)}; {batches} batches, {updates} updates '
        'an epoch',
    ]
    by_source: Dict[str, List[str]] = {}
    for dest, source in settings.sources.items():
        if dest not in BY_DEST or source == 'default':
            continue
        if source != CONTINUED or settings.values[dest] != BY_DEST[dest].default:
            by_source.setdefault(source, []).append(f'{BY_DEST[dest].name}={shown(settings.values[dest])}')
    text += [f'set by {source}: {", ".join(values)}' for source, values in by_source.items()]
    if args.dataset and args.dataset.startswith('sample/'):
        facts = [f'--{BY_DEST[d].name}' for d, s in settings.sources.items() if s == args.dataset and d in BY_DEST]
        text.append(f'{args.dataset} has facts of its own; each flag changes one: {" ".join(facts)}')
    return '\n'.join(text + [f'note: {line}' for line in lines])


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
