"""Ranks, crowding and thinned fronts against slow oracles that follow the definitions, and against pymoo."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_np

from nachos_kernels.dominance import crowding_distance, non_dominated_ranks, thin_front


def dominates(F, violation, i, j):
    """Deb et al. 2002, Definition 1."""
    if violation[i] > 0 or violation[j] > 0:
        return violation[i] < violation[j]
    return (F[i] <= F[j]).all() and (F[i] < F[j]).any()


def ranks_by_peeling(F, violation):
    """The definition: front 0 is what no point dominates, front 1 what no point left dominates then, ..."""
    ranks = np.full(len(F), -1)
    rank = 0
    while (left := np.flatnonzero(ranks < 0)).size:
        ranks[[j for j in left if not any(dominates(F, violation, i, j) for i in left)]] = rank
        rank += 1
    return ranks


@st.composite
def populations(draw):
    """Points on a coarse grid, so that ties, duplicates and equal violations are common; and some front of each."""
    n, m = draw(st.integers(1, 30)), draw(st.integers(1, 4))
    values = st.sampled_from([0.0, -0.0, 1.0, 2.0, 3.0, 4.5, np.inf, -np.inf])
    F = draw(st_np.arrays(np.float64, (n, m), elements=values))
    violation = draw(st_np.arrays(np.float64, n, elements=st.sampled_from([0.0, -0.0, 0.0, 0.5, 2.0, np.inf])))
    return F, violation, draw(st_np.arrays(np.int64, n, elements=st.integers(0, 3)))


@given(populations())
def test_ranks_are_those_of_the_definition(population):
    F, violation, _ = population
    np.testing.assert_array_equal(non_dominated_ranks(F, violation), ranks_by_peeling(F, violation))


@pytest.mark.parametrize("decimals", [1, 16])
def test_two_objectives_are_ranked_as_three_with_a_constant(decimals):
    """Bisection over the fronts, and comparison with all members of a front."""
    F, free = np.random.default_rng(7).random((300, 2)).round(decimals), np.zeros(300)
    three = non_dominated_ranks(np.column_stack([F, free]), free)
    np.testing.assert_array_equal(non_dominated_ranks(F, free), three)


def test_a_nan_with_infinite_violation_ranks_last():
    F = np.array([[np.nan, 0.0], [1.0, 1.0], [0.0, 2.0], [5.0, np.nan]])
    violation = np.array([np.inf, 0.3, 0.0, np.inf])
    np.testing.assert_array_equal(non_dominated_ranks(F, violation), [2, 1, 0, 2])


def crowding_by_definition(F, extents):
    """Deb et al. 2002, III-B, for one front of finite values, gaps relative to `extents`."""
    distance = np.zeros(len(F))
    for m in np.flatnonzero(extents):
        order = np.argsort(F[:, m], kind="stable")
        distance[order[[0, -1]]] = np.inf
        distance[order[1:-1]] += (F[order[2:], m] - F[order[:-2], m]) / extents[m]
    return distance


@given(st_np.arrays(np.float64, st.tuples(st.integers(1, 25), st.integers(1, 3)), elements=st.integers(0, 6)))
def test_crowding_is_that_of_the_definition(F):
    distance = crowding_distance(F, np.zeros(len(F), int))
    expected = crowding_by_definition(F, np.ptp(F, axis=0)) if len(F) > 2 else np.full(len(F), np.inf)
    np.testing.assert_allclose(distance, expected, rtol=1e-12)


@given(populations())
def test_crowding_looks_at_one_front_at_a_time_and_is_never_nan(population):
    F, _, ranks = population
    distance = crowding_distance(F, ranks)
    assert (distance >= 0).all()
    for rank in set(ranks):
        members = np.flatnonzero(ranks == rank)
        np.testing.assert_array_equal(distance[members], crowding_distance(F[members], 0 * members))


def test_a_neighbour_at_infinity_is_infinitely_far():
    F = np.array([[-np.inf], [0.0], [1.0], [2.0], [np.inf]])
    np.testing.assert_array_equal(crowding_distance(F, np.zeros(5, int)), [np.inf, np.inf, 1.0, np.inf, np.inf])


def thin_by_definition(F, keep):
    """Remove the most crowded point, measure again, repeat; gaps relative to the range of the full front."""
    left = np.arange(len(F))
    while len(left) > keep:
        left = np.delete(left, crowding_by_definition(F[left], np.ptp(F, axis=0)).argmin())
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


@pytest.mark.parametrize("decimals", [1, 2, 16])
def test_many_points_with_and_without_ties(decimals):
    """Of more than some twenty values, a sort that is not stable changes the order of equal ones."""
    F = np.random.default_rng(1).random((200, 2)).round(decimals)
    expected = crowding_by_definition(F, np.ptp(F, axis=0))
    np.testing.assert_allclose(crowding_distance(F, np.zeros(200, int)), expected, rtol=1e-12)
    steps = (F * 128).round() / 128  # exact distances
    steps[0], steps[-1] = 0.0, 1.0
    np.testing.assert_array_equal(thin_front(steps, 60), thin_by_definition(steps, 60))


def test_thinning_keeps_one_of_two_close_points_and_both_ends():
    F = np.array([[0.0, 1.0], [0.50, 0.50], [0.51, 0.49], [0.9, 0.1], [1.0, 0.0]])
    np.testing.assert_array_equal(thin_front(F, 4), [0, 1, 3, 4])
    np.testing.assert_array_equal(thin_front(F, 2), [0, 4])
    np.testing.assert_array_equal(thin_front(np.full((3, 2), np.nan), 1), [2])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("objectives", [2, 3])
def test_both_float_types_and_no_point(dtype, objectives):
    F = np.array([[0, 2, 0], [1, 1, 0], [2, 2, 2]], dtype)[:, :objectives]
    ranks = non_dominated_ranks(F, np.zeros(3, dtype))
    np.testing.assert_array_equal(ranks, [0, 0, 1])
    np.testing.assert_array_equal(crowding_distance(F, ranks), np.full(3, np.inf))
    np.testing.assert_array_equal(thin_front(F, 3), [0, 1, 2])
    assert non_dominated_ranks(F[:0], np.empty(0)).shape == (0,)
    assert crowding_distance(F[:0], ranks[:0]).shape == thin_front(F[:0], 0).shape == (0,)


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
