"""A network of a run trained again: a run like others, compared with the network before image by image."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from candidates import evaluation
from hypothesis import given
from hypothesis import strategies as st

import nachos_min
from nachos_min import cli
from nachos_min.eenn.lowering import StaticCosts
from nachos_min.eenn.recipes import DeepRecipe, PaperRecipe, RecipeError, passing
from nachos_min.eenn.thresholds import ExitTables, Figures
from nachos_min.errors import InputError
from nachos_min.nas.configuration import Configuration, load_problem
from nachos_min.nas.evaluation import Failure, Point, Trial
from nachos_min.nas.gain import Retrained, paired_gain, retrained_of
from nachos_min.nas.limits import Limits
from nachos_min.nas.result import Archive, SearchResult
from nachos_min.nas.retraining import Retraining
from nachos_min.nas.space import load_space
from nachos_min.report.search_report import VERDICTS, gain_sentence, gain_text

LIMITS = {"max_macs": 30_000, "min_accuracy": 0.5}
SEEDS = 2


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> SearchResult:
    """A run on own data, which are at 0.npz, and of an own space, whose file is gone."""
    folder, rng = tmp_path_factory.mktemp("runs"), np.random.default_rng(0)
    labels = np.arange(300) % 3
    images = rng.normal(0, 1.5, (300, 8, 8)) + (np.arange(8) // 3 == labels[:, None])[:, None]
    np.savez(folder / "0.npz", images=images.astype(np.float32), labels=np.array(["cat", "dog", "eel"])[labels])
    (folder / "own.toml").write_text(load_space("micro").text)
    options = {"space": folder / "own.toml", "evaluations": 2, "finalists": 0, "epochs": 1, "workers": 0, **LIMITS}
    found = nachos_min.search(data=folder / "0.npz", out=folder / "own", **options)
    assert found.front
    (folder / "own.toml").unlink()
    return found


@pytest.fixture(scope="module")
def after(before: SearchResult) -> SearchResult:
    return nachos_min.retrain(f"{before.run}#0", epochs=2, seeds=SEEDS, workers=0)


def test_the_result_is_a_run_of_the_same_genome_within_the_same_limits(
    before: SearchResult, after: SearchResult
) -> None:
    assert Path(after.run) == Path(before.run).with_name("own-0-2-epochs")
    assert (after.evaluated, after.failed, after.limits) == (SEEDS, 0, before.limits)
    assert {row.genome for row in after.front} == {before.front[0].genome}
    assert all(len(row.evaluation.losses) == 2 for row in after.front)
    assert nachos_min.load_run(after.run).as_dict() == after.as_dict() | {"reused": SEEDS}
    assert after.front[0].trained.thresholds == after.front[0].thresholds


def test_gains_are_differences_of_test_figures_at_no_more_cost(before: SearchResult, after: SearchResult) -> None:
    retrained, old = after.retrained, before.front[0]
    assert retrained is not None
    assert (retrained.of, retrained.epochs_before, retrained.epochs) == ("own#0", 1, 2)
    assert retrained.before.test_accuracy == old.test.accuracy
    assert [each.repeat for each in retrained.trainings] == [*range(SEEDS)]
    differences = []
    for each in retrained.trainings:
        differences.append(each.test_accuracy - old.test.accuracy)
        assert each.gain.difference == pytest.approx(differences[-1], abs=1e-15)
        if each.solution is not None:
            row = after.front[each.solution]
            assert (row.thresholds, row.test.accuracy) == (each.thresholds, each.test_accuracy)
            assert row.point.validation.total_macs <= old.point.validation.total_macs
            assert row.test.kept == each.kept
    assert any(each.solution is not None for each in retrained.trainings)
    assert retrained.mean.difference == pytest.approx(np.mean(differences))
    assert repr(retrained).startswith("<Retrained own#0: 2 x 2 epochs, ")


def test_the_same_call_goes_on_and_any_way_to_name_network_and_data_is_the_same(
    before: SearchResult, after: SearchResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more: dict[str, Any] = {"epochs": 2, "seeds": SEEDS, "workers": 0}
    moved = tmp_path / "moved.npz"
    moved.write_bytes(Path(before.run).with_name("0.npz").read_bytes())
    row = nachos_min.load_run(before.run).front[0]
    earlier = replace(row, evaluation=replace(row.evaluation, on_test=None))  # stored by an earlier version
    told: list[Retraining] = []
    again = nachos_min.retrain(earlier, data=moved, out=tmp_path / "other", on_plan=told.append, **more)
    assert again.as_dict() == after.as_dict() | {"run": again.run}
    assert told[0].lines()[0].startswith("own#0 is trained 2 times for 2 epochs; it had 1. ")
    assert nachos_min.retrain(row, out=tmp_path / "other", **more).reused == SEEDS
    monkeypatch.chdir(before.run)
    assert nachos_min.retrain(".#0", **more).as_dict() == after.as_dict() | {
        "run": "../own-0-2-epochs",
        "reused": SEEDS,
    }
    other = replace(row, point=replace(row.point, thresholds=(0.123,) * len(row.thresholds)))
    with pytest.raises(InputError, match="holds a run with retrained"):
        nachos_min.retrain(other, out=tmp_path / "other", **more)


def test_the_command_prints_what_each_training_gained(
    before: SearchResult, after: SearchResult, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["retrain", f"{before.run}#0", "--epochs", "2", "--seeds", f"{SEEDS}", "--workers", "0"]
    assert cli.main([*line, "--json", "--quiet"]) == 0
    assert json.loads(capsys.readouterr().out) == after.as_dict() | {"reused": SEEDS}
    assert after.retrained is not None
    assert cli.main(line) == 0
    trained = capsys.readouterr()
    assert cli.main(["show", after.run]) == 0
    assert capsys.readouterr().out == trained.out
    rows = trained.out[trained.out.index("own#0 after 1 epoch, and trained again for 2:") :]
    assert all(gain_text(each.gain) in rows for each in after.retrained.trainings)
    assert gain_text(after.retrained.mean) in rows
    assert VERDICTS[after.retrained.verdict] in rows
    assert cli.main(["report", after.run]) == 0
    assert gain_sentence(after.retrained) in (Path(after.run) / "report.html").read_text()
    capsys.readouterr()
    assert cli.main(["retrain", f"{before.run}#99"]) == 2
    assert "solutions, numbered from 0, got 99" in capsys.readouterr().err


def test_what_is_refused(before: SearchResult, tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", images=np.random.default_rng(1).random((90, 8, 8)), labels=np.arange(90) % 3)
    row, out = before.front[0], tmp_path / "never"
    for options, rule in (
        ({"data": tmp_path / "other.npz"}, "its data set must be what it was, got other content"),
        ({"epochs": 0}, "epochs must be a whole number from 1 to 2\\^20 - 1, got 0"),
        ({"seeds": True}, "seeds must be a whole number from 1 to 2\\^20 - 1, got True"),
        ({"workers": -1}, "workers must be a whole number from 0 to 2\\^12 - 1, got -1"),
    ):
        with pytest.raises(InputError, match=rule):
            nachos_min.retrain(row, **dict[str, Any](options), out=out)
    with pytest.raises(InputError, match="network must be a row of a result"):
        nachos_min.retrain(replace(row, problem=None), out=out)
    assert not out.exists()


def test_passing_keeps_all_but_the_epochs() -> None:
    assert passing(DeepRecipe(rate=0.5, epochs=3), 7) == DeepRecipe(rate=0.5, epochs=7)
    assert passing(PaperRecipe(batch=9, joint=False), 8) == PaperRecipe(4, 2, 2, batch=9, joint=False)
    with pytest.raises(RecipeError, match="epochs must be >= 2"):
        passing(PaperRecipe(), 1)


# The comparison, on made-up answers: a network of two exits, of 10 and 60 MACs, of 4 validation samples.

BEFORE = {
    "of": "run#3",
    "epochs": 1,
    "figures": {"average_macs": 22.5, "test_accuracy": 0.5, "test_average_macs": 22.5},
    "validation_macs": 90,
    "labels": np.array([0, 0, 1, 1]),
    "right": np.array([True, False, True, False]),
}


def trained(repeat: int, *points: tuple[int, int], test: tuple[int, ...]) -> Any:
    """A training whose points have (right, MACs) on validation; exit 1 answers the test samples with `test`."""
    found = [Figures(right, 4, (4, 0), macs) for right, macs in points]
    curve = tuple(Point((index / 10, 0.0), each, each) for index, each in enumerate(found))
    answers = np.array([test, (0, 0, 1, 1)]).T
    tables = ExitTables(np.array([[0.05, 1.0]] * 4), answers)
    return evaluation(
        Trial((1,), repeat=repeat), found[0], costs=StaticCosts((10, 60), 10, 64), points=curve, on_test=tables
    )


def compared(*evaluated: Any, metric: str = "accuracy") -> Retrained | None:
    given: dict[str, Any] = {"points": "best", "aims": "ends", "metric": metric}
    configuration = Configuration("digits", "micro", Limits(30, 0.5), 0, **given)
    problem = load_problem(configuration)
    archive = Archive(replace(problem, about={**problem.about, "retrained": BEFORE}), evaluated)
    front = [replace(row, solution=place) for place, row in enumerate(archive.admissible)]
    return retrained_of(archive, front)


def chosen(*points: tuple[int, int]) -> tuple[float, float]:
    """(right, MACs) of the point that stands for a training with these points; figures of all splits are alike."""
    found = compared(trained(0, *points, test=(0, 0, 0, 0)))
    assert found is not None
    return 4 * found.trainings[0].test_accuracy, 4 * found.trainings[0].test_average_macs


def test_the_point_compared_is_the_most_accurate_that_costs_no_more() -> None:
    assert chosen((3, 90), (2, 80), (4, 91)) == (3, 90)
    assert chosen((3, 90), (3, 80)) == (3, 80)
    assert chosen((4, 110), (3, 100)) == (3, 100), "all cost more: the cheapest"
    assert chosen((3, 90), (1, 80)) == (3, 90), "a point that breaks a limit does not count"
    assert chosen((1, 90)) == (1, 90), "unless there is no other"


def test_trainings_that_failed_do_not_count_and_a_run_may_have_no_comparison() -> None:
    right = trained(1, (3, 90), test=(0, 0, 1, 1))  # thresholds 0: everything leaves at exit 1
    found = compared(Failure(Trial((1,)), "DivergenceError: no"), right, trained(2, (1, 90), test=(1, 1, 0, 1)))
    assert found is not None
    assert [each.gain.difference for each in found.trainings] == [0.5, -0.25]
    assert [(each.kept, each.solution) for each in found.trainings] == [(True, 0), (False, None)]
    assert found.mean == paired_gain(np.array([-0.5, 0.5, -0.5, 1.0])), "of the mean of both, image by image"
    assert compared() is None


@given(st.lists(st.sampled_from([-1.0, 0.0, 0.5, 1.0]), min_size=1, max_size=30))
def test_an_interval_has_a_width_and_turns_with_its_differences(differences: list[float]) -> None:
    values = np.array(differences)
    found, turned = paired_gain(values), paired_gain(-values)
    (low, high), added = found.interval95, np.array([*differences, 1.0, -1.0])
    assert low < found.difference < high or abs(found.difference) == 1.0
    assert turned.interval95 == (-high, -low)
    half = 1.96 * added.std() / np.sqrt(len(added))
    assert high == pytest.approx(min(1.0, values.mean() + half), abs=1e-4)


def test_small_classes_count_as_much_as_large_ones() -> None:
    many, few = np.ones(90), -np.ones(10)
    differences, labels = np.concatenate([many, few]), np.repeat([0, 1], [90, 10])
    assert paired_gain(differences).interval95[0] > 0 > paired_gain(-differences).interval95[1]
    low, high = paired_gain(differences, labels).interval95
    assert low == -high < 0
