"""`timm-smalldata eval MODEL DIR --probe landmarks`: retrieval by the revisited Oxford and Paris protocol."""
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import torch
import torch.nn.functional as F
from PIL import Image

from ..data.layouts import find_landmarks
from ..evaluation.landmarks import DIFFICULTIES, Answer, landmark_scores
from ..utils.console import Voice
from .published import Viewer, finish, number, percent

OWN = ('multi_scale', 'crop_queries')
SCALES = (1, 2 ** -0.5, 0.5)
KS = (1, 5, 10)


def landmarks(given: Dict[str, Any], output: Optional[Path], say: Voice) -> Dict[str, Any]:
    """Rank the database for each query by the cosine of features; returns the report, in percent."""
    viewer = Viewer(given, own=OWN)
    found = find_landmarks(viewer.root)
    bar = say.bar(len(found.database) + len(found.queries), 'features')
    boxes = found.boxes if 'crop_queries' in given else [None] * len(found.queries)
    database, queries = (torch.cat([
        _feature(viewer, path, box, 'multi_scale' in given, bar) for path, box in zip(paths, cuts)])
        for paths, cuts in ((found.database, [None] * len(found.database)), (found.queries, boxes)))
    ranks = (queries @ database.T).argsort(dim=1, descending=True, stable=True).cpu().numpy()
    scores = landmark_scores(ranks, [Answer(**answer) for answer in found.answers], KS)
    return finish(dict(
        probe=dict(kind='landmarks', img_size=viewer.side, multi_scale='multi_scale' in given,
                   crop_queries='crop_queries' in given),
        model=given['model'], data=str(viewer.root), num_images=len(database), queries=len(queries),
        **{name: dict(map=percent(score['map']), queries=score['queries'], mean_precision={
            f'at_{k}': percent(value) for k, value in score['mean_precision'].items()})
           for name, score in scores.items()}), output, say)


@torch.no_grad()
def _feature(viewer: Viewer, path: Path, box: Optional[Tuple[float, ...]], scales: bool, bar: Any) -> torch.Tensor:
    """Return the feature (1, D) of an image that is no larger than the wanted side, of unit length."""
    image = viewer.read(path)
    if box is not None:
        image = image.crop(tuple(map(round, box)))  # type: ignore[arg-type]
    image.thumbnail((viewer.side, viewer.side), Image.Resampling.LANCZOS)
    pixels = viewer.pixels([image])
    sizes = [pixels] if not scales else [pixels if scale == 1 else F.interpolate(
        pixels, scale_factor=scale, mode='bilinear', align_corners=False) for scale in SCALES]
    features = torch.stack([viewer.model(viewer.cut(size)).float() for size in sizes]).mean(0)
    if bar is not None:
        bar.update(1)
    return F.normalize(features, dim=1)


def format_landmarks(report: Dict[str, Any]) -> str:
    """Return the report as plain text."""
    lines: List[str] = [
        f'landmarks: {report["queries"]} queries among {report["num_images"]} images, as in revisited Oxford and Paris',
        '', f'{"percent":10}{"mAP":>8}' + ''.join(f'{f"mP@{k}":>8}' for k in KS) + f'{"queries":>9}']
    for name in DIFFICULTIES:
        row = report[name]
        lines.append(f'{name:10}{number(row["map"])}' + ''.join(map(number, row['mean_precision'].values()))
                     + f'{row["queries"]:9}')
    return '\n'.join(lines)
