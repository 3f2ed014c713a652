"""What the doctor found, as text, JSON and one page of HTML with small pictures."""
import base64
import html
import io
from collections import Counter
from typing import Any, Callable, Dict, List, Optional

from PIL import Image

from ..data.findings import KINDS, Finding

SHOWN = 8  # of each kind on the screen
PICTURES = 200  # findings with pictures of each kind on the page


def counts(found: List[Finding]) -> Dict[str, int]:
    """Return how many findings there are of each kind, in the order of weight."""
    number = Counter(finding.kind for finding in found)
    return {kind: number[kind] for kind in KINDS if number[kind]}


def format_findings(found: List[Finding], num_images: int, num_classes: int) -> str:
    """Return the findings as plain text."""
    lines = [f'{num_images} images, {num_classes} classes']
    for kind, number in counts(found).items():
        these = [finding for finding in found if finding.kind == kind]
        lines += ['', f'{kind}: {number} ({KINDS[kind]})' + ('' if these[0].is_error else ', to look at')]
        lines += [f'  {finding.text}' for finding in these[:SHOWN]]
        lines += [f'  ... and {number - SHOWN} more (--json lists all)'] if number > SHOWN else []
    errors = sum(finding.is_error for finding in found)
    lines += ['', f'{errors} to put right, {len(found) - errors} to look at' if found else 'nothing found']
    return '\n'.join(lines)


def page(found: List[Finding], title: str, picture: Callable[[Dict[str, str]], Optional[Image.Image]]) -> str:
    """Return one HTML page: no script, nothing fetched, every name escaped.

    Args:
        found: The findings.
        title: What they are about.
        picture: Returns an image by its entry in a finding; None where it cannot be read.
    """
    parts = [
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{_text(title)}</title><style>'
        'body{font:15px sans-serif;margin:2em;max-width:70em}figure{display:inline-block;margin:.3em 1em .3em 0;'
        'font-size:12px;max-width:14em;overflow-wrap:anywhere}img{display:block;height:112px}li{margin:.6em 0}</style>'
        f'<h1>{_text(title)}</h1>']
    for kind, number in counts(found).items():
        parts.append(f'<h2>{_text(kind)}: {number}</h2><p>{_text(KINDS[kind])}</p><ul>')
        for place, finding in enumerate(f for f in found if f.kind == kind):
            figures = ''.join(_figure(entry, picture) for entry in finding.images[:6]) if place < PICTURES else ''
            parts.append(f'<li>{_text(finding.text)}<br>{figures}</li>')
        parts.append('</ul>')
    if not found:
        parts.append('<p>Nothing found.</p>')
    return '\n'.join(parts) + '</html>\n'


def _figure(entry: Dict[str, Any], picture: Callable[[Dict[str, str]], Optional[Image.Image]]) -> str:
    image = picture(entry)
    if image is None:
        return ''
    small = image.copy()
    small.thumbnail((224, 112))
    stream = io.BytesIO()
    small.save(stream, 'JPEG', quality=80)
    data = base64.b64encode(stream.getvalue()).decode()
    return (f'<figure><img alt="" src="data:image/jpeg;base64,{data}"><figcaption>{_text(entry["name"])}<br>'
            f'{_text(entry["split"])}, {_text(entry["label"])}</figcaption></figure>')


def _text(text: str) -> str:
    return html.escape(text)
