"""The archive and what is derived from it: exact, and the same in whatever order candidates were found."""

import json
from dataclasses import fields, replace
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nachos_min.eenn.costs import StaticCosts, static_costs
from nachos_min.eenn.inference import ExitTables
from nachos_min.eenn.intervals import wilson_interval
from nachos_min.eenn.recipes import PaperRecipe
from nachos_min.nas.configuration import (
    CHOICES,
    Configuration,
    ConfigurationError,
    Problem,
    configuration_of,
    load_problem,
)
from nachos_min.nas.evaluate import Evaluation, Failure, Measure
from nachos_min.nas.limits import Limits
from nachos_min.nas.result import Archive, SearchResult, result_of
from nachos_min.store import create_or_open, open_run

PROBLEM = load_problem(Configuration("digits", "micro", Limits(30_000, 0.5), 0, points="best"))


def found(genome: int, correct: int, total_macs: int, params: int = 10) -> Evaluation:
    """An evaluation with these figures, of 100 samples."""
    return Evaluation(
        genome=(genome,),
        exits=(1, 3),
        thresholds=(0.5, 0.0),
        costs=StaticCosts((10_000, 60_000), params, 64),
        validation=Measure(correct, 100, (50, 50), total_macs),
        test=Measure(correct - 1, 100, (40, 60), total_macs + 7),
        tables=ExitTables(np.ones((1, 2)), np.ones((1, 2), np.int64)),
        losses=(1.0,),
        weights={},
    )


BEST, CHEAP, DOMINATED = found(1, 90, 2_500_000), found(2, 70, 1_000_000), found(3, 69, 1_000_001)
TWIN, DEAR, WRONG = found(0, 70, 1_000_000), found(4, 99, 3_000_001), found(5, 49, 900_000)
ALL = (BEST, CHEAP, DOMINATED, TWIN, DEAR, WRONG)


def result(archive: Archive, problem: Problem = PROBLEM) -> SearchResult:
    return result_of(archive, problem, Path("runs/here"), reused=2, inadmissible=3)


def test_admissible_is_judged_on_whole_numbers() -> None:
    assert Archive(PROBLEM, ALL).admissible() == [BEST, CHEAP, DOMINATED, TWIN]  # DEAR: by one MAC in 100 samples
    small = replace(PROBLEM, configuration=replace(PROBLEM.configuration, limits=Limits(None, 0.5, max_params=10)))
    large, enough = found(1, 90, 1, params=11), found(2, 50, 10**9)
    assert Archive(small, [large, enough]).admissible() == [enough]


def test_the_front_is_the_most_accurate_first_and_of_equals_the_smallest_genome() -> None:
    archive = Archive(PROBLEM, ALL)
    assert archive.front(archive.admissible()) == [BEST, TWIN]
    assert archive.front(archive.evaluations) == [DEAR, BEST, TWIN, WRONG]
    assert archive.front([]) == []


def test_hypervolume_by_hand() -> None:
    archive = Archive(PROBLEM)
    largest = archive.reference[1]
    assert archive.hypervolume([]) == 0.0
    assert archive.hypervolume([CHEAP]) == pytest.approx(0.7 * (largest - 10_000), rel=1e-12)
    both = 0.7 * (largest - 10_000) + 0.2 * (largest - 25_000)
    assert archive.hypervolume([BEST, CHEAP, DOMINATED]) == pytest.approx(both, rel=1e-12)


def test_the_reference_is_the_largest_network_whatever_was_found() -> None:
    assert Archive(PROBLEM).reference == Archive(PROBLEM, ALL).reference
    assert Archive(PROBLEM).reference == (1.0, static_costs(PROBLEM.coder.largest()).worst_macs)


