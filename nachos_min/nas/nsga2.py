"""NSGA-II: minimise several objectives at once, under constraints.

    population <- random genomes, or given ones completed by random ones
    repeat:
      parents    <- winners of binary tournaments: lower rank, then larger crowding distance
      offspring  <- crossover and mutation; duplicates are replaced
      population <- the best of population and offspring together

Source: Deb, Pratap, Agarwal, Meyarivan 2002, "A fast and elitist multiobjective genetic algorithm: NSGA-II", IEEE
Transactions on Evolutionary Computation 6(2). Different: the front that does not fit is thinned point by point.
"""

from collections.abc import Callable, Container
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from nachos_kernels.dominance import crowding_distance, non_dominated_ranks, thin_front
from nachos_min.errors import InputError
from nachos_min.nas.operators import CROSSOVERS, Domain, polynomial_mutation, sample, tournament

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]
Array = npt.NDArray[Any]  # genomes: int64 when every variable is an integer, else float64
Ranking = Callable[[Floats, Floats], Floats]

BARREN_TRIES = 20  # attempts without a new genome after which the space counts as exhausted


@dataclass(frozen=True, eq=False)
class Result:
    """X[n, V], F float64[n, M], G float64[n, K]: feasible non-dominated members of the last population."""

    X: Array
    F: Floats
    G: Floats
    population_X: Array  # all members
    population_F: Floats
    population_G: Floats
    evaluations: int
    generations: int  # fewer than requested if the space was exhausted


class _Rows(NamedTuple):
    """Evaluated genomes. Equal keys (bytes) are equal genomes."""

    X: Array
    F: Array
    G: Array
    keys: Array

    def at(self, chosen: Indices) -> "_Rows":
        return _Rows(*(column[chosen] for column in self))


