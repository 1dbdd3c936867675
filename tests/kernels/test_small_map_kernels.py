"""A 3x3 convolution written as one product for whole maps computes what the oracles compute."""

import numpy as np
import pytest

import oracles
from nachos_kernels import conv2d, small_map

PLAIN = ((1, 1), (1, 1, 1, 1), (1, 1), 1)  # stride, padding, dilation, groups
MAPS = [(1, 1), (1, 2), (2, 1), (2, 2)]


@pytest.mark.parametrize("size", MAPS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_small_maps_equal_oracle(size, dtype):
    rng = np.random.default_rng(0)
    x, w, g = (rng.standard_normal(s).astype(dtype) for s in ((3, *size, 4), (3, 3, 4, 5), (3, *size, 5)))
    expected = (
        oracles.conv2d_forward(x, w, *PLAIN),
        oracles.conv2d_grad_input(g, w, x.shape, *PLAIN),
        oracles.conv2d_grad_weight(g, x, w.shape, *PLAIN),
    )
    y, gx = np.empty_like(g), np.empty_like(x)
    small_map.small_map_forward(x, w, y)
    small_map.small_map_grad_input(g, w, gx)
    by_product = y, gx, small_map.small_map_grad_weight(g, x)
    chosen = (
        conv2d.conv2d_forward(x, w, *PLAIN),
        conv2d.conv2d_grad_input(g, w, x.shape, *PLAIN),
        conv2d.conv2d_grad_weight(g, x, w.shape, *PLAIN),
    )
    tolerance = 1e-5 if dtype == np.float32 else 1e-12
    for results in (by_product, chosen):
        for result, truth in zip(results, expected, strict=True):
            assert result.flags.c_contiguous
            np.testing.assert_allclose(result, truth, rtol=tolerance, atol=tolerance, strict=True)


@pytest.mark.parametrize(
    ("x_shape", "w_shape", "settings", "small"),
    [
        ((1, 2, 2, 4), (3, 3, 4, 4), PLAIN, True),
        ((1, 3, 2, 4), (3, 3, 4, 4), PLAIN, False),
        ((1, 2, 2, 4), (5, 5, 4, 4), PLAIN, False),
        ((1, 2, 2, 4), (3, 3, 4, 4), (PLAIN[0], (1, 1, 1, 2), *PLAIN[2:]), False),
        ((1, 2, 2, 4), (3, 3, 2, 4), (*PLAIN[:3], 2), False),
    ],
)
def test_only_plain_3x3_convolutions_are_taken(x_shape, w_shape, settings, small):
    assert small_map.is_small_map(x_shape, w_shape, *settings) is small
