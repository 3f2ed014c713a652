"""From settings to what is trained: device, model, views, loss, task."""
import json
from argparse import Namespace
from functools import partial
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import torch
from torch import nn

from .data.classes import ClassInfo
from .data.roles import Data
from .data.views import Augment, Crop, Erase, ViewSpec, check_view, eval_view
from .deferred import reweighting
from .errors import UserError, nearest
from .models.cosine import set_cosine_head, set_directions
from .models.stochastic_depth import set_constant_drop_path
from .presets import mixes
from .rules import eval_interval


def resolve_device(name: str, kept: Optional[str] = None) -> torch.device:
    """Return the device a flag means; a GPU that is not there is an error.

    Args:
        name: Value of the flag.
        kept: Device of the run that is continued: what `auto` means then.
    """
    import os
    kept = kept if name == 'auto' else None
    name = kept or name
    if name == 'auto':
        name = 'cuda' if torch.cuda.is_available() else 'mps' if torch.backends.mps.is_available() else 'cpu'
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f'--device {name}: no such kind of device; use auto, cpu, cuda, cuda:0 or mps.') from error
    there = {'cuda': torch.cuda.is_available(), 'mps': torch.backends.mps.is_available(), 'cpu': True}
    if not there.get(device.type, False) and kept:
        raise UserError(
            f'The run was started on {kept}, and this machine has no such device (or torch cannot use it): continue it '
            'elsewhere, or on another device, with other numbers, by --device cpu --force.')
    if not there.get(device.type, False):
        raise UserError(
            f'--device {name}, but this machine has no such device (or torch cannot use it): use --device cpu.')
    if device.type == 'cuda':
        index = int(os.environ.get('LOCAL_RANK', device.index or 0))
        if index >= torch.cuda.device_count():
            raise UserError(f'--device {name}: this machine has {torch.cuda.device_count()} GPU(s).')
        device = torch.device('cuda', index)
        torch.cuda.set_device(device)
    return device


def check_model(name: str) -> None:
    """Raise a UserError for a model that timm does not know."""
    import timm
    if name.partition(':')[0] in ('hf-hub', 'hf_hub', 'local-dir'):
        return
    if not timm.is_model(name.split('.')[0]):
        raise UserError(
            f'Unknown model {name!r}{nearest(name, timm.list_models())}; timm.list_models() lists them all.')


def create_model(args: Namespace, classes: List[str]) -> nn.Module:
    """Create the timm model that the settings name, at the settings' image size."""
    import timm
    check_model(args.model)
    kwargs: Dict[str, Any] = dict(args.model_kwargs)
    task = task_class(args.task)
    num_classes = len(classes) if task.supervised else 0
    local = args.model.partition(':')[0] in ('hf-hub', 'hf_hub', 'local-dir')
    try:
        config = None if local else timm.get_pretrained_cfg(args.model)
    except RuntimeError as error:
        raise UserError(f'--model {args.model}: {error}') from error
    fixed_size = config is not None and config.fixed_input_size
    if fixed_size:
        kwargs.setdefault('img_size', args.img_size)
    needed = task.model_kwargs(args, fixed_size)
    kwargs = {**needed, **kwargs}
    for dest, name in (('gp', 'global_pool'), ('drop', 'drop_rate'), ('drop_path', 'drop_path_rate'),
                       ('drop_block', 'drop_block_rate')):
        value = getattr(args, dest)
        if value is not None and (dest != 'drop' or value):
            kwargs[name] = value
    own_head = args.head == 'cosine' and _takes_head(args.model)
    if own_head:
        kwargs.update(head='cosine', head_scale=args.head_scale)
        if args.tau_norm is not None:
            raise UserError(f'--tau-norm rescales a linear classifier; the cosine head of {args.model} stays: leave it '
                            'out.')
    overlay, same_classes = dict[str, Any](), False
    if args.initial_checkpoint:
        file, names, head = _initial(args.initial_checkpoint)
        same_classes = names == list(classes) and not args.reset_head
        takes_head = same_classes and head == args.head == 'linear'  # timm does where the numbers of classes are equal
        overlay = dict(file=file, num_classes=len(classes) if takes_head else -1)
    elif args.pretrained_path:
        if not Path(args.pretrained_path).is_file():
            raise UserError(f'--pretrained-path {args.pretrained_path}: no such file.')
        overlay = dict(file=args.pretrained_path, num_classes=-1)
    try:
        model = timm.create_model(
            args.model, pretrained=args.pretrained or bool(overlay), num_classes=num_classes,
            pretrained_cfg_overlay=overlay or None, **kwargs)
        if args.head == 'cosine' and num_classes and not own_head:
            set_cosine_head(model, args.head_scale)
        if args.drop_path_constant:
            set_constant_drop_path(model, args.drop_path or 0.0)
        _initialise(model, args)
    except UserError:
        raise
    except (TypeError, AssertionError, RuntimeError, ValueError, ArithmeticError, AttributeError, OSError) as error:
        for name in needed:
            if name in str(error):
                raise UserError(
                    f'--model {args.model} does not take {name}, which --task {args.task} needs for crops of several '
                    'sizes: choose a plain ViT or a convolutional network.') from error
        raise UserError(f'{args.model} cannot be built with {kwargs}: {str(error)[:300]}') from error
    if args.initial_checkpoint:
        weights = _check_same_model(model, args, overlay['file'])
        if args.head == 'cosine' and same_classes:
            set_directions(model, weights)
    if args.freeze_backbone:
        freeze_backbone(model)
    return model


