"""NSGA-II finds known fronts, keeps its promises on odd inputs, and refuses what it documents."""

import numpy as np
import pytest

from nachos_min.errors import InputError
from nachos_min.nas.hypervolume import hypervolume
from nachos_min.nas.nsga2 import minimize

problems = pytest.importorskip("bench.problems", reason="an installed copy has no bench")
PROBLEMS = {problem.name: problem for problem in problems.PROBLEMS}


def solve(name, **options):
    problem = PROBLEMS[name]
    sizes = {"n_objectives": len(problem.reference), "n_constraints": problem.constraints}
    return minimize(problem.evaluate, lower=problem.lower, upper=problem.upper, **sizes, **options)


def parabolas(X):
    """Minima at 0 and 2 in every variable."""
    return np.column_stack([(X**2).sum(axis=1), ((X - 2) ** 2).sum(axis=1)])


def non_dominated(F):
    return [i for i, f in enumerate(F) if not ((f >= F).all(axis=1) & (f > F).any(axis=1)).any()]


def small(evaluate=parabolas, **options):
    """A short run on two variables in [-4, 4]."""
    settings = {"lower": [-4, -4], "upper": [4, 4], "n_objectives": 2, "population": 12, "generations": 5}
    return minimize(evaluate, **(settings | options))


@pytest.mark.parametrize(("name", "least"), [("ZDT1", 0.6599), ("BNH", 5252.8), ("TNK", 0.6485), ("ZDT6", 0.31)])
def test_hypervolume_after_250_generations(name, least):
    """Bounds of the last two are lower than the targets of the bench, because single seeds vary."""
    result = solve(name, seed=0)
    assert hypervolume(result.F, PROBLEMS[name].reference) >= least
    assert (result.evaluations, result.generations) == (25_000, 250)


@pytest.mark.parametrize("options", [{}, {"crossover": "two-point", "mutation_eta": 1.0}])
def test_the_exact_front_of_an_integer_space(options):
    """12**3 genomes, rough objectives, a constraint: every member is known, so the front is."""
    everything = np.indices((12, 12, 12)).reshape(3, -1).T
    weights = np.random.default_rng(5).random((12, 3, 2)).round(2)

    def evaluate(X):
        F = X.sum(axis=1, keepdims=True) * [1.0, -1.0] + sum(weights[X[:, v], v] for v in range(3))
        return F, (5 - np.abs(X[:, :1] - X[:, 1:2])) * 1.0

    F, G = evaluate(everything)
    feasible = F[(G <= 0).all(axis=1)]
    ends = {"lower": [0] * 3, "upper": [11] * 3, "integer": True, "n_constraints": 1}
    result = small(evaluate, **ends, population=150, generations=120, **options)
    assert result.X.dtype == np.int64
    np.testing.assert_array_equal(np.unique(result.F, axis=0), np.unique(feasible[non_dominated(feasible)], axis=0))


@pytest.mark.parametrize("others", [0, 1])
def test_one_objective_or_a_constant_one_beside_it(others):
    options = {"n_objectives": 1 + others, "generations": 80}
    (best,) = small(lambda X: np.c_[X**2 @ [1, 1], np.ones((len(X), others))], **options).F
    assert best[0] < 1e-3


def test_mixed_variables():
    result = small(integer=[True, False], generations=40, population=30)
    X = result.population_X
    assert X.dtype == np.float64
    assert (X[:, 0] % 1 == 0).all()
    assert (X[:, 1] % 1 != 0).mean() > 0.9
    assert set(result.X[:, 0]) == {0.0, 1.0, 2.0}


def test_the_result_is_feasible_and_non_dominated_and_the_best_of_its_population():
    result = solve("TNK", population=30, generations=15)
    assert (result.G <= 0).all()
    assert non_dominated(result.F) == list(range(len(result.F)))
    feasible = result.population_F[(result.population_G <= 0).all(axis=1)]
    np.testing.assert_array_equal(result.F, feasible[non_dominated(feasible)])
    for found, again in zip((result.F, result.G), PROBLEMS["TNK"].evaluate(result.X), strict=True):
        np.testing.assert_array_equal(found, again)


