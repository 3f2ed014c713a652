"""What stock timm cannot hold is put into a form that it can, before a model is exported."""
from argparse import Namespace
from copy import deepcopy
from typing import Any, Dict, Tuple

import torch
from torch import nn

from ..build.loaders import eval_loader
from ..build.roles import Data
from ..data.views import ViewSpec
from ..models.cosine import fold_cosine_head, has_cosine_head, mean_feature_norms
from ..utils.distributed import World


def plain_model(
        args: Namespace, model: nn.Module, data: Data, spec: ViewSpec, device: torch.device,
) -> Tuple[nn.Module, Dict[str, Any]]:
    """Return the model as stock timm can hold it, and what was changed for that, for its config and the screen."""
    if not has_cosine_head(model):
        return model, {}
    loader = eval_loader(args, data.train, spec, World(), device)
    assert loader is not None
    plain = deepcopy(model).to(device)  # an average may lie on the CPU
    norms = mean_feature_norms(plain, (batch.views[0] for batch in loader))
    fold_cosine_head(plain, norms)
    told = ' and '.join(f'{norm:.4g}' for norm in norms)
    note = (
        f'cosine head folded into a plain one: weight = s * W / |W|, bias 0, s = {args.head_scale:g} / {told} (mean '
        'length of the training features): the same ranking of classes, nearly the same probabilities')
    return plain, dict(notes=[note])
