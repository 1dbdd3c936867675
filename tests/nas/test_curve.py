"""Networks that stand for their whole curve: every point is what the network does, stored and read back."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nachos_min
from nachos_min.eenn.recipes import DeepRecipe, PaperRecipe
from nachos_min.nas.configuration import Configuration, Problem, load_problem
from nachos_min.nas.evaluate import Evaluation, Trial, evaluate, measure
from nachos_min.nas.limits import Limits
from nachos_min.nas.records import from_record, to_record
from nachos_min.nas.result import Archive, rebuild
from nachos_min.store.values import decode, encode

# Both have long curves.
FROZEN = PaperRecipe(backbone_epochs=3, warmup_epochs=1, support_epochs=1, joint=False)
WAYS: dict[str, dict[str, Any]] = {
    "paper": {"recipe": FROZEN, "confidence": "learned", "standardise": "pixel", "validation": "whole"},
    "deep": {"recipe": DeepRecipe(epochs=1), "confidence": "softmax"},
}


@pytest.fixture(scope="module", params=WAYS)
def problem(request: pytest.FixtureRequest) -> Problem:
    limits = Limits(45_000, 0.2)
    return load_problem(Configuration("digits", "micro", limits, 0, points="curve", **WAYS[request.param]))


@pytest.fixture(scope="module")
def found(problem: Problem) -> list[Evaluation]:
    rng = np.random.default_rng(1)
    settings = problem.configuration.settings()
    genomes = [problem.coder.sample(rng) for _ in range(3)]
    return [evaluate(problem.coder, problem.dataset, settings, Trial(genome)) for genome in genomes]


def test_every_point_is_what_the_network_does(problem: Problem, found: list[Evaluation]) -> None:
    longest = max(found, key=lambda each: len(each.curve))
    points = longest.points()
    assert len(points) == len(longest.curve) + 1 > 3
    network, data = rebuild(problem, longest), problem.dataset
    for point in points:
        for split, figures in (
            (data.validation, point.validation),
            (data.test, point.test),
            (data.calibration, point.calibration),
        ):
            assert (split is None) == (figures is None)
            if split is not None:
                assert measure(network, split, point.thresholds, point.confidence, point.costs) == figures


def test_the_chosen_thresholds_are_those_without_a_curve(problem: Problem, found: list[Evaluation]) -> None:
    settings = replace(problem.configuration.settings(), points="best")
    best = evaluate(problem.coder, problem.dataset, settings, found[0].trial)
    assert best.points() == [best]
    assert (best.thresholds, best.validation, best.test, best.calibration) == (
        found[0].thresholds, found[0].validation, found[0].test, found[0].calibration,
    )  # fmt: skip
    assert best.reach() == (1 - best.validation.accuracy, best.validation.average_macs)


def test_a_curve_is_stored_and_read_back(found: list[Evaluation], tmp_path: Path) -> None:
    for each in found:
        (tmp_path / "one.h5").write_bytes(encode(to_record(each)))
        again = from_record(decode(tmp_path / "one.h5"))
        assert isinstance(again, Evaluation)
        assert again.curve == each.curve
        last, before = again.points()[-1], each.points()[-1]
        assert (last.test, last.calibration) == (before.test, before.calibration)
    assert "curve" not in to_record(replace(found[0], curve=()))


def test_an_archive_of_curves_holds_more_and_counts_candidates(problem: Problem, found: list[Evaluation]) -> None:
    curves, points = Archive(problem, found), Archive(problem, [replace(each, curve=()) for each in found])
    assert len(curves) == len(points) == 3
    assert len(curves.points) > len(points.points)
    assert curves.hypervolume(curves.admissible()) > points.hypervolume(points.admissible())
    front = curves.front(curves.admissible())
    assert len({each.genome for each in front}) < len(front), "a network stands in the front more than once"


def test_a_search_goes_on_from_what_reaches_least_error_or_fewest_macs(
    problem: Problem, found: list[Evaluation]
) -> None:
    leading = Archive(problem, found).leading(limited=True)
    reach = [each.reach() for each in leading]
    assert reach == sorted(reach)
    for error, macs in (each.reach() for each in found):
        assert any(e <= error and m <= macs for e, m in reach)
    for each in found:
        errors = [1 - point.validation.accuracy for point in each.points()]
        assert each.reach() == (min(errors), min(point.validation.average_macs for point in each.points()))


def test_a_search_over_curves_is_the_same_when_read_again(tmp_path: Path) -> None:
    given = {"space": "micro", "max_macs": 45_000, "min_accuracy": 0.5, "evaluations": 3, "workers": 1}
    result = nachos_min.search(**given, points="curve", epochs=2, finalists=0, out=tmp_path / "run")
    assert len(result.front) > result.evaluated == 3
    assert all(s.correct * 2 >= s.samples and s.total_macs <= 45_000 * s.samples for s in result.front)
    assert nachos_min.load_run(tmp_path / "run").front == result.front
