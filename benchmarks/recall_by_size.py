"""The picture of the README, drawn from the table of the losses page: recall by size of the class, mean over ten seeds.

    python benchmarks/recall_by_size.py

How the numbers were made stands below the table ("At the sample's settings" in docs/losses.md).
"""
import re
from pathlib import Path
from typing import List, Tuple

ROOT = Path(__file__).parents[1]
PAGE, PICTURE = ROOT / 'docs' / 'losses.md', ROOT / 'docs' / 'pictures' / 'recall-by-size.png'
LOSSES = {'ce': ('cross-entropy', '#7a818b'), 'balanced-bce': ('balanced BCE', '#0b6e99')}
GROUPS = ('many\nmore than 50 images', 'medium\n15 to 50', 'few\nfewer than 15')  # of sample/digits: 50,15

Values = List[Tuple[float, float]]


def read(name: str, text: str) -> Values:
    """Return mean and standard deviation of a loss's recall, for classes with many, medium and few images.

    >>> read('ce', "| `ce` | 93.4 ± 1.8 | 100.0 ± 0.0 | 98.5 ± 0.9 | 84.6 ± 4.5 | 10.4 ± 1.2 |")
    [(100.0, 0.0), (98.5, 0.9), (84.6, 4.5)]
    """
    row = next(line for line in text.splitlines() if line.startswith(f'| `{name}` |') and '±' in line)
    return [(float(mean), float(spread)) for mean, spread in re.findall(r'([\d.]+) ± ([\d.]+)', row)[1:4]]


def main() -> None:
    """Draw the picture."""
    from matplotlib.figure import Figure
    text = PAGE.read_text(encoding='utf-8').split("## At the sample's settings")[1]
    figure = Figure(figsize=(7.2, 3.3), dpi=160)
    axes = figure.subplots()
    for k, (name, (label, colour)) in enumerate(LOSSES.items()):
        places = [group + 0.16 * (k - 0.5) for group in range(3)]
        means, spreads = zip(*read(name, text))
        above = [min(spread, 100 - mean) for mean, spread in zip(means, spreads)]
        axes.errorbar(places, means, yerr=(spreads, above), fmt='o', markersize=9, capsize=4, color=colour, label=label)
        for x, mean in zip(places, means):
            side = dict(ha='right', xytext=(-11, -4)) if k == 0 else dict(ha='left', xytext=(11, -4))
            axes.annotate(f'{mean:.1f}', (x, mean), textcoords='offset points', color=colour, fontweight='bold', **side)
    axes.set_xticks(range(3), GROUPS)
    axes.set_xlim(-0.5, 2.5)
    axes.set_ylim(75, 101.5)
    axes.grid(axis='y', color='#e4e6ea')
    axes.set_axisbelow(True)
    axes.set_ylabel('recall on test images, %')
    axes.spines[['top', 'right']].set_visible(False)
    axes.legend(frameon=False, loc='upper right', bbox_to_anchor=(1.0, 1.12), ncols=2)
    figure.tight_layout()
    figure.savefig(PICTURE, facecolor='white')


if __name__ == '__main__':
    main()
