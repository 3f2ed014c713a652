"""The rule for unknown data: model, image size, batch, epochs and learning rate from the images and the device.

The whole rule is this file and docs/data.md; every value it sets is printed, and any flag takes its place.
"""
import re
from argparse import Namespace
from typing import Any, Dict, List

from ..errors import UserError
from .settings import Settings

_SIZES = (32, 48, 64, 96, 128, 160, 192, 224)


def image_size(median_side: int, device: str) -> int:
    """Return the largest usual size that the images fill: at most 64 px on a CPU, 224 px on a GPU.

    >>> image_size(500, 'cpu'), image_size(500, 'cuda'), image_size(100, 'cuda'), image_size(28, 'cpu')
    (64, 224, 96, 32)
    """
    most = 64 if device == 'cpu' else 224
    return max([size for size in _SIZES if size <= min(median_side, most)] or [_SIZES[0]])


def choose(num_train: int, device: str, settings: Settings) -> Dict[str, Any]:
    """Return values for the flags that nobody set, from the number of training images, the image size and the device.

    A ViT-Ti (ViT-S on a GPU from 5,000 images on; distilled ones for deit-lt) with about 64 patches (196 at 224 px); a
    length that keeps the images seen in training near 50,000 on a CPU and a million on a GPU; a batch that gives an
    epoch at least eight steps.
    """
    size = settings.get('img_size')
    chosen: Dict[str, Any] = {}
    if settings.get('model') is None:
        small = device != 'cpu' and num_train >= 5000
        kind = 'deit_{}_distilled_patch16_224' if settings.get('task') == 'deit-lt' else 'vit_{}_patch16_224'
        chosen['model'] = kind.format('small' if small else 'tiny')
        if not settings.is_set('model_kwargs'):
            chosen['model_kwargs'] = dict(patch_size=16 if size >= 160 else max(4, size // 8))
        chosen['drop_path'] = 0.1
    seen, least, most = (50_000, 10, 300) if device == 'cpu' else (1_000_000, 50, 800)
    chosen['epochs'] = max(least, min(most, round(seen / max(num_train, 1))))
    chosen['batch_size'] = _power_of_two(num_train / 8, 8, 128 if device == 'cpu' else 512)
    if settings.get('train_crop_mode') == 'rrc':
        published = settings.get('aug') == 'three-augment'  # its crop is part of it
        chosen['scale'] = [0.08, 1.0] if size >= 128 or published else [0.3, 1.0]
    chosen['workers'] = 0 if device == 'cpu' else 4
    chosen['amp'] = device == 'cuda'
    if settings.get('task') == 'dino':
        chosen['dino_out_dim'] = prototypes(num_train)
    return chosen


def prototypes(num_train: int) -> int:
    """Return the outputs of DINO's head: as many as images, as a power of two, from 4,096 to the paper's 65,536.

    With 1.28 M images 4,096 to 65,536 were equally good and 1,024 was worse (arXiv:2104.14294, appendix); more
    outputs than images only cost memory.

    >>> prototypes(2040), prototypes(50_000), prototypes(1_281_167)
    (4096, 32768, 65536)
    """
    return _power_of_two(num_train, 4096, 65536)


def _power_of_two(value: float, least: int, most: int) -> int:
    power = least
    while power * 2 <= min(value, most):
        power *= 2
    return power


def fit_batch(batch: int, num_train: int, world_size: int, lines: List[str]) -> int:
    """Return a batch size per process that the data can fill at least once; even where it had to shrink."""
    most = num_train // world_size
    if batch <= most:
        return batch
    if most < 1:
        raise UserError(f'{num_train} training images cannot feed {world_size} processes.')
    shrunk = max(most // 2 * 2, 1)
    lines.append(f'--batch-size {batch} is more than the {num_train} training images can fill: {shrunk} is used')
    return shrunk


def learning_rate(base: float, base_size: int, scale: str, opt: str, global_batch: int) -> float:
    """Return timm's rule: `base * (global_batch / base_size)`, or its square root for adaptive optimizers.

    >>> learning_rate(1e-3, 256, '', 'adamw', 64)
    0.0005
    """
    scale = scale or ('sqrt' if any(word in opt.lower() for word in ('ada', 'lamb')) else 'linear')
    if scale not in ('linear', 'sqrt'):
        raise UserError(f'--lr-base-scale must be linear or sqrt, not {scale!r}.')
    ratio = global_batch / base_size
    return base * (ratio ** 0.5 if scale == 'sqrt' else ratio)


def warmup(epochs: int, task: str = 'classification') -> int:
    """Return a tenth of the run, at most 5 epochs.

    Masked autoencoders: 40 of 800 (arXiv:2111.06377); DINO: a tenth, at most 10 (arXiv:2104.14294).

    >>> warmup(300), warmup(800, 'mae'), warmup(300, 'dino')
    (5, 40, 10)
    """
    return round(epochs / 20) if task == 'mae' else min(10 if task == 'dino' else 5, epochs // 10)


def probe_interval(epochs: int) -> int:
    """Return the epochs between two looks at the features of a task without a classifier: at most ten, and the end.

    >>> probe_interval(800), probe_interval(15), probe_interval(3)
    (80, 2, 1)
    """
    return max(1, -(-epochs // 10))


def eval_interval(args: Namespace) -> int:
    """Return the epochs between two evaluations of a run, whose `probe_interval` is None for a classifier."""
    return args.val_interval if args.probe_interval is None else args.probe_interval


def seconds(text: str) -> float:
    """Parse a time such as 45s, 30m, 1.5h.

    >>> seconds('30m')
    1800.0
    """
    match = re.fullmatch(r'\s*([0-9]*\.?[0-9]+)\s*(s|m|h|d)?\s*', str(text))
    if not match or float(match[1]) <= 0:
        raise UserError(f'--time-budget {text!r} is not a time: write 45s, 30m or 2h.')
    return float(match[1]) * {'s': 1, 'm': 60, 'h': 3600, 'd': 86400, None: 1}[match[2]]
