"""The archive and what is derived from it: exact, and the same in whatever order candidates were found."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import fields, replace
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from candidates import evaluation

from nachos_kernels.dominance import non_dominated_ranks
from nachos_min.eenn.confidence import Confidence
from nachos_min.eenn.guarantee import certified
from nachos_min.eenn.lowering import StaticCosts, static_costs
from nachos_min.eenn.recipes import DeepRecipe, PaperRecipe
from nachos_min.eenn.thresholds import Figures, wilson_interval
from nachos_min.nas import configuration as options
from nachos_min.nas.configuration import Configuration, configuration_of, load_problem
from nachos_min.nas.evaluation import Evaluation, Failure, Trial
from nachos_min.nas.limits import Limits
from nachos_min.nas.result import Archive, Network, SearchResult, result_of, shown_rows
from nachos_min.report.search_report import closest_sentence
from nachos_min.store import create_or_open, open_run

PROBLEM = load_problem(Configuration("digits", "micro", Limits(30_000, 0.5), 0, points="best", aims="ends"))


def found(genome: int, correct: int, total_macs: int, params: int = 10) -> Evaluation:
    """An evaluation with these figures, of 100 samples."""
    figures = Figures(correct, 100, (50, 50), total_macs), Figures(correct - 1, 100, (40, 60), total_macs + 7)
    return evaluation(Trial((genome,)), *figures, costs=StaticCosts((10_000, 60_000), params, 64))


BEST, CHEAP, DOMINATED = found(1, 90, 2_500_000), found(2, 70, 1_000_000), found(3, 69, 1_000_001)
TWIN, DEAR, WRONG = found(0, 70, 1_000_000), found(4, 99, 3_000_001), found(5, 49, 900_000)
ALL = (BEST, CHEAP, DOMINATED, TWIN, DEAR, WRONG)
FAILURES = tuple(Failure(Trial((genome,)), "ValueError: no") for genome in (7, 8))


def result(archive: Archive, **given: Any) -> SearchResult:
    return result_of(archive, Path("runs/here"), reused=2, inadmissible=3, **given)


def evaluations(networks: Iterable[Network]) -> list[Evaluation]:
    return [network.evaluation for network in networks]


def test_admissible_is_judged_on_whole_numbers() -> None:
    # DEAR: by one MAC in 100 samples
    assert evaluations(Archive(PROBLEM, ALL).admissible) == [BEST, CHEAP, DOMINATED, TWIN]
    small = replace(PROBLEM, configuration=replace(PROBLEM.configuration, limits=Limits(None, 0.5, max_params=10)))
    large, enough = found(1, 90, 1, params=11), found(2, 50, 10**9)
    assert evaluations(Archive(small, [large, enough]).admissible) == [enough]


@pytest.mark.parametrize("name", ["max_macs", "max_worst_macs", "max_params", "max_peak_bytes", "max_exits"])
def test_static_counts_are_compared_with_each_limit(name: str) -> None:
    costs, kept = StaticCosts((100, 250), params=30, peak_bytes=64), Limits(100, 0.5, 250, 30, 64, 2)
    assert not kept.exceeded(costs)
    assert replace(kept, **{name: getattr(kept, name) - 1}).exceeded(costs)


def test_the_front_is_the_most_accurate_first_and_of_equals_the_smallest_genome() -> None:
    archive = Archive(PROBLEM, ALL)
    assert evaluations(archive.front(archive.admissible)) == [BEST, TWIN]
    assert evaluations(archive.front(archive.networks)) == [DEAR, BEST, TWIN, WRONG]
    assert archive.front([]) == []


def test_fronts_are_those_that_nsga2_ranks_by() -> None:
    rng = np.random.default_rng(4)
    for size in (0, 1, 40, 40, 40):
        drawn = [found(n, *rng.integers((40, 1), (60, 20)).tolist()) for n in range(size)]
        networks = Archive(PROBLEM, drawn).networks
        figures = np.array([(1 - row.metric, row.average_macs) for row in networks]).reshape(-1, 2)
        ranks = non_dominated_ranks(figures, np.zeros(size))
        for most in (1, 2):
            kept = {tuple(pair) for pair in figures[ranks < most].tolist()}
            front = Archive(PROBLEM).front(networks, most)
            assert [(1 - row.metric, row.average_macs) for row in front] == sorted(kept)


def test_hypervolume_by_hand() -> None:
    def area(*found: Evaluation) -> float:
        return Archive(PROBLEM).hypervolume(Archive(PROBLEM, found).networks)

    reference = Archive(PROBLEM, ALL).reference
    assert reference == (1.0, static_costs(PROBLEM.coder.largest()).worst_macs), "whatever was found"
    assert area() == 0.0
    assert area(CHEAP) == pytest.approx(0.7 * (reference[1] - 10_000), rel=1e-12)
    both = 0.7 * (reference[1] - 10_000) + 0.2 * (reference[1] - 25_000)
    assert area(BEST, CHEAP, DOMINATED) == pytest.approx(both, rel=1e-12)


def within(networks: list[Network], budgets: Sequence[float]) -> float:
    """Sum of the best accuracies within the budgets."""
    figures = [network.point.validation for network in networks]
    return sum(max((m.accuracy for m in figures if m.average_macs <= most), default=0.0) for most in budgets)


def test_the_best_together_add_most_to_those_chosen_before() -> None:
    rng = np.random.default_rng(3)
    for _ in range(20):
        drawn = [
            found(n // 2, int(rng.integers(40, 99)), int(rng.integers(1_000_000, 4_000_000))) for n in range(12)
        ]
        archive = Archive(PROBLEM, drawn)  # two points a genome
        left, taken = archive.admissible, list[Network]()
        chosen = archive.best_together(4)
        assert len(chosen) == len(set(chosen)) == min(4, len({row.genome for row in left}))
        for genome in chosen:
            gains = {
                each: within(taken + [row for row in left if row.genome == each], archive.budgets)
                for each in {row.genome for row in left}
            }
            assert gains[genome] == pytest.approx(max(gains.values()))
            taken += [row for row in left if row.genome == genome]
            left = [row for row in left if row.genome != genome]
    assert Archive(PROBLEM).best_together(3) == []
    assert Archive(PROBLEM, [WRONG, DEAR]).best_together(3) == [(5,), (4,)], "without an admissible one, of all"


def test_a_failure_counts_and_touches_no_figure() -> None:
    clean, mixed = Archive(PROBLEM, ALL), Archive(PROBLEM, (FAILURES[0], *ALL, FAILURES[1]))
    assert (len(mixed), len(clean)) == (8, 6)
    assert mixed.genomes() == clean.genomes() | {(7,), (8,)}
    assert result(mixed).failure == "ValueError: no"
    assert replace(result(mixed), failed=0, failure=None, failures={}) == result(clean)
    failed = result(Archive(PROBLEM, FAILURES))
    assert (failed.evaluated, failed.failed, failed.front, failed.closest) == (0, 2, (), None)
    assert failed.hypervolume_all == 0.0


def test_the_order_of_candidates_changes_no_bit() -> None:
    expected = result(Archive(PROBLEM, ALL))
    for order in permutations(ALL):
        assert result(Archive(PROBLEM, order)) == expected
    trials = [replace(CHEAP, trial=Trial((2,), *how)) for how in ((1, 0), (4, 0), (4, 2), (4, 10))]
    for order in permutations(trials):
        archive = Archive(PROBLEM, order)
        assert evaluations(archive.front(archive.admissible)) == [CHEAP], "of equal trials the shortest"


def test_limits_are_held_against_the_test_split_without_rounding() -> None:
    tight = replace(PROBLEM, configuration=replace(PROBLEM.configuration, margin=0.05))
    within, over, wrong = found(1, 90, 2_849_993), found(2, 91, 2_850_000), found(3, 55, 10_000)
    front = result(Archive(tight, [within, over, wrong])).front
    assert [row.genome for row in front] == [(2,), (1,), (3,)]
    assert [row.test.kept for row in front] == [True, True, True]  # the limits asked for, without the margin
    front = result(Archive(PROBLEM, [found(1, 90, 2_999_993), found(2, 91, 2_999_994), found(3, 50, 1)])).front
    assert [(row.genome, row.test.kept) for row in front] == [((2,), False), ((1,), True), ((3,), False)]


def test_the_closest_misses_the_limits_by_least_and_of_equals_is_the_smallest_genome() -> None:
    twins = [found(genome, 99, 3_000_001) for genome in (4, 2, 3)]  # over by less than a millionth
    for order in permutations((*twins, WRONG)):  # short by a fiftieth
        closest = result(Archive(PROBLEM, order)).closest
        assert closest is not None
        assert closest.genome == (2,)
    assert result(Archive(PROBLEM, ALL)).closest is None


def test_the_json_object() -> None:
    cold = replace(CHEAP, confidence=Confidence((0.5,)))
    archive = Archive(PROBLEM, [BEST, DEAR, cold, FAILURES[0]])
    answer = result(archive).as_dict()
    assert len(repr(result(archive))) < 10_000  # a notebook shows rows, not weights
    assert json.loads(json.dumps(answer, allow_nan=False)) == answer
    first, second = answer.pop("front")
    assert answer.pop("settings") == [dict.fromkeys(("accurate", "knee", "cheap"), k) for k in (0, 1)]
    best, _, cheap = archive.networks
    areas = {"all": archive.hypervolume(archive.networks), "admissible": archive.hypervolume([best, cheap])}
    areas |= {"reference": [1.0, archive.reference[1]]}
    counts = {"evaluated": 3, "reused": 2, "failed": 1, "failures": {"defect": 1}, "admissible": 2}
    constraints = {"max_macs": 30_000, "min_accuracy": 0.5}
    assert answer == {"run": "runs/here", "seed": 0, "constraints": constraints, "hypervolume": areas} | counts
    test = {"accuracy": 0.89, "correct": 89, "samples": 100, "kept": True}
    test |= {
        "interval95": [*wilson_interval(89, 100)],
        "total_macs": 2_500_007,
        "average_macs": 25_000.07,
        "exit_counts": [40, 60],
    }
    row = {"solution": 0, "genome": [1], "exits": [1, 3], "thresholds": [0.5, 0.0], "accuracy": 0.9, "correct": 90}
    row |= {"samples": 100, "total_macs": 2_500_000, "average_macs": 25_000.0, "exit_counts": [50, 50]}
    row |= {"exit_costs": [10_000, 60_000], "worst_macs": 60_000, "params": 10, "peak_bytes": 64}
    assert first == row | {"confidence": "learned", "test": test}
    assert (second["solution"], second["confidence"], second["temperatures"]) == (1, "softmax", [0.5])


def halved(genome: int, chosen: tuple[int, int], shown: tuple[int, int]) -> Evaluation:
    """An evaluation with (correct, early) of 100 samples on both halves; early costs 10,000 MACs, late 60,000."""
    validation, calibration = (
        Figures(right, 100, (early, 100 - early), 6_000_000 - 50_000 * early) for right, early in (chosen, shown)
    )
    return evaluation(Trial((genome,)), validation, calibration=calibration)


def test_rows_keep_the_limits_on_both_halves_and_show_the_one_that_did_not_choose() -> None:
    kept, slow = halved(1, (90, 61), (88, 60)), halved(2, (95, 60), (94, 59))
    wrong, never = halved(3, (51, 99), (49, 99)), halved(4, (99, 59), (99, 99))
    for order in permutations((kept, slow, wrong, never)):
        archive = Archive(PROBLEM, order)
        answer = result(archive)
        assert [(row.genome, row.correct, row.exit_counts) for row in answer.front] == [((1,), 88, (60, 40))]
        assert answer.front[0].total_macs == 3_000_000
        assert answer.admissible == 1
        again = replace(kept, trial=replace(kept.trial, effort=4))
        assert result(Archive(PROBLEM, (*order, again))).admissible == 2, "trainings count, as in `evaluated`"
        assert answer.hypervolume_admissible == pytest.approx(0.88 * (archive.reference[1] - 30_000))


def test_the_second_front_is_shown_and_sorted_by_what_is_shown() -> None:
    """The third front is not. A row of the second may turn out to be the better."""
    first, second, third = (halved(n, (90 - n, 80), (70 + n, 80)) for n in range(3))
    assert evaluations(shown_rows(Archive(PROBLEM, [first, second, third]))) == [second, first]
    whole = Archive(PROBLEM, [BEST, found(9, 89, 2_500_000)])
    assert evaluations(shown_rows(whole)) == [BEST], "without halves"


def test_guaranteed_rows_are_those_certified_in_the_order_of_the_half_that_chose() -> None:
    rng = np.random.default_rng(5)
    sizes = set()
    for _ in range(40):
        right, early = rng.integers(50, 75, 8).tolist(), rng.integers(60, 95, 8).tolist()
        chosen = [(int(rng.integers(50, 90)), int(rng.integers(60, 100))) for _ in range(8)]
        rows = [halved(n, chosen[n], (right[n], early[n])) for n in range(8)]
        archive = Archive(PROBLEM, rows)
        order = sorted(archive.front(archive.networks, ranks=2), key=lambda row: -row.point.validation.average_macs)
        counted = [(row.point.shown, row.exit_costs) for row in order]
        sure = [row for row, yes in zip(order, certified(counted, 30_000, 0.5, 0.05), strict=True) if yes]
        assert sorted(shown_rows(archive, 0.9), key=order.index) == sure
        assert all(archive.limits.admissible(row.point.shown) for row in sure)
        sizes.add(len(sure))
    assert len(sizes) > 2, "some sets of rows are certified in part"


def test_few_samples_guarantee_nothing() -> None:
    many = halved(1, (99, 99), (99, 99))
    few = replace(many, points=(replace(many.chosen, calibration=Figures(4, 4, (4, 0), 40_000)),))
    assert [len(shown_rows(Archive(PROBLEM, [row]), 0.9)) for row in (many, few)] == [1, 0]
    told = closest_sentence(result(Archive(PROBLEM, [few]), guarantee=0.9))
    assert told.endswith(" Such a guarantee takes at least 5 images that chose nothing; there are 4.")


def changed(name: str, value: Any) -> Any:
    """Another value that the option may have."""
    if isinstance(value, str):
        return next(other for other in options.OPTIONS[name].kind.form.split("|") if other != value)
    return 0.25 if isinstance(value, float) else value * 2 + 1


OTHERS = {"space": "tiny", "limits": Limits(1, 0.25, 2, 3, 4, 5), "recipe": DeepRecipe(batch=7, beta=2.0)}
OTHERS |= {"layout": "chw", "resolution": 7}
NAMED = [(option.name, OTHERS.get(option.name)) for option in fields(Configuration) if option.name != "data"]


@pytest.mark.parametrize(("name", "value"), [*NAMED, ("recipe", PaperRecipe(batch=7, augment="shift"))])
def test_a_stored_configuration_is_read_back(name: str, value: Any, tmp_path: Path) -> None:
    configuration = replace(PROBLEM.configuration, points="curve") if name == "aims" else PROBLEM.configuration
    other = replace(configuration, **{name: value or changed(name, getattr(configuration, name))})
    identity = replace(PROBLEM, configuration=other).identity()
    create_or_open(tmp_path / "run", identity).close()
    assert configuration_of(open_run(tmp_path / "run").configuration) == other
    assert identity != replace(PROBLEM, configuration=configuration).identity()


def test_a_configuration_without_a_field_is_refused() -> None:
    identity = PROBLEM.identity()
    del identity["recipe"]["momentum"]
    with pytest.raises(options.ConfigurationError, match="the run's configuration must have 'momentum', got none"):
        configuration_of(identity)
