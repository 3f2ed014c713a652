"""Where trained weights lie, and what they say of themselves: files, checkpoints, model folders, the hub, timm."""
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional

import timm
import torch
from timm.models import load_state_dict

from ..data.classes import ClassInfo
from ..engine import checkpoint
from ..errors import UserError
from ..task import task_class
from ..utils.model_folder import CONFIG, WEIGHTS, check_weights, find_model, read_config

LOCAL, HUB = 'local-dir', ('hf-hub', 'hf_hub')  # timm's schemes


@dataclass(frozen=True)
class Place:
    """Where a trained model lies.

    Attributes:
        name: What `timm.create_model` takes.
        folder: The exported model, where it is one on this machine.
        registered: It is a plain name of timm's registry, with or without weights.
    """
    name: str
    folder: Optional[Path] = None
    registered: bool = False


def has_scheme(name: str) -> bool:
    """Return whether a name says itself where the model lies: `local-dir:FOLDER` or `hf-hub:OWNER/NAME`."""
    return name.partition(':')[0] in (LOCAL, *HUB)


def find_place(name: str) -> Optional[Place]:
    """Return where a trained model lies; None for what is neither a folder, nor on the hub, nor a name of timm.

    Args:
        name: Run folder, model folder, `local-dir:FOLDER`, `hf-hub:OWNER/NAME` or a timm model name.

    Raises:
        UserError: A folder that holds no complete model, or other weights than were exported.
    """
    kind, _, rest = name.partition(':')
    if kind in HUB:
        return Place(name)
    registered = timm.is_model(name) and not any(mark in name for mark in '/\\:')  # 'resnet18.runs/model' is a path
    if kind == LOCAL or (Path(name).is_dir() and not registered):
        folder = Path(rest if kind == LOCAL else name)
        folder = folder if (folder / CONFIG).is_file() else find_model(folder)
        try:
            check_weights(folder)
        except (OSError, ValueError):  # whoever loads it says what is wrong with it
            pass
        return Place(f'{LOCAL}:{folder}', folder)
    return Place(name, registered=True) if registered else None


@dataclass(frozen=True)
class Weights:
    """A file of weights, and what is known of it.

    Attributes:
        file: The file.
        names: Classes of its head, where they are known.
        head: Kind of its head: 'linear' or 'cosine'.
        saved: The checkpoint of a run of ours, if it is one.
    """
    file: Path
    names: Optional[List[str]] = None
    head: str = 'linear'
    saved: Optional[Dict[str, Any]] = None

    def read(self) -> Dict[str, torch.Tensor]:
        """Return the tensors: the average of the weights where there is one, without prefixes of wrappers."""
        return load_state_dict(str(self.file))

    @property
    def classes(self) -> Optional[ClassInfo]:
        """Classes and training counts of a checkpoint of ours."""
        return ClassInfo.from_dict(self.saved['classes']) if self.saved and self.saved.get('classes') else None


def open_weights(path: Path) -> Weights:
    """Open a file of weights, a checkpoint, or a model folder; the tensors are not read yet.

    Raises:
        FileNotFoundError: There is no such file, and no folder with weights.
        ValueError: The `config.json` of a folder is broken.
        UserError: Its weights are not those that were exported.
    """
    file = path / WEIGHTS if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(path)
    if path.is_dir():
        try:
            config = read_config(path)
        except (OSError, ValueError) as error:
            raise ValueError(f'its config.json cannot be read: {error}') from error
        check_weights(path)
        return Weights(file, config.get('label_names'), config.get('model_args', {}).get('head', 'linear'))
    if file.suffix == '.safetensors':
        return Weights(file)
    try:
        saved = checkpoint.load(file)
        if 'classes' not in saved:  # another program's
            return Weights(file)
        names, args = saved['classes']['names'], saved.get('args')
        if args is None:
            return Weights(file, names)
        names = names if task_class(args.task).supervised else None  # it has classes, but no head for them
        return Weights(file, names, getattr(args, 'head', 'linear'), saved)
    except (UserError, KeyError, AttributeError, TypeError):  # weights alone, or not ours: they name no classes
        return Weights(file)
