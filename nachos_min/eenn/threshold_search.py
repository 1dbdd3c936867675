"""Choose thresholds for one trained network: as the paper does, the best ones, or all that are worth having.

For one exit there are only as many different thresholds as there are gaps between its sorted confidences: its
*levels*. With every other threshold fixed, a sweep judges all levels by one sort and one running sum.
"""

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nachos_min.eenn.thresholds import (
    ALWAYS,
    NEVER,
    OperatingPoint,
    PolicyTables,
    SplitLimits,
    preference,
    sweep_weights,
)

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

TRIALS = (1, 2, 3, 5, 6, 7, 8)  # in tenths; the paper leaves 0.4 out
FIRST_EXIT_AT_LEAST = 7  # tenths: the first exit sees the least of the network and must be surest

RESOLUTION = 1e-5  # batches of other shapes move a confidence by less
BLOCK_CELLS = 2**17  # rows x samples handled at once: 1 MB per int64 array, so that a block stays in cache
NESTED_CELLS = 2**25  # a nested sweep of more rows x samples (N > 5,800) thins its outer levels
GRID_ROWS = 256  # starting grid for three or more early exits: 16 x 16, or 6 x 6 x 6, levels
STARTS = 3  # grid points that are refined, besides grid-repair's answer
REFINE_LEVELS = 24  # outer levels in a refinement: this many over the whole range, as many near the current


def grid_repair(tables: PolicyTables, limits: SplitLimits) -> OperatingPoint:
    """Return the operating point of the paper's threshold search, which need not be admissible.

    Grid: the same threshold at every exit but the first, which has at least 0.7; keep the most accurate of seven
    trials, of equals the first, which spends least. Repair, if that is accurate enough but spends too much: lower
    one threshold by 0.1 at a time, beginning with the last early exit. Move to the exit before when the threshold
    is 0, or when a step breaks the accuracy limit, which is undone.

    Source: NACHOS, arXiv 2401.13330, threshold selection; unlike in the released code, a step that breaks the
        accuracy is undone, and the figures returned are those of the thresholds returned.
    """
    early_exits = len(tables.costs) - 1

    def point_of(tenths: Sequence[int]) -> OperatingPoint:
        return tables.point([tenth / 10 for tenth in tenths])

    trials = [[tenth if i else max(tenth, FIRST_EXIT_AT_LEAST) for i in range(early_exits)] for tenth in TRIALS]
    tenths = max(trials, key=lambda trial: point_of(trial).figures.score)  # max keeps the first of equals
    point = point_of(tenths)
    if point.figures.score < limits.least_correct:
        return point
    for exit_ in reversed(range(early_exits)):
        while not limits.affordable(point.figures) and tenths[exit_] > 0:
            lowered = [tenth - (index == exit_) for index, tenth in enumerate(tenths)]
            attempt = point_of(lowered)
            if attempt.figures.score < limits.least_correct:
                break
            tenths, point = lowered, attempt
    return point


def best_thresholds(tables: PolicyTables, limits: SplitLimits, *, resolution: float = RESOLUTION) -> OperatingPoint:
    """Return the best operating point: the highest score within the MACs limit, then fewest MACs.

    If no thresholds meet the limit: fewest MACs, then the highest score. Optimal over all levels for one and
    two early exits (two: up to about 5,800 samples), a good local optimum for more. Never worse than grid-repair.

    A threshold stands in the middle of a gap wider than `resolution` >= 0: confidences may each move by half of it
    and every sample still leaves where it left. Only where grid-repair's answer is strictly better, by a cut
    through a narrower gap, it is returned with its round tenths. Grid-repair alone reads the accuracy limit.

    Source: derived here; the objective is that of NACHOS, arXiv 2401.13330.
    """
    paper = grid_repair(tables, limits)
    if len(tables.costs) == 1:
        return paper
    sweep = Sweep(tables, limits, resolution)
    rows, complete = sweep.grid()
    score = sweep.best(rows, sweep.early_exits - 1)
    if complete:
        best = rows[score.argmax()]
    else:
        starts = rows[np.argsort(-score, kind="stable")[:STARTS]]
        best = sweep.refined(np.vstack([starts, sweep.snapped(paper.thresholds)]))
    # Grid-repair's cuts through wide gaps are levels too, so only its other cuts can make it the better one.
    return max(tables.point(best), paper, key=lambda point: preference(point.figures, limits))


