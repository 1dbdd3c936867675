"""Winograd's convolution computes what the oracles compute, whatever the map and the padding."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import oracles
from nachos_kernels import conv2d, winograd

TOLERANCE = {np.float32: 1e-5, np.float64: 1e-12}
PLAIN = ((1, 1), (1, 1, 1, 1), (1, 1), 1)  # stride, padding, dilation, groups


def arrays(x_shape, w_shape, padding, dtype=np.float64, seed=0):
    """Return x, w, g with random numbers."""
    rng = np.random.default_rng(seed)
    y_shape = oracles.conv2d_shape(x_shape, w_shape, (1, 1), padding, (1, 1))
    return [rng.standard_normal(shape).astype(dtype) for shape in (x_shape, w_shape, y_shape)]


def forward(x, w, padding):
    """Return what `winograd_forward` writes."""
    y = np.empty(oracles.conv2d_shape(x.shape, w.shape, (1, 1), padding, (1, 1)), x.dtype)
    winograd.winograd_forward(x, w, padding, y)
    return y


def grad_input(g, w, x_shape, padding):
    """Return what `winograd_grad_input` writes."""
    gx = np.empty(x_shape, g.dtype)
    winograd.winograd_grad_input(g, w, padding, gx)
    return gx


@st.composite
def convolutions(draw):
    """Draw (x, w, g, padding): maps of odd and even sizes, sides padded by 0 to 2 cells each on its own."""
    top, bottom, left, right = padding = draw(st.tuples(*[st.integers(0, 2)] * 4))
    H = draw(st.integers(max(1, 3 - top - bottom), 6))
    W = draw(st.integers(max(1, 3 - left - right), 6))
    N, C, K = draw(st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5)))
    dtype, seed = draw(st.sampled_from([np.float32, np.float64])), draw(st.integers(0, 2**32 - 1))
    return *arrays((N, H, W, C), (3, 3, C, K), padding, dtype, seed), padding


@given(convolutions())
def test_winograd_equals_oracle(case):
    x, w, g, padding = case
    settings = ((1, 1), padding, (1, 1), 1)
    results = {
        "y": (forward(x, w, padding), oracles.conv2d_forward(x, w, *settings)),
        "gx": (grad_input(g, w, x.shape, padding), oracles.conv2d_grad_input(g, w, x.shape, *settings)),
        "gw": (winograd.winograd_grad_weight(g, x, padding), oracles.conv2d_grad_weight(g, x, w.shape, *settings)),
    }
    tolerance = TOLERANCE[x.dtype.type]
    for what, (result, expected) in results.items():
        assert result.flags.c_contiguous, what
        np.testing.assert_allclose(result, expected, rtol=tolerance, atol=tolerance, err_msg=what, strict=True)


def test_both_ways_of_a_convolution_agree(monkeypatch):
    """`conv2d.py` chooses; whichever it takes, results are the same but for rounding."""
    x, w, g = arrays((9, 12, 11, 24), (3, 3, 24, 32), PLAIN[1])

    def results():
        return (
            conv2d.conv2d_forward(x, w, *PLAIN),
            conv2d.conv2d_grad_input(g, w, x.shape, *PLAIN),
            conv2d.conv2d_grad_weight(g, x, w.shape, *PLAIN),
        )

    assert winograd.winograd_pays(w.shape, (9, 12, 11), *PLAIN)
    chosen = results()
    monkeypatch.setattr(conv2d, "winograd_pays", lambda *_geometry: False)
    for tiled, windowed in zip(chosen, results(), strict=True):
        assert not np.array_equal(tiled, windowed)
        np.testing.assert_allclose(tiled, windowed, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("channels", [16, 64])
def test_the_error_in_float32_is_near_that_of_windows(channels, monkeypatch):
    """Forward it is even smaller, by shorter sums; gradients lose up to a factor of four, never past 1e-6."""
    x, w, g = arrays((8, 16, 16, channels), (3, 3, channels, 32), PLAIN[1], np.float32)

    def results(dtype):
        a, b, c = x.astype(dtype), w.astype(dtype), g.astype(dtype)
        return (
            conv2d.conv2d_forward(a, b, *PLAIN),
            conv2d.conv2d_grad_input(c, b, a.shape, *PLAIN),
            conv2d.conv2d_grad_weight(c, a, b.shape, *PLAIN),
        )

    tiled = results(np.float32)
    monkeypatch.setattr(conv2d, "winograd_pays", lambda *_geometry: False)
    for ours, plain, exact in zip(tiled, results(np.float32), results(np.float64), strict=True):
        error, error_of_windows = (np.sqrt(np.mean((result - exact) ** 2)) for result in (ours, plain))
        assert error < 4 * error_of_windows
        assert error < 1e-6 * np.sqrt(np.mean(exact**2))


def test_nan_reaches_the_outputs_that_read_it_and_no_others():
    x, w, _ = arrays((1, 7, 6, 4), (3, 3, 4, 4), PLAIN[1])
    for h, column in np.ndindex(7, 6):
        spoilt = x.copy()
        spoilt[0, h, column, 0] = np.nan
        expected = np.isnan(oracles.conv2d_forward(spoilt, w, *PLAIN))
        np.testing.assert_array_equal(np.isnan(forward(spoilt, w, PLAIN[1])), expected)


@pytest.mark.parametrize(
    ("w_shape", "out_shape", "settings", "pays"),
    [
        ((3, 3, 4, 4), (32, 2, 2), PLAIN, True),
        ((3, 3, 3, 4), (32, 2, 2), PLAIN, False),
        ((3, 3, 4, 4), (99, 1, 2), PLAIN, False),
        ((3, 3, 4, 4), (31, 2, 2), PLAIN, False),
        ((5, 5, 4, 4), (32, 2, 2), PLAIN, False),
        ((3, 3, 4, 4), (32, 2, 2), ((2, 1), *PLAIN[1:]), False),
        ((3, 3, 4, 4), (32, 2, 2), (PLAIN[0], (3, 1, 1, 1), *PLAIN[2:]), False),
        ((3, 3, 4, 4), (32, 2, 2), (*PLAIN[:2], (1, 2), 1), False),
        ((3, 3, 4, 8), (32, 2, 2), (*PLAIN[:3], 2), False),
    ],
)
def test_only_plain_3x3_convolutions_are_taken(w_shape, out_shape, settings, pays):
    assert winograd.winograd_pays(w_shape, out_shape, *settings) is pays
