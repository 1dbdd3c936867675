"""Thresholds: the policy against a loop, `exact` and the curve against brute force, `grid_repair` by hand."""

import json
from collections.abc import Sequence
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from nachos_min.eenn import threshold_search
from nachos_min.eenn.threshold_search import exact, grid_repair, levels, threshold_curve
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

# The properties are about arithmetic, not luck: the same examples on every run.
properties = settings(max_examples=60, deadline=None, derandomize=True)


def slow_point(tables: PolicyTables, thresholds: Sequence[float]) -> OperatingPoint:
    """Each sample walks from exit to exit."""
    costs = tables.costs
    counts, right, macs = [0] * len(costs), 0, 0
    for n in range(tables.samples):
        for i in range(len(costs)):
            if i == len(costs) - 1 or tables.confidence[n, i] >= thresholds[i]:
                counts[i] += 1
                right += bool(tables.correct[n, i])
                macs += costs[i]
                break
    return OperatingPoint(tuple(thresholds), Figures(right, tables.samples, tuple(counts), macs))


def every_point(tables: PolicyTables) -> list[Figures]:
    """Every cut at every early exit: at each confidence that occurs, and above all of them."""
    cuts = [[NEVER, *np.unique(column).tolist()] for column in tables.confidence[:, :-1].T]
    return [slow_point(tables, (*chosen, 0.0)).figures for chosen in product(*cuts)]


def best_key(tables: PolicyTables, limits: SplitLimits) -> tuple[bool, int, int]:
    return max(preference(figures, limits) for figures in every_point(tables))


def limits_of(tables: PolicyTables, max_macs: float | None, min_accuracy: float = 0.5) -> SplitLimits:
    return split_limits(max_macs, min_accuracy, tables.samples)


def key(point: OperatingPoint, limits: SplitLimits) -> tuple[bool, int, int]:
    return preference(point.figures, limits)


