"""The kinds of analysis, a function each: a picture, a table and a few lines."""
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import torch
from torch import nn

from ..errors import UserError
from . import collect, pictures
from .attention_maps import chance_overlap, mask_overlap, mass_mask, upsample
from .feature_rank import feature_rank
from .object_overlap import VOID, object_overlap
from .tokens import token_divergence

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Reconstruct = Callable[[torch.Tensor, int], Tuple[torch.Tensor, torch.Tensor, List[float], List[float]]]


@dataclass
class Study:
    """A model and the images that it is to look at.

    Attributes:
        model: A timm vision transformer in eval mode.
        batches: The normalised images and their classes, batch by batch.
        images: Names of the images.
        targets: Their classes.
        names: Names of the classes.
        counts: Training images of each class, where they are known.
        groups: Classes of each group; empty where the counts are not known.
        mean: The images' normalisation.
        std: Likewise.
        threshold: Share of the variance that a rank is to hold.
        mass: Share of the attention that is outlined.
        masks: Where the object of each image is (N, height, width), where that is known; for `overlap` its number.
        reconstruct: Masked autoencoders: takes images and the number of the first; returns predicted and masked images,
            the loss of each and that of a prediction of 0.
    """
    model: nn.Module
    batches: collect.Batches
    images: Sequence[str]
    targets: Sequence[int]
    names: Sequence[str]
    counts: Optional[Sequence[int]]
    groups: Dict[str, List[int]]
    mean: Sequence[float]
    std: Sequence[float]
    threshold: float = 0.99
    mass: float = 0.6
    masks: Optional[torch.Tensor] = None
    reconstruct: Optional[Reconstruct] = None


class Found(NamedTuple):
    """What a kind found: a picture, a table, and what to print."""
    figure: 'Figure'
    header: List[str]
    rows: Sequence[Sequence[Any]]
    lines: List[str]


def attention_distance(study: Study) -> Found:
    """How far each head of each block looks."""
    distances, uniform = collect.distance_by_block(study.model, study.batches)
    rows = [(block, head, f'{value:.4f}') for block, line in enumerate(distances.tolist(), 1)
            for head, value in enumerate(line, 1)]
    lines = [f'mean attention distance: {distances[0].nanmean():.1f} px in the first block, '
             f'{distances[-1].nanmean():.1f} px in the last; {uniform:.1f} px where attention is uniform']
    return Found(pictures.draw_distance(distances, uniform), ['block', 'head', 'distance_px'], rows, lines)


def rank(study: Study) -> Found:
    """How many directions hold most of the variance of the features of each block."""
    tokens, targets = collect.tokens_by_block(study.model, study.batches)
    threshold, number = study.threshold, len(targets)
    ranks = {name: [feature_rank(x, threshold) for x in values.unbind(1)] for name, values in tokens.items()}
    width = next(iter(tokens.values())).shape[-1]
    limit = min(number - 1, width)
    figure = pictures.draw_by_block(
        ranks, f'Feature rank, {number} images', f'directions that hold {100 * threshold:g} % of the variance',
        (f'most possible: {limit}', limit))
    rows = [(block, name, value, number, width) for name, values in ranks.items()
            for block, value in zip(_blocks(values), values)]
    lines = [f'feature rank of {name} after the final norm: {values[-1]} of at most {limit}'
             for name, values in ranks.items()]
    if number <= width:
        lines.append(f'{number} images cannot span the {width} dimensions of the features: compare ranks only at equal '
                     'numbers of images')
    return Found(figure, ['block', 'token', 'rank', 'images', 'dimensions'], rows, lines)


def attention(study: Study) -> Found:
    """Where the class token looks in the last block, and whether that is where the object is."""
    images, maps = collect.maps_of_last_block(study.model, study.batches)
    mass = study.mass
    marked = mass_mask(maps, mass)
    size = (images.shape[-2], images.shape[-1])
    labels = [study.names[c] for c in study.targets]
    patches = maps.shape[-1] * maps.shape[-2]
    lines = [f'{100 * mass:g} % of the attention lies on {float(marked.sum((-2, -1)).float().mean()):.1f} of {patches} '
             'patches, on average']
    overlap = None
    if study.masks is not None:
        pairs = [(upsample(marked[i:i + 1], size)[0], mask) for i, mask in enumerate(study.masks)]
        overlap = torch.stack([mask_overlap(*pair) for pair in pairs])  # (N, heads)
        chance = torch.stack([chance_overlap(*pair) for pair in pairs])
        best = int(overlap.mean(0).argmax())
        lines.append(f'overlap (intersection over union) of these patches with the object: {overlap.mean():.3f} on '
                     f'average; as many patches anywhere: {chance.mean():.3f}')
        lines.append(f'head {best + 1}, the best one: {overlap[:, best].mean():.3f} (anywhere: '
                     f'{chance[:, best].mean():.3f}); the best head of each image: {overlap.amax(1).mean():.3f}')
    rows = [(image, label, head + 1, f'{maps[i, head].sum():.4f}', int(marked[i, head].sum()),
             None if overlap is None else f'{overlap[i, head]:.4f}')
            for i, (image, label) in enumerate(zip(study.images, labels)) for head in range(maps.shape[1])]
    shown = _shown(len(images), lines)
    figure = pictures.draw_attention(
        _colours(study, images[shown]), upsample(maps[shown], size), upsample(marked[shown], size) > 0.5,
        [labels[i] for i in shown], mass, None if study.masks is None else study.masks[shown],
        None if overlap is None else overlap[shown])
    return Found(figure, ['image', 'class', 'head', 'share_on_patches', 'patches_in_mask', 'overlap'], rows, lines)


