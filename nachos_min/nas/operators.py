"""How new genomes are made: sampling, tournament, two crossovers, mutation, for real and integer variables.

A genome is a row of float64 numbers inside a `Domain`. The integer v owns the cell [v - 1/2, v + 1/2], also at the
ends of its range, and a mutated integer always changes. Left out: permutations.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from nachos_min.errors import InputError

Genomes = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]
LARGEST_EXACT_INTEGER = 2**53  # beyond it float64 skips whole numbers


class Domain:
    """The box of genomes: lower, upper float64[V], inclusive; integer bool[V]; cell, half the width a value owns.

    Raises:
        InputError: bounds of different or no length, not finite, lower > upper, or not whole for an integer.
    """

    def __init__(self, lower: npt.ArrayLike, upper: npt.ArrayLike, integer: bool | npt.ArrayLike = False) -> None:
        low, high, mask = np.array(lower, np.float64), np.array(upper, np.float64), np.array(integer)
        if low.ndim != 1 or low.shape != high.shape or len(low) == 0:
            shapes = f"{low.shape}, {high.shape}"
            raise InputError(f"lower and upper must be lists of the same length >= 1, got shapes {shapes}")
        if mask.dtype != np.bool_ or mask.shape not in ((), low.shape):
            raise InputError(f"integer must be a bool or {len(low)} bools, got {integer!r}")
        self.lower, self.upper, self.variables = low, high, len(low)
        self.integer = np.broadcast_to(mask, low.shape)
        self.cell: Genomes = np.where(mask, 0.5, np.zeros(len(low)))
        for v, (a, b, discrete) in enumerate(zip(low, high, self.integer, strict=True)):
            if not (np.isfinite(a) and np.isfinite(b) and a <= b):
                raise InputError(f"bounds must be finite with lower <= upper, got [{a}, {b}] for variable {v}")
            if discrete and (a % 1 or b % 1 or max(abs(a), abs(b)) >= LARGEST_EXACT_INTEGER):
                raise InputError(f"integer bounds must be whole and below 2**53, got [{a}, {b}] for variable {v}")

    def settle(self, X: Genomes) -> Genomes:
        """Return X[n, V] within the bounds, integer variables rounded, halves to the even neighbour."""
        return np.clip(np.where(self.integer, np.rint(X), X), self.lower, self.upper)

    def rows(self, initial: npt.ArrayLike | None) -> Genomes:
        """Return given genomes as float64[n, V]; InputError if they are not in the domain."""
        rows = np.empty((0, self.variables)) if initial is None else np.array(initial, dtype=np.float64)
        if rows.ndim != 2 or rows.shape[1] != self.variables:
            raise InputError(f"initial must have shape (n, {self.variables}), got {rows.shape}")
        for row in rows[(rows != self.settle(rows)).any(axis=1)]:
            raise InputError(f"initial must lie in the bounds, whole where integer, got {row.tolist()}")
        return rows


def sample(count: int, domain: Domain, rng: np.random.Generator) -> Genomes:
    """Return random genomes float64[count, V]: a Latin hypercube (McKay, Beckman, Conover 1979).

    Of `count` equal slices of each variable's range, every one holds one genome, in random combinations.
    """
    slices = np.tile(np.arange(count)[:, None], (1, domain.variables))
    share = (rng.permuted(slices, axis=0) + rng.random(slices.shape)) / max(count, 1)
    # In units of cells an integer's range is one longer: lower, ..., upper own a unit each.
    X = domain.lower + share * (domain.upper - domain.lower + np.where(domain.integer, 1.0, 0.0))
    return np.clip(np.where(domain.integer, np.floor(X), X), domain.lower, domain.upper)


def tournament(rank: Indices, crowding: Genomes, pairs: int, rng: np.random.Generator) -> tuple[Indices, Indices]:
    """Return the indices of both parents of every pair, each the better of two random members.

    Better: lower rank, then larger crowding distance, then by lot (Deb et al. 2002, III-B). Opponents are
    neighbours in shuffles of the population: all members compete equally often.
    """
    shuffles = [rng.permutation(len(rank)) for _ in range(-(-4 * pairs // len(rank)))]
    a, b = np.concatenate(shuffles)[: 4 * pairs].reshape(2 * pairs, 2).T
    equal = (rank[a] == rank[b]) & (crowding[a] == crowding[b])
    a_better = (rank[a] < rank[b]) | ((rank[a] == rank[b]) & (crowding[a] > crowding[b]))
    winners = np.where(a_better | (equal & (rng.random(2 * pairs) < 0.5)), a, b)
    return winners[0::2], winners[1::2]


def sbx(
    A: Genomes, B: Genomes, domain: Domain, rng: np.random.Generator, *, probability: float = 0.9, eta: float = 15.0
) -> tuple[Genomes, Genomes]:
    """Return two children of every pair of parents A, B float64[P, V] by simulated binary crossover.

    A pair is crossed with `probability`, each of its variables with probability 1/2. The two new values, in random
    order, are mean -+ spread * |a - b| / 2. The larger `eta`, the more likely is a spread near 1, which keeps the
    distance of the parents. Children are in the domain.

    Source:
        Deb, Agrawal 1995; the version for bounded variables of Deb's NSGA-II code, which pymoo also uses.
    """
    crossed = (rng.random((len(A), 1)) < probability) & (rng.random(A.shape) < 0.5)
    distinct = np.abs(A - B) > 1e-14  # closer parents would divide by nothing and give themselves anyway
    at = np.flatnonzero(crossed & distinct)  # powers are what costs here: only crossed genes take part
    u = np.take(rng.random(A.shape), at)
    swapped = np.take(rng.random(A.shape), at) < 0.5
    a, b, gene = np.take(A, at), np.take(B, at), at % A.shape[1]
    low, high = np.take(domain.lower - domain.cell, gene), np.take(domain.upper + domain.cell, gene)

    left, right = np.minimum(a, b), np.maximum(a, b)
    distance = right - left
    near = (left + right - _spread(u, 1 + 2 * (left - low) / distance, eta) * distance) / 2
    far = (left + right + _spread(u, 1 + 2 * (high - right) / distance, eta) * distance) / 2
    first, second = A.copy(), B.copy()
    np.put(first, at, np.where(swapped, far, near))
    np.put(second, at, np.where(swapped, near, far))
    return domain.settle(first), domain.settle(second)


def _spread(u: Genomes, beta: Genomes, eta: float) -> Genomes:
    """Return spreads s of u uniform in [0, 1): density s**eta up to 1, then s**-(eta + 2) up to the bound beta."""
    area = 2 - beta ** -(eta + 1)
    share = u * area
    return np.where(u <= 1 / area, share, 1 / (2 - share)) ** (1 / (eta + 1))


def two_point_crossover(
    A: Genomes, B: Genomes, domain: Domain, rng: np.random.Generator, *, probability: float = 0.9
) -> tuple[Genomes, Genomes]:
    """Return two children of every pair, which exchange the genes between two random cuts; arguments as of `sbx`.

    The genome is a ring with V places to cut (De Jong 1975): all genes are exchanged equally often. A single
    variable has no two cuts and stays.
    """
    pairs, variables = len(A), domain.variables
    crossed = rng.random((pairs, 1)) < (probability if variables > 1 else 0.0)
    one = rng.integers(0, variables, size=pairs)
    other = (one + rng.integers(1, max(variables, 2), size=pairs)) % variables
    place = np.arange(variables)
    between = (place >= np.minimum(one, other)[:, None]) & (place < np.maximum(one, other)[:, None])
    # Between the cuts there is never the last gene; exchanging what lies outside them gives the same two children.
    exchanged = (between ^ (rng.random((pairs, 1)) < 0.5)) & crossed
    return np.where(exchanged, B, A), np.where(exchanged, A, B)


CROSSOVERS: dict[str, Callable[[Genomes, Genomes, Domain, np.random.Generator], tuple[Genomes, Genomes]]] = {
    "sbx": sbx,
    "two-point": two_point_crossover,
}


def polynomial_mutation(
    X: Genomes, domain: Domain, rng: np.random.Generator, *, probability: float | None = None, eta: float = 20.0
) -> Genomes:
    """Return the genomes with every gene mutated with `probability`, small steps being likelier than large.

    With the bound at relative distance d = |bound - x| / range, the step t in [0, d] to its side makes
    (1 - t)**(eta + 1) uniform between (1 - d)**(eta + 1) and 1. A real variable takes either side with probability
    1/2. An integer draws from the same density outside its own cell, t >= h = 1/2 / (range of the cells), as if
    mutations without effect were drawn again. Side and step follow by integrating the density; h = 0 for a real:

        side: weight (1 - r) / (1 - (1 - d)**(eta + 1))    with r = ((1 - d) / (1 - h))**(eta + 1)
        step: 1 - (1 - h) * (u + (1 - u) * r)**(1 / (eta + 1))    u uniform in [0, 1)

    X is float64[P, V]; `probability` None is 1 / V; the larger `eta`, the smaller the steps.

    Source:
        Deb, Goyal 1996; the version for bounded variables of Deb's NSGA-II code, which pymoo also uses. The form
        for integers is derived here: rounded, a gene with few values would hardly ever change.
    """
    probability = 1 / domain.variables if probability is None else probability
    at = np.flatnonzero((rng.random(X.shape) < probability) & (domain.lower < domain.upper))
    side_draw, u = np.take(rng.random(X.shape), at), np.take(rng.random(X.shape), at)
    x, gene = np.take(X, at), at % X.shape[1]
    lower, upper, integer, cell = (each[gene] for each in (domain.lower, domain.upper, domain.integer, domain.cell))
    low, high = lower - cell, upper + cell
    width = high - low
    h: Genomes = cell / width

    def ratio(distance: Genomes) -> Genomes:
        """Return r; it is 1 when the bound is the cell's own edge."""
        return np.clip((1 - distance) / (1 - h), 0.0, 1.0) ** (eta + 1)

    def weight(distance: Genomes) -> Genomes:
        """Return the chance of a step to this side, up to a factor of both sides."""
        whole_side = 1 - np.clip(1 - distance, 0.0, 1.0) ** (eta + 1)
        return (1 - ratio(distance)) / np.where(whole_side > 0, whole_side, 1.0)

    down, up = (x - low) / width, (high - x) / width
    total = weight(down) + weight(up)
    downwards = np.where(integer, weight(down) / np.where(total > 0, total, 1.0), 0.5)
    sign = np.where(side_draw < downwards, -1.0, 1.0)
    r = ratio(np.where(sign < 0, down, up))
    step = width * (1 - (1 - h) * (u + (1 - u) * r) ** (1 / (eta + 1)))
    step = np.where(integer, np.maximum(np.rint(step), 1.0), step)  # 1: rint(0.5 + noise) may be 0
    mutant = X.copy()
    np.put(mutant, at, np.clip(x + sign * step, lower, upper))
    return mutant
