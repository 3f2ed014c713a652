"""The lines that say what will be trained on what, and what changes in the midst of a run."""
import shlex
from argparse import Namespace
from typing import Any, Dict, List

from timm.layers import PatchEmbed

from ..build.views import without_batched_form
from ..config.auto import MEASURED
from ..config.flags import BY_DEST, FLAGS, given_words, shown
from ..config.length import ema_note
from ..config.settings import CONTINUED
from ..config.sharpness import rho_schedule
from ..engine.probe import ProbeJudge
from ..report.table import probe_words
from ..utils.command import command
from .job import Job, Parts
from .mirrored import mirror_share

FEW_IMAGES = 10  # as the verb doctor has it


def describe(job: Job, parts: Parts) -> str:
    """Return what will be trained on what, and what set every setting, as lines for the screen."""
    args, settings = job.args, job.settings
    processes, batches = job.world.world_size, len(parts.loader)
    model = parts.task.get_eval_model()
    assert model is not None
    lines = [
        *_describe_data(job),
        f'model: {args.model}, {sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters, '
        f'{args.img_size} px, on {job.device} x {processes}',
        _describe_batch(args, processes, batches, parts.updates),
        _describe_views(job, parts),
        _describe_augmentation(job, parts),
    ]
    by_source: Dict[str, List[str]] = {}
    for dest, source in settings.sources.items():
        if dest not in BY_DEST or source == 'default':
            continue
        if dest == 'epochs' and source.startswith(MEASURED):  # said where it was measured, and in the line on time
            continue
        if source != CONTINUED or settings.values[dest] != BY_DEST[dest].default:
            by_source.setdefault(source, []).append(f'{BY_DEST[dest].name}={shown(settings.values[dest])}')
    lines += [f'set by {source}: {", ".join(values)}' for source, values in by_source.items()]
    if args.dataset and args.dataset.startswith('sample/'):
        facts = [f'--{BY_DEST[d].name}' for d, s in settings.sources.items() if s == args.dataset and d in BY_DEST]
        lines.append(f'{args.dataset} has facts of its own; each flag changes one: {" ".join(facts)}')
    notes = [*job.notes, *parts.task.notes(), *_probe_notes(args, parts), *_cut_notes(args, parts)]
    if args.model_ema:
        notes.append(ema_note(args, parts.updates * args.epochs))
    return '\n'.join(lines + [f'note: {line}' for line in notes])


def _describe_batch(args: Namespace, processes: int, batches: int, updates: int) -> str:
    accumulated = max(args.grad_accum_steps, 1)
    if processes * accumulated == 1:
        return f'batch: {args.batch_size}; {updates} updates an epoch'
    return (f'batch: {args.batch_size} x {processes} processes x {accumulated} accumulation = '
            f'{args.batch_size * processes * accumulated}; {batches} batches, {updates} updates an epoch')


def _describe_views(job: Job, parts: Parts) -> str:
    crop, share = parts.loader.specs[0].crop, mirror_share(parts)
    area = f' of {crop.scale[0]:g} to {crop.scale[1]:g} of the area' if crop.mode == 'rrc' and crop.scale else ''
    mirrored = f'{100 * share:g} %, --hflip 0 turns them off' if share else 'none, --hflip 0.5 turns them on'
    return f'crops: {crop.mode}{area} (--train-crop-mode); mirror images: {mirrored}'


def _describe_augmentation(job: Job, parts: Parts) -> str:
    if job.args.augment_on == 'device':
        return f'views: made in batches on {job.device} (--augment-on device)'
    lacking = without_batched_form(parts.loader.specs)
    why = f'; {lacking} has no batched form' if lacking else ''
    return f'views: made image by image (--augment-on image{why})'