def overlap(study: Study) -> Found:
    """How well the head that meets an object best does so, as DINO is judged on PASCAL VOC."""
    assert study.masks is not None
    images, maps = collect.maps_of_last_block(study.model, study.batches)
    marked = mass_mask(maps, study.mass)
    size = (images.shape[-2], images.shape[-1])
    rows, best, average, chance = [], [], [], []
    for place, (name, objects) in enumerate(zip(study.images, study.masks)):
        heads = upsample(marked[place:place + 1], size)[0]
        found = object_overlap(heads, objects)
        for label, values in found.items():
            rows.append((name, label, int((objects == label).sum()), int(values.argmax()) + 1, f'{values.max():.4f}'))
        if found:
            each = torch.stack(list(found.values()))  # (objects, heads)
            best.append(float(each.amax(1).mean()))
            average.append(float(each.mean()))
            chance.append(float(torch.stack([chance_overlap(heads, objects == label) for label in found]).mean()))
    if not best:
        raise UserError('No image has an object inside the part that the model sees.')
    mass = 100 * study.mass
    lines = [
        f'overlap (Jaccard index) of {mass:g} % of the attention with {len(rows)} objects in {len(best)} images: '
        f'{100 * np.mean(best):.1f} %, of the best head for each object',
        f'mean of all heads: {100 * np.mean(average):.1f} %; as many patches anywhere: {100 * np.mean(chance):.1f} %']
    shown = _shown(len(images), lines)
    known = (study.masks != 0) & (study.masks != VOID)
    figure = pictures.draw_attention(
        _colours(study, images[shown]), upsample(maps[shown], size), upsample(marked[shown], size) > 0.5,
        ['' for _ in shown], study.mass, known[shown], None)
    return Found(figure, ['image', 'object', 'pixels', 'best_head', 'overlap'], rows, lines)


def reconstruction(study: Study) -> Found:
    """What a masked autoencoder makes of the hidden patches."""
    assert study.reconstruct is not None
    parts: List[List[torch.Tensor]] = []
    losses: List[float] = []
    nothing: List[float] = []
    for images, _ in study.batches:
        predicted, seen, loss, zero = study.reconstruct(images, len(losses))
        parts.append([images.cpu(), seen, predicted])
        losses += loss
        nothing += zero
    whole, seen, predicted = (torch.cat(part) for part in zip(*parts))
    labels = [study.names[c] for c in study.targets]
    rows = [(image, label, f'{loss:.4f}', f'{zero:.4f}')
            for image, label, loss, zero in zip(study.images, labels, losses, nothing)]
    lines = [f'loss on the hidden patches: {np.mean(losses):.3f} on average; a prediction of 0 everywhere has '
             f'{np.mean(nothing):.3f}']
    shown = _shown(len(whole), lines)
    figure = pictures.draw_reconstruction(
        {'image': _colours(study, whole[shown]), 'what the encoder sees': _colours(study, seen[shown]),
         'prediction': _colours(study, predicted[shown])},
        [labels[i] for i in shown], [losses[i] for i in shown], float(np.mean(nothing)))
    return Found(figure, ['image', 'class', 'loss', 'loss_of_zero'], rows, lines)


def tokens(study: Study) -> Found:
    """How far the class and the distillation token are apart."""
    features, targets = collect.tokens_by_block(study.model, study.batches)
    parts = {'all': torch.ones_like(targets, dtype=torch.bool)}
    for name, classes in study.groups.items():
        parts[name] = torch.isin(targets, torch.tensor(classes, dtype=targets.dtype))
    distances = {name: [token_divergence(cls[chosen], dist[chosen]) for cls, dist in zip(
        features['CLS'].unbind(1), features['DIST'].unbind(1))] for name, chosen in parts.items() if chosen.any()}
    figure = pictures.draw_by_block(
        distances, f'Class and distillation token, {len(targets)} images', 'mean cosine distance (1 - cos)')
    rows = [(block, name, int(parts[name].sum()), f'{value:.6f}') for name, values in distances.items()
            for block, value in zip(_blocks(values), values)]
    lines = [f'cosine distance after the final norm, {name}: {values[-1]:.3f}' for name, values in distances.items()]
    return Found(figure, ['block', 'group', 'images', 'distance'], rows, lines)


