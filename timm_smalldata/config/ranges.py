"""What values a flag can take beyond its type: checked once, before anything is opened or trained."""
import math
from typing import Any, Dict, List, Optional, Tuple

from ..errors import UserError

Range = Tuple[Optional[float], Optional[float]]  # least and greatest value, both included

_COUNT: Range = (1, None)
_FROM_ZERO: Range = (0, None)
_SHARE: Range = (0, 1)
_BELOW_ONE: Range = (0, 0.999999)
RANGES: Dict[str, Range] = {
    **dict.fromkeys((
        'epochs', 'batch_size', 'validation_batch_size', 'grad_accum_steps', 'img_size', 'val_interval', 'log_interval',
        'num_classes', 'imbalance_factor', 'lr_base_size', 'stop_epoch', 'save_epochs', 'train_img_sizes',
        'train_batch_sizes', 'train_batches_per_epoch', 'recount', 'decay_epochs', 'lr_cycle_limit',
        'mae_decoder_dim', 'mae_decoder_depth', 'mae_decoder_heads', 'paco_dim', 'dino_local_size', 'knn_k'), _COUNT),
    **dict.fromkeys((
        'workers', 'warmup_epochs', 'cooldown_epochs', 'aug_repeats', 'aug_splits', 'mixup', 'cutmix',
        'mixup_off_epoch', 'lr', 'lr_base', 'min_lr', 'warmup_lr', 'weight_decay', 'opt_eps', 'clip_grad', 'loss_tau',
        'color_jitter', 'train_size_probs', 'bn_eps', 'bce_pos_weight', 'lade_weight', 'drw_epoch', 'drs_epoch',
        'sampler_power', 'posthoc_tau', 'tau_norm', 'sam_rho', 'paco_alpha', 'paco_queue', 'dino_local_crops',
        'dino_teacher_temp_epochs', 'dino_weight_decay_end', 'dino_freeze_last_layer', 'probe_interval'), _FROM_ZERO),
    **dict.fromkeys((
        'hflip', 'vflip', 'color_jitter_prob', 'grayscale_prob', 'gaussian_blur_prob', 'reprob', 'mixup_prob',
        'mixup_switch_prob', 'model_ema_decay', 'layer_decay', 'layer_decay_min_scale', 'train_size_random_mix',
        'cutmix_minmax', 'bce_target_thresh', 'bn_momentum', 'momentum', 'distillation_alpha', 'paco_momentum',
        'dino_momentum'), _SHARE),
    **dict.fromkeys((
        'val_fraction', 'test_fraction', 'smoothing', 'idmm_smoothing', 'drop', 'drop_path', 'drw_beta',
        'opt_betas'), _BELOW_ONE),
    **dict.fromkeys(('split_seed', 'imbalance_seed'), (0, 2 ** 32 - 1)),
    'seed': (0, 2 ** 63 - 1),
    'crop_pct': (0.01, 1),
    'head_scale': (1e-3, None),
    **dict.fromkeys((
        'contrastive_temperature', 'paco_temperature', 'dino_student_temp', 'dino_teacher_temp',
        'dino_warmup_teacher_temp', 'knn_temperature'), (1e-6, None)),
    'dino_local_scale': (1e-6, 1),
    'dino_out_dim': (2, None),
    'mae_mask_ratio': (0.01, 0.999999),
    'std': (1e-6, None),
    'scale': (1e-6, None),
    'ratio': (1e-6, None),
}
LENGTHS: Dict[str, Tuple[int, ...]] = dict(
    mean=(1, 3), std=(1, 3), color_jitter=(1, 3, 4), cutmix_minmax=(2,), opt_betas=(2, 3))
ORDERED = ('scale', 'ratio', 'cutmix_minmax', 'dino_local_scale')


def check_ranges(given: Dict[str, Any], where: str) -> None:
    """Raise a UserError for the first value of one source of flags that its flag cannot take."""
    for dest, value in given.items():
        if value is None:
            continue
        flag = '--' + dest.replace('_', '-')
        values: List[Any] = value if isinstance(value, list) else [value]
        if dest in LENGTHS and len(values) not in LENGTHS[dest]:
            raise UserError(
                f'{flag} ({where}) takes {" or ".join(map(str, LENGTHS[dest]))} values, not {len(values)}.')
        low, high = RANGES.get(dest, (None, None))
        for number in values:
            if isinstance(number, float) and not math.isfinite(number):
                raise UserError(f'{flag} {number} ({where}) is not a finite number.')
            if dest in RANGES and not ((low is None or number >= low) and (high is None or number <= high)):
                raise UserError(f'{flag} {number:g} ({where}) is out of range: {_words(low, high)}.')
        if dest in ORDERED and values != sorted(values):
            raise UserError(f'{flag} {" ".join(map(str, values))} ({where}): the smaller number comes first.')


def _words(low: Optional[float], high: Optional[float]) -> str:
    if high is None:
        return f'it must be at least {low:g}'
    return f'it must lie between {low:g} and ' + ('1, 1 excluded' if high < 1 else f'{high:g}')
