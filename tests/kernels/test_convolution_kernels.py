"""Dense, grouped and depthwise convolution compute what their oracles compute, whatever the geometry."""

import itertools
from dataclasses import dataclass
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import oracles
from nachos_kernels import conv2d, depthwise

FUNCTIONS = {
    conv2d: ("conv2d_forward", "conv2d_grad_input", "conv2d_grad_weight"),
    depthwise: ("depthwise_forward", "depthwise_grad_input", "depthwise_grad_weight"),
}
TOLERANCE = {np.float32: {"rtol": 1e-5, "atol": 1e-5}, np.float64: {"rtol": 1e-12, "atol": 1e-12}}


@dataclass(frozen=True)
class Convolution:
    """Arrays and geometry of one convolution; `settings` are the arguments that every function takes last."""

    kernels: ModuleType
    x: np.ndarray
    w: np.ndarray
    g: np.ndarray
    settings: tuple

    def results(self, module: ModuleType) -> dict[str, np.ndarray]:
        """Return what the three functions of `module` make of it."""
        forward, grad_input, grad_weight = (getattr(module, name) for name in FUNCTIONS[self.kernels])
        return {
            "y": forward(self.x, self.w, *self.settings),
            "gx": grad_input(self.g, self.w, self.x.shape, *self.settings),
            "gw": grad_weight(self.g, self.x, self.w.shape, *self.settings),
        }


def convolution(name, x_shape, w_shape, stride, padding, dilation, groups, dtype=np.float64, seed=0):
    """Return a Convolution with random arrays; `name` is conv2d or depthwise."""
    rng = np.random.default_rng(seed)
    y_shape = oracles.conv2d_shape(x_shape, w_shape, stride, padding, dilation)
    x, w, g = (rng.standard_normal(shape).astype(dtype) for shape in (x_shape, w_shape, y_shape))
    settings = (stride, padding, dilation) if name == "depthwise" else (stride, padding, dilation, groups)
    return Convolution(depthwise if name == "depthwise" else conv2d, x, w, g, settings)


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
    C = groups * CG
    w_shape = (KH, KW, C) if name == "depthwise" else (KH, KW, CG, groups * per_group)
    dtype, seed = draw(st.sampled_from([np.float32, np.float64])), draw(st.integers(0, 2**32 - 1))
    padding = (top, bottom, left, right)
    return convolution(name, (N, H, W, C), w_shape, stride, padding, dilation, groups, dtype, seed)


def assert_equals_oracle(case):
    """Compare y, gx and gw: shape, dtype, values, memory order."""
    expected = case.results(oracles)
    for what, result in case.results(case.kernels).items():
        assert result.dtype == case.x.dtype, what
        assert result.flags.c_contiguous, what
        np.testing.assert_allclose(
            result, expected[what], **TOLERANCE[case.x.dtype.type], err_msg=what, strict=True
        )


@given(convolutions("conv2d"))
def test_conv2d_equals_oracle(case):
    assert_equals_oracle(case)


@given(convolutions("depthwise"))
def test_depthwise_equals_oracle(case):
    assert_equals_oracle(case)


