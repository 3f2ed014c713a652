"""`timm-smalldata eval MODEL DIR --probe copies`: each copy looks for its original, by Copydays' protocol."""
from pathlib import Path
from typing import Any, Dict, List, Optional

import torch

from ..data.layouts import find_copies
from ..engine.tokens import last_tokens
from ..errors import UserError
from ..evaluation.copies import Whitening, copy_descriptor, copy_precision
from ..utils.console import Voice
from .published import Viewer, finish, number

SIDE = 320


def copies(given: Dict[str, Any], output: Optional[Path], say: Voice) -> Dict[str, Any]:
    """Rank originals and distractors for each copy; returns the report, in percent."""
    viewer = Viewer(given, SIDE)
    found = find_copies(viewer.root)
    files = sum((len(pairs) for pairs in found.blocks.values()), len(found.originals) + len(found.distractors))
    bar = say.bar(files + len(found.whitening), 'descriptors')

    @torch.no_grad()
    def describe(paths: List[Path]) -> torch.Tensor:
        try:
            parts = [copy_descriptor(*last_tokens(viewer.model, batch)) for batch in viewer.squares(paths, bar)]
        except ValueError as error:
            raise UserError(f'{given["model"]} has no patches to describe an image by: {error}') from error
        return torch.cat(parts)

    database = describe([*found.originals, *found.distractors])
    source = 'whitening' if found.whitening else 'distractors' if found.distractors else None
    whiten = Whitening(describe(found.whitening) if found.whitening else database[len(found.originals):]) \
        if source else None
    database = whiten(database) if whiten else database
    blocks = {}
    for name, pairs in found.blocks.items():
        queries = describe([path for path, _ in pairs])
        precision = copy_precision(whiten(queries) if whiten else queries, database, [right for _, right in pairs])
        blocks[name] = dict(map=100 * float(precision.mean()), copies=len(pairs))
    return finish(dict(
        probe=dict(kind='copies', img_size=viewer.side, whitened_by=source), model=given['model'],
        data=str(viewer.root), originals=len(found.originals), distractors=len(found.distractors), blocks=blocks,
        map=sum(block['map'] * block['copies'] for block in blocks.values()) / sum(
            block['copies'] for block in blocks.values())), output, say)


def format_copies(report: Dict[str, Any]) -> str:
    """Return the report as plain text."""
    source = report['probe']['whitened_by']
    whitened = f'whitened by {source}' if source else 'not whitened (no whitening/ or distractors/)'
    lines = [f'copies: each looks for its original among {report["originals"]} and {report["distractors"]} '
             f'distractors; {whitened}', '',
             f'{"percent":24}{"mAP":>8}{"copies":>9}']
    lines += [f'{name:24}{number(block["map"])}{block["copies"]:9}' for name, block in report['blocks'].items()]
    return '\n'.join([*lines, f'{"all":24}{number(report["map"])}'])
