"""Small charts as SVG text: axes, lines, bars, points with intervals. Colours are those of the page (CSS classes)."""
import math
from dataclasses import dataclass
from typing import List, Optional, Sequence, Tuple

from markupsafe import Markup, escape

WIDTH, HEIGHT = 440, 270
DARK = 0.5  # share of a row from which its square is dark
LEFT, RIGHT, TOP, BOTTOM = 46, 14, 26, 40


@dataclass(frozen=True)
class Scale:
    """An axis: its ends, whether it is logarithmic or counts whole things, and where it is marked."""
    low: float
    high: float
    log: bool = False
    whole: bool = False

    def at(self, value: float) -> float:
        """Return the place of a value between 0 and 1."""
        low, high, value = (math.log10(v) if self.log else v for v in (self.low, self.high, max(value, self.low)))
        return min((value - low) / ((high - low) or 1), 1.0)

    def ticks(self) -> List[float]:
        """Return three to seven round values, fewer of few whole things."""
        if self.log:
            decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
            steps = (1, 2, 5) if len(decades) <= 3 else (1,)
            return [m * 10.0 ** d for d in decades for m in steps if self.low <= m * 10.0 ** d <= self.high]
        span = (self.high - self.low) or 1
        step = 10.0 ** math.floor(math.log10(span / 3))
        step = next(step * m for m in (1, 2, 5, 10) if span / (step * m) <= 6)
        step = max(step, 1.0) if self.whole else step
        first = math.ceil(self.low / step - 1e-9)
        return [n * step for n in range(first, math.floor(self.high / step + 1e-9) + 1)]


class Chart:
    """A chart that is drawn from left to right and printed by `svg`; every name in it is escaped.

    Args:
        x: Horizontal axis.
        y: Vertical axis.
        x_label: Words below it.
        y_label: Words above it.
        label: What the chart shows, for who cannot see it.
    """

    def __init__(self, x: Scale, y: Scale, x_label: str, y_label: str, label: str):
        self.x, self.y, self.parts = x, y, []  # type: ignore[var-annotated]
        self.x_label, self.y_label, self.label = x_label, y_label, label

    def place(self, x: float, y: float) -> Tuple[float, float]:
        """Return the pixel of a point."""
        return (round(LEFT + self.x.at(x) * (WIDTH - LEFT - RIGHT), 1),
                round(HEIGHT - BOTTOM - self.y.at(y) * (HEIGHT - TOP - BOTTOM), 1))

    def line(self, points: Sequence[Tuple[float, float]], kind: str) -> None:
        """Draw a line through points."""
        path = ' '.join('{},{}'.format(*self.place(*point)) for point in points)
        self.parts.append(Markup('<polyline class="line {}" points="{}"/>').format(kind, path))
        if len(points) == 1:
            self.point(*points[0], kind=kind, title='')

    def point(self, x: float, y: float, kind: str, title: str, ends: Optional[Sequence[float]] = None) -> None:
        """Draw a point, with an interval where there is one."""
        left, top = self.place(x, y)
        if ends is not None:
            (_, low), (_, high) = self.place(x, ends[0]), self.place(x, ends[1])
            self.parts.append(Markup('<line class="whisker {}" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(
                kind, left, left, low, high))
        self.parts.append(Markup('<circle class="dot {}" cx="{}" cy="{}" r="3.5"><title>{}</title></circle>').format(
            kind, left, top, title))

    def bar(self, left: float, right: float, height: float, kind: str, title: str) -> None:
        """Draw a bar from the lower end of the vertical axis."""
        (x0, bottom), (x1, top) = self.place(left, self.y.low), self.place(right, height)
        self.parts.append(Markup(
            '<rect class="bar {}" x="{}" y="{}" width="{}" height="{}"><title>{}</title></rect>').format(
            kind, x0, top, round(max(x1 - x0 - 1, 0.6), 1), round(bottom - top, 1), title))

    def upright(self, x: float, title: str) -> None:
        """Draw a dashed upright line."""
        (left, bottom), (_, top) = self.place(x, self.y.low), self.place(x, self.y.high)
        self.parts.append(Markup(
            '<line class="dashed" x1="{0}" x2="{0}" y1="{1}" y2="{2}"><title>{3}</title></line>').format(
            left, bottom, top, title))

    def svg(self) -> Markup:
        """Return the chart."""
        parts: List[Markup] = []
        for value in self.y.ticks():
            _, top = self.place(self.x.low, value)
            parts.append(Markup('<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(
                LEFT, WIDTH - RIGHT, top, top))
            parts.append(_text(LEFT - 6, top + 4, f'{value:g}', 'end'))
        for value in self.x.ticks():
            left, bottom = self.place(value, self.y.low)
            parts.append(_text(left, bottom + 15, f'{value:g}', 'middle'))
        parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, self.x_label, 'middle'))
        parts.append(_text(2, 12, self.y_label, 'start'))
        parts += self.parts
        return Markup('<svg role="img" viewBox="0 0 {} {}" aria-label="{}">{}</svg>').format(
            WIDTH, HEIGHT, self.label, Markup('').join(parts))


def heatmap(cells: Sequence[Sequence[int]], names: Sequence[str]) -> Markup:
    """Draw counts as squares: a row is a true class, a column a predicted one; shades are shares of the row."""
    margin = min(110, 12 + 6.2 * max(map(len, names)))
    side = (WIDTH - margin) / len(names)
    parts: List[Markup] = []
    for row, counts in enumerate(cells):
        total = sum(counts)
        parts.append(_text(margin - 5, (row + 0.5) * side + 4, _short(names[row]), 'end'))
        for column, count in enumerate(counts):
            share = count / total if total else 0.0
            title = f'{names[row]} taken for {names[column]}: {count} of {total}'
            parts.append(Markup(
                '<rect class="cell {}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}" fill-opacity="{:.3f}">'
                '<title>{}</title></rect>').format(
                'right' if row == column else 'wrong', margin + column * side, row * side, side - 1, side - 1,
                share and 0.08 + 0.92 * share, title))
            if count and side > 20:
                parts.append(_text(margin + (column + 0.5) * side, (row + 0.5) * side + 4, str(count), 'middle',
                                   'over' if share > DARK else ''))
    return Markup('<svg role="img" viewBox="0 0 {} {:.0f}" aria-label="confusion">{}</svg>').format(
        WIDTH, side * len(names) + 2, Markup('').join(parts))


def _text(x: float, y: float, text: str, anchor: str, kind: str = '') -> Markup:
    kind = Markup(' class="{}"').format(kind) if kind else ''
    return Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}"{}>{}</text>').format(x, y, anchor, kind, escape(text))


def _short(name: str, most: int = 16) -> str:
    return name if len(name) <= most else f'{name[:most - 1]}…'
