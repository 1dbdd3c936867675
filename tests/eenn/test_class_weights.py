"""Balanced accuracy: weights of classes, limits, sweeps and intervals, each against direct computation."""

from fractions import Fraction
from itertools import pairwise, product
from math import lcm

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from nachos_min.eenn.confidence import cumulative_confidence
from nachos_min.eenn.threshold_search import best_thresholds, grid_repair, threshold_curve
from nachos_min.eenn.thresholds import (
    LARGEST,
    NEVER,
    Figures,
    PolicyTables,
    apply_thresholds,
    balanced_interval,
    class_weights,
    preference,
    split_limits,
    sweep_weights,
    wilson_interval,
)

PRIMES = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53)  # their product is near 2^65


def mean_of_classes(labels: np.ndarray, right: np.ndarray) -> Fraction:
    """The mean, over the classes that occur, of the share of right answers."""
    shares = [Fraction(int(right[labels == c].sum()), int((labels == c).sum())) for c in np.unique(labels)]
    return sum(shares, Fraction(0)) / len(shares)


@st.composite
def tables(draw: st.DrawFn) -> PolicyTables:
    """Tables of one to three exits whose classes are of any size, some of them empty."""
    e, n = draw(st.integers(1, 3)), draw(st.integers(1, 9))
    h = draw(hnp.arrays(np.float64, (n, e - 1), elements=st.integers(0, 10).map(lambda tenth: tenth / 10)))
    correct, labels = draw(hnp.arrays(np.bool_, (n, e))), draw(hnp.arrays(np.int64, n, elements=st.integers(0, 3)))
    return PolicyTables(cumulative_confidence(h), correct, tuple(range(10, 10 + 7 * e, 7)), labels)


def every_choice(of: PolicyTables) -> list[tuple[Fraction, int]]:
    """The mean of the classes' accuracies and the MACs of every cut at every early exit."""
    assert of.labels is not None
    found = []
    for cuts in product(*([NEVER, *np.unique(column)] for column in of.confidence[:, :-1].T)):
        left = apply_thresholds(of.confidence, (*cuts, 0.0))
        right = of.correct[np.arange(of.samples), left]
        found.append((mean_of_classes(of.labels, right), sum(of.costs[exit_] for exit_ in left)))
    return found


def test_weights_by_hand() -> None:
    figures = Figures(8, 10, (10,), 100, class_correct=(8, 0, 0), class_samples=(8, 0, 2))
    assert class_weights(figures.class_samples) == (1, 0, 4)
    assert (figures.score, figures.full_score) == (8, 16)
    assert (figures.accuracy, figures.balanced_accuracy, figures.metric) == (0.8, 0.5, 0.5)
    plain = Figures(8, 10, (10,), 100)
    assert (plain.score, plain.full_score, plain.balanced_accuracy, plain.metric) == (8, 10, None, 0.8)


@settings(max_examples=60)
@given(tables(), st.sampled_from([None, 10, 12.5, 16, 20]), st.sampled_from([0.0, 0.3, 0.5, 1.0]))
def test_thresholds_and_curves_equal_brute_force(split: PolicyTables, max_macs: float | None, least: float) -> None:
    limits = split_limits(max_macs, least, split.samples, split.full_score)
    every = every_choice(split)

    def key(balanced: Fraction, macs: int) -> tuple[bool, Fraction, Fraction]:
        kept = max_macs is None or macs <= Fraction(max_macs) * split.samples
        return (True, balanced, Fraction(-macs)) if kept else (False, Fraction(-macs), balanced)

    best, papers = best_thresholds(split, limits, resolution=0.0).figures, grid_repair(split, limits).figures
    exact = Fraction(best.score, best.full_score)
    assert key(exact, best.total_macs) == max(key(*one) for one in every)
    assert preference(best, limits) >= preference(papers, limits)
    assert best.balanced_accuracy == float(exact)
    assert limits.admit(best) == (float(exact) >= least and key(exact, best.total_macs)[0])
    kept = {one for one in every if float(one[0]) >= least and key(*one)[0]}
    front = {a for a in kept if not any(b != a and b[0] >= a[0] and b[1] <= a[1] for b in kept)}
    curve = [point.figures for point in threshold_curve(split, limits, resolution=0.0)]
    assert [(Fraction(f.score, f.full_score), f.total_macs) for f in curve] == sorted(front, reverse=True)


