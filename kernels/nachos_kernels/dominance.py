"""Who is better than whom: non-dominated ranks, and the area under a front.

Two lessons for minimised objectives, each in the form that is quick and still short:

- `non_dominated_ranks` peels a population into fronts. Points are first sorted so that nobody is dominated
  by a later one; each is then put into the first front in which nobody dominates it.
- `hypervolume_2d` adds up the area a sorted front dominates.

The sorting itself is NumPy's; the loops here are what NumPy cannot do. Read `_jit.py` first and `crowding.py`
next. Left out: NaN (give a point with a NaN an infinite violation), more than three objectives in less than
O(n^2), and every random tie-break (the caller's, with its generator).
"""

import numpy as np
import numpy.typing as npt

from nachos_kernels._jit import kernel

Floats = npt.NDArray[np.floating]
Doubles = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]


def non_dominated_ranks(F: Floats, violation: Floats) -> Indices:
    """Return the rank of every point: 0 for the first front, 1 for the front behind it, and so on.

    Point i constrained-dominates j when i violates less, or when both are feasible and i is nowhere worse
    and somewhere better. Points that violate equally much do not dominate each other, nor do equal points.
    So the feasible points are ranked by their objectives, and behind them each larger violation opens a front.

    Args:
        F: float[n, M], objectives, minimised; infinities are ordinary values.
        violation: float[n], 0 where feasible, > 0 elsewhere; inf where a value of F is NaN.

    Returns:
        int64[n].

    Source:
        Deb, Pratap, Agarwal, Meyarivan 2002, III-A (ranks) and VI-A, Definition 1 (constrained domination).
        Zhang, Tian, Cheng, Jin 2015 (efficient non-dominated sort): in lexicographic order each point looks for
        the first front that does not dominate it, with bisection over the fronts. What stands for a front, one
        number for two objectives (O(n log n)) and a staircase for three, is derived here.

    >>> non_dominated_ranks(np.array([[1.0, 2.0], [2.0, 1.0], [2.0, 2.0], [0.0, 0.0]]), np.array([0, 0, 0, 0.1]))
    array([0, 0, 1, 2])
    """
    infeasible = violation > 0
    if not infeasible.any():
        return _unconstrained_ranks(F)
    ranks = np.empty(len(F), dtype=np.int64)
    ranks[~infeasible] = front = _unconstrained_ranks(F[~infeasible])
    ranks[infeasible] = front.max(initial=-1) + 1 + np.unique(violation[infeasible], return_inverse=True)[1]
    return ranks


def _unconstrained_ranks(F: Floats) -> Indices:
    columns = np.ascontiguousarray(F.T, dtype=np.float64)
    order = _lexicographic_order(columns)
    if len(columns) == 1:
        return _ranks_of_two(columns[0], np.zeros(len(F)), order)
    if len(columns) == 2:
        return _ranks_of_two(columns[0], columns[1], order)
    if len(columns) == 3:
        return _ranks_of_three(columns[0], columns[1], columns[2], order)
    return _ranks_of_many(np.ascontiguousarray(columns.T), order)


def _lexicographic_order(columns: Doubles) -> Indices:
    """Return the order by columns[0], equal ones by columns[1], and so on.

    Most values of a real objective occur once. So all points are sorted by the first objective, and by all of
    them only those whose first one is another's, too: up to a seventh of the time of sorting all by three.
    """
    order = np.argsort(columns[0])
    places = tied(columns[0], order)
    if len(places):
        again = order[places]
        order[places] = again[np.lexsort(columns[::-1, again])]
    return order


@kernel
def tied(values: Doubles, order: Indices) -> Indices:
    """Return the places of an ascending order whose value is no smaller than the next or no larger than the last.

    Args:
        values: float64[n]; a NaN counts as tied.
        order: int64[n], the values' indices from the smallest to the largest.

    Returns:
        int64[count], ascending places in `order`.

    >>> tied(np.array([7.0, 5.0, 7.0]), np.array([1, 0, 2]))
    array([1, 2])
    """
    n = len(order)
    places = np.empty(n, dtype=np.int64)
    count = 0
    below = True  # whether the value of the place before is smaller
    for place in range(n):
        above = place + 1 == n or values[order[place + 1]] > values[order[place]]
        if not (below and above):
            places[count] = place
            count += 1
        below = above
    return places[:count]


