"""What makes NSGA-II quick leaves its answer alone: the same search with each shortcut taken out, bit for bit."""

import numpy as np
import pytest

from nachos_min.nas import nsga2
from nachos_min.nas.nsga2 import minimize
from nachos_min.nas.operators import polynomial_mutation, sbx


def _behind(F, violation, i, j):
    """Whether i dominates j (Deb et al. 2002, Definition 1)."""
    if violation[i] > 0 or violation[j] > 0:
        return violation[i] < violation[j]
    return (F[i] <= F[j]).all() and (F[i] < F[j]).any()


@pytest.mark.parametrize("crossover", ["sbx", "two-point"])
def test_a_litter_made_in_parts_is_the_litter(monkeypatch, crossover):
    """On few genomes most litters are searched to their end, some only at their beginning."""

    def run():
        rng = np.random.default_rng(1)
        result = minimize(
            lambda X: np.column_stack([(X**2).sum(axis=1), ((X - 2) ** 2).sum(axis=1)]),
            lower=[0] * 3,
            upper=[5] * 3,
            integer=True,
            n_objectives=2,
            population=40,
            generations=30,
            seed=rng,
            crossover=crossover,
            mutation_eta=1.0,
        )
        return result.population_X, rng.random()

    parts = []

    def watched(X, *arguments, among=None, **options):
        parts.append(len(X))
        return polynomial_mutation(X, *arguments, among=among, **options)

    def whole(X, *arguments, among=None, **options):
        """All children are mutated, those not asked for being anything, and cut afterwards."""
        padded = np.concatenate([X, np.zeros((among - len(X), X.shape[1]))])
        return polynomial_mutation(padded, *arguments, **options)[: len(X)]

    monkeypatch.setattr(nsga2, "polynomial_mutation", watched)
    one, state = run()
    assert 40 in parts
    assert min(parts) < 20
    monkeypatch.setattr(nsga2, "polynomial_mutation", whole)
    monkeypatch.setattr(nsga2, "sbx", lambda *arguments, **options: sbx(*arguments, **options | {"only": None}))
    same, same_state = run()
    np.testing.assert_array_equal(one, same)
    assert state == same_state


@pytest.mark.parametrize("objectives", [2, 3])
def test_a_population_is_ranked_as_one_by_one_comparison_does(monkeypatch, objectives):
    """The whole search, with the readable sort by comparison of all pairs in place of the quick one."""

    def run():
        def evaluate(X):
            F = np.column_stack([((X - m) ** 2).sum(axis=1).round(1) for m in range(objectives)])
            return F, 1.0 - np.abs(X[:, :1])

        settings = {"n_objectives": objectives, "n_constraints": 1, "population": 12, "generations": 12}
        return minimize(evaluate, lower=[-4, -4], upper=[4, 4], **settings).population_X

    def by_comparison(F, violation):
        behind = np.array([[_behind(F, violation, i, j) for i in range(len(F))] for j in range(len(F))])
        ranks = np.zeros(len(F), dtype=np.int64)
        for _ in range(len(F)):
            ranks = np.array([max([0, *(ranks[row] + 1)]) for row in behind])
        return ranks

    quick = run()
    monkeypatch.setattr(nsga2, "non_dominated_ranks", by_comparison)
    np.testing.assert_array_equal(run(), quick)
