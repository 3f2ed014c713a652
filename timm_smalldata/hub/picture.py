"""The picture of a card: how well each class is recognised, by how many images it was trained on."""
import io
from typing import Dict, List, Optional, Sequence

from ..evaluation.shot_groups import GROUPS

COLOURS = {'many': '#0072b2', 'medium': '#b87800', 'few': '#c8541a', '': '#5f6368'}


def recall_picture(rows: Sequence[Dict[str, str]], split: str) -> Optional[bytes]:
    """Return a PNG of recall by class size with 95 % intervals; None where no class was judged.

    Equal rows give equal bytes.

    Args:
        rows: Of `per_class.csv`.
        split: What was judged.
    """
    judged = [row for row in rows if row['recall'] and row['train_images'] and int(row['train_images'])]
    if not judged:
        return None
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    figure = Figure(figsize=(7, 4), layout='constrained')
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for name in (*GROUPS, ''):
        group = [row for row in judged if (row['group'] or '') == name]
        if group:
            recall, low, high = (_column(group, key) for key in ('recall', 'lo', 'hi'))
            spread = [[r - a for r, a in zip(recall, low)], [b - r for r, b in zip(recall, high)]]
            axes.errorbar(
                _column(group, 'train_images'), recall, spread, fmt='o', markersize=5, elinewidth=1, capsize=0,
                color=COLOURS[name], ecolor=COLOURS[name] + '70',
                label=f'{name or "classes"} ({len(group)})')
    sizes = _column(judged, 'train_images')
    if max(sizes) > 8 * min(sizes):
        axes.set_xscale('log')
        axes.xaxis.set_major_formatter('{x:g}')
    axes.set(xlabel='training images of the class', ylabel=f'recall on {split}, %', ylim=(-3, 103))
    axes.grid(alpha=0.25)
    axes.spines[['top', 'right']].set_visible(False)
    axes.legend(frameon=False, loc='lower right')
    stream = io.BytesIO()
    figure.savefig(stream, format='png', dpi=140, metadata={'Software': None})
    return stream.getvalue()


def _column(rows: Sequence[Dict[str, str]], key: str) -> List[float]:
    return [float(row[key]) for row in rows]
