"""`timm-smalldata eval MODEL [DIR] --probe retrieval`: each image looks for the others of its class; with a picture."""
import tempfile
from argparse import Namespace
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

import numpy as np
import torch

from ..build.eval_images import called, find_images
from ..build.loaders import eval_loader
from ..build.trained import TrainedModel
from ..data.source import ImageSource
from ..data.views import eval_view
from ..engine.features import gather_features
from ..errors import UserError
from ..evaluation.retrieval import class_means, retrieval_scores
from ..task import ClassificationTask
from ..utils.console import Voice
from ..utils.distributed import World
from ..utils.files import write_json_atomic
from . import model_flags

PICTURE, ROWS, COLUMNS = 'neighbours.png', 10, 8
GREEN, RED = '#009e73', '#d55e00'  # told apart by the colour-blind too


def retrieve(
        args: Namespace,
        trained: TrainedModel,
        own: Optional[Path],
        split: Optional[str],
        device: torch.device,
        output: Optional[Path],
        say: Voice,
) -> Dict[str, Any]:
    """Rank the images of a split by the features of a model; returns the report, in percent.

    Args:
        args: From `model_flags.settings`.
        trained: The model; a classifier that it has is taken off.
        own: The run whose own images are meant; None for images that the user names.
        split: Which split of them.
        device: Where the model runs.
        output: Folder for `retrieval.json` and the picture; None writes nothing.
        say: Prints notes.

    Raises:
        UserError: There are no such images, or no class has two of them.
    """
    notes: List[str] = []
    config, model = trained.config, trained.model.to(device).float()
    with tempfile.TemporaryDirectory(prefix='timm-smalldata-', ignore_cleanup_errors=True) as temporary:
        args.cache_dir = args.cache_dir or (own and model_flags.kept_cache(own)) or temporary
        images = find_images(args, trained, own, split, notes, say.bar, labelled=False)
        for note in notes:
            say(f'note: {note}')
        labels = torch.as_tensor(images.source.targets)
        counts = labels.bincount(minlength=len(images.names))
        if counts.max() < 2:
            where = called(args, images.split)
            raise UserError(f'--probe retrieval: no class of {where} has two images.')
        model.reset_classifier(0)
        task = ClassificationTask(model, criterion=torch.nn.Identity(), device=device, verbose=False)
        view = eval_view(args.img_size, config['crop_pct'], config['interpolation'], config['mean'], config['std'])
        loader = eval_loader(args, images.source, view, World(), device)
        assert loader is not None
        features, _ = gather_features(task, model, loader)
        found = {name: value.cpu() for name, value in retrieval_scores(features, labels.to(device), COLUMNS).items()}
        precision, nearest = found['average_precision'], found['nearest']
        by_class = class_means(precision, labels)
        asked = precision.isfinite()
        report = dict(
            probe=dict(kind='retrieval'), split=images.split, num_images=len(labels), queries=int(asked.sum()),
            classes=int((counts > 0).sum()),
            map=100 * precision[asked].mean().item(), balanced_map=100 * float(np.mean(list(by_class.values()))),
            nearest_right=100 * (labels[nearest[asked, 0]] == labels[asked]).double().mean().item(),
            map_by_class={images.names[c]: 100 * value for c, value in by_class.items()})
        if output is not None:
            draw_neighbours(output / PICTURE, images.source, images.names, choose(asked), nearest)
            write_json_atomic(output / 'retrieval.json', report)
    return report


def format_retrieval(report: Dict[str, Any]) -> str:
    """Return the report as plain text."""
    alone = report['num_images'] - report['queries']
    lines = [
        f'retrieval: {report["num_images"]} images of the split {report["split"]}, {report["classes"]} classes; each '
        'looks for the others of its class',
        *([f'{alone} images are alone in their class and ask for nothing'] if alone else []), '',
        f'mean average precision                  {report["map"]:6.2f} %',
        f'mean over classes                       {report["balanced_map"]:6.2f} %',
        f'the nearest image is of the same class  {report["nearest_right"]:6.2f} %']
    return '\n'.join(lines)


def choose(asked: torch.Tensor, rows: int = ROWS) -> List[int]:
    """Return queries for the picture, evenly from all that ask.

    >>> choose(torch.tensor([True, False, True, True]), 2)
    [0, 3]
    """
    there = asked.nonzero().flatten().tolist()
    return [there[i] for i in np.unique(np.linspace(0, len(there) - 1, min(rows, len(there))).round().astype(int))]


def draw_neighbours(
        path: Path, source: ImageSource, names: Sequence[str], queries: Sequence[int], nearest: torch.Tensor,
) -> None:
    """Write a picture: each row a query and the images nearest to it, in a green frame where its class is the same.

    Args:
        path: Where.
        source: The images.
        names: Names of the classes.
        queries: Positions of the queries.
        nearest: Positions (N, K) of the images nearest to each image.
    """
    from matplotlib.figure import Figure
    columns = 1 + nearest.shape[1]
    figure = Figure(figsize=(1.2 * columns + 0.6, 1.25 * len(queries)), layout='constrained')
    axes = figure.subplots(len(queries), columns, squeeze=False)
    for row, query in zip(axes, queries):
        for axis, index in zip(row, [query, *nearest[query].tolist()]):
            image, label = source.read(index)
            axis.imshow(image)
            axis.set_xticks([])
            axis.set_yticks([])
            if axis is not row[0]:
                right = label == source.targets[query]
                axis.spines[:].set(linewidth=3, color=GREEN if right else RED, linestyle='-' if right else ':')
        name = names[source.targets[query]]
        row[0].set_ylabel(name if len(name) <= 16 else f'{name[:15]}…', fontsize=8)
    figure.savefig(path, dpi=120, metadata={'Software': None})
