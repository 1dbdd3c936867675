"""The front of a run as a figure for papers: SVG, PNG or PDF, by Matplotlib (the extra `plot`).

The same run gives the same bytes with the same version of Matplotlib.
"""

from io import BytesIO
from pathlib import Path
from typing import Any

from nachos_min.errors import InputError, shorten
from nachos_min.files import write_file
from nachos_min.report.charts import short
from nachos_min.report.run_report import Story, front_plot, letter, read_story

# Told apart with every kind of colour vision: Okabe and Ito's set.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKS = "os^D"
NO_DATE: dict[str, Any] = {".svg": {"Date": None}, ".png": {"Software": None}, ".pdf": {"CreationDate": None}}


def write_figure(run: str | Path, to: str | Path | None = None) -> str:
    """Return what was written, in one line: the front of the run in folder `run`, as `to` or as its front.svg.

    InputError as of `write_report`, if the name has another ending, or if Matplotlib is not installed.
    """
    file = Path(run) / "front.svg" if to is None else Path(to)
    kind = file.suffix.lower()
    if kind not in NO_DATE:
        raise InputError(f"--to must end in .svg, .png or .pdf, got {shorten(str(file))}")
    try:
        import matplotlib as mpl
        from matplotlib.figure import Figure
    except ImportError:
        raise InputError(f"{file}: a figure needs Matplotlib: pip install 'nachos_min[plot]'") from None
    story, content = read_story(run), BytesIO()
    # Text stays text in SVG and PDF. Without the salt every SVG would have other names.
    with mpl.rc_context({"svg.hashsalt": "nachos_min", "svg.fonttype": "none", "pdf.fonttype": 42, "font.size": 9}):
        figure = Figure(figsize=(6.4, 4.2), layout="constrained")
        draw(story, figure)
        figure.savefig(content, format=kind[1:], dpi=200, metadata=NO_DATE[kind])
    write_file(file, content.getvalue())
    return f"{file}: {story.size}"


def draw(story: Story, figure: Any) -> None:
    """Draw the front on a Matplotlib figure: full marks as shown, hollow ones on the test split with intervals."""
    axes, limits, plot = figure.subplots(), story.result.limits, front_plot(story)
    for curve in story.curves:
        axes.plot(*zip(*curve, strict=True), ".-", color="0.8", linewidth=0.8, markersize=2, zorder=0)
    for number, rows in enumerate(story.networks.values()):
        colour, stages = COLOURS[number % len(COLOURS)], ", ".join(map(str, rows[0].exits))
        look = {"color": colour, "marker": MARKS[number % len(MARKS)], "linestyle": "none", "markersize": 4.5}
        label = f"network {letter(number)}: exits after stages {stages}"
        for row in rows:
            axes.plot(row.average_macs, row.metric, **look, label=label)
            axes.plot(row.test.average_macs, row.test.metric, **look, fillstyle="none", markeredgewidth=0.6)
            axes.vlines(row.test.average_macs, *row.test.metric_interval95, color=colour, alpha=0.4, linewidth=0.8)
            label = "_"  # once in the legend
    if limits.min_accuracy:
        axes.axhline(limits.min_accuracy, color="k", linestyle=":", linewidth=1)
    if limits.max_macs is not None:
        axes.axvline(limits.max_macs, color="k", linestyle=":", linewidth=1)
    axes.set(xlabel="average MACs of an answer", ylabel=f"{story.accuracy} (hollow: test split, 95 % interval)")
    axes.set(ylim=(plot.up.least, 1.005), xscale="log" if plot.across.logarithmic else "linear")
    axes.xaxis.set_major_formatter(lambda value, _: short(value))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.spines[["top", "right"]].set_visible(False)
    if story.rows:
        figure.legend(loc="outside upper left", ncols=2, frameon=False, fontsize=8)
