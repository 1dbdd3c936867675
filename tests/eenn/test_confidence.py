"""What exits are believed by: the softmax of their scores, its temperature, and the policy that goes by it."""

import numpy as np
import pytest
from scipy.optimize import minimize_scalar

from nachos_min.eenn.confidence import (
    COLDEST,
    HOTTEST,
    LEARNED,
    Confidence,
    cumulative_confidence,
    fit_softmax,
    fit_temperature,
    largest_softmax,
)
from nachos_min.eenn.inference import ExitAnswers, exit_answers, predict
from nachos_min.eenn.network import EarlyExitNetwork
from nachos_min.nas.genome import GenomeCoder
from nachos_min.nas.space import load_space

RNG = np.random.default_rng(0)
LOGITS = RNG.standard_normal((200, 3, 5)) * 2
LABELS = np.where(RNG.random(200) < 0.6, LOGITS[:, 0].argmax(axis=1), RNG.integers(0, 5, 200))
H = RNG.random((200, 2))


def softmax(scores: np.ndarray) -> np.ndarray:
    e = np.exp(scores)
    return np.asarray(e / e.sum(axis=1, keepdims=True))


def test_the_largest_softmax_at_a_temperature() -> None:
    np.testing.assert_allclose(largest_softmax(LOGITS[:, 0], 1.7), softmax(LOGITS[:, 0] / 1.7).max(axis=1))
    assert largest_softmax(np.array([[1e4, 0.0]], np.float32), 0.05) == 1.0


def test_the_temperature_has_the_largest_likelihood() -> None:
    def slow(temperature: float) -> float:
        return float(-np.log(softmax(LOGITS[:, 0] / temperature)[np.arange(200), LABELS]).mean())

    fitted = fit_temperature(LOGITS[:, 0], LABELS)
    best = minimize_scalar(slow, bounds=(0.1, 10), method="bounded")
    assert fitted == pytest.approx(best.x, rel=1e-3)
    assert slow(fitted) <= min(slow(fitted * 1.1), slow(fitted / 1.1))


@pytest.mark.parametrize(("scale", "limit"), [(1.0, COLDEST), (-1.0, HOTTEST)])
def test_an_exit_that_is_always_or_never_right_has_the_last_temperature_there_is(
    scale: float, limit: float
) -> None:
    labels = np.arange(4)
    assert fit_temperature(scale * np.eye(4), labels) == pytest.approx(limit, rel=0.01)


def test_confidence_by_softmax_never_falls_and_ends_at_one() -> None:
    answers = ExitAnswers(H, LOGITS)
    sure = fit_softmax(LOGITS, LABELS)
    assert sure.name == "softmax"
    assert sure.temperatures is not None
    c = answers.tables(sure).confidence
    first = largest_softmax(LOGITS[:, 0], sure.temperatures[0])
    second = largest_softmax(LOGITS[:, 1], sure.temperatures[1])
    np.testing.assert_array_equal(c, np.column_stack([first, np.maximum(first, second), np.ones(200)]))
    np.testing.assert_array_equal(answers.tables(LEARNED).confidence, cumulative_confidence(H))
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


@pytest.mark.parametrize("confidence", [LEARNED, Confidence((0.7, 1.3))], ids=["learned", "softmax"])
def test_early_stopping_leaves_where_the_tables_say(confidence: Confidence) -> None:
    coder = GenomeCoder(load_space("micro"), (8, 8, 1), 5)
    genome = [0] * coder.length
    genome[coder.exit_genes] = [1, 1]
    network = EarlyExitNetwork(coder.decode(genome), np.random.default_rng(1), np.random.default_rng(2))
    images = np.random.default_rng(3).standard_normal((60, 8, 8, 1), np.float32)
    tables = exit_answers(network, images).tables(confidence)
    thresholds = (*np.quantile(tables.confidence[:, :2], (0.7, 0.5), axis=0).diagonal().tolist(), 0.0)
    answer = predict(network, images, thresholds, confidence)
    expected = (tables.confidence >= thresholds).argmax(axis=1)
    assert len(set(expected.tolist())) > 1
    np.testing.assert_array_equal(answer.exits, expected)
    np.testing.assert_array_equal(answer.labels, tables.predicted[np.arange(60), expected])
    np.testing.assert_allclose(answer.confidence, tables.confidence[np.arange(60), expected], atol=1e-6)
