"""The best thresholds for given tables, instead of the best of seven.

`threshold_sweep.py` judges all thresholds of one exit at once, for any number of rows of other thresholds.
With all levels of one exit as the rows, swept over another, it is a nested sweep: both optimal together.

One early exit is one sweep and two are one nested sweep, both optimal. Three or more: a coarse grid over
all exits but the last, which is swept; then the best grid points and grid-repair's answer are refined, two
exits at a time, until no pair improves. That is a local optimum with respect to pairs, and no proof.

Read `thresholds.py`, `grid_repair.py` and `threshold_sweep.py` before.
"""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nachos_min.eenn.grid_repair import grid_repair
from nachos_min.eenn.threshold_sweep import SweepTables, sweep, sweep_tables
from nachos_min.eenn.thresholds import NOBODY, Outcome, check_tables, measure, preference

# A nested sweep of more rows x samples (N > 5,800) thins its outer levels: this many take about a second.
NESTED_CELLS = 2**25
# The next three make N = 300 take 10 to 20 ms; on 32 random problems of that size a search 8 times as large
# (2,000, 12, 80) found nothing better.
GRID_ROWS = 256  # starting grid for three or more early exits: 16 x 16, or 6 x 6 x 6, levels
STARTS = 3  # grid points that are refined, besides grid-repair's answer
REFINE_LEVELS = 24  # outer levels in a refinement: this many over the whole range, as many near the current


def exact(
    confidence: NDArray[np.floating[Any]],
    correct: NDArray[np.bool_],
    costs: Sequence[int],
    max_macs: float | None,
    min_accuracy: float,
    *,
    resolution: float = 1e-5,
) -> Outcome:
    """Return the outcome of the best thresholds: most correct answers within the budget, then fewest MACs.

    If no thresholds meet the budget: fewest MACs, then most correct answers. Optimal over all levels for
    one and two early exits (two: up to about 5,800 samples; beyond, the first exit's levels are thinned to
    quantiles and the result refined), a good local optimum for more. Never worse than grid-repair on the
    same tables.

    A threshold stands in the middle of a gap wider than `resolution`: confidences may each move by up to
    half of it (as rounding does when inference runs in another batch shape) and every sample still leaves
    where it left. The one exception: should grid-repair's answer be strictly better, which only a cut through
    a narrower gap can make it, it is returned with its round tenths as they are.

    Args:
        confidence: float64 [N, E], cumulative confidences in [0, 1].
        correct: bool [N, E], whether exit i is right about sample n.
        costs: E integers, MACs of a sample that leaves at exit i, growing from exit to exit.
        max_macs: budget for the average MACs; None: no limit.
        min_accuracy: in [0, 1]; only grid-repair, one of the starting points, looks at it, for this search
            maximises accuracy anyway.
        resolution: at least 0; with 0 every gap between different confidences is a level.

    Raises:
        ValueError: if the tables do not fit together (`check_tables`), a limit is not finite, or
            `resolution` is negative or NaN.

    Source: derived here; the objective is that of NACHOS, arXiv 2401.13330.
    """
    check_tables(confidence, correct, costs)
    if not resolution >= 0.0:
        raise ValueError(f"resolution must be >= 0, got {resolution}")
    paper = grid_repair(confidence, correct, costs, max_macs, min_accuracy)
    tables = sweep_tables(confidence, correct, costs, max_macs, resolution)

    rows, optimal = outer_grid(tables)
    score = sweep(tables, rows, tables.early_exits - 1)
    if optimal:
        best = rows[score.argmax()]
    else:
        starts = rows[np.argsort(-score, kind="stable")[:STARTS]]
        best = _refine(tables, np.vstack([starts, _snap(tables, paper.thresholds)]))
    # Grid-repair's cuts through wide gaps are levels too, so only its other cuts can make it the better one.
    found = measure(confidence, correct, costs, (*best.tolist(), 0.0))
    return max(found, paper, key=lambda outcome: preference(outcome, max_macs))  # `found` if they are equal


def _thin(values: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Return at most `count` (>= 2) of `values`, evenly spaced by rank, first and last among them."""
    if len(values) <= count:
        return values
    return values[np.linspace(0, len(values) - 1, count).round().astype(np.intp)]


def outer_grid(tables: SweepTables) -> tuple[NDArray[np.float64], bool]:
    """Return starting rows [R, E-1], all but the last column filled, and whether sweeping it is optimal."""
    outer = tables.early_exits - 1
    count = NESTED_CELLS // len(tables.confidence) if outer <= 1 else round(GRID_ROWS ** (1 / outer))
    grid = [_thin(tables.levels[i], max(2, count)) for i in range(outer)]
    columns = np.meshgrid(*grid, indexing="ij") if grid else []
    rows = np.full((max(1, columns[0].size if columns else 1), tables.early_exits), NOBODY)
    for i, column in enumerate(columns):
        rows[:, i] = column.ravel()
    return rows, all(len(thinned) == len(tables.levels[i]) for i, thinned in enumerate(grid))


def _snap(tables: SweepTables, thresholds: Sequence[float]) -> NDArray[np.float64]:
    """Return the early exits' `thresholds` [E-1], each moved to the level at which nearly as many leave."""
    snapped = np.empty(tables.early_exits)
    for i, exit_levels in enumerate(tables.levels):
        leaving = np.count_nonzero(tables.confidence[:, i] >= thresholds[i])
        snapped[i] = exit_levels[np.abs(tables.leaving[i] - leaving).argmin()]
    return snapped


def _refine(tables: SweepTables, starts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the best thresholds [E-1] reached from `starts` [S, E-1] by nested sweeps of two exits each.

    Pairs, because the budget binds: an exit can often let fewer samples go only if another lets more go.
    A nested sweep takes `exit_` at each of its levels (thinned: some over the whole range, some around the
    current one) and sweeps the partner in full.
    """
    rows = starts.copy()
    score = sweep(tables, rows, tables.early_exits - 1)
    improved = True
    while improved:
        improved = False
        for exit_, partner in combinations(range(tables.early_exits), 2):
            for row in range(len(rows)):
                tried = _outer_levels(tables.levels[exit_], rows[row, exit_])
                nested = np.repeat(rows[row : row + 1], len(tried), axis=0)
                nested[:, exit_] = tried
                nested_score = sweep(tables, nested, partner)
                best = nested_score.argmax()
                if nested_score[best] > score[row]:
                    rows[row], score[row], improved = nested[best], nested_score[best], True
    return np.asarray(rows[score.argmax()])


def _outer_levels(exit_levels: NDArray[np.float64], current: float) -> NDArray[np.float64]:
    """Return the levels a refinement tries: REFINE_LEVELS over the whole range, as many around `current`."""
    if len(exit_levels) <= 2 * REFINE_LEVELS:
        return exit_levels
    here = int(np.searchsorted(-exit_levels, -current))
    first = max(0, here - REFINE_LEVELS // 2)
    return np.concatenate([_thin(exit_levels, REFINE_LEVELS), exit_levels[first : first + REFINE_LEVELS]])
