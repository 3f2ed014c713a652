"""Features of all images of a loader, in their order, on every process."""
from contextlib import nullcontext
from typing import Tuple

import torch
from torch import nn

from ..data.loader import ViewLoader
from ..errors import UserError
from ..task import TaskHooks
from ..utils.distributed import World
from .train import Autocast


@torch.no_grad()
def gather_features(
        task: TaskHooks, model: nn.Module, loader: ViewLoader, world: World = World(), autocast: Autocast = nullcontext,
) -> Tuple[torch.Tensor, torch.Tensor]:
    """Return the features (M, D) and labels (M,) of all images of a loader, in their order, on every rank.

    Args:
        task: `predict` gives the features, the first of its predictions.
        model: In evaluation mode for the time being.
        loader: This rank's share of the images.
        world: This process.
        autocast: Makes the autocast context.

    Raises:
        UserError: The model does not give one vector for each image.
    """
    training = model.training
    model.eval()
    mine = []
    for batch in loader:
        with autocast():
            features = task.predict(model, batch.views[0])[task.predicted[0]]
        mine.append((features.float().cpu(), batch.target.cpu(), batch.index))
    model.train(training)
    parts = [part for share in world.gather(mine) for part in share]
    features, labels, index = (torch.cat(values) for values in zip(*parts))
    if features.ndim != 2:
        raise UserError(
            f'--probe needs one vector of features for each image, and the model gives {tuple(features.shape[1:])}: '
            'choose a pooling (--gp avg).')
    order = index.argsort()
    return features[order].to(loader.device), labels[order].to(loader.device)
