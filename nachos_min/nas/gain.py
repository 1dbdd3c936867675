"""What a network gained by being trained again: differences of accuracy on the test split, with intervals.

Both networks answer the same images, so their answers are compared image by image.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import sqrt
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nachos_min.eenn.thresholds import ExitTables, SplitLimits, apply_thresholds, preference

if TYPE_CHECKING:  # a result shows its gain
    from nachos_min.nas.evaluation import Evaluation
    from nachos_min.nas.result import Archive, Network

Labels = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Gain:
    """Accuracy after minus accuracy before, and its 95 % interval over images."""

    difference: float
    interval95: tuple[float, float]


@dataclass(frozen=True)
class Measured:
    """What a network has under its thresholds; accuracies are balanced where the search went by that."""

    average_macs: float
    test_accuracy: float
    test_average_macs: float


@dataclass(frozen=True)
class Again(Measured):
    """One training, under its most accurate thresholds that cost no more on validation than the network before.

    If all cost more, under the cheapest ones.
    """

    solution: int | None  # its number in the front, if it is there
    repeat: int  # of the trial
    thresholds: tuple[float, ...]
    kept: bool  # whether it keeps the limits, on validation and on test
    gain: Gain


@dataclass(frozen=True, repr=False)
class Retrained:
    """The trainings of a network, and what it was before."""

    of: str  # such as "digits#0"
    epochs_before: int
    epochs: int  # of each training
    before: Measured
    trainings: tuple[Again, ...]
    mean: Gain  # of the trainings' mean accuracy
    verdict: str  # what its interval shows: "better", "worse" or "no difference"

    def __repr__(self) -> str:
        low, high = self.mean.interval95
        gain = f"{self.mean.difference:+.4f} accuracy on test ({low:+.4f} to {high:+.4f}), {self.verdict}"
        return f"<Retrained {self.of}: {len(self.trainings)} x {self.epochs} epochs, {gain}>"

    def as_dict(self) -> dict[str, Any]:
        """Return plain values."""

        def listed(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
            return {name: list(value) if isinstance(value, tuple) else value for name, value in pairs}

        return asdict(self, dict_factory=listed)


def before_of(network: "Network", answers: ExitTables, labels: Labels, epochs: int) -> dict[str, Any]:
    """Return what a run keeps of the network that it trains again, as the store takes it.

    `answers` and `labels` are of the test split; the network was trained for `epochs`.
    """
    return {
        "of": network.name,
        "network": {"genome": network.genome, "thresholds": network.thresholds},
        "epochs": epochs,
        "figures": asdict(_measured(network)),
        "validation_macs": network.point.validation.total_macs,
        "labels": labels,
        "right": right_answers(answers, network.thresholds, labels),
    }


def _measured(network: "Network") -> Measured:
    return Measured(network.average_macs, network.test.metric, network.test.average_macs)


def retrained_of(archive: "Archive", front: Sequence["Network"]) -> Retrained | None:
    """Return what the run of `archive` gained, or None: it trains no network again, or no training is done."""
    problem, evaluations = archive.problem, archive.evaluations
    before = problem.about.get("retrained")
    if before is None or not evaluations:
        return None
    labels = before["labels"]
    classes = labels if problem.configuration.balanced else None
    differences, trainings = [], []
    for evaluation in evaluations:
        row = _comparable(archive, evaluation, before["validation_macs"])
        same = (each.solution for each in front if (each.evaluation, each.point) == (evaluation, row.point))
        assert evaluation.on_test is not None, "every run that trains a network again stores it"
        after = right_answers(evaluation.on_test, row.thresholds, labels)
        differences.append(after.astype(np.float64) - before["right"])
        trainings.append(
            Again(
                **asdict(_measured(row)),
                solution=next(same, None),
                repeat=evaluation.trial.repeat,
                thresholds=row.thresholds,
                kept=archive.admits(row) and row.test.kept,
                gain=paired_gain(differences[-1], classes),
            )
        )
    epochs = problem.configuration.recipe.passes(problem.about["samples"]["train"])
    mean = paired_gain(np.mean(differences, axis=0), classes)
    low, high = mean.interval95
    verdict = "better" if low > 0 else "worse" if high < 0 else "no difference"
    was = before["of"], before["epochs"], epochs, Measured(**before["figures"])
    return Retrained(*was, tuple(trainings), mean, verdict)


def _comparable(archive: "Archive", evaluation: "Evaluation", most: int) -> "Network":
    """Return a training under the thresholds of `Again`; `most` is of MACs of the whole validation split."""
    rows = [archive.network(evaluation, point) for point in evaluation.points]
    rows = [row for row in rows if archive.admits(row)] or rows[:1]
    return max(rows, key=lambda row: preference(row.point.validation, SplitLimits(0, most)))


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
    >>> round(gain.difference, 4), [round(end, 4) for end in gain.interval95]
    (0.07, [0.002, 0.138])
    """
    groups = [differences] if labels is None else [differences[labels == each] for each in np.unique(labels)]
    difference, variance = float(np.mean([group.mean() for group in groups])), 0.0
    for group in groups:
        samples = len(group) + 2
        variance += ((np.square(group).sum() + 2) / samples - (group.sum() / samples) ** 2) / samples
    half = 1.959963984540054 * sqrt(variance) / len(groups)
    return Gain(difference, (max(-1.0, difference - half), min(1.0, difference + half)))
