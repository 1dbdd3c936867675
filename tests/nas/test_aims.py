"""Expected gain against a simulated hypervolume, and the curves that a search predicts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

import nachos_min
from nachos_min.eenn.thresholds import measure
from nachos_min.errors import InputError
from nachos_min.nas.aims import Budgets
from nachos_min.nas.configuration import Configuration, configuration_of, load_problem
from nachos_min.nas.evaluate import Evaluation
from nachos_min.nas.gain import choose_by_gain
from nachos_min.nas.hypervolume import hypervolume
from nachos_min.nas.limits import Limits, StaticCheck
from nachos_min.nas.runs import stored_problem
from nachos_min.nas.surrogates.curves import SHARES, Curves, log_odds_at_shares
from nachos_min.nas.surrogates.gaussian_process import GaussianProcess
from nachos_min.nas.surrogates.objectives import Features
from nachos_min.nas.tabular import read_table

Array = np.ndarray
TABLE = Path(__file__).parents[2] / "bench" / "micro-digits.h5"


def area(accuracy: Array, budgets: Array, reference: float) -> float:
    """Hypervolume of a staircase, for accuracies that are 0 where nothing is reached."""
    reached = accuracy > 0
    return hypervolume(np.column_stack([1 - accuracy, budgets])[reached], (1.0, reference))


@settings(max_examples=60, derandomize=True, deadline=None)
@given(seed=st.integers(0, 10_000), budgets=st.integers(1, 6))
def test_without_doubt_the_gain_is_that_of_the_hypervolume(seed: int, budgets: int) -> None:
    """Of staircases that climb: candidates and the front reach no less where they may spend more."""
    rng = np.random.default_rng(seed)
    at, reference, limit = np.cumsum(rng.integers(1, 10, budgets)).astype(float), 100.0, 0.5
    best = np.maximum.accumulate(np.where(rng.random(budgets) < 0.5, 0, rng.uniform(limit, 1, budgets)))
    log_odds = -np.sort(rng.normal(0, 2, (7, budgets)), axis=1)
    log_odds[rng.random(7) < 0.3, 0] = np.inf
    accuracy = expit(-log_odds)
    accuracy[accuracy < limit] = 0
    widths = np.diff(at, append=reference)
    expected: list[int] = []
    for _ in range(3):
        before = np.max([best, *accuracy[expected]], axis=0)
        gains = [area(np.maximum(before, each), at, reference) - area(before, at, reference) for each in accuracy]
        chosen = choose_by_gain(log_odds, np.zeros_like(log_odds), best, widths, limit, len(expected) + 1)
        assert chosen[:-1] == expected
        free = [place for place in range(7) if place not in expected]
        assert gains[chosen[-1]] == pytest.approx(max(gains[place] for place in free), abs=1e-9)
        expected = chosen


def test_doubt_is_worth_something_where_the_mean_gains_nothing() -> None:
    best, widths = np.array([0.9]), np.array([1.0])
    log_odds, deviation = np.full((3, 1), -2.0), np.array([[0.1], [2.0], [0.5]])
    assert choose_by_gain(log_odds, deviation, best, widths, 0.5, 3)[:2] == [1, 2]


@pytest.fixture(scope="module")
def answered() -> tuple[Any, list[Evaluation]]:
    """The problem and some members of `micro`, trained."""
    problem = load_problem(Configuration("digits", "micro", Limits(20_000, 0.96), 0, aims="budgets"))
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
        correct, costs = found.tables.correct(labels), found.costs
        first = correct[:, 0].sum()
        assert log_odds[0] == pytest.approx(np.log((len(labels) - first + 0.5) / (first + 0.5)))
        for tried in rng.random((50, len(costs.exit_costs))):
            point = measure(found.tables.confidence, correct, costs.exit_costs, (*tried[:-1].tolist(), 0.0))
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


@pytest.mark.parametrize("max_macs", [20_000, None, 10**9])
def test_budgets_cover_what_can_be_gained(answered: Any, max_macs: int | None) -> None:
    _, evaluations = answered
    points = [point for found in evaluations for point in found.points()]
    aim = Budgets(Curves(Features(np.ones(1)), ()), Limits(max_macs, 0.96), points, 99_648)
    cheapest = min(found.costs.cheapest for found in evaluations)
    for others, first in (([], cheapest), ([cheapest - 1, 90_000], cheapest - 1), ([cheapest + 1], cheapest)):
        budgets = aim.budgets(np.array(others, np.int64), 16)
        assert (budgets[0], budgets[-1]) == (first, min(max_macs or 99_648, 99_648))
        assert np.ptp(budgets[1:] / budgets[:-1]) < 1e-9
        for budget, best in zip(budgets, aim.best(budgets), strict=True):
            inside = [p.validation.accuracy for p in points if p.validation.average_macs <= budget]
            assert best == max((accuracy for accuracy in inside if accuracy >= 0.96), default=0.0)


@pytest.fixture
def search(tmp_path: Path) -> Callable[..., Any]:
    def run(name: str = "run", **options: Any) -> Any:
        return nachos_min.search(space="micro", table=TABLE, evaluations=16, out=tmp_path / name, **options)

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
    before = load_problem(Configuration("digits", "micro", Limits(None, 0.5), 0))
    assert "aims" not in before.identity()
    assert configuration_of(before.identity()) == before.configuration


@pytest.mark.parametrize(
    ("options", "aims"),
    [({}, "budgets"), ({"points": "best"}, "ends"), ({"constraints": "adaptive-penalty"}, "ends")],
)
def test_what_needs_ends_gets_them(search: Callable[..., Any], tmp_path: Path, options: Any, aims: str) -> None:
    search(**options)
    assert stored_problem(tmp_path / "run").configuration.aims == aims


def test_aims_errors(search: Callable[..., Any]) -> None:
    message = "aims must be ends with points best and constraints domination, got 'budgets'"
    with pytest.raises(InputError, match=message):
        search(points="best", aims="budgets")
    with pytest.raises(InputError, match="aims must be one of ends, budgets, got 'middle'"):
        search(aims="middle")
