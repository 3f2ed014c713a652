"""What follows from the length of a run: how strongly images are changed, warm-up, and how often is evaluated."""
import re
from argparse import Namespace
from typing import Any, Dict

from ..errors import UserError
from ..task import task_class
from .auto import is_open, is_ruled
from .settings import Settings

MEDIUM, LONG = 60, 200  # epochs from which on images are changed more, and as published


def follows(epochs: int, settings: Settings) -> Dict[str, Any]:
    """Return what follows from the number of epochs, for the flags that nobody set."""
    task = settings.get('task')
    values: Dict[str, Any] = dict(warmup_epochs=warmup(epochs, task))
    if task_class(task).supervised:
        values['val_interval'] = -(-epochs // 20) if is_ruled(settings) else 1
    else:
        values['probe_interval'] = probe_interval(epochs)
    if is_ruled(settings):
        values.update(augmentation(epochs, settings))
        if settings.get('loss') == 'balanced-bce' and epochs >= MEDIUM:
            values['loss_tau'] = 1.0
    return {dest: value for dest, value in values.items() if is_open(settings, dest)}


def augmentation(epochs: int, settings: Settings) -> Dict[str, Any]:
    """Return how strongly images are changed in a run of so many epochs: mildly in a short one, as published in a long.

    Args:
        epochs: How often an image is seen.
        settings: `--aug` and the image size.
    """
    aug, size = settings.get('aug'), settings.get('img_size')
    if aug == 'none':
        return {}
    long = epochs >= LONG
    area_given = not (is_open(settings, 'scale') and is_open(settings, 'ratio'))
    mode = 'rrc' if long or area_given else 'src'
    if not is_open(settings, 'train_crop_mode'):
        mode = settings.get('train_crop_mode')
    values: Dict[str, Any] = dict(train_crop_mode=mode)
    if mode == 'rrc':
        values['scale'] = [0.08, 1.0] if size >= 128 or aug else [0.3, 1.0]
    if aug:
        values['aa_prob'] = 1.0 if long else 0.3 if epochs >= MEDIUM else 0.1
    if aug == 'three-augment':
        values['color_jitter'] = [0.3 if long else 0.2 if epochs >= MEDIUM else 0.1]
    elif not aug:
        values['color_jitter'] = [0.4 if long else 0.2]
    return values


def warmup(epochs: int, task: str = 'classification') -> int:
    """Return a tenth of the run, at most 5 epochs.

    Masked autoencoders: 40 of 800 (arXiv:2111.06377); DINO: a tenth, at most 10 (arXiv:2104.14294).

    >>> warmup(300), warmup(800, 'mae'), warmup(300, 'dino')
    (5, 40, 10)
    """
    return round(epochs / 20) if task == 'mae' else min(10 if task == 'dino' else 5, epochs // 10)


def total_epochs(args: Namespace) -> int:
    """Return the epochs of a run: with `--warmup-prefix` the warm-up comes before those of `--epochs`."""
    return args.epochs + (args.warmup_epochs if args.warmup_prefix else 0)


def probe_interval(epochs: int) -> int:
    """Return the epochs between two looks at the features of a task without a classifier: at most ten, and the end.

    >>> probe_interval(800), probe_interval(15), probe_interval(3)
    (80, 2, 1)
    """
    return max(1, -(-epochs // 10))


def eval_interval(args: Namespace) -> int:
    """Return the epochs between two evaluations of a run, whose `probe_interval` is None for a classifier."""
    return args.val_interval if args.probe_interval is None else args.probe_interval


def ema_decay(args: Namespace, updates: int) -> float:
    """Return the decay of the average of the weights in a run of so many updates.

    Where nobody has set it, the average reaches back over a tenth of the run, and no further than timm's 0.9998: with
    that alone a short run would end with an average that is mostly its initial weights.

    >>> [ema_decay(Namespace(model_ema_decay=None, model_ema_warmup=False), n) for n in (100, 10, 1_000_000)]
    [0.9, 0.5, 0.9998]
    """
    if args.model_ema_decay is not None:
        return args.model_ema_decay
    return 0.9998 if args.model_ema_warmup else min(0.9998, 1 - 10 / max(updates, 20))


def ema_note(args: Namespace, updates: int) -> str:
    """Return in a line what the average is made of at the end of a run of so many updates."""
    decay = ema_decay(args, updates)
    left = 0.0 if args.model_ema_warmup else 100 * decay ** updates
    line = f'--model-ema averages over the last {min(updates, round(1 / max(1 - decay, 1e-9)))} of {updates} updates '
    line += f'(--model-ema-decay {decay:.6g})'
    return line + (f': {left:.0f} % of it are the initial weights; a lower decay, or --model-ema-warmup, forgets them'
                   if left >= 1 else '')


def seconds(text: str) -> float:
    """Parse a time such as 45s, 30m, 1.5h.

    >>> seconds('30m')
    1800.0
    """
    match = re.fullmatch(r'\s*([0-9]*\.?[0-9]+)\s*(s|m|h|d)?\s*', str(text))
    if not match or float(match[1]) <= 0:
        raise UserError(f'--time-budget {text!r} is not a time: write 45s, 30m or 2h.')
    return float(match[1]) * {'s': 1, 'm': 60, 'h': 3600, 'd': 86400, None: 1}[match[2]]
