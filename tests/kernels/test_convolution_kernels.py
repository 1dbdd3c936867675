"""Dense, grouped and depthwise convolution compute what their oracles compute, whatever the geometry."""

import itertools
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import oracles
from nachos_kernels import conv2d, depthwise

KERNELS = {"conv2d": conv2d, "depthwise": depthwise}
NONE, ONES = (0, 0, 0, 0), (1, 1)


class Convolution(NamedTuple):
    """Arrays of one convolution; `settings` are the arguments that every function takes last."""

    name: str
    x: np.ndarray
    w: np.ndarray
    g: np.ndarray
    settings: tuple

    def results(self, module) -> tuple[np.ndarray, ...]:
        """Return y, gx and gw as `module` computes them."""
        passes = ("forward", "grad_input", "grad_weight")
        forward, grad_input, grad_weight = (getattr(module, f"{self.name}_{each}") for each in passes)
        y = forward(self.x, self.w, *self.settings)
        gx = grad_input(self.g, self.w, self.x.shape, *self.settings)
        return y, gx, grad_weight(self.g, self.x, self.w.shape, *self.settings)

    def check(self) -> None:
        """Compare with the oracle: shape, dtype, values, memory order."""
        for result, expected in zip(self.results(KERNELS[self.name]), self.results(oracles), strict=True):
            assert result.flags.c_contiguous
            oracles.assert_close(result, expected)


def convolution(name, x_shape, w_shape, stride, padding, dilation, groups, dtype=np.float64, seed=0):
    """Return a Convolution with random arrays."""
    rng = np.random.default_rng(seed)
    y_shape = oracles.conv2d_shape(x_shape, w_shape, stride, padding, dilation)
    arrays = (rng.standard_normal(shape).astype(dtype) for shape in (x_shape, w_shape, y_shape))
    settings = (stride, padding, dilation) if name == "depthwise" else (stride, padding, dilation, groups)
    return Convolution(name, *arrays, settings)


@st.composite
def convolutions(draw, name):
    """Draw small convolutions: any sizes, uneven strides, padding and dilation, kernels beyond the map."""
    pair = st.tuples(st.integers(1, 3), st.integers(1, 3))
    (H, W), (KH, KW), stride = draw(st.tuples(st.integers(1, 6), st.integers(1, 6))), draw(pair), draw(pair)
    dilation = draw(st.tuples(st.integers(1, 2), st.integers(1, 2)))
    top, bottom, left, right = draw(st.tuples(*[st.integers(0, 3)] * 4))
    bottom = max(bottom, dilation[0] * (KH - 1) + 1 - top - H)  # at least one position, as the caller checks
    right = max(right, dilation[1] * (KW - 1) + 1 - left - W)
    N, groups, CG, per_group = draw(st.tuples(*[st.integers(1, 2)] * 2, st.integers(1, 3), st.integers(1, 3)))
    w_shape = (KH, KW, groups * CG) if name == "depthwise" else (KH, KW, CG, groups * per_group)
    dtype, seed = draw(st.sampled_from([np.float32, np.float64])), draw(st.integers(0, 2**32 - 1))
    geometry = stride, (top, bottom, left, right), dilation
    return convolution(name, (N, H, W, groups * CG), w_shape, *geometry, groups, dtype, seed)


@pytest.mark.parametrize("name", KERNELS)
@given(data=st.data())
def test_convolution_equals_oracle(name, data):
    data.draw(convolutions(name)).check()


