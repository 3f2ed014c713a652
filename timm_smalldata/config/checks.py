"""Flags that contradict each other, and values that they cannot take."""
from argparse import Namespace
from typing import Any, Dict, List, Optional, Sequence

from ..errors import UserError, nearest
from .flags import BY_DEST, shown
from .presets import AUG_SETTINGS
from .ranges import check_ranges
from .settings import Settings
from .sharpness import rho_schedule
from .tasks import _BCE_ONLY

# Flags that say the same thing: both in one source is an error, otherwise the higher source speaks.
EXCLUSIVE = (
    ('epochs', 'time_budget'), ('fold', 'test_fraction'), ('split_file', 'val_fraction'),
    ('split_file', 'test_fraction'), ('split_file', 'fold'),
    ('data_dir', 'dataset'), ('imbalance_factor', 'imbalance_indices'),
    ('group_column', 'group_regex'), ('sam_rho', 'sam_rho_schedule'))
CROP_MODES = ('rrc', 'src', 'rkrc', 'rkrr', 'none')
_WITHOUT_AREA = ('src', 'none')
_PRIOR_LOSSES = ('balanced-bce', 'balanced-softmax', 'logit-adjusted', 'vector-scaling', 'lade')
_INDICES_ONLY = ('asl', 'jsd', 'lade')


def _excludes(first: Dict[str, Any], second: Dict[str, Any], one: str, other: str) -> bool:
    if first.get(one) is None or second.get(other) is None:
        return False
    named = {'data_dir', 'dataset'}  # a folder is where torch/... and hfds/... lie
    dataset = first['dataset'] if one == 'dataset' else second['dataset'] if other == 'dataset' else ''
    return {one, other} != named or str(dataset).partition('/')[0] not in ('torch', 'hfds')


def check_contradictions(values: Dict[str, Any], source: str) -> None:
    """Raise a UserError for flags of one source that cannot both hold, and for values out of range."""
    def clash(first: str, second: str, why: str) -> None:
        raise UserError(
            f'{_flag(first)} {shown(values[first])} contradicts {_flag(second)} {shown(values[second])} ({source}): '
            f'{why}')

    check_ranges(values, source)
    name = str(values.get('experiment') or '')
    if name in ('.', '..') or '/' in name or '\\' in name:
        raise UserError(f'--experiment {name} ({source}) is a path: it names a folder inside --output, so give the '
                        'path there and a plain name here.')
    aug = values.get('aug')
    if aug is not None:
        if aug not in AUG_SETTINGS:
            raise UserError(f'Unknown --aug {aug!r}{nearest(aug, AUG_SETTINGS)}; known: {", ".join(AUG_SETTINGS)}.')
        for dest, value in AUG_SETTINGS[aug].items():
            if dest in values and values[dest] != value:
                clash('aug', dest, f'the preset means {shown(value)}. Leave out --aug to choose each part by hand.')
    mode = values.get('train_crop_mode')
    if mode is not None:
        if mode not in CROP_MODES:
            raise UserError(
                f'Unknown --train-crop-mode {mode!r}{nearest(mode, CROP_MODES)}; known: {", ".join(CROP_MODES)}.')
        for dest in ('scale', 'ratio'):
            if mode in _WITHOUT_AREA and values.get(dest) is not None:
                clash('train_crop_mode', dest, 'this crop has no random area or aspect ratio.')
    for first, second in EXCLUSIVE:
        if _excludes(values, values, first, second):
            clash(first, second, 'they say the same thing twice; leave one out.')
    if values.get('sync_bn') and values.get('device') == 'cpu':
        clash('sync_bn', 'device', 'synchronised batch norm needs GPUs.')


