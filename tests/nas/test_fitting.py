"""Spaces and limits that fit the data, what is planned, and limits that no network can keep."""

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nachos_min
from nachos_min.errors import InputError
from nachos_min.nas import fitting
from nachos_min.nas.configuration import AUTO, ConfigurationError, Problem, resolved
from nachos_min.nas.genome import GenomeCoder
from nachos_min.nas.limits import COUNTED, Limits, StaticCheck
from nachos_min.nas.plan import Plan, plan_of
from nachos_min.nas.result import Archive, result_of
from nachos_min.nas.space import load_space
from nachos_min.report.search_report import summary

SIDES = (8, 12, 16, 28, 32, 48, 64, 96)
NONE = Limits(None, 0.0)
MICRO = GenomeCoder(load_space("micro"), (8, 8, 1), 10)
MEMBERS = MICRO.canonical(np.array([*product(*(range(most + 1) for most in MICRO.upper))]))


def all_costs(coder: GenomeCoder = MICRO) -> tuple[Any, Any]:
    return StaticCheck(coder, NONE).population(MEMBERS)


@pytest.mark.parametrize(
    ("shape", "name", "sides"),
    [
        ((1, 1, 1), "flex8", ()),
        ((8, 8, 1), "flex8", ()),
        ((12, 12, 3), "flex16", (9, 12)),
        ((16, 16, 1), "flex16", (12, 16)),
        ((28, 28, 1), "flex32", (14, 21, 28)),
        ((32, 32, 3), "flex32", (16, 24, 32)),
        ((48, 48, 3), "flex64", (24, 36, 48)),
        ((96, 96, 3), "flex64", (48, 72, 96)),
        ((20, 60, 3), "flex32", (10, 15, 20)),  # 35 pixels in the mean, 20 the shorter side
        ((2, 2000, 1), "flex64", (1, 2)),
        ((1, 13, 1), "flex8", ()),  # a signal: its cells shrink twofold where those of an image shrink fourfold
        ((1, 512, 2), "flex32", (256, 384, 512)),
    ],
)
def test_the_space_follows_from_the_pixels_and_never_enlarges(shape: Any, name: str, sides: Any) -> None:
    space = fitting.fitted_space(shape)
    assert (space.name, space.resolutions) == (name, sides)
    assert replace(space, resolutions=()) == replace(load_space(name), resolutions=())


@pytest.mark.parametrize(("side", "channels", "classes"), [*product(SIDES, (1, 3), (10,)), (8, 1, 100), (96, 3, 2)])
def test_the_limits_leave_a_tenth_of_the_space(side: int, channels: int, classes: int) -> None:
    shape = (side, side, channels)
    coder = GenomeCoder(fitting.fitted_space(shape), shape, classes)
    asked = resolved({"data": "mine.npz"})
    assert (asked["space"], asked["max_macs"], asked["min_accuracy"]) == (AUTO, AUTO, 0.0)
    found = fitting.decided(asked, coder)
    assert found["max_worst_macs"] >= 3 * found["max_macs"]
    limits = Limits(found["max_macs"], 0.0, found["max_worst_macs"])
    costs, legal = StaticCheck(coder, NONE).population(coder.draw(np.random.default_rng(1), 2_000))
    assert 0.2 < (costs.cheapest[legal] <= found["max_macs"]).mean() < 0.3
    assert 0.1 < (legal & ~limits.exceeded(costs)).mean() < 0.3


