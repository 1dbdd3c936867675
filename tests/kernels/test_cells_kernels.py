"""The depthwise convolution on maps stored cell by cell, and the products of long matrices, against the oracles."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import oracles
from nachos_kernels import depthwise_cells, products


@st.composite
def filters(draw):
    """Draw (x, w, g, stride): x (N, H, W, C); some with more numbers to a cell than one tile holds."""
    N, H, W = draw(st.tuples(st.integers(1, 3), st.integers(1, 6), st.integers(1, 6)))
    C, many = draw(st.integers(1, 4)), draw(st.booleans())
    N, C = (N * 60, C * 5) if many else (N, C)
    sides, stride = draw(st.sampled_from([(1, 1), (3, 3), (5, 5), (3, 1), (1, 7)])), draw(st.integers(1, 3))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    x, w = rng.standard_normal((N, H, W, C)), rng.standard_normal((*sides, C))
    g = rng.standard_normal((N, (H - 1) // stride + 1, (W - 1) // stride + 1, C))
    return x.astype(dtype), w.astype(dtype), g.astype(dtype), stride


def by_cells(x):
    """Return a map (N, H, W, C) as (H, W, N*C)."""
    N, H, W, C = x.shape
    return np.ascontiguousarray(x.transpose(1, 2, 0, 3)).reshape(H, W, N * C)


def assert_same(result, wanted):
    """Compare shape, dtype and values; sums have hundreds of terms."""
    tolerance = 2e-4 if result.dtype == np.float32 else 1e-10
    np.testing.assert_allclose(result, wanted, rtol=tolerance, atol=tolerance, strict=True)


@given(filters())
def test_cells_are_the_oracles_maps(given_):
    x, w, g, s = given_
    (KH, KW, _), (_, H, W, _) = w.shape, x.shape
    settings = (s, s), (KH // 2, KH // 2, KW // 2, KW // 2), (1, 1)
    forward = oracles.depthwise_forward(x, w, *settings)
    assert_same(depthwise_cells.cells_forward(by_cells(x), w, s), by_cells(forward))
    gx = oracles.depthwise_grad_input(g, w, x.shape, *settings)
    assert_same(depthwise_cells.cells_grad_input(by_cells(g), w, (H, W), s), by_cells(gx))
    gw = oracles.depthwise_grad_weight(g, x, w.shape, *settings)
    assert_same(depthwise_cells.cells_grad_weight(by_cells(g), by_cells(x), w.shape, s), gw)


@given(st.integers(0, 200), st.integers(1, 40), st.integers(1, 40))
def test_products_are_numpys(rows, C, K):
    rng = np.random.default_rng(rows)
    a, b, g = rng.standard_normal((rows, C)), rng.standard_normal((C, K)), rng.standard_normal((rows, K))
    out = np.empty((rows, K))
    products.product(a, b, out)
    np.testing.assert_allclose(out, a @ b, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(products.transposed_product(a, g), a.T @ g, rtol=1e-12, atol=1e-12)


def test_a_long_product_is_taken_in_parts():
    """So long that 1e6 multiplications make a part; the last one is shorter."""
    rng = np.random.default_rng(0)
    a, b, g = rng.standard_normal((5003, 24)), rng.standard_normal((24, 40)), rng.standard_normal((5003, 40))
    assert products.rows_at_once(5003, 24, 40) == 1040
    out = np.empty((5003, 40))
    products.product(a, b, out)
    np.testing.assert_allclose(out, a @ b, rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(products.transposed_product(a, g), a.T @ g, rtol=1e-11, atol=1e-11)
