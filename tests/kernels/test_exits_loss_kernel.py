"""The loss of the exits in one kernel, by hand; tests/eenn has its terms' slow sums and numeric derivatives."""

import numpy as np
import pytest

from nachos_kernels.exits_loss import distillation_and_gradients, exits_loss_and_gradients

BOUNDS = np.array((1e-4, 1 - 1e-4))
NONE, NO_SUPPORT = np.empty(0), np.empty((0, 0))


def test_one_sample_and_two_exits_by_hand():
    """h = 1/4, both exits even between two classes (ln 2); the first is right: argmax takes the first of equals."""
    logits, h, label, weights = np.zeros((2, 1, 2)), np.array([[0.25]]), np.array([0]), (2.0, 3.0, 4.0, 1.0)
    shares, support = np.array([-1.0, 1.0]), np.array([[0.75], [0.0]])
    loss, g_logits, g_h = exits_loss_and_gradients(logits, h, label, shares, support, weights, BOUNDS, NONE)
    q = np.array([0.25, 0.75])
    np.testing.assert_allclose(
        loss, 2 * np.log(2) + 3 * (q[1] - q[0]) - 0.5 * np.log(0.25) + 4 * (0.25 - 0.75) ** 2
    )
    np.testing.assert_allclose(g_logits, 2 * q[:, None, None] * np.array([[[-0.5, 0.5]]]))
    # by h: the cost term's two shares are 2 apart, the answers cost the same, then 1/h and the distance of 1/2
    np.testing.assert_allclose(g_h, [[-3 * 2 - 0.5 / 0.25 + 4 * 2 * (0.25 - 0.75)]])
    # deep supervision: ln 2 and twice ln 2, whatever h is; kappa halves the confidence term
    weights, fixed = (1.0, 0.0, 0.0, 0.5), np.array([1.0, 2.0])
    loss, g_logits, g_h = exits_loss_and_gradients(logits, h, label, NONE, NO_SUPPORT, weights, BOUNDS, fixed)
    np.testing.assert_allclose(loss, 3 * np.log(2) - 0.25 * np.log(0.25))
    np.testing.assert_allclose(g_logits, [[[-0.5, 0.5]], [[-1.0, 1.0]]])
    np.testing.assert_allclose(g_h, [[-0.25 / 0.25]])


def test_nan_stays_visible():
    logits, h = np.zeros((2, 3, 2)), np.full((1, 3), 0.5)
    logits[0, 1, 1] = np.nan
    labels, weights = np.zeros(3, np.int64), (1.0, 1.0, 1.0, 1.0)
    assert np.isnan(exits_loss_and_gradients(logits, h, labels, NONE, NO_SUPPORT, weights, BOUNDS, NONE)[0])


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_distillation_is_its_definition_and_its_gradient_takes_the_teacher_as_given(temperature):
    rng = np.random.default_rng(1)
    logits = rng.standard_normal((3, 5, 4)) * 3

    def softmax(z):
        e = np.exp(z / temperature)
        return e / e.sum(axis=-1, keepdims=True)

    def slow(students, teacher):
        p = softmax(teacher)
        return temperature**2 * sum((p * np.log(p / softmax(z))).sum() for z in students) / 5

    loss, gradient = distillation_and_gradients(logits, temperature)
    np.testing.assert_allclose(loss, slow(logits, logits.mean(axis=0)))
    direction, step = rng.standard_normal(logits.shape), 1e-6
    ahead, back = (slow(logits + sign * step * direction, logits.mean(axis=0)) for sign in (1, -1))
    np.testing.assert_allclose((gradient * direction).sum(), (ahead - back) / (2 * step), rtol=1e-6)


def test_distillation_holds_for_scores_whose_exponential_overflows():
    logits = np.zeros((2, 1, 2), np.float32)
    logits[:, 0, 0] = 1e4
    loss, gradient = distillation_and_gradients(logits, 1.0)
    assert (loss, gradient.tolist()) == (0.0, [[[0.0, 0.0]]] * 2)
