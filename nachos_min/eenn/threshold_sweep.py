"""Judge every threshold of one exit at once, for any number of settings of the other exits.

For one exit there are only as many different thresholds as there are gaps between the sorted confidences of
that exit: its *levels*. With every other threshold fixed, all of them are judged by one sort and one running
sum: going down the levels, each sample in turn no longer goes on, but leaves here. `exact_thresholds.py`
builds its search from this one step; read `thresholds.py` before.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import floor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nachos_min.eenn.thresholds import EVERYBODY, NOBODY, decimal_fraction

# Rows x samples handled at once: 1 MB per int64 array, so that a block stays in cache.
BLOCK_CELLS = 2**17


def levels(confidences: NDArray[np.floating[Any]], resolution: float) -> NDArray[np.float64]:
    """Return every threshold worth trying for one exit, float64 [L], falling from `NOBODY` to `EVERYBODY`.

    Between these two: the middles of the gaps between different confidences.

    Args:
        confidences: float64 [N], the confidences of that exit, in [0, 1].
        resolution: gaps that are not wider than this get no threshold; at least 0.

    >>> levels(np.array([0.9, 0.5, 0.5, 0.499]), resolution=0.01)
    array([2. , 0.7, 0. ])
    """
    distinct = np.unique(confidences)[::-1]
    upper, lower = distinct[:-1], distinct[1:]
    middle = lower + (upper - lower) / 2
    # Between neighbouring doubles there is no middle and the rounding may give `lower`, which must not leave.
    middle = np.where(middle > lower, middle, upper)
    return np.concatenate([[NOBODY], middle[upper - lower > resolution], [EVERYBODY]])


@dataclass(frozen=True)
class SweepTables:
    """The problem in the form in which it is swept: integers, and per early exit its order and its levels."""

    confidence: NDArray[np.floating[Any]]  # [N, E]
    correct: NDArray[np.int64]  # [N, E], 0 or 1
    costs: NDArray[np.int64]  # [E]
    allowance: int  # MACs the whole split may spend
    order: tuple[NDArray[np.intp], ...]  # per early exit: samples by falling confidence
    levels: tuple[NDArray[np.float64], ...]  # per early exit: thresholds to try, falling
    leaving: tuple[NDArray[np.intp], ...]  # per early exit and level: how many samples are confident enough

    @property
    def early_exits(self) -> int:
        """Return E-1."""
        return len(self.levels)


def sweep_tables(
    confidence: NDArray[np.floating[Any]],
    correct: NDArray[np.bool_],
    costs: Sequence[int],
    max_macs: float | None,
    resolution: float,
) -> SweepTables:
    """Return the tables with everything that does not depend on the other exits' thresholds computed once.

    Args:
        confidence: float64 [N, E], cumulative confidences in [0, 1]; the tables must fit together.
        correct: bool [N, E], whether exit i is right about sample n.
        costs: E integers, MACs of a sample that leaves at exit i.
        max_macs: budget for the average MACs; None: no limit.
        resolution: see `levels`.

    Raises:
        ValueError: if `max_macs` is infinite or NaN.
    """
    samples = len(confidence)
    most = samples * int(costs[-1])
    # An integer total is within the rational limit exactly when it is within the limit rounded down.
    limit = most if max_macs is None else floor(decimal_fraction("max_macs", max_macs) * samples)
    early = [confidence[:, i] for i in range(len(costs) - 1)]
    tried = tuple(levels(column, resolution) for column in early)
    return SweepTables(
        confidence=confidence,
        correct=correct.astype(np.int64),
        costs=np.array(costs, dtype=np.int64),
        allowance=min(limit, most),
        order=tuple(np.argsort(-column, kind="stable") for column in early),
        levels=tried,
        leaving=tuple(
            samples - np.searchsorted(np.sort(column), at) for column, at in zip(early, tried, strict=True)
        ),
    )


def _score(tables: SweepTables, correct: NDArray[np.int64], macs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return integers that are larger for better (correct, macs) totals: `thresholds.preference`, vectorised.

    Within the budget, one more correct answer outweighs all the MACs there are (`check_tables` has made sure
    that int64 holds it). Outside, the score is negative and fewer MACs are better; correct answers need not
    break ties, for the fewest MACs of all are reached in one way only, everybody leaving at the first exit.
    """
    samples = len(tables.confidence)
    most = samples * int(tables.costs[-1])
    within = correct * (most + 1) + (most - macs)
    return np.where(macs <= tables.allowance, within, -macs)


