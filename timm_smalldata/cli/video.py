"""`timm-smalldata eval MODEL DIR --probe video`: masks of first frames are carried on, and judged as DAVIS does."""
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from ..data.layouts import Video, find_videos
from ..engine.tokens import last_tokens
from ..errors import UserError
from ..evaluation.propagation import LabelPropagation, label_map
from ..evaluation.video_masks import contour_accuracy, over_time, region_similarity
from ..utils.console import Voice
from .published import Viewer, finish, number

SIDE, STEP = 480, 64
VOID = 255
Scores = Dict[str, List[float]]


def video(given: Dict[str, Any], output: Optional[Path], say: Voice) -> Dict[str, Any]:
    """Segment every video and judge it; returns the report, in percent. Masks are written where there is an output."""
    viewer = Viewer(given, SIDE)
    videos = find_videos(viewer.root)
    bar = say.bar(sum(len(found.frames) for found in videos), 'frames')
    objects: Dict[str, Scores] = {}
    for found in videos:
        for label, scores in segment(viewer, found, output, bar).items():
            objects[f'{found.name}_{label}'] = scores
    if not objects:
        raise UserError(f'{viewer.root}: no frame between a first and a last one has a mask, so nothing can be judged.')
    over = {name: {what: over_time(values) for what, values in scores.items()} for name, scores in objects.items()}
    means = {what: {key: 100 * float(np.mean([scores[what][key] for scores in over.values()]))
                    for key in ('mean', 'recall', 'decay')} for what in 'JF'}
    return finish(dict(
        probe=dict(kind='video', img_size=viewer.side), model=given['model'], data=str(viewer.root), videos=len(videos),
        objects=len(over), jf_mean=(means['J']['mean'] + means['F']['mean']) / 2, **means,
        by_object={name: {what: 100 * scores[what]['mean'] for what in 'JF'} for name, scores in over.items()}),
        output, say)


@torch.no_grad()
def segment(viewer: Viewer, found: Video, output: Optional[Path], bar: Any) -> Dict[int, Scores]:
    """Carry the mask of the first frame through a video.

    Returns:
        For each object J and F of the frames between the first and the last that have a mask.
    """
    assert found.masks[0] is not None
    first = read_mask(found.masks[0])
    labels = [0, *(int(label) for label in np.unique(first) if label)]
    scores: Dict[int, Scores] = {label: dict(J=[], F=[]) for label in labels[1:]}
    carry: Optional[LabelPropagation] = None
    for place, (frame, mask) in enumerate(zip(found.frames, found.masks)):
        image = viewer.read(frame)
        pixels = F.interpolate(viewer.pixels([image]), frame_size(image.size, viewer.side, viewer.multiple),
                               mode='bilinear', align_corners=False)
        try:
            patches = last_tokens(viewer.model, pixels)[1][0]
        except ValueError as error:
            raise UserError(f'{viewer.name} has no patches to follow: {error}') from error
        if carry is None:
            small = Image.fromarray(first).resize((patches.shape[1], patches.shape[0]), Image.Resampling.NEAREST)
            known = torch.from_numpy(np.stack([np.asarray(small) == label for label in labels]))
            carry, result = LabelPropagation(patches, known.to(patches.device)), first
        else:
            places = label_map(carry(patches), tuple(pixels.shape[-2:])).cpu().numpy()  # type: ignore[arg-type]
            indexed = np.asarray(labels, dtype=np.uint8)[places]
            result = np.asarray(Image.fromarray(indexed).resize(image.size, Image.Resampling.NEAREST))
        if mask is not None and 0 < place < len(found.frames) - 1:
            true = read_mask(mask)
            if true.shape != result.shape:
                raise UserError(f'{mask} has {true.shape[1]} x {true.shape[0]} pixels, its frame {image.width} x '
                                f'{image.height}.')
            for label in scores:
                scores[label]['J'].append(region_similarity(result == label, true == label))
                scores[label]['F'].append(contour_accuracy(result == label, true == label))
        if output is not None:
            (output / found.name).mkdir(exist_ok=True)
            Image.fromarray(result).save(output / found.name / f'{frame.stem}.png')
        if bar is not None:
            bar.update(1)
    return {label: values for label, values in scores.items() if values['J']}


def read_mask(path: Path) -> np.ndarray:
    """Return the object of each pixel (height, width), uint8; pixels of no known object (255) are ground."""
    try:
        with Image.open(path) as image:
            mask = np.array(image)
    except (OSError, ValueError) as error:
        raise UserError(f'{path} cannot be read: {error}') from error
    if mask.ndim != 2:
        raise UserError(f'{path} is no indexed mask: each pixel holds the number of an object, 0 is the ground.')
    mask = mask.astype(np.uint8)
    return np.where(mask == VOID, 0, mask).astype(np.uint8)


def frame_size(size: Tuple[int, int], side: int, multiple: int) -> Tuple[int, int]:
    """Return height and width of a frame whose shorter side is to be `side`, cut down to whole patches.

    As published, the other side is cut down to a multiple of 64 where patches fit into that.

    >>> frame_size((854, 480), 480, 16), frame_size((480, 854), 480, 16), frame_size((300, 200), 35, 14)
    ((480, 832), (832, 480), (28, 42))
    """
    width, height = size
    short = max(side // multiple, 1) * multiple
    step = STEP if STEP % multiple == 0 and short >= STEP else multiple
    long = max(int(side * max(size) / min(size)) // step * step, short)
    return (long, short) if height > width else (short, long)


def format_video(report: Dict[str, Any]) -> str:
    """Return the report as plain text."""
    lines = [f'video: {report["objects"]} objects in {report["videos"]} videos, carried on from their first frames', '',
             f'{"percent":20}{"mean":>8}{"recall":>8}{"decay":>8}']
    for what, words in (('J', 'regions (J)'), ('F', 'contours (F)')):
        lines.append(f'{words:20}' + ''.join(number(report[what][key]) for key in ('mean', 'recall', 'decay')))
    return '\n'.join([*lines, f'{"J and F":20}{number(report["jf_mean"])}'])
