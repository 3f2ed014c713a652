"""What was measured and chosen, in a file of the run's folder: it is there before the first step."""
import json
from pathlib import Path
from typing import Any, Dict, Iterable, Optional

from ..utils.files import write_json_atomic

CHOICE = 'choice.json'
_EVERYONE = 'all runs of an experiment'


def write_choice(folder: Path, reason: Dict[str, Any], values: Dict[str, Any]) -> None:
    """Write chosen values, and the images, flags and machine that they were chosen for."""
    write_json_atomic(folder / CHOICE, dict(chosen_for=reason, values=values))


def read_choice(folder: Path, reason: Dict[str, Any]) -> Optional[Dict[str, Any]]:
    """Return the values that an earlier start of a run has chosen; None where there are none.

    Values that were chosen for something else are not taken; those that an experiment has shared are.
    """
    try:
        stored = json.loads((folder / CHOICE).read_text(encoding='utf-8'))
        same = stored['chosen_for'] in (_EVERYONE, json.loads(json.dumps(reason)))
        return dict(stored['values']) if same else None
    except (OSError, ValueError, KeyError, TypeError):  # not there, or damaged
        return None


def share_choice(source: Path, folders: Iterable[Path]) -> None:
    """Put what was chosen in one folder into those of other runs, whatever their flags; what is there stays."""
    values = json.loads((source / CHOICE).read_text(encoding='utf-8'))['values']
    for folder in folders:
        if not (folder / CHOICE).exists():
            folder.mkdir(parents=True, exist_ok=True)
            write_json_atomic(folder / CHOICE, dict(chosen_for=_EVERYONE, values=values))
