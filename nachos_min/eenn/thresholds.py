"""The exit policy, and what it costs and achieves: exact arithmetic on the tables of one split.

One pass over a split gives, for every sample n and exit i, the cumulative confidence c[n, i] and whether exit i is
right, r[n, i]. They suffice to judge thresholds: each sample leaves at an exit, which is looked up. Figures and
limits are integers, so nothing is rounded.

A search goes by top-1 accuracy, or by balanced accuracy, the mean of the classes' accuracies. For the second a
right answer to one of the n_c samples of class c counts lcm(n_1, ..., n_K) / n_c.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache
from math import ceil, floor, isfinite, lcm, prod, sqrt, ulp
from operator import mul
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Thresholds at which no sample leaves, and every sample. A confidence can round to 1, so NEVER is larger.
NEVER = 2.0
ALWAYS = 0.0

LARGEST = 2**62  # scores and MACs of a sweep stay below this, so that int64 holds them and their differences


@dataclass(frozen=True)
class Figures:
    """What a network does on one split under its thresholds."""

    correct: int
    samples: int
    exit_counts: tuple[int, ...]  # samples that leave at each of the E exits
    total_macs: int  # of the split: the sum of exit_counts[i] * costs[i]
    class_correct: tuple[int, ...] = ()  # of each class; empty: a search goes by top-1 accuracy
    class_samples: tuple[int, ...] = ()  # of each class; one without a sample does not count

    @property
    def accuracy(self) -> float:
        """Top-1 accuracy in [0, 1]."""
        return self.correct / self.samples

    @cached_property
    def metric(self) -> float:
        """What a search goes by, in [0, 1]: the balanced accuracy if classes were counted, else the accuracy."""
        return self.score / self.full_score

    @property
    def balanced_accuracy(self) -> float | None:
        """Mean of the classes' accuracies in [0, 1]; None if they were not counted."""
        return self.metric if self.class_samples else None

    @property
    def score(self) -> int:
        """Right answers, weighted by `class_weights` if classes were counted."""
        if not self.class_samples:
            return self.correct
        return sum(map(mul, class_weights(self.class_samples), self.class_correct))

    @property
    def full_score(self) -> int:
        """The score if all answers are right."""
        return full_score(self.class_samples) if self.class_samples else self.samples

    @property
    def average_macs(self) -> float:
        """Mean MACs of one inference."""
        return self.total_macs / self.samples


@dataclass(frozen=True)
class OperatingPoint:
    """E thresholds, the last of which is 0, and what they do on the split that they were chosen on."""

    thresholds: tuple[float, ...]
    figures: Figures


@dataclass(frozen=True)
class SplitLimits:
    """The limits on accuracy and average MACs as integers of one split; `most_macs` None: no limit."""

    least_correct: int  # compared with `Figures.score`
    most_macs: int | None

    def affordable(self, figures: Figures) -> bool:
        """Return whether the MACs are within their limit."""
        return self.most_macs is None or figures.total_macs <= self.most_macs

    def admit(self, figures: Figures) -> bool:
        """Return whether both limits hold."""
        return figures.score >= self.least_correct and self.affordable(figures)


@lru_cache(maxsize=64)
def split_limits(
    max_macs: float | None, min_accuracy: float, samples: int, full_score: int | None = None
) -> SplitLimits:
    """Return limits as integers of a split: accuracy >= `min_accuracy` and average MACs <= `max_macs`.

    With a `full_score`, of a split whose classes are counted, the first is a limit on balanced accuracy.
    Numbers are taken as the decimals they are written as: 0.7 of 10 samples are 7, not 7.000000000000001.
    An accuracy that rounds to `min_accuracy` as a float keeps it: the accuracy of a network is no limit above it.
    ValueError if a limit is infinite or NaN.

    >>> split_limits(59.99, 0.9, samples=10)
    SplitLimits(least_correct=9, most_macs=599)
    """
    for name, value in (("min_accuracy", min_accuracy), ("max_macs", max_macs)):
        if value is not None and not isfinite(value):
            raise ValueError(f"{name} must be finite, got {value}")
    most = None if max_macs is None else floor(Fraction(str(max_macs)) * samples)
    least = Fraction(min_accuracy) - Fraction(ulp(min_accuracy)) / 2  # what rounds to it
    return SplitLimits(ceil(least * (full_score or samples)), most)