def test_the_seed_decides_everything():
    one = small(seed=3)
    for seed in (3, np.random.default_rng(3)):
        np.testing.assert_array_equal(one.population_X, small(seed=seed).population_X)
    assert not np.array_equal(one.population_X, small(seed=4).population_X)


@pytest.mark.parametrize("population", [2, 3, 7, 12])
@pytest.mark.parametrize("answer", [lambda F: F, lambda F: (F, None), lambda F: (F, np.empty((len(F), 0)))])
def test_every_population_size_is_kept_and_without_constraints_g_may_be_left_out(population, answer):
    result = small(lambda X: answer(parabolas(X)), population=population)
    assert (len(result.population_X), result.G.shape[1]) == (population, 0)
    assert (result.evaluations, result.generations) == (5 * population, 5)


def test_evaluate_may_reuse_its_arrays_and_change_its_input():
    buffer = np.empty((12, 2))

    def evaluate(X):
        buffer[: len(X)] = parabolas(X)
        X[:] = 99.0
        return buffer[: len(X)]

    np.testing.assert_array_equal(small(evaluate).F, small().F)


@pytest.mark.parametrize(("lower", "upper"), [((0, 0), (2, 3)), ((1, 1), (1, 1))])
def test_a_population_larger_than_the_space_holds_all_of_it(lower, upper):
    result = small(integer=True, lower=lower, upper=upper, population=40, generations=10)
    space = np.indices(np.subtract(upper, lower) + 1).reshape(2, -1).T + lower
    assert sorted(result.population_X.tolist()) == space.tolist()
    assert (result.evaluations, result.generations) == (len(space), 1)


def test_no_genome_is_twice_in_a_population():
    for generations in range(1, 16):
        result = small(integer=True, lower=[0, 0], upper=[4, 4], population=20, generations=generations)
        assert len(np.unique(result.population_X, axis=0)) == len(result.population_X) == 20
    minus_zero = small(lower=[0, 0], upper=[0, 0], initial=[[0.0, -0.0], [-0.0, 0.0]])
    assert len(minus_zero.population_X) == 1


def test_duplicates_are_judged_on_the_canonical_genome():
    """The second gene only counts where the first is 1: nine genomes, of which five differ."""
    evaluated = []

    def canonical(X):
        return np.column_stack([X[:, 0], np.where(X[:, 0] == 1, X[:, 1], 0)])

    def evaluate(X):
        evaluated.extend(map(tuple, canonical(X).tolist()))
        return parabolas(canonical(X))

    result = small(evaluate, integer=True, lower=[0, 0], upper=[2, 2], population=9, canonical=canonical)
    assert len(evaluated) == result.evaluations == 5
    assert set(evaluated) == {(0, 0), (1, 0), (1, 1), (1, 2), (2, 0)}


def test_failed_evaluations_rank_last_and_are_never_returned():
    def evaluate(X):
        F, G = parabolas(X), X[:, :1] - 3.0
        F[X[:, 0] < 0, 1] = np.nan
        F[X[:, 1] < -2] = -np.inf  # would dominate everything, were its constraint known
        G[X[:, 1] < -2] = np.nan
        return F, G

    result = small(evaluate, n_constraints=1, generations=20)
    assert len(result.F)
    assert np.isfinite(result.population_F).all()
    assert ((result.X[:, 0] >= 0) & (result.X[:, 1] >= -2)).all()


@pytest.mark.parametrize(("objectives", "violation"), [(0.0, 1.0), (np.nan, 0.0)])
def test_nothing_feasible_gives_an_empty_result(objectives, violation):
    result = small(lambda X: (parabolas(X) + objectives, np.full((len(X), 1), violation)), n_constraints=1)
    assert (result.X.shape, result.F.shape, result.G.shape) == ((0, 2), (0, 2), (0, 1))
    assert len(result.population_X) == 12


