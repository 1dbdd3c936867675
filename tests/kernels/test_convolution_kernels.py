"""Dense, grouped and depthwise convolution compute what their oracles compute, whatever the geometry."""

from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import oracles
from nachos_kernels import conv2d, depthwise

KERNELS = {"conv2d": conv2d, "depthwise": depthwise}
PASSES = {
    "conv2d": ("conv2d_forward", "conv2d_grad_input", "conv2d_grad_weight"),
    "depthwise": ("depthwise_forward", "depthwise_grad_input", "depthwise_grad_weight"),
}
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
        forward, grad_input, grad_weight = (getattr(module, each) for each in PASSES[self.name])
        y = forward(self.x, self.w, *self.settings)
        gx = grad_input(self.g, self.w, self.x.shape, *self.settings)
        return y, gx, grad_weight(self.g, self.x, self.w.shape, *self.settings)

    def check(self) -> None:
        """Compare with the oracle: shape, dtype, values, memory order."""
        found = self.results(KERNELS[self.name])
        assert all(result.flags.c_contiguous for result in found)
        oracles.assert_close(found, self.results(oracles))


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
    "height 1": ("conv2d", (3, 1, 9, 4), (1, 5, 2, 6), (1, 2), (0, 0, 2, 2), ONES, 2),
    "height 1, depthwise": ("depthwise", (3, 1, 19, 70), (1, 7, 70), (1, 1), (0, 0, 3, 3), ONES, 70),
    "height 1, depthwise, stride 2": ("depthwise", (3, 1, 18, 3), (1, 5, 3), (1, 2), (0, 0, 2, 2), ONES, 3),
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


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("buffer", [1, 900])
def test_windows_of_a_few_images_at_a_time_leave_none_out(buffer, groups, monkeypatch):
    """Of 5 images 1 or 2 fit the buffer: the last time it is not full."""
    monkeypatch.setattr(conv2d, "BUFFER", buffer)
    w_shape = (3, 3, 4 // groups, 6)
    convolution("conv2d", (5, 4, 3, 4), w_shape, ONES, (1, 1, 1, 1), ONES, groups).check()


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
