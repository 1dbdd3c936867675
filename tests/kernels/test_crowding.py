"""Crowding distances and thinned fronts against slow oracles that follow the definitions."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_np

from nachos_kernels.crowding import crowding_distance, thin_front


def crowding_by_definition(F):
    """Deb et al. 2002, III-B, for one front of finite values."""
    n, objectives = F.shape
    distance = np.zeros(n)
    if n <= 2:
        return np.full(n, np.inf)
    for m in range(objectives):
        order = sorted(range(n), key=lambda i: (F[i, m], i))
        extent = F[order[-1], m] - F[order[0], m]
        if extent > 0:
            distance[order[0]] = distance[order[-1]] = np.inf
            for before, i, after in zip(order, order[1:], order[2:], strict=False):
                distance[i] += (F[after, m] - F[before, m]) / extent
    return distance


@given(st_np.arrays(np.float64, st.tuples(st.integers(1, 25), st.integers(1, 3)), elements=st.integers(0, 6)))
def test_crowding_is_that_of_the_definition(F):
    one_front = np.zeros(len(F), dtype=np.int64)
    np.testing.assert_allclose(crowding_distance(F, one_front), crowding_by_definition(F), rtol=1e-12)


@st.composite
def ranked(draw):
    """Points on a coarse grid with infinities, each in some front."""
    n, m = draw(st.integers(1, 30)), draw(st.integers(1, 3))
    values = st.sampled_from([0.0, -0.0, 1.0, 2.0, 3.0, 4.5, np.inf, -np.inf])
    F = draw(st_np.arrays(np.float64, (n, m), elements=values))
    return F, draw(st_np.arrays(np.int64, n, elements=st.integers(0, 3)))


@given(ranked())
def test_crowding_looks_at_one_front_at_a_time_and_is_never_nan(points):
    F, ranks = points
    distance = crowding_distance(F, ranks)
    assert (distance >= 0).all()
    for rank in set(ranks):
        members = np.flatnonzero(ranks == rank)
        alone = crowding_distance(F[members], np.zeros(len(members), dtype=np.int64))
        np.testing.assert_array_equal(distance[members], alone)


@pytest.mark.parametrize("decimals", [1, 2, 16])
def test_many_points_with_and_without_ties(decimals):
    """Beyond some twenty values NumPy's default sort is not stable, so that ties are put in order afterwards."""
    F = np.random.default_rng(1).random((200, 2)).round(decimals)
    one_front = np.zeros(len(F), dtype=np.int64)
    np.testing.assert_allclose(crowding_distance(F, one_front), crowding_by_definition(F), rtol=1e-12)
    steps = (F * 128).round() / 128  # exact distances
    steps[0], steps[-1] = 0.0, 1.0
    np.testing.assert_array_equal(thin_front(steps, 60), thin_by_definition(steps, 60))


@pytest.mark.parametrize("objectives", [2, 3])
def test_nobody_has_no_distance(objectives):
    assert crowding_distance(np.empty((0, objectives)), np.empty(0, dtype=np.int64)).shape == (0,)
    assert thin_front(np.empty((0, objectives)), 0).shape == (0,)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_kernels_take_both_float_types(dtype):
    F = np.array([[0, 2], [1, 1], [2, 2]], dtype=dtype)
    np.testing.assert_array_equal(crowding_distance(F, np.array([0, 0, 1])), np.full(3, np.inf))
    np.testing.assert_array_equal(thin_front(F, 3), [0, 1, 2])


def test_crowding_with_a_constant_objective_duplicates_and_infinities():
    front = np.zeros(4, dtype=np.int64)
    constant = np.array([[0.0, 7.0], [1.0, 7.0], [3.0, 7.0], [4.0, 7.0]])
    np.testing.assert_array_equal(crowding_distance(constant, front), [np.inf, 0.75, 0.75, np.inf])
    np.testing.assert_array_equal(crowding_distance(np.ones((4, 2)), front), np.zeros(4))
    twins_at_the_end = np.array([[0.0, 4.0], [0.0, 4.0], [2.0, 1.0], [4.0, 0.0]])
    np.testing.assert_array_equal(crowding_distance(twins_at_the_end, front), [np.inf, np.inf, 2.0, np.inf])
    endless = np.array([[-np.inf], [0.0], [1.0], [2.0], [np.inf]])
    distance = crowding_distance(endless, np.zeros(5, dtype=np.int64))
    np.testing.assert_array_equal(distance, [np.inf, np.inf, 1.0, np.inf, np.inf])


def thin_by_definition(F, keep):
    """Remove the most crowded point, measure again, repeat; gaps relative to the range of the whole front."""
    left = list(range(len(F)))
    extents = np.ptp(F, axis=0)
    while len(left) > keep:
        distance = dict.fromkeys(left, 0.0)
        for m in np.flatnonzero(extents > 0):
            order = sorted(left, key=lambda i, m=m: (F[i, m], i))
            distance[order[0]] = distance[order[-1]] = np.inf
            for before, i, after in zip(order, order[1:], order[2:], strict=False):
                distance[i] += (F[after, m] - F[before, m]) / extents[m]
        left.remove(min(left, key=lambda i: (distance[i], i)))
    return left


@given(
    st_np.arrays(np.float64, st.tuples(st.integers(1, 15), st.integers(1, 3)), elements=st.integers(0, 16)),
    st.data(),
)
def test_thinning_is_that_of_the_definition(values, data):
    F = values / 16 + 0.0
    F[0], F[-1] = 0.0, 1.0  # a range of 1: every distance is exact, so that ties are ties
    keep = data.draw(st.integers(0, len(F)))
    np.testing.assert_array_equal(thin_front(F, keep), thin_by_definition(F, keep))


def test_thinning_keeps_one_of_two_close_points_and_both_ends():
    F = np.array([[0.0, 1.0], [0.50, 0.50], [0.51, 0.49], [0.9, 0.1], [1.0, 0.0]])
    np.testing.assert_array_equal(thin_front(F, 4), [0, 1, 3, 4])
    np.testing.assert_array_equal(thin_front(F, 2), [0, 4])
    np.testing.assert_array_equal(thin_front(np.full((3, 2), np.nan), 1), [2])
