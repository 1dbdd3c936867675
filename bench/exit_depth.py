"""Do hard samples go deep? How a known difficulty of samples agrees with the exits at which they leave."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from nachos_min.eenn.inference import Prediction

FloatArray = np.ndarray[Any, np.dtype[np.floating[Any]]]
IntArray = np.ndarray[Any, np.dtype[np.int64]]


@dataclass(frozen=True)
class Leaving:
    """The samples that left at one exit.

    Attributes:
        samples: how many.
        correct: how many were answered rightly.
        difficulty: their mean difficulty in 0..1; None where nobody left.
        sorted_samples: int64 (samples,), their indices, from the easiest to the hardest.
    """

    samples: int
    correct: int
    difficulty: float | None
    sorted_samples: IntArray


def depth_correlation(difficulty: FloatArray, exits: IntArray) -> float | None:
    """Return Spearman's rank correlation of difficulty and exit, in -1..1: 1 if harder samples never leave sooner.

    Args:
        difficulty: (N,), how hard each sample is, on any scale.
        exits: int64 (N,), index of the exit at which each sample left, as `Prediction.exits`.

    Returns:
        The correlation, ties given their mean rank; None where one of the two is the same for all samples, or there
        are none: then nothing can be ranked.

    Raises:
        ValueError: if there is not one difficulty for each exit.

    Source: Spearman, "The proof and measurement of association between two things", 1904.

    >>> round(depth_correlation(np.array([0.1, 0.2, 0.8, 0.9]), np.array([0, 0, 1, 2])), 4)
    0.9487
    """
    if len(difficulty) != len(exits):
        raise ValueError(f"difficulty must be one per exit index: {len(exits)}, got {len(difficulty)}")
    if len(np.unique(difficulty)) < 2 or len(np.unique(exits)) < 2:
        return None
    return float(spearmanr(difficulty, exits).statistic)


def leaving_by_exit(
    difficulty: FloatArray, labels: IntArray, answer: Prediction, exits: int
) -> tuple[Leaving, ...]:
    """Return for each exit who left there.

    Args:
        difficulty: (N,), in 0..1.
        labels: int64 (N,), the true classes.
        answer: what the network said of the N samples.
        exits: number of exits E.

    Returns:
        E entries, the final exit last.
    """
    right = answer.labels == labels
    found = []
    for index in range(exits):
        left = np.flatnonzero(answer.exits == index)
        left = left[np.argsort(difficulty[left], kind="stable")]
        mean = float(difficulty[left].mean()) if len(left) else None
        found.append(Leaving(len(left), int(right[left].sum()), mean, left))
    return tuple(found)