def test_a_failure_counts_and_touches_no_figure() -> None:
    failures = (Failure((7,), "ValueError: no"), Failure((8,), "ValueError: no"))
    clean, mixed = Archive(PROBLEM, ALL), Archive(PROBLEM, (failures[0], *ALL, failures[1]))
    assert (len(mixed), len(clean)) == (8, 6)
    assert mixed.genomes() == clean.genomes() | {(7,), (8,)}
    assert mixed.failures[0].reason == result(mixed).failure == "ValueError: no"
    assert replace(result(mixed), failed=0, failure=None) == result(clean)
    nobody = result(Archive(PROBLEM, failures))
    assert (nobody.evaluated, nobody.failed, nobody.front, nobody.closest) == (0, 2, (), None)
    assert nobody.hypervolume_all == 0.0


def test_the_order_of_candidates_changes_no_bit() -> None:
    expected = result(Archive(PROBLEM, ALL))
    for order in permutations(ALL):
        assert result(Archive(PROBLEM, order)) == expected


def test_the_closest_misses_the_limits_by_least_and_of_equals_is_the_smallest_genome() -> None:
    twins = [found(genome, 99, 3_000_001) for genome in (4, 2, 3)]  # over by less than a millionth
    for order in permutations((*twins, WRONG)):  # short by a fiftieth
        closest = result(Archive(PROBLEM, order)).closest
        assert closest is not None
        assert closest.genome == (2,)
    assert result(Archive(PROBLEM, ALL)).closest is None


def test_the_json_object() -> None:
    low, high = wilson_interval(89, 100)
    archive = Archive(PROBLEM, [BEST, DEAR, Failure((7,), "ValueError: no")])
    answer = result(archive).as_dict()
    assert json.loads(json.dumps(answer, allow_nan=False)) == answer == {
        "run": "runs/here",
        "seed": 0,
        "evaluated": 2,
        "reused": 2,
        "failed": 1,
        "admissible": 1,
        "constraints": {"max_macs": 30_000, "min_accuracy": 0.5},
        "hypervolume": {
            "all": archive.hypervolume([BEST, DEAR]),
            "admissible": archive.hypervolume([BEST]),
            "reference": [1.0, archive.reference[1]],
        },
        "front": [
            {
                "solution": 0,
                "genome": [1],
                "exits": [1, 3],
                "thresholds": [0.5, 0.0],
                "accuracy": 0.9,
                "correct": 90,
                "samples": 100,
                "total_macs": 2_500_000,
                "average_macs": 25_000.0,
                "exit_counts": [50, 50],
                "exit_costs": [10_000, 60_000],
                "worst_macs": 60_000,
                "params": 10,
                "peak_bytes": 64,
                "test": {
                    "accuracy": 0.89,
                    "correct": 89,
                    "samples": 100,
                    "interval95": [low, high],
                    "total_macs": 2_500_007,
                    "average_macs": 25_000.07,
                    "exit_counts": [40, 60],
                },
            }
        ],
    }  # fmt: skip


def changed(name: str, value: Any) -> Any:
    """Another value that the option may have."""
    if isinstance(value, str):
        return next(other for other in CHOICES[name] if other != value)
    return 0.25 if isinstance(value, float) else value * 2 + 1


@pytest.mark.parametrize("name", [option.name for option in fields(Configuration) if option.name != "data"])
def test_a_stored_configuration_is_read_back_whole(name: str, tmp_path: Path) -> None:
    others: dict[str, Any] = {
        "space": "tiny",
        "limits": Limits(1, 0.25, 2, 3, 4),
        "recipe": PaperRecipe(batch=7, beta=2.0),
    }
    configuration = PROBLEM.configuration
    other = replace(configuration, **{name: others.get(name) or changed(name, getattr(configuration, name))})
    identity = replace(PROBLEM, configuration=other).identity()
    create_or_open(tmp_path / "run", identity).close()
    assert configuration_of(open_run(tmp_path / "run").configuration) == other
    assert identity != PROBLEM.identity()


def test_a_configuration_without_a_field_is_refused() -> None:
    identity = PROBLEM.identity()
    del identity["recipe"]["momentum"]
    with pytest.raises(ConfigurationError, match="the run's configuration must have 'momentum', got none"):
        configuration_of(identity)