def minimize(
    evaluate: Callable[[Array], tuple[Floats, Floats | None] | Floats],
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
    mutation_eta: float = 20.0,
    canonical: Callable[[Array], npt.NDArray[Any]] | None = None,
    ranking: Ranking | None = None,
) -> Result:
    """Return the feasible non-dominated genomes of the last population; equal arguments give equal results.

    Args:
        evaluate: returns (F, G) of genomes X[n, V]: F float[n, M] is minimised, G float[n, K] <= 0 is feasible;
            or F alone without constraints. A row with a NaN ranks last and is never feasible.
        lower, upper: float[V], inclusive bounds of every variable.
        integer: which variables are integers; one bool for all, or bool[V].
        n_objectives, n_constraints: M >= 1 and K >= 0.
        population: genomes kept, >= 2; fewer when the space has fewer.
        generations: >= 1; the initial population is the first.
        seed: a seed >= 0, or the generator to draw from.
        initial: rows to start from, completed by random ones; if there are too many the best survive.
        crossover: "sbx" (distribution index 15) or "two-point"; nine pairs of ten are crossed.
        mutation_eta: distribution index of polynomial mutation, >= 0; a gene mutates with probability 1 / V.
        canonical: maps genomes X[n, V] to n rows; genomes with equal rows are duplicates. None: the genomes.
        ranking: maps (F, G) to objectives float[n, M'] to rank by, in place of constrained domination.

    Raises:
        InputError: an argument is out of range, or a function returns arrays of another shape.

    >>> result = minimize(lambda X: np.hstack([X**2, (X - 2) ** 2]), lower=[-9], upper=[9], integer=True,
    ...                   n_objectives=2, population=20)
    >>> sorted(result.X[:, 0].tolist())
    [0, 1, 2]
    """
    domain = Domain(lower, upper, integer)
    least = {"n_objectives": 1, "n_constraints": 0, "population": 2, "generations": 1, "mutation_eta": 0, "seed": 0}
    values = n_objectives, n_constraints, population, generations, mutation_eta, seed
    for (name, low), value in zip(least.items(), values, strict=True):
        if not isinstance(value, np.random.Generator) and not low <= value < np.inf:
            raise InputError(f"{name} must be >= {low} and finite, got {value}")
    if crossover not in CROSSOVERS:
        raise InputError(f"crossover must be one of {', '.join(CROSSOVERS)}, got {crossover!r}")
    start, rng = domain.rows(initial), np.random.default_rng(seed)

    def genomes(X: Floats) -> Array:
        return X.astype(np.int64) if domain.integer.all() else X.copy()

    def new(count: int, known: Container[bytes], breed: Callable[[], Floats]) -> dict[bytes, Floats]:
        """Return up to `count` genomes made by `breed`, by key: no duplicates of `known` or each other."""
        found: dict[bytes, Floats] = {}
        barren = 0
        while len(found) < count and barren < BARREN_TRIES:
            before, children = len(found), breed()
            rows = genomes(children) if canonical is None else np.asarray(canonical(genomes(children)))
            _check_shape("canonical", rows, (len(children), -1))
            for child, row in zip(children, rows + 0, strict=True):  # + 0 turns -0.0 into 0.0
                key = row.tobytes()
                if len(found) < count and key not in known:
                    found.setdefault(key, child)
            barren = 0 if len(found) > before else barren + 1
        return found

    def evaluated(found: dict[bytes, Floats]) -> _Rows:
        X = np.array(list(found.values()))
        answer = evaluate(genomes(X))
        F, G = answer if isinstance(answer, tuple) else (answer, None)
        G = np.empty((len(X), 0)) if n_constraints == 0 else G
        _check_shape("evaluate (F)", F, (len(X), n_objectives))
        _check_shape("evaluate (G)", G, (len(X), n_constraints))
        return _Rows(X, np.array(F, np.float64), np.array(G, np.float64), np.array(list(found), object))

    def offspring() -> Floats:
        first, second = tournament(rank, crowding, (population + 1) // 2, rng)
        children = CROSSOVERS[crossover](parents.X[first], parents.X[second], domain, rng)
        return polynomial_mutation(np.concatenate(children), domain, rng, eta=mutation_eta)

    given = new(len(start), (), lambda: start)
    drawn = new(population - len(given), given, lambda: sample(population, domain, rng))
    parents, rank, crowding = _survivors(evaluated(given | drawn), population, ranking, rng)
    evaluations, generation = len(given) + len(drawn), 1
    while generation < generations and (children := new(population, {*parents.keys}, offspring)):
        both = _Rows(*map(np.concatenate, zip(parents, evaluated(children), strict=True)))
        parents, rank, crowding = _survivors(both, population, ranking, rng)
        evaluations, generation = evaluations + len(children), generation + 1

    feasible = np.flatnonzero((parents.G <= 0).all(axis=1) & ~np.isnan(parents.F).any(axis=1))
    best = parents.at(feasible[non_dominated_ranks(parents.F[feasible], np.zeros(len(feasible))) == 0])
    last = genomes(parents.X), parents.F, parents.G
    return Result(genomes(best.X), best.F, best.G, *last, evaluations, generation)


def _survivors(
    rows: _Rows, count: int, ranking: Ranking | None, rng: np.random.Generator
) -> tuple[_Rows, Indices, Floats]:
    """Return the `count` best, their ranks and crowding distances; rows are shuffled, so that ties go by lot."""
    criteria, violation = rows.F, _violation(rows.F, rows.G)
    if ranking is not None:
        criteria = np.array(ranking(rows.F.copy(), rows.G.copy()), dtype=np.float64)
        _check_shape("ranking", criteria, (len(rows.F), -1))
        failed = np.isnan(np.hstack([rows.F, rows.G, criteria])).any(axis=1)
        violation = np.where(failed, np.inf, 0.0)
    lot = rng.permutation(len(criteria))
    criteria, violation = criteria[lot], violation[lot]
    rank = non_dominated_ranks(criteria, violation)
    best = np.argsort(rank, kind="stable")[:count]
    last = rank[best[-1]]
    kept, front = best[rank[best] < last], np.flatnonzero(rank == last)
    best = np.concatenate([kept, front[thin_front(criteria[front], len(best) - len(kept))]])
    return rows.at(lot[best]), rank[best], crowding_distance(criteria[best], rank[best])


def _violation(F: Floats, G: Floats) -> Floats:
    """Return one violation per row, each constraint divided by its largest; 0: feasible, inf: failed."""
    amount = np.maximum(G, 0.0)
    largest = np.max(amount, axis=0, where=np.isfinite(amount), initial=0.0)
    total = np.where(np.isfinite(amount), amount / np.where(largest > 0, largest, 1.0), np.inf).sum(axis=1)
    return np.where(np.isnan(F).any(axis=1), np.inf, total)


def _check_shape(source: str, values: Any, shape: tuple[int, int]) -> None:
    """Raise InputError unless `values` have `shape`, -1 being any number of columns."""
    found = np.shape(values)
    if len(found) != 2 or found[0] != shape[0] or shape[1] not in (-1, found[1]):
        raise InputError(f"{source} must return an array of shape {shape}, got {found}")
