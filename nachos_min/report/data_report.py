"""What `data` prints: what was understood of a data set, and how to go on, as JSON or for people."""

import shlex
import sys
from dataclasses import dataclass, replace
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray
from rich.cells import cell_len, set_cell_size
from rich.console import Console
from rich.table import Table
from rich.text import Text

from nachos_min.data import Dataset, load
from nachos_min.errors import InputError, cut
from nachos_min.nas.configuration import Options, resolved
from nachos_min.nas.fitting import prepared
from nachos_min.nas.plan import Plan, kinds, plan_of
from nachos_min.options import flag
from nachos_min.report.console import output, table
from nachos_min.report.pictures import GAP, curve, drawn, fitted

WIDTH = 80  # columns that pictures take
_ROWS = 12  # classes listed
_UNEVEN = 0.75  # share of a class that is warned about
_WIDEST = 24  # columns of one picture
_MOST, _SIGNALS = 8, 4  # images drawn side by side, signals drawn one below the other


@dataclass(frozen=True)
class DataReport:
    """One data set, as a search would see it."""

    dataset: Dataset  # as `load` returns it
    search: str  # the command line that goes on
    plan: Plan | str  # what that searches; or why it is refused, on one line

    @property
    def stored(self) -> NDArray[Any]:
        """The images that train is of, as they are kept."""
        return self.dataset.train.images.stored

    @property
    def range(self) -> tuple[float, float]:
        """The least and the largest value of the images, before they are standardised."""
        return self.stored.min().item(), self.stored.max().item()

    @property
    def warnings(self) -> list[str]:
        """A sentence if one class is most of the data: an accuracy limit below its share asks for nothing."""
        if (share := self.dataset.train.largest_share) < _UNEVEN:
            return []
        rule = f"always answering the largest class is right for {share:.1%} of train"
        return [f"WARNING: {rule}: --min-accuracy must be above, or use --metric balanced."]

    @property
    def counts(self) -> dict[str, NDArray[np.int64]]:
        """The samples of each class, by split."""
        splits, classes = self.dataset.splits, self.dataset.classes
        return {name: np.bincount(split.labels, minlength=classes) for name, split in splits.items()}

    def as_dict(self) -> dict[str, Any]:
        """Return the report for JSON."""
        counts = self.counts
        classes = [
            {"name": name, **{split: int(each[label]) for split, each in counts.items()}}
            for label, name in enumerate(self.dataset.class_names)
        ]
        return {
            "data": self.dataset.name,
            "image_shape": list(self.dataset.image_shape),
            "dtype": str(self.stored.dtype),
            "range": list(self.range),
            "splits": {name: len(split) for name, split in self.dataset.splits.items()},
            "classes": classes,
            "notes": list(self.dataset.notes),
            "warnings": self.warnings,
            "search": self.search,
            "plan": {"refused": self.plan} if isinstance(self.plan, str) else self.plan.as_dict(),
        }


def report_data(
    path: str, layout: str | None = None, resolution: int | None = None, max_bytes: int | None = None
) -> DataReport:
    """Return the report on a data set, read as by `load`; a search that is refused is part of it."""
    options: Options = {"data": path, "layout": layout, "resolution": resolution, "max_bytes": max_bytes}
    asked = resolved({"data": path})  # the data are loaded here, with the other options
    dataset = load(path, layout=layout, resolution=resolution, max_bytes=max_bytes)
    given = ((flag(name), str(value)) for name, value in options.items() if value is not None)
    flags = (f"{name}{'=' if value[0] == '-' else ' '}{shlex.quote(value)}" for name, value in given)
    search = " ".join(["python -m nachos_min search", *flags])
    try:
        return DataReport(dataset, search, plan_of(prepared(asked, dataset), asked))
    except InputError as refusal:
        return DataReport(dataset, search, str(refusal))


def show_data(report: DataReport, stream: TextIO | None = None) -> None:
    """Print a report to `stream` or standard output, with a few samples as blocks."""
    console = output(stream or sys.stdout, WIDTH)
    data, (least, most) = report.dataset, report.range
    total = sum(map(len, data.splits.values()))
    console.print(f"{data.name}: {total:,} {kinds(data.image_shape)}")
    console.print(f"values: {report.stored.dtype} from {least:g} to {most:g}")
    console.print(_classes(report))
    shares = report.counts["train"] / len(data.train)
    extremes = (("largest", shares.argmax()), ("smallest", shares.argmin()))
    named = (f"{what} class {data.class_names[label]} ({shares[label]:.1%})" for what, label in extremes)
    equal = shares.min() == shares.max()
    console.print("in train: " + ("all classes are equally large" if equal else ", ".join(named)))
    for warning in report.warnings:
        console.print(warning)
    for note in data.notes:
        console.print(f"- {note}")
    console.print("", *_samples(report, console), sep="\n")
    plan = report.plan
    lines = [f"A search is refused: {plan}"] if isinstance(plan, str) else plan.search_lines()
    console.print("", *lines, f"To search: {report.search}", sep="\n")


def _classes(report: DataReport) -> Table:
    """Return the table of classes: how many samples of each split, and which share of train."""
    counts, names = report.counts, report.dataset.class_names

    def row(title: str, chosen: Any) -> list[str | int]:
        each = {split: int(count[chosen].sum()) for split, count in counts.items()}
        return [title, *each.values(), f"{each['train'] / len(report.dataset.train):.1%}"]

    order = np.argsort(-counts["train"], kind="stable")
    shown = range(len(names)) if len(names) <= _ROWS else sorted([*order[: _ROWS // 2], *order[-_ROWS // 2 :]])
    rows = [row(names[label], label) for label in shown]
    if hidden := len(names) - len(shown):
        rows.append(row(f"... and {hidden} more", np.setdiff1d(order, shown)))
    rows.append(row(f"{len(names)} classes", slice(None)))
    heads = "class", *counts, "share of train"
    made = table(heads, "l".ljust(len(heads), "r"), rows, edge=True)
    made.rows[-2].end_section = True
    return made


def _samples(report: DataReport, console: Console) -> list[Text]:
    """Return lines that show samples of evenly spaced classes; of fewer classes than fit, several of each."""
    data, (least, most) = report.dataset, report.range
    height, width, _ = data.image_shape
    columns = min(width, _WIDEST)
    wanted = _SIGNALS if height == 1 else min(max(2, (WIDTH + GAP) // (columns + GAP)), _MOST)
    step = max(1, data.classes // wanted)
    classes = [step * (number % data.classes) for number in range(wanted)]
    members = [np.flatnonzero(data.train.labels == label) for label in classes]
    places = [each[number // data.classes % len(each)] for number, each in enumerate(members)]
    names = [cut(data.class_names[label]) for label in classes]
    raw = replace(data.train.images, scaling=None)[np.array(places)]
    shares = ((raw.astype(np.float64) - least) / (most - least)).astype(np.float32)
    unicode = console.is_terminal and console.encoding.startswith("utf")
    if height == 1:
        return [
            Text(f"{_cut(name, _WIDEST)} {curve(each, WIDTH - _WIDEST - 1, bars=unicode)}")
            for name, each in zip(names, shares, strict=True)
        ]
    pictures = fitted(shares, columns)
    titles = (" " * GAP).join(_cut(name, pictures.shape[2]) for name in names)
    return [*drawn(pictures, colours=unicode and console.color_system is not None), Text(titles.rstrip())]


def _cut(name: str, columns: int) -> str:
    """Return a name that takes exactly so many columns."""
    return set_cell_size(name, columns) if cell_len(name) <= columns else set_cell_size(name, columns - 1) + "~"
