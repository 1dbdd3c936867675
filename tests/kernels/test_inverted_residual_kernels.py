"""The inverted residual in one compiled function is the oracles' functions in turn, forward and back."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import oracles
from nachos_kernels import activation
from nachos_kernels.batch_norm import gate_of
from nachos_kernels.inverted_residual import inverted_residual_forward, inverted_residual_grad

EPS = 1e-3


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
    side = w2.shape[0]
    gate, sides = gate_of(getattr(activation, name.upper()), x.dtype), (side // 2,) * 4
    arrays = [array for part in parts for array in part]
    y, *kept = inverted_residual_forward(x, *arrays, EPS, gate, stride, residual)

    def normed(z, gamma, beta, f):
        return oracles.batch_norm_forward(z, gamma, beta, EPS, f)[0]

    z1 = x @ w1 if w1.size else x
    y1 = normed(z1, gamma1, beta1, name) if w1.size else x
    z2 = oracles.depthwise_forward(y1, w2, (stride, stride), sides, (1, 1))
    y2 = normed(z2, gamma2, beta2, name)
    z3 = y2 @ w3
    expected = normed(z3, gamma3, beta3, "identity")
    np.testing.assert_allclose(y, expected + x if residual else expected, rtol=1e-7, atol=1e-7)

    g = np.random.default_rng(0).standard_normal(y.shape)
    found = inverted_residual_grad(g, x.shape, w1, gamma1, w2, gamma2, w3, gamma3, gate, stride, residual, *kept)
    gz3, ggamma3, gbeta3 = oracles.batch_norm_grad(g, z3, gamma3, beta3, EPS, "identity")
    gw3 = np.einsum("nhwm,nhwk->mk", y2, gz3)
    gz2, ggamma2, gbeta2 = oracles.batch_norm_grad(gz3 @ w3.T, z2, gamma2, beta2, EPS, name)
    gw2 = oracles.depthwise_grad_weight(gz2, y1, w2.shape, (stride, stride), sides, (1, 1))
    gx = oracles.depthwise_grad_input(gz2, w2, y1.shape, (stride, stride), sides, (1, 1))
    gw1, ggamma1, gbeta1 = w1, gamma1, beta1  # of size 0 without expansion
    if w1.size:
        gz1, ggamma1, gbeta1 = oracles.batch_norm_grad(gx, z1, gamma1, beta1, EPS, name)
        gw1, gx = np.einsum("nhwc,nhwm->cm", x, gz1), gz1 @ w1.T
    gx = gx + g if residual else gx
    wanted = (gx, gw1, ggamma1, gbeta1, gw2, ggamma2, gbeta2, gw3, ggamma3, gbeta3)
    for result, expected in zip(found, wanted, strict=True):
        scale = 1 + np.abs(expected).max(initial=0)
        np.testing.assert_allclose(result, expected, rtol=0, atol=1e-7 * scale, strict=True)
