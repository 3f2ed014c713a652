"""What a task really sees of the first images of an epoch, as a picture (`--save-images`)."""
from pathlib import Path
from typing import Dict, Sequence

import torch

from ..analysis.pictures import colours, draw_images
from ..data.loader import Batch, ViewLoader
from ..task import TaskHooks
from ..utils.files import open_atomic
from ..utils.random import seed_step

FILE = 'images.png'
ROWS = 8


def save_images(
        task: TaskHooks, loader: ViewLoader, names: Sequence[str], *, epoch: int, seed: int, folder: Path,
) -> None:
    """Draw every view of the first images of an epoch: cut, coloured, erased and mixed as the training has them.

    The draws of the run stay as they are: all come from the seed, the epoch and the number of the batch.

    Args:
        task: A timm `TrainingTask` with the hooks of `task.base`.
        loader: Its training views.
        names: Names of the training images, by `Batch.index`.
        epoch: Whose first batch is drawn.
        seed: The run's seed.
        folder: Where `images.png` is put.
    """
    task.set_epoch(epoch)
    loader.set_epoch(epoch)
    batch: Batch = next(iter(loader))
    seed_step(seed, 0, batch.epoch, batch.step)
    columns: Dict[str, torch.Tensor] = task.seen(batch)
    rows = min(ROWS, len(batch))
    labels = [Path(names[int(index)]).name[-16:] for index in batch.index[:rows]]
    spec = loader.specs[0]
    figure = draw_images(
        {f'{name}\n{images.shape[-1]} px': colours(images[:rows], spec.mean, spec.std)
         for name, images in columns.items()}, labels, title=f'What is seen of the first images of epoch {epoch}')
    with open_atomic(folder / FILE, binary=True) as stream:
        figure.savefig(stream, format='png', dpi=100, metadata={'Software': None})
