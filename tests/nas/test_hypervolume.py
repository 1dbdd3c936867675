"""Hypervolumes against known values and inclusion-exclusion."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_np

from nachos_min.errors import InputError
from nachos_min.nas.hypervolume import hypervolume


@given(st_np.arrays(np.float64, st.tuples(st.integers(0, 7), st.sampled_from([2, 3])), elements=st.integers(0, 6)))
def test_it_is_the_union_of_boxes(F):
    """Of [point, reference]: single boxes, minus pairwise intersections, plus triple ones, ..."""
    reference = np.full(F.shape[1], 5.0)
    boxes = [point for point in F if (point < reference).all()]
    expected = sum(
        (-1) ** (size + 1) * np.prod(reference - np.max(chosen, axis=0))
        for size in range(1, len(boxes) + 1)
        for chosen in combinations(boxes, size)
    )
    volume = hypervolume(F, reference)
    assert volume == pytest.approx(expected, abs=1e-9)
    assert hypervolume(F[::-1], reference) == pytest.approx(volume, abs=1e-9)
    assert hypervolume(F[:5], reference) <= volume + 1e-9


@given(st_np.arrays(np.float64, st.tuples(st.integers(0, 8), st.just(2)), elements=st.integers(0, 6)))
def test_area_counts_the_dominated_unit_squares(F):
    """Square [column, column + 1] x [row, row + 1] below the reference (5, 5)."""
    squares = sum(any(x <= column and y <= row for x, y in F) for column in range(5) for row in range(5))
    assert hypervolume(F, [5, 5]) == squares


def test_known_fronts():
    f1 = np.linspace(0, 1, 20_001)
    assert hypervolume(np.column_stack([f1, 1 - np.sqrt(f1)]), [1, 1]) == pytest.approx(2 / 3, abs=1e-4)
    assert hypervolume(np.column_stack([f1, 1 - f1**2]), [1, 1]) == pytest.approx(1 / 3, abs=1e-4)
    assert hypervolume([[0, 0, 0]], [2, 3, 4]) == 24.0


@pytest.mark.parametrize("objectives", [2, 3])
def test_what_adds_nothing(objectives):
    reference, point = np.ones(objectives), np.full((1, objectives), 0.5)
    useless = np.vstack([np.full(objectives, 0.7), point, reference, np.full(objectives, np.nan), 2 * reference])
    useless[3, 0] = 0.0  # a failed evaluation: only one value is missing
    assert hypervolume(np.vstack([point, useless]), reference) == 0.5**objectives
    for nothing in (useless[2:], np.empty((0, objectives)), []):
        assert hypervolume(nothing, reference) == 0.0


WRONG = ([1.0], [1.0] * 4, 1.0, [1.0, np.inf], [np.nan, 1.0])


@pytest.mark.parametrize(
    ("F", "reference", "message"),
    [
        *(([[0.0, 0.0]], reference, "reference must be 2 or 3") for reference in WRONG),
        ([[0.0, 0.0, 0.0]], [1.0, 1.0], r"F must have shape \(n, 2\) as the reference has, got"),
        ([0.5, 0.5], [1.0, 1.0], "F must have shape"),
    ],
)
def test_bad_arguments_are_named(F, reference, message):
    with pytest.raises(InputError, match=message):
        hypervolume(F, reference)
