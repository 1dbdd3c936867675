"""The search: complete, the same however it is run, continued after any end, and strict about its input."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nachos_min
from nachos_min.errors import InputError
from nachos_min.nas.evaluate import build, measure
from nachos_min.nas.progress import Progress
from nachos_min.nas.result import SearchResult
from nachos_min.nas.runs import stored_problem

SMALL = {"seed": 1, "space": "micro", "max_macs": 30_000, "min_accuracy": 0.8}
SMALL |= {"evaluations": 12, "finalists": 2, "epochs": 2}
ALL = 14  # candidates and finalists


def run(out: Path, **options: Any) -> SearchResult:
    return nachos_min.search(**{"workers": 2, **SMALL, **options}, out=out)


def same_part(result: SearchResult) -> str:
    """The JSON without what may differ between runs: the folder and how much was found there."""
    return json.dumps(result.as_dict() | {"run": None, "reused": None}, sort_keys=True, allow_nan=False)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> SearchResult:
    return run(tmp_path_factory.mktemp("runs") / "first")


def check_front(result: SearchResult) -> None:
    assert (result.evaluated, result.failed) == (ALL, 0)
    assert len(result.front) >= 2
    for row in result.front:
        assert row.total_macs <= 30_000 * row.samples
        assert row.correct * 10 >= row.samples * 8
        assert row.worst_macs == row.exit_costs[-1]
        low, high = row.test.interval95
        assert low <= row.test.accuracy <= high
        kept = row.test.total_macs <= 30_000 * row.test.samples
        assert row.test.kept == (kept and row.test.correct * 10 >= row.test.samples * 8)
    assert 0 < result.hypervolume_admissible <= result.hypervolume_all < result.reference[1]


def test_the_front_is_admissible_and_non_dominated(tmp_path: Path) -> None:
    found = run(tmp_path / "run", validation="whole")
    check_front(found)
    points = [(-s.correct, s.total_macs) for s in found.front]
    assert points == sorted(points)
    assert all(a[1] > b[1] for a, b in pairwise(points))


def test_rows_keep_the_limits_on_both_halves_and_are_what_their_networks_do(finished: SearchResult) -> None:
    check_front(finished)
    problem = stored_problem(finished.run, with_data=True)
    data = problem.data
    for row in finished.front:
        assert finished.limits.admissible(row.point.validation)
        stored = row.evaluation
        network = build(problem.coder, row.genome, 0)
        network.load_state(stored.weights)
        splits = [(data.validation, row.point.validation), (data.test, row.point.test)]
        for split, figures in [*splits, (data.calibration, row.point.shown)]:
            assert split is not None
            assert measure(network, split, row.thresholds, stored.confidence, stored.costs) == figures


def test_guaranteed_rows_are_some_of_those_that_the_run_holds(finished: SearchResult) -> None:
    sure = nachos_min.load_run(finished.run, guarantee=0.9)
    assert sure.guarantee == 0.9
    assert sure.front
    rows = [replace(row, solution=0) for row in finished.front]
    assert all(replace(row, solution=0) in rows for row in sure.front)
    again = run(Path(finished.run), guarantee=0.9)
    assert (again.reused, again.front) == (ALL, sure.front)
    assert nachos_min.load_run(finished.run, guarantee=1 - 1e-15).front == (), "too few samples for any row"
    with pytest.raises(InputError, match=r"guarantee must be a number above 0 and below 1, got 0"):
        nachos_min.load_run(finished.run, guarantee=0)


@pytest.mark.parametrize("workers", [1, 3])
def test_the_number_of_workers_changes_nothing(finished: SearchResult, workers: int, tmp_path: Path) -> None:
    assert same_part(run(tmp_path / "run", workers=workers)) == same_part(finished)


def test_killed_at_any_moment_nothing_is_lost(finished: SearchResult, tmp_path: Path) -> None:
    out = tmp_path / "run"
    program = f"""
import nachos_min
if __name__ == "__main__":
    nachos_min.search(workers=2, out={str(out)!r}, **{SMALL!r})
"""
    (tmp_path / "search.py").write_text(program)
    for wanted in (0, 3, 7):
        process = subprocess.Popen([sys.executable, tmp_path / "search.py"], cwd=tmp_path)
        while process.poll() is None and len(list((out / "evaluations").glob("*.h5"))) < wanted:
            time.sleep(0.01)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert same_part(run(out)) == same_part(nachos_min.load_run(out)) == same_part(finished)
    assert run(out).reused == ALL


def test_a_run_whose_data_changed_is_not_what_it_was(tmp_path: Path) -> None:
    images = np.random.default_rng(0).random((90, 8, 8, 1), np.float32)
    data = tmp_path / "own.npz"
    np.savez(data, images=images, labels=np.arange(90) % 3)
    given = {"data": str(data), "evaluations": 1, "finalists": 0, "min_accuracy": 0.0}
    own = run(tmp_path / "run", **given)
    np.savez(data, images=images[::-1], labels=np.arange(90) % 3)
    assert nachos_min.load_run(tmp_path / "run").evaluated == own.evaluated == 1
    with pytest.raises(InputError, match="its data set must be what it was, got other content"):
        stored_problem(tmp_path / "run", with_data=True)
    with pytest.raises(InputError, match=r"holds a run on .* of other content; choose another --out"):
        run(tmp_path / "run", **given)


FROZEN = {"recipe": "paper", "backbone": "frozen", "standardise": "pixel", "epochs": 4}


@pytest.mark.parametrize("option", [{"constraints": "adaptive-penalty"}, {"thresholds": "grid-repair"}, FROZEN])
def test_the_papers_variants_run(option: dict[str, Any], tmp_path: Path) -> None:
    result = run(tmp_path / "run", **{"evaluations": 4, "finalists": 0} | option)
    assert (result.evaluated, result.failed) == (4, 0)


def test_limits_that_no_network_keeps_end_without_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="max_macs must be >= 10,208"):
        run(tmp_path / "static", max_macs=1)
    told: list[Progress] = []
    result = run(tmp_path / "accuracy", min_accuracy=1.0, evaluations=2, finalists=0, on_progress=told.append)
    assert result.front == ()
    assert result.closest is not None
    assert [told[at].evaluated for at in (0, -1)] == [0, 2]
    assert (told[0].seconds_left, told[-1].best) == (None, None)


def test_another_configuration_is_refused(finished: SearchResult) -> None:
    cases = ({"max_macs": 40_000}, "30000"), ({"seed": 2}, "seed"), ({"method": "random"}, "method")
    for options, message in cases:
        with pytest.raises(InputError, match=message):
            run(Path(finished.run), **options)
