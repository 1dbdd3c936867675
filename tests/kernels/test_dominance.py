"""Ranks, crowding and area against slow oracles that follow the definitions, and against pymoo when it is there."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_np

from nachos_kernels.dominance import crowding_distance, hypervolume_2d, non_dominated_ranks, thin_front


def dominates(F, violation, i, j):
    """Deb et al. 2002, Definition 1, word for word."""
    if violation[i] > 0 or violation[j] > 0:
        return violation[i] < violation[j]
    return (F[i] <= F[j]).all() and (F[i] < F[j]).any()


def ranks_by_peeling(F, violation):
    """The definition: front 0 is what nobody dominates, front 1 what nobody else dominates then, ..."""
    ranks = np.full(len(F), -1)
    rank = 0
    while (left := np.flatnonzero(ranks < 0)).size:
        front = [j for j in left if not any(dominates(F, violation, i, j) for i in left)]
        ranks[front] = rank
        rank += 1
    return ranks


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


ONE_TO_FOUR = st.integers(1, 4)


@st.composite
def populations(draw, objectives=ONE_TO_FOUR):
    """Points on a coarse grid, so that ties, duplicates and equal violations are common."""
    n, m = draw(st.integers(1, 30)), draw(objectives)
    values = st.sampled_from([0.0, 1.0, 2.0, 3.0, 4.5, np.inf, -np.inf])
    F = draw(st_np.arrays(np.float64, (n, m), elements=values))
    violation = draw(st_np.arrays(np.float64, n, elements=st.sampled_from([0.0, 0.0, 0.0, 0.5, 2.0, np.inf])))
    return F, violation


@given(populations())
def test_ranks_are_those_of_the_definition(population):
    np.testing.assert_array_equal(non_dominated_ranks(*population), ranks_by_peeling(*population))


@given(populations())
def test_fronts_partition_and_are_ordered(population):
    F, violation = population
    ranks = non_dominated_ranks(F, violation)
    assert set(ranks) == set(range(ranks.max() + 1))
    for j in range(len(F)):
        assert not any(dominates(F, violation, i, j) for i in np.flatnonzero(ranks == ranks[j]))
        if ranks[j] > 0:
            assert any(dominates(F, violation, i, j) for i in np.flatnonzero(ranks == ranks[j] - 1))


@given(populations(objectives=st.just(2)))
def test_the_sweep_and_the_general_path_agree(population):
    F, violation = population
    with_a_constant = np.column_stack([F, np.zeros(len(F))])
    np.testing.assert_array_equal(
        non_dominated_ranks(F, violation), non_dominated_ranks(with_a_constant, violation)
    )


@pytest.mark.parametrize("objectives", [2, 3])
def test_an_empty_population_has_no_ranks(objectives):
    assert non_dominated_ranks(np.empty((0, objectives)), np.empty(0)).shape == (0,)
    assert crowding_distance(np.empty((0, objectives)), np.empty(0, dtype=np.int64)).shape == (0,)


def test_a_nan_with_infinite_violation_ranks_last():
    F = np.array([[np.nan, 0.0], [1.0, 1.0], [0.0, 2.0], [5.0, np.nan]])
    violation = np.array([np.inf, 0.3, 0.0, np.inf])
    np.testing.assert_array_equal(non_dominated_ranks(F, violation), [2, 1, 0, 2])


@given(st_np.arrays(np.float64, st.tuples(st.integers(1, 25), st.integers(1, 3)), elements=st.integers(0, 6)))
def test_crowding_is_that_of_the_definition(F):
    one_front = np.zeros(len(F), dtype=np.int64)
    np.testing.assert_allclose(crowding_distance(F, one_front), crowding_by_definition(F), rtol=1e-12)


@given(populations(objectives=st.integers(1, 3)))
def test_crowding_looks_at_one_front_at_a_time_and_is_never_nan(population):
    F, violation = population
    ranks = non_dominated_ranks(F, violation)
    distance = crowding_distance(F, ranks)
    assert (distance >= 0).all()
    for rank in range(ranks.max() + 1):
        members = np.flatnonzero(ranks == rank)
        alone = crowding_distance(F[members], np.zeros(len(members), dtype=np.int64))
        np.testing.assert_array_equal(distance[members], alone)


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


@given(st_np.arrays(np.float64, st.tuples(st.integers(0, 8), st.just(2)), elements=st.integers(0, 6)))
def test_area_counts_the_dominated_unit_squares(F):
    squares = sum(
        any(x <= column and y <= row for x, y in F) for column in range(5) for row in range(5)
    )  # square [column, column + 1] x [row, row + 1] below the reference (5, 5)
    F = F[np.argsort(F[:, 0])]
    assert hypervolume_2d(F, np.array([5.0, 5.0])) == squares


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_kernels_take_both_float_types(dtype):
    F = np.array([[0, 2], [1, 1], [2, 2]], dtype=dtype)
    ranks = non_dominated_ranks(F, np.zeros(3, dtype=dtype))
    np.testing.assert_array_equal(ranks, [0, 0, 1])
    np.testing.assert_array_equal(crowding_distance(F, ranks), np.full(3, np.inf))
    np.testing.assert_array_equal(thin_front(F, 3), [0, 1, 2])
    assert hypervolume_2d(F, np.array([3, 3], dtype=dtype)) == 5


@pytest.mark.parametrize("objectives", [2, 3])
def test_ranks_and_crowding_are_pymoos(objectives):
    reason = "pymoo is an optional peer"
    sorting = pytest.importorskip("pymoo.util.nds.non_dominated_sorting", reason=reason)
    metrics = pytest.importorskip("pymoo.operators.survival.rank_and_crowding.metrics", reason=reason)
    F = np.random.default_rng(0).random((150, objectives)).round(2)
    ranks = non_dominated_ranks(F, np.zeros(150))
    distance = crowding_distance(F, ranks)
    for rank, front in enumerate(sorting.NonDominatedSorting().do(F)):
        np.testing.assert_array_equal(np.sort(front), np.flatnonzero(ranks == rank))
        theirs = metrics.get_crowding_function("cd").do(F[np.sort(front)])
        np.testing.assert_allclose(distance[np.sort(front)] / objectives, theirs, rtol=1e-12)
