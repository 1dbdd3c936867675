"""Confidences: the softmax of the scores, its temperature, and how both accumulate."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import softmax

from nachos_min.eenn.confidence import (
    COLDEST,
    HOTTEST,
    cumulative_confidence,
    fit_softmax,
    fit_temperature,
    largest_softmax,
)
from nachos_min.eenn.inference import ExitAnswers

RNG = np.random.default_rng(0)
LOGITS = RNG.standard_normal((200, 3, 5)) * 2
LABELS = np.where(RNG.random(200) < 0.6, LOGITS[:, 0].argmax(axis=1), RNG.integers(0, 5, 200))
H = RNG.random((200, 2))


def test_the_largest_softmax_at_a_temperature() -> None:
    np.testing.assert_allclose(largest_softmax(LOGITS[:, 0], 1.7), softmax(LOGITS[:, 0] / 1.7, axis=1).max(axis=1))
    assert largest_softmax(np.array([[1e4, 0.0]], np.float32), 0.05) == 1.0


def test_the_temperature_has_the_largest_likelihood() -> None:
    def slow(temperature: float) -> float:
        return float(-np.log(softmax(LOGITS[:, 0] / temperature, axis=1)[np.arange(200), LABELS]).mean())

    fitted = fit_temperature(LOGITS[:, 0], LABELS)
    best = minimize_scalar(slow, bounds=(0.1, 10), method="bounded")
    assert fitted == pytest.approx(best.x, rel=1e-3)
    assert slow(fitted) <= min(slow(fitted * 1.1), slow(fitted / 1.1))


@pytest.mark.parametrize(("scale", "limit"), [(1.0, COLDEST), (-1.0, HOTTEST)])
def test_an_exit_that_is_always_or_never_right_has_an_extreme_temperature(scale: float, limit: float) -> None:
    assert fit_temperature(scale * np.eye(4), np.arange(4)) == pytest.approx(limit, rel=0.01)


def test_confidence_by_softmax_never_falls_and_ends_at_one() -> None:
    answers, sure = ExitAnswers(H, LOGITS), fit_softmax(LOGITS, LABELS)
    assert sure.name == "softmax"
    assert sure.temperatures is not None
    c = answers.tables(sure).confidence
    first, second = (largest_softmax(LOGITS[:, i], t) for i, t in enumerate(sure.temperatures))
    np.testing.assert_array_equal(c, np.column_stack([first, np.maximum(first, second), np.ones(200)]))
    np.testing.assert_array_equal(answers.tables().confidence, cumulative_confidence(H))
    np.testing.assert_array_equal(answers.tables(sure).predicted, LOGITS.argmax(axis=2))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("exits", [1, 2, 5])
def test_cumulative_confidence_never_falls_and_ends_at_one(exits: int, dtype: type) -> None:
    h = np.random.default_rng(0).random((200, exits - 1)).astype(dtype)
    h[:3] = [[0.0], [1.0], [1e-30]]  # sigmoid's ends, after rounding
    c = cumulative_confidence(h)
    assert (c.dtype, c.shape) == (np.float64, (200, exits))
    assert (np.diff(c, axis=1) >= 0).all()
    assert (c[:, -1] == 1.0).all()
    assert 0.0 <= c.min() <= c.max() <= 1.0