def _describe_data(job: Job) -> List[str]:
    data, counts = job.data, job.data.classes.counts
    parts = [f'train {len(data.train)}'] + [
        f'{role} {len(source)}' for role, source in (('val', data.val), ('test', data.test)) if source is not None]
    order = sorted(range(len(counts)), key=lambda c: -counts[c])
    nonzero = [n for n in counts if n] or [1]
    return [
        f'images: {", ".join(parts)}; {data.stored} (--cache {data.cache})',
        f'training classes: {len(counts)}; largest {data.classes.names[order[0]]} ({max(counts)}), smallest '
        f'{data.classes.names[order[-1]]} ({min(counts)}), ratio {max(counts) / min(nonzero):.1f}',
        f'many/medium/few (--shot-split {job.args.shot_split}): ' + ', '.join(
            f'{name} {len(members)} classes ({sum(counts[c] for c in members)} images)'
            for name, members in data.groups.items()),
        _doctor(job),
    ]


def _doctor(job: Job) -> str:
    """Return what reading the files has shown of what the verb doctor looks for, and how to look for the rest."""
    data = job.data
    few = sum(0 < n < FEW_IMAGES for n in data.classes.counts)
    found = [f'{what}: {number}' for number, what in (
        (data.duplicates, 'images in two splits'), (data.two_labels, 'under two labels'), (len(data.bad), 'broken'),
        (few, f'classes with fewer than {FEW_IMAGES} training images')) if number]
    words = {flag.dest: value for flag in FLAGS if flag.of_files or flag.dest in ('data_dir', 'dataset')
             if (value := getattr(job.args, flag.dest)) != flag.default}
    return (f'doctor: {", ".join(found) or "no image twice across splits or labels, none broken"}; the rest: '
            + shlex.join([*command('doctor'), *given_words(words)]))


def _cut_notes(args: Namespace, parts: Parts) -> List[str]:
    """Return a line where the patches of a vision transformer leave out the last pixels of an image."""
    embed: Any = getattr(parts.task.get_eval_model(), 'patch_embed', None)
    if not isinstance(embed, PatchEmbed) or getattr(embed, 'dynamic_img_pad', False):
        return []
    patch = max(embed.patch_size)
    sizes = sorted({parts.eval_spec.size, *(view.size for view in parts.task.views()), *(args.train_img_sizes or [])})
    return [f'patches of {patch} px leave the last {size % patch} px of images of {size} px out: '
            f'{size - size % patch} or {size + patch - size % patch} px have none left over (--img-size)'
            for size in sizes if size % patch]


def _probe_notes(args: Namespace, parts: Parts) -> List[str]:
    """Return how features are judged and which weights are exported; nothing where class scores are judged."""
    if not isinstance(parts.judge, ProbeJudge):
        return []
    probe = parts.judge.probe
    lines = [f'features are judged by {probe_words(probe.describe())} among the training images']
    if parts.metric is not None:
        every = args.probe_interval
        often = 'ten times in the run' if args.time_budget else 'every epoch' if every == 1 else (
            f'every {every} epochs')
        lines[0] += f', on val {often} (--probe-interval)'
        lines.append(f'exported are the weights with the best {parts.metric} on val; --select last takes the last ones'
                     if args.select == 'best' else 'exported are the last weights (--select last)')
    if probe.k < args.knn_k and args.probe == 'knn':
        lines.append(f'--knn-k {args.knn_k} is more than the {probe.k} training images: all of them vote')
    return lines


def describe_switches(args: Namespace, epoch: int) -> List[str]:
    """Return a line for each setting that changes at the beginning of an epoch."""
    lines = []
    if epoch == args.drw_epoch:
        lines.append(f'epoch {epoch + 1}: class weights begin (--drw-epoch {epoch}), beta {shown(args.drw_beta)}')
    if epoch == args.drs_epoch:
        which = 'class-balanced' if args.sampler == 'instance' else args.sampler
        if args.sampler_power is not None:
            which = f'images(class) ** -{shown(args.sampler_power)}'
        lines.append(f'epoch {epoch + 1}: re-sampling begins (--drs-epoch {epoch}), {which}')
    rho = rho_schedule(args).steps
    if epoch in rho and args.sam_rho_schedule:
        lines.append(f'epoch {epoch + 1}: rho {shown(rho[epoch])} (--sam-rho-schedule)')
    return lines
