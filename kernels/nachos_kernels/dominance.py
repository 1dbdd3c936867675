"""What NSGA-II sorts by: non-dominated ranks and crowding distances.

All objectives are minimised. NumPy sorts; the loops here are what NumPy cannot do. Left out: NaN (give a point with
a NaN an infinite violation), and random tie-breaks, which are the caller's.
"""

import numpy as np
from numpy.typing import NDArray

from nachos_kernels._jit import Doubles, Floats, Ints, kernel


def non_dominated_ranks(F: Floats, violation: Floats) -> Ints:
    """Return the rank of every point: 0 for the first front, 1 for the front behind it, and so on.

    Point i constrained-dominates j if i violates less, or if both are feasible and i is nowhere worse and somewhere
    better. Points with equal violation do not dominate each other, nor do equal points. So the feasible points are
    ranked by their objectives, and behind them each larger violation opens a front.

    Args:
        F: float[n, M], objectives; infinities are ordinary values.
        violation: float[n], 0 where feasible, > 0 elsewhere; inf where a value of F is NaN.

    Source:
        Deb, Pratap, Agarwal, Meyarivan 2002, III-A (ranks) and VI-A, Definition 1 (constrained domination). Zhang,
        Tian, Cheng, Jin 2015 (efficient non-dominated sort): in lexicographic order no point is dominated by a
        later one, and each joins the first front that does not dominate it. For two objectives one number stands
        for a front, O(n log n); for more, all its members, O(M n^2).

    >>> non_dominated_ranks(np.array([[1.0, 2.0], [2.0, 1.0], [2.0, 2.0], [0.0, 0.0]]), np.array([0, 0, 0, 0.1]))
    array([0, 0, 1, 2])
    """
    infeasible = violation > 0
    if infeasible.any():
        ranks = np.empty(len(F), dtype=np.int64)
        ranks[~infeasible] = front = non_dominated_ranks(F[~infeasible], violation[~infeasible])
        ranks[infeasible] = front.max(initial=-1) + 1 + np.unique(violation[infeasible], return_inverse=True)[1]
        return ranks
    doubles = np.ascontiguousarray(F, dtype=np.float64)
    order = np.lexsort(doubles.T[::-1])
    return _ranks_of_two(doubles, order) if F.shape[1] == 2 else _ranks_of_many(doubles, order)


@kernel
def _ranks_of_two(F: Doubles, order: Ints) -> Ints:
    """Return the ranks for two objectives, given the lexicographic order.

    Inside a front F[:, 1] falls while F[:, 0] grows: front k dominates the next point if smallest[k], the second
    objective of its newest member, is <= that of the point. Every member of front k + 1 is dominated by one of
    front k, so `smallest` is sorted, and bisection finds the first front that does not dominate.
    """
    n = len(order)
    ranks = np.empty(n, dtype=np.int64)
    smallest = np.empty(n, dtype=np.float64)
    fronts = 0
    for position in range(n):
        i, before = order[position], order[max(position - 1, 0)]
        if position > 0 and F[i, 0] == F[before, 0] and F[i, 1] == F[before, 1]:
            ranks[i] = ranks[before]  # equal points share a front; the test below would part them
            continue
        rank, high = 0, fronts
        while rank < high:
            middle = (rank + high) // 2
            if smallest[middle] <= F[i, 1]:
                rank = middle + 1
            else:
                high = middle
        ranks[i] = rank
        smallest[rank] = F[i, 1]
        fronts = max(fronts, rank + 1)
    return ranks


@kernel
def _ranks_of_many(F: Doubles, order: Ints) -> Ints:
    """Return the ranks for any number of objectives, given the lexicographic order.

    for point in order: for front in fronts: for member in front, newest first: does member dominate point?
    """
    n = len(order)
    ranks = np.empty(n, dtype=np.int64)
    newest = np.empty(n, dtype=np.int64)  # newest member of each front
    older = np.full(n, -1, dtype=np.int64)  # the member that joined the same front before, or -1
    fronts = 0
    for i in order:
        rank = 0
        while rank < fronts:
            member = newest[rank]
            while member >= 0 and not _dominates(F, member, i):
                member = older[member]
            if member < 0:
                break
            rank += 1
        ranks[i] = rank
        if rank < fronts:
            older[i] = newest[rank]
        newest[rank] = i
        fronts = max(fronts, rank + 1)
    return ranks


@kernel
def _dominates(F: Doubles, i: int, j: int) -> bool:
    """Return whether point i is nowhere worse and somewhere better than point j."""
    better = False
    for m in range(F.shape[1]):
        if F[i, m] > F[j, m]:
            return False
        if F[i, m] < F[j, m]:
            better = True
    return better


def crowding_distance(F: Floats, ranks: Ints) -> Doubles:
    """Return each point's crowding distance in its own front, large where it has no close neighbours; never NaN.

    Per objective, the gap between a point's two neighbours in its front over the front's range; summed. The two
    ends of an objective get inf, so that truncation keeps them, and so do fronts of one or two. An objective with
    the same value throughout the front adds 0. Of equal points the one with the lowest index counts as the end. The
    range is taken over finite values; a neighbour at infinity is infinitely far.

    Args:
        F: float[n, M], objectives.
        ranks: int64[n], the front each point belongs to.

    Source:
        Deb et al. 2002, III-B, crowding-distance-assignment.

    >>> crowding_distance(np.array([[0.0, 4.0], [1.0, 2.0], [4.0, 0.0]]), np.array([0, 0, 0]))
    array([inf,  2., inf])
    """
    return _crowding(F, ranks, _orders(F))