def _check_whole(settings: Settings) -> None:
    """Contradictions that show only when all layers are known."""
    from ..loss import LOSS_NAMES
    get = settings.get
    loss = get('loss')
    if loss not in LOSS_NAMES:
        raise UserError(f'Unknown --loss {loss!r}{nearest(loss, LOSS_NAMES)}; known: {", ".join(LOSS_NAMES)}.')
    if loss == 'ldam' and get('head') != 'cosine':
        raise UserError(
            '--loss ldam sets margins between cosines, which a plain head does not give (with scale 30 on its logits '
            'the loss degenerates): add --head cosine.')
    if get('head') == 'cosine':
        for dest, why in (('head_init_bias', 'no bias'), ('head_init_scale', 'class vectors without length')):
            if get(dest) is not None:
                raise UserError(f'{_flag(dest)} does not go with --head cosine, which has {why}: leave it out.')
    elif get('head_scale') != BY_DEST['head_scale'].default and settings.below('head_scale', 'head'):
        settings.notes.append(
            f"--head-scale {shown(get('head_scale'))} ({settings.source('head_scale')}) gives way to --head linear "
            f"({settings.source('head')})")
        settings.values['head_scale'] = BY_DEST['head_scale'].default
    elif get('head_scale') != BY_DEST['head_scale'].default:
        raise UserError(f"--head-scale {shown(get('head_scale'))} only goes with --head cosine.")
    for dest in (*_BCE_ONLY, 'loss_tau', 'lade_weight', 'mixup', 'cutmix', 'cutmix_minmax', 'aug_splits'):
        if settings.get(dest) and settings.below(dest, 'loss') and not _goes_with(dest, loss):
            settings.notes.append(
                f'{_flag(dest)} {shown(get(dest))} ({settings.source(dest)}) gives way to --loss {loss} '
                f"({settings.source('loss')})")
            settings.values[dest] = BY_DEST[dest].default
    if get('task') == 'deit-lt' and not get('teacher'):
        raise UserError('--task deit-lt needs a trained --teacher: the folder of a finished run, or a model of timm.')
    mixing = mixes(settings)
    if loss in _INDICES_ONLY and mixing:
        raise UserError(f'--loss {loss} takes class indices only: it does not go with {" and ".join(mixing)}.')
    for dest in _BCE_ONLY:
        if loss != 'bce' and settings.is_set(dest) and get(dest) not in (None, False):
            raise UserError(f'{_flag(dest)} ({settings.source(dest)}) only goes with --loss bce, not with {loss}.')
    if get('loss_tau') is not None and loss not in ('balanced-bce', 'logit-adjusted'):
        raise UserError(f'--loss-tau only goes with balanced-bce and logit-adjusted, not with {loss}.')
    if get('lade_weight') is not None and loss != 'lade':
        raise UserError(f'--lade-weight only goes with --loss lade, not with {loss}.')
    threshold = get('bce_target_thresh')
    if loss == 'bce' and threshold == 0 and get('smoothing', 0) > 0:
        raise UserError(
            f"--smoothing {get('smoothing')} with --bce-target-thresh {threshold} would turn every class into a "
            'positive: set --smoothing 0.')
    if get('aug_splits') and loss != 'jsd':
        raise UserError(f'--aug-splits only goes with --loss jsd, not with {loss}.')
    if loss == 'jsd' and (get('aug_splits') or 0) < 2:
        raise UserError('--loss jsd needs --aug-splits 2 or more.')
    if get('sam_rho_schedule') and settings.is_set('sam_rho') and settings.below('sam_rho_schedule', 'sam_rho'):
        settings.values['sam_rho_schedule'] = None  # of a run that is continued by --force
    if not rho_schedule(settings.namespace()):
        for dest in ('sam_adaptive', 'sam_global'):
            if get(dest):
                raise UserError(f'{_flag(dest)} goes with --sam-rho or --sam-rho-schedule.')
    if get('device') == 'cpu' and get('amp_dtype') == 'float16' and get('amp'):
        raise UserError('--amp-dtype float16 needs a GPU; on a CPU use bfloat16 (the default).')


def _goes_with(dest: str, loss: str) -> bool:
    if dest in _BCE_ONLY:
        return loss == 'bce'
    if dest == 'loss_tau':
        return loss in ('balanced-bce', 'logit-adjusted')
    if dest == 'lade_weight':
        return loss == 'lade'
    return loss == 'jsd' if dest == 'aug_splits' else loss not in _INDICES_ONLY


def mixes(settings: Any) -> List[str]:
    """Return the flags that mix images (empty: none does)."""
    get = settings.get if hasattr(settings, 'get') else lambda dest: getattr(settings, dest)
    return [_flag(dest) for dest in ('mixup', 'cutmix', 'cutmix_minmax') if get(dest)]


def corrects_prior(args: Any) -> List[str]:
    """Return the settings that each take the class prior out: two of them take it out twice."""
    found = []
    if args.task == 'paco':
        found.append('--task paco')
    if args.loss in _PRIOR_LOSSES and args.loss_tau != 0:
        found.append(f'--loss {args.loss}')
    if args.sampler != 'instance' or args.sampler_power or args.drs_epoch is not None:
        name = 'sampler' if args.sampler != 'instance' else 'sampler_power' if args.sampler_power else 'drs_epoch'
        found.append(f'{_flag(name)} {shown(getattr(args, name))}')
    if args.drw_epoch is not None or args.loss.startswith('class-balanced'):
        found.append(f'--drw-epoch {args.drw_epoch}' if args.drw_epoch is not None else f'--loss {args.loss}')
    if args.posthoc_tau:
        found.append(f'--posthoc-tau {shown(args.posthoc_tau)}')
    return found


def prior_lines(args: Any) -> List[str]:
    """Return the line that says so where the class prior is taken out more than once."""
    twice = corrects_prior(args)
    return [f'{" and ".join(twice)} each correct for the uneven classes: together they do it more than once'] * (
        len(twice) > 1)


def _flag(dest: str) -> str:
    return '--' + dest.replace('_', '-')


_DEFERRED = ('drw_epoch', 'drs_epoch')


def check_deferred(args: Namespace) -> None:
    """Raise a UserError for a switch that would never happen."""
    for dest in _DEFERRED:
        epoch = getattr(args, dest)
        if epoch is not None and epoch >= args.epochs:
            raise UserError(
                f"--{dest.replace('_', '-')} {epoch} lies beyond the run, whose last epoch is {args.epochs - 1}: "
                'choose an earlier one, or more --epochs.')
    last = rho_schedule(args).last_change
    if last >= args.epochs:
        raise UserError(
            f'--sam-rho-schedule {args.sam_rho_schedule!r}: epoch {last} lies beyond the run, whose last epoch is '
            f'{args.epochs - 1}: choose an earlier one, or more --epochs.')


_POSTHOC = ('posthoc_tau', 'tau_norm', 'temperature')


def wants_posthoc(args: Namespace) -> bool:
    """Return whether any of the tools is asked for."""
    return any(getattr(args, dest) not in (None, False) for dest in _POSTHOC)


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
