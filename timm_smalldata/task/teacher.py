"""The teacher of a distillation: where it comes from, and how its classes go with the student's."""
import os
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

import torch
from torch import nn

from ..data.classes import listed
from ..errors import UserError, nearest

_SCHEMES = ('local-dir', 'hf-hub', 'hf_hub')


def load_teacher(name: str, path: Optional[str], num_classes: int) -> Tuple[nn.Module, Optional[List[str]]]:
    """Create a trained classifier, in evaluation mode and without gradients.

    Args:
        name: The folder of a finished run, 'local-dir:FOLDER', 'hf-hub:OWNER/NAME', or a name in timm's registry.
        path: File with the weights, for a name in timm's registry; then nothing is downloaded. A checkpoint of a run
            names its classes.
        num_classes: Outputs of the weights in the file, where it names no classes.

    Returns:
        The model, and its class names in the order of its outputs where it tells them.

    Raises:
        UserError: There is no such model, its weights do not fit, or it is no classifier.
    """
    import timm
    names: Optional[List[str]] = None
    model: Any
    if name.partition(':')[0] not in _SCHEMES and os.path.isdir(name):
        from ..utils.model_folder import find_model
        name = f'local-dir:{find_model(name)}'
    registered = name.partition(':')[0] not in _SCHEMES
    if registered and not timm.is_model(name.split('.')[0]):
        raise UserError(f'--teacher {name}: neither the folder of a finished run nor a model of timm'
                        f'{nearest(name, timm.list_models())}.')
    if path is not None and not registered:
        raise UserError(f'--teacher-path {path} goes with a name of timm; --teacher {name} brings weights of its own.')
    try:
        if path is not None:
            weights, names = _read_weights(path)
            model = timm.create_model(name, pretrained=False, num_classes=len(names) if names else num_classes)
            model.load_state_dict(weights)
        elif registered and not timm.get_pretrained_cfg(name).has_weights:  # type: ignore[union-attr]
            raise UserError(f'--teacher {name}: timm has no weights for it; name a file with --teacher-path, or a run.')
        else:
            model = timm.create_model(name, pretrained=True)
    except UserError:
        raise
    except Exception as error:  # files, hub and shapes fail in many ways
        where = '' if path is None else f' with --teacher-path {path}'
        raise UserError(f'--teacher {name}{where} cannot be loaded: {str(error)[:300]}') from error
    if names is None:
        names = model.pretrained_cfg.get('label_names')
    if not model.num_classes:
        raise UserError(f'--teacher {name} gives features, not classes: name a trained classifier.')
    return model.eval().requires_grad_(False), None if names is None else list(names)


def _read_weights(path: str) -> Tuple[Dict[str, Any], Optional[List[str]]]:
    """Return the weights in a file, without prefixes of wrappers, and the class names that a checkpoint of ours has."""
    from timm.models import load_state_dict
    if not Path(path).is_file():
        raise UserError(f'--teacher-path {path}: no such file.')
    names = None
    if not path.endswith('.safetensors'):
        from ..engine.checkpoint import load
        try:
            names = (load(Path(path)).get('classes') or {}).get('names')
        except UserError:  # weights alone, or another program's: they name no classes
            names = None
    return load_state_dict(path, use_ema=True), names


def match_classes(
        names: Optional[Sequence[str]], num_classes: int, ours: Sequence[str], where: str,
) -> Optional[List[int]]:
    """Return for each of our classes the teacher's output, or None where they come in the same order.

    Args:
        names: The teacher's class names, if it tells them; otherwise its outputs are taken in our order.
        num_classes: Its outputs.
        ours: Our class names.
        where: The teacher, for the error.

    Raises:
        UserError: Other classes.

    >>> match_classes(['bee', 'ant'], 2, ['ant', 'bee'], 'x')
    [1, 0]
    """
    if names is None:
        if num_classes != len(ours):
            raise UserError(
                f'--teacher {where} has {num_classes} outputs and names no classes; here are {len(ours)} classes: '
                f'{listed(ours)}.')
        return None
    if sorted(names) != sorted(ours):
        raise UserError(
            f'--teacher {where} knows other classes. The teacher ({len(names)}): {listed(names)}. '
            f'Here ({len(ours)}): {listed(ours)}.')
    order = [list(names).index(name) for name in ours]
    return None if order == list(range(len(ours))) else order


def check_size(model: Any, size: Sequence[int], num_classes: int, where: str) -> None:
    """Raise a UserError for a teacher that cannot take images of its own size (height, width)."""
    device = next(model.parameters()).device
    try:
        with torch.no_grad():
            shape = tuple(model(torch.zeros(1, 3, *size, device=device)).shape)
    except Exception as error:
        raise UserError(
            f'--teacher {where} cannot take RGB images of {size[0]} x {size[1]} pixels: {str(error)[:200]}') from error
    if shape != (1, num_classes):
        raise UserError(f'--teacher {where} gives {shape} for an image, not (1, {num_classes}) logits.')