def experts(study: Study) -> Found:
    """What the two heads get right, class by class."""
    if not study.counts:
        raise UserError('experts needs the training images of each class, and the model does not know them: name them '
                        'with --class-stats FILE.')
    predicted, targets = collect.expert_predictions(study.model, study.batches)
    images = torch.bincount(targets, minlength=len(study.names))
    recalls = {name: (100 * torch.bincount(targets[guess == targets], minlength=len(study.names)) / images).tolist()
               for name, guess in predicted.items()}  # no image of a class: 0 / 0 is nan
    differ = predicted['CLS'] != predicted['DIST']
    apart = (100 * torch.bincount(targets[differ], minlength=len(study.names)) / images).tolist()
    rows = [(name, study.counts[c], int(images[c]), *(
        None if not images[c] else f'{values[c]:.2f}' for values in (*recalls.values(), apart)))
        for c, name in enumerate(study.names)]
    lines = [f'{"":<8}' + ''.join(f'{name:>8}' for name in recalls) + '   (mean recall, %)']
    for name, classes in {'all': range(len(study.names)), **study.groups}.items():
        seen = [c for c in classes if images[c]]
        if seen:
            lines.append(f'{name:<8}' + ''.join(f'{np.mean([v[c] for c in seen]):8.1f}' for v in recalls.values()))
    lines.append(f'the two tokens predict different classes for {100 * float(differ.float().mean()):.1f} % of the '
                 f'{len(targets)} images')
    header = ['class', 'train_images', 'images', *(f'{name.lower()}_recall' for name in recalls), 'disagreement']
    return Found(pictures.draw_experts(study.counts, recalls), header, rows, lines)


def divergence(rows: Sequence[Dict[str, str]], drw_epoch: Optional[int]) -> Found:
    """How far the class and the distillation token were apart, epoch by epoch.

    Args:
        rows: Of the history of a training.
        drw_epoch: From which epoch on classes were weighted.
    """
    table = [(int(row['epoch']), float(row['train_token_cosine']), row.get('train_disagreement')) for row in rows
             if row['train_token_cosine']]
    epochs, distances = [epoch for epoch, *_ in table], [1 - cosine for _, cosine, _ in table]
    reached = drw_epoch if drw_epoch is not None and drw_epoch <= epochs[-1] else None
    lines = [f'cosine distance of class and distillation token: {distances[0]:.4f} in epoch {epochs[0]}, '
             f'{distances[-1]:.4f} in epoch {epochs[-1]}']
    if reached is not None and reached in epochs[1:]:
        at = epochs.index(reached)
        lines.append(f'before class weights begin (epoch {reached}): {distances[at - 1]:.4f}')
    return Found(
        pictures.draw_history(epochs, distances, reached), ['epoch', 'cosine', 'distance', 'disagreement'],
        [(epoch, f'{cosine:.6f}', f'{1 - cosine:.6f}', '' if differ is None else differ)
         for epoch, cosine, differ in table], lines)


def _blocks(values: Sequence[Any]) -> List[Any]:
    return [*range(1, len(values)), 'norm']


def _colours(study: Study, images: torch.Tensor) -> torch.Tensor:
    return pictures.colours(images, study.mean, study.std)


def _shown(number: int, lines: List[str]) -> List[int]:
    """Return which images are drawn: all, or some of them in even steps, and then a line says so."""
    if number <= SHOWN:
        return list(range(number))
    lines.append(f'the picture shows {SHOWN} of the {number} images; the table has all')
    return np.linspace(0, number - 1, SHOWN).round().astype(int).tolist()


SHOWN = 8  # images in a picture


class Kind(NamedTuple):
    """A kind of analysis of a model.

    Attributes:
        study: How it is done.
        images: On how many images; None: all.
        labels: Whether the images have to be of the model's classes: 'no', 'if named' (images without classes are
            welcome too) or 'yes'.
    """
    study: Callable[[Study], Found]
    images: Optional[int]
    labels: str


KINDS: Dict[str, Kind] = {
    'attention-distance': Kind(attention_distance, 128, 'no'),
    'feature-rank': Kind(rank, 1000, 'if named'),
    'attention': Kind(attention, 6, 'no'),
    'overlap': Kind(overlap, None, 'no'),
    'tokens': Kind(tokens, 1000, 'if named'),
    'experts': Kind(experts, None, 'yes'),
    'reconstruction': Kind(reconstruction, 6, 'no'),
}
