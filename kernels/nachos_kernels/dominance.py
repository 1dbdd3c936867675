"""Who is better than whom: non-dominated ranks, crowding distance and the area under a front.

Four lessons for minimised objectives, each in the form that is quick and still short:

- `non_dominated_ranks` peels a population into fronts. Points are first sorted so that nobody is dominated
  by a later one; each is then put into the first front in which nobody dominates it.
- `crowding_distance` measures how alone a point is in its front; `thin_front` takes the most crowded points
  out of a front one by one.
- `hypervolume_2d` adds up the area a sorted front dominates.

The sorting itself is NumPy's; the loops here are what NumPy cannot do. Read `_jit.py` first. Left out: NaN
(give a point with a NaN an infinite violation) and every random tie-break (the caller's, with its generator).
"""

import numpy as np
import numpy.typing as npt

from nachos_kernels._jit import kernel

Floats = npt.NDArray[np.floating]
Indices = npt.NDArray[np.int64]


def non_dominated_ranks(F: Floats, violation: Floats) -> Indices:
    """Return the rank of every point: 0 for the first front, 1 for the front behind it, and so on.

    Point i constrained-dominates j when i violates less, or when both are feasible and i is nowhere worse
    and somewhere better. Points that violate equally much do not dominate each other, nor do equal points.

    Args:
        F: float[n, M], objectives, minimised; infinities are ordinary values.
        violation: float[n], 0 where feasible, > 0 elsewhere; inf where a value of F is NaN.

    Returns:
        int64[n].

    Source:
        Deb, Pratap, Agarwal, Meyarivan 2002, III-A (ranks) and VI-A, Definition 1 (constrained domination).
        Computed by Zhang, Tian, Cheng, Jin 2015 (efficient non-dominated sort, sequential search), which
        needs no n x n table; two objectives by binary search over the fronts, O(n log n).

    >>> non_dominated_ranks(np.array([[1.0, 2.0], [2.0, 1.0], [2.0, 2.0], [0.0, 0.0]]), np.array([0, 0, 0, 0.1]))
    array([0, 0, 1, 2])
    """
    objectives_last_to_first = tuple(F[:, m] for m in reversed(range(F.shape[1])))
    order = np.lexsort((*objectives_last_to_first, violation))
    return _ranks_of_two(F, violation, order) if F.shape[1] == 2 else _ranks_of_many(F, violation, order)


@kernel
def _ranks_of_two(F: Floats, violation: Floats, order: Indices) -> Indices:
    """Return the ranks for two objectives, given the lexicographic order.

    Inside a front f2 falls while f1 grows, so its newest member has its smallest f2: front k dominates the
    next point when smallest[k] <= f2. Every member of front k + 1 is dominated by one of front k, so
    `smallest` is sorted and the first front that does not dominate is found by bisection.
    """
    ranks = np.zeros(len(order), dtype=np.int64)
    smallest = np.empty(len(order), dtype=F.dtype)
    fronts = 0
    for position in range(len(order)):
        i = order[position]
        if violation[i] > 0:
            ranks[i] = _rank_of_infeasible(violation, order, ranks, position)
            continue
        if position > 0:
            before = order[position - 1]
            if F[i, 0] == F[before, 0] and F[i, 1] == F[before, 1]:
                ranks[i] = ranks[before]  # equal points share a front; the test below would part them
                continue
        low, high = 0, fronts
        while low < high:
            middle = (low + high) // 2
            if smallest[middle] <= F[i, 1]:
                low = middle + 1
            else:
                high = middle
        ranks[i] = low
        smallest[low] = F[i, 1]
        fronts = max(fronts, low + 1)
    return ranks


@kernel
def _ranks_of_many(F: Floats, violation: Floats, order: Indices) -> Indices:
    """Return the ranks for any number of objectives, given the lexicographic order; O(M n^2) at worst.

    for point in order: for front in fronts: for member in front, newest first: does member dominate point?
    """
    ranks = np.zeros(len(order), dtype=np.int64)
    newest = np.empty(len(order), dtype=np.int64)  # newest member of each front
    older = np.full(len(order), -1, dtype=np.int64)  # the member that joined the same front before, or -1
    fronts = 0
    for position in range(len(order)):
        i = order[position]
        if violation[i] > 0:
            ranks[i] = _rank_of_infeasible(violation, order, ranks, position)
            continue
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
def _dominates(F: Floats, i: int, j: int) -> bool:
    """Return whether point i is nowhere worse and somewhere better than point j."""
    better = False
    for m in range(F.shape[1]):
        if F[i, m] > F[j, m]:
            return False
        if F[i, m] < F[j, m]:
            better = True
    return better


@kernel
def _rank_of_infeasible(violation: Floats, order: Indices, ranks: Indices, position: int) -> int:
    """Return one rank behind everybody who violates less: infeasible points come last and in order.

    The ranks of feasible points do not grow along the order, so the first infeasible one looks at them all.
    """
    if position == 0:
        return 0
    i, before = order[position], order[position - 1]
    if violation[before] > 0:
        return int(ranks[before]) + int(violation[i] > violation[before])
    return int(ranks.max()) + 1