def freeze_backbone(model: Any) -> None:
    """Leave gradients to the classifier only."""
    model.requires_grad_(False)
    head = model.get_classifier()
    for layer in head if isinstance(head, tuple) else (head,):
        layer.requires_grad_(True)


def _takes_head(name: str) -> bool:
    """Return whether a model has a cosine head of its own."""
    import timm

    from .models import resnet_cifar
    return timm.is_model(name) and timm.model_entrypoint(name).__module__ == resnet_cifar.__name__


def _initialise(model: nn.Module, args: Namespace) -> None:
    if args.head_init_scale is not None or args.head_init_bias is not None:
        head = model.get_classifier()  # type: ignore[operator]
        with torch.no_grad():
            for layer in head if isinstance(head, tuple) else (head,):
                if args.head_init_scale is not None:
                    layer.weight.mul_(args.head_init_scale)
                    if getattr(layer, 'bias', None) is not None:
                        layer.bias.mul_(args.head_init_scale)
                if args.head_init_bias is not None:
                    nn.init.constant_(layer.bias, args.head_init_bias)
    for layer in model.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.momentum = args.bn_momentum if args.bn_momentum is not None else layer.momentum
            layer.eps = args.bn_eps if args.bn_eps is not None else layer.eps
    if args.grad_checkpointing:
        model.set_grad_checkpointing(enable=True)  # type: ignore[operator]
    if args.fast_norm:
        from timm.layers import set_fast_norm
        set_fast_norm()


def _initial(path: str) -> Tuple[str, Optional[List[str]], str]:
    """Return the file of earlier weights, the classes of its head where they are known, and the head's kind."""
    from timm.models import load_state_dict
    folder = Path(path)
    file = folder / 'model.safetensors' if folder.is_dir() else folder
    if not file.is_file():
        raise UserError(f'--initial-checkpoint {path}: no such file, and no folder with model.safetensors.')
    names, head = None, 'linear'
    if folder.is_dir():
        try:
            config = json.loads((folder / 'config.json').read_text(encoding='utf-8'))
            names, head = config.get('label_names'), config.get('model_args', {}).get('head', head)
        except (OSError, ValueError) as error:
            raise UserError(f'--initial-checkpoint {path}: its config.json cannot be read: {error}') from error
    elif file.suffix != '.safetensors':
        from .checkpoint import load
        try:
            saved = load(file)
            if task_class(saved['args'].task).supervised:  # otherwise it has classes, but no head for them
                names, head = (saved.get('classes') or {}).get('names'), getattr(saved['args'], 'head', head)
        except (UserError, KeyError, AttributeError):  # weights alone, or not ours: they name no classes
            names = None
    try:
        load_state_dict(str(file))
    except Exception as error:
        raise UserError(f'--initial-checkpoint {path} cannot be read: {error}') from error
    return str(file), names, head


def _check_same_model(model: nn.Module, args: Namespace, file: str) -> Dict[str, torch.Tensor]:
    """Refuse weights of another model: where the head is left out, timm takes what fits, be it nothing."""
    from timm.models import load_state_dict
    there = load_state_dict(file)
    names = [name for name, _ in model.named_parameters()]
    missing = [name for name in names if name not in there]
    if len(missing) > len(names) / 2:
        raise UserError(
            f'--initial-checkpoint {args.initial_checkpoint} is of another model: it holds no weights for '
            f'{len(missing)} of the {len(names)} tensors of {args.model} (the first: {missing[0]}).')
    return there


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
            scale=tuple(args.scale) if args.scale and args.train_crop_mode not in ('src', 'none') else None,
            ratio=tuple(args.ratio) if args.ratio else None,
            hflip=args.hflip, vflip=args.vflip, interpolation=args.train_interpolation),
        Augment(
            args.aa or None,
            None if jitter is None else jitter[0] if len(jitter) == 1 else tuple(jitter),
            args.color_jitter_prob, args.grayscale_prob, args.gaussian_blur_prob),
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


