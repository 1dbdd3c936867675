"""Difficulty against exit depth: the correlation by its definition, and who left where."""

import numpy as np
import pytest

from nachos_min.eenn.inference import Prediction

exit_depth = pytest.importorskip("bench.exit_depth", reason="an installed copy has no bench")
depth_correlation, leaving_by_exit = exit_depth.depth_correlation, exit_depth.leaving_by_exit


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks from 1, ties given their mean, straight from the definition."""
    return np.array([(values < value).sum() + ((values == value).sum() + 1) / 2 for value in values])


def test_the_correlation_is_pearsons_of_the_ranks() -> None:
    rng = np.random.default_rng(0)
    difficulty = rng.random(60).astype(np.float32)
    exits = (difficulty * 2 + rng.random(60)).astype(np.int64)
    expected = np.corrcoef(ranks(difficulty), ranks(exits))[0, 1]
    assert depth_correlation(difficulty, exits) == pytest.approx(expected)
    assert depth_correlation(-difficulty, exits) == pytest.approx(-expected)


@pytest.mark.parametrize(
    ("difficulty", "exits"), [([], []), ([0.5], [1]), ([0.1, 0.9], [1, 1]), ([0.5, 0.5], [0, 1])]
)
def test_where_nothing_can_be_ranked_there_is_no_correlation(difficulty: list[float], exits: list[int]) -> None:
    assert depth_correlation(np.array(difficulty), np.array(exits, np.int64)) is None


def test_one_difficulty_for_each_exit_index() -> None:
    with pytest.raises(ValueError, match="difficulty must be one per exit index: 2, got 3"):
        depth_correlation(np.zeros(3), np.zeros(2, np.int64))


def test_who_left_where() -> None:
    answer = Prediction(np.array([1, 2, 3, 4]), np.array([2, 0, 0, 2]), np.ones(4))
    difficulty = np.array([0.9, 0.4, 0.2, 0.5])
    first, second, third = leaving_by_exit(difficulty, np.array([1, 2, 0, 0]), answer, 3)
    assert (first.samples, first.correct, first.difficulty) == (2, 1, pytest.approx(0.3))
    assert (second.samples, second.correct, second.difficulty) == (0, 0, None)
    assert (third.samples, third.correct, third.difficulty) == (2, 1, pytest.approx(0.7))
    assert [first.sorted_samples.tolist(), second.sorted_samples.tolist(), third.sorted_samples.tolist()] == [
        [2, 1],
        [],
        [3, 0],
    ]
