"""From settings to what is seen of an image, in training and in evaluation."""
from argparse import Namespace
from typing import Any, Dict, List, Optional, Sequence, Tuple

from torch import nn

from ..config.presets import WITHOUT_AREA
from ..data.batch_augment import no_batched_form
from ..data.views import Augment, Crop, Erase, ViewSpec, check_view, eval_view
from ..errors import UserError


def data_config(args: Namespace, model: nn.Module) -> Dict[str, Any]:
    """Return the preprocessing that goes with the model, in timm's terms."""
    config: Any = model.pretrained_cfg
    return dict(
        input_size=(3, args.img_size, args.img_size),
        mean=_channels(args.mean, '--mean') or tuple(config['mean']),
        std=_channels(args.std, '--std') or tuple(config['std']),
        interpolation=args.interpolation,
        crop_pct=args.crop_pct,
        crop_mode='center',
    )


def place_of_augmentation(wanted: str, views: Sequence[ViewSpec], device: str) -> str:
    """Return what `--augment-on` comes to: 'device' or 'image'.

    On a processor `auto` is the image path: views cost little beside the model there (docs/performance.md).

    Args:
        wanted: Value of the flag.
        views: What the task wants to see.
        device: Kind of the device that trains.

    Raises:
        UserError: 'device' is wanted, and a view has no batched form.
    """
    lacking = without_batched_form(views)
    if wanted == 'device' and lacking:
        raise UserError(f'--augment-on device: {lacking} has no batched form: use --augment-on image, or leave it out.')
    return wanted if wanted != 'auto' else 'image' if lacking or device == 'cpu' else 'device'


def without_batched_form(views: Sequence[ViewSpec]) -> Optional[str]:
    """Return the first operation of the views that has no batched form, as its flag; None where all have one."""
    return next((lacking for lacking in map(no_batched_form, views) if lacking), None)


def _channels(values: Optional[List[float]], flag: str) -> Tuple[float, ...]:
    if values and len(values) not in (1, 3):
        raise UserError(f'{flag} takes one value or three (red, green, blue), not {len(values)}.')
    return tuple(values * (3 // len(values))) if values else ()


def create_views(args: Namespace, config: Dict[str, Any]) -> Tuple[ViewSpec, ViewSpec]:
    """Return the training view and the evaluation view."""
    jitter = args.color_jitter
    train = ViewSpec(
        args.img_size,
        Crop(
            args.train_crop_mode,
            scale=tuple(args.scale) if args.scale and args.train_crop_mode not in WITHOUT_AREA else None,
            ratio=tuple(args.ratio) if args.ratio else None,
            hflip=args.hflip, vflip=args.vflip, interpolation=args.train_interpolation),
        Augment(
            args.aa or None,
            None if jitter is None else jitter[0] if len(jitter) == 1 else tuple(jitter),
            args.color_jitter_prob, args.grayscale_prob, args.gaussian_blur_prob, auto_augment_prob=args.aa_prob,
            force_color_jitter=args.force_color_jitter, cutout=args.cutout or 0),
        Erase(args.reprob, args.remode, args.recount),
        config['mean'], config['std'])
    judged = eval_view(args.img_size, config['crop_pct'], config['interpolation'], config['mean'], config['std'])
    for spec, flags in ((train, '--aa, --train-interpolation, --remode'), (judged, '--interpolation, --crop-pct')):
        try:
            check_view(spec)
        except (AssertionError, KeyError, ValueError, TypeError) as error:
            reason = f'unknown value {error}' if isinstance(error, KeyError) else error
            raise UserError(f'The view cannot be built ({flags}): {str(reason) or "unknown value"}.') from error
    return train, judged
