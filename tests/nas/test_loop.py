"""The loop without training: what it evaluates, in which order, and when it stops.

A stand-in for the workers makes figures from a candidate's genome at once, so that whole searches are cheap.
"""

import errno
import json
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from candidates import Answer, evaluation, instant

import nachos_min
from nachos_min.data import load
from nachos_min.eenn.lowering import static_costs
from nachos_min.eenn.recipes import PaperRecipe
from nachos_min.eenn.thresholds import ExitTables, Figures
from nachos_min.errors import InputError
from nachos_min.files import replacing
from nachos_min.nas import fitting, nachos
from nachos_min.nas.configuration import configuration_of, configure
from nachos_min.nas.evaluate import seeded
from nachos_min.nas.evaluation import Evaluation, Failure, Point, Trial
from nachos_min.nas.genome import Genome, GenomeCoder
from nachos_min.nas.limits import StaticCheck
from nachos_min.nas.nsga2 import minimize
from nachos_min.nas.progress import Progress
from nachos_min.nas.records import key, to_record
from nachos_min.nas.result import Archive, SearchResult
from nachos_min.nas.runs import stored_evaluations, stored_problem
from nachos_min.nas.sampling import filling_genomes, random_genomes, rule_genomes
from nachos_min.store import create_or_open, open_run
from nachos_min.store import run as store

pytestmark = pytest.mark.usefixtures("made_up")
PAPER = {"recipe": "paper", "standardise": "pixel"}
LABELS = load("digits", validation="halves").validation.labels
Run = Callable[..., SearchResult]