NONE, ONES = (0, 0, 0, 0), (1, 1)
CASES = {
    "1x1 is a matrix product": ("conv2d", (2, 3, 5, 4), (1, 1, 4, 3), ONES, NONE, ONES, 1),
    "1x1 with stride": ("conv2d", (2, 5, 4, 4), (1, 1, 4, 3), (2, 3), NONE, ONES, 1),
    "1x1 with padding": ("conv2d", (1, 3, 3, 2), (1, 1, 2, 2), ONES, (1, 0, 0, 2), ONES, 1),
    "1x1 with groups": ("conv2d", (1, 3, 3, 6), (1, 1, 2, 3), ONES, NONE, ONES, 3),
    "groups neither 1 nor C": ("conv2d", (2, 5, 4, 6), (3, 3, 2, 9), ONES, (1, 1, 1, 1), ONES, 3),
    "depthwise multiplier 2": ("conv2d", (2, 4, 4, 3), (3, 3, 1, 6), (2, 1), (1, 1, 1, 1), ONES, 3),
    "even kernel, uneven padding": ("conv2d", (1, 5, 5, 2), (2, 4, 2, 3), ONES, (0, 1, 1, 2), ONES, 1),
    "kernel larger than the map": ("conv2d", (1, 2, 3, 2), (5, 5, 2, 2), ONES, (2, 2, 2, 2), ONES, 1),
    "stride, padding, dilation uneven": (
        "conv2d",
        (1, 9, 7, 1),
        (3, 2, 1, 2),
        (2, 3),
        (2, 0, 1, 3),
        (2, 3),
        1,
    ),
    "7x7 depthwise on one cell": ("depthwise", (1, 1, 1, 3), (7, 7, 3), ONES, (3, 3, 3, 3), ONES, 3),
    "5x5 depthwise, stride 2": ("depthwise", (1, 8, 8, 2), (5, 5, 2), (2, 2), (2, 2, 2, 2), ONES, 2),
    "windows that see padding only": ("depthwise", (1, 2, 2, 1), (2, 2, 1), ONES, (4, 4, 4, 4), ONES, 1),
    "7x7 depthwise, stride 3 and dilation 2": (
        "depthwise",
        (1, 9, 14, 2),
        (7, 7, 2),
        (3, 3),
        (6, 6, 6, 6),
        (2, 2),
        2,
    ),
    "depthwise rows longer than a tile": ("depthwise", (1, 6, 9, 120), (3, 3, 120), ONES, (1, 1, 1, 1), ONES, 120),
    "dilation beyond the map": ("depthwise", (1, 3, 4, 2), (3, 3, 2), ONES, (5, 5, 5, 5), (5, 4), 2),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_named_geometry_equals_oracle(case):
    assert_equals_oracle(convolution(*case))


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_gradients_are_transposes(case):
    """y is linear in x and in w, so <g, y> = <gx, x> = <gw, w>."""
    convolved = convolution(*case)
    results = convolved.results(convolved.kernels)
    inner = np.vdot(convolved.g, results["y"])
    assert np.vdot(results["gx"], convolved.x) == pytest.approx(inner, rel=1e-12, abs=1e-12)
    assert np.vdot(results["gw"], convolved.w) == pytest.approx(inner, rel=1e-12, abs=1e-12)


@pytest.mark.parametrize(
    "case", [CASES["even kernel, uneven padding"], CASES["5x5 depthwise, stride 2"]], ids=lambda case: case[0]
)
def test_nan_reaches_every_output_that_reads_it(case):
    """A diverged training must stay visible: no output that saw the NaN hides it, no other one has it."""
    convolved = convolution(*case)
    convolved.x[0, 2, 1, 0] = np.nan
    y = convolved.results(convolved.kernels)["y"]
    assert 0 < np.isnan(y).sum() < y.size
    assert_equals_oracle(convolved)


LONG = {
    "1x1 in parts with a rest": ((1, 50, 41, 24), (1, 1, 24, 40), NONE, 1),
    "several buffers of Winograd's tiles": ((5, 20, 21, 40), (3, 3, 40, 8), (1, 1, 1, 1), 1),
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
    expected = {"y": y, "gx": gx[:, top : top + x_shape[1], left : left + x_shape[2]], "gw": gw}
    tolerance = 2e-4 if dtype == np.float32 else 1e-11
    for what, result in convolved.results(conv2d).items():
        np.testing.assert_allclose(result, expected[what], rtol=tolerance, atol=tolerance, err_msg=what)


def test_depthwise_is_the_grouped_convolution():
    """The two engines, loops and BLAS, agree on what both can compute."""
    looped = convolution("depthwise", (2, 5, 6, 4), (3, 3, 4), (2, 1), (1, 1, 1, 1), (1, 2), 4)
    y, gx, gw = looped.results(depthwise).values()
    w, (stride, padding, dilation) = looped.w[:, :, None, :], looped.settings
    settings = (stride, padding, dilation, 4)
    np.testing.assert_allclose(y, conv2d.conv2d_forward(looped.x, w, *settings), rtol=1e-12)
    np.testing.assert_allclose(gx, conv2d.conv2d_grad_input(looped.g, w, looped.x.shape, *settings), atol=1e-12)
    grouped = conv2d.conv2d_grad_weight(looped.g, looped.x, w.shape, *settings)
    np.testing.assert_allclose(gw, grouped[:, :, 0, :], rtol=1e-12, atol=1e-12)
