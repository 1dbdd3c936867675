"""Damaged runs: a search trains again what is damaged and ends with the same bytes; readers say one line."""

import json
import os
import random
import shutil
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import damaged_runs
import numpy as np
import pytest

import nachos_min
from nachos_min import cli
from nachos_min.errors import InputError
from nachos_min.nas.records import from_record, trial_key
from nachos_min.nas.runs import open_run, stored_problem
from nachos_min.report.run_report import page, read_story
from nachos_min.store.values import decode, encode

pytestmark = pytest.mark.skipif(os.name == "nt", reason="links need rights on Windows, which has no such pipes")
OPTIONS: dict[str, Any] = {
    "space": "micro",
    "evaluations": 2,
    "epochs": 1,
    "finalists": 0,
    "workers": 0,
    "min_accuracy": 0,
}
# What the seal alone guards: nothing else in a run says what it is. Thresholds between the same two confidences,
# and a type whose bytes have no order, are the same.
FREE = (
    "losses",
    "calibration.correct: ",
    "test.correct: ",
    "thresholds.",
    "thresholds: reversed",
    "on_test.predicted: big-endian",
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the runs `run` and `other`, of another seed."""
    folder = tmp_path_factory.mktemp("runs")
    for out, seed in (("run", 0), ("other", 1)):
        nachos_min.search(**OPTIONS, out=folder / out, seed=seed, method="random")
    return folder


@pytest.fixture
def place(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a copy of both runs."""
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(function: Callable[..., Any], *arguments: Any) -> bool:
    """Whether an InputError of one line is raised; no other error may be."""
    try:
        function(*arguments)
    except InputError as error:
        return str(error).isprintable()
    return False


def search(out: Path) -> str:
    found = nachos_min.search(**OPTIONS, out=out, seed=0, method="random").as_dict()
    return json.dumps(found | {"reused": None, "run": None})


@pytest.mark.parametrize("with_data", [True, False])
def test_each_damaged_field_of_an_evaluation_is_refused(whole: Path, with_data: bool) -> None:
    """With the data, as in a search, also fields that have changed places."""
    problem, run = stored_problem(whole / "run", with_data=with_data), open_run(whole / "run")
    record = run.read(run.keys()[0]) or {}

    def read(changed: dict[str, Any]) -> None:
        if trial_key(from_record(changed, problem).trial) != run.keys()[0]:
            raise InputError("another evaluation")

    read(record)
    free = FREE if with_data else (*FREE, "validation.correct: ", "tables.predicted: ", "curve.correct: ")
    names = [*record["weights"]][1:]  # one is damaged in each way, the others are as they are
    others = {name: record["weights"].pop(name) for name in names}
    accepted, forms = [], 0
    for damage in (damaged_runs.damages, damaged_runs.shuffled)[: 1 + with_data]:
        for done, changed in damage(record, random.Random(0)):
            if isinstance(weights := changed.get("weights"), dict) and weights:
                changed = changed | {"weights": weights | others}
            forms += 1
            if not refused(read, changed) and not done.startswith(free):
                accepted.append(done)
    optional = {f"{name}: removed" for name in ("curve", "on_test", "temperatures")}  # their seal names all fields
    lazily = {each for each in accepted if each.startswith("weights.") and (not with_data or "turned" in each)}
    assert {*accepted} - optional - lazily == set()
    assert forms > 800


def test_each_damaged_field_of_run_h5_is_refused_or_meant(place: Path) -> None:
    file = place / "run" / "run.h5"
    record = decode(file)
    del record["identity"]
    record["configuration"]["space_content"] = {}  # compared as a whole
    accepted = set()
    for done, changed in islice(damaged_runs.damages(record, random.Random(0)), 0, None, 11):
        try:
            file.write_bytes(encode(changed))
        except InputError:
            continue  # such a value cannot be stored
        if not refused(lambda: (open_run("run"), stored_problem("run"))):
            accepted.add(done)
    assert not [each for each in accepted if not each.startswith(("configuration.", "about."))]


def test_damage_that_other_fields_do_not_show_is_shown_by_the_seal(place: Path) -> None:
    run = open_run("run")
    file = place / "run" / "evaluations" / f"{run.keys()[0]}.h5"
    for name in ("on_test", "calibration"):
        content = file.read_bytes()
        damaged_runs.sealed(file, lambda record, name=name: record.pop(name))
        assert refused(nachos_min.load_run, "run")
        file.write_bytes(content)


def test_a_search_trains_again_what_is_damaged_and_ends_with_the_same_bytes(place: Path) -> None:
    rng, before, result = random.Random(1), damaged_runs.snapshot(place / "run"), search(place / "run")
    one, two = sorted((place / "run" / "evaluations").iterdir())
    damaged_runs.sealed(one, lambda record: record.update(correct=1))
    two.write_bytes(one.read_bytes())
    (place / "run" / "order.h5").write_bytes(b"")
    (place / "run" / "examples.h5").write_bytes(rng.choice([*before.values()]))
    assert refused(nachos_min.load_run, "run")
    with pytest.warns(UserWarning, match=r" is damaged: .*; it is trained again$"):
        assert search(place / "run") == result
    assert damaged_runs.snapshot(place / "run") == before
    two.write_bytes((place / "other" / "evaluations" / sorted(os.listdir("other/evaluations"))[0]).read_bytes())
    damaged_runs.sealed(one, lambda record: record.update(weights={"stem": np.ones(3, np.float32)}))
    with pytest.warns(UserWarning, match=r" is damaged: .*; it is trained again$"):
        assert search(place / "run") == result
    assert damaged_runs.snapshot(place / "run") == before


def test_readers_say_one_line_for_what_is_done_to_any_file(whole: Path, place: Path) -> None:
    """None hangs on a pipe, follows a link or changes a byte; the run is put back after each."""
    for done, damage in damaged_runs.damaged_files(random.Random(2), place / "run", place / "other").items():
        shutil.rmtree(place / "run")
        shutil.copytree(whole / "run", place / "run")
        damage()
        before = damaged_runs.snapshot(place)
        told = refused(nachos_min.load_run, "run"), refused(lambda: page(read_story("run")))
        assert any(told), done
        assert damaged_runs.snapshot(place) == before, done


@pytest.mark.parametrize(
    "line",
    [
        "show run",
        "macs run#0",
        "report run",
        "compare run other",
        "predict run#0 digits",
        "export run#0 --npz x.npz",
    ],
)
def test_each_command_refuses_a_damaged_evaluation(place: Path, line: str, capsys: Any) -> None:
    for file in (place / "run" / "evaluations").iterdir():
        damaged_runs.sealed(file, lambda record: record["validation"].update(correct=10**6))
    assert cli.main(line.split()) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "is damaged: validation.correct must be at most 140, got" in err
