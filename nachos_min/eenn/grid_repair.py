"""Thresholds as the NACHOS paper chooses them: seven trials, then a repair if the budget is exceeded.

Kept beside the better `exact_thresholds.py` so that the paper's own procedure can be run and compared. Read
`thresholds.py` before. The thresholds are round tenths: a confidence that falls on one (0.5, say) can change
sides by rounding when inference runs in another batch shape. Only `exact_thresholds.py` keeps a distance.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nachos_min.eenn.thresholds import Outcome, fits_accuracy, fits_budget, measure

TRIALS = (1, 2, 3, 5, 6, 7, 8)  # in tenths; the paper leaves 0.4 out
FIRST_EXIT_AT_LEAST = 7  # tenths: the first exit sees the least of the network and must be surest


def grid_repair(
    confidence: NDArray[np.floating[Any]],
    correct: NDArray[np.bool_],
    costs: Sequence[int],
    max_macs: float | None,
    min_accuracy: float,
) -> Outcome:
    """Return the outcome of the paper's threshold search.

    Grid: the same threshold at every exit but the first, which has at least 0.7; the most accurate of seven
    trials is kept (the first of equals, which spends least). Repair, if that is accurate enough but too
    dear: lower one threshold by 0.1 at a time, beginning with the last early exit and moving to the one
    before when a step would break `min_accuracy` (the step is undone) or the threshold has reached 0, until
    the budget is met or no exit is left.

    Args:
        confidence: float64 [N, E], cumulative confidences in [0, 1].
        correct: bool [N, E], whether exit i is right about sample n.
        costs: E integers, MACs of a sample that leaves at exit i.
        max_macs: budget for the average MACs; None: no limit, so no repair.
        min_accuracy: in [0, 1].

    Returns:
        An outcome that need not be admissible. Its thresholds are whole tenths, free of drift: 0.3, never
        0.30000000000000004.

    Raises:
        ValueError: if the tables do not fit together (`check_tables`) or a limit is not finite.

    Source: NACHOS, arXiv 2401.13330, threshold selection, with the released code's two slips put right: a
    step that breaks the accuracy is undone, and the outcome returned is that of the thresholds returned.
    """
    early_exits = len(costs) - 1

    def outcome_of(tenths: Sequence[int]) -> Outcome:
        return measure(confidence, correct, costs, (*(tenth / 10 for tenth in tenths), 0.0))

    trials = [[max(tenth, FIRST_EXIT_AT_LEAST)] + [tenth] * (early_exits - 1) for tenth in TRIALS]
    tenths = max(trials, key=lambda trial: outcome_of(trial).correct)  # max keeps the first of equals
    outcome = outcome_of(tenths)
    if not fits_accuracy(outcome, min_accuracy):
        return outcome

    for exit_ in reversed(range(early_exits)):
        while not fits_budget(outcome, max_macs) and tenths[exit_] > 0:
            lowered = [tenth - (index == exit_) for index, tenth in enumerate(tenths)]
            attempt = outcome_of(lowered)
            if not fits_accuracy(attempt, min_accuracy):
                break
            tenths, outcome = lowered, attempt
    return outcome
