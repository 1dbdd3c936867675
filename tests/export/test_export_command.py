"""`export`: files of a network of a run, what is said of them, and what is refused."""

import json
import os
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from candidates import evaluation, instant

import nachos_min
from nachos_min import cli
from nachos_min.eenn.lowering import static_costs
from nachos_min.eenn.network import EarlyExitNetwork
from nachos_min.eenn.thresholds import Figures
from nachos_min.export import files
from nachos_min.export.quantised import quantised
from nachos_min.nas import nachos
from nachos_min.nas.evaluation import Point
from nachos_min.nas.runs import solution, stored_problem
from nachos_min.targets import read_target

pytestmark = pytest.mark.usefixtures("made_up")
extra = pytest.mark.skipif(not (find_spec("onnx") and find_spec("onnxruntime")), reason="they are the extra onnx")


def untrained(coder, trial):
    """A network with weights at random, at whose exits images leave by chance."""
    architecture, rng = coder.decode(trial.genome), np.random.default_rng(0)
    weights = EarlyExitNetwork(architecture, rng, rng).state()
    exits = len(architecture.exit_stages)
    figures = Figures(95, 100, (100, *[0] * (exits - 1)), 100 * static_costs(architecture).cheapest)
    point = Point((*[0.5] * (exits - 1), 0.0), figures, figures)
    about = {"exits": architecture.exit_stages, "costs": static_costs(architecture), "points": (point,)}
    return evaluation(trial, figures, weights=weights, **about)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with the data set own.npz and a run on it."""
    place = tmp_path_factory.mktemp("export")
    images, labels = np.random.default_rng(0).random((90, 8, 8), np.float32), np.arange(90) % 3
    np.savez(place / "own.npz", images=images, labels=np.array(["cat", "dog", "eel"])[labels])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nachos, "Workers", instant(untrained))
        limits = {"max_macs": 400_000, "min_accuracy": 0.5}
        found = nachos_min.search(
            data=str(place / "own.npz"), space="micro", evaluations=3, finalists=0, out=place / "run", **limits
        )
    assert found.front
    return place


@pytest.fixture
def run(folder, capsys, monkeypatch):
    """Run `export` in that folder."""
    monkeypatch.chdir(folder)

    def export(*arguments):
        return cli.main(["export", *arguments]), *capsys.readouterr()

    return export


@extra
def test_each_format_is_written_and_compared(run):
    status, out, err = run("run#0", "--onnx", "net.onnx", "--npz", "net.npz")
    assert (status, err) == (0, "")
    costs = nachos_min.load_run("run").front[0].exit_costs
    size = {name: f"{Path(name).stat().st_size:,} bytes" for name in ("net.onnx", "net.npz")}
    first, macs, compared, plain, _ = out.splitlines()
    assert first == f"net.onnx: ONNX, every exit an output, {size['net.onnx']}"
    assert macs == f"  {costs[-1]:,} MACs"
    assert compared.startswith("  compared with the engine on 18 images")
    assert plain == f"net.npz: plain arrays, {size['net.npz']}"


@extra
def test_the_gated_file_has_the_macs_of_the_exits(run):
    status, out, _ = run("run#0", "--onnx", "gated.onnx", "--gated", "--json", "--data", "own.npz")
    found = json.loads(out)
    costs = nachos_min.load_run("run").front[0].exit_costs
    assert (status, found["network"]) == (0, "run#0")
    (file,) = found["files"]
    assert file["macs"] == [costs[0], costs[-1]]
    assert file["comparison"]["images"] == 18
    counted = read_target("gated.onnx")
    assert counted.ways(lambda graph: sum(node.macs for node in graph))[:2] == (costs[0], costs[-1])


def test_c_is_written_to_a_folder_that_is_made(run, monkeypatch):
    monkeypatch.setattr(files, "has_compiler", lambda: False)
    status, out, _ = run("run#0", "--c", "made")
    assert (status, out.startswith("made: C99, ")) == (0, True)
    assert {path.name for path in Path("made").iterdir()} == {"network.c", "network.h", "example.c", "Makefile"}


@pytest.mark.parametrize("tolerated", [1, -1])
def test_integers_have_thresholds_and_test_figures_of_their_own(tolerated, run, monkeypatch):
    monkeypatch.setattr(files, "has_compiler", lambda: False)
    monkeypatch.setattr(files, "TOLERATED", tolerated)
    network, data = solution("run#0"), stored_problem("run", data="own.npz").data
    own = quantised(network.trained, data.train.images)
    own = own.leaving(data.validation, network.point.validation.exit_counts)
    found = own.figures(data.test)
    status, out, _ = run("run#0", "--c", "made8", "--int8", "--data", "own.npz")
    first = f"  test split: {found.accuracy:.2%} at {found.average_macs:,.0f} MACs on average in integers, "
    assert (status, out.splitlines()[1].startswith(first)) == (0, True)
    assert ("more than half a point less accurate" in out) == (tolerated < 0)
    _, out, _ = run("run#0", "--c", "made8", "--int8", "--data", "own.npz", "--json")
    (file,) = json.loads(out)["files"]
    assert (file["arithmetic"], file["test"]["thresholds"]) == ("int8", list(own.trained.thresholds))
    assert file["test"]["kept"] is network.limits.admissible(found)
    assert (file["test"]["correct"], file["test"]["exit_counts"]) == (found.correct, list(found.exit_counts))
    assert "int8 weights" in Path("made8/network.h").read_text("utf-8")


@extra
def test_without_the_extra_it_is_said(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    status, out, _ = run("run#0", "--onnx", "net.onnx")
    assert status == 0
    assert "not compared with the engine: the package onnxruntime is not installed" in out
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert run("run#0", "--onnx", "net.onnx") == (
        2,
        "",
        "error: an ONNX file needs the package onnx: pip install 'nachos_min[onnx]'\n",
    )


@extra
def test_a_file_that_answers_otherwise_has_its_own_status(run, monkeypatch):
    real = files.onnx_answers

    def wrong(*arguments, **options):
        answers, confidences = real(*arguments, **options)
        answers.labels[:] = (answers.labels + 1) % 3
        return answers, confidences

    monkeypatch.setattr(files, "onnx_answers", wrong)
    status, out, _ = run("run#0", "--onnx", "net.onnx")
    assert status == 4
    assert "DIFFER" in out


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("run#0", "export must have one of --onnx, --npz, --c, got none"),
        ("run#0 --int8", "--int8 must stand beside --c and --data, got no --c for 'run#0'"),
        ("run#0 --gated --npz net.npz", "--gated must stand beside --onnx, got none for 'run#0'"),
        ("run#0 --onnx no/net.onnx", "--onnx must be a .onnx file in an existing folder, got 'no/net.onnx'"),
        ("run#0 --npz run", "--npz must be a .npz file in an existing folder, got 'run'"),
        ("run#0 --onnx net", "--onnx must be a .onnx file in an existing folder, got 'net'"),
        ("run#0 --onnx", "--onnx must be a file, got no value"),
        ("run#0 --c /dev/null", "--c must be a folder in an existing folder, got '/dev/null'"),
        ("run#0 --c own.npz", "--c must be a folder in an existing folder, got 'own.npz'"),
        ("run#0 --npz pipe.npz", "--npz must be a .npz file in an existing folder, got 'pipe.npz'"),
        ("run#0 --onnx q.onnx --c ./q.onnx", "what is written must have different names, got q.onnx, q.onnx"),
        ("run#0 --c made --int8", "--int8 must stand beside --c and --data, got no --data for 'run#0'"),
        ("run#0 --npz net.npz --int8 --data own.npz", "--int8 must stand beside --c and --data, got no --c"),
        ("run#99 --npz net.npz", "run 'run' has "),
        ("run#0 --npz net.npz --data digits", "run run: its data set must be what it was, got other content"),
    ],
)
def test_what_cannot_be_exported_is_one_line(typed, message, run):
    if not os.path.lexists("pipe.npz"):
        os.mkfifo("pipe.npz")
    before = sorted(os.listdir())
    status, out, err = run(*typed.split())
    assert (status, out) == (2, "")
    assert err.startswith(f"error: {message}")
    assert sorted(os.listdir()) == before, "nothing was written"
    assert err.count("\n") == 1
