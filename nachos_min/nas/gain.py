"""Choose candidates by expected gain: what each may add to the best accuracies within the budgets.

A candidate adds where it reaches more within a budget than the best known. What it reaches is predicted, and
predictions are uncertain, so the gain is an expectation:

    gain = mean over budgets of E[ max(0, accuracy - best) ],    accuracy below the limit counting as 0

Candidates are chosen one after another; each is believed to keep its prediction, which raises `best` for the next.
Left out: how the errors within different budgets vary together, of which an expected mean does not depend.
"""

from typing import Any

import numpy as np
from scipy.special import expit

Floats = np.ndarray[Any, np.dtype[np.float64]]

# Nodes and weights of Gauss and Hermite: expectations under the normal distribution as sums of nine terms.
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(9)


def choose_by_gain(log_odds: Floats, deviation: Floats, best: Floats, min_accuracy: float, k: int) -> list[int]:
    """Return which k candidates are expected to add most, the largest gain first.

    >>> best = np.array([0.8, 0.9])
    >>> log_odds = np.array([[-2.0, -2.0], [-4.0, -1.0], [-1.0, -1.0]])  # an error of .5 has log-odds 0
    >>> choose_by_gain(log_odds, np.full((3, 2), 0.1), best, 0.5, 2)
    [1, 0]

    Args:
        log_odds: float64 (c, budgets), predicted log-odds of each candidate's error; inf where it cannot reach.
        deviation: float64 (c, budgets), standard deviations of these predictions, finite.
        best: float64 (budgets,), accuracy reached so far, 0 where none is admissible.
        min_accuracy: limit, in 0..1.
        k: how many to choose, 0 <= k <= c.

    Returns:
        Indices of candidates; of equal gains the first.

    Source:
        Expected improvement: J. Mockus, V. Tiesis, A. Zilinskas, 1978; believing the prediction for a batch:
        D. Ginsbourger, R. Le Riche, L. Carraro, 2010.
    """

    def counted(log_odds: Floats) -> Floats:
        accuracy = expit(-log_odds)
        return np.where(accuracy >= min_accuracy, accuracy, 0.0)

    outcomes = counted(log_odds[:, :, None] + deviation[:, :, None] * NODES)
    believed, chosen = counted(log_odds), list[int]()
    for _ in range(k):
        expected = np.maximum(outcomes - best[:, None], 0.0) @ (WEIGHTS / WEIGHTS.sum())
        gains = expected.mean(axis=1)
        gains[chosen] = -1.0
        chosen.append(int(gains.argmax()))
        best = np.maximum(best, believed[chosen[-1]])
    return chosen