def threshold_curve(
    tables: PolicyTables, limits: SplitLimits, *, resolution: float = RESOLUTION
) -> tuple[OperatingPoint, ...]:
    """Return the admissible non-dominated operating points of all thresholds, the most accurate first.

    Complete over all levels for one and two early exits, where `best_thresholds` is optimal; for more, over the
    levels of the last early exit and a coarse grid of the others.

    >>> sure = np.array([[0.9, 1.0], [0.5, 1.0], [0.1, 1.0]])
    >>> right = np.array([[True, True], [True, True], [False, True]])
    >>> curve = threshold_curve(PolicyTables(sure, right, (10, 30)), SplitLimits(1, None))
    >>> [(point.figures.correct, point.figures.total_macs) for point in curve]
    [(3, 50), (2, 30)]
    """
    if len(tables.costs) == 1:
        only = tables.point(())
        return (only,) if limits.admit(only.figures) else ()
    sweep = Sweep(tables, limits, resolution)
    rows, _ = sweep.grid()
    cells = (divmod(place, len(sweep.levels[-1])) for place in sweep.non_dominated(rows))
    points = (tables.point([*rows[row, :-1], sweep.levels[-1][level]]) for row, level in cells)
    return tuple(point for point in points if limits.admit(point.figures))


def levels(confidences: NDArray[np.floating[Any]], resolution: float) -> Floats:
    """Return every threshold worth trying for one exit, float64 [L], falling from `NEVER` to `ALWAYS`.

    Between these two: the middles of the gaps between different confidences [N] that are wider than `resolution`.

    >>> levels(np.array([0.9, 0.5, 0.5, 0.499]), resolution=0.01)
    array([2. , 0.7, 0. ])
    """
    distinct = np.unique(confidences)[::-1]
    upper, lower = distinct[:-1], distinct[1:]
    middle = lower + (upper - lower) / 2
    # Between neighbouring doubles there is no middle and the rounding may give `lower`, which must not leave.
    middle = np.where(middle > lower, middle, upper)
    return np.concatenate([[NEVER], middle[upper - lower > resolution], [ALWAYS]])


