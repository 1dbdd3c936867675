"""Batch norm with its activation computes what the oracles compute, forward and back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import oracles
from nachos_kernels import activation, batch_norm

CODES = {name: getattr(activation, name.upper()) for name in oracles.ACTIVATIONS}
EPS = 1e-3


@st.composite
def batches(draw):
    """Draw (x, gamma, beta, g, mean, var, activation); x is a map or a batch of features."""
    shape = draw(st.sampled_from([(1, 1, 1, 1), (1, 3, 5, 2), (3, 2, 2, 3), (5, 4), (2, 1)]))
    dtype, name = draw(st.sampled_from([np.float32, np.float64])), draw(st.sampled_from(list(CODES)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    x, g = 2 * rng.standard_normal((2, *shape)) + 1
    gamma, beta, mean = rng.standard_normal((3, shape[-1]))
    var = rng.uniform(0.5, 2, shape[-1])
    return *(array.astype(dtype) for array in (x, gamma, beta, g, mean, var)), name


def assert_same(results, expected):
    """Compare shape, dtype and values of several arrays."""
    for result, wanted in zip(results, expected, strict=True):
        tolerance = 1e-4 if result.dtype == np.float32 else 1e-10
        np.testing.assert_allclose(result, wanted, rtol=tolerance, atol=tolerance, strict=True)


@given(batches())
def test_training_equals_oracle(batch):
    x, gamma, beta, g, _, _, name = batch
    y, mean, var = batch_norm.batch_norm_forward(x, gamma, beta, EPS, CODES[name])
    assert_same((y, mean, var), oracles.batch_norm_forward(x, gamma, beta, EPS, name))
    gradients = batch_norm.batch_norm_grad(g, x, gamma, beta, mean, var, EPS, CODES[name])
    assert_same(gradients, oracles.batch_norm_grad(g, x, gamma, beta, EPS, name))


@given(batches())
def test_inference_equals_oracle(batch):
    x, gamma, beta, g, mean, var, name = batch
    y = batch_norm.batch_norm_infer(x, gamma, beta, mean, var, EPS, CODES[name])
    assert_same((y,), (oracles.batch_norm_infer(x, gamma, beta, mean, var, EPS, name),))
    gradients = batch_norm.batch_norm_infer_grad(g, x, gamma, beta, mean, var, EPS, CODES[name])
    assert_same(gradients, oracles.batch_norm_infer_grad(g, x, gamma, beta, mean, var, EPS, name))


@pytest.mark.parametrize("name", CODES)
def test_gradient_equals_numeric_derivative(name):
    """Along a random direction of x, gamma, beta together: independent of anybody's algebra."""
    rng = np.random.default_rng(4)
    x, g, dx = rng.standard_normal((3, 2, 3, 3, 2))
    gamma, beta, dgamma, dbeta = rng.standard_normal((4, 2))

    def loss(t):
        moved = (x + t * dx, gamma + t * dgamma, beta + t * dbeta)
        return np.vdot(g, batch_norm.batch_norm_forward(*moved, EPS, CODES[name])[0])

    _, mean, var = batch_norm.batch_norm_forward(x, gamma, beta, EPS, CODES[name])
    gx, ggamma, gbeta = batch_norm.batch_norm_grad(g, x, gamma, beta, mean, var, EPS, CODES[name])
    slope = np.vdot(gx, dx) + np.vdot(ggamma, dgamma) + np.vdot(gbeta, dbeta)
    assert slope == pytest.approx((loss(1e-6) - loss(-1e-6)) / 2e-6, rel=1e-6)


def test_float32_statistics_survive_a_large_mean():
    """E[x^2] - E[x]^2 in float32 would be wrong in its first digit here."""
    x = (1e4 + np.random.default_rng(0).standard_normal((500, 1))).astype(np.float32)
    _, mean, var = batch_norm.batch_norm_forward(x, np.ones(1, "f"), np.zeros(1, "f"), EPS, CODES["identity"])
    assert mean[0] == np.float32(x.mean(dtype=np.float64))
    assert var[0] == pytest.approx(x.var(dtype=np.float64), rel=1e-6)


@pytest.mark.parametrize("first", [0.0, 1e4])
def test_float32_statistics_survive_rows_unlike_the_others(first):
    """A pivot taken from the first rows would be far from the mean here, and of many tiles."""
    x = (1e4 + np.random.default_rng(0).standard_normal((70_000, 3))).astype(np.float32)
    x[:2000] += np.float32(first)
    x[16:4000:16] = 0
    _, mean, var = batch_norm.batch_norm_forward(x, np.ones(3, "f"), np.zeros(3, "f"), EPS, CODES["identity"])
    np.testing.assert_allclose(mean, x.mean(axis=0, dtype=np.float64), rtol=2e-7)
    np.testing.assert_allclose(var, x.var(axis=0, dtype=np.float64), rtol=2e-6)


def test_gradients_of_many_tiles_are_right_in_float32():
    """As many rows as fill several short sums; float64, whose oracle is tested above, is the measure."""
    rng = np.random.default_rng(0)
    x, g = rng.standard_normal((2, 40_000, 5)) + 3.0
    gamma, beta = rng.standard_normal((2, 5))
    results = []
    for dtype in (np.float32, np.float64):
        arrays = [array.astype(dtype) for array in (x, gamma, beta)]
        _, mean, var = batch_norm.batch_norm_forward(*arrays, EPS, CODES["hswish"])
        results.append(batch_norm.batch_norm_grad(g.astype(dtype), *arrays, mean, var, EPS, CODES["hswish"]))
    for single, double in zip(*results, strict=True):
        np.testing.assert_allclose(single, double, rtol=1e-4, atol=1e-5)


def test_constant_channel_becomes_beta():
    """Variance zero: eps keeps the division finite."""
    x, beta = np.full((4, 2), 7.0, np.float32), np.array([1.0, -2.0], np.float32)
    y, _, var = batch_norm.batch_norm_forward(x, np.ones(2, np.float32), beta, EPS, CODES["identity"])
    np.testing.assert_array_equal(y, np.tile(beta, (4, 1)))
    np.testing.assert_array_equal(var, [0, 0])


def test_nan_spoils_its_channel_alone():
    x = np.random.default_rng(0).standard_normal((4, 2)).astype(np.float32)
    x[1, 0] = np.nan
    y, _, _ = batch_norm.batch_norm_forward(x, np.ones(2, "f"), np.zeros(2, "f"), EPS, CODES["relu"])
    np.testing.assert_array_equal(np.isnan(y), np.tile([True, False], (4, 1)))


def test_inputs_are_not_changed():
    rng = np.random.default_rng(0)
    x, g = rng.standard_normal((2, 6, 3))
    gamma, beta, mean = rng.standard_normal((3, 3))
    arguments = (g, x, gamma, beta, mean, gamma**2)
    before = [array.copy() for array in arguments]
    batch_norm.batch_norm_grad(*arguments, EPS, CODES["hswish"])
    for array, copy in zip(arguments, before, strict=True):
        np.testing.assert_array_equal(array, copy)