def test_boundary_points_survive():
    best = [small(generations=generations).population_F.min(axis=0) for generations in range(1, 30)]
    assert (np.diff(best, axis=0) <= 0).all()


def test_violations_are_normalised_per_constraint():
    """Millions of one unit do not drown hundredths of another; failures rank last."""
    G = {0: [2e6, 0.01], 1: [1e6, 0.02], 2: [1.9e6, 0.009], 3: [np.inf, 0.0], 4: [0.0, np.nan]}

    def evaluate(X):
        return np.zeros((len(X), 2)), np.array([G[x] for x in X[:, 0]])

    options = {"lower": [0], "upper": [4], "integer": True, "n_constraints": 2, "generations": 1}
    for population in (2, 3):
        result = small(evaluate, initial=np.arange(5)[:, None], population=population, **options)
        assert {2} < set(result.population_X[:, 0].tolist()) <= {0, 1, 2}


def test_ties_go_by_lot():
    rows = np.arange(20.0)[:, None] / 5
    options = {"lower": [0], "upper": [4], "population": 10, "generations": 1, "initial": rows}
    runs = [small(lambda X: X * [0, 0], **options, seed=seed).population_X[:, 0] for seed in range(10)]
    assert len({tuple(sorted(kept)) for kept in runs}) == 10


def test_initial_genomes_are_evaluated_first_and_completed_and_the_best_survive():
    batches = []

    def evaluate(X):
        batches.append(X)
        return parabolas(X)

    small(evaluate, initial=[[1, 1], [0, 2], [1, 1]])
    assert batches[0][:2].tolist() == [[1, 1], [0, 2]]
    assert len(np.unique(batches[0], axis=0)) == len(batches[0]) == 12
    result = small(initial=[[x, 3.9] for x in np.linspace(-4, 4, 30)] + [[1.0, 1.0]], generations=1)
    assert (result.evaluations, len(result.population_X)) == (31, 12)
    assert [1.0, 1.0] in result.population_X.tolist()


def test_a_ranking_replaces_constrained_domination():
    """Ranked by the reversed objectives, the search moves away from both minima; G decides the result alone."""
    options = {"n_constraints": 1, "generations": 30, "ranking": lambda F, _: -F}
    result = small(lambda X: (parabolas(X), X[:, :1]), **options)
    assert (np.abs(result.population_X) > 3.9).all()
    assert (result.G <= 0).all()


OUT_OF_RANGE = {"n_constraints": -1, "population": 1, "generations": 0, "seed": -1, "mutation_eta": np.inf}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_objectives": 0}, "n_objectives must be >= 1 and finite, got 0"),
        *(({name: value}, name) for name, value in OUT_OF_RANGE.items()),
        ({"crossover": "one-point"}, "crossover must be one of sbx, two-point, got 'one-point'"),
        ({"initial": [1, 1]}, r"initial must have shape \(n, 2\), got \(2,\)"),
        ({"initial": [[1, 5]]}, r"initial must lie in the bounds, whole where integer, got \[1.0, 5.0\]"),
        ({"initial": [[1, 0.5]], "integer": True}, "initial must lie in the bounds, whole"),
        ({"initial": [[1, np.nan]]}, "initial must lie in the bounds"),
        ({"n_objectives": 3}, r"evaluate \(F\) must return an array of shape \(12, 3\), got \(12, 2\)"),
        ({"n_constraints": 1}, r"evaluate \(G\)"),
        ({"canonical": lambda X: X[:, 0]}, "canonical must return"),
        ({"ranking": lambda F, _: F[:-1]}, "ranking must return"),
        ({"lower": [5, 5]}, "bounds must be finite with lower <= upper"),
    ],
)
def test_bad_arguments_are_named(options, message):
    with pytest.raises(InputError, match=message):
        small(**options)
