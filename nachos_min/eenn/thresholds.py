"""The exit policy, and what it costs and achieves: exact arithmetic on two tables.

One pass over a split gives, for every sample n and exit i, the cumulative confidence c[n, i] and whether
exit i would be right, r[n, i]. From then on no network is needed: a choice of thresholds is judged by
looking up the exit at which each sample leaves. Correct answers and MACs are whole numbers; averages are
fractions; limits are compared without rounding.

Read `losses.py` (`cumulative_confidence`) before; `grid_repair.py` and `exact_thresholds.py`, which choose
thresholds, after. Left out: running the network (`inference.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import isfinite
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

# Confidences lie in [0, 1], and rounding can make one exactly 1 although sigmoid never is. These two
# thresholds mean what they say for every confidence, on any split, and are finite, so that JSON holds them.
NOBODY = 2.0
EVERYBODY = 0.0


class Totals(Protocol):
    """What the limits are judged by: right answers, samples, and the MACs of all of them; whole numbers."""

    @property
    def correct(self) -> int: ...
    @property
    def samples(self) -> int: ...
    @property
    def total_macs(self) -> int: ...


@dataclass(frozen=True)
class Outcome:
    """What one choice of thresholds does to one split: whole numbers only, so nothing was rounded."""

    thresholds: tuple[float, ...]  # one per exit; the last is 0.0, since the last exit takes all that is left
    correct: int
    samples: int
    exit_counts: tuple[int, ...]  # samples that leave at each exit; they sum to `samples`
    total_macs: int  # over the split: sum of exit_counts[i] * costs[i]

    @property
    def accuracy(self) -> float:
        """Return the share of correct answers, in [0, 1]."""
        return self.correct / self.samples

    @property
    def average_macs(self) -> Fraction:
        """Return the MACs of one inference, averaged over the split, as an exact fraction."""
        return Fraction(self.total_macs, self.samples)


def check_tables(confidence: NDArray[np.floating[Any]], correct: NDArray[np.bool_], costs: Sequence[int]) -> None:
    """Check that the tables fit together; the public functions of the threshold files ask this first.

    Args:
        confidence: float64 [N, E], cumulative confidences in [0, 1].
        correct: bool [N, E], whether exit i is right about sample n.
        costs: E integers, MACs of a sample that leaves at exit i, growing from exit to exit.

    Raises:
        ValueError: if N < 1 or E < 2, if the shapes differ, if a confidence is outside [0, 1] (or NaN, as a
            diverged training gives), if the costs do not grow, or if exact int64 arithmetic could overflow.
    """
    if confidence.ndim != 2 or confidence.shape[0] < 1 or confidence.shape[1] < 2:
        raise ValueError(f"confidence must have shape (N >= 1, E >= 2), got {confidence.shape}")
    if correct.shape != confidence.shape:
        raise ValueError(f"correct must have confidence's shape {confidence.shape}, got {correct.shape}")
    samples, exits = confidence.shape
    if len(costs) != exits:
        raise ValueError(f"costs must have one entry for each of {exits} exits, got {len(costs)}")
    if any(cost >= following for cost, following in zip((0, *costs), costs, strict=False)):
        raise ValueError(f"costs must be positive and grow from exit to exit, got {tuple(costs)}")
    if not (confidence.min() >= 0.0 and confidence.max() <= 1.0):  # NaN fails both comparisons
        outside = confidence[~((confidence >= 0.0) & (confidence <= 1.0))]
        raise ValueError(f"confidence must lie in [0, 1], got {outside[0]}")
    # `exact` ranks choices by one integer of this size: correct answers first, then MACs.
    if (samples + 1) ** 2 * int(costs[-1]) >= 2**63:
        raise ValueError(f"(samples + 1)^2 * cost must be < 2^63, got {samples} samples at {costs[-1]} MACs")


def apply_thresholds(confidence: NDArray[np.floating[Any]], thresholds: Sequence[float]) -> NDArray[np.intp]:
    """Return the exit at which each sample leaves, intp [N], counted from 0.

    A sample leaves at the first exit i with c[n, i] >= thresholds[i]; the last exit takes what is left,
    whatever its threshold.

    Args:
        confidence: float64 [N, E], cumulative confidences.
        thresholds: E values, one per exit.

    Raises:
        ValueError: if there is not one threshold per exit.

    >>> apply_thresholds(np.array([[0.9, 0.95, 1.0], [0.2, 0.6, 1.0], [0.2, 0.3, 1.0]]), (0.7, 0.5, 0.0))
    array([0, 1, 2])
    """
    if len(thresholds) != confidence.shape[1]:
        raise ValueError(
            f"thresholds must have one entry for each of {confidence.shape[1]} exits, got {len(thresholds)}"
        )
    leaves = confidence >= np.asarray(thresholds, dtype=np.float64)
    leaves[:, -1] = True
    first: NDArray[np.intp] = np.argmax(leaves, axis=1)  # of booleans: the first True
    return first


def measure(
    confidence: NDArray[np.floating[Any]],
    correct: NDArray[np.bool_],
    costs: Sequence[int],
    thresholds: Sequence[float],
) -> Outcome:
    """Return what `thresholds` do to the split that the tables describe.

    Args:
        confidence: float64 [N, E], cumulative confidences in [0, 1].
        correct: bool [N, E], whether exit i is right about sample n.
        costs: E integers, MACs of a sample that leaves at exit i.
        thresholds: E values, one per exit.

    Raises:
        ValueError: if the tables do not fit together (`check_tables`) or there is not one threshold per exit.
    """
    check_tables(confidence, correct, costs)
    leaves_at = apply_thresholds(confidence, thresholds)
    samples, exits = confidence.shape
    exit_counts = tuple(np.bincount(leaves_at, minlength=exits).tolist())
    return Outcome(
        thresholds=tuple(float(threshold) for threshold in thresholds),
        correct=int(correct[np.arange(samples), leaves_at].sum()),
        samples=samples,
        exit_counts=exit_counts,
        total_macs=sum(count * int(cost) for count, cost in zip(exit_counts, costs, strict=True)),
    )


def static_outcome(correct: NDArray[np.bool_], cost: int) -> Outcome:
    """Return what a network without early exits does to a split: every sample leaves at the final exit.

    Args:
        correct: bool [N], whether the final exit is right about sample n.
        cost: its MACs.
    """
    samples = len(correct)
    return Outcome((EVERYBODY,), int(correct.sum()), samples, (samples,), samples * cost)


def decimal_fraction(name: str, value: float) -> Fraction:
    """Return `value` as the decimal it was written as: 0.9 is 9/10, not the double next to it.

    Args:
        name: what the error message calls `value`.
        value: any finite number.

    Raises:
        ValueError: if `value` is infinite or NaN.

    >>> decimal_fraction("min_accuracy", 0.9)
    Fraction(9, 10)
    """
    if not isfinite(value):
        raise ValueError(f"{name} must be finite, got {value}")
    return Fraction(str(value))


def fits_budget(outcome: Totals, max_macs: float | None) -> bool:
    """Return whether the average MACs are at most `max_macs`, compared as fractions.

    Args:
        outcome: of any split.
        max_macs: budget for the average MACs; None: no limit.

    Raises:
        ValueError: if `max_macs` is infinite or NaN.
    """
    if max_macs is None:
        return True
    return Fraction(outcome.total_macs, outcome.samples) <= decimal_fraction("max_macs", max_macs)


def fits_accuracy(outcome: Totals, min_accuracy: float) -> bool:
    """Return whether the accuracy is at least `min_accuracy`, compared as fractions.

    Args:
        outcome: of any split.
        min_accuracy: in [0, 1].

    Raises:
        ValueError: if `min_accuracy` is infinite or NaN.
    """
    return Fraction(outcome.correct, outcome.samples) >= decimal_fraction("min_accuracy", min_accuracy)


def admissible(outcome: Totals, max_macs: float | None, min_accuracy: float) -> bool:
    """Return whether both constraints of the search hold: A >= min_accuracy and M <= max_macs, unrounded.

    Args:
        outcome: of any split.
        max_macs: budget for the average MACs; None: no limit.
        min_accuracy: in [0, 1].

    Raises:
        ValueError: if a limit is infinite or NaN.

    >>> nine_of_ten = Outcome((0.5, 0.0), correct=9, samples=10, exit_counts=(5, 5), total_macs=600)
    >>> admissible(nine_of_ten, max_macs=60, min_accuracy=0.9)
    True
    >>> admissible(nine_of_ten, max_macs=59.99, min_accuracy=0.9)
    False
    """
    return fits_budget(outcome, max_macs) and fits_accuracy(outcome, min_accuracy)


def preference(outcome: Outcome, max_macs: float | None) -> tuple[bool, int, int]:
    """Return a key that is larger for the outcome we would rather have.

    Within the budget: more correct answers, then fewer MACs. Outside it: fewer MACs, then more correct
    answers. Anything within the budget comes before anything outside.

    Args:
        outcome: one of several on the same split; keys of different splits do not compare.
        max_macs: budget for the average MACs; None: no limit.

    Raises:
        ValueError: if `max_macs` is infinite or NaN.
    """
    if fits_budget(outcome, max_macs):
        return True, outcome.correct, -outcome.total_macs
    return False, -outcome.total_macs, outcome.correct
