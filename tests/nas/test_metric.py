"""A search by balanced accuracy: what it refuses, its figures, its store, its JSON and its table for people."""

import io
import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import nachos_min
from nachos_min.data import load
from nachos_min.eenn.threshold_search import best_thresholds
from nachos_min.eenn.thresholds import SplitLimits, apply_thresholds
from nachos_min.errors import InputError
from nachos_min.nas.aims import log_odds_at_shares
from nachos_min.nas.configuration import configuration_of, configure, load_problem, resolved
from nachos_min.nas.evaluate import evaluate
from nachos_min.nas.evaluation import Evaluation, Trial
from nachos_min.nas.records import from_record, to_record
from nachos_min.nas.result import Archive, SearchResult, result_of
from nachos_min.nas.runs import stored_evaluations
from nachos_min.report.search_report import show_result
from nachos_min.store import open_run
from nachos_min.store.values import decode, encode

pytest.importorskip("bench.tabulation", reason="an installed copy has no bench")

MICRO = Path(__file__).parents[2] / "bench" / "micro-digits-paper.h5"
SMALL: dict[str, Any] = {"space": "micro", "max_macs": 40_000, "confidence": "learned", "metric": "balanced"}
TABLE = SMALL | {"table": MICRO, "recipe": "paper", "standardise": "pixel", "validation": "whole"}
TABLE |= {"min_accuracy": 0.9, "evaluations": 15, "max_worst_macs": None, "aims": "budgets"}


def classes_of(labels: np.ndarray, right: np.ndarray) -> float:
    """The mean, over the classes that occur, of the share of right answers."""
    shares = [Fraction(int(right[labels == c].sum()), int((labels == c).sum())) for c in np.unique(labels)]
    return float(sum(shares, Fraction(0)) / len(shares))


