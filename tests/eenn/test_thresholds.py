"""Thresholds: the policy against a loop, `exact` against brute force, `grid_repair` worked by hand."""

import json
from collections.abc import Sequence
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from nachos_min.eenn import exact_thresholds, threshold_sweep
from nachos_min.eenn.exact_thresholds import exact
from nachos_min.eenn.grid_repair import grid_repair
from nachos_min.eenn.threshold_sweep import levels
from nachos_min.eenn.thresholds import (
    EVERYBODY,
    NOBODY,
    Outcome,
    admissible,
    apply_thresholds,
    fits_accuracy,
    fits_budget,
    measure,
    preference,
)

Tables = tuple[NDArray[np.float64], NDArray[np.bool_], tuple[int, ...]]

# The properties are about arithmetic, not luck: the same examples on every run.
properties = settings(max_examples=60, deadline=None, derandomize=True)


# Slow and obvious: what the fast functions are held against.


def slow_outcome(tables: Tables, thresholds: Sequence[float]) -> Outcome:
    """Each sample walks from exit to exit."""
    confidence, correct, costs = tables
    counts, right, macs = [0] * len(costs), 0, 0
    for n in range(len(confidence)):
        for i in range(len(costs)):
            if i == len(costs) - 1 or confidence[n, i] >= thresholds[i]:
                counts[i] += 1
                right += bool(correct[n, i])
                macs += costs[i]
                break
    return Outcome(tuple(thresholds), right, len(confidence), tuple(counts), macs)


def slow_best(tables: Tables, max_macs: float | None) -> tuple[bool, int, int]:
    """Every cut at every early exit: at each confidence that occurs, and above all of them."""
    confidence, _, costs = tables
    cuts = [[NOBODY, *np.unique(confidence[:, i]).tolist()] for i in range(len(costs) - 1)]
    return max(preference(slow_outcome(tables, (*chosen, 0.0)), max_macs) for chosen in product(*cuts))


