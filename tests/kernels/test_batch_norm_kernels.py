"""Batch norm with its activation, and a bias with its ReLU, compute what the oracles compute, forward and back."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import oracles
from nachos_kernels import activation, batch_norm
from nachos_kernels.activation import gate_of
from nachos_kernels.batch_norm import follow, normalised, through_norm

CODES = {name: getattr(activation, name.upper()) for name in oracles.ACTIVATIONS}
EPS = 1e-3
KINKS = {"identity": (), "relu": (0,), "hswish": (-3, 3)}  # there a rounding of u decides f'(u)
# Rows and channels: less than a tile, one tile exactly, some and a rest, more than TERMS tiles, one channel, many.
SHAPES = [(3, 5), (32, 16), (1000, 24), (9000, 8), (5000, 1), (7, 700)]


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


@given(batches())
def test_training_equals_oracle(batch):
    x, gamma, beta, g, _, _, name = batch
    before = [array.copy() for array in (x, g)]
    y, mean, var = batch_norm.batch_norm_forward(x, gamma, beta, EPS, CODES[name])
    oracles.assert_close((y, mean, var), oracles.batch_norm_forward(x, gamma, beta, EPS, name), 1e-4, 1e-10)
    gradients = batch_norm.batch_norm_grad(g, x, gamma, beta, mean, var, EPS, CODES[name])
    oracles.assert_close(gradients, oracles.batch_norm_grad(g, x, gamma, beta, EPS, name), 1e-4, 1e-10)
    oracles.assert_close((x, g), before, 0, 0)


@given(batches())
def test_inference_equals_oracle(batch):
    x, gamma, beta, g, mean, var, name = batch
    y = batch_norm.batch_norm_infer(x, gamma, beta, mean, var, EPS, CODES[name])
    oracles.assert_close(y, oracles.batch_norm_infer(x, gamma, beta, mean, var, EPS, name), 1e-4, 1e-10)
    gradients = batch_norm.batch_norm_grad(g, x, gamma, beta, mean, var, EPS, CODES[name], constant_statistics=True)
    oracles.assert_close(
        gradients, oracles.batch_norm_infer_grad(g, x, gamma, beta, mean, var, EPS, name), 1e-4, 1e-10
    )


def away_from_kinks(x, gamma, beta, kinks):
    """Return x with some numbers moved, so that no gamma * xhat + beta is within 1e-3 of a kink."""
    for _ in range(50):
        mean, var = x.mean(axis=0, dtype=np.float64), x.var(axis=0, dtype=np.float64)
        u = gamma * (x - mean) / np.sqrt(var + EPS) + beta
        near = np.any([np.abs(u - kink) < 1e-3 for kink in kinks], axis=0) if kinks else np.zeros(x.shape, bool)
        if not near.any():
            return x
        x = np.where(near, x + x.dtype.type(0.1), x)
    raise AssertionError("no such x was found")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("R", "C"), SHAPES)
@pytest.mark.parametrize("name", KINKS)
def test_many_tiles_and_short_sums_equal_the_oracle(R, C, name, dtype):
    """The loops that a larger compiled function calls, against the oracle in float64."""
    rng = np.random.default_rng(R)
    x, g = (3 * rng.standard_normal((2, R, C)) + 5).astype(dtype)
    gamma, beta = rng.standard_normal((2, C)).astype(dtype)
    x, gate = away_from_kinks(x, gamma, beta, KINKS[name]), gate_of(CODES[name], np.dtype(dtype))
    double = [array.astype(np.float64) for array in (x, gamma, beta, g)]

    def close(result, wanted, scale):
        np.testing.assert_allclose(result, wanted, rtol=0, atol=scale * (2e-5 if dtype == np.float32 else 1e-11))

    y, affine = normalised(x, gamma, beta, EPS, gate)
    expected, mean, var = oracles.batch_norm_forward(*double[:3], EPS, name)
    close(y, expected, 5)
    close(affine, [mean, gamma / np.sqrt(var + EPS), beta, 1 / np.sqrt(var + EPS), var], 10)
    gx, ggamma, gbeta = through_norm(g, x, gamma, affine, gate, 1 / R)
    wanted = oracles.batch_norm_grad(double[3], *double[:3], EPS, name)
    for result, exact, scale in zip((gx, ggamma, gbeta), wanted, (30, *[10 * R**0.5 + R] * 2), strict=True):
        close(result, exact, scale)


@pytest.mark.parametrize("first", [0.0, 1e4])
def test_float32_statistics_survive_a_large_mean_and_rows_unlike_the_others(first):
    """E[x^2] - E[x]^2 in float32 is wrong in its first digit here, and so is a pivot from the first rows."""
    x = (1e4 + np.random.default_rng(0).standard_normal((70_000, 3))).astype(np.float32)
    x[:2000] += np.float32(first)
    x[16:4000:16] = 0
    _, mean, var = batch_norm.batch_norm_forward(x, np.ones(3, "f"), np.zeros(3, "f"), EPS, CODES["identity"])
    np.testing.assert_allclose(mean, x.mean(axis=0, dtype=np.float64), rtol=2e-7)
    np.testing.assert_allclose(var, x.var(axis=0, dtype=np.float64), rtol=2e-6)


def test_a_constant_channel_becomes_beta_and_nan_spoils_its_channel_alone():
    x, beta = np.full((40, 3), 7.0, np.float32), np.array([1.0, -2.0, 0.5], np.float32)
    x[17, 1] = np.nan
    y, mean, var = batch_norm.batch_norm_forward(x, np.ones(3, "f"), beta, EPS, CODES["identity"])
    np.testing.assert_array_equal(y, np.tile(np.array([1.0, np.nan, 0.5], "f"), (40, 1)))
    np.testing.assert_array_equal([mean, var], [[7, np.nan, 7], [0, np.nan, 0]])


@pytest.mark.parametrize(("rows", "unbiased"), [(1, 1.0), (5, 1.25)])
def test_running_statistics_follow_the_unbiased_variance(rows, unbiased):
    running_mean, running_var = np.array([0.0, 10.0]), np.array([1.0, 1.0])
    follow(running_mean, running_var, np.array([1.0, 2.0]), np.array([4.0, 0.0]), rows, 0.25)
    np.testing.assert_allclose(running_mean, [0.25, 8.0])
    np.testing.assert_allclose(running_var, [0.75 + unbiased, 0.75])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("shape", [(2, 3, 5, 4), (70, 16, 16, 8), (3, 2, 2, 700), (1, 1, 1, 1)])
def test_bias_is_numpys(shape, relu, dtype):
    rng = np.random.default_rng(0)
    x, g = rng.standard_normal((2, *shape)).astype(dtype)
    b = rng.standard_normal(shape[-1]).astype(dtype)
    y, expected = x.copy(), np.maximum(x + b, 0) if relu else x + b
    batch_norm.bias_forward(y, b, relu)
    np.testing.assert_array_equal(y, expected, strict=True)
    gu, gb = batch_norm.bias_grad(g, y, relu)
    wanted = g * (expected > 0) if relu else g
    np.testing.assert_array_equal(gu, wanted, strict=True)
    oracles.assert_close(gb, wanted.astype(np.float64).sum(axis=(0, 1, 2)).astype(dtype), 1e-4, 1e-11)


def test_a_bias_keeps_nan():
    y = np.array([[np.nan, -1.0, 1.0]])
    batch_norm.bias_forward(y, np.zeros(3), True)
    np.testing.assert_array_equal(y, [[np.nan, 0.0, 1.0]])
    np.testing.assert_array_equal(batch_norm.bias_grad(np.ones((1, 3)), y, True)[0], [[1.0, 0.0, 1.0]])
