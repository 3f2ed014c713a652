"""Pictures of what the studies found: each function returns a matplotlib figure, drawn without a screen."""
from typing import TYPE_CHECKING, Any, Mapping, Optional, Sequence, Tuple

import torch

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLOURS = ('#0072b2', '#d55e00', '#009e73', '#cc79a7', '#56b4e9', '#e69f00')  # told apart by the colour-blind too


def colours(images: torch.Tensor, mean: Sequence[float], std: Sequence[float]) -> torch.Tensor:
    """Return normalised images (N, 3, height, width) as colours from 0 to 1.

    >>> colours(torch.zeros(1, 3, 2, 2), (0.5, 0.25, 0.0), (1.0, 1.0, 1.0))[0, :, 0, 0].tolist()
    [0.5, 0.25, 0.0]
    """
    mean_t, std_t = (torch.tensor(tuple(value)).view(3, 1, 1) for value in (mean, std))
    return (images.detach().float().cpu() * std_t + mean_t).clamp(0, 1)


def draw_distance(distances: torch.Tensor, uniform: float) -> 'Figure':
    """Draw the attention distance (blocks, heads), one point for each head, in pixels.

    Args:
        distances: From `distance_by_block`.
        uniform: Distance of attention that is alike everywhere, drawn as a line.
    """
    figure, axes = _axes('Attention distance', 'block', 'mean attention distance (pixels)')
    blocks, heads = distances.shape
    at = torch.arange(1, blocks + 1)
    axes.plot(at.repeat_interleave(heads), distances.flatten(), 'o', color=COLOURS[0], alpha=0.6, label='one head')
    axes.plot(at, distances.nanmean(1), '-', color=COLOURS[1], label='mean of the heads')
    axes.axhline(uniform, color='0.4', linestyle='--', label='uniform attention')
    axes.set_xticks(at)
    axes.set_ylim(0, 1.08 * max(uniform, float(distances.nan_to_num().max())))
    _legend(axes)
    return figure


def draw_by_block(
        lines: Mapping[str, Sequence[float]],
        title: str,
        ylabel: str,
        limit: Optional[Tuple[str, float]] = None,
) -> 'Figure':
    """Draw one line for each name over the blocks; the last value of each is that after the final norm.

    Args:
        lines: Values (blocks + 1) by name.
        title: Title of the picture.
        ylabel: What is drawn, with its unit.
        limit: Name and height of a dashed line.
    """
    figure, axes = _axes(title, 'block', ylabel)
    length = max(len(values) for values in lines.values())
    for number, (name, values) in enumerate(lines.items()):
        axes.plot(range(1, length + 1), values, marker='o^sDv*'[number % 6], color=COLOURS[number % len(COLOURS)],
                  label=name)
    if limit is not None:
        axes.axhline(limit[1], color='0.4', linestyle='--', label=limit[0])
    axes.set_xticks(range(1, length + 1), [*map(str, range(1, length)), 'norm'])
    highest = max(value for values in [*lines.values(), [limit[1] if limit else 0]] for value in values)
    axes.set_ylim(0, 1.08 * highest or 1)
    _legend(axes)
    return figure


def draw_attention(
        images: torch.Tensor,
        maps: torch.Tensor,
        masks: torch.Tensor,
        names: Sequence[str],
        mass: float,
        objects: Optional[torch.Tensor] = None,
        overlap: Optional[torch.Tensor] = None,
) -> 'Figure':
    """Draw images and, for each head, where the class token looks.

    Args:
        images: Colours from 0 to 1 (N, 3, height, width).
        maps: Attention at the size of the images (N, H, height, width); each is drawn up to its own maximum.
        masks: The patches that hold most of it (N, H, height, width), drawn as an outline.
        names: What to write beside each image.
        mass: The share that these patches hold.
        objects: Where the object is (N, height, width), drawn as an outline on the image.
        overlap: What to write under each map (N, H), if the objects are known.
    """
    from matplotlib.figure import Figure
    rows, heads = maps.shape[:2]
    figure = Figure(figsize=(1.5 * (heads + 1) + 0.8, 1.55 * rows + 0.8), layout='constrained', dpi=100)
    grid = figure.subplots(rows, heads + 1, squeeze=False)
    for row, name in enumerate(names):
        picture = images[row].permute(1, 2, 0).numpy()
        grey = images[row].mean(0).numpy()
        grid[row][0].imshow(picture)
        grid[row][0].set_ylabel(name, fontsize=9)
        if objects is not None:
            grid[row][0].contour(objects[row].float().numpy(), levels=[0.5], colors='white', linewidths=1.2)
        for head in range(heads):
            axes = grid[row][head + 1]
            axes.imshow(grey, cmap='gray', vmin=0, vmax=1)
            drawn = axes.imshow(maps[row, head].numpy(), cmap='inferno', vmin=0, alpha=0.7)
            if 0 < int(masks[row, head].sum()) < masks[row, head].numel():
                axes.contour(masks[row, head].float().numpy(), levels=[0.5], colors='#56b4e9', linewidths=1.0)
            if overlap is not None:
                axes.set_xlabel(f'IoU {overlap[row, head]:.2f}', fontsize=7, labelpad=1)
    for column in range(heads + 1):
        grid[0][column].set_title('image' if column == 0 else f'head {column}', fontsize=9)
    for axes in grid.flat:
        axes.set_xticks([])
        axes.set_yticks([])
    bar = figure.colorbar(drawn, ax=grid[0], ticks=[0, drawn.norm.vmax], shrink=0.9, aspect=10, pad=0.01)
    bar.ax.set_yticklabels(['0', "map's\nmaximum"], fontsize=8)
    title = f'Attention of the class token in the last block\nblue: the fewest patches with {100 * mass:g} % of it'
    if objects is not None:
        title += '; white: the object\nIoU: overlap of the two'
    figure.suptitle(title, fontsize=9)
    return figure


