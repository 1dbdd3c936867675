"""`show` and `compare`: stored runs again, without their data set."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from candidates import evaluation, instant

import nachos_min
from nachos_min.eenn.thresholds import ExitTables, Figures
from nachos_min.errors import InputError
from nachos_min.nas import nachos
from nachos_min.nas.evaluation import Evaluation, Point, Trial
from nachos_min.nas.genome import GenomeCoder
from nachos_min.nas.runs import examples, stored_evaluations, stored_problem
from nachos_min.store.values import decode, encode

pytestmark = pytest.mark.usefixtures("made_up")
LIMITS = {"max_macs": 40_000, "min_accuracy": 0.5}


def two_points(_: GenomeCoder, trial: Trial) -> Evaluation:
    """95 of 100 right at 35,000 MACs, or 80 at 15,000, of a network that costs 10,000 or 60,000."""
    right, fewer = Figures(95, 100, (50, 50), 3_500_000), Figures(80, 100, (90, 10), 1_500_000)
    points = Point((0.5, 0.0), right, right), Point((0.1, 0.0), fewer, fewer)
    return evaluation(trial, right, points=points, weights={"stem": np.arange(3, dtype=np.float32)})


@pytest.fixture
def options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the run in the folder `run` was searched with; its data set is gone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(nachos, "Workers", instant(two_points))
    images, labels = np.random.default_rng(0).random((90, 8, 8), np.float32), np.arange(90) % 3
    np.savez("own.npz", images=images, labels=np.array(["cat", "dog", "eel"])[labels])
    found: dict[str, Any] = {
        "data": "own.npz",
        "space": "micro",
        "evaluations": 1,
        "finalists": 0,
        "out": "run",
        **LIMITS,
    }
    assert nachos_min.search(**found).evaluated == 1
    Path("own.npz").rename("elsewhere.npz")
    return found


@pytest.mark.usefixtures("options")
def test_a_run_is_shown_without_its_data(run: Any) -> None:
    shown = run("show", "run")
    assert (shown.status, shown.err) == (0, "")
    figures = [line.split()[:4] for line in shown.out.splitlines() if "%" in line][1:]
    assert figures == [["0", "accurate", "95.0%", "35,000"], ["1", "cheap", "80.0%", "15,000"]]
    assert "1 evaluated (1 reused), 1 admissible" in shown.out
    front = json.loads(run("show", "run", "--json").out)["front"]
    assert [(row["accuracy"], row["average_macs"]) for row in front] == [(0.95, 35_000.0), (0.8, 15_000.0)]
    assert json.loads(run("macs", "run#1", "--json").out)["exits"][-1]["cost"] > 0
    problem = stored_problem("run")
    assert (problem.dataset, problem.about["class_names"]) == (None, ("cat", "dog", "eel"))
    assert (problem.coder.image_shape, problem.coder.classes) == ((8, 8, 1), 3)
    with pytest.raises(InputError, match=r"own\.npz"):
        stored_problem("run", with_data=True)
    (stored,) = stored_evaluations("run")
    assert isinstance(stored, Evaluation)
    assert {name: weight.tolist() for name, weight in stored.weights.items()} == {"stem": [0.0, 1.0, 2.0]}


@pytest.mark.usefixtures("options")
def test_a_switch_may_stand_before_what_a_command_needs(run: Any) -> None:
    written = run("show", "run", "--json")
    assert run("show", "--json", "run") == run("show", "--json", "true", "run") == written
    assert run("show", "--nojson", "run") == run("show", "run")
    assert run("show", "run#0").err == "error: a run must be named by its folder alone, run, got run#0\n"


@pytest.mark.usefixtures("options")
@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("run", {}, "run is no run: run.h5 must hold a configuration"),
        ("run", {"configuration": 1}, "run is no run: run.h5 must hold a configuration"),
        ("run", {"about": {"classes": 3}}, "run/run.h5 is damaged: about.image_shape must be there, got none"),
        ("order", {"keys": []}, "run/order.h5 is damaged: its fields must be keys, complete, got keys"),
        ("order", {"keys": [1], "complete": True}, "run/order.h5 is damaged: keys must be a list of text"),
        ("order", {"keys": ["../x"], "complete": True}, "a key must be 1 to 200 letters, digits"),
        ("order", {"keys": ["9"], "complete": True}, "run run must hold its evaluation 9; the same search trains"),
        (
            "examples",
            {"images": np.zeros((1, 4, 4, 1)), "labels": np.arange(3), "rows": np.arange(1)},
            "run/examples.h5 is damaged: labels must be an array of uint8",
        ),
    ],
)
def test_files_that_this_program_did_not_write_are_one_line(file: str, content: Any, said: str, run: Any) -> None:
    path = Path("run", f"{file}.h5")
    there = decode(path)
    content = content if file == "run" else content | {"of": there["of"]}
    if file == "run":
        kept = {name: there[name] for name in ("format", "version")}
        content = kept | ({"configuration": there["configuration"]} if "about" in content else {}) | content
    path.write_bytes(encode(content))
    shown = run("report", "run")
    assert (shown.status, shown.out, shown.err.count("\n")) == (2, "", 1)
    assert shown.err.startswith(f"error: {said}")


@pytest.mark.usefixtures("options")
def test_an_evaluation_of_another_name_is_damaged(run: Any) -> None:
    (file,) = Path("run/evaluations").glob("*.h5")
    record = decode(file)
    record["of"]["fields"] += " effort"
    file.write_bytes(encode(record | {"effort": 4}))
    said = f"is damaged: genome must be {file.stem}, as the file is called, got '{file.stem}.x4'\n"
    assert run("show", "run").err == f"error: evaluation '{file.stem}' of run run {said}"


@pytest.mark.usefixtures("options")
def test_a_run_is_shown_without_the_engine() -> None:
    program = "import sys; from nachos_min.cli import main; from nachos_min.nas import records;"
    program += "records._contradictions = lambda *_: (); main(['show', 'run']); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    loaded = set(done.stdout.splitlines()[-1].split())
    assert not {"numba", "scipy", "nachos_kernels", "nachos_min.eenn.network"} & loaded


def test_a_run_of_arrays_in_memory_is_shown_and_continued_by_the_same_arrays_alone(options: Any, run: Any) -> None:
    images, labels = np.random.default_rng(0).random((90, 8, 8)), np.arange(90) % 3
    given = options | {"out": "memory"}
    nachos_min.search(**given | {"data": (images, labels)})
    assert run("show", "memory").status == 0
    assert nachos_min.search(**given | {"data": (images, labels)}).reused == 1
    with pytest.raises(InputError, match=r"^data must be given: run memory was searched on arrays$"):
        stored_problem("memory", with_data=True)
    with pytest.raises(
        InputError, match=r"^out memory holds a run on arrays of other content; choose another --out$"
    ):
        nachos_min.search(**given | {"data": (images[::-1], labels)})


def test_data_that_were_moved_are_the_same(options: Any) -> None:
    assert nachos_min.search(**options | {"data": "./elsewhere.npz"}).reused == 1
    with pytest.raises(InputError, match=r"^out run holds a run with seed 0, this one asks for 1; choose"):
        nachos_min.search(**options | {"data": "./elsewhere.npz", "seed": 1})


@pytest.mark.usefixtures("options")
@pytest.mark.parametrize(
    ("typed", "limits", "front"),
    [
        ("--max-macs 20k", {"max_macs": 20_000}, [(1, 0.8)]),
        ("--min-accuracy 0.9", {"min_accuracy": 0.9}, [(0, 0.95)]),
        ("--max-macs 40k --min-accuracy 0.5", {}, [(0, 0.95), (1, 0.8)]),
    ],
)
def test_tighter_limits_leave_some_of_the_stored_curve(typed: str, limits: Any, front: Any, run: Any) -> None:
    shown = run("show", "run", *typed.split(), "--json")
    found = json.loads(shown.out)
    assert (shown.status, [(row["solution"], row["accuracy"]) for row in found["front"]]) == (0, front)
    assert found["constraints"] == LIMITS | limits


@pytest.mark.usefixtures("options")
def test_one_setting_may_be_picked(run: Any) -> None:
    found = json.loads(run("show", "run", "--pick", "cheap", "--json").out)
    assert [row["solution"] for row in found["front"]] == [1]
    assert found["settings"] == [{"accurate": 0, "knee": 0, "cheap": 1}]
    assert "\n0 " not in run("show", "run", "--pick", "cheap").out
    assert run("show", "run", "--all").out == run("show", "run").out


@pytest.mark.usefixtures("options")
def test_limits_that_nothing_keeps_name_what_came_closest(run: Any) -> None:
    shown = run("show", "run", "--max-macs", "12k")
    assert (shown.status, shown.err) == (3, "")
    limits = "accuracy >= 0.5 at <= 12,000 average MACs"
    told = (
        f"No admissible solution ({limits}): the closest of 1 network has accuracy 0.8000 at 15,000 average MACs."
    )
    assert " ".join(shown.out.split()).startswith(told)


OWN = "the run's own limit, since it stores nothing beyond"


@pytest.mark.usefixtures("options")
@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("run --max-macs 50k", f"max_macs must be <= 40,000, {OWN}, got 50,000"),
        ("run --min-accuracy 0", f"min_accuracy must be >= 0.5, {OWN}, got 0.0"),
        ("run --guarantee 1", "--guarantee must be a number above 0 and below 1, got '1'"),
        ("run --pick knee --all", "--pick must be absent with --all, which shows every row, got knee"),
        ("none", "run none does not exist"),
        ("", "show needs a RUN, got none; try python -m nachos_min show --help"),
    ],
)
def test_what_cannot_be_shown_is_one_line(typed: str, message: str, run: Any) -> None:
    assert run("show", *typed.split()) == (2, "", f"error: {message}\n")


def test_a_search_with_other_limits_is_told_of_it(options: Any) -> None:
    Path("elsewhere.npz").rename("own.npz")

    def told(**changes: Any) -> str:
        with pytest.raises(InputError) as refusal:
            nachos_min.search(**options | changes)
        return str(refusal.value)

    first = "out run holds a run with max_macs 40000, this one asks for 20000; choose another --out"
    see = "or see which of its networks keep these limits: python -m nachos_min show run --max-macs 20k"
    assert told(max_macs=20_000) == f"{first}, {see}"
    assert told(max_macs=20_000, min_accuracy=0.75) == f"{first}, {see} --min-accuracy 0.75"
    assert told(min_accuracy=0.75).endswith("show run --min-accuracy 0.75")
    for others in (
        {"max_macs": 50_000},
        {"max_macs": 20_000, "seed": 1},
        {"max_macs": 20_000, "max_params": 9_999},
    ):
        assert told(**others).endswith("; choose another --out")
    other = np.random.default_rng(1).random((90, 8, 8)), np.arange(90) % 3
    assert "holds a run with data" in told(data=other)


@pytest.fixture
def two_runs(options: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs `one` and `two`: of the test images the first answers 6 wrong at its first exit, the second one."""
    Path("elsewhere.npz").rename("own.npz")
    labels = examples("run").labels
    for out, wrong in (("one", 6), ("two", 1)):
        first = np.where(np.arange(len(labels)) < wrong, labels + 1, labels)
        answers = ExitTables(np.ones((len(labels), 2)), np.stack([first, labels], axis=1))

        def answer(coder: GenomeCoder, trial: Trial, answers: ExitTables = answers) -> Evaluation:
            return replace(two_points(coder, trial), on_test=answers)

        monkeypatch.setattr(nachos, "Workers", instant(answer))
        nachos_min.search(**options | {"out": out, "seed": 10 - wrong})


