"""Choose k of many candidates so that the front is spread evenly along its second objective.

NSGA-II on the surrogates proposes more candidates than can be trained. Those are chosen that fill the holes:
after adding exactly k of them, the gaps between neighbours (archive's front and chosen together) should
differ as little as possible. Read nothing before this.

The choice looks exponential, but sorted values form a line, and on a line it is a shortest path:

- With m gaps d_1..d_m that add up to R (last value minus first),  variance = sum d^2 / m - (R / m)^2.  m is
  known: |front| + k - 1.
- Walk along all values in order, always stopping at the front's and stopping at k of the candidates. A step
  costs its gap squared. The cheapest walk to each value with each number of stops follows from the cheapest
  walks to the values before it.
- R depends on where the walk starts and ends, so there is one table per possible start, and the ends are
  compared by the whole formula.

Exact, so no local search is needed; the tests hold it against trying every subset. Left out: the choice
*between* objectives, which NSGA-II has made already.
"""

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def choose_evenly(front: Floats, candidates: Floats, k: int) -> NDArray[np.intp]:
    """Return which k candidates make the consecutive gaps of the sorted union most equal.

    >>> import numpy as np
    >>> front = np.array([0.0, 4.0, 8.0])
    >>> choose_evenly(front, np.array([0.5, 1.9, 7.8, 6.2]), 2)  # 1.9 and 6.2 halve both holes
    array([1, 3])

    Args:
        front: float64 (f,), f >= 0, the second objective of the archive's front; duplicates are welcome.
        candidates: float64 (c,), the predicted second objective of distinct candidates, in the front's unit.
        k: how many to choose, 0 <= k <= c.

    Returns:
        intp (k,), ascending indices into `candidates` of a choice with the smallest possible standard
        deviation of gaps. Equal arguments give equal choices.

    Raises:
        ValueError: an array is not one-dimensional or holds a value that is not finite, or k is negative or
            larger than the number of candidates.

    Source:
        The aim: `SubsetProblem` in the released code of NSGANetV2 and CNAS, there a genetic algorithm. The
        shortest path: derived here. O(starts * k * values^2) at most; 2 ms for 20 + 100 values.
    """
    for name, array in (("front", front), ("candidates", candidates)):
        if array.ndim != 1:
            raise ValueError(f"{name} must be one-dimensional, got shape {array.shape}")
        if not np.isfinite(array).all():
            raise ValueError(f"{name} must be finite, got {array[~np.isfinite(array)][0]}")
    if k < 0:
        raise ValueError(f"k must be >= 0, got {k}")
    if k > len(candidates):
        raise ValueError(f"k must be <= the number of candidates, {len(candidates)}, got {k}")
    if k == 0:
        return np.empty(0, dtype=np.intp)

    values = np.concatenate([front, candidates])
    order = values.argsort(kind="stable")
    low, high = values[order[0]], values[order[-1]]
    line = (values[order] - low) / (high - low if high > low else 1.0)  # to [0, 1]: squares stay in range
    stops = walk(line, order < len(front), k)
    chosen = order[stops] - len(front)
    return np.sort(chosen[chosen >= 0])


def walk(line: Floats, forced: NDArray[np.bool_], k: int) -> NDArray[np.intp]:
    """Return the stops, forced ones and exactly k others, with the smallest variance of steps.

    Args:
        line: float64 (p,), ascending.
        forced: bool (p,), the stops that must be made.
        k: number of other stops, 1 <= k <= number of values that are not forced.

    Returns:
        intp (forced + k,), ascending positions on the line.
    """
    p = len(line)
    stops = np.flatnonzero(forced)
    first_end = stops[-1] if len(stops) else 0  # a walk may not end before the last forced stop,
    last_start = stops[0] if len(stops) else p - 1  # nor start after the first
    starts = np.arange(last_start + 1)

    # cost[s, j, c]: smallest sum of squared steps from starts[s] to stop j, c free stops made, j included.
    cost = np.full((len(starts), p, k + 1), np.inf)
    came_from = np.zeros(cost.shape, dtype=np.intp)
    cost[starts, starts, np.where(forced[starts], 0, 1)] = 0.0
    reach = 0  # the last forced stop before j: no step may jump over it
    for j in range(1, p):
        here = slice(0, k + 1) if forced[j] else slice(1, k + 1)
        before = slice(0, k + 1) if forced[j] else slice(0, k)
        step = (line[j] - line[reach:j]) ** 2
        through = cost[:, reach:j, before] + step[None, :, None]
        best = through.argmin(axis=1)
        arriving = np.take_along_axis(through, best[:, None], axis=1)[:, 0]
        shorter = arriving < cost[:, j, here]  # false only where j is the start itself
        cost[:, j, here] = np.where(shorter, arriving, cost[:, j, here])
        came_from[:, j, here] = best + reach
        if forced[j]:
            reach = j

    ends = np.arange(first_end, p)
    steps = max(len(stops) + k - 1, 1)
    variance = cost[:, ends, k] / steps - ((line[ends] - line[starts, None]) / steps) ** 2
    s, e = np.unravel_index(variance.argmin(), variance.shape)
    stop, free = int(ends[e]), k
    path = [stop]
    while stop != starts[s]:
        stop, free = int(came_from[s, stop, free]), free - int(not forced[stop])
        path.append(stop)
    return np.array(path[::-1], dtype=np.intp)
