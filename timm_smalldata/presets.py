"""What a loss, an augmentation and a sample bring along, and which flags contradict each other."""
from typing import Any, Dict, List, Tuple

from .args import Settings
from .errors import UserError, nearest
from .flags import BY_DEST, shown
from .ranges import check_ranges

# Values that the published method uses; they fill flags that nobody set.
LOSS_SETTINGS: Dict[str, Dict[str, Any]] = {
    'ce': dict(smoothing=0.1),  # timm
    'bce': dict(smoothing=0.0, bce_target_thresh=0.0),  # DeiT III (arXiv:2204.07118)
    'asl': dict(smoothing=0.1),  # timm
    'poly': dict(smoothing=0.1),  # timm
    'jsd': dict(smoothing=0.1, aug_splits=3),  # AugMix, timm
    'balanced-bce': dict(smoothing=0.0, loss_tau=1.0),  # LiVT (arXiv:2212.02015)
    'balanced-softmax': dict(smoothing=0.0),  # arXiv:2007.10740
    'logit-adjusted': dict(smoothing=0.0, loss_tau=1.0),  # arXiv:2007.07314
    'focal': dict(smoothing=0.0),  # arXiv:1708.02002
    'class-balanced-ce': dict(smoothing=0.0),  # arXiv:1901.05555
    'class-balanced-focal': dict(smoothing=0.0),
    'label-aware-smoothing': dict(smoothing=0.0),  # arXiv:2104.00466; its own smoothing is inside
    'vector-scaling': dict(smoothing=0.0),  # arXiv:2103.01550
    'ldam': dict(smoothing=0.0),  # arXiv:1906.07413
    'lade': dict(smoothing=0.0, lade_weight=0.1),  # arXiv:2012.00321
}
AUG_SETTINGS: Dict[str, Dict[str, Any]] = {
    'three-augment': dict(aa='3a', color_jitter=[0.3], train_interpolation='bicubic', reprob=0.0),  # DeiT III
    'rand-augment': dict(  # DeiT (arXiv:2012.12877)
        aa='rand-m9-mstd0.5-inc1', color_jitter=[0.3], train_interpolation='bicubic', reprob=0.25),
    'none': dict(
        aa=None, color_jitter=None, train_interpolation='bicubic', reprob=0.0, hflip=0.0, train_crop_mode='none'),
}
_IDMM: Dict[str, Any] = dict(  # arXiv:2201.10728, DeiT-Ti; weight decay on every parameter, no floor of the rate
    img_size=112, epochs=800, batch_size=256, lr_base=5e-4, lr_base_size=256, weight_decay=1e-3,
    opt_kwargs=dict(filter_bias_and_bn=False), warmup_epochs=2, warmup_lr=0.0, min_lr=0.0, drop_path=0.1,
    train_crop_mode='rrc', scale=[0.14, 1.0], train_interpolation='bilinear', color_jitter=[0.8, 0.8, 0.8, 0.2],
    color_jitter_prob=0.8, grayscale_prob=0.2, gaussian_blur_prob=0.5, reprob=0.0)
# What a task was published with. It fills flags that no flag, file, recipe or sample has set.
TASK_SETTINGS: Dict[str, Dict[str, Any]] = {
    'dino': dict(  # arXiv:2104.14294, ViT-S/16; outputs and warm-up are in rules.py, blur and solarising in the task
        weight_decay=0.04, lr_base=5e-4, lr_base_size=256, lr_base_scale='linear', warmup_lr=0.0, min_lr=1e-6,
        clip_grad=3.0, drop_path=0.1, train_crop_mode='rrc', scale=[0.4, 1.0], train_interpolation='bicubic',
        color_jitter=[0.4, 0.4, 0.2, 0.1], color_jitter_prob=0.8, grayscale_prob=0.2, reprob=0.0),
    'idmm': _IDMM,
    'mae': dict(  # arXiv:2111.06377, appendix A.1; the warm-up is in rules.py
        opt_betas=[0.9, 0.95], weight_decay=0.05, lr_base=1.5e-4, lr_base_size=256, lr_base_scale='linear',
        warmup_lr=0.0, min_lr=0.0, drop_path=0.0, train_crop_mode='rrc', scale=[0.2, 1.0],
        train_interpolation='bicubic', aa=None, color_jitter=None, reprob=0.0),
    'deit-lt': dict(  # arXiv:2404.02900, CIFAR; length, batch and --drw-epoch are left to the data and the user
        lr_base=5e-4, lr_base_size=512, lr_base_scale='linear', weight_decay=0.05, warmup_lr=1e-6, min_lr=1e-5,
        drop_path=0.1, mixup=0.8, cutmix=1.0, aug_repeats=3, train_crop_mode='rrc',
        **AUG_SETTINGS['rand-augment']),
    'paco': dict(  # arXiv:2107.12028, CIFAR; the cosine schedule is that of its larger data sets
        opt='sgd', momentum=0.9, lr_base=0.05, lr_base_size=128, lr_base_scale='linear', weight_decay=5e-4,
        opt_kwargs=dict(filter_bias_and_bn=False), epochs=400, batch_size=128, warmup_lr=0.0, min_lr=0.0,
        train_crop_mode='rrc', **AUG_SETTINGS['rand-augment']),
    'simclr': {**_IDMM, 'batch_size': 512},  # as a baseline there
    'supcon': {**_IDMM, 'batch_size': 512},
}
PLAIN_AUG: Dict[str, Any] = dict(color_jitter=[0.4], train_interpolation='bicubic', reprob=0.0)
CONTINUED = 'the run that is continued'  # a source: what an earlier start of the run has settled
CROP_MODES = ('rrc', 'src', 'rkrc', 'rkrr', 'none')
_WITHOUT_AREA = ('src', 'none')

