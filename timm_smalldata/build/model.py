"""From settings to the timm model, fresh or from earlier weights."""
from argparse import Namespace
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple, Type

import torch
from timm.layers import trunc_normal_
from torch import nn

from ..errors import UserError, nearest
from ..models.cosine import CosineClassifier, heads, set_cosine_head, set_directions
from ..models.stochastic_depth import set_constant_drop_path
from ..task import TaskHooks, task_class
from .weights import Weights, has_scheme, open_weights


def check_model(name: str) -> None:
    """Raise a UserError for a model that timm does not know."""
    import timm
    if not has_scheme(name) and not timm.is_model(name.split('.')[0]):
        raise UserError(
            f'Unknown model {name!r}{nearest(name, timm.list_models())}; timm.list_models() lists them all.')


def create_model(args: Namespace, classes: List[str]) -> nn.Module:
    """Create the timm model that the settings name, at the settings' image size."""
    import timm
    check_model(args.model)
    task = task_class(args.task)
    num_classes = len(classes) if task.supervised else 0
    kwargs, needed = _constructor_arguments(args, task)
    own_head = args.head == 'cosine' and _takes_head(args.model)
    if own_head:
        kwargs.update(head='cosine', head_scale=args.head_scale)
        if args.tau_norm is not None:
            raise UserError(f'--tau-norm rescales a linear classifier; the cosine head of {args.model} stays: leave it '
                            'out.')
    overlay, weights, same_classes = _earlier_weights(args, classes)
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
        _check_same_model(model, args, weights)
        if args.head == 'cosine' and same_classes:
            set_directions(model, weights)
    if args.freeze_backbone:
        freeze_backbone(model)
    return model


def _constructor_arguments(args: Namespace, task: Type[TaskHooks]) -> Tuple[Dict[str, Any], Dict[str, Any]]:
    """Return the arguments of the model's constructor, and those among them that the task needs."""
    import timm
    kwargs: Dict[str, Any] = dict(args.model_kwargs)
    if kwargs.get('in_chans', 3) != 3:
        raise UserError(
            f"--model-kwargs in_chans={kwargs['in_chans']}: images are read as RGB, grey ones as three equal channels, "
            'so a model takes 3 channels: leave it out.')
    try:
        config = None if has_scheme(args.model) else timm.get_pretrained_cfg(args.model)
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
    return kwargs, needed


def _earlier_weights(args: Namespace, classes: List[str]) -> Tuple[Dict[str, Any], Dict[str, torch.Tensor], bool]:
    """Return the file of weights to start from in timm's terms, its tensors, and whether it knows the same classes."""
    overlay, same_classes = dict[str, Any](), False
    weights: Dict[str, torch.Tensor] = {}
    if args.initial_checkpoint:
        initial, weights = _initial(args.initial_checkpoint)
        same_classes = initial.names == list(classes) and not args.reset_head
        takes_head = same_classes and initial.head == args.head == 'linear'  # timm does, of as many classes
        overlay = dict(file=str(initial.file), num_classes=len(classes) if takes_head else -1)
    elif args.pretrained_path:
        if not Path(args.pretrained_path).is_file():
            raise UserError(f'--pretrained-path {args.pretrained_path}: no such file.')
        overlay = dict(file=args.pretrained_path, num_classes=-1)
    return overlay, weights, same_classes


def freeze_backbone(model: Any) -> None:
    """Leave gradients to the classifier only."""
    model.requires_grad_(False)
    head = model.get_classifier()
    for layer in head if isinstance(head, tuple) else (head,):
        layer.requires_grad_(True)


def _takes_head(name: str) -> bool:
    """Return whether a model has a cosine head of its own."""
    import timm

    from ..models import resnet_cifar
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
    scratch = not (args.initial_checkpoint or args.pretrained or args.pretrained_path)
    if args.class_token_std is not None and scratch and getattr(model, 'cls_token', None) is not None:
        trunc_normal_(model.cls_token, std=args.class_token_std)
    if args.grad_checkpointing:
        model.set_grad_checkpointing(enable=True)  # type: ignore[operator]
    if args.fast_norm:
        from timm.layers import set_fast_norm
        set_fast_norm()
    _set_attention(model, args.fused_attn)


def _set_attention(model: Any, fused: Optional[bool]) -> None:
    """Where `fused` is off, let timm's attention layers multiply, take the softmax and multiply."""
    for layer in model.modules() if fused is False else ():
        if hasattr(layer, 'fused_attn'):
            layer.fused_attn = False


def _initial(path: str) -> Tuple[Weights, Dict[str, torch.Tensor]]:
    """Open the earlier weights that a training starts from."""
    try:
        initial = open_weights(Path(path))
    except FileNotFoundError as error:
        raise UserError(
            f'--initial-checkpoint {path}: no such file, and no folder with model.safetensors.') from error
    except ValueError as error:
        raise UserError(f'--initial-checkpoint {path}: {error}') from error
    try:
        return initial, initial.read()
    except Exception as error:  # a torn file shows as one of many kinds
        raise UserError(f'--initial-checkpoint {path} cannot be read: {error}') from error


def _check_same_model(model: nn.Module, args: Namespace, weights: Dict[str, torch.Tensor]) -> None:
    """Refuse weights of another model: where the head is left out, timm takes what fits, be it nothing."""
    names = [name for name, _ in model.named_parameters()]
    missing = [name for name in names if name not in weights]
    if len(missing) > len(names) / 2:
        raise UserError(
            f'--initial-checkpoint {args.initial_checkpoint} is of another model: it holds no weights for '
            f'{len(missing)} of the {len(names)} tensors of {args.model} (the first: {missing[0]}).')


def check_head(args: Namespace, model: nn.Module) -> None:
    """Raise a UserError if the class vectors are to be rescaled and a classifier is not linear.

    A cosine head passes: it is folded into a linear one before the model is judged.
    """
    for name, layer in heads(model) if args.tau_norm is not None else ():
        if not isinstance(layer, (nn.Linear, CosineClassifier)):
            raise UserError(
                f'--tau-norm rescales a linear classifier; this one, {name}, is {type(layer).__name__}: leave it out.')
