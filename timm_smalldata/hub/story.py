"""What a run folder tells of a model: numbers, settings and the command, without a path of this machine."""
import json
import math
import os
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Optional

from ..config.flags import BY_DEST, given_words
from ..config.parser import parse_flags
from ..data.classes import ClassInfo
from ..errors import UserError
from ..utils.command import FILE, SCRIPT
from ..utils.files import read_csv
from ..utils.model_folder import WEIGHTS, read_config
from .export import load_classes

PUBLIC = ('sample/', 'torch/', 'hfds/', 'tfds/')  # data sets that everyone can get by that name
_PLACES = ('DIR', 'FILE', 'PATH')


@dataclass(frozen=True)
class Story:
    """All that a card can tell.

    Attributes:
        config: `config.json` of the model.
        classes: Names and training counts.
        parameters: Numbers that the weights hold.
        size: Bytes of the weights.
        report: `report.json`, or empty.
        rows: `per_class.csv`, or empty.
        settings: `args.yaml`, or empty.
        machine: `environment.json`, or empty.
        split: `split.json`: images by role and their hash, or empty.
    """
    config: Dict[str, Any]
    classes: ClassInfo
    parameters: int
    size: int
    report: Dict[str, Any] = field(default_factory=dict)
    rows: List[Dict[str, str]] = field(default_factory=list)
    settings: Dict[str, Any] = field(default_factory=dict)
    machine: Dict[str, Any] = field(default_factory=dict)
    split: Dict[str, Any] = field(default_factory=dict)

    @property
    def headless(self) -> bool:
        """The model gives features, no class scores."""
        return not self.config['num_classes']

    @property
    def data_name(self) -> Optional[str]:
        """The data set, where it is one that everyone knows by that name."""
        name = str(self.settings.get('dataset') or '')
        return name if name.startswith(PUBLIC) else None

    @property
    def command(self) -> Optional[str]:
        """The command that trained it, with paths reduced; None where it is not known."""
        return reduced_command(self.machine.get('command') or '')


def read_story(source: Path) -> Story:
    """Read the story of an exported model from its folder and the run folder around it; an older run tells less.

    Args:
        source: A complete `model/` folder.

    Raises:
        UserError: A file of the run is damaged.
    """
    from safetensors import safe_open
    run = source.parent
    with safe_open(source / WEIGHTS, 'pt') as weights:
        names = weights.keys()
        shapes = [weights.get_slice(name).get_shape() for name in names if 'running_' not in name]
    numbers = sum(math.prod(shape) for shape in shapes)
    return Story(
        read_config(source), load_classes(source), numbers, (source / WEIGHTS).stat().st_size,
        _json(run / 'report.json'), _rows(run / 'per_class.csv'), _settings(run / 'args.yaml'),
        _json(run / 'environment.json'), _json(run / 'split.json'))


def reduced_command(command: str) -> Optional[str]:
    """Return a train command without what only this machine knows; None for what is none.

    Folders and files become their kind, and what cannot change the result (`--output`, `--workers`) is left out.

    >>> reduced_command('python /home/me/train_smalldata.py /home/me/pets --loss ldam --output /x --class-map a.csv')
    'train-smalldata IMAGES --loss ldam --class-map FILE'
    """
    words = shlex.split(command)
    while words and Path(words[0]).name not in (FILE, SCRIPT, FILE.removesuffix('.py'), 'train'):
        words.pop(0)
    try:
        given, staged = parse_flags(words[1:])
    except UserError:  # flags of another version
        return None
    if not words:
        return None
    said = [SCRIPT, *given_words(_reduced(given))]
    for stage, values in staged.items():
        said += [word.replace('--', f'--{stage}.', 1) for word in given_words(_reduced(values))]
    return shlex.join(said)


def _reduced(given: Dict[str, Any]) -> Dict[str, Any]:
    kept: Dict[str, Any] = {}
    for dest, value in given.items():
        flag = BY_DEST.get(dest)
        if dest == 'data_dir':
            kept[dest] = 'IMAGES'
        elif flag is None or flag.may_change or dest == 'config':  # its values stand there too
            continue
        elif flag.metavar in _PLACES or (isinstance(value, str) and _is_place(value)):
            kept[dest] = flag.metavar if flag.metavar in _PLACES else 'PATH'
        else:
            kept[dest] = value
    return kept


def _is_place(text: str) -> bool:
    return os.path.isabs(text) or bool(re.match(r'local-dir:|[~.]|[A-Za-z]:[\\/]', text)) or (
        not text.startswith(PUBLIC) and os.path.exists(text) and os.sep in text)


def _json(path: Path) -> Dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding='utf-8')) if path.is_file() else {}
    except ValueError as error:
        raise UserError(f'{path} is not JSON ({error}); resume the run to write it again.') from error


def _rows(path: Path) -> List[Dict[str, str]]:
    return read_csv(path) if path.is_file() else []


def _settings(path: Path) -> Dict[str, Any]:
    from ..config.yaml_file import load_yaml
    content = load_yaml(str(path)) if path.is_file() else {}
    return content if isinstance(content, dict) else {}
