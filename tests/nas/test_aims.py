"""Expected gain against a simulated hypervolume, and the curves that a search predicts."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

import nachos_min
from nachos_min.eenn.recipes import PaperRecipe
from nachos_min.errors import InputError
from nachos_min.nas.aims import Budgets
from nachos_min.nas.configuration import AS_BEFORE, Configuration, configuration_of, load_problem
from nachos_min.nas.evaluate import Evaluation
from nachos_min.nas.gain import choose_by_gain
from nachos_min.nas.limits import Limits, StaticCheck
from nachos_min.nas.runs import stored_problem
from nachos_min.nas.surrogates.curves import SHARES, Curves, log_odds_at_shares
from nachos_min.nas.surrogates.gaussian_process import GaussianProcess
from nachos_min.nas.surrogates.objectives import Features
from nachos_min.nas.tabular import read_table

BUDGETS = AS_BEFORE | {"points": "curve", "aims": "budgets", "surrogate": "gp", "features": "costs"}
TABLE = Path(__file__).parents[2] / "bench" / "micro-digits-paper.h5"


@settings(max_examples=60, derandomize=True, deadline=None)
@given(seed=st.integers(0, 10_000), budgets=st.integers(1, 6))
def test_without_doubt_the_gain_is_what_the_best_accuracies_rise_by(seed: int, budgets: int) -> None:
    rng, limit = np.random.default_rng(seed), 0.5
    best = np.maximum.accumulate(np.where(rng.random(budgets) < 0.5, 0, rng.uniform(limit, 1, budgets)))
    log_odds = -np.sort(rng.normal(0, 2, (7, budgets)), axis=1)
    log_odds[rng.random(7) < 0.3, 0] = np.inf
    accuracy = expit(-log_odds)
    accuracy[accuracy < limit] = 0
    expected: list[int] = []
    for _ in range(3):
        before = np.max([best, *accuracy[expected]], axis=0)
        gains = [sum(max(0.0, a - b) for a, b in zip(each, before, strict=True)) for each in accuracy]
        chosen = choose_by_gain(log_odds, np.zeros_like(log_odds), best, limit, len(expected) + 1)
        assert chosen[:-1] == expected
        free = [place for place in range(7) if place not in expected]
        assert gains[chosen[-1]] == pytest.approx(max(gains[place] for place in free), abs=1e-12)
        expected = chosen


def test_doubt_is_worth_something_where_the_mean_gains_nothing() -> None:
    log_odds, deviation = np.full((3, 1), -2.0), np.array([[0.1], [2.0], [0.5]])
    assert choose_by_gain(log_odds, deviation, np.array([0.9]), 0.5, 3)[:2] == [1, 2]


@pytest.fixture(scope="module")
def answered() -> tuple[Any, list[Evaluation]]:
    """The problem and some members of `micro`, trained."""
    problem = load_problem(
        Configuration("digits", "micro", Limits(20_000, 0.96), 0, recipe=PaperRecipe(), **BUDGETS)
    )
    table = read_table(TABLE)
    members = [genome for genome in table.members if any(genome[problem.coder.exit_genes])]
    return problem, [table.answer(problem, genome) for genome in members[::40]]


def test_log_odds_are_of_the_best_thresholds_within_each_share(answered: Any) -> None:
    problem, evaluations = answered
    labels = problem.dataset.validation.labels
    rng = np.random.default_rng(0)
    for found in evaluations:
        log_odds = log_odds_at_shares(found, labels)
        assert (np.diff(log_odds) <= 0).all()
        costs = found.costs
        policy = found.tables.policy_tables(labels, costs.exit_costs)
        first = policy.correct[:, 0].sum()
        assert log_odds[0] == pytest.approx(np.log((len(labels) - first + 0.5) / (first + 0.5)))
        for tried in rng.random((50, len(costs.exit_costs))):
            point = policy.figures((*tried[:-1].tolist(), 0.0))
            spent = (point.total_macs / len(labels) - costs.cheapest) / (costs.worst_macs - costs.cheapest)
            reached = log_odds[np.array(SHARES) >= spent]
            odds = (len(labels) - point.correct + 0.5) / (point.correct + 0.5)
            assert (reached <= np.log(odds) + 1e-12).all()


def test_curves_predict_what_they_learnt(answered: Any) -> None:
    problem, evaluations = answered
    labels, coder = problem.dataset.validation.labels, problem.coder
    genomes = np.array([found.genome for found in evaluations])
    costs, _ = StaticCheck(coder, Limits(None, 0.0)).population(genomes)
    log_odds = np.array([log_odds_at_shares(found, labels) for found in evaluations])
    flat = np.repeat(log_odds.mean(axis=0)[None], len(genomes), axis=0)
    rng = np.random.default_rng(0)
    curves = Curves.fit(Features(coder.upper), genomes, costs, flat, rng, surrogates=[GaussianProcess()])
    for place in range(len(genomes)):
        cheapest, worst = int(costs.cheapest[place]), int(costs.worst_macs[place])
        budgets = np.array([cheapest - 1, *(cheapest + np.array(SHARES) * (worst - cheapest)), 2 * worst])
        predicted, missed = curves.log_odds(genomes[[place]], costs[[place]], budgets)
        expected = [np.inf, *flat[0], flat[0, -1]]
        np.testing.assert_allclose(predicted[0], expected)
        np.testing.assert_allclose(missed, 0, atol=1e-12)


def test_errors_are_predicted_within_budgets_and_short_of_the_limit_at_the_last(answered: Any) -> None:
    problem, evaluations = answered
    genomes = np.array([found.genome for found in evaluations])
    costs, _ = StaticCheck(problem.coder, Limits(None, 0.0)).population(genomes)
    log_odds = np.array([log_odds_at_shares(found, problem.dataset.validation.labels) for found in evaluations])
    curves = Curves.fit(
        Features(problem.coder.upper),
        genomes,
        costs,
        log_odds,
        np.random.default_rng(0),
        surrogates=[GaussianProcess()],
    )
    budgets = np.array([costs.cheapest.max(), 30_000, 40_000]).astype(float)
    admissible = np.arange(len(genomes)) % 2 == 0
    F, G = Budgets(curves, budgets, np.zeros(3), 0.96).predict(genomes, costs, admissible)
    assert (F.shape, G.shape) == ((len(genomes), Budgets.objectives), (len(genomes), Budgets.constraints))
    assert np.isnan(F[~admissible]).all()
    np.testing.assert_array_equal(G[admissible, 0], F[admissible, 2] - (1 - 0.96))
    np.testing.assert_array_equal(G[:, 1], np.where(admissible, -1, 1))


@pytest.mark.parametrize(("max_macs", "most"), [(20_000, 20_000), (None, 99_648), (10**9, 99_648)])
def test_budgets_are_shares_of_the_limit(max_macs: int | None, most: int) -> None:
    assert Limits(max_macs, 0.96).budgets(99_648) == (most / 2, 3 * most / 4, most)


@pytest.fixture
def search(tmp_path: Path) -> Callable[..., Any]:
    def run(name: str = "run", **options: Any) -> Any:
        given = {"recipe": "paper", "standardise": "pixel", "aims": "budgets", "table": TABLE, "evaluations": 24}
        return nachos_min.search(space="micro", out=tmp_path / name, **(given | options))

    return run


def test_a_search_for_budgets_is_better_than_chance(search: Callable[..., Any]) -> None:
    limits = {"max_macs": 30_000, "min_accuracy": 0.95}
    for seed in (0, 1):
        found, drawn = (search(f"{m}{seed}", method=m, seed=seed, **limits) for m in ("nachos", "random"))
        assert found.hypervolume_admissible > drawn.hypervolume_admissible


def test_stored_runs_name_the_aims_that_are_new(answered: Any) -> None:
    problem, _ = answered
    identity = problem.identity()
    assert identity["aims"] == "budgets"
    assert configuration_of(identity) == problem.configuration
    before = load_problem(replace(problem.configuration, aims="ends", surrogate="switching", features="genes"))
    assert "aims" not in before.identity()
    assert configuration_of(before.identity()) == before.configuration


@pytest.mark.parametrize(
    ("options", "aims"),
    [({}, "budgets"), ({"points": "best"}, "ends"), ({"constraints": "adaptive-penalty"}, "ends")],
)
def test_what_needs_ends_gets_them(search: Callable[..., Any], tmp_path: Path, options: Any, aims: str) -> None:
    quick = {"recipe": "deep", "aims": None, "table": None, "evaluations": 1, "finalists": 0, "epochs": 1}
    search(**(quick | options))
    assert stored_problem(tmp_path / "run").configuration.aims == aims


def test_aims_errors(search: Callable[..., Any]) -> None:
    message = "aims must be ends with points best and constraints domination, got 'budgets'"
    with pytest.raises(InputError, match=message):
        search(points="best", aims="budgets")
    with pytest.raises(InputError, match="aims must be one of ends, budgets, got 'middle'"):
        search(aims="middle")