def test_limits_follow_from_what_is_given() -> None:
    def limits(**options: Any) -> tuple[int | None, int | None]:
        found = fitting.decided(resolved({"data": "mine.npz", **options}), MICRO)
        return found["max_macs"], found["max_worst_macs"]

    costs, legal = all_costs()
    usual = fitting.usual_limits(MICRO)
    for name, count in COUNTED.items():
        counts = getattr(costs, count)[legal]
        assert 0.2 < (counts <= usual[name]).mean() < 0.7
    assert limits() == (usual["max_macs"], max(3 * usual["max_macs"], usual["max_worst_macs"]))
    assert limits(recipe="paper") == (usual["max_macs"], None)
    assert limits(max_macs=None) == (None, None)
    assert limits(max_macs=30_000) == (30_000, 90_000)
    assert limits(max_macs=30_000, max_worst_macs=31_000) == (30_000, 31_000)
    # Three times a tight limit would leave no network whose first exit keeps it.
    least = int(costs.cheapest[legal].min())
    assert limits(max_macs=least) == (least, max(3 * least, usual["max_worst_macs"]))
    # Methods are compared under the same limits.
    assert fitting.decided(resolved({"data": "mine.npz"}), replace(MICRO, static=True))["max_macs"] == limits()[0]


TIGHT = [
    {"max_macs": 1},
    {"max_macs": 8_000},
    {"max_params": 10},
    {"max_worst_macs": 1},
    {"max_peak_bytes": 1},
    {"max_macs": 10_208, "max_params": 6_197},
    {"max_macs": 9_000, "max_worst_macs": 12_000, "max_params": 2_400, "max_peak_bytes": 2_000},
    {"max_worst_macs": 40_000, "max_params": 7_000},
]


@pytest.mark.parametrize("given", TIGHT, ids=str)
@pytest.mark.parametrize("static", [False, True])
def test_the_nearest_is_that_of_all_members(given: dict[str, int], static: bool) -> None:
    coder = replace(MICRO, static=static)
    limits = replace(NONE, **given)
    costs, legal = StaticCheck(coder, NONE).population(coder.canonical(MEMBERS))
    near = fitting.nearest(coder, limits)
    assert near.excess == limits.excess(costs)[legal].min()
    assert (near.excess == 0) is bool((legal & ~limits.exceeded(costs)).any())
    own = StaticCheck(coder, NONE).population(np.array([near.genome]))[0]
    assert near.counts == {name: getattr(own, count)[0] for name, count in COUNTED.items()}


def test_in_a_large_space_the_nearest_beats_many_random_members() -> None:
    coder = GenomeCoder(fitting.fitted_space((28, 28, 1)), (28, 28, 1), 10)
    costs, legal = StaticCheck(coder, NONE).population(coder.draw(np.random.default_rng(5), 20_000))
    for given in (
        {"max_macs": 1},
        {"max_params": 1},
        {"max_peak_bytes": 1},
        {"max_macs": 9_000, "max_params": 3_000},
    ):
        limits = replace(NONE, **given)
        assert fitting.nearest(coder, limits).excess <= limits.excess(costs)[legal].min()


def test_the_nearest_is_found_where_only_two_genes_together_help() -> None:
    coder = GenomeCoder(fitting.fitted_space((96, 96, 3)), (96, 96, 3), 2)
    near = fitting.nearest(coder, replace(NONE, max_params=1))
    pairs = [fitting.single_changes(coder, each) for each in fitting.single_changes(coder, np.array(near.genome))]
    costs, legal = StaticCheck(coder, NONE).population(coder.canonical(np.vstack(pairs)))
    assert near.counts["max_params"] <= costs.params[legal].min()


def refusal(space: str, side: int, margin: float = 0.0, **limits: int) -> str:
    """The message for images of side x side, whose advice is taken: it must work."""
    coder = GenomeCoder(load_space(space), (side, side, 1), 10)
    configuration: Any = type("Configuration", (), {"limits": replace(NONE, **limits), "margin": margin})
    with pytest.raises(ConfigurationError) as refused:
        fitting.check_counts(coder, configuration)
    message = str(refused.value)
    flags = dict(re.findall(r"--(max-\S+) (\d+k?)", message))
    wider = {name.replace("-", "_"): int(value.replace("k", "000")) for name, value in flags.items()}
    assert wider
    configuration.limits = replace(configuration.limits, **wider)
    fitting.check_counts(coder, configuration)
    if other := re.search(r"--space (\w+)", message):
        shape = coder.image_shape
        space_there = fitting.fitted_space(shape) if other[1] == AUTO else load_space(other[1])
        configuration.limits = replace(NONE, **limits)
        fitting.check_counts(replace(coder, space=space_there), configuration)
    return message


