"""A bias and its ReLU, on rows enough for tiles and short sums, against NumPy."""

import numpy as np
import pytest

from nachos_kernels.bias import bias_forward, bias_grad
from nachos_kernels.tiles import add_short_sums, tile


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("shape", [(2, 3, 5, 4), (70, 16, 16, 8), (3, 2, 2, 700), (1, 1, 1, 1)])
def test_bias_is_numpys(shape, relu, dtype):
    rng = np.random.default_rng(0)
    x, g = rng.standard_normal((2, *shape)).astype(dtype)
    b = rng.standard_normal(shape[-1]).astype(dtype)
    y, expected = x.copy(), np.maximum(x + b, 0) if relu else x + b
    bias_forward(y, b, relu)
    np.testing.assert_array_equal(y, expected, strict=True)
    gu, gb = bias_grad(g, y, relu)
    wanted = g * (expected > 0) if relu else g
    np.testing.assert_array_equal(gu, wanted, strict=True)
    exact = wanted.astype(np.float64).sum(axis=(0, 1, 2))
    tolerance = 1e-4 if dtype == np.float32 else 1e-11
    np.testing.assert_allclose(gb, exact.astype(dtype), rtol=0, atol=tolerance, strict=True)


def test_what_is_not_a_number_stays_visible():
    y = np.array([[np.nan, -1.0, 1.0]])
    bias_forward(y, np.zeros(3), True)
    np.testing.assert_array_equal(y, [[np.nan, 0.0, 1.0]])
    gu, _ = bias_grad(np.ones((1, 3)), y, True)
    np.testing.assert_array_equal(gu, [[1.0, 0.0, 1.0]])


def test_tiles_and_their_sums():
    np.testing.assert_array_equal(tile(np.array([1.0, 2.0]), 3), [1, 2, 1, 2, 1, 2])
    short, total = np.arange(6.0), np.array([10.0, 20.0])
    add_short_sums(short, total)
    np.testing.assert_array_equal(total, [16, 29])
    np.testing.assert_array_equal(short, np.zeros(6))