def cumulative(h: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.hstack([1.0 - np.cumprod(1.0 - h, axis=1), np.ones((len(h), 1))])


Case = tuple[PolicyTables, float | None]


@st.composite
def cases(draw: st.DrawFn, exits: Sequence[int] = (1, 2, 3, 4, 5), samples: int = 20) -> Case:
    """Tables with duplicates, zeros and ones likely; limits from out of reach to generous."""
    e, n = draw(st.sampled_from(exits)), draw(st.integers(1, samples))
    tenths = st.integers(0, 10).map(lambda tenth: tenth / 10)
    h = draw(hnp.arrays(np.float64, (n, e - 1), elements=st.one_of(tenths, st.floats(0.0, 1.0))))
    correct = draw(hnp.arrays(np.bool_, (n, e)))
    steps = draw(st.lists(st.integers(1, 10**7), min_size=e, max_size=e))
    costs = tuple(int(cost) for cost in np.cumsum(steps))
    between = costs[0] + draw(st.floats(0.5, 1.2)) * (costs[-1] - costs[0])
    max_macs = draw(st.sampled_from([None, costs[0], between, 0.9 * costs[0]]))
    return PolicyTables(cumulative(h), correct, costs), max_macs


def random_tables(samples: int, exits: int, seed: int) -> PolicyTables:
    """Exits that know something: confident where they are right, and later ones right more often."""
    rng = np.random.default_rng(seed)
    correct = rng.random((samples, exits)) < np.linspace(0.5, 0.9, exits)
    h = 1 / (1 + np.exp(-rng.normal(2.0 * correct[:, :-1] - 1.0, 1.2)))
    return PolicyTables(cumulative(h), correct, tuple(1_000 * (i + 1) + 7 * i * i for i in range(exits)))


# The policy and its figures


@properties
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


@pytest.mark.parametrize("limit", [float("inf"), float("nan")])
def test_limits_must_be_finite(limit: float) -> None:
    with pytest.raises(ValueError, match=f"max_macs must be finite, got {limit}"):
        split_limits(limit, 0.5, 2)
    with pytest.raises(ValueError, match=f"min_accuracy must be finite, got {limit}"):
        split_limits(3, limit, 2)


def test_preference_within_the_limit_then_outside_it() -> None:
    best_first = [(9, 100), (8, 90), (8, 100), (0, 100), (1, 101), (0, 101), (10, 102)]
    keys = [preference(Figures(right, 10, (5, 5), macs), SplitLimits(5, 100)) for right, macs in best_first]
    assert keys == sorted(keys, reverse=True)


# exact


@properties
@given(cases(exits=(1, 2, 3), samples=9))
def test_exact_equals_brute_force_up_to_two_early_exits(case: Case) -> None:
    tables, limits = case[0], limits_of(*case)
    point = exact(tables, limits, resolution=0.0)
    assert key(point, limits) == best_key(tables, limits)
    assert point == slow_point(tables, point.thresholds)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(cases(exits=(4, 5), samples=4))
def test_exact_equals_brute_force_where_the_grid_holds_every_level(case: Case) -> None:
    tables, limits = case[0], limits_of(*case)
    assert key(exact(tables, limits, resolution=0.0), limits) == best_key(tables, limits)


@properties
@given(cases(), st.sampled_from([0.0, 0.3, 0.5, 0.8]), st.sampled_from([0.0, 1e-5, 0.05]))
def test_exact_is_never_worse_than_grid_repair(case: Case, min_accuracy: float, resolution: float) -> None:
    tables, limits = case[0], limits_of(*case, min_accuracy)
    ours, papers = exact(tables, limits, resolution=resolution), grid_repair(tables, limits)
    assert key(ours, limits) >= key(papers, limits)
    assert limits.admit(ours.figures) or not limits.admit(papers.figures)


@pytest.mark.parametrize("exits", [2, 3, 4, 5])
@pytest.mark.parametrize("max_macs", [1_200, 1_900.5, None])
def test_exact_is_never_worse_on_larger_tables(exits: int, max_macs: float | None) -> None:
    tables = random_tables(150, exits, seed=exits)
    limits = limits_of(tables, max_macs)
    ours = exact(tables, limits)
    assert key(ours, limits) >= key(grid_repair(tables, limits), limits)
    assert ours == slow_point(tables, ours.thresholds)


@pytest.mark.parametrize("exits", [4, 5])
@pytest.mark.parametrize("seed", [0, 1])
def test_no_single_threshold_improves_on_exact(exits: int, seed: int) -> None:
    tables = random_tables(90, exits, seed)
    limits = limits_of(tables, 1_900)
    point = exact(tables, limits, resolution=0.0)
    for i in range(exits - 1):
        for threshold in levels(tables.confidence[:, i], 0.0):
            moved = (*point.thresholds[:i], float(threshold), *point.thresholds[i + 1 :])
            assert preference(tables.figures(moved), limits) <= key(point, limits)


@properties
@given(cases(), st.integers(0, 2**32 - 1))
def test_confidences_may_move_by_half_the_resolution(case: Case, seed: int) -> None:
    tables, limits, resolution = case[0], limits_of(*case), 1e-3
    point = exact(tables, limits, resolution=resolution)
    # The documented exception: grid-repair's round tenths, returned because they were better, stand anywhere.
    assume(point != grid_repair(tables, limits))
    noise = np.random.default_rng(seed).uniform(-0.499, 0.499, tables.confidence.shape) * resolution
    moved = PolicyTables(np.clip(tables.confidence + noise, 0.0, 1.0), tables.correct, tables.costs)
    assert moved.figures(point.thresholds) == point.figures


def test_grid_repair_is_returned_only_for_a_cut_through_a_narrow_gap() -> None:
    # 0.7 separates the two; letting only the first leave is right for both and fits the limit.
    tables = one_exit([0.700001, 0.699998], [True, False], [False, True])
    limits = limits_of(tables, 15, 0.0)
    fragile = exact(tables, limits, resolution=1e-5)
    assert fragile.thresholds == (0.7, 0.0)
    assert fragile.figures.correct == 2
    assert exact(tables, limits, resolution=1e-6).thresholds[0] == pytest.approx(0.6999995)


def test_thresholds_stand_in_the_middle_of_wide_gaps() -> None:
    assert levels(np.array([0.2, 0.8, 0.8, 0.8000001]), 1e-5).tolist() == [NEVER, 0.5, ALWAYS]
    assert levels(np.array([0.3]), 0.0).tolist() == [NEVER, ALWAYS]


def test_neighbouring_doubles_are_still_told_apart() -> None:
    tables = one_exit([0.5, float(np.nextafter(0.5, 1.0))], [False, True], [True, False])
    assert exact(tables, SplitLimits(0, None), resolution=0.0).figures.correct == 2


@pytest.mark.parametrize("exits", [3, 4])
def test_blocks_and_thinned_levels_lose_nothing_that_matters(exits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = random_tables(120, exits, seed=5)
    limits = limits_of(tables, 1_700)
    whole, curve = exact(tables, limits), threshold_curve(tables, limits)
    monkeypatch.setattr(threshold_search, "BLOCK_CELLS", 700)  # 5 rows of 120 samples at once
    assert exact(tables, limits) == whole
    assert threshold_curve(tables, limits) == curve
    monkeypatch.setattr(threshold_search, "NESTED_CELLS", 120 * 20)  # 20 of some 120 outer levels
    thinned = exact(tables, limits).figures
    assert limits.affordable(thinned)
    assert thinned.correct >= whole.figures.correct - 1


def test_totals_beyond_32_bits_are_exact() -> None:
    found = random_tables(60, 3, seed=6)
    tables = PolicyTables(found.confidence, found.correct, (10**12 + 1, 2 * 10**12 + 3, 3 * 10**12 + 5))
    limits = limits_of(tables, 2 * 10**12)
    point = exact(tables, limits)
    assert point == slow_point(tables, point.thresholds)
    assert limits.affordable(point.figures)


# The curve


@properties
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
    curve, best = threshold_curve(tables, limits), exact(tables, limits)
    if exits < 4 and limits.admit(best.figures):
        assert curve[0] == best
    for before, after in pairwise(point.figures for point in curve):
        assert before.correct > after.correct
        assert before.total_macs > after.total_macs
    assert all(limits.admit(tables.figures(point.thresholds)) for point in curve)


def test_no_thresholds_are_admissible() -> None:
    tables = random_tables(10, 2, seed=0)
    assert threshold_curve(tables, limits_of(tables, 5, 0.0)) == ()
    wrong = PolicyTables(tables.confidence, np.zeros((10, 2), np.bool_), tables.costs)
    assert threshold_curve(wrong, limits_of(tables, None, 0.1)) == ()


# grid-repair, by hand


def one_exit(confidences: Sequence[float], early: Sequence[bool], final: Sequence[bool]) -> PolicyTables:
    confidence = np.column_stack([confidences, np.ones(len(confidences))])
    return PolicyTables(confidence, np.column_stack([early, final]), (10, 20))


LOW = PolicyTables(np.tile([0.05, 0.45, 1.0], (4, 1)), np.tile([False, True, True], (4, 1)), (1, 2, 3))
ONLY_LAST = PolicyTables(LOW.confidence, np.tile([False, False, True], (4, 1)), LOW.costs)
# Second exit: always wrong, so each step that lets a sample leave there breaks accuracy 1 and is undone.
UNDONE = PolicyTables(
    np.array([[0.35, 0.45, 1.0], [0.05, 0.45, 1.0]]), np.tile([True, False, True], (2, 1)), (1, 2, 3)
)


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
def test_grid_and_repair(
    tables: PolicyTables, max_macs: float | None, min_accuracy: float, thresholds: tuple[float, ...]
) -> None:
    assert grid_repair(tables, limits_of(tables, max_macs, min_accuracy)).thresholds == thresholds


@properties
@given(cases(), st.floats(0.0, 1.0))
def test_grid_repair_thresholds_are_whole_tenths(case: Case, min_accuracy: float) -> None:
    point = grid_repair(case[0], limits_of(*case, min_accuracy))
    assert point == slow_point(case[0], point.thresholds)
    assert all(len(repr(threshold)) == 3 for threshold in point.thresholds)  # "0.3", no drift


# Errors

CONFIDENCE = np.array([[0.2, 1.0], [0.8, 1.0]])
CORRECT = np.array([[True, True], [False, True]])


@pytest.mark.parametrize(
    ("confidence", "correct", "costs", "message"),
    [
        (np.ones(3), CORRECT, (1, 2), r"confidence must have shape \(N >= 1, E >= 1\), got \(3,\)"),
        (np.ones((0, 2)), CORRECT[:0], (1, 2), r"confidence must have shape .*, got \(0, 2\)"),
        (CONFIDENCE, CORRECT[:1], (1, 2), r"correct must have confidence's shape \(2, 2\), got \(1, 2\)"),
        (CONFIDENCE, CORRECT, (1, 2, 3), "costs must have one entry for each of 2 exits, got 3"),
        (CONFIDENCE, CORRECT, (2, 2), r"costs must be positive and grow from exit to exit, got \(2, 2\)"),
        (CONFIDENCE, CORRECT, (0, 2), r"costs must be positive and grow from exit to exit, got \(0, 2\)"),
        (CONFIDENCE + 0.5, CORRECT, (1, 2), r"confidence must lie in \[0, 1\], got 1.5"),
        (CONFIDENCE - 0.5, CORRECT, (1, 2), r"confidence must lie in \[0, 1\], got -0.3"),
        (CONFIDENCE * np.nan, CORRECT, (1, 2), r"confidence must lie in \[0, 1\], got nan"),
        (CONFIDENCE, CORRECT, (1, 2**60), r"\(samples \+ 1\)\^2 \* cost must be < 2\^63, got 2 samples at"),
    ],
)
def test_tables_that_do_not_fit_are_refused(
    confidence: NDArray[np.float64], correct: NDArray[np.bool_], costs: tuple[int, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        PolicyTables(confidence, correct, costs)


def test_one_threshold_per_exit() -> None:
    with pytest.raises(ValueError, match="thresholds must have one entry for each of 2 exits, got 1"):
        apply_thresholds(CONFIDENCE, (0.5,))


@pytest.mark.parametrize("resolution", [-1e-9, float("nan")])
def test_resolution_must_not_be_negative(resolution: float) -> None:
    with pytest.raises(ValueError, match=f"resolution must be >= 0, got {resolution}"):
        exact(PolicyTables(CONFIDENCE, CORRECT, (1, 2)), SplitLimits(0, None), resolution=resolution)


# Wilson's interval


@pytest.mark.parametrize(
    ("correct", "samples", "low", "high"),
    [
        # Newcombe, Statistics in Medicine 17, 1998, table I, method 3: his four examples
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
        (20, 20, 0.8389, 1.0),
    ],
)
def test_wilson_interval_known_values(correct: int, samples: int, low: float, high: float) -> None:
    assert wilson_interval(correct, samples) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(("correct", "samples"), [(7, 9), (300, 360), (1, 1)])
def test_wilson_interval_is_scipys(correct: int, samples: int) -> None:
    from scipy.stats import binomtest  # slow to import: only here

    theirs = binomtest(correct, samples).proportion_ci(0.95, method="wilson")
    assert wilson_interval(correct, samples) == pytest.approx((theirs.low, theirs.high), rel=1e-12)


def test_wilson_interval_ends_are_exact() -> None:
    assert wilson_interval(0, 7)[0] == 0.0
    assert wilson_interval(7, 7)[1] == 1.0


@pytest.mark.parametrize("arguments", [(0, 0), (3, 2), (-1, 2)])
def test_wilson_interval_refuses(arguments: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="must be"):
        wilson_interval(*arguments)