def test_limits_that_nothing_keeps_are_refused_with_what_would_work() -> None:
    least = "112,504, the least that a network of space tiny for 28x28x1 images takes"
    advice = r"try --max-macs \d+k or --space auto"
    assert re.fullmatch(f"max_macs must be >= {least}, got 40,000; {advice}", refusal("tiny", 28, max_macs=40_000))
    assert refusal("tiny", 28, margin=0.5, max_macs=200_000).startswith("max_macs must be >= 225,008, ")
    assert refusal("tiny", 8, max_params=6_000).startswith("max_params must be >= ")
    together = refusal("micro", 8, max_macs=10_208, max_params=6_197)
    assert together.startswith("max_macs 10,208 and max_params 6,197 must together leave a network of space micro")


def test_a_space_without_legal_networks_is_refused() -> None:
    narrow = replace(MICRO.space, exit_widths=(), stages=MICRO.space.stages[::-1])
    coder = GenomeCoder(replace(narrow, final=replace(narrow.final, expand=0)), (8, 8, 1), 100_000)
    with pytest.raises(ConfigurationError, match="space micro for 8x8x1 images must have networks whose exits"):
        fitting.usual_limits(coder)


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Grey images of 13x13, one class larger than the other."""
    path, rng = tmp_path_factory.mktemp("data") / "mine.npz", np.random.default_rng(0)
    labels = np.repeat([0, 1], (90, 60))
    images = rng.integers(0, 200, (150, 13, 13)) + 55 * labels[:, None, None]
    np.savez(path, images=images.astype(np.uint8), labels=labels)
    return path


def test_the_plan_says_what_will_be_searched_and_why(mine: Path) -> None:
    asked = resolved({"data": str(mine), "evaluations": 6, "epochs": 2, "workers": 1})
    problem: Problem = fitting.prepared(asked)
    assert problem.configuration.space == AUTO
    assert problem.space.resolutions == (10, 13)
    plan = plan_of(problem, asked)
    assert (plan.data, plan.image_shape, plan.classes) == ("mine", (13, 13, 1), 2)
    assert plan.largest_class == pytest.approx(0.6, abs=0.01)
    assert sum(plan.samples.values()) == 150
    assert (plan.networks, plan.finalists, plan.epochs, plan.steps) == (6, 2, 2, 12)
    assert plan.as_dict()["limits"] == plan.limits
    assert plan.limits["max_macs"] == fitting.usual_limits(problem.coder)["max_macs"]
    assert plan.seconds is not None
    assert plan.bytes is not None
    assert 0.1 < plan.seconds < 60
    assert 1e8 < plan.bytes < 1e9 * (1 + plan.processes)
    # Ten networks begin together, then three in an iteration; a finalist takes as long as four.
    for workers, evaluations, finalists, stored, rounds in (
        (1, 60, 20, 0, 60 + 4 * 20),
        (1, 60, 20, 60, 4 * 20),
        (4, 16, 2, 0, 3 + 2 + 4),
        (4, 16, 2, 8, 1 + 2 + 4),
        (16, 16, 2, 0, 1 + 2 + 4),
        (16, 16, 2, 20, 0),
    ):
        own = asked | {"workers": workers, "evaluations": evaluations, "finalists": finalists}
        there = plan_of(problem, own, stored)
        assert there.seconds == pytest.approx(
            rounds * plan_of(problem, own | {"evaluations": 1, "finalists": 0}).seconds
        )
    text = "\n".join(plan.lines())
    for said in ("images of 13x13 pixels, 1 channel", "flex16, at 10 and 13 pixels", "6 networks, 2 epochs each"):
        assert said in text
    one = plan_of(problem, resolved({"data": str(mine), "evaluations": 1}))
    assert "Training: 1 network, 2 epochs each, then the best for 4 times as long." in one.search_lines()
    assert one.seconds == pytest.approx(plan.seconds * plan.processes * 5 / 14)
    given = plan_of(*[fitting.prepared(other := resolved({"data": "digits"})), other])
    assert (given.fitted_space, given.fitted_macs, given.limits["max_macs"]) == (False, False, 40_000)


@pytest.mark.parametrize(
    ("limits", "answering"),
    [
        ({"min_accuracy": 0.59}, "the largest class (0.6042): set it higher, or use --metric balanced."),
        ({"min_accuracy": 0.604}, "the largest class (0.6042): set it higher, or use --metric balanced."),
        ({"min_accuracy": 0.61}, None),
        ({"min_accuracy": None}, None),
        ({"min_accuracy": 0.5, "metric": "balanced"}, "any one class (0.5000): set it higher."),
        ({"min_accuracy": 0.59, "metric": "balanced"}, None),
    ],
)
def test_a_limit_that_one_answer_reaches_gets_a_warning(
    mine: Path, tmp_path: Path, limits: Any, answering: str | None
) -> None:
    asked: Any = resolved({"data": str(mine), "evaluations": 1, "out": str(tmp_path)} | limits)
    problem = fitting.prepared(asked)
    plan = plan_of(problem, asked)
    rule = f"WARNING: min_accuracy {limits['min_accuracy']} is reached by always answering {answering}"
    assert plan.warnings == (() if answering is None else (rule,))
    assert plan.as_dict()["warnings"] == list(plan.warnings)
    assert [line for line in plan.lines() if line.startswith("WARNING")] == list(plan.warnings)
    result = result_of(Archive(problem), tmp_path, reused=0, inadmissible=None)
    assert result.as_dict().get("warnings", []) == list(plan.warnings)
    assert [line for line in summary(result) if line.startswith("WARNING")] == list(plan.warnings)


def test_impossible_counts_and_a_wrong_executor_write_nothing(mine: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="max_params must be >= "):
        nachos_min.search(data=str(mine), max_params=3, out=tmp_path / "run")
    wrong: Any = 2
    with pytest.raises(ConfigurationError, match=r"executor must be a concurrent\.futures\.Executor, got int"):
        nachos_min.search(data=str(mine), executor=wrong, out=tmp_path / "run")
    assert not any(tmp_path.iterdir())


def test_what_is_stored_takes_no_time_and_a_callers_executor_counts_as_one_process(
    mine: Path, tmp_path: Path
) -> None:
    told: list[Plan] = []
    own: dict[str, Any] = {"data": str(mine), "out": tmp_path / "run", "on_plan": told.append, "evaluations": 8}
    own |= {"space": "micro", "max_macs": None, "finalists": 0, "epochs": 1}
    with ThreadPoolExecutor(1) as executor:
        nachos_min.search(**own, workers=4, executor=executor, max_minutes=1e-9)
    nachos_min.search(**own | {"evaluations": 2}, workers=0)
    nachos_min.search(**own, workers=0, max_minutes=1e-9)
    assert [plan.processes for plan in told] == [1, 1, 1]
    first, few, rest = (plan.seconds or 0.0 for plan in told)
    assert (few, rest) == (pytest.approx(first * 2 / 8), pytest.approx(first * 6 / 8))


def test_a_search_of_own_data_tells_its_plan_once_and_is_read_again(mine: Path, tmp_path: Path) -> None:
    told: list[Plan] = []
    few: dict[str, Any] = {"data": str(mine), "evaluations": 2, "finalists": 0, "epochs": 1, "workers": 0}
    result = nachos_min.search(on_plan=told.append, out=tmp_path / "run", **few)
    assert [(plan.sides, plan.processes) for plan in told] == [((10, 13), 1)]
    assert result.max_macs == told[0].limits["max_macs"]
    assert nachos_min.load_run(tmp_path / "run").front == result.front != ()
    with pytest.raises(InputError, match="holds a run with space auto, this one asks for flex16"):
        nachos_min.search(out=tmp_path / "run", space="flex16", max_macs=result.max_macs, **few)
