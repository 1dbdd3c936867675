"""How sure a comparison over seeds is: means and medians with 95 % intervals, differences of runs with equal seeds.

Runs of two variants with the same seed share their chances (the trainings, and where both begin in the same way
the first sample), so their difference varies less than either of them: it is the difference whose interval tells
whether a variant is better.

An interval tells what other seeds would give, of what the seeds changed. Searches answered from a table all see its
few trainings: intervals over searches are of searches on those trainings. Where the variants themselves were
trained apart, there are no more independent differences than trainings (`by_group`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan, sqrt
from typing import Any

import numpy as np
from scipy.stats import bootstrap, t

LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A figure and its 95 % interval, which is (nan, nan) where one value says nothing about spread."""

    value: float
    low: float
    high: float

    def text(self, decimals: int, scale: float = 1.0, sign: str = "") -> str:
        """Return such as "0.912 (0.905..0.919)"; `sign` "+" shows the sign of differences."""
        written = f"{self.value * scale:{sign}.{decimals}f}"
        if isnan(self.low):
            return written
        return f"{written} ({self.low * scale:{sign}.{decimals}f}..{self.high * scale:{sign}.{decimals}f})"


def mean_interval(values: Sequence[float]) -> Interval:
    """Return the mean of `values`, at least one, with Student's t interval."""
    found = np.asarray(values, np.float64)
    mean = float(found.mean())
    if len(found) < 2:
        return Interval(mean, np.nan, np.nan)
    half = float(t.ppf((1 + LEVEL) / 2, len(found) - 1) * found.std(ddof=1) / sqrt(len(found)))
    return Interval(mean, mean - half, mean + half)


def paired_interval(
    values: Sequence[float], base: Sequence[float], groups: Sequence[int] | None = None
) -> Interval:
    """Return the mean of the differences `values` - `base`, seed by seed, with its t interval.

    Args:
        values, base: of as many seeds.
        groups: which seeds share a training; then the mean and the interval are of the groups' means.
    """
    differences = np.subtract(values, base).tolist()
    return mean_interval(differences if groups is None else by_group(differences, groups))


def by_group(values: Sequence[float], groups: Sequence[int]) -> list[float]:
    """Return the mean of the values of each group, in ascending order of the groups.

    >>> by_group([1.0, 5.0, 3.0, 7.0], [0, 1, 0, 1])
    [2.0, 6.0]
    """
    return [
        float(np.mean([value for value, own in zip(values, groups, strict=True) if own == group]))
        for group in sorted(set(groups))
    ]


def median_interval(values: Sequence[float], rng: np.random.Generator) -> Interval:
    """Return the median of `values` with its bootstrap interval (percentiles of 9,999 resamples)."""
    median = float(np.median(values))
    if len(set(values)) < 2:
        return Interval(median, median, median)
    found = bootstrap((values,), np.median, confidence_level=LEVEL, method="percentile", rng=rng)
    return Interval(median, float(found.confidence_interval.low), float(found.confidence_interval.high))


def gain_at_equal_macs(front: Sequence[Any], base: Sequence[Any], points: int = 50) -> float | None:
    """Return by how much more accurate `front` is than `base` at equal MACs, on average.

    Args:
        front, base: (average MACs, accuracy) of the networks of two fronts, in any order.
        points: places at which both are compared, evenly over the MACs that both cover.

    Returns:
        Mean difference of the accuracies, interpolated linearly on each front; None if no MACs are covered by both.
    """
    if not len(front) or not len(base):
        return None
    first, second = (np.array(sorted(map(tuple, each))).reshape(-1, 2) for each in (front, base))
    low, high = max(first[0, 0], second[0, 0]), min(first[-1, 0], second[-1, 0])
    if low > high:
        return None
    at = np.linspace(low, high, points)
    return float(np.mean(np.interp(at, *first.T) - np.interp(at, *second.T)))
