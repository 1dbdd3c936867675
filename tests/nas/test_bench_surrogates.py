"""The benchmark of surrogates asks them what a search asks them."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from nachos_min.nas import aims
from nachos_min.nas.populations import PopulationCosts
from nachos_min.nas.surrogates.surrogate import adaptive_switching

intervals = pytest.importorskip("bench.intervals", reason="an installed copy has no bench")
COUNT = 40


@pytest.fixture
def taus(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, list[float]]]:
    monkeypatch.syspath_prepend(str(Path(intervals.__file__).parent))  # scripts find each other in their folder
    from bench.bench_surrogates import taus

    return taus


def members(between: int) -> Any:
    """Eighty members that spend anything from `between` MACs below the worst path to all of it."""
    rng = np.random.default_rng(0)
    worst = rng.integers(1_000, 5_000, 80)
    columns = np.column_stack([worst - between, worst])
    none = np.zeros(80, np.int64)
    genomes = rng.integers(0, 3, (80, 6))
    return SimpleNamespace(
        genomes=genomes,
        costs=PopulationCosts(np.ones((80, 2), bool), columns, none, none, none),
        features={"genes": genomes / 2},
        macs=worst - between * rng.random(80),
        error=rng.random(80),
    )


class Guess:
    """A surrogate that says the same of everything."""

    name = "guess"

    def fit_each(self, *asked: Any) -> list[Any]:
        return [SimpleNamespace(predict=lambda rows: np.full(len(rows), -1.0)) for _ in asked[2]]


def test_average_macs_stay_between_what_the_cheapest_and_the_worst_path_cost(
    taus: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aims, "SURROGATES", (Guess(),))
    asked = members(between=0)  # who is told the bounds need not be told more
    assert taus(asked, "MACs by exact cost_E", "genes", COUNT, 0)["guess"] == [1.0, 1.0]
    assert taus(asked, "MACs as they are", "genes", COUNT, 0)["guess"] == [0.0, 0.0]


@pytest.mark.parametrize("seed", range(4))
def test_switching_takes_the_one_that_a_search_takes(taus: Any, seed: int) -> None:
    asked = members(between=900)
    rng = np.random.default_rng([seed, COUNT])
    sample = rng.permutation(80)[:COUNT]
    share = asked.macs / asked.costs.worst_macs
    winner = adaptive_switching(asked.features["genes"][sample], share[sample], rng, aims.SURROGATES).name
    found = taus(asked, "MACs by exact cost_E", "genes", COUNT, seed)
    assert found["switching"] == found[winner]
    assert len({tuple(each) for each in found.values()}) == 3, "else any would do"