@lru_cache(maxsize=64)
def class_weights(class_samples: tuple[int, ...]) -> tuple[int, ...]:
    """Return what a right answer to a sample of each class counts: all classes that occur count the same.

    It is the least common multiple of the numbers of samples, divided by the class's own; 0 without a sample.

    >>> class_weights((4, 0, 6))
    (3, 0, 2)
    """
    multiple = lcm(*filter(None, class_samples))
    return tuple(multiple // samples if samples else 0 for samples in class_samples)


@lru_cache(maxsize=64)
def full_score(class_samples: tuple[int, ...]) -> int:
    """Return the sum of the weights of all samples."""
    return sum(map(mul, class_weights(class_samples), class_samples))


@lru_cache(maxsize=64)
def sweep_weights(class_samples: tuple[int, ...]) -> tuple[int, ...]:
    """Return `class_weights`, or integers nearly in proportion to them if the full score is not below 2^62.

    Those are 2^k / n_c, rounded, for the largest k with K 2^k < 2^61, where K classes occur. Each is off by 1/2 at
    most. So balanced accuracies of N samples by these weights are off by less than N / (K 2^k) <= N / 2^60.
    """
    if full_score(class_samples) < LARGEST:
        return class_weights(class_samples)
    occurring = sum(map(bool, class_samples))
    unit = 2 ** (LARGEST.bit_length() - 2 - occurring.bit_length())
    return tuple((2 * unit + samples) // (2 * samples) if samples else 0 for samples in class_samples)


def by_class(labels: NDArray[np.int64], right: NDArray[np.bool_]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the right answers to, and the number of, samples of each class; `labels` and `right` are (N,)."""
    samples = np.bincount(labels)
    return tuple(np.bincount(labels[right], minlength=len(samples)).tolist()), tuple(samples.tolist())


@dataclass(frozen=True, eq=False)
class PolicyTables:
    """All that the exit policy needs to know of a network and a split of N samples.

    Raises:
        ValueError: if N or E is 0, if the shapes differ, if a confidence is outside [0, 1] (or NaN, as a diverged
            training gives), if the costs do not grow, or if int64 arithmetic could overflow.
    """

    confidence: NDArray[np.floating[Any]]  # float64 [N, E], cumulative, in [0, 1]
    correct: NDArray[np.bool_]  # [N, E], whether exit i is right about sample n
    costs: tuple[int, ...]  # MACs of a sample that leaves at exit i, growing from exit to exit
    labels: NDArray[np.int64] | None = None  # [N], right classes, if they are to be counted

    def __post_init__(self) -> None:
        """Check that the tables fit together."""
        shape, costs = self.confidence.shape, self.costs
        if len(shape) != 2 or 0 in shape:
            raise ValueError(f"confidence must have shape (N >= 1, E >= 1), got {shape}")
        if self.correct.shape != shape:
            raise ValueError(f"correct must have confidence's shape {shape}, got {self.correct.shape}")
        if len(costs) != shape[1]:
            raise ValueError(f"costs must have one entry for each of {shape[1]} exits, got {len(costs)}")
        if any(cost >= following for cost, following in zip((0, *costs), costs, strict=False)):
            raise ValueError(f"costs must be positive and grow from exit to exit, got {costs}")
        if not (self.confidence.min() >= 0.0 and self.confidence.max() <= 1.0):  # NaN fails both comparisons
            outside = self.confidence[~((self.confidence >= 0.0) & (self.confidence <= 1.0))]
            raise ValueError(f"confidence must lie in [0, 1], got {outside[0]}")
        if shape[0] * int(costs[-1]) >= LARGEST:
            raise ValueError(f"samples * cost must be < 2^62, got {shape[0]} samples at {costs[-1]} MACs")
        if self.labels is not None and self.labels.shape != shape[:1]:
            raise ValueError(f"labels must have one entry for each of {shape[0]} samples, got {self.labels.shape}")

    @property
    def samples(self) -> int:
        """Return N."""
        return len(self.confidence)

    @property
    def full_score(self) -> int:
        """Return `Figures.full_score` of the split."""
        return self.samples if self.labels is None else full_score(tuple(np.bincount(self.labels).tolist()))

    def figures(self, thresholds: Sequence[float]) -> Figures:
        """Return what `thresholds`, one per exit, do on the split."""
        leaves_at = apply_thresholds(self.confidence, thresholds)
        exit_counts = tuple(np.bincount(leaves_at, minlength=len(self.costs)).tolist())
        right = self.correct[np.arange(self.samples), leaves_at]
        counted = () if self.labels is None else by_class(self.labels, right)
        return Figures(int(right.sum()), self.samples, exit_counts, spent(exit_counts, self.costs), *counted)

    def point(self, early: Sequence[float]) -> OperatingPoint:
        """Return the operating point with the thresholds `early` at the E-1 early exits."""
        thresholds = (*map(float, early), ALWAYS)
        return OperatingPoint(thresholds, self.figures(thresholds))


@dataclass(frozen=True)
class ExitTables:
    """What every exit says about every sample."""

    confidence: NDArray[np.floating[Any]]  # cumulative c, float64 (N, E), non-decreasing along a row, last column 1
    predicted: NDArray[np.int64]  # class with the largest logit, int64 (N, E)

    def policy_tables(
        self, labels: NDArray[np.int64], costs: tuple[int, ...], *, balanced: bool = False
    ) -> PolicyTables:
        """Return what thresholds are chosen on, for the right `labels` (N,) and the `costs` of the E exits."""
        right = np.asarray(self.predicted == labels[:, None])
        return PolicyTables(self.confidence, right, costs, labels if balanced else None)


def apply_thresholds(confidence: NDArray[np.floating[Any]], thresholds: Sequence[float]) -> NDArray[np.intp]:
    """Return the exit at which each sample leaves, intp [N], counted from 0.

    A sample leaves at the first exit i with c[n, i] >= thresholds[i]. The last exit takes the rest, whatever its
    threshold. ValueError if there is not one threshold per exit.

    >>> apply_thresholds(np.array([[0.9, 0.95, 1.0], [0.2, 0.6, 1.0], [0.2, 0.3, 1.0]]), (0.7, 0.5, 0.0))
    array([0, 1, 2])
    """
    exits = confidence.shape[1]
    if len(thresholds) != exits:
        raise ValueError(f"thresholds must have one entry for each of {exits} exits, got {len(thresholds)}")
    leaves = confidence >= np.asarray(thresholds, dtype=np.float64)
    leaves[:, -1] = True
    first: NDArray[np.intp] = np.argmax(leaves, axis=1)  # of booleans: the first True
    return first


def confusion_by_exit(
    tables: ExitTables, thresholds: Sequence[float], labels: NDArray[np.int64], classes: int
) -> NDArray[np.int64]:
    """Return how many samples of each right class leave at each exit with each answer, int64 [E, C, C].

    Entry [e, r, a] counts the samples of class r that leave at exit e and are taken for class a.

    >>> tables = ExitTables(np.array([[0.9, 1.0], [0.1, 1.0]]), np.array([[1, 0], [0, 1]]))
    >>> confusion_by_exit(tables, (0.5, 0.0), np.array([1, 0]), 2).tolist()
    [[[0, 0], [0, 1]], [[0, 1], [0, 0]]]
    """
    leaves_at = apply_thresholds(tables.confidence, thresholds)
    answers = tables.predicted[np.arange(len(labels)), leaves_at]
    return counted_by(leaves_at, labels, answers, shape=(len(thresholds), classes, classes))


def counted_by(*indices: NDArray[np.integer[Any]], shape: tuple[int, ...]) -> NDArray[np.int64]:
    """Return how often each combination of indices, each [N], occurs, int64 of `shape`.

    >>> counted_by(np.array([0, 1, 1]), np.array([1, 0, 0]), shape=(2, 2)).tolist()
    [[0, 1], [2, 0]]
    """
    flat = np.ravel_multi_index(indices, shape)
    return np.asarray(np.bincount(flat, minlength=prod(shape)).reshape(shape), np.int64)


def spent(exit_counts: Sequence[int], costs: Sequence[int]) -> int:
    """Return the MACs of samples of which `exit_counts`[i] leave at exit i, which costs `costs`[i]."""
    return sum(count * int(cost) for count, cost in zip(exit_counts, costs, strict=True))


def preference(figures: Figures, limits: SplitLimits) -> tuple[bool, int, int]:
    """Return a key that is larger for better figures of one split: first those within the MACs limit.

    Within it: the higher score, then fewer MACs. Outside it: fewer MACs, then the higher score.
    """
    if limits.affordable(figures):
        return True, figures.score, -figures.total_macs
    return False, -figures.total_macs, figures.score


def wilson_interval(correct: int, samples: int) -> tuple[float, float]:
    """Return the 95 % Wilson score interval (low, high) of an accuracy, both in [0, 1].

    It solves |p - p_hat| = z sqrt(p (1 - p) / n) for p, with p_hat = correct / samples, and so stays inside [0, 1]
    and keeps a width even when every answer is right. ValueError unless 0 <= correct <= samples and samples >= 1.

    Source: Wilson, "Probable inference, the law of succession, and statistical inference", JASA 22, 1927.

    >>> low, high = wilson_interval(90, 100)
    >>> round(low, 4), round(high, 4)
    (0.8256, 0.9448)
    """
    if samples < 1 or not 0 <= correct <= samples:
        raise ValueError(f"correct must be from 0 to samples >= 1, got {correct} of {samples}")
    z = 1.959963984540054  # of a normal variable 95 % lie within z deviations
    share = correct / samples
    centre = share + z * z / (2 * samples)
    half_width = z * sqrt(share * (1 - share) / samples + z * z / (4 * samples * samples))
    scale = 1 + z * z / samples
    # At correct = 0 and = samples one end is exactly 0 or 1; the square root reaches it only up to rounding.
    low, high = (centre - half_width) / scale, (centre + half_width) / scale
    return 0.0 if correct == 0 else low, 1.0 if correct == samples else high


def balanced_interval(class_correct: Sequence[int], class_samples: Sequence[int]) -> tuple[float, float]:
    """Return the 95 % interval (low, high) of a balanced accuracy, both in [0, 1].

    The distances of each class's accuracy from its Wilson limits add up as deviations of independent variables do.
    A bootstrap would be too narrow for small classes: one whose answers are all right does not vary in it.
    ValueError if no class has a sample.

    Source: Zou and Donner, "Construction of confidence limits about effect measures", Statistics in Medicine 27,
    2008 (MOVER, for the mean of independent proportions).

    >>> low, high = balanced_interval((90, 5), (100, 10))
    >>> round(low, 4), round(high, 4)
    (0.5631, 0.8336)
    """
    counts = [pair for pair in zip(class_correct, class_samples, strict=True) if pair[1]]
    if not counts:
        raise ValueError(f"class_samples must have a class with a sample, got {tuple(class_samples)}")
    shares = np.array([correct / samples for correct, samples in counts])
    low, high = np.array([wilson_interval(*pair) for pair in counts]).T
    below, above = (np.sqrt(np.square(shares - end).sum()) / len(shares) for end in (low, high))
    return float(shares.mean() - below), float(shares.mean() + above)
