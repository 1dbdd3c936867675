"""The choice of k: exactly k, the best possible, and the same every time."""

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nachos_min.nas.subset import choose_evenly

# Few distinct values on purpose: ties and duplicates are where a choice goes wrong.
values = st.one_of(st.integers(0, 12).map(float), st.floats(-1e6, 1e6, allow_subnormal=False))


def unevenness(front: np.ndarray, chosen: np.ndarray) -> float:
    """The quantity to minimise, as the method states it."""
    gaps = np.diff(np.sort(np.concatenate([front, chosen])))
    return float(np.std(gaps)) if len(gaps) else 0.0


def best_by_trying_all(front: np.ndarray, candidates: np.ndarray, k: int) -> float:
    return min(unevenness(front, candidates[list(c)]) for c in combinations(range(len(candidates)), k))


def greedy(front: np.ndarray, candidates: np.ndarray, k: int) -> float:
    chosen: list[int] = []
    for _ in range(k):
        rest = [i for i in range(len(candidates)) if i not in chosen]
        chosen.append(min(rest, key=lambda i: unevenness(front, candidates[[*chosen, i]])))
    return unevenness(front, candidates[chosen])


@settings(max_examples=200, derandomize=True, deadline=None)
@given(st.data())
def test_no_choice_is_better(data: st.DataObject) -> None:
    front = np.array(data.draw(st.lists(values, max_size=5)), dtype=float)
    candidates = np.array(data.draw(st.lists(values, min_size=1, max_size=7)), dtype=float)
    k = data.draw(st.integers(0, len(candidates)))
    chosen = choose_evenly(front, candidates, k)
    assert len(set(chosen.tolist())) == len(chosen) == k
    assert (np.diff(chosen) > 0).all()
    scale = np.ptp(np.concatenate([front, candidates])) or 1.0
    best = best_by_trying_all(front, candidates, k)
    # The walk compares variances in units of the range, so that is the scale of its rounding.
    assert (unevenness(front, candidates[chosen]) / scale) ** 2 <= (best / scale) ** 2 + 1e-12


@pytest.mark.parametrize("seed", range(5))
def test_is_at_least_as_even_as_greedy_at_the_size_of_a_search(seed: int) -> None:
    rng = np.random.default_rng(seed)
    front, candidates = rng.random(15) ** 2, rng.random(40)
    chosen = choose_evenly(front, candidates, 8)
    assert len(chosen) == 8
    assert unevenness(front, candidates[chosen]) <= greedy(front, candidates, 8) + 1e-12
    np.testing.assert_array_equal(chosen, choose_evenly(front, candidates, 8))


def test_does_not_depend_on_order_or_unit() -> None:
    rng = np.random.default_rng(1)
    front, candidates, shuffle = rng.random(10), rng.random(30), rng.permutation(30)
    chosen = candidates[choose_evenly(front, candidates, 6)]
    again = candidates[shuffle][choose_evenly(front[::-1], candidates[shuffle], 6)]
    np.testing.assert_array_equal(np.sort(chosen), np.sort(again))
    in_macs = choose_evenly(1e9 * front, 1e9 * candidates, 6)
    np.testing.assert_array_equal(np.sort(chosen), np.sort(candidates[in_macs]))


def test_fills_the_hole_and_leaves_the_crowd() -> None:
    front = np.array([0.0, 1.0, 2.0, 6.0])
    assert choose_evenly(front, np.array([0.1, 3.0, 1.9, 5.0, 4.0]), 3).tolist() == [1, 3, 4]


def test_equal_values_are_different_candidates() -> None:
    assert choose_evenly(np.array([1.0]), np.array([1.0, 1.0, 1.0]), 3).tolist() == [0, 1, 2]


def test_nothing_to_choose() -> None:
    assert choose_evenly(np.array([1.0, 2.0]), np.array([]), 0).tolist() == []


@pytest.mark.parametrize(
    ("front", "candidates", "k", "message"),
    [
        ([1.0], [1.0, 2.0], 3, r"k must be <= the number of candidates, 2, got 3"),
        ([1.0], [1.0, 2.0], -1, r"k must be >= 0, got -1"),
        ([np.nan], [1.0], 1, r"front must be finite, got nan"),
        ([1.0], [np.inf, 1.0], 1, r"candidates must be finite, got inf"),
        ([[1.0]], [1.0], 1, r"front must be one-dimensional, got shape \(1, 1\)"),
    ],
)
def test_errors(front: list[float], candidates: list[float], k: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        choose_evenly(np.array(front), np.array(candidates), k)
