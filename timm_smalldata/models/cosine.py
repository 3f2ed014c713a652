"""A cosine classifier for any timm model, and its way back into a plain head."""
from contextlib import contextmanager
from typing import Any, Dict, Iterable, Iterator, List, Tuple

import torch
import torch.nn.functional as F
from torch import nn

from ..errors import UserError


class CosineClassifier(nn.Module):
    """`scale * cos(feature, class vector)`, without bias (LDAM's normalised classifier, arXiv:1906.07413, sec. 4).

    Args:
        in_features: Width of the features, D.
        num_classes: Classes, C.
        scale: Factor of the cosines; logits lie in [-scale, scale].

    >>> head = CosineClassifier(4, 3)
    >>> logits = head(torch.randn(2, 4))
    >>> logits.shape, bool((logits.abs() <= 30).all())
    (torch.Size([2, 3]), True)
    """

    def __init__(self, in_features: int, num_classes: int, scale: float = 30.):
        super().__init__()
        self.in_features, self.out_features, self.scale = in_features, num_classes, scale
        self.weight = nn.Parameter(torch.empty(num_classes, in_features))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.uniform_(self.weight, -1, 1)
        with torch.no_grad():
            self.weight.copy_(F.normalize(self.weight))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # In float32: half a cosine next to 1 would be wrong by more than a margin in the tail.
        with torch.autocast(x.device.type, enabled=False):
            return self.scale * F.linear(F.normalize(x.float(), dim=-1), F.normalize(self.weight.float(), dim=-1))

    def extra_repr(self) -> str:
        return f'in_features={self.in_features}, out_features={self.out_features}, scale={self.scale:g}'


def heads(model: Any) -> List[Tuple[str, nn.Module]]:
    """Return name and module of each classifier of a timm model (two in a distilled one)."""
    classifier = model.get_classifier()
    layers = classifier if isinstance(classifier, (tuple, list)) else (classifier,)
    names = {id(module): name for name, module in model.named_modules()}
    return [(names[id(layer)], layer) for layer in layers]


def set_cosine_head(model: Any, scale: float = 30.) -> None:
    """Put cosine classifiers, drawn anew, in the place of a timm model's linear ones.

    Args:
        model: Any timm model with linear classifiers; changed in place.
        scale: See `CosineClassifier`.

    Raises:
        UserError: A classifier is not linear, or there is one that timm keeps to itself.
    """
    kind, found = type(model).__name__, heads(model)
    if all(isinstance(layer, CosineClassifier) for _, layer in found):
        return
    for _, layer in found:
        if not isinstance(layer, nn.Linear):
            raise UserError(
                f'--head cosine needs a model with a linear classifier; that of {kind} is {type(layer).__name__}.')
    known = model.pretrained_cfg.get('classifier') or ()
    modules = dict(model.named_modules())
    for name in known if isinstance(known, (tuple, list)) else (known,):
        if isinstance(modules.get(name), nn.Linear) and name not in dict(found):  # VOLO's aux_head adds to its head
            raise UserError(f'--head cosine does not go with {kind}: it has another classifier beside, {name}.')
    for name, layer in found:
        assert isinstance(layer, nn.Linear)
        head = CosineClassifier(layer.in_features, layer.out_features, scale).to(layer.weight.device)
        model.set_submodule(name, head)


@torch.no_grad()
def set_directions(model: nn.Module, weights: Dict[str, torch.Tensor]) -> None:
    """Let cosine heads begin with the directions of trained class vectors.

    Args:
        model: A model with cosine heads; changed in place.
        weights: State dict of a model with the same classes, whatever the kind of its head; heads that it lacks stay.
    """
    for name, layer in heads(model):
        vectors = weights.get(f'{name}.weight')
        if isinstance(layer, CosineClassifier) and vectors is not None and vectors.shape == layer.weight.shape:
            layer.weight.copy_(F.normalize(vectors.float()))


def has_cosine_head(model: nn.Module) -> bool:
    """Return whether the model has a classifier that only this package knows: one put in by `set_cosine_head`."""
    return not getattr(model, 'own_cosine_head', False) and any(
        isinstance(layer, CosineClassifier) for _, layer in heads(model))


@torch.no_grad()
def mean_feature_norms(model: nn.Module, batches: Iterable[torch.Tensor]) -> List[float]:
    """Return the mean length of the features that reach each classifier, in evaluation mode.

    Args:
        model: A timm model.
        batches: Images (B, 3, h, w).
    """
    layers = [layer for _, layer in heads(model)]
    sums, images, training = [0.0] * len(layers), 0, model.training
    model.eval()
    with _inputs(layers) as caught:
        for batch in batches:
            caught.clear()
            model(batch)
            images += len(batch)
            for i, layer in enumerate(layers):
                sums[i] += float(caught[id(layer)].float().norm(dim=-1).sum())
    model.train(training)
    return [total / max(images, 1) for total in sums]


@contextmanager
def _inputs(layers: List[nn.Module]) -> Iterator[dict]:
    caught: dict = {}
    handles = [layer.register_forward_pre_hook(lambda module, args: caught.update({id(module): args[0].detach()}))
               for layer in layers]
    try:
        yield caught
    finally:
        for handle in handles:
            handle.remove()


@torch.no_grad()
def fold_cosine_head(model: nn.Module, feature_norms: List[float]) -> None:
    """Put plain linear heads in the place of cosine ones, so that stock timm can hold the model.

    `weight = s * W / |W|` and bias 0, with s = scale / mean feature norm: the ranking of the classes is the same for
    every image, and the probabilities are those of the cosine head for features of mean length.

    Args:
        model: A model with cosine heads; changed in place.
        feature_norms: `mean_feature_norms` over the training images.
    """
    for (name, layer), norm in zip(heads(model), feature_norms):
        assert isinstance(layer, CosineClassifier)
        linear = nn.Linear(layer.in_features, layer.out_features).to(layer.weight.device)
        linear.weight.copy_(F.normalize(layer.weight) * (layer.scale / max(norm, 1e-12)))
        nn.init.zeros_(linear.bias)
        model.set_submodule(name, linear)