@pytest.fixture(scope="module")
def noise(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images that say nothing about their class; 90 % are of class 0, and that answer is right for these."""
    rng = np.random.default_rng(0)
    file = tmp_path_factory.mktemp("noise") / "noise.npz"
    labels = (np.arange(400) % 10 == 0).astype(np.int64)
    np.savez(file, images=rng.integers(0, 256, (400, 8, 8, 1), np.uint8), labels=labels)
    return file


def evaluated(noise: Path, **options: Any) -> tuple[Archive, Evaluation]:
    """An archive of one network that was trained on the noise."""
    given: Any = SMALL | {"data": str(noise), "min_accuracy": 0.7, "epochs": 3} | options
    problem = load_problem(configure(resolved(given)))
    trial = Trial(problem.coder.sample(np.random.default_rng(3)))
    found = evaluate(problem.coder, problem.dataset, problem.configuration.acting, trial)
    return Archive(problem, [found]), found


def result(archive: Archive) -> SearchResult:
    return result_of(archive, Path("runs/noise"), reused=0, inadmissible=0)


def test_the_answer_that_is_always_the_same_keeps_no_limit_on_balanced_accuracy(noise: Path) -> None:
    plain, balanced = (evaluated(noise, metric=metric) for metric in ("accuracy", "balanced"))
    front = result(plain[0]).front
    assert front
    assert all(row.accuracy > 0.85 for row in front)
    assert all(row.balanced_accuracy is None for row in front)
    assert not balanced[0].admissible
    found = result(balanced[0])
    assert found.front == ()
    assert found.closest is not None
    assert found.closest.accuracy > 0.85
    assert found.closest.balanced_accuracy == pytest.approx(0.5, abs=0.1)
    for weights, same in zip(plain[1].weights.values(), balanced[1].weights.values(), strict=True):
        assert weights.tobytes() == same.tobytes(), "training is the same"
    shown = io.StringIO()
    show_result(found, shown)
    assert "(balanced accuracy >= 0.7 at" in shown.getvalue()


def test_figures_are_those_of_the_answers_and_survive_the_store(noise: Path, tmp_path: Path) -> None:
    archive, found = evaluated(noise, min_accuracy=0.0)
    labels = archive.problem.dataset.validation.labels
    assert len(found.points) > 1
    for point in found.points:
        left = apply_thresholds(found.tables.confidence, point.thresholds)
        right = found.tables.predicted[np.arange(len(labels)), left] == labels
        assert point.validation.balanced_accuracy == classes_of(labels, right)
        assert point.validation.correct == right.sum()
        for split in (point.validation, point.test, point.calibration):
            assert split is not None
            assert (sum(split.class_correct), sum(split.class_samples)) == (split.correct, split.samples)
    (tmp_path / "one.h5").write_bytes(encode(to_record(found)))
    again = from_record(decode(tmp_path / "one.h5"))
    assert again == found
    assert encode(to_record(again)) == encode(to_record(found))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> SearchResult:
    return nachos_min.search(**TABLE, out=tmp_path_factory.mktemp("run"))


def test_a_search_answered_from_a_table_is_by_balanced_accuracy(finished: SearchResult) -> None:
    assert finished.front
    rows = [row.as_dict() for row in finished.front]
    for row, figures in zip(rows, (row.point.validation for row in finished.front), strict=True):
        assert Fraction(figures.score, figures.full_score) >= Fraction(9, 10)
        assert row["balanced_accuracy"] == figures.score / figures.full_score
        assert (row["accuracy"], row["correct"]) == (figures.correct / figures.samples, figures.correct)
        low, high = row["test"]["balanced_interval95"]
        assert low <= row["test"]["balanced_accuracy"] <= high
        assert row["test"]["interval95"][0] <= row["test"]["accuracy"] <= row["test"]["interval95"][1]
    order = [(-row["balanced_accuracy"], row["average_macs"]) for row in rows]
    assert order == sorted(order)
    kept = [row.test.score * 10 >= row.test.full_score * 9 for row in finished.front]
    within = [row.test.total_macs <= 40_000 * row.test.samples for row in finished.front]
    assert [row.test.kept for row in finished.front] == [a and b for a, b in zip(kept, within, strict=True)]
    shown = io.StringIO()
    show_result(finished, shown)
    assert "balanced" in shown.getvalue().splitlines()[0]


def test_the_json_gains_keys_and_a_run_read_again_gives_them(finished: SearchResult, tmp_path: Path) -> None:
    again = nachos_min.load_run(finished.run).as_dict() | {"reused": 0}
    assert json.dumps(again, allow_nan=False) == json.dumps(finished.as_dict(), allow_nan=False)
    assert again["constraints"]["metric"] == "balanced"
    tighter = nachos_min.load_run(finished.run, min_accuracy=0.95).front
    assert 0 < len(tighter) < len(finished.front)
    assert all(Fraction(row.point.validation.score, row.point.validation.full_score) >= 0.95 for row in tighter)
    plain = nachos_min.search(**TABLE | {"metric": None, "evaluations": 6}, out=tmp_path).as_dict()
    assert "metric" not in plain["constraints"]
    for ours, theirs in ((again["front"][0], plain["front"][0]), (again["front"][0]["test"],) * 2):
        extra = {"balanced_accuracy", "balanced_interval95"} & set(ours)
        assert set(ours) - extra == set(theirs) - extra
    assert not any("balanced" in name for row in plain["front"] for name in {**row, **row["test"]})


def test_the_metric_is_part_of_the_run(finished: SearchResult, tmp_path: Path) -> None:
    identity = open_run(finished.run).configuration
    assert identity["metric"] == configuration_of(identity).metric == "balanced"
    plain: Any = TABLE | {"metric": None}
    assert "metric" not in load_problem(configure(resolved(plain))).identity()
    with pytest.raises(InputError, match="metric"):
        nachos_min.search(**plain, out=finished.run)
    with pytest.raises(InputError, match="metric must be one of"):
        nachos_min.search(**TABLE | {"metric": "top-1"}, out=tmp_path)
    with pytest.raises(InputError, match="guarantee needs metric accuracy, got 'balanced'"):
        nachos_min.search(**TABLE | {"validation": "halves", "guarantee": 0.9}, out=tmp_path)
    with pytest.raises(InputError, match="guarantee needs metric accuracy, got 'balanced'"):
        nachos_min.load_run(finished.run, guarantee=0.9)


def test_targets_of_surrogates_are_of_balanced_accuracy(finished: SearchResult) -> None:
    labels = load("digits", "pixel", "whole").validation.labels
    found = next(each for each in stored_evaluations(finished.run) if isinstance(each, Evaluation))
    policy = found.tables.policy_tables(labels, found.costs.exit_costs, balanced=True)
    best = best_thresholds(policy, SplitLimits(0, None)).figures
    right = best.metric * len(labels)
    expected = np.log((len(labels) - right + 0.5) / (right + 0.5))
    assert log_odds_at_shares(found, labels, balanced=True)[-1] == pytest.approx(expected, abs=1e-9)
    assert log_odds_at_shares(found, labels)[-1] != pytest.approx(expected, abs=1e-9)
