"""The most confident mistakes of a run, with thumbnails; they stay in the run folder, which is never pushed."""
import base64
import io
import json
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

from PIL import Image

from ..data.source import ImageSource
from ..evaluation.mistakes import Mistake
from ..utils.files import write_json_atomic

FILE = 'mistakes.json'
SIDE = 112  # pixels of a thumbnail


def write_mistakes(
        folder: Path, mistakes: Sequence[Mistake], source: Optional[ImageSource], names: Sequence[str],
) -> None:
    """Write `mistakes.json`: image, classes, confidence in percent and a small JPEG of each mistake.

    Args:
        folder: Run folder.
        mistakes: From the surest on.
        source: The images that were judged; None: nothing was.
        names: Class names.
    """
    rows: List[Dict[str, Any]] = []
    for m in mistakes if source is not None else ():
        assert source is not None
        rows.append({
            'image': source.names[m.place], 'class': names[m.target], 'predicted': names[m.predicted],
            'confidence': round(100 * m.confidence, 2), 'thumbnail': _thumbnail(source.read(m.place)[0])})
    write_json_atomic(folder / FILE, rows)


def read_mistakes(folder: Path) -> List[Dict[str, Any]]:
    """Return what was written; nothing for an older run."""
    path = folder / FILE
    return json.loads(path.read_text(encoding='utf-8')) if path.is_file() else []


def _thumbnail(image: Image.Image) -> str:
    small = image.copy()
    small.thumbnail((SIDE, SIDE))
    stream = io.BytesIO()
    small.save(stream, 'JPEG', quality=80)
    return base64.b64encode(stream.getvalue()).decode()
