"""A finished run is used without its data, wherever it lies: predictions, their figures, its examples."""

import csv
import io
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nachos_min
from nachos_min import cli
from nachos_min.eenn.thresholds import confusion_by_exit
from nachos_min.errors import InputError
from nachos_min.nas.limits import Limits
from nachos_min.nas.result import SearchResult
from nachos_min.nas.runs import examples, solution
from nachos_min.report.prediction_report import report_prediction, show_prediction
from nachos_min.store import create_or_open, open_run

SMALL: dict[str, Any] = {
    "layout": "chw",
    "space": "tiny",
    "max_macs": 80_000,
    "min_accuracy": 0.0,
    "evaluations": 3,
    "epochs": 3,
    "finalists": 0,
    "workers": 0,
}


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where a search was made: "run", and its data, which have moved: colour images, channels first, with words."""
    folder, rng = tmp_path_factory.mktemp("there"), np.random.default_rng(2)
    labels = np.arange(240) % 3
    images = rng.integers(0, 200, (240, 3, 9, 8)) + 20 * (np.arange(3) == labels[:, None])[:, :, None, None]
    np.savez(folder / "data.npz", images=images.astype(np.uint8), labels=np.array(["ant", "bee", "cat"])[labels])
    nachos_min.search(data=folder / "data.npz", out=folder / "run", **SMALL)
    (folder / "data.npz").rename(folder / "elsewhere.npz")
    return folder


@pytest.fixture
def moved(there: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SearchResult:
    """The run alone, in another folder."""
    shutil.copytree(there / "run", tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    result = nachos_min.load_run("mine")
    assert result.front
    return result


def test_predictions_give_the_stored_test_figures_without_the_data(moved: SearchResult) -> None:
    kept = examples("mine")
    assert len(kept.images) == len(kept.labels) == len(kept.rows) == 48
    images = kept.images.transpose(0, 3, 1, 2)
    for network in moved.front:
        found, tables = network.predict(images), network.evaluation.on_test
        right = network.trained.seen.labels(kept.labels)
        confusion, by_class = network.confusion(images, right), network.exits_by_class(images, right)
        assert np.count_nonzero(found.labels == right) == network.test.correct == np.trace(confusion)
        assert found.macs.sum() == network.test.total_macs
        assert tuple(np.bincount(found.exits, minlength=len(network.exits))) == network.test.exit_counts
        assert tuple(by_class.sum(axis=0)) == network.test.exit_counts
        assert set(found.labels) <= {"ant", "bee", "cat"}
        np.testing.assert_array_equal(confusion.sum(axis=1), np.bincount(kept.labels))
        np.testing.assert_allclose(found.probabilities.sum(axis=1), 1.0)
        np.testing.assert_array_equal(found.probabilities.argmax(axis=1), found.classes)
        assert tables is not None
        np.testing.assert_allclose(found.confidence, tables.confidence[np.arange(48), found.exits], 1e-6)
        counted = confusion_by_exit(tables, network.thresholds, kept.labels, 3)
        np.testing.assert_array_equal(counted.sum(axis=0), confusion)
        np.testing.assert_array_equal(counted.sum(axis=(1, 2)), network.test.exit_counts)


def test_one_image_and_none(moved: SearchResult) -> None:
    network, images = moved.front[-1], examples("mine").images.transpose(0, 3, 1, 2)
    many, one = network.predict(images), network.predict(images[7].tolist())
    for name in ("labels", "classes", "exits", "macs"):
        np.testing.assert_array_equal(getattr(one, name), getattr(many, name)[7:8], strict=True)
    np.testing.assert_allclose(one.probabilities, many.probabilities[7:8], 1e-4, 1e-6)
    assert repr(one) == f"Prediction of 1 image: {one.labels[0]}, {one.macs[0]:,} MACs on average"
    none = network.predict(images[:0])
    assert (len(none), none.probabilities.shape, repr(none)) == (0, (0, 3), "Prediction of 0 images")


def test_softmax_probabilities_are_the_confidence(moved: SearchResult) -> None:
    images = examples("mine").images
    for network in moved.front:
        if network.confidence == "softmax":
            found = network.trained.answers(images)
            first = found.exits == 0
            if len(network.exits) > 1:
                np.testing.assert_allclose(found.probabilities.max(axis=1)[first], found.confidence[first], 1e-6)


@pytest.mark.parametrize(
    ("labels", "rule"),
    [
        (["ant"], "labels must be one for each of 2 images, got 1"),
        (["ant", "dog"], r"labels must each be one of the run's \(ant, bee, cat\), got 'dog'"),
    ],
)
def test_labels_fit_the_images(moved: SearchResult, labels: list[str], rule: str) -> None:
    with pytest.raises(InputError, match=rule):
        moved.front[0].confusion(examples("mine").images[:2].transpose(0, 3, 1, 2), labels)


def test_weights_that_were_removed_or_are_of_another_network_are_refused(moved: SearchResult) -> None:
    trained = moved.front[0].trained
    with pytest.raises(InputError, match="mine#0: weights must be 7,415 numbers or more, got 0"):
        replace(trained, weights={}).predict(np.zeros((3, 9, 8), np.uint8))
    again = nachos_min.load_run("mine").front[0]
    shutil.rmtree("mine/evaluations")
    with pytest.raises(InputError, match=r"run mine must hold its evaluation .* as it was, got none"):
        again.predict(np.zeros((3, 9, 8), np.uint8))


def test_masked_images_are_refused(moved: SearchResult) -> None:
    with pytest.raises(InputError, match="images must be a plain array, got a MaskedArray"):
        moved.front[0].predict(np.ma.masked_less(examples("mine").images, 9))


def test_channels_in_another_order_are_refused(moved: SearchResult) -> None:
    with pytest.raises(InputError, match="must have channels first"):
        moved.front[0].predict(examples("mine").images)


def test_a_network_is_found_by_the_name_of_its_run_and_its_number(moved: SearchResult) -> None:
    assert solution("mine#0") == moved.front[0]
    for name in ("mine", "mine#", "mine#-1", "mine#x", "#0", "mine#1000000000"):
        with pytest.raises(InputError, match=r"a network must be RUN#k"):
            solution(name)
    with pytest.raises(InputError, match=rf"run 'mine' has {len(moved.front)} solutions, numbered from 0, got 99"):
        solution("mine#99")
    with pytest.raises(InputError, match="run none does not exist"):
        solution("none#0")


def test_an_older_run_is_made_whole_by_the_same_search(moved: SearchResult, there: Path) -> None:
    run = open_run("mine")
    older = {name: run.about[name] for name in ("image_shape", "classes", "class_names")}
    create_or_open("older", run.configuration, older).close()
    shutil.copytree("mine/evaluations", "older/evaluations", dirs_exist_ok=True)
    with pytest.raises(
        InputError, match=r"run older was stored by an earlier version, .* the same search with its"
    ):
        nachos_min.load_run("older").front[0].predict(np.zeros((3, 9, 8)))
    with pytest.raises(InputError, match=r"run older was stored by an earlier version, without test images"):
        examples("older")
    again = nachos_min.search(data=there / "elsewhere.npz", out="older", **SMALL)
    assert (again.reused, again.front) == (moved.evaluated, moved.front)
    images = examples("older").images.transpose(0, 3, 1, 2)
    found, expected = (row.predict(images) for row in (nachos_min.load_run("older").front[0], moved.front[0]))
    np.testing.assert_array_equal(found.confidence, expected.confidence)
    create_or_open("oldest", run.configuration).close()
    rule = r"run oldest was stored by an earlier version, which needs its data; .* --data .* which does not exist"
    with pytest.raises(InputError, match=rule):
        nachos_min.load_run("oldest")
    without = replace(moved.front[0], evaluation=replace(moved.front[0].evaluation, weights={}))
    with pytest.raises(InputError, match="run mine has no weights: a table answered"):
        without.predict(images)


def test_the_command_predicts_the_test_split_of_the_runs_own_data(
    moved: SearchResult, there: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network, data = moved.front[0], str(there / "elsewhere.npz")
    assert cli.main(["predict", "mine#0", data, "--to", "answers.csv", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {name: found[name] for name in network.test.as_dict()} == network.test.as_dict()
    assert (found["split"], found["own_data"]) == ("test", True)
    answers = found["answers"]
    assert sum(answers["macs"]) == found["total_macs"] == network.test.total_macs
    with open("answers.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["answer"] for row in rows] == answers["answer"]
    assert [int(row["sample"]) for row in rows] == answers["sample"]
    assert sum(row["answer"] == row["label"] for row in rows) == network.test.correct
    assert [int(row["stage"]) for row in rows] == [network.exits[int(row["exit"])] for row in rows]
    assert cli.main(["predict", "--json", "mine#0", data, "--split", "all"]) == 0
    whole = json.loads(capsys.readouterr().out)["answers"]
    assert sorted(whole["sample"]) == [*range(240)]
    assert dict(zip(whole["sample"], whole["answer"], strict=True)).items() >= {
        *zip(answers["sample"], answers["answer"], strict=True)
    }
    assert cli.main(["predict", "mine#0", data]) == 0
    text = capsys.readouterr().out
    assert text.startswith(
        f"mine#0 on {data}, split test of the run's own data: 48 images of 9x8 pixels, 3 channels\n"
    )
    assert f"accuracy {network.test.accuracy:.1%}, 95% interval" in text
    assert f"{network.test.average_macs:,.0f} MACs on average" in text
    assert network.test.kept
    assert "limit" not in text


def test_a_limit_that_is_missed_is_said(moved: SearchResult, there: Path) -> None:
    told, report = io.StringIO(), report_prediction("mine#0", str(there / "elsewhere.npz"))
    show_prediction(replace(report, network=replace(moved.front[0], limits=Limits(1, 0.0))), told)
    assert "\nA limit of the search is missed here.\n" in told.getvalue()


@pytest.mark.usefixtures("moved")
def test_the_command_lists_the_answers_to_few_images_without_labels(capsys: pytest.CaptureFixture[str]) -> None:
    np.save("photo.npy", examples("mine").images[5].transpose(2, 0, 1))
    assert cli.main(["predict", "mine#0", "photo.npy", "--to", "answers.csv"]) == 0
    first, second, _, names, _, row, *_, last = capsys.readouterr().out.splitlines()
    assert first == "mine#0 on photo.npy: 1 image of 9x8 pixels, 3 channels"
    assert "MACs on average" in second
    assert names.split() == ["sample", "answer", "probability", "stage", "MACs"]
    assert row.split()[0] == "0"
    assert row.split()[1] in {"ant", "bee", "cat"}
    assert last == "written: answers.csv"
    assert cli.main(["predict", "mine#0", "photo.npy", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert "accuracy" not in found
    assert (found["samples"], found["split"], found["own_data"]) == (1, "all", False)


@pytest.mark.usefixtures("moved")
@pytest.mark.parametrize(
    ("line", "said"),
    [
        (["mine#0"], "predict needs a NETWORK and one DATA, got only 'mine#0'"),
        ([], "predict needs a NETWORK and one DATA, got none; try python -m nachos_min predict --help"),
        (["mine", "digits"], "a network must be RUN#k, k the number of a solution, got 'mine'"),
        (["mine#0", "nowhere"], "data must be one of the built-in names"),
        (["mine#0", "digits"], "digits: images must be [N, 3, 9, 8] or [3, 9, 8], as in training, got shape"),
        (["mine#0", "digits", "--to", "no/a.csv"], "--to must be a file in an existing folder, got 'no/a.csv'"),
        (
            ["mine#0", "digits", "--to", os.devnull],
            f"--to must be a file in an existing folder, got '{os.devnull}'",
        ),
        (
            ["mine#0", "digits", "--split", "half"],
            "--split must be one of train, validation, calibration, test, all",
        ),
    ],
)
def test_the_command_refuses_in_one_line(line: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["predict", *line]) == 2
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith(f"error: {said}")
    assert told.err.count("\n") == 1
