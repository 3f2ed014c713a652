"""What leaves a run: the exported `model/` folder.

`model/` holds `config.json` and `model.safetensors`, both written by timm, so a model of a stock timm architecture
needs nothing but timm to come back: `timm.create_model('local-dir:RUN/model', pretrained=True)`, or `hf-hub:owner/name`
once it was pushed. No image, file name or local path goes into either file or into the card.
"""
import json
import os
import shutil
from copy import deepcopy
from itertools import chain
from pathlib import Path
from typing import Any, Dict, Iterator, Optional, Tuple, Union

import torch
from timm.models import save_for_hf
from timm.utils import unwrap_model
from torch import nn

from ..data.classes import ClassInfo
from ..utils.files import storage_error, sync
from ..utils.model_folder import CONFIG, DIGEST, KEY, WEIGHTS, read_config, weights_digest

# What timm's registry says of the weights that it offers for an architecture: untrue of weights trained from scratch.
_ORIGIN = ('tag', 'license', 'description', 'origin_url', 'paper_name', 'paper_ids', 'notes')
_LABELS = ('label_names', 'label_descriptions')


def export_model(
        model: nn.Module,
        folder: Union[str, Path],
        *,
        classes: ClassInfo,
        data_config: Dict[str, Any],
        metadata: Optional[Dict[str, Any]] = None,
        fine_tuned: bool = False,
) -> None:
    """Write `config.json` and `model.safetensors`; equal weights give equal bytes.

    `folder` is at every moment complete or absent: the files are written and synced in a hidden sibling, which is then
    renamed. An older folder of that name is replaced. One process writes (rank 0).

    Args:
        model: A model made by `timm.create_model`, bare or wrapped (DDP, compile, EMA); it is not changed.
        folder: The folder to make, its parent exists.
        classes: Class names and training counts. Where the head has another number of outputs (none, or one for each
            instance), the names go under our own key instead of `label_names`.
        data_config: timm's, at least `input_size`, `mean`, `std`, `crop_pct` and `interpolation` of evaluation.
        metadata: More to keep under our key; plain JSON values without absolute paths.
        fine_tuned: Training began from weights that timm offers: keep their licence and origin in the config.

    Raises:
        ValueError: A model argument cannot be stored as JSON, `data_config` contradicts the model, or a setting is an
            absolute path.
        StorageError: The disk is full; an older folder of that name stays.
        TypeError: `metadata` cannot be stored as JSON.
    """
    folder = Path(folder)
    new, old = (folder.with_name(f'.{folder.name}.{age}') for age in ('new', 'old'))
    shutil.rmtree(new, ignore_errors=True)  # left by a process that was killed

    plain = _plain_copy(model)
    drop = _LABELS if fine_tuned else _LABELS + _ORIGIN
    plain.pretrained_cfg = {key: value for key, value in plain.pretrained_cfg.items() if key not in drop}
    ours: Dict[str, Any] = {**(metadata or {}), 'class_counts': list(map(int, classes.counts)),
                            'data_hash': classes.data_hash}
    model_config: Dict[str, Any] = {KEY: ours}
    if plain.num_classes == len(classes):
        model_config['label_names'] = list(classes.names)
    else:
        ours['class_names'] = list(classes.names)
    try:
        save_for_hf(plain, str(new), model_config=model_config, data_config=data_config, safe_serialization=True)
        for key, text in _strings(read_config(new)):
            if Path(text).is_absolute():
                raise ValueError(f'{key} is the absolute path {text!r}, which an exported model must not hold.')

        ours[DIGEST] = weights_digest(new)
        (new / CONFIG).write_text(json.dumps({**read_config(new), KEY: ours}, indent=2), encoding='utf-8')
        (new / WEIGHTS).chmod((new / CONFIG).stat().st_mode)  # safetensors lets only the owner read it
        for path in (new / CONFIG, new / WEIGHTS, new):
            sync(path)
    except BaseException as error:
        shutil.rmtree(new, ignore_errors=True)
        needs = sum(tensor.numel() * tensor.element_size() for tensor in plain.state_dict().values())
        full = storage_error(error, folder, needs)
        if full is None:
            raise
        raise full from error
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)
        os.rename(folder, old)
    os.rename(new, folder)
    sync(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def load_classes(folder: Union[str, Path]) -> ClassInfo:
    """Return the classes that an exported model was trained on."""
    config = read_config(folder)
    names = config.get('label_names') or config[KEY].get('class_names', [])
    return ClassInfo(list(names), list(config[KEY]['class_counts']), config[KEY]['data_hash'])


def _plain_copy(model: nn.Module) -> Any:
    """Return an fp32 copy on the CPU whose tensors are contiguous and share no memory: what safetensors stores."""
    model = deepcopy(unwrap_model(model)).to('cpu', torch.float32)
    for tensor in chain(model.parameters(), model.buffers()):
        tensor.data = tensor.data.clone(memory_format=torch.contiguous_format)
    return model


def _strings(value: Any, key: str = '') -> Iterator[Tuple[str, str]]:
    """Yield (key, text) of every string in a JSON value but class names: those are the user's, whatever they hold."""
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item, key)
    elif isinstance(value, dict):
        for name in value.keys() - {'label_names', 'class_names'}:
            yield from _strings(value[name], name)