@kernel
def _ranks_of_two(x: Doubles, y: Doubles, order: Indices) -> Indices:
    """Return the ranks for two objectives, given the lexicographic order.

    Inside a front y falls while x grows, so its newest member has its smallest y: front k dominates the
    next point when smallest[k] <= y. Every member of front k + 1 is dominated by one of front k, so
    `smallest` is sorted and the first front that does not dominate is found by bisection.
    """
    n = len(order)
    ranks = np.empty(n, dtype=np.int64)
    smallest = np.empty(n, dtype=np.float64)
    fronts = 0
    for position in range(n):
        i, before = order[position], order[max(position - 1, 0)]
        if position > 0 and x[i] == x[before] and y[i] == y[before]:
            ranks[i] = ranks[before]  # equal points share a front; the test below would part them
            continue
        rank = _first_above(smallest, 0, fronts, y[i])
        ranks[i] = rank
        smallest[rank] = y[i]
        fronts = max(fronts, rank + 1)
    return ranks


@kernel
def _ranks_of_three(x: Doubles, y: Doubles, z: Doubles, order: Indices) -> Indices:
    """Return the ranks for three objectives, given the lexicographic order.

    Whoever came before is not worse in x: front k dominates the next point when one of its members has
    neither a larger y nor a larger z. Only the members that no other member beats in both matter; by growing y
    they have falling z, a staircase, and the step to ask is the last one with step_y <= y. So two bisections,
    over the fronts and over the steps, replace the walk through all members: 10,000 points of one front took 260 ms
    and take 1.7.

    for point in order: bisect fronts: bisect steps: is its z <= the point's z?
    """
    n = len(order)
    ranks = np.empty(n, dtype=np.int64)
    # The steps of front k are step_y[start[k] : start[k] + size[k]], with room for room[k]. A front that needs
    # more moves to the end of the arrays and takes twice the room. Of p steps that makes less than 4 p places,
    # the places left behind included.
    step_y, step_z = np.empty(4 * n, dtype=np.float64), np.empty(4 * n, dtype=np.float64)
    start, size, room = np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64), np.zeros(n, dtype=np.int64)
    used = 0
    fronts = 0
    for position in range(n):
        i, before = order[position], order[max(position - 1, 0)]
        if position > 0 and x[i] == x[before] and y[i] == y[before] and z[i] == z[before]:
            ranks[i] = ranks[before]  # as for two
            continue
        rank, high = 0, fronts
        while rank < high:
            middle = (rank + high) // 2
            behind = _first_above(step_y, start[middle], start[middle] + size[middle], y[i])
            if behind > start[middle] and step_z[behind - 1] <= z[i]:
                rank = middle + 1
            else:
                high = middle
        ranks[i] = rank
        fronts = max(fronts, rank + 1)

        if size[rank] == room[rank]:
            old = start[rank]
            start[rank], room[rank] = used, max(1, 2 * room[rank])
            used += room[rank]
            for step in range(size[rank]):
                step_y[start[rank] + step] = step_y[old + step]
                step_z[start[rank] + step] = step_z[old + step]
        size[rank] = _insert_step(step_y, step_z, start[rank], start[rank] + size[rank], y[i], z[i]) - start[rank]
    return ranks


@kernel
def _insert_step(step_y: Doubles, step_z: Doubles, start: int, stop: int, y: float, z: float) -> int:
    """Put (y, z), which no step is below, into the staircase [start, stop); return its new stop.

    The steps that (y, z) beats follow one another from the first one with step_y >= y on. They make room for
    it; if there are none, the steps behind move up by one place.
    """
    first = _first_above(step_y, start, stop, y)
    if first > start and step_y[first - 1] == y:
        first -= 1
    kept = first
    while kept < stop and step_z[kept] >= z:
        kept += 1
    moved = first + 1 - kept
    if moved > 0:
        # Each step is put down where the next one is picked up: half the memory traffic of going backwards.
        carried_y, carried_z = step_y[kept], step_z[kept]
        for step in range(kept + 1, stop + 1):
            step_y[step], carried_y = carried_y, step_y[step]
            step_z[step], carried_z = carried_z, step_z[step]
    elif moved < 0:
        for step in range(kept, stop):
            step_y[step + moved], step_z[step + moved] = step_y[step], step_z[step]
    step_y[first], step_z[first] = y, z
    return stop + moved


@kernel
def _first_above(values: Doubles, low: int, high: int, bound: float) -> int:
    """Return the first place in the ascending values[low:high] that is larger than the bound, `high` if none."""
    while low < high:
        middle = (low + high) // 2
        if values[middle] <= bound:
            low = middle + 1
        else:
            high = middle
    return low


@kernel
def _ranks_of_many(F: Doubles, order: Indices) -> Indices:
    """Return the ranks for any number of objectives, given the lexicographic order; O(M n^2) at worst.

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