def cumulative(h: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.hstack([1.0 - np.cumprod(1.0 - h, axis=1), np.ones((len(h), 1))])


@st.composite
def tables_and_budgets(
    draw: st.DrawFn, exits: Sequence[int] = (2, 3, 4, 5), samples: int = 20
) -> tuple[Tables, float | None]:
    """Tables with duplicates, zeros and ones likely; budgets from out of reach to generous."""
    e, n = draw(st.sampled_from(exits)), draw(st.integers(1, samples))
    tenths = st.integers(0, 10).map(lambda tenth: tenth / 10)
    h = draw(hnp.arrays(np.float64, (n, e - 1), elements=st.one_of(tenths, st.floats(0.0, 1.0))))
    correct = draw(hnp.arrays(np.bool_, (n, e)))
    steps = draw(st.lists(st.integers(1, 10**7), min_size=e, max_size=e))
    costs = tuple(int(cost) for cost in np.cumsum(steps))
    reach = draw(st.floats(0.5, 1.2))
    between = costs[0] + reach * (costs[-1] - costs[0])
    budget = draw(st.sampled_from([None, costs[0], between, 0.9 * costs[0]]))
    return (cumulative(h), correct, costs), budget


def random_tables(samples: int, exits: int, seed: int) -> Tables:
    """Exits that know something: confident where they are right, and later ones right more often."""
    rng = np.random.default_rng(seed)
    correct = rng.random((samples, exits)) < np.linspace(0.5, 0.9, exits)
    h = 1 / (1 + np.exp(-rng.normal(2.0 * correct[:, :-1] - 1.0, 1.2)))
    return cumulative(h), correct, tuple(1_000 * (i + 1) + 7 * i * i for i in range(exits))


# The policy


@properties
@given(tables_and_budgets(), st.data())
def test_policy_and_outcome_agree_with_a_loop(case: tuple[Tables, float | None], data: st.DataObject) -> None:
    tables, _ = case
    confidence, correct, costs = tables
    occurring = st.sampled_from([*np.unique(confidence).tolist(), NOBODY, EVERYBODY, 0.5])
    thresholds = (*data.draw(st.lists(occurring, min_size=len(costs) - 1, max_size=len(costs) - 1)), 0.0)
    outcome = measure(confidence, correct, costs, thresholds)
    assert outcome == slow_outcome(tables, thresholds)
    leaves_at = apply_thresholds(confidence, thresholds)
    assert tuple(np.bincount(leaves_at, minlength=len(costs))) == outcome.exit_counts
    assert sum(outcome.exit_counts) == outcome.samples


def test_last_exit_takes_what_is_left_whatever_its_threshold() -> None:
    assert apply_thresholds(np.array([[0.4, 1.0]]), (0.5, NOBODY)).tolist() == [1]


def test_nobody_and_everybody_mean_it_even_for_confidences_rounded_to_one_or_zero() -> None:
    confidence = np.array([[1.0, 1.0], [0.0, 1.0]])
    assert apply_thresholds(confidence, (NOBODY, 0.0)).tolist() == [1, 1]
    assert apply_thresholds(confidence, (EVERYBODY, 0.0)).tolist() == [0, 0]


def test_outcome_keeps_fractions_and_survives_json() -> None:
    tables = random_tables(7, 3, seed=0)
    outcome = exact(*tables, max_macs=1_500, min_accuracy=0.0)
    assert outcome.average_macs == Fraction(outcome.total_macs, 7)
    assert outcome.accuracy == outcome.correct / 7
    stored = json.loads(json.dumps(outcome.thresholds, allow_nan=False))
    assert measure(*tables, stored) == outcome


# Admissibility: decimals as they were written, no rounding


def test_constraints_are_compared_exactly() -> None:
    # 0.7 * 10 is 7.000000000000001 in doubles and 0.29 * 100 is 28.999999999999996: both would misjudge.
    assert admissible(Outcome((0.5, 0.0), 7, 10, (5, 5), 100), max_macs=10, min_accuracy=0.7)
    assert admissible(Outcome((0.5, 0.0), 29, 100, (50, 50), 30), max_macs=0.3, min_accuracy=0.29)
    third = Outcome((0.5, 0.0), 1, 3, (1, 2), 10**18 + 1)
    assert not fits_budget(third, 10**18 // 3)
    assert not fits_accuracy(third, 0.3333333333333334)
    assert fits_budget(third, None)


@pytest.mark.parametrize("limit", [float("inf"), float("nan")])
def test_limits_must_be_finite(limit: float) -> None:
    outcome = Outcome((0.5, 0.0), 1, 2, (1, 1), 3)
    with pytest.raises(ValueError, match=f"max_macs must be finite, got {limit}"):
        admissible(outcome, limit, 0.5)
    with pytest.raises(ValueError, match=f"min_accuracy must be finite, got {limit}"):
        admissible(outcome, 3, limit)


def test_preference_within_the_budget_then_outside_it() -> None:
    def outcome(correct: int, macs: int) -> Outcome:
        return Outcome((0.5, 0.0), correct, 10, (5, 5), macs)

    best_first = [(9, 100), (8, 90), (8, 100), (0, 100), (1, 101), (0, 101), (10, 102)]
    keys = [preference(outcome(*pair), max_macs=10) for pair in best_first]
    assert keys == sorted(keys, reverse=True)


# exact


@properties
@given(tables_and_budgets(exits=(2, 3), samples=9))
def test_exact_equals_brute_force_with_one_and_two_early_exits(case: tuple[Tables, float | None]) -> None:
    tables, budget = case
    outcome = exact(*tables, budget, 0.5, resolution=0.0)
    assert preference(outcome, budget) == slow_best(tables, budget)
    assert outcome == slow_outcome(tables, outcome.thresholds)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(tables_and_budgets(exits=(4, 5), samples=4))
def test_exact_equals_brute_force_where_the_grid_holds_every_level(case: tuple[Tables, float | None]) -> None:
    tables, budget = case
    assert preference(exact(*tables, budget, 0.5, resolution=0.0), budget) == slow_best(tables, budget)


@properties
@given(tables_and_budgets(), st.sampled_from([0.0, 0.3, 0.5, 0.8]), st.sampled_from([0.0, 1e-5, 0.05]))
def test_exact_is_never_worse_than_grid_repair(
    case: tuple[Tables, float | None], min_accuracy: float, resolution: float
) -> None:
    tables, budget = case
    ours = exact(*tables, budget, min_accuracy, resolution=resolution)
    papers = grid_repair(*tables, budget, min_accuracy)
    assert preference(ours, budget) >= preference(papers, budget)
    assert admissible(ours, budget, min_accuracy) or not admissible(papers, budget, min_accuracy)


@pytest.mark.parametrize("exits", [2, 3, 4, 5])
@pytest.mark.parametrize("budget", [1_200, 1_900.5, None])
def test_exact_is_never_worse_on_larger_tables(exits: int, budget: float | None) -> None:
    tables = random_tables(150, exits, seed=exits)
    ours, papers = exact(*tables, budget, 0.5), grid_repair(*tables, budget, 0.5)
    assert preference(ours, budget) >= preference(papers, budget)
    assert ours == slow_outcome(tables, ours.thresholds)


@pytest.mark.parametrize("exits", [4, 5])
@pytest.mark.parametrize("seed", [0, 1])
def test_no_single_threshold_improves_on_exact(exits: int, seed: int) -> None:
    """With many exits the optimum is not proven, but a refined answer must at least be a local one."""
    tables, budget = random_tables(90, exits, seed), 1_900
    outcome = exact(*tables, budget, 0.5, resolution=0.0)
    for i in range(exits - 1):
        for threshold in levels(tables[0][:, i], 0.0):
            moved = (*outcome.thresholds[:i], float(threshold), *outcome.thresholds[i + 1 :])
            assert preference(measure(*tables, moved), budget) <= preference(outcome, budget)


@properties
@given(tables_and_budgets(), st.integers(0, 2**32 - 1))
def test_confidences_may_move_by_half_the_resolution(case: tuple[Tables, float | None], seed: int) -> None:
    tables, budget = case
    confidence, correct, costs = tables
    resolution = 1e-3
    outcome = exact(*tables, budget, 0.5, resolution=resolution)
    # The documented exception: grid-repair's round tenths, returned because they were better, stand anywhere.
    assume(outcome != grid_repair(*tables, budget, 0.5))
    noise = np.random.default_rng(seed).uniform(-0.499, 0.499, confidence.shape) * resolution
    moved = np.clip(confidence + noise, 0.0, 1.0)
    assert measure(moved, correct, costs, outcome.thresholds) == outcome


def test_grid_repair_is_returned_only_for_a_cut_through_a_narrow_gap() -> None:
    # 0.7 separates the two; letting only the first leave is right for both and fits the budget.
    confidence = np.array([[0.700001, 1.0], [0.699998, 1.0]])
    correct = np.array([[True, False], [False, True]])
    fragile = exact(confidence, correct, (10, 20), 15, 0.0, resolution=1e-5)
    assert fragile.thresholds == (0.7, 0.0)
    assert fragile.correct == 2
    assert exact(confidence, correct, (10, 20), 15, 0.0, resolution=1e-6).thresholds[0] == pytest.approx(0.6999995)


def test_thresholds_stand_in_the_middle_of_wide_gaps() -> None:
    assert levels(np.array([0.2, 0.8, 0.8, 0.8000001]), 1e-5).tolist() == [NOBODY, 0.5, EVERYBODY]
    assert levels(np.array([0.3]), 0.0).tolist() == [NOBODY, EVERYBODY]


def test_neighbouring_doubles_are_still_told_apart() -> None:
    above = float(np.nextafter(0.5, 1.0))
    confidence = np.array([[0.5, 1.0], [above, 1.0]])
    outcome = exact(confidence, np.array([[False, True], [True, False]]), (10, 20), None, 0.0, resolution=0.0)
    assert outcome.correct == 2


@pytest.mark.parametrize("exits", [2, 3, 5])
def test_one_sample(exits: int) -> None:
    confidence = np.ones((1, exits)) * 0.5
    confidence[:, -1] = 1.0
    costs = tuple(range(1, exits + 1))
    right_at_last = np.zeros((1, exits), dtype=np.bool_)
    right_at_last[0, -1] = True
    assert exact(confidence, right_at_last, costs, None, 0.0).exit_counts[-1] == 1
    assert exact(confidence, right_at_last, costs, costs[0], 0.0).exit_counts[0] == 1


def test_equal_confidences_leave_together_or_not_at_all() -> None:
    confidence = np.tile([0.6, 0.8, 1.0], (10, 1))
    correct = np.tile([False, True, True], (10, 1))
    assert exact(confidence, correct, (1, 2, 3), None, 0.0).exit_counts == (0, 10, 0)


def test_exits_that_are_always_wrong_are_used_only_as_far_as_the_budget_needs() -> None:
    tables = random_tables(40, 3, seed=3)
    confidence, correct, costs = tables[0], tables[1].copy(), tables[2]
    correct[:, :-1], correct[:, -1] = False, True
    assert exact(confidence, correct, costs, None, 0.0).exit_counts[:2] == (0, 0)
    outcome = exact(confidence, correct, costs, 2_500, 0.0)
    assert outcome.average_macs <= 2_500
    assert preference(outcome, 2_500) == slow_best((confidence, correct, costs), 2_500)


def test_budget_out_of_reach_minimises_macs() -> None:
    confidence, correct, costs = random_tables(50, 4, seed=4)
    outcome = exact(confidence, correct, costs, costs[0] - 1, 0.0)
    assert outcome.exit_counts == (50, 0, 0, 0)
    assert outcome.total_macs == 50 * costs[0]


@pytest.mark.parametrize("exits", [3, 4])
def test_blocks_and_thinned_levels_lose_nothing_that_matters(exits: int, monkeypatch: pytest.MonkeyPatch) -> None:
    tables = random_tables(120, exits, seed=5)
    whole = exact(*tables, 1_700, 0.5)
    monkeypatch.setattr(threshold_sweep, "BLOCK_CELLS", 700)  # 5 rows of 120 samples at once
    assert exact(*tables, 1_700, 0.5) == whole
    monkeypatch.setattr(exact_thresholds, "NESTED_CELLS", 120 * 20)  # 20 of some 120 outer levels
    thinned = exact(*tables, 1_700, 0.5)
    assert thinned.average_macs <= 1_700
    assert thinned.correct >= whole.correct - 1


def test_totals_beyond_32_bits_are_exact() -> None:
    confidence, correct, _ = random_tables(60, 3, seed=6)
    costs = (10**12 + 1, 2 * 10**12 + 3, 3 * 10**12 + 5)
    outcome = exact(confidence, correct, costs, 2 * 10**12, 0.0)
    assert outcome == slow_outcome((confidence, correct, costs), outcome.thresholds)
    assert outcome.average_macs <= 2 * 10**12


# grid-repair, by hand


def one_exit(confidences: Sequence[float], early: Sequence[bool], final: Sequence[bool]) -> Tables:
    confidence = np.column_stack([confidences, np.ones(len(confidences))])
    return confidence, np.column_stack([early, final]), (10, 20)


def test_grid_keeps_the_most_accurate_and_the_first_of_equals() -> None:
    # The first exit's threshold is at least 0.7, so six of the seven trials are the same; 0.8 is the seventh.
    keep = one_exit([0.75, 0.9], [True, True], [True, True])
    assert grid_repair(*keep, None, 0.0).thresholds == (0.7, 0.0)
    wait = one_exit([0.75, 0.9], [False, True], [True, True])
    assert grid_repair(*wait, None, 0.0).thresholds == (0.8, 0.0)


def test_repair_lowers_the_last_early_exit_first_and_stops_in_time() -> None:
    confidence = np.tile([0.05, 0.45, 1.0], (4, 1))
    correct = np.tile([False, True, True], (4, 1))
    # Trials 0.1 to 0.3 already let all leave at the second exit; as good as any, and the first of equals.
    assert grid_repair(confidence, correct, (1, 2, 3), 2, 0.5).thresholds == (0.7, 0.1, 0.0)
    # Right only at the end: 0.5 wins the grid at 3 MACs; accuracy 0 is allowed, so 0.4 repairs it.
    only_last = np.tile([False, False, True], (4, 1))
    assert grid_repair(confidence, only_last, (1, 2, 3), 2, 0.0).thresholds == (0.7, 0.4, 0.0)


def test_repair_undoes_a_step_that_breaks_the_accuracy_and_goes_to_the_exit_before() -> None:
    # Second exit: always wrong, so each step that lets a sample leave there breaks A_min = 1 and is undone.
    confidence = np.array([[0.35, 0.45, 1.0], [0.05, 0.45, 1.0]])
    correct = np.array([[True, False, True], [True, False, True]])
    outcome = grid_repair(confidence, correct, (1, 2, 3), 2, 1.0)
    assert outcome.thresholds == (0.3, 0.5, 0.0)
    assert outcome.exit_counts == (1, 0, 1)
    assert outcome.average_macs == 2


def test_repair_leaves_an_inaccurate_network_alone() -> None:
    wrong = one_exit([0.2, 0.3], [False, False], [True, False])
    assert grid_repair(*wrong, 1, 0.9).thresholds == (0.7, 0.0)


def test_repair_ends_with_nothing_left_to_lower() -> None:
    outcome = grid_repair(*one_exit([0.0, 0.3], [True, True], [True, True]), 5, 0.0)
    assert outcome.thresholds == (0.0, 0.0)
    assert outcome.exit_counts == (2, 0)


@properties
@given(tables_and_budgets(), st.floats(0.0, 1.0))
def test_grid_repair_thresholds_are_whole_tenths(case: tuple[Tables, float | None], min_accuracy: float) -> None:
    tables, budget = case
    outcome = grid_repair(*tables, budget, min_accuracy)
    assert outcome == slow_outcome(tables, outcome.thresholds)
    assert all(threshold == round(threshold * 10) / 10 for threshold in outcome.thresholds)
    assert all(len(repr(threshold)) == 3 for threshold in outcome.thresholds)  # "0.3", no drift


# Errors

CONFIDENCE = np.array([[0.2, 1.0], [0.8, 1.0]])
CORRECT = np.array([[True, True], [False, True]])


@pytest.mark.parametrize(
    ("confidence", "correct", "costs", "message"),
    [
        (np.ones(3), CORRECT, (1, 2), r"confidence must have shape \(N >= 1, E >= 2\), got \(3,\)"),
        (np.ones((0, 2)), CORRECT[:0], (1, 2), r"confidence must have shape .*, got \(0, 2\)"),
        (np.ones((2, 1)), CORRECT[:, :1], (1,), r"confidence must have shape .*, got \(2, 1\)"),
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
        exact(confidence, correct, costs, None, 0.5)
    with pytest.raises(ValueError, match=message):
        grid_repair(confidence, correct, costs, None, 0.5)
    with pytest.raises(ValueError, match=message):
        measure(confidence, correct, costs, (0.5, 0.0))


def test_one_threshold_per_exit() -> None:
    with pytest.raises(ValueError, match="thresholds must have one entry for each of 2 exits, got 1"):
        apply_thresholds(CONFIDENCE, (0.5,))


@pytest.mark.parametrize("resolution", [-1e-9, float("nan")])
def test_resolution_must_not_be_negative(resolution: float) -> None:
    with pytest.raises(ValueError, match=f"resolution must be >= 0, got {resolution}"):
        exact(CONFIDENCE, CORRECT, (1, 2), None, 0.5, resolution=resolution)