def draw_reconstruction(
        images: Mapping[str, torch.Tensor], names: Sequence[str], losses: Sequence[float], zero: float,
) -> 'Figure':
    """Draw images in rows: as they are, what the encoder sees, what is predicted.

    Args:
        images: Colours from 0 to 1 (N, 3, height, width) by title of the column.
        names: What to write beside each row.
        losses: What to write under each prediction, the last column.
        zero: The loss of a prediction of 0, for comparison.
    """
    figure = draw_images(images, names, f'Masked autoencoder; a prediction of 0 has a loss of {zero:.2f}')
    for axes, loss in zip(figure.axes[len(images) - 1::len(images)], losses):
        axes.set_xlabel(f'loss {loss:.2f}', fontsize=8, labelpad=2)
    return figure


def draw_images(images: Mapping[str, torch.Tensor], names: Sequence[str], title: str) -> 'Figure':
    """Draw images in rows.

    Args:
        images: Colours from 0 to 1 (N, 3, height, width) by title of the column; sizes may differ between columns.
        names: What to write beside each row.
        title: Title of the picture.
    """
    from matplotlib.figure import Figure
    figure = Figure(figsize=(1.75 * max(len(images), 2) + 0.5, 1.75 * len(names) + 0.5), layout='constrained', dpi=100)
    grid = figure.subplots(len(names), len(images), squeeze=False)
    for column, (heading, part) in enumerate(images.items()):
        grid[0][column].set_title(heading, fontsize=9)
        for row, name in enumerate(names):
            axes = grid[row][column]
            axes.imshow(part[row].permute(1, 2, 0).numpy())
            axes.set_xticks([])
            axes.set_yticks([])
            if column == 0:
                axes.set_ylabel(name, fontsize=9)
    figure.suptitle(title, fontsize=10)
    return figure


def draw_history(epochs: Sequence[int], distances: Sequence[float], weighted_from: Optional[int] = None) -> 'Figure':
    """Draw the distance of the two tokens over the epochs.

    Args:
        epochs: Numbers of the epochs.
        distances: Mean cosine distance in each.
        weighted_from: Epoch from which on classes are weighted, drawn as a dashed line.
    """
    figure, axes = _axes('Class and distillation token during training', 'epoch', 'mean cosine distance (1 - cos)')
    axes.plot(epochs, distances, '.-', color=COLOURS[0], label='training images')
    if weighted_from is not None:
        axes.axvline(weighted_from, color='0.4', linestyle='--', label='class weights begin')
    axes.set_ylim(0, 1.08 * max(distances) or 1)
    axes.xaxis.get_major_locator().set_params(integer=True)
    _legend(axes)
    return figure


def draw_experts(counts: Sequence[int], recalls: Mapping[str, Sequence[float]]) -> 'Figure':
    """Draw the recall of each class in percent over its training images, with a line from one to the other expert.

    Args:
        counts: Training images (C,).
        recalls: Recall (C,) of one expert, of the other and of their mean, by name; nan for a class without images.
    """
    figure, axes = _axes('Class and distillation token as experts', 'training images of the class',
                         'recall on the class (%)')
    at = [max(count, 1) for count in counts]
    one, two = list(recalls.values())[:2]
    axes.vlines(at, one, two, color='0.8', zorder=1)
    for number, (name, values) in enumerate(recalls.items()):
        axes.plot(at, values, 'o^_'[number], color=[*COLOURS[:2], '0.2'][number], alpha=0.8, label=name,
                  markersize=(6, 6, 9)[number])
    axes.set_xscale('log')
    low, high = min(at), max(at)
    axes.set_xlim(low / 1.3, high * 1.3)
    ticks = [n * 10 ** power for power in range(8) for n in (1, 2, 5) if low / 1.3 <= n * 10 ** power <= high * 1.3]
    ticks = ticks or [low]
    axes.set_xticks(ticks, [f'{tick:,}' for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.set_ylim(-3, 103)
    _legend(axes)
    return figure


def _axes(title: str, xlabel: str, ylabel: str) -> Tuple[Any, Any]:
    from matplotlib.figure import Figure
    figure = Figure(figsize=(7.2, 4.0), layout='constrained', dpi=100)
    axes = figure.subplots()
    axes.set_title(title)
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.grid(color='0.92')
    axes.set_axisbelow(True)
    return figure, axes


def _legend(axes: 'Axes') -> None:
    axes.legend(loc='upper left', bbox_to_anchor=(1.01, 1.0), frameon=False)
