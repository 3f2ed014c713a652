"""A finished model, wherever it comes from: a run, a model folder, the hub, timm's own weights or a file of weights."""
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Optional

import timm
from timm.data import resolve_data_config
from timm.models import load_state_dict, resolve_model_input_args

from ..data.classes import ClassInfo
from ..engine import checkpoint
from ..errors import UserError
from ..hub.export import KEY
from ..utils.model_folder import CONFIG, find_model
from .model import check_model, create_model
from .views import data_config


@dataclass
class Finished:
    """A model with its weights, and what is known of it.

    Attributes:
        model: The model.
        config: Preprocessing, in timm's terms.
        names: Names of its outputs, if it brought them.
        training: What our export says of its training: `class_counts`, `shot_split`, `data_hash`.
        run: The run folder that it lies in.
        epoch: Epoch of the weights, where a checkpoint tells it.
    """
    model: Any
    config: Dict[str, Any]
    names: Optional[List[str]] = None
    training: Dict[str, Any] = field(default_factory=dict)
    run: Optional[Path] = None
    epoch: Optional[int] = None


def load_finished(
        name: str,
        weights: Optional[str] = None,
        *,
        img_size: Optional[int] = None,
        crop_pct: Optional[float] = None,
        model_kwargs: Optional[Dict[str, Any]] = None,
        features: bool = False,
) -> Finished:
    """Load a finished model.

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
    kind, _, rest = name.partition(':')
    folder = None
    if kind == 'local-dir':
        folder = Path(rest)
    elif Path(name).is_dir() and not timm.is_model(name):
        folder = Path(name)
    elif kind not in ('hf-hub', 'hf_hub'):
        if any(mark in name for mark in '/\\:') or (Path(name).exists() and not timm.is_model(name)):
            raise UserError(f'{name} is neither a folder with a model nor a timm model name; a model on the hub is '
                            'hf-hub:OWNER/NAME, a file of weights goes with a name: MODEL --checkpoint FILE.')
        check_model(name)
    given: Dict[str, Any] = dict(img_size=img_size, crop_pct=crop_pct)
    if weights is not None:
        if folder is not None or kind != name:
            raise UserError(f'--checkpoint goes with a plain timm model name; {name} has weights of its own.')
        finished = _from_file(name, Path(weights), given, model_kwargs)
    else:
        if folder is not None:
            folder = folder if (folder / CONFIG).is_file() else find_model(folder)
        source = name if folder is None else f'local-dir:{folder}'
        try:
            model = timm.create_model(
                **resolve_model_input_args(source, dict(img_size=img_size), **model_kwargs or {}), pretrained=True)
        except Exception as error:  # whatever timm, torch and the hub's client raise; the message says what is missing
            raise UserError(f'{name} cannot be loaded: {error}') from error
        config: Any = model.pretrained_cfg
        finished = Finished(model, resolve_data_config(given, config), config.get('label_names'))
        if folder is not None:
            finished.training = _training(folder / CONFIG)
            finished.run = folder.parent if (folder.parent / 'args.yaml').is_file() else None
        elif kind != name:
            from huggingface_hub import hf_hub_download
            repo, _, revision = rest.partition('@')
            finished.training = _training(Path(hf_hub_download(repo, CONFIG, revision=revision or None)))
    outputs = finished.model.num_classes
    if not outputs and not features:
        raise UserError(f'{name} gives features, no class scores.')
    if outputs and finished.names and len(finished.names) != outputs:
        raise UserError(f'{name} has {outputs} outputs, but {len(finished.names)} label_names.')
    return finished


def _training(config: Path) -> Dict[str, Any]:
    return json.loads(config.read_text(encoding='utf-8')).get(KEY, {})


def _from_file(name: str, path: Path, given: Dict[str, Any], model_kwargs: Optional[Dict[str, Any]]) -> Finished:
    """Build a timm model around a file of weights; a checkpoint of ours says itself how its model was built."""
    if not path.is_file():
        raise UserError(f'No such file: {path} (--checkpoint).')
    try:
        weights = load_state_dict(str(path))
    except Exception as error:  # a torn file shows as one of many kinds
        raise UserError(f'--checkpoint {path} cannot be read: {error}') from error
    try:
        saved = checkpoint.load(path)
    except UserError:  # weights alone
        saved = {}
    if 'classes' in saved:
        if saved['arch'] != name:
            raise UserError(f'--checkpoint {path} is of {saved["arch"]}, not of {name}.')
        args, classes = saved['args'], ClassInfo.from_dict(saved['classes'])
        args.pretrained, args.pretrained_path, args.initial_checkpoint = False, None, None
        vars(args).update({dest: value for dest, value in given.items() if value is not None})
        model: Any = create_model(args, classes.names)
        finished = Finished(model, data_config(args, model), classes.names, epoch=saved['epoch'], training=dict(
            class_counts=classes.counts, shot_split=args.shot_split, data_hash=classes.data_hash))
    else:
        known: Any = timm.get_pretrained_cfg(name)
        head = known.classifier[0] if isinstance(known.classifier, (tuple, list)) else known.classifier
        outputs = len(weights[f'{head}.weight']) if f'{head}.weight' in weights else known.num_classes
        try:
            model = timm.create_model(**resolve_model_input_args(
                name, dict(img_size=given['img_size']), num_classes=outputs, **model_kwargs or {}))
        except (TypeError, AssertionError, RuntimeError, ValueError) as error:
            raise UserError(f'{name} cannot be built: {error}') from error
        config: Any = model.pretrained_cfg
        finished = Finished(model, resolve_data_config(given, config))
    try:
        finished.model.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(f'--checkpoint {path} does not fit {name}: {error}') from error
    return finished
