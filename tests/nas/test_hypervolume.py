"""Hypervolumes against known values, inclusion-exclusion and a count of random points."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_np

from nachos_min.errors import InputError
from nachos_min.nas.hypervolume import hypervolume


def by_inclusion_exclusion(F, reference):
    """Union of boxes [point, reference]: single boxes, minus pairwise intersections, plus triple ones, ..."""
    boxes = [point for point in F if (point < reference).all()]
    return sum(
        (-1) ** (size + 1) * np.prod(reference - np.max(chosen, axis=0))
        for size in range(1, len(boxes) + 1)
        for chosen in combinations(boxes, size)
    )


@given(st_np.arrays(np.float64, st.tuples(st.integers(0, 7), st.sampled_from([2, 3])), elements=st.integers(0, 6)))
def test_it_is_the_union_of_boxes(F):
    reference = np.full(F.shape[1], 5.0)
    assert hypervolume(F, reference) == pytest.approx(by_inclusion_exclusion(F, reference), abs=1e-9)


@pytest.mark.parametrize("objectives", [2, 3])
def test_it_is_the_share_of_random_points_that_are_dominated(objectives):
    rng = np.random.default_rng(1)
    F = rng.random((12, objectives))
    points = rng.random((200_000, objectives))
    share = (F[None] <= points[:, None]).all(axis=2).any(axis=1).mean()
    assert hypervolume(F, np.ones(objectives)) == pytest.approx(share, abs=4e-3)


def test_known_fronts():
    f1 = np.linspace(0, 1, 20_001)
    assert hypervolume(np.column_stack([f1, 1 - np.sqrt(f1)]), [1, 1]) == pytest.approx(2 / 3, abs=1e-4)
    assert hypervolume(np.column_stack([f1, 1 - f1**2]), [1, 1]) == pytest.approx(1 / 3, abs=1e-4)
    assert hypervolume([[0, 0, 0]], [2, 3, 4]) == 24.0


@pytest.mark.parametrize("objectives", [2, 3])
def test_what_adds_nothing(objectives):
    reference = np.ones(objectives)
    point = np.full((1, objectives), 0.5)
    useless = np.vstack([np.full(objectives, 0.7), point, reference, np.full(objectives, np.nan), 2 * reference])
    useless[3, 0] = 0.0  # a failed evaluation: only one value is missing
    assert hypervolume(np.vstack([point, useless]), reference) == 0.5**objectives
    assert hypervolume(useless[2:], reference) == 0.0
    assert hypervolume(np.empty((0, objectives)), reference) == 0.0
    assert hypervolume([], reference) == 0.0


@given(st_np.arrays(np.float64, (6, 3), elements=st.floats(0, 1)), st.permutations(range(6)))
def test_order_does_not_matter_and_points_never_harm(F, order):
    volume = hypervolume(F, [1, 1, 1])
    assert hypervolume(F[list(order)], [1, 1, 1]) == pytest.approx(volume, abs=1e-12)
    assert hypervolume(F[:5], [1, 1, 1]) <= volume + 1e-12


@pytest.mark.parametrize("reference", [[1.0], [1.0] * 4, 1.0, [1.0, np.inf], [np.nan, 1.0]])
def test_a_reference_is_two_or_three_finite_numbers(reference):
    with pytest.raises(InputError, match="reference must be 2 or 3 finite numbers, got"):
        hypervolume([[0.0, 0.0]], reference)


@pytest.mark.parametrize("F", [[[0.0, 0.0, 0.0]], [0.5, 0.5]])
def test_points_have_as_many_values_as_the_reference(F):
    with pytest.raises(InputError, match=r"F must have shape \(n, 2\) as the reference has, got"):
        hypervolume(F, [1.0, 1.0])
