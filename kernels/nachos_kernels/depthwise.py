"""Depthwise convolution: each channel is filtered by a kernel of its own.

    y[n, oh, ow, c] = sum over kh, kw of x[n, ih, iw, c] * w[kh, kw, c]
        with ih = oh*sh - top + kh*dh and iw = ow*sw - left + kw*dw;
        taps that fall outside the map meet zeros, so they are left out

Read `_jit.py` before. The three functions are one loop nest, n oh ow kh kw c, that adds its product to y, gx
or gw. The channel is innermost because channels lie side by side in memory (NHWC): the processor then
multiplies eight or more of them at once. Dense and grouped convolutions are in `conv2d.py`.
"""

import numpy as np
from numpy.typing import NDArray

from nachos_kernels._jit import kernel


@kernel
def _valid_taps(start: int, dilation: int, taps: int, size: int) -> tuple[int, int]:
    """Return (first, last + 1) of the taps k with 0 <= start + k * dilation < size.

    Derived here: start + k*dilation >= 0 means k >= ceil(-start / dilation), and
    start + k*dilation <= size - 1 means k < ceil((size - start) / dilation); ceil(a/b) = -(-a // b).
    """
    return max(0, -(start // dilation)), min(taps, -((start - size) // dilation))


@kernel
def depthwise_forward(
    x: NDArray[np.floating],
    w: NDArray[np.floating],
    stride: tuple[int, int],
    padding: tuple[int, int, int, int],
    dilation: tuple[int, int],
) -> NDArray[np.floating]:
    """Return y, the map in which every channel is filtered by its own kernel.

        for n, oh, ow:  for kh, kw inside the map:  for c:  y[n, oh, ow, c] += x[n, ih, iw, c] * w[kh, kw, c]

    Args:
        x: float32 or float64 [N, H, W, C], C-contiguous.
        w: dtype of x, [KH, KW, C], C-contiguous.
        stride: (sh, sw) >= 1.
        padding: (top, bottom, left, right) >= 0.
        dilation: (dh, dw) >= 1.

    Returns:
        y: dtype of x, [N, OH, OW, C] with OH = (H + top + bottom - dh*(KH-1) - 1) // sh + 1, OW alike.

    Source: Howard et al., MobileNets, 2017, equation 3.
    """
    (N, H, W, C), (KH, KW, _) = x.shape, w.shape
    (sh, sw), (top, bottom, left, right), (dh, dw) = stride, padding, dilation
    OH = (H + top + bottom - dh * (KH - 1) - 1) // sh + 1
    OW = (W + left + right - dw * (KW - 1) - 1) // sw + 1
    y = np.zeros((N, OH, OW, C), x.dtype)
    for n in range(N):
        for oh in range(OH):
            h0 = oh * sh - top
            kh_first, kh_end = _valid_taps(h0, dh, KH, H)
            for ow in range(OW):
                w0 = ow * sw - left
                kw_first, kw_end = _valid_taps(w0, dw, KW, W)
                y_row = y[n, oh, ow]
                for kh in range(kh_first, kh_end):
                    for kw in range(kw_first, kw_end):
                        x_row, w_row = x[n, h0 + kh * dh, w0 + kw * dw], w[kh, kw]
                        for c in range(C):
                            y_row[c] += x_row[c] * w_row[c]
    return y


@kernel
def depthwise_grad_input(
    g: NDArray[np.floating],
    w: NDArray[np.floating],
    x_shape: tuple[int, int, int, int],
    stride: tuple[int, int],
    padding: tuple[int, int, int, int],
    dilation: tuple[int, int],
) -> NDArray[np.floating]:
    """Return gx, the gradient of the loss in x.

        for n, oh, ow:  for kh, kw inside the map:  for c:  gx[n, ih, iw, c] += g[n, oh, ow, c] * w[kh, kw, c]

    Args:
        g: gradient of the loss in y, float32 or float64 [N, OH, OW, C], C-contiguous.
        w: dtype of g, [KH, KW, C], C-contiguous.
        x_shape: (N, H, W, C).
        stride, padding, dilation: as in `depthwise_forward`.

    Returns:
        gx: dtype of g, shape x_shape.

    Source: derived here: y is linear in x, and w[kh, kw, c] is the coefficient of x[n, ih, iw, c].
    """
    (N, H, W, C), (_, OH, OW, _), (KH, KW, _) = x_shape, g.shape, w.shape
    (sh, sw), (top, _, left, _), (dh, dw) = stride, padding, dilation
    gx = np.zeros((N, H, W, C), g.dtype)
    for n in range(N):
        for oh in range(OH):
            h0 = oh * sh - top
            kh_first, kh_end = _valid_taps(h0, dh, KH, H)
            for ow in range(OW):
                w0 = ow * sw - left
                kw_first, kw_end = _valid_taps(w0, dw, KW, W)
                g_row = g[n, oh, ow]
                for kh in range(kh_first, kh_end):
                    for kw in range(kw_first, kw_end):
                        gx_row, w_row = gx[n, h0 + kh * dh, w0 + kw * dw], w[kh, kw]
                        for c in range(C):
                            gx_row[c] += g_row[c] * w_row[c]
    return gx


@kernel
def depthwise_grad_weight(
    g: NDArray[np.floating],
    x: NDArray[np.floating],
    w_shape: tuple[int, int, int],
    stride: tuple[int, int],
    padding: tuple[int, int, int, int],
    dilation: tuple[int, int],
) -> NDArray[np.floating]:
    """Return gw, the gradient of the loss in w.

        for n, oh, ow:  for kh, kw inside the map:  for c:  gw[kh, kw, c] += g[n, oh, ow, c] * x[n, ih, iw, c]

    Args:
        g: gradient of the loss in y, float32 or float64 [N, OH, OW, C], C-contiguous.
        x: dtype of g, [N, H, W, C], C-contiguous.
        w_shape: (KH, KW, C).
        stride, padding, dilation: as in `depthwise_forward`.

    Returns:
        gw: dtype of g, shape w_shape.

    Source: derived here: y is linear in w, and x[n, ih, iw, c] is the coefficient of w[kh, kw, c].
    """
    (N, H, W, C), (_, OH, OW, _), (KH, KW, _) = x.shape, g.shape, w_shape
    (sh, sw), (top, _, left, _), (dh, dw) = stride, padding, dilation
    gw = np.zeros((KH, KW, C), g.dtype)
    for n in range(N):
        for oh in range(OH):
            h0 = oh * sh - top
            kh_first, kh_end = _valid_taps(h0, dh, KH, H)
            for ow in range(OW):
                w0 = ow * sw - left
                kw_first, kw_end = _valid_taps(w0, dw, KW, W)
                g_row = g[n, oh, ow]
                for kh in range(kh_first, kh_end):
                    for kw in range(kw_first, kw_end):
                        x_row, gw_row = x[n, h0 + kh * dh, w0 + kw * dw], gw[kh, kw]
                        for c in range(C):
                            gw_row[c] += g_row[c] * x_row[c]
    return gw
