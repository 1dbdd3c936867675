"""Aims of a search: predicted curves, expected gain, and the choice of k that is spread most evenly."""

from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

import nachos_min
from nachos_min.eenn.recipes import PaperRecipe
from nachos_min.nas import aims
from nachos_min.nas.configuration import AS_BEFORE, Configuration, load_problem
from nachos_min.nas.limits import Limits, StaticCheck
from nachos_min.nas.surrogates.smooth import GaussianProcess
from nachos_min.nas.tabular import read_table

BUDGETS = {name: value for name, value in AS_BEFORE.items() if name != "max_exits"}
BUDGETS |= {"points": "curve", "aims": "budgets", "surrogate": "gp", "features": "costs"}
TABLE = Path(__file__).parents[2] / "bench" / "micro-digits-paper.h5"

LIMITS = Limits(20_000, 0.96)
Array = np.ndarray


class Answered:
    """Some members of `micro`, trained."""

    def __init__(self) -> None:
        self.problem = load_problem(Configuration("digits", "micro", LIMITS, 0, recipe=PaperRecipe(), **BUDGETS))
        table, coder = read_table(TABLE), self.problem.coder
        members = [genome for genome in table.members if any(genome[coder.exit_genes])]
        self.evaluations = [table.answer(self.problem, genome) for genome in members[::40]]
        self.labels = self.problem.dataset.validation.labels
        self.genomes = np.array([found.genome for found in self.evaluations])
        self.costs, _ = StaticCheck(coder, Limits(None, 0.0)).population(self.genomes)
        self.log_odds = np.array([aims.log_odds_at_shares(found, self.labels) for found in self.evaluations])

    def models(self, targets: Array) -> tuple[Any, ...]:
        features = aims.Features(self.problem.coder.upper)
        X, gp = features(self.genomes, self.costs), GaussianProcess()
        return features, aims.fit_models(X, list(targets.T), np.random.default_rng(0), [gp])


@pytest.fixture(scope="module")
def answered() -> Answered:
    return Answered()


def test_log_odds_are_of_the_best_thresholds_within_each_share(answered: Answered) -> None:
    labels, rng = answered.labels, np.random.default_rng(0)
    for found, log_odds in zip(answered.evaluations, answered.log_odds, strict=True):
        assert (np.diff(log_odds) <= 0).all()
        costs = found.costs
        policy = found.tables.policy_tables(labels, costs.exit_costs)
        first = policy.correct[:, 0].sum()
        assert log_odds[0] == pytest.approx(np.log((len(labels) - first + 0.5) / (first + 0.5)))
        for tried in rng.random((50, len(costs.exit_costs))):
            point = policy.figures((*tried[:-1].tolist(), 0.0))
            spent = (point.total_macs / len(labels) - costs.cheapest) / (costs.worst_macs - costs.cheapest)
            reached = log_odds[np.array(aims.SHARES) >= spent]
            odds = (len(labels) - point.correct + 0.5) / (point.correct + 0.5)
            assert (reached <= np.log(odds) + 1e-12).all()


def test_budgets_predict_what_they_learnt(answered: Answered) -> None:
    genomes, costs = answered.genomes, answered.costs
    flat = np.repeat(answered.log_odds.mean(axis=0)[None], len(genomes), axis=0)
    fitted = answered.models(flat)
    for place in range(len(genomes)):
        cheapest, worst = int(costs.cheapest[place]), int(costs.worst_macs[place])
        within = np.array([cheapest - 1, *(cheapest + np.array(aims.SHARES) * (worst - cheapest)), 2 * worst])
        aim = aims.Budgets(*fitted, within, np.zeros(len(within)), 0.9)
        predicted, missed = aim.log_odds(genomes[[place]], costs[[place]])
        np.testing.assert_allclose(predicted[0], [np.inf, *flat[0], flat[0, -1]])
        np.testing.assert_allclose(missed, 0, atol=1e-12)


def test_objectives_and_constraints(answered: Answered) -> None:
    genomes, costs = answered.genomes, answered.costs
    admissible = np.arange(len(genomes)) % 2 == 0
    within = np.array([costs.cheapest.max(), 30_000, 40_000]).astype(float)
    reached = np.array([aims.ends_of(found) for found in answered.evaluations])
    budgets = aims.Budgets(*answered.models(answered.log_odds), within, np.zeros(3), 0.96)
    for aim in (budgets, aims.Ends(*answered.models(reached), LIMITS, np.zeros(1))):
        F, G = aim.predict(genomes, costs, admissible)
        assert (F.shape, G.shape) == ((len(genomes), aim.objectives), (len(genomes), aim.constraints))
        assert np.isnan(F[~admissible]).all()
        np.testing.assert_array_equal(G[:, -1], np.where(admissible, -1, 1))
        F, short = F[admissible], G[admissible, 0]
        if aim is budgets:
            np.testing.assert_array_equal(short, F[:, 2] - (1 - 0.96))
        else:
            np.testing.assert_array_equal(short, F[:, 1] / 20_000 - 1)
            assert ((F[:, 1] >= costs.cheapest[admissible]) & (F[:, 1] <= costs.worst_macs[admissible])).all()


