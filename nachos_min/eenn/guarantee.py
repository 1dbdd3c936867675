"""Which rows of a result keep their limits on new samples, with a stated probability of no mistake at all.

Learn then Test with fixed sequences. "The row breaks this limit" is a hypothesis, and its p-value comes from
calibration samples that chose neither the networks, nor the thresholds, nor the order of the rows. Rows are tested
in that order until one cannot be rejected, so a sequence errs with no more probability than one test. The caller
chooses rows, order and level.
"""

from collections.abc import Sequence
from itertools import takewhile
from math import exp, log, log1p, sqrt

from nachos_min.eenn.thresholds import Figures


def certified(
    rows: Sequence[tuple[Figures, Sequence[int]]], max_macs: float | None, min_accuracy: float, level: float
) -> tuple[bool, ...]:
    """Return for each row whether it is certified to keep both limits; the certified rows are neighbours.

    The accuracy limit is tested from the first row on, the MACs limit from the last row back. Each of the two
    sequences certifies a row that breaks its limit with probability at most `level`. Over k sequences all is
    well with probability at least `guarantee` if the level is (1 - guarantee) / k: k is 2 for one call.

    Args:
        rows: figures on the calibration samples, and costs of the E exits, in an order that these samples did not
            influence, the most average MACs first.
        max_macs: limit on average MACs; None: no limit.
        min_accuracy: limit on accuracy; ValueError outside [0, 1].
        level: probability of a mistake allowed to each limit; ValueError outside (0, 1).

    Source: Angelopoulos, Bates, Candes, Jordan and Lei, "Learn then Test", arXiv 2110.01052, fixed sequence
        testing; for early exits Jazbec et al., "Fast yet Safe: Early-Exiting with Risk Control", arXiv 2405.20915.

    >>> right_and_counts = [(98, (20, 80)), (97, (60, 40)), (90, (90, 10))]
    >>> rows = [(Figures(right, 100, (a, b), 10 * a + 30 * b), (10, 30)) for right, (a, b) in right_and_counts]
    >>> certified(rows, max_macs=22, min_accuracy=0.9, level=0.05)
    (False, True, False)
    """
    _check(min_accuracy, level)
    right = (accuracy_p_value(row.correct, row.samples, min_accuracy) for row, _ in rows)
    cheap = (macs_p_value(row.exit_counts, costs, max_macs, level) for row, costs in reversed(rows))
    # How many hypotheses each sequence rejects: those before the first that it cannot reject.
    accurate, frugal = (sum(takewhile(bool, (p <= level for p in sequence))) for sequence in (right, cheap))
    return tuple(len(rows) - frugal <= index < accurate for index in range(len(rows)))


def fewest_samples(min_accuracy: float, level: float) -> int | None:
    """Return how many calibration samples, all answered right, certify an accuracy; None: no number does.

    >>> fewest_samples(0.9, 0.05)
    29
    """
    _check(min_accuracy, level)
    if not 0 < min_accuracy < 1:
        return None if min_accuracy else 1
    samples = max(1, int(log(level) / log(min_accuracy)))
    return samples if min_accuracy**samples <= level else samples + 1


def accuracy_p_value(correct: int, samples: int, min_accuracy: float) -> float:
    """Return the p-value of "the true accuracy is below `min_accuracy`": P(X >= correct), X binomial."""
    from scipy.special import bdtrc  # slow to import, and without a guarantee never needed

    return float(bdtrc(correct - 1, samples, min_accuracy)) if min_accuracy > 0 else 0.0


def macs_p_value(exit_counts: Sequence[int], costs: Sequence[int], max_macs: float | None, level: float) -> float:
    """Return a p-value of "the true average MACs exceed `max_macs`", valid at any level.

    With two exits the number of samples that leave early is binomial, and its tail is exact. With more, a stake is
    multiplied by 1 + bet (max_macs - cost) / (cost_E - max_macs) for each sample. Under the hypothesis its
    expectation is at most 1, so its reciprocal is a p-value (Markov's inequality). `level` chooses the bet.

    Source: Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", JRSS B 86, 2024,
        with a constant bet, the best one for the largest variance that the hypothesis allows.
    """
    least, most, samples = costs[0], costs[-1], sum(exit_counts)
    if max_macs is None or most <= max_macs:
        return 0.0
    if max_macs <= least:
        return 1.0
    below, above = max_macs - least, most - max_macs
    if len(costs) == 2:
        return accuracy_p_value(exit_counts[0], samples, above / (most - least))
    bet = min(0.99, sqrt(2 * log(1 / level) / samples * above / below))
    factors = (log1p(bet * (max_macs - cost) / above) for cost in costs)
    return exp(-max(0.0, sum(n * factor for n, factor in zip(exit_counts, factors, strict=True))))


def _check(min_accuracy: float, level: float) -> None:
    """Refuse numbers outside their ranges; NaN is outside."""
    if not 0 <= min_accuracy <= 1:
        raise ValueError(f"min_accuracy must be in [0, 1], got {min_accuracy}")
    if not 0 < level < 1:
        raise ValueError(f"level must be in (0, 1), got {level}")