# Flags that say the same thing: both in one source is an error, otherwise the higher source speaks.
EXCLUSIVE = (
    ('epochs', 'time_budget'), ('fold', 'test_fraction'), ('split_file', 'val_fraction'),
    ('split_file', 'test_fraction'), ('split_file', 'fold'),
    ('data_dir', 'dataset'), ('imbalance_factor', 'imbalance_indices'),
    ('group_column', 'group_regex'), ('sam_rho', 'sam_rho_schedule'))
_PRIOR_LOSSES = ('balanced-bce', 'balanced-softmax', 'logit-adjusted', 'vector-scaling', 'lade')
_INDICES_ONLY = ('asl', 'jsd', 'lade')
_BCE_ONLY = ('bce_sum', 'bce_target_thresh', 'bce_pos_weight', 'loss_class_weight', 'loss_pos_weight')

# Flags that have no meaning for a task; the value that TASK_SETTINGS gives is no contradiction.
_OF_LOSSES = (
    'loss', 'loss_kwargs', 'loss_tau', 'smoothing', 'lade_weight', 'drw_epoch', *_BCE_ONLY, 'mixup', 'cutmix',
    'cutmix_minmax', 'aug_splits')
_OF_CLASSIFIERS = (
    *_OF_LOSSES, 'head', 'head_scale', 'head_init_scale', 'head_init_bias', 'reset_head', 'freeze_backbone',
    'layer_decay', 'posthoc_tau', 'tau_norm', 'temperature', 'val_interval')
_OF_ONE_VIEW = ('aug', 'aa', 'train_crop_mode')
NOT_WITH_TASK: Dict[str, Tuple[str, ...]] = {
    'dino': (*_OF_CLASSIFIERS, *_OF_ONE_VIEW, 'gaussian_blur_prob', 'train_img_sizes', 'model_ema',
             'sam_rho', 'sam_rho_schedule'),  # a second pass would move the centre again
    'idmm': (*_OF_CLASSIFIERS, *_OF_ONE_VIEW),
    'deit-lt': ('aug_splits', 'layer_decay', 'freeze_backbone'),
    'mae': _OF_CLASSIFIERS,
    'paco': (*_OF_LOSSES, 'layer_decay', 'freeze_backbone'),
    'simclr': (*_OF_CLASSIFIERS, *_OF_ONE_VIEW, 'aug_repeats'),  # an image beside itself would be a negative
    'supcon': (*_OF_CLASSIFIERS, *_OF_ONE_VIEW),
}
_UNSUPERVISED = ('dino', 'idmm', 'mae', 'simclr', 'supcon')
# Flags that have a meaning for these tasks only.
ONLY_WITH_TASK: Dict[str, Tuple[str, ...]] = {
    **dict.fromkeys((
        'dino_out_dim', 'dino_local_crops', 'dino_local_size', 'dino_local_scale', 'dino_student_temp',
        'dino_teacher_temp', 'dino_warmup_teacher_temp', 'dino_teacher_temp_epochs', 'dino_momentum',
        'dino_weight_decay_end', 'dino_freeze_last_layer', 'dino_norm_last_layer', 'dino_centering',
        'dino_sharpening'), ('dino',)),
    'idmm_multicrop': ('idmm', 'simclr', 'supcon'),
    'idmm_cutmix': ('idmm',),
    'idmm_smoothing': ('idmm',),
    'contrastive_temperature': ('simclr', 'supcon'),
    **dict.fromkeys(('probe', 'probe_interval', 'knn_k', 'knn_temperature', 'on_collapse'), _UNSUPERVISED),
    **dict.fromkeys((
        'teacher', 'teacher_path', 'teacher_view', 'teacher_renorm', 'distillation_type', 'distillation_alpha',
        'mixup_off_drw', 'fusion'), ('deit-lt',)),
    **dict.fromkeys(('paco_alpha', 'paco_temperature', 'paco_queue', 'paco_dim', 'paco_momentum'), ('paco',)),
    **dict.fromkeys((
        'mae_mask_ratio', 'mae_norm_pix', 'mae_pos_embed', 'mae_decoder_dim', 'mae_decoder_depth',
        'mae_decoder_heads'), ('mae',)),
}


