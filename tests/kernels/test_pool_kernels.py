"""Pooling computes what its oracles compute; a padded cell never wins a maximum and ties go to the first."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import oracles
from nachos_kernels import pool

NO_PADDING = (0, 0, 0, 0)


@st.composite
def pools(draw):
    """Draw (x, size, stride, padding): padding smaller than the window, few values, so that ties occur."""
    size = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    stride = draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    top, bottom = draw(st.tuples(*[st.integers(0, size[0] - 1)] * 2))
    left, right = draw(st.tuples(*[st.integers(0, size[1] - 1)] * 2))
    H = draw(st.integers(max(1, size[0] - top - bottom), 6))
    W = draw(st.integers(max(1, size[1] - left - right), 6))
    N, C = draw(st.tuples(st.integers(1, 2), st.integers(1, 3)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    # all values are negative: a padded zero that took part in a maximum would win it
    x = rng.integers(-4, 0, (N, H, W, C)).astype(dtype)
    return x, size, stride, (top, bottom, left, right)


def gradient_for(y):
    """Return a random gradient of the shape and dtype of y."""
    return np.random.default_rng(1).standard_normal(y.shape).astype(y.dtype)


@given(pools())
def test_max_pool_equals_oracle(case):
    x, size, stride, padding = case
    y, argmax = pool.max_pool_forward(x, size, stride, padding)
    expected, expected_argmax = oracles.max_pool_forward(x, size, stride, padding)
    np.testing.assert_array_equal(y, expected, strict=True)
    np.testing.assert_array_equal(argmax, expected_argmax, strict=True)
    g = gradient_for(y)
    gx = pool.max_pool_grad_input(g, argmax, x.shape)
    oracles.assert_close(gx, oracles.max_pool_grad_input(g, argmax, x.shape))


@given(pools())
def test_avg_pool_equals_oracle(case):
    x, size, stride, padding = case
    y = pool.avg_pool_forward(x, size, stride, padding)
    oracles.assert_close(y, oracles.avg_pool_forward(x, size, stride, padding))
    g = gradient_for(y)
    gx = pool.avg_pool_grad_input(g, x.shape, size, stride, padding)
    oracles.assert_close(gx, oracles.avg_pool_grad_input(g, x.shape, size, stride, padding))
    g, whole = gradient_for(x[:, 0, 0]), (x.shape[1:3], (1, 1), NO_PADDING)
    oracles.assert_close(pool.global_avg_pool_forward(x), oracles.avg_pool_forward(x, *whole)[:, 0, 0])
    gx = pool.global_avg_pool_grad_input(g, x.shape)
    oracles.assert_close(gx, oracles.avg_pool_grad_input(g[:, None, None], x.shape, *whole))


@pytest.mark.parametrize("value", [-1.0, -np.inf])
def test_max_pool_never_takes_a_padded_cell(value):
    """Not even where nothing on the map is larger than minus infinity."""
    x = np.full((1, 3, 3, 2), value, np.float32)
    y, argmax = pool.max_pool_forward(x, (3, 3), (1, 1), (2, 2, 2, 2))
    assert (y == value).all()
    assert 0 <= argmax.min() <= argmax.max() < 9


def test_pools_keep_nan_and_a_maximum_its_first_place():
    x = np.zeros((1, 4, 2, 1), np.float32)
    x[0, :2, :, 0] = [[np.inf, np.nan], [np.nan, 0]]
    y, argmax = pool.max_pool_forward(x, (2, 2), (2, 2), NO_PADDING)
    np.testing.assert_array_equal(y.ravel(), [np.nan, 0])
    np.testing.assert_array_equal(argmax.ravel(), [1, 4])
    averages = pool.avg_pool_forward(x, (2, 2), (2, 2), NO_PADDING)
    np.testing.assert_array_equal(averages.ravel(), [np.nan, 0])