@pytest.mark.usefixtures("two_runs")
def test_two_runs_are_compared_within_budgets(run: Any) -> None:
    found = json.loads(run("compare", "one", "two", "--json").out)
    assert (found["runs"], found["options"]) == (["one", "two"], {"seed": [4, 9]})
    assert [budget["max_macs"] for budget in found["budgets"]] == [15_000, 35_000]
    assert [[row["solution"] for row in budget["networks"]] for budget in found["budgets"]] == [[1, 1], [0, 0]]
    for budget in found["budgets"]:
        assert budget["difference"] == pytest.approx(5 / len(examples("one").labels))
        assert budget["interval95"][0] > 0
    shown = run("compare", "one", "two")
    assert (shown.status, shown.err) == (0, "")
    assert max(map(len, shown.out.splitlines())) <= 80
    assert "Options that differ, A / B: seed 4 / 9.\n" in shown.out
    assert "Of 2 intervals 2 show B better and 0 worse.\n" in shown.out
    assert "Of 2 intervals 0 show B better and 2 worse.\n" in run("compare", "two", "one").out


@pytest.mark.usefixtures("two_runs")
@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("", "compare needs a RUN and one OTHER, got none; try python -m nachos_min compare --help"),
        ("one", "compare needs a RUN and one OTHER, got only 'one'; try python -m nachos_min compare --help"),
        ("one two run", "compare takes one RUN and one OTHER and options, got 'run'"),
        ("one none", "run none does not exist"),
        ("one run", "run run was stored by an earlier version, without its answers to the test images; "
         "search again in another folder"),
        ("one memory", "the runs must have the same data, got others in one and memory"),
    ],
)  # fmt: skip
def test_what_cannot_be_compared_is_one_line(typed: str, message: str, options: Any, run: Any) -> None:
    if "memory" in typed:
        images = np.random.default_rng(1).random((90, 8, 8))
        nachos_min.search(**options | {"out": "memory", "data": (images, np.arange(90) % 3)})
    assert run("compare", *typed.split()) == (2, "", f"error: {message}\n")
