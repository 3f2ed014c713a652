"""The one opener of trained models: a run, a model folder, the hub, timm's own weights or a file of weights."""
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import timm
import torch
from timm.data import resolve_data_config
from timm.models import resolve_model_input_args
from torch import nn

from ..config.flags import BY_DEST
from ..engine import checkpoint
from ..errors import UserError, nearest
from ..task.mae import MAETask
from ..utils.model_folder import CONFIG, KEY
from .model import check_model, create_model
from .views import data_config
from .weights import Place, find_place, open_weights


@dataclass
class TrainedModel:
    """A model with its weights, and what is known of it.

    Attributes:
        model: The model.
        config: Preprocessing, in timm's terms.
        names: Names of its outputs, if it brought them.
        training: What our export says of its training: `class_counts`, `shot_split`, `data_hash`, `pixels`.
        run: The run folder that it lies in.
        epoch: Epoch of the weights, where a checkpoint tells it.
    """
    model: Any
    config: Dict[str, Any]
    names: Optional[List[str]] = None
    training: Dict[str, Any] = field(default_factory=dict)
    run: Optional[Path] = None
    epoch: Optional[int] = None


def load_trained_model(
        name: str,
        weights: Optional[str] = None,
        *,
        img_size: Optional[int] = None,
        crop_pct: Optional[float] = None,
        model_kwargs: Optional[Dict[str, Any]] = None,
        features: bool = False,
) -> TrainedModel:
    """Load a trained model.

    Args:
        name: Run folder, model folder, `local-dir:FOLDER`, `hf-hub:owner/name` or a timm model name.
        weights: File of weights for a timm model name, in place of its pretrained ones.
        img_size: Side of the images in pixels, in place of the model's.
        crop_pct: Share of the resized image that is kept, in place of the model's.
        model_kwargs: Arguments of the model's constructor.
        features: Accept a model without a classifier.

    Raises:
        UserError: There is no such model, it cannot be loaded, or it gives no class scores.
    """
    place = find_place(name)
    if place is None:
        if any(mark in name for mark in '/\\:') or Path(name).exists():
            raise UserError(f'{name} is neither a folder with a model nor a timm model name; a model on the hub is '
                            'hf-hub:OWNER/NAME, a file of weights goes with a name: MODEL --checkpoint FILE.')
        check_model(name)
    assert place is not None
    given: Dict[str, Any] = dict(img_size=img_size, crop_pct=crop_pct)
    if weights is not None:
        if not place.registered:
            raise UserError(f'--checkpoint goes with a plain timm model name; {name} has weights of its own.')
        trained = _from_file(name, Path(weights), given, model_kwargs)
    else:
        trained = _from_place(name, place, given, model_kwargs)
    outputs = trained.model.num_classes
    if not outputs and not features:
        raise UserError(f'{name} gives features, no class scores.')
    if outputs and trained.names and len(trained.names) != outputs:
        raise UserError(f'{name} has {outputs} outputs, but {len(trained.names)} label_names.')
    return trained


def _from_place(
        name: str, place: Place, given: Dict[str, Any], model_kwargs: Optional[Dict[str, Any]],
) -> TrainedModel:
    try:
        model: Any = timm.create_model(**resolve_model_input_args(
            place.name, dict(img_size=given['img_size']), **model_kwargs or {}), pretrained=True)
    except Exception as error:  # whatever timm, torch and the hub's client raise; the message says what is missing
        raise UserError(f'{name} cannot be loaded: {error}') from error
    config = model.pretrained_cfg
    trained = TrainedModel(model, resolve_data_config(given, config), config.get('label_names'))
    if place.folder is not None:
        trained.training = _training(place.folder / CONFIG)
        run = place.folder.parent
        trained.run = run if (run / 'args.yaml').is_file() else None
    elif not place.registered:
        from huggingface_hub import hf_hub_download
        repo, _, revision = name.partition(':')[2].partition('@')
        trained.training = _training(Path(hf_hub_download(repo, CONFIG, revision=revision or None)))
    return trained


def _training(config: Path) -> Dict[str, Any]:
    return json.loads(config.read_text(encoding='utf-8')).get(KEY, {})


