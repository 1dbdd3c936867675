"""The whole trade-off of one trained network: every choice of thresholds that no other choice beats.

A network with early exits is not one point but a curve: the higher its thresholds, the more it spends and the
more it knows. `exact_thresholds.py` picks the one point that answers most within a budget; here all points are
kept that are within the limits and not dominated (more right answers, or fewer MACs). They come from the tables
that exist anyway, so a curve costs no training.

Read `threshold_sweep.py` and `exact_thresholds.py` before. Left out: whether a search wants the curve, and what
the points do on the test split (`nas/evaluate.py` `operating_points`); which of them it keeps (`nas/result.py`
`Archive`).
"""

from collections.abc import Sequence
from fractions import Fraction
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nachos_min.eenn.exact_thresholds import outer_grid
from nachos_min.eenn.threshold_sweep import SweepTables, blocks, sweep_tables, totals
from nachos_min.eenn.thresholds import Outcome, check_tables, decimal_fraction, measure


def threshold_curve(
    confidence: NDArray[np.floating[Any]],
    correct: NDArray[np.bool_],
    costs: Sequence[int],
    max_macs: float | None,
    min_accuracy: float,
    *,
    resolution: float = 1e-5,
) -> tuple[Outcome, ...]:
    """Return the admissible non-dominated outcomes of all thresholds, the most accurate first.

    >>> sure = np.array([[0.9, 1.0], [0.5, 1.0], [0.1, 1.0]])
    >>> right = np.array([[True, True], [True, True], [False, True]])
    >>> [(o.correct, o.total_macs) for o in threshold_curve(sure, right, (10, 30), None, 0.5)]
    [(3, 50), (2, 30)]

    Args:
        confidence: float64 [N, E], cumulative confidences in [0, 1].
        correct: bool [N, E], whether exit i is right about sample n.
        costs: E integers, MACs of a sample that leaves at exit i, growing from exit to exit.
        max_macs: budget for the average MACs; None: no limit.
        min_accuracy: least share of right answers, in [0, 1].
        resolution: as for `exact`: gaps between confidences that are not wider get no threshold.

    Returns:
        Outcomes with strictly fewer right answers and strictly fewer MACs from one to the next; none if no
        thresholds are admissible. Complete over all levels for one and two early exits, as `exact` is
        optimal; for more, over the levels of the last early exit and a coarse grid of the others.

    Raises:
        ValueError: if the tables do not fit together (`check_tables`) or a limit is not finite.

    Source: derived here. With one number of right answers, only the cheapest choice can be non-dominated, so
        one pass over all totals keeps the cheapest for each of the N + 1 numbers.
    """
    check_tables(confidence, correct, costs)
    tables = sweep_tables(confidence, correct, costs, max_macs, resolution)
    least = ceil(decimal_fraction("min_accuracy", min_accuracy) * Fraction(len(confidence)))
    rows, _ = outer_grid(tables)
    cheapest, places = _cheapest(tables, rows)
    kept: list[int] = []
    for right in range(len(confidence), max(least, 0) - 1, -1):
        if cheapest[right] <= tables.allowance and (not kept or cheapest[right] < cheapest[kept[-1]]):
            kept.append(right)
    last = tables.levels[-1]
    outcomes = []
    for right in kept:
        row, level = divmod(int(places[right]), len(last))
        outcomes.append(measure(confidence, correct, costs, (*rows[row, :-1].tolist(), float(last[level]), 0.0)))
    return tuple(outcomes)


def _cheapest(tables: SweepTables, rows: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return for each number of right answers the fewest MACs, and where: row x levels + level; int64 [N+1]."""
    answers, last = len(tables.confidence) + 1, tables.early_exits - 1
    cheapest = np.full(answers, np.iinfo(np.int64).max)
    places = np.zeros(answers, np.int64)
    for part in blocks(tables, rows):
        right, macs = (table.ravel() for table in totals(tables, rows[part], last))
        before = cheapest.copy()
        np.minimum.at(cheapest, right, macs)
        found = np.flatnonzero((macs == cheapest[right]) & (macs < before[right]))[::-1]
        places[right[found]] = part.start * len(tables.levels[last]) + found  # of equals the first
    return cheapest, places
