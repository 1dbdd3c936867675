"""What `predict` prints: how a network of a run answers a data set, as JSON, as CSV or for people."""

import csv
import sys
from dataclasses import asdict, dataclass
from io import StringIO
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from nachos_min.data.given import ALL, Given, read_given
from nachos_min.eenn.thresholds import Figures, by_class
from nachos_min.eenn.trained import Prediction
from nachos_min.files import write_file
from nachos_min.nas.plan import kinds
from nachos_min.nas.result import FiguresOnTest, Network
from nachos_min.nas.runs import open_run, solution
from nachos_min.report.console import output, table

WIDTH = 80
_FEW = 10  # samples whose answers are listed


@dataclass(frozen=True)
class PredictionReport:
    """The answers of a network to one split of a data set."""

    name: str  # RUN#k
    data: str
    network: Network
    given: Given
    prediction: Prediction

    @property
    def right(self) -> NDArray[np.bool_] | None:
        """Whether each answer is right, [N]; None: labels are not known."""
        return None if self.given.labels is None else self.given.labels == self.prediction.classes

    @property
    def counts(self) -> tuple[int, ...]:
        """How many samples leave at each exit."""
        return tuple(np.bincount(self.prediction.exits, minlength=len(self.network.exits)).tolist())

    @property
    def figures(self) -> FiguresOnTest | None:
        """The figures, as of the test split; None: labels are not known."""
        if self.right is None or self.given.labels is None:
            return None
        balanced = self.network.point.test.class_samples != ()
        classes = by_class(self.given.labels, self.right) if balanced else ()
        total = int(self.prediction.macs.sum())
        found = Figures(int(self.right.sum()), len(self.right), self.counts, total, *classes)
        return FiguresOnTest(**asdict(found), kept=self.network.limits.admissible(found))

    @property
    def answers(self) -> dict[str, list[Any]]:
        """What is known of each sample, in lists of equal length."""
        found, stages = self.prediction, np.array(self.network.exits)
        columns = {
            "answer": found.labels,
            "probability": found.probabilities.max(axis=1),
            "confidence": found.confidence,
            "stage": stages[found.exits],
            "exit": found.exits,
            "macs": found.macs,
        }
        if self.given.labels is not None:
            columns["label"] = self.network.trained.seen.labels(self.given.labels)
        return {"sample": [*self.given.names]} | {name: column.tolist() for name, column in columns.items()}

    def as_dict(self) -> dict[str, Any]:
        """Return the report for JSON."""
        said = {"network": self.name, "data": self.data, "split": self.given.split, "own_data": self.given.own}
        total = int(self.prediction.macs.sum())
        figures = {"samples": len(self.prediction), "total_macs": total, "exit_counts": list(self.counts)}
        figures |= {"average_macs": total / len(self.prediction)} | (self.figures.as_dict() if self.figures else {})
        return said | {"exits": list(self.network.exits)} | figures | {"answers": self.answers}

    def write(self, path: str | Path) -> None:
        """Write one line for each sample to a CSV file, below a line of names, which stand as they are.

        A mark before "=" or "@" would keep spreadsheets from taking a name for a formula, but make it another.
        """
        answers, text = self.answers, StringIO(newline="")
        csv.writer(text).writerows([answers, *zip(*answers.values(), strict=True)])
        write_file(path, text.getvalue().encode(errors="backslashreplace"))


def report_prediction(
    network: str, data: str, split: str | None = None, max_bytes: int | None = None
) -> PredictionReport:
    """Return how network RUN#k answers `data`, with early stopping; errors as of `solution` and `read_given`."""
    found = solution(network)
    assert found.problem is not None, "a stored run has one"
    digest = open_run(found.run).configuration["data_content"]
    halved = found.problem.configuration.validation == "halves"
    given = read_given(data, found.trained.seen, digest, split, halved=halved, max_bytes=max_bytes)
    return PredictionReport(network, data, found, given, found.trained.answers(given.images))


def show_prediction(report: PredictionReport, stream: TextIO | None = None) -> None:
    """Print a report to `stream` or standard output; of few samples, each answer."""
    console, prediction, found = output(stream or sys.stdout, WIDTH), report.prediction, report.figures
    given, what = report.given, kinds(report.network.trained.seen.shape)
    what = what if len(prediction) > 1 else what.replace("s of", " of", 1)
    split = "" if given.split == ALL else f", split {given.split}"
    split += (" of" if split else ", all of") + " the run's own data" if given.own else ""
    console.print(f"{report.name} on {report.data}{split}: {len(prediction):,} {what}")
    if found is not None:
        low, high = found.metric_interval95
        balanced = "balanced accuracy" if found.class_samples else "accuracy"
        right = f"{found.correct:,} of {found.samples:,} right"
        console.print(f"{balanced} {found.metric:.1%}, 95% interval {low:.1%} to {high:.1%}; {right}")
    average, most = prediction.macs.mean(), report.network.worst_macs
    console.print(f"{average:,.0f} MACs on average; {most:,} for one that passes every exit")
    if found is not None and not found.kept:
        console.print("A limit of the search is missed here.")
    console.print(_answers(report) if len(prediction) <= _FEW else _exits(report))


def _exits(report: PredictionReport) -> Table:
    """Return a row for each exit: how many samples leave, at what cost, and how many of their answers are right."""
    right, rows = report.right, []
    exits = zip(report.network.exits, report.counts, report.network.exit_costs, strict=True)
    for exit_, (stage, count, cost) in enumerate(exits):
        share = f"{count / len(report.prediction):.1%}"
        accuracy = "" if right is None or not count else f"{right[report.prediction.exits == exit_].mean():.1%}"
        rows.append((str(stage), count, share, cost, accuracy)[: 4 if right is None else 5])
    names = ("stage", "samples", "share", "MACs each", "accuracy")[: 4 if right is None else 5]
    return table(names, "lrrrr"[: len(names)], rows, edge=True)


def _answers(report: PredictionReport) -> Table:
    """Return a row for each sample."""
    forms = {"sample": "{}", "answer": "{}", "probability": "{:.1%}", "stage": "{}", "macs": "{:,}", "label": "{}"}
    shown = {name: [*map(forms[name].format, column)] for name, column in report.answers.items() if name in forms}
    names = ["MACs" if name == "macs" else name for name in shown]
    sides = "".join("l" if forms[name] == "{}" else "r" for name in shown)
    return table(names, sides, zip(*shown.values(), strict=True), edge=True)