@given(tables())
def test_classes_of_one_size_change_nothing(split: PolicyTables) -> None:
    twice = [np.concatenate([each, each]) for each in (split.confidence, split.correct)]
    labels = np.repeat([0, 1], split.samples)
    counted, plain = PolicyTables(*twice, split.costs, labels), PolicyTables(*twice, split.costs)
    for max_macs in (None, 13):
        ours, theirs = (split_limits(max_macs, 0.4, each.samples, each.full_score) for each in (counted, plain))
        assert best_thresholds(counted, ours).thresholds == best_thresholds(plain, theirs).thresholds
        curves = threshold_curve(counted, ours), threshold_curve(plain, theirs)
        assert [p.thresholds for p in curves[0]] == [p.thresholds for p in curves[1]]


def test_a_least_common_multiple_beyond_64_bits_overflows_nothing() -> None:
    assert len(PRIMES) * lcm(*PRIMES) > LARGEST
    samples = sum(PRIMES)
    rounded = sweep_weights((0, *PRIMES))
    assert rounded[0] == 0
    full = sum(weight * n for weight, n in zip(rounded[1:], PRIMES, strict=True))
    assert LARGEST // 4 - samples < full < LARGEST // 2 + samples
    for n, weight in zip(PRIMES, rounded[1:], strict=True):
        assert abs(Fraction(weight * n, full) - Fraction(1, len(PRIMES))) < Fraction(samples, 2**60)
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.repeat(np.arange(len(PRIMES)), PRIMES))
    correct = rng.random((samples, 2)) < [0.5, 0.8]
    split = PolicyTables(cumulative_confidence(rng.random((samples, 1))), correct, (10, 10**12), labels)
    every = every_choice(split)
    limits = split_limits(7 * 10**11, 0.0, samples, split.full_score)
    best = best_thresholds(split, limits, resolution=0.0).figures
    kept = [one for one in every if one[1] <= 7 * 10**11 * samples]
    assert (Fraction(best.score, best.full_score), -best.total_macs) == max((a, -m) for a, m in kept)
    curve = [point.figures for point in threshold_curve(split, limits, resolution=0.0)]
    assert curve[0] == best
    assert all(a.score > b.score and a.total_macs > b.total_macs for a, b in pairwise(curve))
    assert all((Fraction(f.score, f.full_score), f.total_macs) in kept for f in curve)


def test_limits_on_balanced_accuracy_are_exact() -> None:
    third = Figures(97, 100, (100,), 10, class_correct=(97, 0, 0), class_samples=(97, 2, 1))
    for least, admitted in ((0.3333333333333333, True), (0.3333333333333334, False), (0.9, False)):
        assert split_limits(None, least, 100, third.full_score).admit(third) is admitted


def test_the_interval_is_normal_for_large_classes_and_covers_with_small_ones() -> None:
    low, high = balanced_interval((90_000, 3_000, 0), (100_000, 5_000, 0))
    deviation = np.sqrt(0.9 * 0.1 / 100_000 + 0.6 * 0.4 / 5_000) / 2
    assert (low, high) == pytest.approx((0.75 - 1.96 * deviation, 0.75 + 1.96 * deviation), abs=0.02 * deviation)
    assert balanced_interval((45,), (50,)) == pytest.approx(wilson_interval(45, 50))
    rng, samples, accuracies = np.random.default_rng(0), np.array([1_000, 5]), np.array([0.9, 0.8])
    drawn = rng.binomial(samples, accuracies, (500, 2)).tolist()
    within = [low <= accuracies.mean() <= high for low, high in (balanced_interval(k, (1_000, 5)) for k in drawn)]
    assert np.mean(within) > 0.92
    with pytest.raises(ValueError, match="class_samples must have a class with a sample"):
        balanced_interval((0,), (0,))
