"""The inverted residual in one compiled function is the oracles' functions in turn, forward and back."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import oracles
from nachos_kernels import activation
from nachos_kernels.inverted_residual import (
    cells_forward,
    cells_grad_input,
    cells_grad_weight,
    inverted_residual_forward,
    inverted_residual_grad,
)

EPS = 1e-3


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


@given(filters())
def test_cells_are_the_oracles_maps(case):
    x, w, g, s = case
    (KH, KW, _), (_, H, W, _) = w.shape, x.shape
    settings = (s, s), (KH // 2, KH // 2, KW // 2, KW // 2), (1, 1)
    y, gx = oracles.depthwise_forward(x, w, *settings), oracles.depthwise_grad_input(g, w, x.shape, *settings)
    oracles.assert_close(cells_forward(by_cells(x), w, s), by_cells(y), 2e-4, 1e-10)
    oracles.assert_close(cells_grad_input(by_cells(g), w, (H, W), s), by_cells(gx), 2e-4, 1e-10)
    gw = oracles.depthwise_grad_weight(g, x, w.shape, *settings)
    oracles.assert_close(cells_grad_weight(by_cells(g), by_cells(x), w.shape, s), gw, 2e-4, 1e-10)


@st.composite
def blocks(draw):
    """Draw x (N, H, W, C), three (weight, gamma, beta), the activation's name, stride and residual."""
    N, H, W = draw(st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(2, 5)))
    C, K, expand, residual = draw(st.tuples(st.integers(1, 4), st.integers(1, 4), st.booleans(), st.booleans()))
    stride, side = 1 if residual else draw(st.integers(1, 2)), draw(st.sampled_from([1, 3, 5]))
    K, M, name = C if residual else K, 2 * C if expand else C, draw(st.sampled_from(["identity", "relu", "hswish"]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shapes = [(C, M) if expand else (0, M), (side, side, M), (M, K)]
    parts = [(rng.standard_normal(w), *rng.uniform(0.5, 2, (2, w[-1] if w[0] else 0))) for w in shapes]
    return rng.standard_normal((N, H, W, C)), parts, name, stride, residual


@given(blocks())
def test_block_is_its_parts_in_turn(block):
    x, parts, name, stride, residual = block
    (w1, gamma1, beta1), (w2, gamma2, beta2), (w3, gamma3, beta3) = parts
    gate = activation.gate_of(getattr(activation, name.upper()), x.dtype)
    settings = (stride, stride), (w2.shape[0] // 2,) * 4, (1, 1)
    y, kept = inverted_residual_forward(x, *parts, EPS, gate, stride, residual)

    z1 = x @ w1 if w1.size else x
    y1 = oracles.batch_norm_forward(z1, gamma1, beta1, EPS, name)[0] if w1.size else x
    z2 = oracles.depthwise_forward(y1, w2, *settings)
    y2 = oracles.batch_norm_forward(z2, gamma2, beta2, EPS, name)[0]
    z3 = y2 @ w3
    expected = oracles.batch_norm_forward(z3, gamma3, beta3, EPS, "identity")[0]
    oracles.assert_close(y, expected + x if residual else expected, double=1e-7)

    g = np.random.default_rng(0).standard_normal(y.shape)
    found = inverted_residual_grad(g, x.shape, *parts, gate, stride, residual, kept)
    gz3, ggamma3, gbeta3 = oracles.batch_norm_grad(g, z3, gamma3, beta3, EPS, "identity")
    gw3 = np.einsum("nhwm,nhwk->mk", y2, gz3)
    gz2, ggamma2, gbeta2 = oracles.batch_norm_grad(gz3 @ w3.T, z2, gamma2, beta2, EPS, name)
    gw2 = oracles.depthwise_grad_weight(gz2, y1, w2.shape, *settings)
    gx = oracles.depthwise_grad_input(gz2, w2, y1.shape, *settings)
    gw1, ggamma1, gbeta1 = w1, gamma1, beta1  # of size 0 without expansion
    if w1.size:
        gz1, ggamma1, gbeta1 = oracles.batch_norm_grad(gx, z1, gamma1, beta1, EPS, name)
        gw1, gx = np.einsum("nhwc,nhwm->cm", x, gz1), gz1 @ w1.T
    gx = gx + g if residual else gx
    wanted = (gx, gw1, ggamma1, gbeta1, gw2, ggamma2, gbeta2, gw3, ggamma3, gbeta3)
    for result, exact in zip(found, wanted, strict=True):
        scale = 1 + np.abs(exact).max(initial=0)
        np.testing.assert_allclose(result, exact, rtol=0, atol=1e-7 * scale, strict=True)