def create_criterion(args: Namespace, classes: ClassInfo, smoothing: Optional[float] = None) -> nn.Module:
    """Create the loss, its class counts taken from the data; `smoothing` replaces that of the settings."""
    from timm.loss import resolve_class_weights

    from .loss import Regularised, Rescaled, create_loss
    smoothing = args.smoothing or 0.0 if smoothing is None else smoothing
    kwargs: Dict[str, Any] = {}
    if args.loss_tau is not None and args.loss in ('balanced-bce', 'logit-adjusted'):
        kwargs['tau'] = args.loss_tau
    if args.loss == 'bce':
        kwargs.update(bce_target_thresh=args.bce_target_thresh, bce_sum=args.bce_sum)
        stats = (torch.tensor(classes.counts, dtype=torch.float32), sum(classes.counts))
        for dest, key in (('loss_class_weight', 'class_weight'), ('loss_pos_weight', 'pos_weight')):
            value = getattr(args, dest)
            if value is not None:
                try:
                    kwargs[key] = resolve_class_weights(value, key, stats, power=args.loss_weight_power)
                except (ValueError, TypeError) as error:
                    raise UserError(f'--{dest.replace("_", "-")} {value}: {error}') from error
        if args.bce_pos_weight is not None:
            kwargs['pos_weight'] = args.bce_pos_weight
    if args.loss == 'poly':
        kwargs['poly_epsilon'] = args.poly_epsilon
    if args.loss == 'ldam':
        kwargs['scale'] = args.head_scale
    if args.loss == 'jsd':
        kwargs['jsd_splits'] = args.aug_splits
    kwargs.update(args.loss_kwargs)
    try:
        criterion = create_loss(args.loss, classes.counts, smoothing=smoothing, **kwargs)
    except (ValueError, TypeError) as error:
        raise UserError(f'--loss {args.loss}: {error}') from error
    if args.loss == 'ldam':  # it sets margins between cosines; the head's output is scale * cosine
        return Rescaled(criterion, 1 / args.head_scale)
    if args.loss == 'lade':  # its cross-entropy is that of the training prior (paper, sec. 3.3)
        return Regularised(create_loss('balanced-softmax', classes.counts, smoothing), criterion, args.lade_weight)
    return criterion


def create_mixup(args: Namespace, num_classes: int) -> Any:
    """Return timm's mixing, or None."""
    from timm.data import Mixup
    if not mixes(args):
        return None
    return Mixup(
        mixup_alpha=args.mixup, cutmix_alpha=args.cutmix, cutmix_minmax=args.cutmix_minmax, prob=args.mixup_prob,
        switch_prob=args.mixup_switch_prob, mode=args.mixup_mode, label_smoothing=args.smoothing or 0.0,
        num_classes=num_classes)


def task_class(name: str) -> Any:
    """Return the class of a task."""
    from .task import TASKS
    if name not in TASKS:
        raise UserError(f'Unknown --task {name!r}{nearest(name, TASKS)}; known: {", ".join(TASKS)}.')
    return TASKS[name]


def create_task(
        args: Namespace,
        model: nn.Module,
        data: Data,
        view: ViewSpec,
        device: torch.device,
) -> Any:
    """Create the task with everything the loop needs of it."""
    from .task import TaskSetting
    model.to(device)
    if args.channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    classes = data.classes
    setting = TaskSetting(classes, len(data.train), view, device, partial(create_criterion, args, classes))
    created: Any = task_class(args.task).from_settings(args, model, setting)
    created.configure(
        view=view, classes=classes, groups=data.groups, mixup=create_mixup(args, len(classes)),
        mixup_off_epoch=args.mixup_off_epoch, aug_splits=args.aug_splits, resplit=args.resplit,
        clip_grad=args.clip_grad, clip_mode=args.clip_mode,
        frozen=args.freeze_backbone, reweight=reweighting(args, created.reweighted(), classes.counts))
    if args.model_ema:
        if created.owns_ema:
            raise UserError(
                f'--model-ema does not go with --task {args.task}: its average of the weights is the method.')
        created.setup_ema(
            decay=args.model_ema_decay, use_warmup=args.model_ema_warmup,
            device=torch.device('cpu') if args.model_ema_force_cpu else None)
    return created


def selection(args: Namespace, task: Any, data: Data) -> Tuple[Optional[str], int]:
    """Return the metric that selects (None where nothing is evaluated in training) and its direction."""
    evaluator, metric = task.create_evaluator(), args.eval_metric
    known = [name for name in evaluator.metric_names if task.supervised or name != 'loss']
    if metric not in known:
        raise UserError(
            f'Unknown --eval-metric {metric!r}{nearest(metric, known)} for --task {args.task}; known: '
            f'{", ".join(known)}.')
    if metric in data.groups and not data.groups[metric]:
        raise UserError(f'--eval-metric {metric}: no class is in that group with --shot-split {args.shot_split}.')
    if data.val is None or not eval_interval(args):
        return None, 1
    return metric, -1 if metric in getattr(evaluator, 'decreasing', ()) else 1
