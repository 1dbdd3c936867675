"""What a network gained by being trained again: differences of accuracy on the test split, with intervals.

Both networks answer the same images, so their answers are compared image by image.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nachos_min.eenn.thresholds import ExitTables, apply_thresholds

if TYPE_CHECKING:  # a result shows its gain
    from nachos_min.nas.evaluation import Evaluation
    from nachos_min.nas.result import Archive, Network

Labels = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Gain:
    """Accuracy after minus accuracy before, and its 95 % interval over images."""

    difference: float
    interval95: tuple[float, float]

    @property
    def verdict(self) -> str:
        """What the interval shows: "better", "worse" or "no difference"."""
        low, high = self.interval95
        return "better" if low > 0 else "worse" if high < 0 else "no difference"

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        return {"difference": self.difference, "interval95": list(self.interval95)}


@dataclass(frozen=True)
class Again:
    """One training, under its most accurate thresholds that cost no more on validation than the network before.

    If all cost more, under the cheapest ones.
    """

    network: "Network"
    solution: int | None  # its number in the front, if it is there
    kept: bool  # whether it keeps the limits on validation
    gain: Gain

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        row, test = self.network, self.network.test
        found: dict[str, Any] = {
            "solution": self.solution,
            "repeat": row.evaluation.trial.repeat,
            "kept": self.kept,
        }
        found |= {"thresholds": list(row.thresholds), "average_macs": row.average_macs}
        return found | {"test": {"accuracy": test.metric, "average_macs": test.average_macs}} | self.gain.as_dict()


@dataclass(frozen=True)
class Retrained:
    """The trainings of a network, and what it was before."""

    before: Mapping[str, Any]  # as `before_of` returns it
    epochs: int  # of each training
    trainings: tuple[Again, ...]
    mean: Gain  # of the trainings' mean accuracy

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""
        shown = {name: self.before[name] for name in ("of", "epochs", "accuracy", "average_macs")}
        trainings = [each.as_dict() for each in self.trainings]
        mean = self.mean.as_dict() | {"verdict": self.mean.verdict}
        return {"before": shown, "epochs": self.epochs, "trainings": trainings, "mean": mean}


def before_of(network: "Network", answers: ExitTables, labels: Labels, epochs: int) -> dict[str, Any]:
    """Return what a run keeps of the network that it trains again, as the store takes it.

    Args:
        network: under its thresholds.
        answers: of its exits on the test split.
        labels: integers (N,) of the test split.
        epochs: which it was trained for.
    """
    return {
        "of": f"{Path(network.run).name}#{network.solution}",
        "network": {"genome": network.genome, "thresholds": network.thresholds},
        "epochs": epochs,
        "accuracy": network.test.metric,
        "average_macs": network.test.average_macs,
        "shown_macs": network.average_macs,
        "validation_macs": network.point.validation.total_macs,
        "labels": labels,
        "right": right_answers(answers, network.thresholds, labels),
    }


def retrained_of(archive: "Archive", front: Sequence["Network"]) -> Retrained | None:
    """Return what the run of `archive` gained, or None: it trains no network again, or no training is done."""
    problem, evaluations = archive.problem, archive.evaluations
    before = problem.about.get("retrained")
    if before is None or not evaluations:
        return None
    labels, balanced = before["labels"], problem.configuration.balanced
    differences, trainings = [], []
    for evaluation in evaluations:
        row = _comparable(archive, evaluation, before["validation_macs"])
        same = (each.solution for each in front if (each.evaluation, each.point) == (evaluation, row.point))
        assert evaluation.on_test is not None, "every run that trains a network again stores it"
        after = right_answers(evaluation.on_test, row.thresholds, labels)
        differences.append(after.astype(np.float64) - before["right"])
        gain = paired_gain(differences[-1], labels if balanced else None)
        trainings.append(Again(row, next(same, None), archive.admits(row), gain))
    epochs = problem.configuration.recipe.passes(problem.about["samples"]["train"])
    mean = paired_gain(np.mean(differences, axis=0), labels if balanced else None)
    return Retrained(before, epochs, tuple(trainings), mean)


def _comparable(archive: "Archive", evaluation: "Evaluation", most: int) -> "Network":
    """Return a training under the thresholds of `Again`; `most` MACs on the validation split."""
    rows = [archive.network(evaluation, point) for point in evaluation.points]
    rows = [row for row in rows if archive.admits(row)] or rows[:1]
    spent = {place: row.point.validation.total_macs for place, row in enumerate(rows)}
    within = [place for place in spent if spent[place] <= most] or [min(spent, key=spent.__getitem__)]
    return rows[max(within, key=lambda place: (rows[place].point.validation.score, -spent[place]))]


def right_answers(answers: ExitTables, thresholds: Sequence[float], labels: Labels) -> NDArray[np.bool_]:
    """Return which of N samples are answered right under `thresholds`, bool (N,)."""
    leaves_at = apply_thresholds(answers.confidence, thresholds)
    return np.asarray(answers.predicted[np.arange(len(labels)), leaves_at] == labels)


def paired_gain(differences: NDArray[np.float64], labels: Labels | None = None) -> Gain:
    """Return the mean difference and its 95 % interval, within [-1, 1].

    The variance is that of the samples and two more, with the differences 1 and -1. So the interval has a width
    even if no answer differs.

    Args:
        differences: (N,) of right answers after minus before, each in [-1, 1].
        labels: (N,) classes, if each class counts the same (balanced accuracy); None: each sample does.

    Source: Bonett and Price, "Adjusted Wald confidence interval for a difference of binomial proportions based on
        paired data", Journal of Educational and Behavioral Statistics 37, 2012; its centre is not adjusted here.

    >>> gain = paired_gain(np.array([1.0] * 9 + [-1.0] * 2 + [0.0] * 89))
    >>> round(gain.difference, 4), [round(end, 4) for end in gain.interval95], gain.verdict
    (0.07, [0.0012, 0.1388], 'better')
    """
    groups = [differences] if labels is None else [differences[labels == each] for each in np.unique(labels)]
    difference, variance = float(np.mean([group.mean() for group in groups])), 0.0
    for group in groups:
        samples = len(group) + 2
        variance += ((np.square(group).sum() + 2) / samples - (group.sum() / samples) ** 2) / samples
    half = 1.959963984540054 * sqrt(variance) / len(groups)
    return Gain(difference, (max(-1.0, difference - half), min(1.0, difference + half)))
