"""From a model and batches of images to the numbers that a picture shows."""
from typing import Any, Dict, Iterable, List, Tuple

import torch

from .attention_distance import attention_distance
from .attention_maps import class_attention
from .capture import capture, patch_grid
from .tokens import distilled_logits, is_distilled

Batches = Iterable[Tuple[torch.Tensor, torch.Tensor]]


@torch.no_grad()
def distance_by_block(model: Any, batches: Batches) -> Tuple[torch.Tensor, float]:
    """Return the attention distance of every block and head, and that of attention which is alike everywhere.

    Args:
        model: A timm vision transformer in eval mode.
        batches: Normalised images (B, 3, height, width) and their classes (B,).

    Returns:
        Distances (blocks, heads) in pixels, over the mean attention of all images; the distance of uniform attention.

    Raises:
        ValueError: The model has no attention between all its patches, or there are no images.
    """
    total: List[torch.Tensor] = []
    images = torch.empty(0)
    for images, _ in batches:
        with capture(model, attention=lambda attn: attn.sum(0, keepdim=True), tokens=None) as seen:
            model(images)
        total = [a + b for a, b in zip(total, seen.attention)] if total else seen.attention
    if not total:
        raise ValueError('No images.')
    size = (images.shape[-2], images.shape[-1])
    grid, prefix = patch_grid(model, size), model.num_prefix_tokens
    patch_size = size[0] / grid[0]
    # the sum over images instead of their mean: every row is brought to 1 anyway
    distances = [attention_distance(attn, grid, patch_size, prefix) for attn in total]
    patches = grid[0] * grid[1]
    uniform = attention_distance(torch.ones(1, 1, patches, patches), grid, patch_size, 0)
    return torch.stack(distances).cpu(), float(uniform)


@torch.no_grad()
def tokens_by_block(model: Any, batches: Batches) -> Tuple[Dict[str, torch.Tensor], torch.Tensor]:
    """Return the features that a model forms of each image, block by block.

    Args:
        model: A timm vision transformer in eval mode.
        batches: Normalised images and their classes.

    Returns:
        By name (`CLS`, `DIST`; `patch mean` for models without a class token) tokens (N, blocks + 1, D), the last of
        them after the final norm, and the classes (N,).

    Raises:
        ValueError: The tokens are not the prefix and the patches, or there are no images.
    """
    kept: Dict[str, List[torch.Tensor]] = {}
    targets: List[torch.Tensor] = []
    for images, target in batches:
        rows, columns = patch_grid(model, (images.shape[-2], images.shape[-1]))
        prefix = model.num_prefix_tokens
        with capture(model, attention=None) as seen:
            final = model.forward_features(images)
        for tokens in [*seen.tokens, final]:
            if tokens.ndim != 3 or tokens.shape[1] != prefix + rows * columns:
                raise ValueError(f'Tokens of shape {tuple(tokens.shape)} do not fit {prefix} prefix tokens and '
                                 f'{rows} x {columns} patches.')
        by_block = torch.stack([*seen.tokens, final], dim=1).float()  # (B, blocks + 1, T, D)
        if getattr(model, 'cls_token', None) is None:
            kept.setdefault('patch mean', []).append(by_block[:, :, prefix:].mean(2).cpu())
        else:
            kept.setdefault('CLS', []).append(by_block[:, :, 0].cpu())
        if is_distilled(model):
            kept.setdefault('DIST', []).append(by_block[:, :, 1].cpu())
        targets.append(target.cpu())
    if not targets:
        raise ValueError('No images.')
    return {name: torch.cat(parts) for name, parts in kept.items()}, torch.cat(targets)


@torch.no_grad()
def maps_of_last_block(model: Any, batches: Batches) -> Tuple[torch.Tensor, torch.Tensor]:
    """Return the images (N, 3, height, width) and the class token's attention in the last block (N, H, rows, columns).

    Raises:
        ValueError: The model has no class token or no attention between all its patches, or there are no images.
    """
    shown: List[torch.Tensor] = []
    maps: List[torch.Tensor] = []
    for images, _ in batches:
        with capture(model, tokens=None) as seen:
            model(images)
        grid = patch_grid(model, (images.shape[-2], images.shape[-1]))
        shown.append(images.cpu())
        maps.append(class_attention(seen.attention[-1], grid, model.num_prefix_tokens).cpu())
    if not maps:
        raise ValueError('No images.')
    return torch.cat(shown), torch.cat(maps)


@torch.no_grad()
def expert_predictions(model: Any, batches: Batches) -> Tuple[Dict[str, torch.Tensor], torch.Tensor]:
    """Return what the two heads of a distilled model predict.

    Returns:
        By name (`CLS`, `DIST` and `AVG`, the mean of their scores) predicted classes (N,), and the true ones (N,).

    Raises:
        ValueError: The model is not distilled, or there are no images.
    """
    kept: Dict[str, List[torch.Tensor]] = {'CLS': [], 'DIST': [], 'AVG': []}
    targets: List[torch.Tensor] = []
    for images, target in batches:
        cls, dist = distilled_logits(model, images)
        for name, scores in zip(kept, (cls, dist, (cls + dist) / 2)):
            kept[name].append(scores.argmax(-1).cpu())
        targets.append(target.cpu())
    if not targets:
        raise ValueError('No images.')
    return {name: torch.cat(parts) for name, parts in kept.items()}, torch.cat(targets)