def add_layer(settings: Settings, values: Dict[str, Any], source: str) -> None:
    """Add one source of flags (command line, file, recipe, sample) with what its loss and augmentation bring along.

    A higher layer silences a lower one, with a line; a contradiction inside one layer is an error.
    """
    values = aliases(values, source)
    check_contradictions(values, source)
    for pair in EXCLUSIVE:
        for higher, lower in (pair, pair[::-1]):
            if _excludes(settings.values, values, higher, lower):
                settings.notes.append(
                    f'{_flag(lower)} {shown(values.pop(lower))} ({source}) gives way to {_flag(higher)} '
                    f'{shown(settings.values[higher])} ({settings.sources[higher]})')
    for dest in values:
        if settings.is_set(dest) and settings.values[dest] != values[dest]:
            settings.notes.append(
                f'{_flag(dest)} {shown(values[dest])} ({source}) gives way to {shown(settings.values[dest])} '
                f'({settings.sources[dest]})')
    if 'train_crop_mode' in values and values['train_crop_mode'] != 'rrc':
        given = [dest for dest in ('scale', 'ratio') if settings.is_set(dest)]
        if given and not settings.is_set('train_crop_mode'):
            settings.notes.append(
                f"--train-crop-mode {values['train_crop_mode']} ({source}) gives way to {_flag(given[0])} "
                f'({settings.sources[given[0]]})')
            settings.layer(dict(train_crop_mode='rrc'), f'{_flag(given[0])}')
    settings.layer(values, source)
    if values.get('aug') is not None and settings.source('aug') == source:
        settings.layer(AUG_SETTINGS[values['aug']], f"--aug {values['aug']}")
    if settings.source('loss') == source:
        settings.layer(LOSS_SETTINGS.get(values['loss'], {}), f"--loss {values['loss']}")


def _excludes(first: Dict[str, Any], second: Dict[str, Any], one: str, other: str) -> bool:
    if first.get(one) is None or second.get(other) is None:
        return False
    named = {'data_dir', 'dataset'}  # a folder is where torch/... and hfds/... lie
    dataset = first['dataset'] if one == 'dataset' else second['dataset'] if other == 'dataset' else ''
    return {one, other} != named or str(dataset).partition('/')[0] not in ('torch', 'hfds')


def finish(settings: Settings) -> None:
    """Fill in what no layer has set and does not depend on the data; check the whole."""
    _fit_task(settings)
    task, loss = settings.get('task'), settings.get('loss')
    if 'loss' not in NOT_WITH_TASK.get(task, ()):
        settings.layer(LOSS_SETTINGS.get(loss, {}), f'--loss {loss}')
    without = ['epochs'] if settings.is_set('time_budget') else []
    without += ['scale'] if settings.get('train_crop_mode') in _WITHOUT_AREA else []
    settings.layer(
        {dest: value for dest, value in TASK_SETTINGS.get(task, {}).items() if dest not in without}, f'--task {task}')
    settings.layer(PLAIN_AUG, 'default')
    settings.layer(dict(train_crop_mode='rrc', hflip=0.5, shot_split='counts:100,20'), 'default')
    _check_whole(settings)


def _fit_task(settings: Settings) -> None:
    """Refuse flags that do not go with the task; those of a lower layer, or of another stage, give way with a line."""
    task = settings.get('task')
    wrong = [dest for dest in NOT_WITH_TASK.get(task, ()) if settings.values.get(dest) is not None]
    wrong += [dest for dest, tasks in ONLY_WITH_TASK.items() if task not in tasks and settings.is_set(dest)]
    for dest in wrong:
        source, value = settings.source(dest), settings.values.get(dest)
        if source in (None, CONTINUED) or value == TASK_SETTINGS.get(task, {}).get(dest):  # None: gone with another
            continue
        if dest in ONLY_WITH_TASK and value == BY_DEST[dest].default:  # as args.yaml of a run names it
            continue
        text = f'{_flag(dest)} {shown(value)} ({source})'
        another_stage = settings.get('recipe') and not str(source).startswith('--')  # --STAGE. flags mean this one
        if not (another_stage or settings.below(dest, 'task')):
            only = f' (only with {", ".join(ONLY_WITH_TASK[dest])})' if dest in ONLY_WITH_TASK else ''
            raise UserError(f'{text} does not go with --task {task}{only}: leave it out.')
        settings.notes.append(f'{text} gives way to --task {task}')
        for other in [d for d, s in settings.sources.items() if d == dest or s == f'{_flag(dest)} {value}']:
            del settings.values[other], settings.sources[other]


def aliases(values: Dict[str, Any], source: str) -> Dict[str, Any]:
    """Return the values with timm's second spellings (`--bce-loss`, `--jsd-loss`, `--no-aug`) under one name."""
    values = dict(values)
    for alias, dest, value in (
            ('bce_loss', 'loss', 'bce'), ('jsd_loss', 'loss', 'jsd'), ('no_aug', 'aug', 'none')):
        if values.pop(alias, False):
            if values.get(dest, value) != value:
                raise UserError(f'{_flag(alias)} contradicts {_flag(dest)} {values[dest]} ({source}): leave one out.')
            values[dest] = value
    return values


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
    from .loss import LOSS_NAMES
    from .sharpness import rho_steps
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
    if not rho_steps(settings.namespace()):
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