def _from_file(
        name: str, path: Path, given: Dict[str, Any], model_kwargs: Optional[Dict[str, Any]],
) -> TrainedModel:
    """Build a timm model around a file of weights; a checkpoint of ours says itself how its model was built."""
    if not path.is_file():
        raise UserError(f'No such file: {path} (--checkpoint).')
    opened = open_weights(path)
    try:
        weights = opened.read()
    except Exception as error:  # a torn file shows as one of many kinds
        raise UserError(f'--checkpoint {path} cannot be read: {error}') from error
    if opened.saved is not None:
        trained = _from_checkpoint(name, path, opened.saved, given)
    else:
        known: Any = timm.get_pretrained_cfg(name)
        head = known.classifier[0] if isinstance(known.classifier, (tuple, list)) else known.classifier
        outputs = len(weights[f'{head}.weight']) if f'{head}.weight' in weights else known.num_classes
        try:
            model: Any = timm.create_model(**resolve_model_input_args(
                name, dict(img_size=given['img_size']), num_classes=outputs, **model_kwargs or {}))
        except (TypeError, AssertionError, RuntimeError, ValueError) as error:
            raise UserError(f'{name} cannot be built: {error}') from error
        trained = TrainedModel(model, resolve_data_config(given, model.pretrained_cfg))
    try:
        trained.model.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(f'--checkpoint {path} does not fit {name}: {error}') from error
    return trained


def _from_checkpoint(name: str, path: Path, saved: Dict[str, Any], given: Dict[str, Any]) -> TrainedModel:
    if saved['arch'] != name:
        raise UserError(f'--checkpoint {path} is of {saved["arch"]}, not of {name}.')
    model, names = _untrained(saved, **given)
    args, classes = saved['args'], saved['classes']
    return TrainedModel(model, data_config(args, model), names, epoch=saved['epoch'], training=dict(
        class_counts=classes['counts'], shot_split=args.shot_split, data_hash=classes['data_hash'],
        pixels={dest: getattr(args, dest, BY_DEST[dest].value_before()) for dest in ('alpha', 'grey_range')}))


def _untrained(saved: Dict[str, Any], **given: Any) -> Tuple[nn.Module, List[str]]:
    """Return the model that a checkpoint of ours is of, with new weights, and its classes; `given` settings change."""
    args, names = saved['args'], list(saved['classes']['names'])
    args.pretrained, args.pretrained_path, args.initial_checkpoint = False, None, None
    vars(args).update({dest: value for dest, value in given.items() if value is not None})
    return create_model(args, names), names


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
    try:
        place = find_place(name)
    except UserError as error:
        raise UserError(f'--teacher {name} cannot be loaded: {error}') from error
    if place is None:
        raise UserError(f'--teacher {name}: neither the folder of a finished run nor a model of timm'
                        f'{nearest(name, timm.list_models())}.')
    if path is not None and not place.registered:
        raise UserError(f'--teacher-path {path} goes with a name of timm; --teacher {name} brings weights of its own.')
    if path is not None and not Path(path).is_file():
        raise UserError(f'--teacher-path {path}: no such file.')
    names: Optional[List[str]] = None
    model: Any
    try:
        if path is not None:
            opened = open_weights(Path(path))
            names = opened.names
            model = timm.create_model(name, pretrained=False, num_classes=len(names) if names else num_classes)
            model.load_state_dict(opened.read())
        elif place.registered and not timm.get_pretrained_cfg(name).has_weights:  # type: ignore[union-attr]
            raise UserError(f'--teacher {name}: timm has no weights for it; name a file with --teacher-path, or a run.')
        else:
            model = timm.create_model(place.name, pretrained=True)
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


def load_autoencoder(run: Optional[Path], name: str, device: torch.device) -> MAETask:
    """Return the masked autoencoder of a run, with the decoder, which is in its last checkpoint alone.

    Raises:
        UserError: The model does not come from such a run, or its checkpoint is gone.
    """
    saved = None if run is None else checkpoint.load_last(run)
    if saved is None:
        raise UserError(f'{name} has no decoder: reconstruction needs the folder of a run of --task mae with its '
                        f'{checkpoint.LAST}; the exported model is the encoder alone.')
    args = saved['args']
    if args.task != 'mae':
        raise UserError(f'{name} was trained with --task {args.task}, which has no decoder: reconstruction needs a run '
                        'of --task mae.')
    task = MAETask(
        _untrained(saved)[0], args.mae_mask_ratio, args.mae_norm_pix, args.mae_pos_embed,
        args.mae_decoder_dim, args.mae_decoder_depth, args.mae_decoder_heads, device=device, verbose=False)
    checkpoint.restore(saved, task, None)
    return task
