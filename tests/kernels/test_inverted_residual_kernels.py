"""The inverted residual in one compiled function is the oracles' functions in turn, forward and back."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import oracles
from nachos_kernels import activation
from nachos_kernels.inverted_residual import inverted_residual_forward, inverted_residual_grad

EPS = 1e-3
SIDES = [(1, 1), (3, 3), (5, 5), (3, 1), (1, 7)]


@st.composite
def blocks(draw):
    """Draw x (N, H, W, C), three (weight, gamma, beta), the activation's name, stride and residual.

    130 images have more numbers in a cell than a tile. In float32 without activation: at a kink rounding decides.
    """
    small = st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(2, 5))
    N, H, W = draw(st.one_of(small, st.just((130, 2, 2))))
    C, K, expand, residual = draw(st.tuples(st.integers(1, 4), st.integers(1, 4), st.booleans(), st.booleans()))
    stride, sides = 1 if residual else draw(st.integers(1, 3)), draw(st.sampled_from(SIDES))
    K, M, name = C if residual else K, 2 * C if expand else C, draw(st.sampled_from(["identity", "relu", "hswish"]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dtype = np.float32 if name == "identity" and draw(st.booleans()) else np.float64
    shapes = [(C, M) if expand else (0, M), (*sides, M), (M, K)]
    parts = [(rng.standard_normal(w), *rng.uniform(0.5, 2, (2, w[-1] if w[0] else 0))) for w in shapes]
    parts = [tuple(array.astype(dtype) for array in part) for part in parts]
    return rng.standard_normal((N, H, W, C)).astype(dtype), parts, name, stride, residual


@given(blocks())
def test_block_is_its_parts_in_turn(block):
    x, parts, name, stride, residual = block
    (w1, gamma1, beta1), (w2, gamma2, beta2), (w3, gamma3, beta3) = parts
    gate = activation.gate_of(getattr(activation, name.upper()), x.dtype)
    (KH, KW, _), tolerance = w2.shape, 5e-3 if x.dtype == np.float32 else 1e-7
    settings = (stride, stride), (KH // 2, KH // 2, KW // 2, KW // 2), (1, 1)
    y, kept = inverted_residual_forward(x, *parts, EPS, gate, stride, residual)

    z1 = x @ w1 if w1.size else x
    y1 = oracles.batch_norm_forward(z1, gamma1, beta1, EPS, name)[0] if w1.size else x
    z2 = oracles.depthwise_forward(y1, w2, *settings)
    y2 = oracles.batch_norm_forward(z2, gamma2, beta2, EPS, name)[0]
    z3 = y2 @ w3
    expected = oracles.batch_norm_forward(z3, gamma3, beta3, EPS, "identity")[0]
    oracles.assert_close(y, expected + x if residual else expected, tolerance, tolerance)

    g = np.random.default_rng(0).standard_normal(y.shape).astype(x.dtype)
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
        np.testing.assert_allclose(result, exact, rtol=0, atol=tolerance * scale, strict=True)
