"""An exported `model/` folder: its two files, whether they are whole, and where in a run it lies."""
import hashlib
import json
import re
from pathlib import Path
from typing import Any, Dict, List, Union

from ..errors import UserError
from .text import natural_key

CONFIG, WEIGHTS = 'config.json', 'model.safetensors'
KEY = 'timm_smalldata'  # our part of config.json, which timm carries along unread
DIGEST = 'weights_sha256'  # in our part


def is_complete(folder: Union[str, Path]) -> bool:
    """Return whether `folder` holds an exported model whose two files can be opened and are not cut short."""
    from safetensors import SafetensorError, safe_open
    try:
        with safe_open(Path(folder) / WEIGHTS, 'pt'):  # compares the header with the file's size
            return 'architecture' in read_config(folder)
    except (OSError, ValueError, SafetensorError):
        return False


def stage_folders(folder: Path) -> List[Path]:
    """Return the folders of a run's stages in their order; none for a run of one stage."""
    return sorted((p for p in folder.glob('*-*') if p.is_dir() and re.match(r'\d{1,2}-', p.name)),
                  key=lambda p: natural_key(p.name))


def find_model(folder: Union[str, Path]) -> Path:
    """Return the exported model of a run: the folder itself, its `model/`, or `model/` of its last stage.

    Raises:
        UserError: There is none, or it is not complete.
    """
    folder = Path(folder)
    for candidate in (folder, folder / 'model', *(p / 'model' for p in stage_folders(folder)[-1:])):
        if is_complete(candidate):
            return candidate
    raise UserError(f'{folder} holds no complete model ({CONFIG} and {WEIGHTS} in it or in its model/); '
                    'name the folder of a run that has finished.')


def read_config(folder: Union[str, Path]) -> Dict[str, Any]:
    """Return `config.json` of an exported model; raises an OSError or a ValueError where it is none."""
    try:
        config = json.loads((Path(folder) / CONFIG).read_text(encoding='utf-8'))
    except RecursionError as error:
        raise ValueError('it is nested too deep') from error
    if not isinstance(config, dict):
        raise ValueError(f'it holds a {type(config).__name__}, no settings by name')
    return config


def weights_digest(folder: Union[str, Path]) -> str:
    """Return the sha256 of the weights of an exported model."""
    digest = hashlib.sha256()
    with open(Path(folder) / WEIGHTS, 'rb') as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def check_weights(folder: Union[str, Path]) -> None:
    """Compare the weights of an exported model with the checksum in its config; older exports have none.

    Raises:
        UserError: They are not those that were exported: a bit has flipped, or another file lies there.
    """
    ours = read_config(folder).get(KEY)
    stored = ours.get(DIGEST) if isinstance(ours, dict) else None
    if stored is not None and stored != weights_digest(folder):
        raise UserError(
            f'{Path(folder) / WEIGHTS} is damaged or was replaced: its sha256 is not the {DIGEST} of {CONFIG}. Export '
            f'it again (remove {folder}, and give the train command with --resume auto), or take {DIGEST} out of '
            f'{CONFIG} if the change is yours.')
