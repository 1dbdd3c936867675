"""A bias on maps is added, and its gradient summed, in another order than elsewhere; the result is the same."""

import numpy as np
import pytest

from nachos_min.autograd import Tensor
from nachos_min.autograd.arithmetic import LONG, unbroadcast


@pytest.mark.parametrize("shape", [(2, 3, 5, 4), (8, 32, 32, 8), (8, 1024, 8), (0, 4, 4, 3), (3, 0, 4, 3)])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_bias_and_its_gradient(shape, dtype):
    assert np.prod((8, 32, 32, 8)) >= LONG  # both ways are taken
    rng = np.random.default_rng(0)
    maps, bias, g = (rng.standard_normal(size).astype(dtype) for size in (shape, shape[-1], shape))
    for first, second in ((maps, bias), (bias, maps)):
        x, y = Tensor(first, requires_grad=True), Tensor(second, requires_grad=True)
        total = x + y
        np.testing.assert_array_equal(total.data, first + second, strict=True)
        total.backward(g)
        of_maps, of_bias = (x.grad, y.grad) if first is maps else (y.grad, x.grad)
        np.testing.assert_array_equal(of_maps, g, strict=True)
        exact = g.astype(np.float64).sum(axis=tuple(range(g.ndim - 1)))
        np.testing.assert_allclose(of_bias, exact.astype(dtype), rtol=1e-5, atol=1e-4, strict=True)


def test_a_vector_that_is_not_the_last_axis_is_none():
    g = np.arange(24.0).reshape(2, 3, 4, 1)
    np.testing.assert_array_equal(unbroadcast(g, (4, 1)), g.sum(axis=(0, 1)))
    np.testing.assert_array_equal(unbroadcast(g, (1,)), [g.sum()])
    np.testing.assert_array_equal(unbroadcast(g, (3, 1, 1)), g.sum(axis=(0, 2), keepdims=True)[0])