CASES = {
    "1x1 is a matrix product": ("conv2d", (2, 3, 5, 4), (1, 1, 4, 3), ONES, NONE, ONES, 1),
    "1x1 with stride": ("conv2d", (2, 5, 4, 4), (1, 1, 4, 3), (2, 3), NONE, ONES, 1),
    "1x1 with padding": ("conv2d", (1, 3, 3, 2), (1, 1, 2, 2), ONES, (1, 0, 0, 2), ONES, 1),
    "1x1 with groups": ("conv2d", (1, 3, 3, 6), (1, 1, 2, 3), ONES, NONE, ONES, 3),
    "groups neither 1 nor C": ("conv2d", (2, 5, 4, 6), (3, 3, 2, 9), ONES, (1, 1, 1, 1), ONES, 3),
    "depthwise multiplier 2": ("conv2d", (2, 4, 4, 3), (3, 3, 1, 6), (2, 1), (1, 1, 1, 1), ONES, 3),
    "even kernel, uneven padding": ("conv2d", (1, 5, 5, 2), (2, 4, 2, 3), ONES, (0, 1, 1, 2), ONES, 1),
    "kernel larger than the map": ("conv2d", (1, 2, 3, 2), (5, 5, 2, 2), ONES, (2, 2, 2, 2), ONES, 1),
    "all uneven": ("conv2d", (1, 9, 7, 1), (3, 2, 1, 2), (2, 3), (2, 0, 1, 3), (2, 3), 1),
    "7x7 depthwise on one cell": ("depthwise", (1, 1, 1, 3), (7, 7, 3), ONES, (3, 3, 3, 3), ONES, 3),
    "5x5 depthwise, stride 2": ("depthwise", (1, 8, 8, 2), (5, 5, 2), (2, 2), (2, 2, 2, 2), ONES, 2),
    "windows that see padding only": ("depthwise", (1, 2, 2, 1), (2, 2, 1), ONES, (4, 4, 4, 4), ONES, 1),
    "7x7 depthwise, uneven": ("depthwise", (1, 9, 14, 2), (7, 7, 2), (3, 3), (6, 6, 6, 6), (2, 2), 2),
    "depthwise rows longer than a tile": ("depthwise", (1, 6, 9, 120), (3, 3, 120), ONES, (1, 1, 1, 1), ONES, 120),
    "dilation beyond the map": ("depthwise", (1, 3, 4, 2), (3, 3, 2), ONES, (5, 5, 5, 5), (5, 4), 2),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_named_geometry_equals_oracle_and_gradients_are_transposes(case):
    """y is linear in x and in w, so <g, y> = <gx, x> = <gw, w>."""
    convolved = convolution(*case)
    convolved.check()
    y, gx, gw = convolved.results(KERNELS[convolved.name])
    inner = pytest.approx(np.vdot(convolved.g, y), rel=1e-12, abs=1e-12)
    assert np.vdot(gx, convolved.x) == inner
    assert np.vdot(gw, convolved.w) == inner


@pytest.mark.parametrize("case", ["even kernel, uneven padding", "5x5 depthwise, stride 2"])
def test_nan_is_in_every_output_that_reads_it_and_in_no_other(case):
    convolved = convolution(*CASES[case])
    convolved.x[0, 2, 1, 0] = np.nan
    y, *_ = convolved.results(KERNELS[convolved.name])
    assert 0 < np.isnan(y).sum() < y.size
    convolved.check()


LONG = {
    "1x1 in parts with a rest": ((1, 50, 41, 24), (1, 1, 24, 40), NONE, 1),
    "several buffers of 5x5 windows": ((5, 20, 20, 10), (5, 5, 10, 8), (2, 2, 2, 2), 1),
    "several buffers of windows, the last one smaller": ((5, 20, 20, 10), (3, 3, 10, 8), (1, 1, 1, 1), 1),
    "several buffers in groups": ((5, 20, 20, 10), (3, 3, 5, 8), (1, 1, 1, 1), 2),
}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", LONG.values(), ids=LONG.keys())
def test_long_maps_equal_one_product_of_all_windows(case, dtype):
    """Beyond what the oracles' loops can do: parts of products and buffers of windows leave nothing out."""
    x_shape, w_shape, padding, groups = case
    convolved = convolution("conv2d", x_shape, w_shape, ONES, padding, ONES, groups, dtype)
    top, bottom, left, right = padding
    framed = np.pad(convolved.x.astype(np.float64), ((0, 0), (top, bottom), (left, right), (0, 0)))
    (_, OH, OW, K), (KH, KW, CG, _) = convolved.g.shape, w_shape
    y, gx, gw = np.zeros(convolved.g.shape), np.zeros(framed.shape), np.zeros(w_shape)
    for kh, kw, group in itertools.product(range(KH), range(KW), range(groups)):
        read, written = slice(group * CG, (group + 1) * CG), slice(group * K // groups, (group + 1) * K // groups)
        part = np.s_[:, kh : kh + OH, kw : kw + OW, read]
        g, w = convolved.g[..., written].astype(np.float64), convolved.w[kh, kw, :, written].astype(np.float64)
        y[..., written] += framed[part] @ w
        gx[part] += g @ w.T
        gw[kh, kw, :, written] = np.tensordot(framed[part], g, ((0, 1, 2), (0, 1, 2)))
    expected = y, gx[:, top : top + x_shape[1], left : left + x_shape[2]], gw
    for result, exact in zip(convolved.results(conv2d), expected, strict=True):
        oracles.assert_close(result, exact.astype(dtype), 2e-4, 1e-11)


@pytest.mark.parametrize(("rows", "C", "K", "together"), [(0, 3, 5, 1), (200, 40, 7, 200), (5003, 24, 40, 1040)])
def test_products_are_numpys(rows, C, K, together):
    """A long product is computed in parts of about 1e6 multiplications; the last one is shorter."""
    rng = np.random.default_rng(rows)
    a, b, g = rng.standard_normal((rows, C)), rng.standard_normal((C, K)), rng.standard_normal((rows, K))
    out = np.empty((rows, K))
    assert conv2d.rows_at_once(rows, C, K) == together
    conv2d.product(a, b, out)
    oracles.assert_close(out, a @ b, double=1e-11)
    oracles.assert_close(conv2d.transposed_product(a, g), a.T @ g, double=1e-11)


def test_depthwise_is_the_grouped_convolution():
    """The two engines, loops and BLAS, agree on what both can compute."""
    looped = convolution("depthwise", (2, 5, 6, 4), (3, 3, 4), (2, 1), (1, 1, 1, 1), (1, 2), 4)
    grouped = Convolution("conv2d", looped.x, looped.w[:, :, None, :], looped.g, (*looped.settings, 4))
    for result, expected in zip(looped.results(depthwise), grouped.results(conv2d), strict=True):
        oracles.assert_close(result, expected.reshape(result.shape))
