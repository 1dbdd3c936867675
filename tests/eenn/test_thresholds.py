"""Thresholds: the policy against a loop, `exact` and the curve against brute force, `grid_repair` by hand."""

import json
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise, product
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nachos_min.eenn import threshold_search
from nachos_min.eenn.confidence import cumulative_confidence
from nachos_min.eenn.threshold_search import best_thresholds, grid_repair, levels, threshold_curve
from nachos_min.eenn.thresholds import (
    ALWAYS,
    NEVER,
    Figures,
    OperatingPoint,
    PolicyTables,
    SplitLimits,
    apply_thresholds,
    preference,
    split_limits,
    wilson_interval,
)


def slow_point(tables: PolicyTables, thresholds: Sequence[float]) -> OperatingPoint:
    """Each sample walks from exit to exit."""
    last = len(tables.costs) - 1
    counts, right, macs = [0] * (last + 1), 0, 0
    for n in range(tables.samples):
        i = next(i for i in range(last + 1) if i == last or tables.confidence[n, i] >= thresholds[i])
        counts[i] += 1
        right += bool(tables.correct[n, i])
        macs += tables.costs[i]
    return OperatingPoint(tuple(thresholds), Figures(right, tables.samples, tuple(counts), macs))


def every_point(tables: PolicyTables) -> list[Figures]:
    """Every cut at every early exit: at each confidence that occurs, and above all of them."""
    cuts = [[NEVER, *np.unique(column).tolist()] for column in tables.confidence[:, :-1].T]
    return [slow_point(tables, (*chosen, 0.0)).figures for chosen in product(*cuts)]


def limits_of(tables: PolicyTables, max_macs: float | None, min_accuracy: float = 0.5) -> SplitLimits:
    return split_limits(max_macs, min_accuracy, tables.samples)


def key(point: OperatingPoint, limits: SplitLimits) -> tuple[bool, int, int]:
    return preference(point.figures, limits)


Case = tuple[PolicyTables, float | None]


@st.composite
def cases(draw: st.DrawFn, exits: Sequence[int] = (1, 2, 3, 4, 5), samples: int = 20) -> Case:
    """Tables with duplicates, zeros and ones likely; MACs beyond 32 bits; limits from impossible to generous."""
    e, n = draw(st.sampled_from(exits)), draw(st.integers(1, samples))
    tenths = st.integers(0, 10).map(lambda tenth: tenth / 10)
    h = draw(hnp.arrays(np.float64, (n, e - 1), elements=st.one_of(tenths, st.floats(0.0, 1.0))))
    correct = draw(hnp.arrays(np.bool_, (n, e)))
    steps = draw(st.lists(st.integers(1, 10 ** draw(st.sampled_from([3, 7, 12]))), min_size=e, max_size=e))
    costs = tuple(int(cost) for cost in np.cumsum(steps))
    between = costs[0] + draw(st.floats(0.5, 1.2)) * (costs[-1] - costs[0])
    max_macs = draw(st.sampled_from([None, costs[0], between, 0.9 * costs[0]]))
    return PolicyTables(cumulative_confidence(h), correct, costs), max_macs


def random_tables(samples: int, exits: int, seed: int) -> PolicyTables:
    """Exits that know something: confident where they are right, and later ones right more often."""
    rng = np.random.default_rng(seed)
    correct = rng.random((samples, exits)) < np.linspace(0.5, 0.9, exits)
    h = 1 / (1 + np.exp(-rng.normal(2.0 * correct[:, :-1] - 1.0, 1.2)))
    return PolicyTables(cumulative_confidence(h), correct, tuple(1_000 * (i + 1) + 7 * i * i for i in range(exits)))


# The policy and its figures


@given(cases(), st.data())
def test_policy_and_figures_agree_with_a_loop(case: Case, data: st.DataObject) -> None:
    tables, _ = case
    early = len(tables.costs) - 1
    occurring = st.sampled_from([*np.unique(tables.confidence).tolist(), NEVER, ALWAYS, 0.5])
    point = tables.point(data.draw(st.lists(occurring, min_size=early, max_size=early)))
    assert point == slow_point(tables, point.thresholds)
    assert sum(point.figures.exit_counts) == point.figures.samples
    stored = json.loads(json.dumps(point.thresholds, allow_nan=False))
    assert tables.figures(stored) == point.figures


