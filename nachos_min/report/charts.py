"""Charts as SVG text that fits any width: places are per cent of the plot, and texts keep their size.

Lines lie in a nested drawing of 100 x 100 units that is stretched to the plot. Colours and sizes are those of the
style sheet in `run_report.html`.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10

Pairs = Sequence[tuple[float, float]]

WIDE = 20  # an axis is logarithmic if its largest value is more than this times its smallest
TICKS, MOST = 5, 8  # of a linear axis, about; of a logarithmic one, at most: they fit a narrow screen


@dataclass(frozen=True)
class Axis:
    """An axis from `least` to `most`, with its ticks and their texts."""

    title: str
    least: float
    most: float
    ticks: tuple[tuple[float, str], ...]
    logarithmic: bool = False

    def place(self, value: float) -> float:
        """Return where `value` stands, in per cent of the axis; what lies outside stands at its end."""
        ends = self.least, self.most, min(max(value, self.least), self.most)
        low, high, at = map(log10, ends) if self.logarithmic else ends
        return round(100 * (at - low) / (high - low), 2)


def axis(title: str, values: Iterable[float], text: Callable[[float], str]) -> Axis:
    """Return an axis that holds all `values` and ends at ticks.

    >>> found = axis("share", (0.31, 0.97), "{:g}".format)
    >>> [tick for _, tick in found.ticks], found.place(0.4), found.place(2)
    (['0.2', '0.4', '0.6', '0.8', '1'], 25.0, 100.0)
    >>> [tick for _, tick in axis("MACs", (900, 30_000), "{:,.0f}".format).ticks]
    ['500', '1,000', '2,000', '5,000', '10,000', '20,000', '50,000']
    """
    found = sorted(values)
    low, high = min(found[0], 0.95 * found[-1]), found[-1] or 1.0  # equal values get an axis, too
    if low > 0 and high > WIDE * low:
        decades = range(floor(log10(low)), ceil(log10(high)) + 1)
        steps = [factor * 10.0**decade for decade in decades for factor in (1, 2, 5)]
        first = max(number for number, step in enumerate(steps) if step <= low)
        last = min(number for number, step in enumerate(steps) if step >= high)
        every = 1 if last - first < MOST else 3  # 3: powers of ten alone
        ticks = [step for number, step in enumerate(steps) if first <= number <= last and number % every == 0]
        marked = tuple((tick, text(tick)) for tick in ticks)
        return Axis(title, steps[first], steps[last], marked, logarithmic=True)
    rough = (high - low) / TICKS
    unit = 10.0 ** floor(log10(rough))
    step = next(factor * unit for factor in (1, 2, 5, 10) if factor * unit >= rough * (1 - 1e-9))
    first, last = floor(low / step + 1e-9), ceil(high / step - 1e-9)
    ticks = [number * step for number in range(first, last + 1)]
    return Axis(title, ticks[0], ticks[-1], tuple((tick, text(tick)) for tick in ticks))


def short(count: float) -> str:
    """Return a number of MACs for the tick of an axis.

    >>> short(0), short(1_500), short(20_000), short(2_500_000)
    ('0', '1.5k', '20k', '2.5M')
    """
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:g}{letter}"
    return f"{count:g}"


@dataclass(frozen=True)
class Plot:
    """A chart with two axes, put together from marks."""

    across: Axis
    up: Axis

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Return per cent from the left and from the top."""
        return self.across.place(x), round(100 - self.up.place(y), 2)

    def lines(self, name: str, each: Iterable[Pairs]) -> str:
        """Return lines through points, of the class `name`; a line of one point is a dot."""
        moves = ("L".join(f"{x:g},{y:g}" for x, y in (self.at(*point) for point in points)) for points in each)
        path = "".join(f"M{move}" if "L" in move else f"M{move}h0" for move in moves)
        shape = f'<path class="{name}" d="{path}" vector-effect="non-scaling-stroke"/>'
        return f'<svg viewBox="0 0 100 100" preserveAspectRatio="none" aria-hidden="true">{shape}</svg>'

    def limit(self, text: str, *, x: float | None = None, y: float | None = None) -> str:
        """Return a line at `x` or at `y` across the whole plot, with its text."""
        left, top = self.at(self.across.least if x is None else x, self.up.least if y is None else y)
        if x is not None:
            line = f'<line x1="{left}%" x2="{left}%" y1="0" y2="100%"/>'
            side = 'text-anchor="end"' if left > 50 else ""
            return f'<g class="limit">{line}<text x="{left}%" y="0" dy="-6" {side}>{escape(text)}</text></g>'
        line = f'<line x1="0" x2="100%" y1="{top}%" y2="{top}%"/>'
        return f'<g class="limit">{line}<text x="0" y="{top}%" dx="6" dy="-6">{escape(text)}</text></g>'

    def svg(self, title: str, marks: str, *, group: bool = False) -> str:
        """Return the chart with `marks` in it; an image for screen readers, or a `group` that can be entered."""
        grid, texts = [], []
        for value, text in self.up.ticks:
            top = self.at(self.across.least, value)[1]
            grid.append(f'<line x1="0" x2="100%" y1="{top}%" y2="{top}%"/>')
            texts.append(f'<text x="0" y="{top}%" dx="-8" dy="4" text-anchor="end">{escape(text)}</text>')
        for value, text in self.across.ticks:
            left = self.at(value, self.up.least)[0]
            grid.append(f'<line x1="{left}%" x2="{left}%" y1="0" y2="100%"/>')
            texts.append(f'<text x="{left}%" y="100%" dy="20" text-anchor="middle">{escape(text)}</text>')
        texts.append(f'<text x="100%" y="100%" dy="40" text-anchor="end">{escape(self.across.title)}</text>')
        texts.append(f'<text x="0" y="0" dx="-48" dy="-26">{escape(self.up.title)}</text>')
        frame = f'<g class="grid" aria-hidden="true">{"".join(grid)}</g><g aria-hidden="true">{"".join(texts)}</g>'
        role = "group" if group else "img"
        return f'<svg class="chart" role="{role}" aria-label="{escape(title)}">{frame}{marks}</svg>'
