"""The first filters of a model from scratch, made of the training images."""
from argparse import Namespace
from typing import Optional

import numpy as np
import torch
from torch import nn

from ..data.source import ImageSource
from ..data.views import ViewSpec, normalise, render
from ..errors import UserError
from ..models.whitening import whiten_

IMAGES = 512  # evenly taken from all training images


def initialise_stem(args: Namespace, model: nn.Module, source: ImageSource, view: ViewSpec) -> None:
    """Let the first convolution of a new model whiten and learn nothing, where `--stem-init whitening` asks for it.

    One that comes from earlier weights stays as it is.

    Args:
        args: The settings.
        model: The model.
        source: The training images.
        view: How evaluation sees them: nothing is drawn.

    Raises:
        UserError: The model does not begin with a convolution.
    """
    if args.stem_init != 'whitening':
        return
    conv = first_convolution(model)
    if conv is None or conv.groups != 1 or conv.in_channels != 3:
        raise UserError(f'--stem-init whitening: {args.model} does not begin with a plain convolution of colour '
                        'images: leave the flag out.')
    conv.weight.requires_grad_(False)
    if args.initial_checkpoint or args.pretrained:
        return
    indices = np.unique(np.linspace(0, len(source) - 1, IMAGES).astype(int))
    images = torch.stack([normalise(render(source.read(int(i))[0], view), view.mean, view.std) for i in indices])
    whiten_(conv, images)


def first_convolution(model: nn.Module) -> Optional[nn.Conv2d]:
    """Return the convolution that sees the image, as timm names it; None if there is none."""
    name = getattr(model, 'pretrained_cfg', {}).get('first_conv')
    module = dict(model.named_modules()).get(name) if isinstance(name, str) else None
    return module if isinstance(module, nn.Conv2d) else None
