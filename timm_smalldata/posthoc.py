"""Tools that need no training, on a finished model: each result beside the raw numbers, none in their place."""
from argparse import Namespace
from copy import deepcopy
from typing import Any, Dict, List, Mapping, Optional, Sequence, Tuple

import torch
from torch import nn

from .data.loader import ViewLoader
from .distributed import World
from .errors import UserError
from .evaluation.posthoc import adjust_logits, fit_temperature, tau_normalise
from .models.cosine import heads

FLAGS = ('posthoc_tau', 'tau_norm', 'temperature')
METRICS = ('top1', 'balanced_top1', 'many', 'medium', 'few', 'ece', 'mce')


def wanted(args: Namespace) -> bool:
    """Return whether any of the tools is asked for."""
    return any(getattr(args, dest) not in (None, False) for dest in FLAGS)


def check_posthoc(args: Namespace, has_val: bool, counts: Optional[Sequence[int]] = ()) -> None:
    """Raise a UserError for a tool that has not what it needs."""
    if args.temperature and not has_val:
        raise UserError('--temperature is fitted on validation images, and there are none: leave it out, or hold some '
                        'out (--val-fraction, --val-split).')
    if args.posthoc_tau is not None and counts is None:
        raise UserError('--posthoc-tau needs the training counts, which the model does not carry: --class-stats FILE.')


def run_posthoc(
        args: Namespace,
        task: Any,
        model: nn.Module,
        loader: ViewLoader,
        val_loader: Optional[ViewLoader],
        counts: Sequence[int],
        world: World = World(),
) -> Dict[str, Any]:
    """Judge each tool on the images of `loader`.

    Args:
        args: `posthoc_tau`, `tau_norm` and `temperature`.
        task: Makes the evaluators.
        model: The finished model.
        loader: This rank's share of the images that are judged.
        val_loader: All validation images, for the temperature.
        counts: Training images per class (C,).
        world: This process.

    Returns:
        Its settings and metrics (percent) by tool.
    """
    logits, labels = collect(model, loader)
    results: Dict[str, Any] = {}
    if args.posthoc_tau is not None:
        adjusted = adjust_logits(logits, counts, args.posthoc_tau)
        results['logit_adjustment'] = dict(tau=args.posthoc_tau, **_judge(task, adjusted, labels, world))
    if args.tau_norm is not None:
        rescaled = tau_normalised(model, args.tau_norm)
        results['tau_norm'] = dict(tau=args.tau_norm, **_judge(task, *collect(rescaled, loader), world))
    if args.temperature:
        assert val_loader is not None
        temperature = fit_temperature(*collect(model, val_loader))
        results['temperature'] = dict(
            temperature=temperature, fitted_on='val', **_judge(task, logits / temperature, labels, world))
    return results


def tau_normalised(model: nn.Module, tau: float) -> nn.Module:
    """Return a copy of the model with tau-normalised heads.

    Raises:
        UserError: A classifier is not linear.
    """
    model = deepcopy(model)
    for name, layer in heads(model):
        if not isinstance(layer, nn.Linear):
            raise UserError(f'--tau-norm rescales a linear classifier; this one, {name}, is {type(layer).__name__}.')
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
        return torch.zeros(0, 1), torch.zeros(0, dtype=torch.long)
    logits, labels = zip(*pairs)
    return torch.cat(logits), torch.cat(labels)


def _judge(task: Any, logits: torch.Tensor, labels: torch.Tensor, world: World) -> Dict[str, Any]:
    evaluator = task.create_evaluator()
    if len(logits):
        evaluator.update(logits, labels)
    metrics = evaluator.compute(distributed=world.distributed)
    return {name: None if metrics[name] is None else float(metrics[name]) for name in METRICS}


def format_posthoc(report: Mapping[str, Any]) -> List[str]:
    """Return the lines of the tools, beside the raw numbers that they start from."""
    results = report.get('posthoc') or {}
    if not results:
        return []
    names = dict(logit_adjustment='logits - tau log prior', tau_norm='tau-normalised head', temperature='temperature')
    lines = ['', f'{"beside the raw numbers":<36}' + ''.join(f'{name:>14}' for name in METRICS[:-1])]
    rows: List[Tuple[str, Mapping[str, Any]]] = [('raw', report)]
    for tool, values in results.items():
        setting = values.get('tau', values.get('temperature'))
        rows.append((f'{names.get(tool, tool)} {setting:.4g}', values))
    for label, values in rows:
        lines.append(f'{label:<36}' + ''.join(
            f'{"-" if values.get(name) is None else format(values[name], ".2f"):>14}' for name in METRICS[:-1]))
    return lines