def crowding_distance(F: Floats, ranks: Indices) -> npt.NDArray[np.float64]:
    """Return each point's crowding distance in its own front: large where it has no close neighbours.

    Per objective, the gap between a point's two neighbours in its front over the front's range; summed. The
    two ends of an objective get inf, so that truncation keeps them, and so do fronts of one or two. An
    objective with the same value throughout the front adds 0. Of equal points the one with the lowest index
    counts as the end. The range is taken over finite values; a neighbour at infinity is infinitely far.

    Args:
        F: float[n, M], objectives.
        ranks: int64[n], the front each point belongs to.

    Returns:
        float64[n], >= 0 or inf, never NaN.

    Source:
        Deb et al. 2002, III-B, crowding-distance-assignment.

    >>> crowding_distance(np.array([[0.0, 4.0], [1.0, 2.0], [4.0, 0.0]]), np.array([0, 0, 0]))
    array([inf,  2., inf])
    """
    order = np.empty((F.shape[1], len(F)), dtype=np.int64)
    for m in range(F.shape[1]):
        order[m] = np.lexsort((F[:, m], ranks))  # stable: fronts one after another, each sorted by objective m
    return _crowding(F, ranks, order)


@kernel
def _crowding(F: Floats, ranks: Indices, order: Indices) -> npt.NDArray[np.float64]:
    """Return sum_m (F[next, m] - F[previous, m]) / range_m, front by front along each objective's order."""
    n = len(ranks)
    distance = np.zeros(n, dtype=np.float64)
    for m in range(F.shape[1]):
        start = 0
        while start < n:
            stop = start + 1
            while stop < n and ranks[order[m, stop]] == ranks[order[m, start]]:
                stop += 1
            first, last = order[m, start], order[m, stop - 1]
            if stop - start <= 2 or F[last, m] > F[first, m]:
                distance[first] = np.inf
                distance[last] = np.inf
            extent = _finite_range(F, m, order[m, start:stop])
            for position in range(start + 1, stop - 1):
                before, after = order[m, position - 1], order[m, position + 1]
                distance[order[m, position]] += _relative_gap(F[before, m], F[after, m], extent)
            start = stop
    return distance


@kernel
def _finite_range(F: Floats, m: int, members: Indices) -> float:
    """Return the largest minus the smallest finite value of objective m, 0 when there is none."""
    low, high = np.inf, -np.inf
    for i in members:
        if np.isfinite(F[i, m]):
            low, high = min(low, F[i, m]), max(high, F[i, m])
    return max(high - low, 0.0)


@kernel
def _relative_gap(low: float, high: float, extent: float) -> float:
    """Return (high - low) / extent, with 0 for no gap or a NaN and inf for an infinite gap.

    A finite gap > 0 lies inside the finite range, so that extent is then > 0.
    """
    if high > low:
        gap = high - low
        return gap / extent if gap < np.inf else np.inf
    return 0.0


def thin_front(F: Floats, keep: int) -> Indices:
    """Return which `keep` points of one front remain when the most crowded one is removed again and again.

    Crowding distances are brought up to date after each removal: of two close points one goes and the other,
    now alone, stays, where cutting once by the initial distances would remove both. The range that gaps are
    measured against stays that of the whole front. Of equally crowded points the first goes.

    Args:
        F: float[n, M], objectives of one front.
        keep: number of points to keep, 0 <= keep <= n.

    Returns:
        int64[keep], ascending indices.

    Source:
        Kukkonen, Deb 2006, "Improved pruning of non-dominated solutions based on crowding distance for
        bi-objective optimization problems"; used here for any number of objectives.

    >>> thin_front(np.array([[0.0, 9.0], [4.0, 4.9], [4.1, 4.8], [9.0, 0.0]]), 3)
    array([0, 2, 3])
    """
    order = np.argsort(F, axis=0, kind="stable").T.copy()
    return np.flatnonzero(_thin(F, order, keep))


@kernel
def _thin(F: Floats, order: Indices, keep: int) -> npt.NDArray[np.bool_]:
    """Return the mask of the points kept; per objective the front is a doubly linked list, so removal is O(M)."""
    n, objectives = F.shape
    before = np.full((objectives, n), -1, dtype=np.int64)
    after = np.full((objectives, n), -1, dtype=np.int64)
    extent = np.empty(objectives, dtype=np.float64)
    for m in range(objectives):
        extent[m] = _finite_range(F, m, order[m])
        for position in range(1, n):
            before[m, order[m, position]] = order[m, position - 1]
            after[m, order[m, position - 1]] = order[m, position]
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
def _distance_in_lists(
    F: Floats, i: int, before: Indices, after: Indices, extent: npt.NDArray[np.float64]
) -> float:
    """Return the crowding distance of point i among its present neighbours: inf at an end of an objective."""
    distance = 0.0
    for m in range(F.shape[1]):
        left, right = before[m, i], after[m, i]
        if left >= 0 and right >= 0:
            distance += _relative_gap(F[left, m], F[right, m], extent[m])
        elif extent[m] > 0:
            distance = np.inf
    return distance


@kernel
def hypervolume_2d(F: Floats, reference: Floats) -> float:
    """Return the area dominated by the points of F and bounded by the reference point.

    Walking to larger f1, each point that lowers the best f2 so far adds one strip:
    (reference_1 - f1) * (best f2 so far - f2).

    Args:
        F: float[n, 2], sorted by the first objective; dominated points and points beyond the reference
            are allowed and add nothing, as does a NaN.
        reference: float[2].

    Returns:
        float, >= 0.

    Source:
        Zitzler, Thiele 1998 (the size of the space covered); the strips are derived here.

    >>> float(hypervolume_2d(np.array([[0.0, 1.0], [1.0, 0.0]]), np.array([2.0, 2.0])))
    3.0
    """
    area = 0.0
    best = reference[1]
    for i in range(len(F)):
        if F[i, 0] < reference[0] and F[i, 1] < best:
            area += (reference[0] - F[i, 0]) * (best - F[i, 1])
            best = F[i, 1]
    return area