def totals(
    tables: SweepTables, rows: NDArray[np.float64], exit_: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return right answers and MACs of the split, each int64 [R, L], for each row and level of exit `exit_`.

    Args:
        tables: the problem.
        rows: float64 [R, E-1], thresholds of the early exits; column `exit_` is not read.
        exit_: index of the early exit whose L levels are all tried.
    """
    order = tables.order[exit_]
    confidence, answers = tables.confidence[order], tables.correct[order]
    # What each sample brings if nobody left at `exit_`: walk back from the last exit, overwriting wherever an
    # earlier exit takes the sample. What leaving at `exit_` would change is noted when the walk comes by;
    # samples that an exit before it takes cannot leave there, so for them that change becomes 0.
    shape = (len(rows), len(order))
    right = np.broadcast_to(answers[:, -1], shape)
    macs = np.broadcast_to(tables.costs[-1], shape)
    more_right, more_macs = right, macs
    for i in reversed(range(tables.early_exits)):
        if i == exit_:
            more_right, more_macs = answers[:, i] - right, tables.costs[i] - macs
            continue
        leaves = confidence[:, i] >= rows[:, i, None]
        right = np.where(leaves, answers[:, i], right)
        macs = np.where(leaves, tables.costs[i], macs)
        if i < exit_:
            more_right, more_macs = np.where(leaves, 0, more_right), np.where(leaves, 0, more_macs)
    # Column k: the totals when the k most confident samples leave at `exit_`, if they get that far.
    totals_right = np.empty((len(rows), len(order) + 1), dtype=np.int64)
    totals_macs = np.empty_like(totals_right)
    totals_right[:, 0], totals_macs[:, 0] = right.sum(axis=1), macs.sum(axis=1)
    totals_right[:, 1:], totals_macs[:, 1:] = more_right, more_macs
    np.cumsum(totals_right, axis=1, out=totals_right)
    np.cumsum(totals_macs, axis=1, out=totals_macs)
    leaving = tables.leaving[exit_]
    return totals_right[:, leaving], totals_macs[:, leaving]


def blocks(tables: SweepTables, rows: NDArray[np.float64]) -> Iterator[slice]:
    """Yield slices of `rows` that are worth handling at once."""
    size = max(1, BLOCK_CELLS // len(tables.confidence))
    for start in range(0, len(rows), size):
        yield slice(start, start + size)


def sweep(tables: SweepTables, rows: NDArray[np.float64], exit_: int) -> NDArray[np.int64]:
    """Return the best score of every row, int64 [R]; the levels that reach it are written into `rows`.

    Args:
        tables: the problem.
        rows: float64 [R, E-1], thresholds of the early exits; column `exit_` is overwritten.
        exit_: index of the early exit whose levels are all tried.

    Source: derived here. With the others fixed, all that exit `exit_` decides about a sample is whether it
    leaves there: what that changes, summed over the k most confident samples, is a prefix sum.
    """
    score = np.empty(len(rows), dtype=np.int64)
    for part in blocks(tables, rows):
        each = _score(tables, *totals(tables, rows[part], exit_))
        best = each.argmax(axis=1)  # of equal levels the highest
        score[part], rows[part, exit_] = each[np.arange(len(each)), best], tables.levels[exit_][best]
    return score