@pytest.mark.parametrize(("max_macs", "most"), [(20_000, 20_000), (None, 99_648), (10**9, 99_648)])
def test_budgets_are_shares_of_the_limit(max_macs: int | None, most: int) -> None:
    assert Limits(max_macs, 0.96).budgets(99_648) == (most / 2, 3 * most / 4, most)


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
        chosen = aims.choose_by_gain(log_odds, np.zeros_like(log_odds), best, limit, len(expected) + 1)
        assert chosen[:-1] == expected
        free = [place for place in range(7) if place not in expected]
        assert gains[chosen[-1]] == pytest.approx(max(gains[place] for place in free), abs=1e-12)
        expected = chosen


def test_doubt_is_worth_something_where_the_mean_gains_nothing() -> None:
    log_odds, deviation = np.full((3, 1), -2.0), np.array([[0.1], [2.0], [0.5]])
    assert aims.choose_by_gain(log_odds, deviation, np.array([0.9]), 0.5, 3)[:2] == [1, 2]


# Few distinct values on purpose: ties and duplicates are where a choice goes wrong.
values = st.one_of(st.integers(0, 12).map(float), st.floats(-1e6, 1e6, allow_subnormal=False))


def unevenness(front: Array, chosen: Array) -> float:
    gaps = np.diff(np.sort(np.concatenate([front, chosen])))
    return float(np.std(gaps)) if len(gaps) else 0.0


@settings(max_examples=200, derandomize=True, deadline=None)
@given(st.data())
def test_no_choice_is_more_even(data: st.DataObject) -> None:
    front = np.array(data.draw(st.lists(values, max_size=5)), dtype=float)
    candidates = np.array(data.draw(st.lists(values, min_size=1, max_size=7)), dtype=float)
    k = data.draw(st.integers(0, len(candidates)))
    chosen = aims.choose_evenly(front, candidates, k)
    assert len(chosen) == k
    assert chosen == sorted(set(chosen))
    scale = np.ptp(np.concatenate([front, candidates])) or 1.0
    best = min(unevenness(front, candidates[list(c)]) for c in combinations(range(len(candidates)), k))
    # The walk compares variances in units of the range, so that is the scale of its rounding.
    assert (unevenness(front, candidates[chosen]) / scale) ** 2 <= (best / scale) ** 2 + 1e-12


def test_an_even_choice_does_not_depend_on_order_or_unit() -> None:
    rng = np.random.default_rng(1)
    front, candidates, shuffle = rng.random(10), rng.random(30), rng.permutation(30)
    chosen = aims.choose_evenly(front, candidates, 6)
    assert sorted(shuffle[aims.choose_evenly(front[::-1], candidates[shuffle], 6)]) == chosen
    assert aims.choose_evenly(1e9 * front, 1e9 * candidates, 6) == chosen


@pytest.mark.parametrize("seed", [0, 1])
def test_a_search_for_budgets_is_better_than_chance(seed: int, tmp_path: Path) -> None:
    given: dict[str, Any] = {"space": "micro", "max_macs": 30_000, "min_accuracy": 0.95, "seed": seed}
    given |= {"recipe": "paper", "standardise": "pixel", "aims": "budgets", "table": TABLE, "evaluations": 24}
    found, drawn = (nachos_min.search(method=name, out=tmp_path / name, **given) for name in ("nachos", "random"))
    assert found.hypervolume_admissible > drawn.hypervolume_admissible


def test_adaptive_penalty() -> None:
    F = np.array([[0.1, 50.0], [0.2, 150.0], [0.3, 100.0], [0.4, 10.0]])
    G = np.array([[-1.0, -1.0, -1.0]] * 3 + [[-1.0, -1.0, 1.0]])
    ranked = aims.AdaptivePenalty(max_macs=100, penalty=1000.0)(F, G)
    assert ranked[:3].T.tolist() == [[0.1, 0.2, 0.3], [0.75 * 50, 0.75 * 150 + 0.25 * 1000 * 50, 0.75 * 100]]
    assert (ranked[3] > ranked[:3]).all()  # inadmissible by static count: behind all
