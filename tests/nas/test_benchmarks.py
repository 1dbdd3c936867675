"""The benchmarks: intervals, a results file that was cut, and surrogates under the same inputs as in a search."""

from collections.abc import Callable
from math import isnan
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from nachos_min.nas import aims
from nachos_min.nas.populations import PopulationCosts
from nachos_min.nas.surrogates.surrogate import adaptive_switching

pytest.importorskip("bench.intervals", reason="an installed copy has no bench")

from bench import intervals
from bench.intervals import gain_at_equal_macs, mean_interval, median_interval, paired_interval
from bench.method_runs import Job, Results

COUNT = 40


def test_a_mean_has_the_interval_of_student() -> None:
    found = mean_interval([1.0, 2.0, 3.0, 4.0])
    assert (found.value, found.low, found.high) == pytest.approx((2.5, 2.5 - 2.0543, 2.5 + 2.0543), abs=1e-4)
    assert found.text(1) == "2.5 (0.4..4.6)"
    assert found.text(0, 100, "+") == "+250 (+45..+455)"
    one = mean_interval([3.0])
    assert isnan(one.low)
    assert one.text(1) == "3.0"


def test_differences_are_taken_seed_by_seed_and_training_by_training() -> None:
    found = paired_interval([11.0, 21.0, 31.0], [10.0, 20.0, 30.0])
    assert (found.value, found.low, found.high) == (1.0, 1.0, 1.0)
    values, base = [2.0, 4.0, 2.2, 4.2, 1.8, 3.8], [1.0] * 6
    found = paired_interval(values, base, [0, 1, 0, 1, 0, 1])
    assert found.value == pytest.approx(2.0)
    assert found.high - found.value == pytest.approx(12.706, abs=1e-3)  # t of one degree of freedom, error 1
    assert found.high > paired_interval(values, base).high


def test_a_median_lies_within_its_interval() -> None:
    rng = np.random.default_rng(0)
    found = median_interval(rng.normal(5.0, 1.0, 40).tolist(), rng)
    assert 4.0 < found.low < found.value < found.high < 6.0
    assert median_interval([2.0, 2.0], rng).low == 2.0


def test_fronts_are_compared_where_both_have_networks() -> None:
    base = [(30.0, 0.9), (10.0, 0.7), (20.0, 0.8)]
    assert gain_at_equal_macs([(15.0, 0.85), (25.0, 0.95)], base) == pytest.approx(0.1)
    assert gain_at_equal_macs([(20.0, 0.9)], base) == pytest.approx(0.1)
    assert gain_at_equal_macs([(40.0, 1.0)], base) is None
    assert gain_at_equal_macs([], base) is None


def test_a_results_file_that_was_cut_goes_on(tmp_path: Path) -> None:
    file = tmp_path / "runs" / "results.jsonl"
    jobs = [Job({"seed": seed, "beta": 1.0}, "here.h5", "abc") for seed in range(3)]
    results = Results(file)
    for place, job in enumerate(jobs[:2]):
        results.add(job.key, {"hypervolume": [0.1, place]})
    file.write_bytes(file.read_bytes()[:-5])
    again = Results(file)
    assert list(again.records) == [jobs[0].key]
    again.add(jobs[2].key, {"hypervolume": []})
    assert list(Results(file).records) == [jobs[0].key, jobs[2].key]


def test_a_search_is_known_by_what_was_asked_and_not_by_where_the_table_lies() -> None:
    asked = {"seed": 1, "beta": 1.0}
    assert Job(asked, "here.h5", "abc").key == Job(dict(reversed(asked.items())), "there.h5", "abc").key
    assert Job(asked, "here.h5", "abc").key != Job(asked, "here.h5", "def").key
    assert Job(asked, "here.h5", "abc").key != Job(asked | {"seed": 2}, "here.h5", "abc").key


@pytest.fixture
def taus(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, list[float]]]:
    monkeypatch.syspath_prepend(str(Path(intervals.__file__).parent))  # scripts find each other in their folder
    from bench.bench_surrogates import taus

    return taus


def members(between: int) -> Any:
    """Eighty members that spend anything from `between` MACs below the worst path to all of it."""
    rng = np.random.default_rng(0)
    worst = rng.integers(1_000, 5_000, 80)
    columns, none = np.column_stack([worst - between, worst]), np.zeros(80, np.int64)
    genomes = rng.integers(0, 3, (80, 6))
    return SimpleNamespace(
        genomes=genomes,
        costs=PopulationCosts(np.ones((80, 2), bool), columns, none, none, none),
        features={"genes": genomes / 2},
        macs=worst - between * rng.random(80),
        error=rng.random(80),
    )


def test_average_macs_stay_between_both_paths(taus: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    constant = SimpleNamespace(predict=lambda rows: np.full(len(rows), -1.0))
    guess = SimpleNamespace(name="guess", fit_each=lambda *asked: [constant] * len(asked[2]))
    monkeypatch.setattr(aims, "SURROGATES", (guess,))
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
