"""Certified rows keep their limits: valid p-values, a family of rows without a mistake, power, and refusals."""

from itertools import product
from math import factorial, prod, sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nachos_min.eenn.guarantee import accuracy_p_value, certified, fewest_samples, macs_p_value
from nachos_min.eenn.thresholds import Figures, spent

Row = tuple[Figures, tuple[int, ...]]

COSTS = (10, 25, 60)
unit = st.floats(0.02, 0.98)


def row(correct: int, exit_counts: tuple[int, ...], costs: tuple[int, ...]) -> Row:
    return Figures(correct, sum(exit_counts), exit_counts, spent(exit_counts, costs)), costs


@pytest.mark.parametrize("samples", [1, 7, 300])
@pytest.mark.parametrize("limit", [0.25, 0.9, 1.0])
def test_p_values_are_binomial_tails(samples: int, limit: float) -> None:
    from scipy.stats import binom  # slow to import: only here

    for right in range(0, samples + 1, max(1, samples // 20)):
        tail = binom.sf(right - 1, samples, limit)
        assert accuracy_p_value(right, samples, limit) == pytest.approx(tail, rel=1e-9)
        macs = macs_p_value((samples - right, right), (10, 30), 10 + 20 * limit, 0.05)
        assert macs == pytest.approx(binom.cdf(right, samples, limit) if limit < 1 else 0.0, rel=1e-9)


@given(st.integers(1, 9), unit, unit, st.sampled_from([0.001, 0.05, 0.5]))
def test_a_p_value_of_the_macs_is_seldom_small_at_the_limit(samples: int, a: float, b: float, level: float) -> None:
    """All outcomes of three exits enumerated: P(p <= t) <= t for every t, the mean being the limit itself."""
    shares = np.array([a, (1 - a) * b, (1 - a) * (1 - b)])
    found: list[tuple[float, float]] = []
    for counts in (c for c in product(range(samples + 1), repeat=3) if sum(c) == samples):
        ways = factorial(samples) // prod(map(factorial, counts))
        chance = ways * float(np.prod(shares ** np.array(counts)))
        found.append((macs_p_value(counts, COSTS, float(shares @ COSTS), level), chance))
    below = 0.0
    for p_value, chance in sorted(found):
        below += chance
        assert below <= p_value + 1e-9


@pytest.mark.parametrize("samples", [60, 400])
def test_no_certified_row_breaks_a_limit_but_with_the_probability_allowed(samples: int) -> None:
    """Rows 1 and 2 are on a limit, which counts as broken."""
    rng, trials, guarantee, networks = np.random.default_rng(samples), 1500, 0.8, 3
    late = np.array([0.9, 0.5, 0.2, 0.1])  # the share at the last exit; the others leave half and half
    accuracy = np.array([0.98, 0.95, 0.8, 0.75])
    max_macs, min_accuracy = 0.25 * 10 + 0.25 * 25 + 0.5 * 60, 0.8  # those of row 1, and of row 2
    mistakes = 0
    for _ in range(trials):
        wrong = False
        for _ in range(networks):
            draw, luck = rng.random(samples), rng.random(samples)
            leaves = np.where(draw < late[:, None], 2, (draw * 1e6).astype(int) % 2)
            counts, right = [np.bincount(at, minlength=3) for at in leaves], luck < accuracy[:, None]
            rows = [row(ok.sum(), tuple(c.tolist()), COSTS) for ok, c in zip(right, counts, strict=True)]
            wrong |= any(certified(rows, max_macs, min_accuracy, (1 - guarantee) / (2 * networks)))
        mistakes += wrong
    assert 0 < mistakes / trials <= 1 - guarantee + 3 * sqrt(guarantee * (1 - guarantee) / trials)


def test_each_limit_alone_is_tested_at_nearly_the_whole_level() -> None:
    rng, trials, level = np.random.default_rng(5), 4000, 0.1
    right, late = rng.binomial(200, 0.9, trials).tolist(), rng.binomial(200, 0.5, trials).tolist()
    accuracy = np.mean([certified([row(k, (200,), (10,))], None, 0.9, level)[0] for k in right])
    macs = np.mean([certified([row(0, (200 - k, k), (10, 30))], 20, 0.0, level)[0] for k in late])
    allowed = 3 * sqrt(level * (1 - level) / trials)
    assert level / 2 < accuracy <= level + allowed
    assert level / 2 < macs <= level + allowed


@pytest.mark.parametrize("exits", [1, 2, 3])
def test_rows_far_inside_the_limits_are_certified(exits: int) -> None:
    counts = {1: (300,), 2: (150, 150), 3: (150, 100, 50)}[exits]
    rows = [row(290, counts, COSTS[:exits]), row(285, counts, COSTS[:exits])]
    mean = sum(count * cost for count, cost in zip(counts, COSTS, strict=False)) / 300
    assert certified(rows, 1.25 * mean, 0.9, 0.01) == (True, True)


def test_a_sequence_ends_at_the_first_row_that_cannot_be_certified() -> None:
    costs = (10, 30)
    good, wrong, dear = row(99, (60, 40), costs), row(90, (60, 40), costs), row(99, (45, 55), costs)
    assert certified([good, wrong, good], 22, 0.9, 0.05) == (True, False, False)
    assert certified([good, dear, good], 22, 0.9, 0.05) == (False, False, True)
    assert certified([], 22, 0.9, 0.05) == ()


def test_limits_that_cannot_be_broken_or_kept() -> None:
    wrong = row(0, (3, 0, 0), COSTS)
    assert certified([wrong], None, 0.0, 0.05) == certified([wrong], 60, 0.0, 0.05) == (True,)
    assert certified([wrong], 10, 0.0, 0.05) == (False,)  # a sample that leaves later would break it
    assert certified([row(9, (9,), (60,))], None, 1.0, 0.05) == (False,)


@given(st.floats(0.01, 0.995), st.sampled_from([0.5, 0.1, 0.025, 0.001]))
def test_fewest_samples_is_where_a_perfect_score_begins_to_do(min_accuracy: float, level: float) -> None:
    samples = fewest_samples(min_accuracy, level)
    assert samples is not None
    assert min_accuracy**samples <= level
    assert samples == 1 or min_accuracy ** (samples - 1) > level
    assert (fewest_samples(0.0, level), fewest_samples(1.0, level)) == (1, None)


@pytest.mark.parametrize(
    ("accuracy", "level", "message"),
    [(value, 0.05, "min_accuracy must be in") for value in (1.1, -0.1, float("nan"))]
    + [(0.9, value, "level must be in") for value in (0.0, 1.0, float("nan"))],
)
def test_numbers_outside_their_ranges_are_refused(accuracy: float, level: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        certified([], None, accuracy, level)
    with pytest.raises(ValueError, match=message):
        fewest_samples(accuracy, level)
