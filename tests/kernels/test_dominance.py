"""Ranks and area against slow oracles that follow the definitions, and against pymoo when it is there."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_np

from nachos_kernels.crowding import crowding_distance
from nachos_kernels.dominance import hypervolume_2d, non_dominated_ranks, tied


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


def ranks_by_comparison(F):
    """The general path, which compares points with all members of a front: taken from four objectives on."""
    constant = np.zeros((len(F), 4 - F.shape[1]))
    return non_dominated_ranks(np.column_stack([F, constant]), np.zeros(len(F)))


@given(populations(objectives=st.integers(1, 3)))
def test_bisection_and_comparison_agree(population):
    F, _ = population
    np.testing.assert_array_equal(non_dominated_ranks(F, np.zeros(len(F))), ranks_by_comparison(F))


@pytest.mark.parametrize("objectives", [1, 2, 3])
@pytest.mark.parametrize("shape", ["random", "grid", "one front", "every step of the staircase", "chain"])
def test_bisection_and_comparison_agree_on_many_points(objectives, shape):
    """Fronts that outgrow their room many times, steps that drop out in numbers, ties of every kind."""
    rng = np.random.default_rng(7)
    F = rng.random((300, objectives))
    if shape == "grid":
        F = F.round(1)
    elif shape == "one front":
        F /= np.linalg.norm(F, axis=1, keepdims=True)
    elif shape == "every step of the staircase":
        F[:, -1] = 1 - F[:, -2:].sum(axis=1) + F[:, -1]
    elif shape == "chain":
        F[:] = F[:, :1]
    np.testing.assert_array_equal(non_dominated_ranks(F, np.zeros(len(F))), ranks_by_comparison(F))


def test_ties_are_found_at_both_ends_and_nan_is_one():
    values = np.array([1.0, np.nan, 0.0, -0.0, 2.0, 1.0, 3.0])
    np.testing.assert_array_equal(tied(values, np.argsort(values)), [0, 1, 2, 3, 5, 6])
    np.testing.assert_array_equal(tied(values[4:], np.array([1, 0, 2])), [])
    np.testing.assert_array_equal(tied(values[:0], np.arange(0)), [])


def test_minus_zero_is_zero():
    F = np.array([[-0.0, 1.0, 0.0], [0.0, 1.0, -0.0], [0.0, -0.0, 0.0], [-0.0, 0.0, 0.0]])
    for objectives in (1, 2, 3):
        ranks = non_dominated_ranks(F[:, :objectives], np.array([0.0, -0.0, 0.0, 0.0]))
        np.testing.assert_array_equal(ranks, ranks_by_peeling(F[:, :objectives], np.zeros(4)))


@pytest.mark.parametrize("objectives", [2, 3])
def test_an_empty_population_has_no_ranks(objectives):
    assert non_dominated_ranks(np.empty((0, objectives)), np.empty(0)).shape == (0,)


def test_a_nan_with_infinite_violation_ranks_last():
    F = np.array([[np.nan, 0.0], [1.0, 1.0], [0.0, 2.0], [5.0, np.nan]])
    violation = np.array([np.inf, 0.3, 0.0, np.inf])
    np.testing.assert_array_equal(non_dominated_ranks(F, violation), [2, 1, 0, 2])


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
