"""For the site: the `>>>` examples of docstrings are shown as code."""
from typing import Any, List

import griffe


def fenced(text: str) -> str:
    r"""Put each paragraph that begins with `>>>` into a block of its own.

    >>> fenced('One.\n\n>>> 1 + 1\n2')
    'One.\n\n```pycon\n>>> 1 + 1\n2\n```'
    """
    lines: List[str] = []
    inside = False
    for line in text.split('\n'):
        if not inside and line.startswith('>>> '):
            lines.append('```pycon')
            inside = True
        elif inside and not line.strip():
            lines.append('```')
            inside = False
        lines.append(line)
    return '\n'.join([*lines, '```'] if inside else lines)


class DoctestBlocks(griffe.Extension):
    """Rewrites docstrings before they are read."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring:
            obj.docstring.value = fenced(obj.docstring.value)
