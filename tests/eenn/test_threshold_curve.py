"""The whole curve of a network: nothing on it is beaten, and nothing within the limits beats it."""

from fractions import Fraction
from itertools import pairwise, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nachos_min.eenn.confidence import cumulative_confidence
from nachos_min.eenn.exact_thresholds import exact
from nachos_min.eenn.threshold_curve import threshold_curve
from nachos_min.eenn.threshold_sweep import levels
from nachos_min.eenn.thresholds import admissible, measure, static_outcome

COSTS = (10, 25, 70, 90)


def tables(seed: int, samples: int, exits: int) -> tuple[np.ndarray, np.ndarray, tuple[int, ...]]:
    """Tables of a network whose later exits are right more often; few confidences, so that many are equal."""
    rng = np.random.default_rng(seed)
    h = rng.integers(0, 6, (samples, exits - 1)) / 6
    right = rng.random((samples, exits)) < np.linspace(0.5, 0.9, exits)
    return cumulative_confidence(h), right, COSTS[:exits]


@given(st.integers(0, 10_000), st.integers(1, 9), st.integers(2, 3), st.sampled_from([None, 20, 40]))
def test_the_curve_is_the_front_of_all_thresholds(
    seed: int, samples: int, exits: int, max_macs: int | None
) -> None:
    confidence, right, costs = tables(seed, samples, exits)
    choices = product(*(levels(confidence[:, i], 1e-5).tolist() for i in range(exits - 1)))
    all_ = [measure(confidence, right, costs, (*chosen, 0.0)) for chosen in choices]
    kept = {(o.correct, o.total_macs) for o in all_ if admissible(o, max_macs, 0.5)}
    front = {p for p in kept if not any(q != p and q[0] >= p[0] and q[1] <= p[1] for q in kept)}
    curve = threshold_curve(confidence, right, costs, max_macs, 0.5)
    assert [(o.correct, o.total_macs) for o in curve] == sorted(front, reverse=True)


@given(st.integers(0, 10_000), st.integers(2, 4))
def test_a_curve_begins_with_the_best_thresholds_and_falls(seed: int, exits: int) -> None:
    confidence, right, costs = tables(seed, 60, exits)
    curve = threshold_curve(confidence, right, costs, 60, 0.4)
    best = exact(confidence, right, costs, 60, 0.4)
    if exits < 4 and admissible(best, 60, 0.4):
        assert (curve[0].correct, curve[0].total_macs) == (best.correct, best.total_macs)
    for before, after in pairwise(curve):
        assert before.correct > after.correct
        assert before.total_macs > after.total_macs
    for point in curve:
        assert point == measure(confidence, right, costs, point.thresholds)
        assert Fraction(point.total_macs, 60) <= 60


def test_many_rows_are_handled_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    confidence, right, costs = tables(3, 80, 3)
    confidence[:, 0] = np.linspace(0, 0.5, 80)
    whole = threshold_curve(confidence, right, costs, None, 0.0)
    monkeypatch.setattr("nachos_min.eenn.threshold_sweep.BLOCK_CELLS", 160)
    assert threshold_curve(confidence, right, costs, None, 0.0) == whole


def test_no_thresholds_are_admissible() -> None:
    confidence, right, costs = tables(0, 10, 2)
    assert threshold_curve(confidence, right, costs, 5, 0.0) == ()
    assert threshold_curve(confidence, ~right & right, costs, None, 0.1) == ()


def test_tables_that_do_not_fit_are_refused() -> None:
    confidence, right, costs = tables(0, 10, 2)
    with pytest.raises(ValueError, match="correct must have confidence's shape"):
        threshold_curve(confidence, right[1:], costs, None, 0.0)


def test_without_early_exits_there_is_one_outcome() -> None:
    outcome = static_outcome(np.array([True, False, True]), 70)
    assert (outcome.correct, outcome.exit_counts, outcome.total_macs) == (2, (3,), 210)
    assert outcome.thresholds == (0.0,)
