"""Kendall's tau: how well one list of numbers orders another.

A surrogate is used to *rank* candidates, so it is judged by the pairs it puts in the right order, not by its
squared error. `scipy.stats` has the same number, but importing it takes longer (0.8 s) than a whole iteration
of the search spends on surrogates, and the definition is one line. The tests hold the two against each other.

Left out: p-values, and the O(n log n) algorithm: at 400 points all pairs are one 160,000-entry table.
"""

import math

import numpy as np

from nachos_min.nas.surrogates.surrogate import Floats


def kendall_tau(a: Floats, b: Floats) -> float:
    """Return Kendall's tau-b of two paired samples.

        tau_b = (concordant - discordant) / sqrt((pairs - ties in a) * (pairs - ties in b))

    >>> import numpy as np
    >>> kendall_tau(np.array([1.0, 2.0, 3.0]), np.array([10.0, 30.0, 20.0]))  # 2 pairs right, 1 wrong
    0.3333333333333333

    Args:
        a: float64 (n,), n >= 0.
        b: float64 (n,).

    Returns:
        A float in [-1, 1]: 1 the same order, -1 the opposite. By convention 0 where tau is undefined: when
        one of the samples is constant or has fewer than two values. (A surrogate that predicts one value for
        everything has ordered nothing.)

    Source:
        M. G. Kendall, "The treatment of ties in ranking problems", Biometrika 33(3), 1945.
    """
    order_a = np.sign(a[:, None] - a)
    order_b = np.sign(b[:, None] - b)
    untied = math.sqrt(np.count_nonzero(order_a) * np.count_nonzero(order_b))
    return float(np.vdot(order_a, order_b)) / untied if untied else 0.0
