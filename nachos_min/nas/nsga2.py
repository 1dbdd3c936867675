"""NSGA-II from top to bottom: minimise several objectives at once, under constraints.

    population <- random genomes                                       (or given ones, completed)
    repeat:
      parents   <- winners of binary tournaments                       lower rank, then larger crowding distance
      offspring <- crossover, mutation; known genomes are thrown away
      population <- the best of population and offspring together      same order, so the elite survives

One step is newer than the paper: the front that does not fit is thinned one by one (`thin_front`).
Deb, Pratap, Agarwal, Meyarivan 2002, "A fast and elitist multiobjective genetic algorithm: NSGA-II", IEEE
Transactions on Evolutionary Computation 6(2). Read `dominance.py` (rank) and `crowding.py` of the kernels and
`operators.py` (crossover, mutation) for the parts; this file is how they play together. Left out: stopping
early, parallel evaluation (`evaluate` gets a whole generation and may do as it likes).
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from nachos_kernels.crowding import crowding_distance, thin_front
from nachos_kernels.dominance import non_dominated_ranks
from nachos_min.errors import InputError
from nachos_min.nas.operators import Domain, polynomial_mutation, sample, sbx, two_point_crossover

Floats = npt.NDArray[np.float64]
Genomes = npt.NDArray[Any]  # int64 when every variable is an integer, float64 otherwise
Keys = npt.NDArray[np.object_]  # of bytes
Evaluate = Callable[[Genomes], tuple[Floats, Floats | None] | Floats]

BARREN_TRIES = 20  # attempts without any new genome after which the space counts as exhausted


@dataclass(frozen=True, eq=False)
class Result:
    """What `minimize` found: `X`, `F`, `G` are the feasible non-dominated members of the last population.

    X[n, V] holds genomes (int64 when every variable is an integer, else float64), F float64[n, M] objectives, G
    float64[n, K] constraints (<= 0 met); n = 0 when nothing feasible was found. `population_X`, `population_F`,
    `population_G` are the whole last population; `evaluations` counts genomes evaluated, `generations` the
    generations made, fewer than asked for when no new genome could be found.
    """

    X: Genomes
    F: Floats
    G: Floats
    population_X: Genomes
    population_F: Floats
    population_G: Floats
    evaluations: int
    generations: int


def minimize(
    evaluate: Evaluate,
    *,
    lower: npt.ArrayLike,
    upper: npt.ArrayLike,
    integer: bool | npt.ArrayLike = False,
    n_objectives: int,
    n_constraints: int = 0,
    population: int = 100,
    generations: int = 250,
    seed: int | np.random.Generator = 0,
    initial: npt.ArrayLike | None = None,
    crossover: Literal["sbx", "two-point"] = "sbx",
    crossover_probability: float = 0.9,
    crossover_eta: float = 15.0,
    mutation_probability: float | None = None,
    mutation_eta: float = 20.0,
    canonical: Callable[[Genomes], npt.NDArray[Any]] | None = None,
    ranking: Callable[[Floats, Floats], Floats] | None = None,
    on_generation: Callable[[int, Genomes, Floats, Floats], None] | None = None,
) -> Result:
    """Return the feasible non-dominated genomes of the last population of an NSGA-II run.

    Args:
        evaluate: called with genomes X[n, V] (its own copy), returns (F, G) with F float[n, M] to be minimised
            and G float[n, K] <= 0 where a constraint is met; without constraints F alone or (F, None). A NaN
            in a row marks a failure: it ranks behind everything else and is never feasible.
        lower: float[V], smallest value of every variable, inclusive.
        upper: float[V], largest value, inclusive; equal to lower for a variable that stays fixed.
        integer: which variables are integers; one bool for all, or bool[V].
        n_objectives: M, >= 1.
        n_constraints: K, >= 0.
        population: genomes kept, >= 2; fewer when the space has fewer.
        generations: >= 1, the initial population being the first: population * generations evaluations.
        seed: a seed >= 0, or the generator to draw from.
        initial: rows to start from, completed by random ones; of more rows than `population` the best survive.
        crossover: "sbx" (simulated binary) or "two-point".
        crossover_probability: of crossing a pair of parents, in [0, 1].
        crossover_eta: distribution index of SBX, >= 0.
        mutation_probability: of mutating a gene, in [0, 1]; None is 1 / V.
        mutation_eta: distribution index of polynomial mutation, >= 0.
        canonical: maps genomes X[n, V] to an array of n rows; genomes with equal rows are the same one, and are
            not evaluated beside each other. None compares the genomes themselves.
        ranking: maps (F, G) of parents and offspring together to objectives float[n, M'] that rank them, in place
            of constrained domination. The result stays feasible and non-dominated by F and G.
        on_generation: called with (generation, X, F, G) after every generation, the first being 1.

    Returns:
        Result; the same arguments and seed give the same Result.

    Raises:
        InputError: an argument is outside the range given above, `initial` is not whole or not in bounds, or
            `evaluate`, `canonical` or `ranking` returns arrays of another shape.

    Source:
        Deb et al. 2002. Operators default to the settings usual for it (SBX 0.9 and 15, mutation 1/V and 20).

    >>> result = minimize(lambda X: np.hstack([X**2, (X - 2) ** 2]), lower=[-9], upper=[9], integer=True,
    ...                   n_objectives=2, population=20)
    >>> sorted(result.X[:, 0].tolist())
    [0, 1, 2]
    """
    _check_counts(n_objectives, n_constraints, population, generations)
    domain = Domain(lower, upper, integer)
    mutation = 1 / domain.variables if mutation_probability is None else mutation_probability
    _check_operators(crossover, crossover_probability, crossover_eta, mutation, mutation_eta)
    start = _starting_rows(initial, domain)
    if isinstance(seed, int) and seed < 0:
        raise InputError(f"seed must be >= 0, got {seed}")
    rng = np.random.default_rng(seed)

    def as_genomes(X: Floats) -> Genomes:
        return X.astype(np.int64) if domain.integer.all() else X.copy()

    def keys(X: Floats) -> list[bytes]:
        """One hashable value per genome, equal for genomes that are the same."""
        rows = as_genomes(X) if canonical is None else np.asarray(canonical(as_genomes(X)))
        if rows.ndim != 2 or len(rows) != len(X):
            raise InputError(f"canonical must return {len(X)} rows, got shape {rows.shape}")
        rows = np.ascontiguousarray(rows + 0)  # + 0 turns -0.0 into 0.0
        whole_row = np.dtype((np.void, rows.itemsize * rows.shape[1]))
        return rows.view(whole_row)[:, 0].tolist() if rows.shape[1] else [b""] * len(X)

    def new_genomes(count: int, known: Keys, breed: Callable[[int], Iterable[Floats]]) -> tuple[Floats, Keys]:
        """Return up to `count` genomes from `breed` that differ from the known ones and each other, and their keys.

        `breed` is told how many are wanted and gives a litter of genomes, part by part.
        """
        seen: set[bytes] = set(known.tolist())
        found = [np.empty((0, domain.variables))]
        found_keys: list[bytes] = []
        barren = 0
        while len(found_keys) < count and barren < BARREN_TRIES:
            before = len(found_keys)
            for part in breed(count - before):
                names, chosen = keys(part), []
                for i, key in enumerate(names):
                    if key not in seen:
                        seen.add(key)
                        chosen.append(i)
                chosen = chosen[: count - len(found_keys)]
                found.append(part[chosen])
                found_keys += [names[i] for i in chosen]
                if len(found_keys) == count:
                    break
            barren = 0 if len(found_keys) > before else barren + 1
        return np.concatenate(found), np.array(found_keys, dtype=object)

    def evaluated(X: Floats, known_as: Keys) -> _Rows:
        answer = evaluate(as_genomes(X))
        F, G = answer if isinstance(answer, tuple) else (answer, None)
        if n_constraints == 0:
            G = np.empty((len(X), 0))
        return _Rows(X, _table("F", F, len(X), n_objectives), _table("G", G, len(X), n_constraints), known_as)

    def offspring_of(parents: _Population, wanted: int) -> Iterator[Floats]:
        """Yield a litter of `population` children or one more.

        Some children are no new genomes, and a second litter follows for the few that are missing. Of that one
        only twice as many as wanted are made; the others, from the same random numbers, if those do not do. With
        1,000 genomes of 30 variables a generation then takes 2.9 ms instead of 3.5.
        """
        pairs = (population + 1) // 2
        first, second = _tournament(parents, pairs, rng)
        A, B = parents.rows.X[first], parents.rows.X[second]

        def children(only: int | None) -> Floats:
            if crossover == "sbx":
                litter = sbx(A, B, domain, rng, probability=crossover_probability, eta=crossover_eta, only=only)
            else:
                litter = two_point_crossover(A, B, rng, probability=crossover_probability)
            X = np.concatenate(litter)[:only]
            return polynomial_mutation(X, domain, rng, probability=mutation, eta=mutation_eta, among=2 * pairs)

        some = 2 * wanted
        if some < pairs:
            before = rng.bit_generator.state
            yield children(some)
            rng.bit_generator.state = before
            yield children(None)[some:]
        else:
            yield children(None)

    def report(generation: int, rows: _Rows) -> None:
        if on_generation is not None:
            on_generation(generation, as_genomes(rows.X), rows.F.copy(), rows.G.copy())

    given, given_keys = new_genomes(len(start), np.array([], dtype=object), lambda _: [start])
    missing = max(0, population - len(given))
    drawn, drawn_keys = new_genomes(missing, given_keys, lambda _: [sample(population, domain, rng)])
    X = np.vstack([given, drawn])
    evaluations = len(X)
    current = _survivors(evaluated(X, np.concatenate([given_keys, drawn_keys])), population, ranking, rng)
    generation = 1
    report(generation, current.rows)
    while generation < generations:
        X, X_keys = new_genomes(population, current.rows.keys, partial(offspring_of, current))
        if len(X) == 0:
            break  # exhausted: every further generation would be this one
        evaluations += len(X)
        current = _survivors(current.rows + evaluated(X, X_keys), population, ranking, rng)
        generation += 1
        report(generation, current.rows)

    last = current.rows
    best = last[_feasible_front(last)]
    return Result(
        X=as_genomes(best.X),
        F=best.F,
        G=best.G,
        population_X=as_genomes(last.X),
        population_F=last.F,
        population_G=last.G,
        evaluations=evaluations,
        generations=generation,
    )


@dataclass(frozen=True, eq=False)
class _Rows:
    """Evaluated genomes, row by row: X float64[n, V], F float64[n, M], G float64[n, K], keys bytes[n].

    The keys stay with their genomes: to make them again for every parent took as long as to rank them.
    """

    X: Floats
    F: Floats
    G: Floats
    keys: Keys

    def __add__(self, other: "_Rows") -> "_Rows":
        return _Rows(
            np.concatenate([self.X, other.X]),
            np.concatenate([self.F, other.F]),
            np.concatenate([self.G, other.G]),
            np.concatenate([self.keys, other.keys]),
        )

    def __getitem__(self, chosen: npt.NDArray[np.int64]) -> "_Rows":
        return _Rows(self.X[chosen], self.F[chosen], self.G[chosen], self.keys[chosen])


@dataclass(frozen=True, eq=False)
class _Population:
    """Survivors with what the tournament compares: rank int64[n], crowding float64[n]."""

    rows: _Rows
    rank: npt.NDArray[np.int64]
    crowding: Floats


def _survivors(
    rows: _Rows,
    count: int,
    ranking: Callable[[Floats, Floats], Floats] | None,
    rng: np.random.Generator,
) -> _Population:
    """Return the `count` best: whole fronts in the order of rank, and of the front that does not fit a part.

    That front loses its most crowded members one by one (`thin_front`), and the crowding distance the tournament
    goes by is that of the survivors. Deb et al. 2002, III-C, cut once instead; the front is then less even.
    Ties go by lot: rows are shuffled first, and what follows looks at them in that order.
    """
    F, G = rows.F, rows.G
    if ranking is None:
        criteria, violation = F, _violation(F, G)
    else:
        criteria = np.array(ranking(F.copy(), G.copy()), dtype=np.float64)
        if criteria.ndim != 2 or len(criteria) != len(F):
            raise InputError(f"ranking must return {len(F)} rows of objectives, got shape {criteria.shape}")
        failed = np.isnan(F).any(axis=1) | np.isnan(G).any(axis=1) | np.isnan(criteria).any(axis=1)
        violation = np.where(failed, np.inf, 0.0)
    lot = rng.permutation(len(F))
    criteria, violation = criteria[lot], violation[lot]
    rank = non_dominated_ranks(criteria, violation)
    # NumPy sorts integers of 8 and 16 bits by counting, ten times as quickly.
    best = np.argsort(rank.astype(np.min_scalar_type(rank.max())), kind="stable")[:count]
    last = rank[best[-1]]
    front = np.flatnonzero(rank == last)
    whole = best[rank[best] < last]
    best = np.concatenate([whole, front[thin_front(criteria[front], len(best) - len(whole))]])
    return _Population(rows[lot[best]], rank[best], crowding_distance(criteria[best], rank[best]))


def _tournament(
    population: _Population, pairs: int, rng: np.random.Generator
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the indices of both parents of every pair, each the better of two random members.

    Better: lower rank, then larger crowding distance, then by lot (Deb et al. 2002, III-B). Shuffles of the
    population are read four at a time, two opponents for each parent: everybody competes equally often, up to
    one time, and apart from the seams between shuffles nobody meets or mates itself.
    """
    size = len(population.rank)
    shuffles = [rng.permutation(size) for _ in range(-(-4 * pairs // size))]
    a, b = np.concatenate(shuffles)[: 4 * pairs].reshape(2 * pairs, 2).T
    rank, crowding = population.rank, population.crowding
    even = (rank[a] == rank[b]) & (crowding[a] == crowding[b])
    a_better = (rank[a] < rank[b]) | ((rank[a] == rank[b]) & (crowding[a] > crowding[b]))
    winners = np.where(a_better | (even & (rng.random(2 * pairs) < 0.5)), a, b)
    return winners[0::2], winners[1::2]


def _violation(F: Floats, G: Floats) -> Floats:
    """Return one violation per row: 0 where feasible, inf where failed.

    Constraints come in their own units. Each is divided by its largest violation among these rows (parents and
    offspring together) before they are added, so that none drowns the others.
    """
    amount = np.maximum(G, 0.0)
    largest = np.max(amount, axis=0, where=np.isfinite(amount), initial=0.0)
    total = np.where(np.isfinite(amount), amount / np.where(largest > 0, largest, 1.0), np.inf).sum(axis=1)
    return np.where(np.isnan(F).any(axis=1), np.inf, total)


def _feasible_front(rows: _Rows) -> npt.NDArray[np.int64]:
    """Return the indices of the rows that meet every constraint and are dominated by no other such row."""
    feasible = np.flatnonzero((rows.G <= 0).all(axis=1) & ~np.isnan(rows.F).any(axis=1))
    front = np.flatnonzero(non_dominated_ranks(rows.F[feasible], np.zeros(len(feasible))) == 0)
    return feasible[front]


def _starting_rows(initial: npt.ArrayLike | None, domain: Domain) -> Floats:
    """Return the given starting genomes as rows, checked against the domain."""
    if initial is None:
        return np.empty((0, domain.variables))
    rows = np.array(initial, dtype=np.float64)
    if rows.ndim != 2 or rows.shape[1] != domain.variables:
        raise InputError(f"initial must have shape (n, {domain.variables}), got {rows.shape}")
    for row in rows[(rows != domain.settle(rows)).any(axis=1)]:
        raise InputError(f"initial must lie in the bounds, whole where integer, got {row.tolist()}")
    return rows


def _table(name: str, values: Floats | None, rows: int, columns: int) -> Floats:
    """Return a copy of what `evaluate` gave, after a check of its shape."""
    table = np.array(np.nan if values is None else values, dtype=np.float64)
    if table.shape != (rows, columns):
        raise InputError(f"evaluate must return {name} with shape {(rows, columns)}, got {table.shape}")
    return table


def _check_counts(n_objectives: int, n_constraints: int, population: int, generations: int) -> None:
    for name, value, least in (
        ("n_objectives", n_objectives, 1),
        ("n_constraints", n_constraints, 0),
        ("population", population, 2),
        ("generations", generations, 1),
    ):
        if value < least:
            raise InputError(f"{name} must be >= {least}, got {value}")


def _check_operators(
    crossover: str, crossover_probability: float, crossover_eta: float, mutation: float, mutation_eta: float
) -> None:
    if crossover not in ("sbx", "two-point"):
        raise InputError(f'crossover must be "sbx" or "two-point", got {crossover!r}')
    for name, probability in (("crossover", crossover_probability), ("mutation", mutation)):
        if not 0 <= probability <= 1:
            raise InputError(f"{name}_probability must be in [0, 1], got {probability}")
    for name, eta in (("crossover", crossover_eta), ("mutation", mutation_eta)):
        if not (0 <= eta < np.inf):
            raise InputError(f"{name}_eta must be >= 0 and finite, got {eta}")
