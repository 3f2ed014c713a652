"""Corrections of a trained model that need no training, judged: each result stands beside the raw numbers."""
from copy import deepcopy
from typing import Any, Dict, Optional, Sequence, Tuple

import torch
from torch import nn

from ..data.loader import ViewLoader
from ..evaluation.correction import adjust_logits, fit_temperature, tau_normalise
from ..evaluation.evaluator import finite
from ..models.cosine import heads
from ..task import TaskHooks
from ..utils.distributed import World

METRICS = ('top1', 'balanced_top1', 'many', 'medium', 'few', 'ece', 'mce')


def run_posthoc(
        task: TaskHooks,
        model: nn.Module,
        loader: ViewLoader,
        val_loader: Optional[ViewLoader],
        counts: Sequence[int],
        world: World = World(),
        *,
        posthoc_tau: Optional[float] = None,
        tau_norm: Optional[float] = None,
        temperature: bool = False,
) -> Dict[str, Any]:
    """Judge each tool on the images of `loader`.

    The tools need all logits at once, which `evaluate` does not keep: they cost a pass over these images, tau_norm and
    temperature one more each.

    Args:
        task: Makes the evaluators.
        model: The finished model.
        loader: This rank's share of the images that are judged.
        val_loader: All validation images, for the temperature.
        counts: Training images per class (C,).
        world: This process.
        posthoc_tau: Take so many times the log prior out of the logits; None: do not.
        tau_norm: Divide the class vectors by their length to this power; None: do not.
        temperature: Scale the logits by a temperature fitted on the validation images.

    Returns:
        Its settings and metrics (percent) by tool.
    """
    logits, labels = collect(model, loader)
    results: Dict[str, Any] = {}
    if posthoc_tau is not None:
        adjusted = adjust_logits(logits, counts, posthoc_tau)
        results['logit_adjustment'] = dict(tau=posthoc_tau, **_judge(task, adjusted, labels, world))
    if tau_norm is not None:
        rescaled = tau_normalised(model, tau_norm)
        results['tau_norm'] = dict(tau=tau_norm, **_judge(task, *collect(rescaled, loader), world))
    if temperature:
        assert val_loader is not None
        fitted = fit_temperature(*collect(model, val_loader))
        results['temperature'] = dict(
            temperature=fitted, fitted_on='val', **_judge(task, logits / fitted, labels, world))
    return results


def tau_normalised(model: nn.Module, tau: float) -> nn.Module:
    """Return a copy of a model with linear heads, these tau-normalised."""
    model = deepcopy(model)
    for _, layer in heads(model):
        assert isinstance(layer, nn.Linear)  # see check_head
        with torch.no_grad():
            layer.weight.copy_(tau_normalise(layer.weight, tau))
            if layer.bias is not None:
                layer.bias.zero_()
    return model


@torch.no_grad()
def collect(model: nn.Module, loader: ViewLoader) -> Tuple[torch.Tensor, torch.Tensor]:
    """Return the logits (N, C) and labels (N,) of all images, in evaluation mode."""
    model.eval()
    pairs = [(model(batch.views[0]).float(), batch.target) for batch in loader]
    if not pairs:  # more ranks than images
        return torch.zeros(0, model.num_classes), torch.zeros(0, dtype=torch.long)  # type: ignore[call-overload]
    logits, labels = zip(*pairs)
    return torch.cat(logits), torch.cat(labels)


def _judge(task: TaskHooks, logits: torch.Tensor, labels: torch.Tensor, world: World) -> Dict[str, Any]:
    evaluator = task.create_evaluator()
    if len(logits):
        evaluator.update(logits, labels)
    metrics = evaluator.compute(distributed=world.distributed)
    return {name: finite(metrics[name]) for name in METRICS}
