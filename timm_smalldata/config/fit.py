"""What goes together once all sources are known: task, loss, head, mixing, and what is said of the class prior."""
from typing import Any, List

from ..errors import UserError, nearest
from ..loss import LOSSES, LossRow
from .flags import BY_DEST, FLAGS, TAUGHT, flag_word, shown
from .settings import CONTINUED, Settings
from .sharpness import rho_schedule
from .tasks import refused_by, task_row, tasks_of

MIXING = ('mixup', 'cutmix', 'cutmix_minmax')


def loss_row(loss: str) -> LossRow:
    """Return the row of a loss."""
    if loss not in LOSSES:
        raise UserError(f'Unknown --loss {loss!r}{nearest(loss, LOSSES)}; known: {", ".join(LOSSES)}.')
    return LOSSES[loss]


def fit_task(settings: Settings) -> None:
    """Refuse flags that do not go with the task; those of a lower layer, or of another stage, give way with a line."""
    task = settings.get('task')
    published = task_row(task).published
    wrong = [dest for dest in refused_by(task) if settings.values.get(dest) is not None]
    others = {flag.dest: tasks_of(flag) for flag in FLAGS if flag.tasks}
    wrong += [dest for dest, tasks in others.items() if task not in tasks and settings.is_set(dest)]
    for dest in wrong:
        source, value = settings.source(dest), settings.values.get(dest)
        if source in (None, CONTINUED) or value == published.get(dest):  # None: gone with another
            continue
        if dest in others and value == BY_DEST[dest].default:  # as args.yaml of a run names it
            continue
        text = f'{flag_word(dest)} {shown(value)} ({source})'
        another_stage = settings.get('recipe') and not str(source).startswith('--')  # --STAGE. flags mean this one
        if not (another_stage or settings.below(dest, 'task')):
            only = f' (only with {", ".join(others[dest])})' if dest in others else ''
            raise UserError(f'{text} does not go with --task {task}{only}: leave it out.')
        settings.notes.append(f'{text} gives way to --task {task}')
        for other in [d for d, s in settings.sources.items() if d == dest or s == f'{flag_word(dest)} {value}']:
            del settings.values[other], settings.sources[other]


def _fit_loss(settings: Settings) -> None:
    """Refuse flags that do not go with the loss; those of a lower layer give way with a line."""
    loss, row = settings.get('loss'), loss_row(settings.get('loss'))
    for flag in FLAGS:
        of_others = bool(flag.losses) and loss not in flag.losses and not flag.ignored
        if not (of_others or (flag.dest in MIXING and row.indices_only)):
            continue
        value, source = settings.get(flag.dest), settings.source(flag.dest)
        if not value and not (flag.own and settings.is_set(flag.dest) and value is not None):  # 0 is timm's "off"
            continue
        if settings.below(flag.dest, 'loss'):
            settings.notes.append(
                f"{flag.word} {shown(value)} ({source}) gives way to --loss {loss} ({settings.source('loss')})")
            settings.values[flag.dest] = flag.default
        elif of_others and settings.is_set(flag.dest):
            raise UserError(
                f'{flag.word} ({source}) only goes with --loss {" and ".join(flag.losses)}, not with {loss}.')


def _fit_head(settings: Settings, row: LossRow) -> None:
    """Refuse a head that does not go with the loss, and flags that do not go with the head."""
    get = settings.get
    if row.needs_cosines and get('head') != 'cosine':
        raise UserError(
            f'--loss {row.name} sets margins between cosines, which a plain head does not give (with scale 30 on its '
            'logits the loss degenerates): add --head cosine.')
    if get('head') == 'cosine':
        for dest, why in (('head_init_bias', 'no bias'), ('head_init_scale', 'class vectors without length')):
            if get(dest) is not None:
                raise UserError(f'{flag_word(dest)} does not go with --head cosine, which has {why}: leave it out.')
    elif get('head_scale') != BY_DEST['head_scale'].default and settings.below('head_scale', 'head'):
        settings.notes.append(
            f"--head-scale {shown(get('head_scale'))} ({settings.source('head_scale')}) gives way to --head linear "
            f"({settings.source('head')})")
        settings.values['head_scale'] = BY_DEST['head_scale'].default
    elif get('head_scale') != BY_DEST['head_scale'].default:
        raise UserError(f"--head-scale {shown(get('head_scale'))} only goes with --head cosine.")


def check_whole(settings: Settings) -> None:
    """Raise a UserError for contradictions that show only when all layers are known; what is lower gives way."""
    get = settings.get
    loss = get('loss')
    row = loss_row(loss)
    _fit_head(settings, row)
    _fit_loss(settings)
    taught = get('task') in TAUGHT and not (get('task') == 'deit-lt' and get('kd_token_distill_type') == 'none')
    if taught and not get('teacher'):
        raise UserError(
            f"--task {get('task')} needs a trained --teacher: the folder of a finished run, or a model of timm.")
    if get('task') == 'kd-token' and get('kd_token_distill_type') == 'none':
        raise UserError('--kd-token-distill-type none goes with --task deit-lt only; kd-token has soft and hard.')
    mixing = mixes(settings)
    if row.indices_only and mixing:
        raise UserError(f'--loss {loss} takes class indices only: it does not go with {" and ".join(mixing)}.')
    threshold = get('bce_target_thresh')
    if loss == 'bce' and threshold == 0 and get('smoothing', 0) > 0:
        raise UserError(
            f"--smoothing {get('smoothing')} with --bce-target-thresh {threshold} would turn every class into a "
            'positive: set --smoothing 0.')
    if loss == 'jsd' and (get('aug_splits') or 0) < 2:
        raise UserError('--loss jsd needs --aug-splits 2 or more.')
    if get('sam_rho_schedule') and settings.is_set('sam_rho') and settings.below('sam_rho_schedule', 'sam_rho'):
        settings.values['sam_rho_schedule'] = None  # of a run that is continued by --force
    if not rho_schedule(settings.namespace()):
        for dest in ('sam_adaptive', 'sam_global'):
            if get(dest):
                raise UserError(f'{flag_word(dest)} goes with --sam-rho or --sam-rho-schedule.')
    if get('device') == 'cpu' and get('amp_dtype') == 'float16' and get('amp'):
        raise UserError('--amp-dtype float16 needs a GPU; on a CPU use bfloat16 (the default).')


def mixes(settings: Any) -> List[str]:
    """Return the flags that mix images (empty: none does)."""
    get = settings.get if hasattr(settings, 'get') else lambda dest: getattr(settings, dest)
    return [flag_word(dest) for dest in MIXING if get(dest)]


def corrects_prior(args: Any) -> List[str]:
    """Return the settings that each take the class prior out: two of them take it out twice."""
    found = []
    if task_row(args.task).corrects_prior:
        found.append(f'--task {args.task}')
    if loss_row(args.loss).corrects_prior and args.loss_tau != 0:
        found.append(f'--loss {args.loss}')
    if args.sampler != 'instance' or args.sampler_power or args.drs_epoch is not None:
        name = 'sampler' if args.sampler != 'instance' else 'sampler_power' if args.sampler_power else 'drs_epoch'
        found.append(f'{flag_word(name)} {shown(getattr(args, name))}')
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