def test_never_and_always_hold_for_confidences_rounded_to_one_or_zero() -> None:
    confidence = np.array([[1.0, 1.0], [0.0, 1.0]])
    assert apply_thresholds(confidence, (NEVER, NEVER)).tolist() == [1, 1]  # the last exit takes the rest
    assert apply_thresholds(confidence, (ALWAYS, 0.0)).tolist() == [0, 0]


# Limits: decimals as they are written, no rounding


def test_limits_are_compared_exactly() -> None:
    # 0.7 * 10 is 7.000000000000001 in doubles and 0.29 * 100 is 28.999999999999996: both would misjudge.
    assert split_limits(10, 0.7, 10).admit(Figures(7, 10, (5, 5), 100))
    assert split_limits(0.3, 0.29, 100).admit(Figures(29, 100, (50, 50), 30))
    third = Figures(1, 3, (1, 2), 10**18 + 1)
    assert not split_limits(10**18 // 3, 0.0, 3).affordable(third)
    assert not split_limits(None, 0.3333333333333334, 3).admit(third)
    assert split_limits(None, 0.3333333333333333, 3).admit(third)
    for correct in range(200):  # an accuracy as a float may lie above the ratio that it stands for
        assert split_limits(None, correct / 199, 199).least_correct == correct


def test_preference_within_the_limit_then_outside_it() -> None:
    best_first = [(9, 100), (8, 90), (8, 100), (0, 100), (1, 101), (0, 101), (10, 102)]
    keys = [preference(Figures(right, 10, (5, 5), macs), SplitLimits(5, 100)) for right, macs in best_first]
    assert keys == sorted(keys, reverse=True)


# exact


@settings(max_examples=80)
@given(st.one_of(cases(exits=(1, 2, 3), samples=9), cases(exits=(4, 5), samples=4)))
def test_exact_equals_brute_force_where_the_grid_holds_every_level(case: Case) -> None:
    tables, limits = case[0], limits_of(*case)
    point = best_thresholds(tables, limits, resolution=0.0)
    assert key(point, limits) == max(preference(figures, limits) for figures in every_point(tables))
    assert point == slow_point(tables, point.thresholds)


@given(cases(), st.sampled_from([0.0, 0.3, 0.5, 0.8]), st.sampled_from([0.0, 1e-5, 0.05]))
def test_exact_is_never_worse_than_grid_repair(case: Case, min_accuracy: float, resolution: float) -> None:
    tables, limits = case[0], limits_of(*case, min_accuracy)
    ours, papers = best_thresholds(tables, limits, resolution=resolution), grid_repair(tables, limits)
    assert key(ours, limits) >= key(papers, limits)
    assert limits.admit(ours.figures) or not limits.admit(papers.figures)
    assert papers == slow_point(tables, papers.thresholds)
    assert all(len(repr(threshold)) == 3 for threshold in papers.thresholds)  # "0.3": tenths without rounding


@pytest.mark.parametrize("exits", [2, 3, 4, 5])
@pytest.mark.parametrize("max_macs", [1_200, 1_900.5, None])
def test_no_single_threshold_improves_on_exact(exits: int, max_macs: float | None) -> None:
    tables = random_tables(120, exits, seed=exits)
    limits = limits_of(tables, max_macs)
    point = best_thresholds(tables, limits, resolution=0.0)
    for i in range(exits - 1):
        for threshold in levels(tables.confidence[:, i], 0.0):
            moved = (*point.thresholds[:i], float(threshold), *point.thresholds[i + 1 :])
            assert preference(tables.figures(moved), limits) <= key(point, limits)


@given(cases(), st.integers(0, 2**32 - 1))
def test_confidences_may_move_by_half_the_resolution(case: Case, seed: int) -> None:
    tables, limits, resolution = case[0], limits_of(*case), 1e-3
    point = best_thresholds(tables, limits, resolution=resolution)
    # The documented exception: grid-repair's round tenths, returned because they were better, stand anywhere.
    assume(point != grid_repair(tables, limits))
    noise = np.random.default_rng(seed).uniform(-0.499, 0.499, tables.confidence.shape) * resolution
    moved = PolicyTables(np.clip(tables.confidence + noise, 0.0, 1.0), tables.correct, tables.costs)
    assert moved.figures(point.thresholds) == point.figures


def test_grid_repair_is_returned_only_for_a_cut_through_a_narrow_gap() -> None:
    # 0.7 separates the two; letting only the first leave is right for both and fits the limit.
    tables = one_exit([0.700001, 0.699998], [True, False], [False, True])
    limits = limits_of(tables, 15, 0.0)
    fragile = best_thresholds(tables, limits, resolution=1e-5)
    assert fragile.thresholds == (0.7, 0.0)
    assert fragile.figures.correct == 2
    assert best_thresholds(tables, limits, resolution=1e-6).thresholds[0] == pytest.approx(0.6999995)


def test_thresholds_stand_in_the_middle_of_wide_gaps_and_between_neighbouring_doubles() -> None:
    assert levels(np.array([0.2, 0.8, 0.8, 0.8000001]), 1e-5).tolist() == [NEVER, 0.5, ALWAYS]
    assert levels(np.array([0.3]), 0.0).tolist() == [NEVER, ALWAYS]
    tables = one_exit([0.5, float(np.nextafter(0.5, 1.0))], [False, True], [True, False])
    assert best_thresholds(tables, SplitLimits(0, None), resolution=0.0).figures.correct == 2


@pytest.mark.parametrize("exits", [3, 4])
def test_blocks_and_thinned_levels_lose_nothing_that_matters(exits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = random_tables(120, exits, seed=5)
    limits = limits_of(tables, 1_700)
    whole, curve = best_thresholds(tables, limits), threshold_curve(tables, limits)
    monkeypatch.setattr(threshold_search, "BLOCK_CELLS", 700)  # 5 rows of 120 samples at once
    assert best_thresholds(tables, limits) == whole
    assert threshold_curve(tables, limits) == curve
    monkeypatch.setattr(threshold_search, "NESTED_CELLS", 120 * 20)  # 20 of some 120 outer levels
    thinned = best_thresholds(tables, limits).figures
    assert limits.affordable(thinned)
    assert thinned.correct >= whole.figures.correct - 1


# The curve


@given(cases(exits=(1, 2, 3), samples=9))
def test_the_curve_is_the_front_of_all_thresholds(case: Case) -> None:
    tables, limits = case[0], limits_of(*case)
    kept = {(f.correct, f.total_macs) for f in every_point(tables) if limits.admit(f)}
    front = {p for p in kept if not any(q != p and q[0] >= p[0] and q[1] <= p[1] for q in kept)}
    curve = threshold_curve(tables, limits, resolution=0.0)
    assert [(p.figures.correct, p.figures.total_macs) for p in curve] == sorted(front, reverse=True)
    assert all(point == slow_point(tables, point.thresholds) for point in curve)


@pytest.mark.parametrize("exits", [2, 3, 4])
@pytest.mark.parametrize("seed", range(5))
def test_a_curve_begins_with_the_best_thresholds_and_falls(exits: int, seed: int) -> None:
    tables = random_tables(60, exits, seed)
    limits = limits_of(tables, 1_500, 0.4)
    curve, best = threshold_curve(tables, limits), best_thresholds(tables, limits)
    if exits < 4 and limits.admit(best.figures):
        assert curve[0] == best
    for before, after in pairwise(point.figures for point in curve):
        assert before.correct > after.correct
        assert before.total_macs > after.total_macs
    assert all(limits.admit(tables.figures(point.thresholds)) for point in curve)


# grid-repair, by hand


def one_exit(confidences: Sequence[float], early: Sequence[bool], final: Sequence[bool]) -> PolicyTables:
    confidence = np.column_stack([confidences, np.ones(len(confidences))])
    return PolicyTables(confidence, np.column_stack([early, final]), (10, 20))


LOW = PolicyTables(np.tile([0.05, 0.45, 1.0], (4, 1)), np.tile([False, True, True], (4, 1)), (1, 2, 3))
ONLY_LAST = PolicyTables(LOW.confidence, np.tile([False, False, True], (4, 1)), LOW.costs)
# Second exit: always wrong, so each step that lets a sample leave there breaks accuracy 1 and is undone.
UNDONE = PolicyTables(np.array([[0.35, 0.45, 1], [0.05, 0.45, 1]]), np.tile([True, False, True], (2, 1)), (1, 2, 3))


@pytest.mark.parametrize(
    ("tables", "max_macs", "min_accuracy", "thresholds"),
    [
        # The first exit's threshold is at least 0.7, so six of the seven trials are the same; 0.8 is the seventh.
        (one_exit([0.75, 0.9], [True, True], [True, True]), None, 0.0, (0.7, 0.0)),
        (one_exit([0.75, 0.9], [False, True], [True, True]), None, 0.0, (0.8, 0.0)),
        # Trials 0.1 to 0.3 already let all leave at the second exit; as good as any, and the first of equals.
        (LOW, 2, 0.5, (0.7, 0.1, 0.0)),
        # Right only at the end: 0.5 wins the grid at 3 MACs; accuracy 0 is allowed, so 0.4 repairs it.
        (ONLY_LAST, 2, 0.0, (0.7, 0.4, 0.0)),
        (UNDONE, 2, 1.0, (0.3, 0.5, 0.0)),
        (one_exit([0.2, 0.3], [False, False], [True, False]), 1, 0.9, (0.7, 0.0)),  # not accurate: no repair
        (one_exit([0.0, 0.3], [True, True], [True, True]), 5, 0.0, (0.0, 0.0)),  # nothing left to lower
    ],
)
def test_grid_and_repair(tables: PolicyTables, max_macs: Any, min_accuracy: float, thresholds: Any) -> None:
    assert grid_repair(tables, limits_of(tables, max_macs, min_accuracy)).thresholds == thresholds


# Errors

CONFIDENCE = np.array([[0.2, 1.0], [0.8, 1.0]])
CORRECT = np.array([[True, True], [False, True]])
TABLES = PolicyTables(CONFIDENCE, CORRECT, (1, 2))


@pytest.mark.parametrize(
    ("refused", "arguments", "message"),
    [
        (PolicyTables, (np.ones(3), CORRECT, (1, 2)), r"confidence must have shape \(N >= 1, E >= 1\), got \(3,\)"),
        (PolicyTables, (np.ones((0, 2)), CORRECT[:0], (1, 2)), "confidence must have shape"),
        (PolicyTables, (CONFIDENCE, CORRECT[:1], (1, 2)), "correct must have confidence's shape"),
        (PolicyTables, (CONFIDENCE, CORRECT, (1, 2, 3)), "costs must have one entry for each of 2 exits, got 3"),
        (PolicyTables, (CONFIDENCE, CORRECT, (2, 2)), "costs must be positive and grow"),
        (PolicyTables, (CONFIDENCE, CORRECT, (0, 2)), "costs must be positive and grow"),
        (PolicyTables, (CONFIDENCE + 0.5, CORRECT, (1, 2)), r"confidence must lie in \[0, 1\], got 1.5"),
        (PolicyTables, (CONFIDENCE - 0.5, CORRECT, (1, 2)), "confidence must lie in"),
        (PolicyTables, (CONFIDENCE * np.nan, CORRECT, (1, 2)), "confidence must lie in"),
        (PolicyTables, (CONFIDENCE, CORRECT, (1, 2**61)), r"samples \* cost must be < 2\^62"),
        (apply_thresholds, (CONFIDENCE, (0.5,)), "thresholds must have one entry for each of 2 exits, got 1"),
        (partial(best_thresholds, resolution=-1e-9), (TABLES, SplitLimits(0, None)), "resolution must be >= 0"),
        (partial(best_thresholds, resolution=np.nan), (TABLES, SplitLimits(0, None)), "resolution must be >= 0"),
        (split_limits, (np.inf, 0.5, 2), "max_macs must be finite"),
        (split_limits, (np.nan, 0.5, 2), "max_macs must be finite"),
        (split_limits, (3, np.nan, 2), "min_accuracy must be finite"),
        (wilson_interval, (0, 0), "correct must be from 0 to samples >= 1"),
        (wilson_interval, (3, 2), "correct must be"),
        (wilson_interval, (-1, 2), "correct must be"),
    ],
)
def test_what_breaks_a_rule_is_refused(refused: Callable[..., Any], arguments: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        refused(*arguments)


# Wilson's interval


@pytest.mark.parametrize(
    ("correct", "samples", "low", "high"),
    [
        # Newcombe, Statistics in Medicine 17, 1998, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (20, 20, 0.8389, 1.0),
    ],
)
def test_wilson_interval_is_newcombes_and_scipys(correct: int, samples: int, low: float, high: float) -> None:
    from scipy.stats import binomtest  # slow to import: only here

    found, theirs = wilson_interval(correct, samples), binomtest(correct, samples).proportion_ci(0.95, "wilson")
    assert found == pytest.approx((low, high), abs=5e-5)
    assert found == pytest.approx((theirs.low, theirs.high), rel=1e-12)
    assert (found[0] == 0.0, found[1] == 1.0) == (correct == 0, correct == samples)