class Sweep:
    """Judges all levels of one early exit at once, for many rows [R, E-1] of thresholds of the early exits."""

    def __init__(self, tables: PolicyTables, limits: SplitLimits, resolution: float) -> None:
        """Compute all that does not depend on the other exits' thresholds."""
        if not resolution >= 0.0:
            raise ValueError(f"resolution must be >= 0, got {resolution}")
        self.samples, self.early_exits = tables.samples, len(tables.costs) - 1
        self.confidence, self.correct = tables.confidence, tables.correct.astype(np.int64)
        if tables.labels is not None:
            weights = sweep_weights(tuple(np.bincount(tables.labels).tolist()))
            self.correct *= np.array(weights, np.int64)[tables.labels, None]
        self.costs = np.array(tables.costs, dtype=np.int64)
        self.most = self.samples * int(tables.costs[-1])
        # MACs that the split may spend
        self.allowance = self.most if limits.most_macs is None else min(limits.most_macs, self.most)
        early = [self.confidence[:, i] for i in range(self.early_exits)]
        self.levels = [levels(column, resolution) for column in early]
        self._order = [np.argsort(-column, kind="stable") for column in early]  # samples by falling confidence
        self._leaving = [  # per level: how many samples are confident enough
            self.samples - np.searchsorted(np.sort(column), tried)
            for column, tried in zip(early, self.levels, strict=True)
        ]

    def totals(self, rows: Floats, exit_: int) -> tuple[Integers, Integers]:
        """Return score and MACs of the split, each int64 [R, L], for each row and level of `exit_`.

        Column `exit_` of the rows is not read. With the others fixed, all that `exit_` decides about a sample is
        whether it leaves there: what that changes, summed over the k most confident samples, is a prefix sum.
        """
        order = self._order[exit_]
        confidence, answers = self.confidence[order], self.correct[order]
        # If no sample leaves at `exit_`: walk back from the last exit, overwriting where an earlier exit takes the
        # sample. On the way, note what leaving at `exit_` would change; 0 if an exit before it takes the sample.
        shape = (len(rows), len(order))
        right = np.broadcast_to(answers[:, -1], shape)
        macs = np.broadcast_to(self.costs[-1], shape)
        more_right, more_macs = right, macs
        for i in reversed(range(self.early_exits)):
            if i == exit_:
                more_right, more_macs = answers[:, i] - right, self.costs[i] - macs
                continue
            leaves = confidence[:, i] >= rows[:, i, None]
            right = np.where(leaves, answers[:, i], right)
            macs = np.where(leaves, self.costs[i], macs)
            if i < exit_:
                more_right, more_macs = np.where(leaves, 0, more_right), np.where(leaves, 0, more_macs)
        # Column k: the totals when the k most confident samples leave at `exit_`, if they get that far.
        totals_right = np.empty((len(rows), len(order) + 1), dtype=np.int64)
        totals_macs = np.empty_like(totals_right)
        totals_right[:, 0], totals_macs[:, 0] = right.sum(axis=1), macs.sum(axis=1)
        totals_right[:, 1:], totals_macs[:, 1:] = more_right, more_macs
        np.cumsum(totals_right, axis=1, out=totals_right)
        np.cumsum(totals_macs, axis=1, out=totals_macs)
        leaving = self._leaving[exit_]
        return totals_right[:, leaving], totals_macs[:, leaving]

    def best(self, rows: Floats, exit_: int) -> NDArray[np.object_]:
        """Return how good every row is at best, int [R]; write the levels that reach it into column `exit_`."""
        good = np.empty(len(rows), dtype=object)
        for part in self._blocks(rows):
            right, macs = self.totals(rows[part], exit_)
            # Within the limit the highest score, then the fewest MACs. Without such a level the fewest MACs, which
            # are reached in one way only: all leave at the first exit.
            within = np.where(macs <= self.allowance, right, -1)
            highest = within.max(axis=1)
            fewest = np.where(within == highest[:, None], macs, self.most + 1)
            best = fewest.argmin(axis=1)  # of equal levels the highest
            rows[part, exit_] = self.levels[exit_][best]
            # As one Python integer, since int64 might not hold it: one more in score outweighs all the MACs.
            found = macs[np.arange(len(best)), best].astype(object)
            one = highest.astype(object) * (self.most + 1) + (self.most - found)
            good[part] = np.where(highest < 0, -found, one)
        return good

    def non_dominated(self, rows: Floats) -> list[int]:
        """Return where the non-dominated totals within the limit are, row x L + level, the highest score first."""
        last = self.early_exits - 1
        kept = np.empty((3, 0), np.int64)  # score, MACs and place
        for part in self._blocks(rows):
            right, macs = self.totals(rows[part], last)
            # From level to level more samples leave and MACs fall: a later level of a higher score dominates.
            later = np.maximum.accumulate(right[:, ::-1], axis=1)[:, ::-1]
            candidates = np.flatnonzero((right == later) & (macs <= self.allowance))
            places = part.start * len(self.levels[last]) + candidates
            found = np.hstack([kept, [right.ravel()[candidates], macs.ravel()[candidates], places]])
            found = found[:, np.lexsort((found[2], found[1], -found[0]))]  # of equals the first place
            fewest = np.minimum.accumulate(found[1])
            kept = found[:, np.diff(fewest, prepend=self.most + 1) < 0]
        return [int(place) for place in kept[2]]

    def _blocks(self, rows: Floats) -> list[slice]:
        """Return slices of `rows` that are handled at once."""
        size = max(1, BLOCK_CELLS // self.samples)
        return [slice(start, start + size) for start in range(0, len(rows), size)]

    def grid(self) -> tuple[Floats, bool]:
        """Return starting rows, all but the last column filled, and whether they hold every level."""
        outer = self.early_exits - 1
        count = NESTED_CELLS // self.samples if outer <= 1 else round(GRID_ROWS ** (1 / outer))
        grid = [_thin(self.levels[i], max(2, count)) for i in range(outer)]
        columns = np.meshgrid(*grid, indexing="ij") if grid else []
        rows = np.full((columns[0].size if columns else 1, self.early_exits), NEVER)
        for i, column in enumerate(columns):
            rows[:, i] = column.ravel()
        return rows, all(len(thinned) == len(self.levels[i]) for i, thinned in enumerate(grid))

    def snapped(self, thresholds: Sequence[float]) -> Floats:
        """Return the early exits' `thresholds` [E-1], each moved to the level at which nearly as many leave."""
        snapped = np.empty(self.early_exits)
        for i, exit_levels in enumerate(self.levels):
            leaving = np.count_nonzero(self.confidence[:, i] >= thresholds[i])
            snapped[i] = exit_levels[np.abs(self._leaving[i] - leaving).argmin()]
        return snapped

    def refined(self, starts: Floats) -> Floats:
        """Return the best thresholds [E-1] reached from `starts` [S, E-1] by nested sweeps of two exits each.

        Pairs, because the limit binds: an exit can often let fewer samples go only if another lets more go. A
        nested sweep takes `exit_` at some of its levels and sweeps the partner in full.
        """
        rows = starts.copy()
        score = self.best(rows, self.early_exits - 1)
        improved = True
        while improved:
            improved = False
            for exit_, partner in combinations(range(self.early_exits), 2):
                for row in range(len(rows)):
                    tried = _some(self.levels[exit_], rows[row, exit_])
                    nested = np.repeat(rows[row : row + 1], len(tried), axis=0)
                    nested[:, exit_] = tried
                    nested_score = self.best(nested, partner)
                    best = nested_score.argmax()
                    if nested_score[best] > score[row]:
                        rows[row], score[row], improved = nested[best], nested_score[best], True
        return np.asarray(rows[score.argmax()])


def _thin(values: Floats, count: int) -> Floats:
    """Return at most `count` (>= 2) of `values`, evenly spaced by rank, first and last included."""
    if len(values) <= count:
        return values
    return values[np.linspace(0, len(values) - 1, count).round().astype(np.intp)]


def _some(exit_levels: Floats, current: float) -> Floats:
    """Return the levels a refinement tries: REFINE_LEVELS over the whole range, as many around `current`."""
    if len(exit_levels) <= 2 * REFINE_LEVELS:
        return exit_levels
    here = int(np.searchsorted(-exit_levels, -current))
    first = max(0, here - REFINE_LEVELS // 2)
    return np.concatenate([_thin(exit_levels, REFINE_LEVELS), exit_levels[first : first + REFINE_LEVELS]])
