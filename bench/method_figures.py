"""Figures of the method's benchmark: hypervolume against evaluations, front against front, MACs against beta.

Needs matplotlib. Each figure is written as PNG, to look at, and SVG, whose text and lines stay sharp; both are the
same bytes for the same figures.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from intervals import mean_interval

mpl.use("Agg")
mpl.rcParams |= {
    "svg.hashsalt": "nachos_min",  # or every file would have its own random names
    "font.size": 10,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "figure.figsize": (7.2, 4.0),
    "savefig.dpi": 150,
}

from matplotlib import pyplot  # noqa: E402 - after the settings, which it reads

# Told apart with every kind of colour vision: Okabe and Ito's set, grey for the eighth.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")

Records = Mapping[str, Sequence[Mapping[str, Any]]]


def draw(found: Records, name: str, folder: Path, max_macs: int | None) -> list[Path]:
    """Return the files drawn for the searches `found` of each variant.

    Args:
        found: variant -> one record a seed, as `method_runs.run` returns them.
        name: how the files begin.
        folder: made if missing.
        max_macs: limit, drawn where it is.
    """
    folder.mkdir(parents=True, exist_ok=True)
    return [
        *saved(hypervolumes(found), folder / f"{name}-hypervolume"),
        *saved(fronts(found, max_macs), folder / f"{name}-fronts"),
    ]


def hypervolumes(found: Records) -> Any:
    """Return the figure of the hypervolume after each evaluation: mean over seeds, and its 95 % interval.

    On a table in per cent of what its members can reach: the largest of the variants' true hypervolumes, for some
    variants see more of each member than others.
    """
    figure, axes = pyplot.subplots(layout="constrained")
    truths = [_largest_truth(records) for records in zip(*found.values(), strict=True)]
    for colour, (variant, records) in zip(COLOURS, found.items(), strict=False):
        longest = max(len(record["hypervolume"]) for record in records)
        grown = np.array([_padded(record["hypervolume"], longest) for record in records])
        if truths[0] is not None:
            grown = 100 * grown / np.array([[truth["hypervolume"]] for truth in truths])
        intervals = [mean_interval(column) for column in grown.T.tolist()]
        at = np.arange(1, longest + 1)
        axes.plot(at, [each.value for each in intervals], color=colour, label=variant, zorder=3)
        low, high = ([getattr(each, side) for each in intervals] for side in ("low", "high"))
        axes.fill_between(at, low, high, color=colour, alpha=0.15, linewidth=0)
    # The first few evaluations would squeeze the rest: the view begins at what a fifth of them reach.
    curves = [line.get_ydata() for line in axes.lines]
    low, high = min(curve[len(curve) // 5] for curve in curves), max(curve[-1] for curve in curves)
    axes.set_ylim(low, high + 0.05 * (high - low))
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlabel("networks evaluated")
    axes.set_ylabel(
        f"admissible hypervolume, {'% of the true one' if truths[0] else 'share of the reference area'}"
    )
    figure.legend(loc="outside right upper", frameon=False)
    return figure


def fronts(found: Records, max_macs: int | None) -> Any:
    """Return the figure of the fronts: points of all seeds, and each variant's mean staircase.

    A staircase begins where all seeds have found something. The first variant lies above the others.
    """
    figure, axes = pyplot.subplots(layout="constrained")
    for place, (colour, (variant, records)) in enumerate(zip(COLOURS, found.items(), strict=False)):
        points = np.array([[n["macs"], n["accuracy"]] for record in records for n in record["front"]]).reshape(
            -1, 2
        )
        axes.scatter(points[:, 0] / 1000, 100 * points[:, 1], color=colour, s=6, alpha=0.3, linewidth=0)
        each = [[(network["macs"], network["accuracy"]) for network in record["front"]] for record in records]
        macs, accuracy = _staircase(each, max_macs)
        axes.plot(macs / 1000, 100 * accuracy, color=colour, label=variant, zorder=3 - 0.01 * place)
    truths = [_largest_truth(records) for records in zip(*found.values(), strict=True)]
    if truths[0] is not None:
        macs, accuracy = _staircase([truth["front"] for truth in truths], max_macs)
        axes.plot(macs / 1000, 100 * accuracy, "k--", linewidth=1, label="true fronts", zorder=2)
    if max_macs is not None:
        axes.axvline(max_macs / 1000, color="k", linestyle=":", linewidth=1)
    axes.set_xlabel("average MACs per inference, thousands")
    axes.set_ylabel("accuracy on validation, %")
    figure.legend(loc="outside right upper", frameon=False)
    return figure


def against_beta(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Return the figure of average MACs and accuracy against beta, with the 95 % intervals of their means.

    Args:
        rows: of each beta: `beta`, and the Intervals `macs` and `accuracy`.
    """
    figure, panels = pyplot.subplots(2, sharex=True, layout="constrained")
    sides = (("macs", 1e-3, "average MACs, 1000"), ("accuracy", 100, "accuracy, %"))
    for axes, colour, (field, scale, label) in zip(panels, COLOURS, sides, strict=False):
        values = [row[field] for row in rows]
        low = [scale * (each.value - each.low) for each in values]
        high = [scale * (each.high - each.value) for each in values]
        at, centre = [row["beta"] for row in rows], [scale * each.value for each in values]
        axes.errorbar(at, centre, yerr=(low, high), color=colour, marker="o", capsize=3)
        axes.set_ylabel(label)
    panels[-1].set_xlabel("beta, weight of the cost term")
    return figure


def saved(figure: Any, stem: Path) -> list[Path]:
    """Return the two files that `figure` was written to, `stem` with .png and .svg."""
    files = [stem.with_name(f"{stem.name}.{kind}") for kind in ("png", "svg")]
    for file in files:
        figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else {"Software": None})
    pyplot.close(figure)
    return files


def _largest_truth(records: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Return the truth with the largest hypervolume, None if a search trained its candidates."""
    truths = [record["truth"] for record in records]
    return None if None in truths else max(truths, key=lambda truth: truth["hypervolume"])


def _padded(values: Sequence[float], length: int) -> list[float]:
    return [*values, *[values[-1] if values else 0.0] * (length - len(values))]


def _staircase(fronts: Sequence[Sequence[Sequence[float]]], max_macs: int | None) -> tuple[Any, Any]:
    """Return MACs and, at each, the mean over `fronts` of the best accuracy within them; NaN where one has none.

    Args:
        fronts: each of (MACs, accuracy).
        max_macs: where the staircase ends; None: at the most expensive point.
    """
    every = [macs for front in fronts for macs, _ in front]
    if not every:
        return np.empty(0), np.empty(0)
    grid = np.linspace(min(every), max_macs or max(every), 300)
    reached = [[max((y for x, y in front if x <= limit), default=np.nan) for front in fronts] for limit in grid]
    return grid, np.mean(reached, axis=1)
