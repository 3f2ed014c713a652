"""An exported `model/` folder: its two files, whether they are whole, and where in a run it lies."""
import json
import re
from pathlib import Path
from typing import Any, Dict, List, Union

from ..errors import UserError
from .text import natural_key

CONFIG, WEIGHTS = 'config.json', 'model.safetensors'
KEY = 'timm_smalldata'  # our part of config.json, which timm carries along unread


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
    """Return `config.json` of an exported model."""
    return json.loads((Path(folder) / CONFIG).read_text(encoding='utf-8'))