def _orders(F: Floats) -> Ints:
    """Return int64[M, n], the order of the points by each objective, equal values by their index."""
    return np.ascontiguousarray(np.argsort(F, axis=0, kind="stable").T)


@kernel
def _crowding(F: Floats, ranks: Ints, orders: Ints) -> Doubles:
    """Return sum_m (F[next, m] - F[previous, m]) / range_m, next and previous being those of the same front.

    for objective: for point in its order: the last of its front now knows its next, this point
    """
    n = len(ranks)
    fronts = ranks.max() + 1 if n else 0
    distance = np.zeros(n, dtype=np.float64)
    for m in range(F.shape[1]):
        extent = _extents(F[:, m], ranks, fronts)
        size = np.zeros(fronts, dtype=np.int64)
        first = np.empty(fronts, dtype=np.int64)
        last = np.empty(fronts, dtype=np.int64)
        last_but_one = np.empty(fronts, dtype=np.int64)
        for i in orders[m]:
            front = ranks[i]
            if size[front] == 0:
                first[front] = i
            elif size[front] > 1:
                gap = _relative_gap(F[last_but_one[front], m], F[i, m], extent[front])
                distance[last[front]] += gap
            last_but_one[front] = last[front]
            last[front] = i
            size[front] += 1
        for front in range(fronts):
            if 0 < size[front] <= 2 or (size[front] > 2 and F[last[front], m] > F[first[front], m]):
                distance[first[front]] = np.inf
                distance[last[front]] = np.inf
    return distance


@kernel
def _extents(values: Floats, ranks: Ints, fronts: int) -> Doubles:
    """Return per front the largest minus the smallest finite value of its members, 0 when there is none."""
    low, high = np.full(fronts, np.inf), np.full(fronts, -np.inf)
    for i in range(len(values)):
        if np.isfinite(values[i]):
            low[ranks[i]] = min(low[ranks[i]], values[i])
            high[ranks[i]] = max(high[ranks[i]], values[i])
    for front in range(fronts):
        high[front] = max(high[front] - low[front], 0.0)
    return high


@kernel
def _relative_gap(low: float, high: float, extent: float) -> float:
    """Return (high - low) / extent, with 0 for no gap or a NaN and inf for an infinite gap.

    A finite gap > 0 lies inside the finite range, so that extent is then > 0.
    """
    if high > low:
        gap = high - low
        return gap / extent if gap < np.inf else np.inf
    return 0.0


def thin_front(F: Floats, keep: int) -> Ints:
    """Return int64[keep], ascending: the points that remain when the most crowded one is removed again and again.

    Crowding distances are updated after each removal. So one of two close points stays, where cutting once by the
    initial distances would remove both. The range that gaps are measured against stays that of the full front. Of
    equally crowded points the first goes.

    Args:
        F: float[n, M], objectives of one front.
        keep: number of points to keep, 0 <= keep <= n.

    Source:
        Kukkonen, Deb 2006, "Improved pruning of non-dominated solutions based on crowding distance for
        bi-objective optimization problems"; used here for any number of objectives.

    >>> thin_front(np.array([[0.0, 9.0], [4.0, 4.9], [4.1, 4.8], [9.0, 0.0]]), 3)
    array([0, 2, 3])
    """
    return np.flatnonzero(_thin(F, _orders(F), keep))


@kernel
def _thin(F: Floats, orders: Ints, keep: int) -> NDArray[np.bool_]:
    """Return the mask of the points kept.

    Per objective the front is a doubly linked list: a removal changes the distances of at most 2 M neighbours.
    """
    n, objectives = F.shape
    before = np.full((objectives, n), -1, dtype=np.int64)
    after = np.full((objectives, n), -1, dtype=np.int64)
    extent = np.empty(objectives, dtype=np.float64)
    one_front = np.zeros(n, dtype=np.int64)
    for m in range(objectives):
        extent[m] = _extents(F[:, m], one_front, 1)[0]
        for position in range(1, n):
            before[m, orders[m, position]] = orders[m, position - 1]
            after[m, orders[m, position - 1]] = orders[m, position]
    distance = np.empty(n, dtype=np.float64)
    for i in range(n):
        distance[i] = _distance_in_lists(F, i, before, after, extent)
    kept = np.ones(n, dtype=np.bool_)
    for _ in range(n - keep):
        crowded = -1
        for i in range(n):
            if kept[i] and (crowded < 0 or distance[i] < distance[crowded]):
                crowded = i
        kept[crowded] = False
        for m in range(objectives):
            left, right = before[m, crowded], after[m, crowded]
            if left >= 0:
                after[m, left] = right
            if right >= 0:
                before[m, right] = left
        for m in range(objectives):
            for neighbour in (before[m, crowded], after[m, crowded]):
                if neighbour >= 0:
                    distance[neighbour] = _distance_in_lists(F, neighbour, before, after, extent)
    return kept


@kernel
def _distance_in_lists(F: Floats, i: int, before: Ints, after: Ints, extent: Doubles) -> float:
    """Return the crowding distance of point i to its present neighbours: inf at an end of an objective."""
    distance = 0.0
    for m in range(F.shape[1]):
        left, right = before[m, i], after[m, i]
        if left >= 0 and right >= 0:
            distance += _relative_gap(F[left, m], F[right, m], extent[m])
        elif extent[m] > 0:
            distance = np.inf
    return distance