def figures(coder: GenomeCoder, trial: Trial, correct: int | None = None) -> Evaluation:
    """An evaluation of 100 samples, half of which leave first: more MACs, more right answers."""
    architecture = coder.decode(trial.genome)
    costs = static_costs(architecture)
    middle = [0] * (len(costs.exit_costs) - 2)
    total = 50 * (costs.exit_costs[0] + costs.exit_costs[-1])
    right = min(99, total // 60_000 + sum(trial.genome)) if correct is None else correct
    longer = min(100, right + trial.effort - 1)  # longer training gives more right answers
    shown, test = (Figures(n, 100, (50, *middle, 50), total) for n in (longer, right))
    point = Point((0.5, *map(float, middle), 0.0), shown, test)
    confidence = np.ones((len(LABELS), len(costs.exit_costs)))
    confidence[::2, :-1] = 0.0
    predicted = LABELS + (np.arange(len(LABELS)) % 100 >= right)  # by all exits alike
    tables = ExitTables(confidence, np.repeat(predicted[:, None], confidence.shape[1], axis=1))
    return evaluation(trial, shown, points=(point,), exits=architecture.exit_stages, costs=costs, tables=tables)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Run:
    small = {"initial": 8, "chosen": 4, "generations": 5, "patience": 2}
    monkeypatch.setattr(fitting, "configure", lambda asked: replace(configure(asked), **small))

    def search(
        out: Path,
        answer: Answer = figures,
        *,
        backwards: bool = False,
        evaluations: int = 18,
        clock: Callable[[], float] = float,
        **options: Any,
    ) -> SearchResult:
        monkeypatch.setattr(nachos, "Workers", instant(answer, backwards, clock))
        given = {"space": "micro", "max_macs": 40_000, "min_accuracy": 0.2, "evaluations": evaluations, "out": out}
        return nachos_min.search(**given | {"finalists": 0} | options)

    return search


def same_part(result: SearchResult) -> str:
    return json.dumps(result.as_dict() | {"run": None, "reused": None}, sort_keys=True)


def check_again(again: SearchResult, first: SearchResult, reused: int) -> None:
    """Check that a run continued, and read, is the first."""
    assert again.reused == reused
    assert same_part(again) == same_part(first) == same_part(nachos_min.load_run(again.run))


def diverged(_: GenomeCoder, trial: Trial) -> Failure:
    return Failure(trial, "DivergenceError: no")


def stored(folder: Path) -> set[str]:
    return {file.name for file in (folder / "evaluations").iterdir()}


@pytest.mark.filterwarnings("ignore:.*; it is trained again")
def test_a_run_is_the_same_whoever_is_done_first_and_wherever_it_was_cut(run: Run, tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", seed=1)
    assert whole.evaluated == 18
    assert same_part(run(tmp_path / "backwards", seed=1, backwards=True)) == same_part(whole)
    for cut in (3, 10, 15):
        folder = tmp_path / str(cut)
        assert run(folder, seed=1, evaluations=cut).evaluated == cut
        check_again(run(folder, seed=1), whole, reused=cut)
        assert stored(folder) == stored(tmp_path / "whole")
    damaged = min((folder / "evaluations").iterdir())  # it is trained again
    damaged.write_bytes(damaged.read_bytes()[:1000])
    check_again(run(folder, seed=1), whole, reused=17)


@pytest.mark.parametrize("number", [0, 1, 2, 5, 9, 10])
def test_a_disk_that_is_full_at_any_write_ends_a_search_in_one_line(
    number: int, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The writes are run.h5, the examples, eight evaluations, and the order."""
    whole, written = run(tmp_path / "whole", seed=1, evaluations=8), list[Path]()

    def full(path: Path, **how: bool) -> Any:
        written.append(path)
        if len(written) > number:
            raise OSError(errno.ENOSPC, "No space left on device")
        return replacing(path, **how)

    with monkeypatch.context() as patch:
        patch.setattr(store, "replacing", full)
        with pytest.raises(InputError) as stopped:
            run(tmp_path / "run", seed=1, evaluations=8)
    advice = "; what was evaluated is kept, the same command continues" if number > 1 else ""
    assert str(stopped.value) == f"{written[-1]} cannot be written: No space left on device{advice}"
    assert len(written) == number + 1
    kept = stored(tmp_path / "run") if number else set()
    assert len(kept) == max(0, min(number, 10) - 2)
    check_again(run(tmp_path / "run", seed=1, evaluations=8), whole, reused=len(kept))
    for file in (tmp_path / "whole").rglob("*"):
        if file.is_file():
            assert (tmp_path / "run" / file.relative_to(tmp_path / "whole")).read_bytes() == file.read_bytes()


def test_a_search_out_of_time_goes_on_as_if_it_had_not_stopped(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(tmp_path / "whole", seed=1, finalists=2)
    for minutes in (3, 10, 18):
        now = [1000.0]
        monkeypatch.setattr(nachos, "time", lambda now=now: now[0])

        def slow(coder: GenomeCoder, trial: Trial, now: list[float] = now) -> Evaluation:
            now[0] += 60
            return figures(coder, trial)

        folder = tmp_path / str(minutes)
        given = {"seed": 1, "finalists": 2, "clock": lambda now=now: now[0]}
        cut = run(folder, slow, max_minutes=minutes, backwards=True, **given)
        assert (cut.evaluated, cut.unfinished) == (minutes, whole.evaluated - minutes)
        assert cut.as_dict()["unfinished"] == cut.unfinished
        assert len(stored(folder)) == minutes
        again = run(folder, slow, max_minutes=0.5, **given)  # one is begun and finished
        assert (again.evaluated, again.reused) == (minutes + 1, minutes)
        assert "unfinished" not in whole.as_dict()
        check_again(run(folder, seed=1, finalists=2), whole, reused=minutes + 1)
        assert stored(folder) == stored(tmp_path / "whole")


def test_without_any_time_nothing_is_trained(run: Run, tmp_path: Path) -> None:
    found = run(tmp_path / "run", max_minutes=1e-9, clock=lambda: 1e12)
    assert (found.evaluated, found.front, found.closest, found.unfinished) == (0, (), None, 18)


def test_failures_count_are_kept_and_not_tried_again(run: Run, tmp_path: Path) -> None:
    def sometimes(coder: GenomeCoder, trial: Trial) -> Evaluation | Failure:
        return (diverged if trial.genome[0] else figures)(coder, trial)

    first = run(tmp_path / "run", sometimes)
    assert first.failed > 0
    assert first.evaluated + first.failed == 18
    check_again(run(tmp_path / "run"), first, reused=18)
    none = run(tmp_path / "none", diverged, evaluations=10)
    assert (none.evaluated, none.failed, none.front, none.hypervolume_all) == (0, 10, (), 0.0)
    short = run(tmp_path / "finalists", evaluations=8)
    longer = run(tmp_path / "finalists", diverged, evaluations=8, finalists=2)
    assert (longer.evaluated, longer.failed, longer.reused) == (8, 2, 8)
    assert longer.front == short.front
    assert run(tmp_path / "finalists", diverged, evaluations=8, finalists=2).reused == 10


def test_the_search_stops_when_the_hypervolume_has_not_grown(run: Run, tmp_path: Path) -> None:
    # An accuracy of 0 dominates nothing, so nothing ever grows: the start and `patience` iterations.
    assert run(tmp_path / "run", partial(figures, correct=0), evaluations=100).evaluated == 8 + 2 * 4


def test_untrained_genomes_scale_no_violation(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Any, Any, Any]] = []

    def spy(evaluate: Any, **options: Any) -> Any:
        def watched(genomes: Any) -> Any:
            answer = evaluate(genomes)
            seen.append((genomes, *answer))
            return answer

        return minimize(watched, **options)

    monkeypatch.setattr(nachos, "minimize", spy)
    run(tmp_path / "run", evaluations=9, aims="ends")
    genomes, F, G = (np.concatenate(arrays) for arrays in zip(*seen, strict=True))
    without_exit = ~genomes[:, -2:].any(axis=1)  # the genes of micro's two early exits come last
    assert without_exit.any()
    assert np.isnan(F[without_exit]).all()
    assert np.isnan(G[without_exit, :2]).all()
    never = np.isnan(F).any(axis=1)
    assert (G[~never, 0] == F[~never, 1] / 40_000 - 1).all()
    assert G[~never, 1] == pytest.approx(F[~never, 0] - 0.8)


def test_the_best_together_are_trained_longer_and_found_again(run: Run, tmp_path: Path) -> None:
    told: list[Progress] = []
    plain = run(tmp_path / "plain", seed=1)
    first = run(tmp_path / "run", seed=1, finalists=3, on_progress=told.append)
    problem = stored_problem(tmp_path / "plain")
    chosen = Archive(problem, stored_evaluations(tmp_path / "plain")).best_together(3)
    assert stored(tmp_path / "run") == stored(tmp_path / "plain") | {f"{key(each)}.x4.h5" for each in chosen}
    assert len(chosen) >= 2
    assert (plain.evaluated, first.evaluated) == (18, 18 + len(chosen))
    assert (told[0].evaluations, told[-1].evaluated) == (18 + 3, 18 + len(chosen))
    assert first.hypervolume_admissible > plain.hypervolume_admissible
    check_again(run(tmp_path / "run", seed=1, finalists=3), first, reused=18 + len(chosen))
    run(tmp_path / "cut", seed=1, evaluations=10, finalists=3)
    longer = run(tmp_path / "cut", seed=1, finalists=3)
    assert same_part(longer) == same_part(first), "finalists are chosen anew"
    assert longer.reused >= 10
    assert stored(tmp_path / "cut") >= stored(tmp_path / "run")


def test_a_start_by_rule_begins_with_what_an_engineer_would_try(run: Run, tmp_path: Path) -> None:
    asked: list[Genome] = []
    run(tmp_path / "run", lambda *of: asked.append(of[1].genome) or figures(*of), evaluations=7, start="rule")
    problem = stored_problem(tmp_path / "run")
    check = StaticCheck(problem.coder, problem.configuration.limits)
    by_hand = rule_genomes(check)
    assert len(by_hand) == 2
    by_hand += filling_genomes(check, Archive(problem).budgets, seeded(0, "start", ()))
    assert asked == list(dict.fromkeys(by_hand))[:7]


@pytest.mark.parametrize(
    ("method", "evaluations", "names"),
    [
        ("rule", 17, ["{0}.x4", "{0}.x4.r1", "{1}.x4", "{1}.x4.r1"]),
        ("rule", 6, ["{0}.x3", "{1}.x3"]),
        ("largest", 9, ["{1}.x4", "{1}.x4.r1"]),
    ],
)
def test_networks_by_a_rule(method: str, evaluations: int, names: list[str], run: Run, tmp_path: Path) -> None:
    """They are trained longer and with more seeds."""
    given = {"method": method, "evaluations": evaluations, "finalists": 3}
    result = run(tmp_path / "run", **given)
    problem = stored_problem(tmp_path / "run")
    rules = [key(genome) for genome in rule_genomes(StaticCheck(problem.coder, problem.configuration.limits))]
    assert stored(tmp_path / "run") == {f"{name.format(*rules)}.h5" for name in names}
    assert result.evaluated == len(names)
    check_again(run(tmp_path / "run", **given), result, reused=len(names))


# Runs stored before there were recipes, confidences, halves and trials: SHA-256 of their configuration

FORMER = "7d65c60691ff8f1928e0a833826b2094132916c1d1ee71440ea3cd6c8199fced"


def former_record(genome: Genome) -> dict[str, Any]:
    """A network of exits after stages 1 and 3 that answers 70 of 100 at its chosen thresholds, 60 at others."""
    measure = {"correct": 70, "samples": 100, "exit_counts": (90, 10), "total_macs": 1_900_000}
    return {
        "genome": genome,
        "exits": (1, 3),
        "thresholds": (0.5, 0.0),
        "costs": {"exit_costs": (10_000, 100_000), "params": 5_000, "peak_bytes": 4_000},
        "validation": measure,
        "test": measure | {"correct": 69},
        "tables": {"confidence": np.ones((1, 2)), "predicted": np.ones((1, 2), np.int64)},
        "losses": (1.0, 0.5),
        "weights": {"segments.0": np.ones(3, np.float32)},
        "curve": {
            "thresholds": np.array([[0.0, 0.0]]),
            "correct": np.array([[60], [59]]),
            "exit_counts": np.array([[[100, 0]], [[100, 0]]]),
        },
    }


def test_a_former_run_is_known_read_and_continued(run: Run, tmp_path: Path) -> None:
    run(tmp_path / "run", evaluations=2, **PAPER)
    identity = open_run(tmp_path / "run").configuration
    text = json.dumps(identity, sort_keys=True)
    assert sha256(text.encode()).hexdigest() == FORMER, text
    asked = configuration_of(identity)
    assert asked.recipe == PaperRecipe()
    assert (asked.confidence, asked.standardise, asked.validation) == ("learned", "pixel", "whole")
    with pytest.raises(InputError, match="recipe"):
        run(tmp_path / "run")
    trained = [found.genome for found in stored_evaluations(tmp_path / "run")]
    with create_or_open(tmp_path / "former", identity) as former:
        for genome in trained:
            former.write(key(genome), former_record(genome))
    found = nachos_min.load_run(tmp_path / "former")
    rows = [(row.correct, row.average_macs, row.test.correct) for row in found.front]
    assert rows == [(70, 19_000.0, 69), (60, 10_000.0, 59)]
    said = {(row.confidence, row.temperatures, row.genome) for row in found.front}
    assert said == {("learned", (), min(trained))}
    longer = run(tmp_path / "former", evaluations=3, **PAPER)
    assert (longer.evaluated, longer.reused) == (3, 2)
    (stored,) = (each for each in stored_evaluations(tmp_path / "former") if each.genome == trained[0])
    assert to_record(stored).keys() == former_record(trained[0]).keys()
    np.testing.assert_equal(to_record(stored), former_record(trained[0]))


def test_a_start_that_random_genomes_miss_is_the_nearest_and_its_neighbours(run: Run, tmp_path: Path) -> None:
    tight = {"space": "flex8", "max_macs": None, "max_params": 3_900, "method": "random"}
    result = run(tmp_path / "run", evaluations=3, **tight)
    trained = [found for found in stored_evaluations(tmp_path / "run") if isinstance(found, Evaluation)]
    assert len(trained) == result.evaluated == 3
    assert max(found.costs.params for found in trained) <= 3_900
    problem = stored_problem(tmp_path / "run")
    check = StaticCheck(problem.coder, problem.configuration.limits)
    assert random_genomes(check, 1, np.random.default_rng(0)) == []
