"""Convolution, dense or in groups: copy every window into a row of a matrix, then one matrix product (BLAS).

    y[n, oh, ow, k] = sum over kh, kw, c of xp[n, oh*sh + kh*dh, ow*sw + kw*dw, c] * w[kh, kw, c, k]
        with xp the map x surrounded by zeros; with G groups, output channels of group q
        read the input channels of group q only

Read `_jit.py` before. `_unfold` writes the windows, patches[q, (n oh ow), (kh kw c)], so that

    y[q] = patches[q] @ w[q]        gw[q] = patches[q]^T @ g[q]        gpatches[q] = g[q] @ w[q]^T

and `_fold`, the transpose of `_unfold`, adds gpatches back onto the map. A 1x1 convolution needs no windows:
its patches are x itself. A depthwise convolution has no sum over channels
and is faster as a loop nest: `depthwise.py`.

The windows of a 3x3 convolution are nine times the map. They are made for a few images at a time, in one buffer
of about half a megabyte: it stays in the second-level cache, where a matrix of all windows goes to memory and
back, and is asked from the operating system page by page. Measured in float32, 64 maps of 32x32x16 to 32
channels, 3x3: 13.0 -> 8.0 ms, 38 of the 53 thousand million products a second that a large product reaches.

Source: Chellapilla, Puri, Simard, High performance convolutional neural networks for document processing,
2006.
"""

from collections.abc import Iterator
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from nachos_kernels._jit import kernel
from nachos_kernels.parts import each, parts_of
from nachos_kernels.products import product, transposed_product

BUFFER = 1 << 17  # numbers of windows made at a time; half and twice as many took as long


@kernel
def _unfold(
    x: NDArray[np.floating],
    patches: NDArray[np.floating],
    channels: int,
    stride: tuple[int, int],
    dilation: tuple[int, int],
) -> None:
    """Fill patches[q, n, oh, ow, kh, kw, c] = x[n, oh*sh + kh*dh, ow*sw + kw*dw, q*CG + c].

    x is [N, H, W*C] with C = `channels`, each row as one array of numbers.
    """
    G, N, OH, OW, KH, KW, CG = patches.shape
    (sh, sw), (dh, dw) = stride, dilation
    for q in range(G):
        for n in range(N):
            for oh in range(OH):
                for ow in range(OW):
                    for kh in range(KH):
                        for kw in range(KW):
                            run = patches[q, n, oh, ow, kh, kw]
                            cells = x[n, oh * sh + kh * dh, (ow * sw + kw * dw) * channels + q * CG :]
                            for c in range(CG):
                                run[c] = cells[c]


@kernel
def _fold(
    patches: NDArray[np.floating],
    x: NDArray[np.floating],
    channels: int,
    stride: tuple[int, int],
    dilation: tuple[int, int],
) -> None:
    """Add x[n, oh*sh + kh*dh, ow*sw + kw*dw, q*CG + c] += patches[q, n, oh, ow, kh, kw, c], x as in `_unfold`."""
    G, N, OH, OW, KH, KW, CG = patches.shape
    (sh, sw), (dh, dw) = stride, dilation
    for q in range(G):
        for n in range(N):
            for oh in range(OH):
                for ow in range(OW):
                    for kh in range(KH):
                        for kw in range(KW):
                            run = patches[q, n, oh, ow, kh, kw]
                            cells = x[n, oh * sh + kh * dh, (ow * sw + kw * dw) * channels + q * CG :]
                            for c in range(CG):
                                cells[c] += run[c]


def _is_matrix_product(
    w_shape: tuple[int, int, int, int],
    stride: tuple[int, int],
    padding: tuple[int, int, int, int],
    groups: int,
) -> bool:
    """Return True if the convolution is x @ w as it stands: 1x1, stride 1, no padding, one group."""
    return w_shape[:2] == (1, 1) and stride == (1, 1) and not any(padding) and groups == 1


def _buffers(
    x_shape: tuple[int, int, int, int],
    w_shape: tuple[int, int, int, int],
    out_size: tuple[int, int],
    padding: tuple[int, int, int, int],
    dilation: tuple[int, int],
    groups: int,
    dtype: np.dtype[np.floating],
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Return for as many images as fit the buffer: zeros of the size of xp, and room for the windows.

    In one group without dilation, the KW cells of a window's row lie side by side, in the map as in the patches:
    they are one run of KW*C numbers, as a window of one cell with so many channels has it.
    """
    (N, H, W, C), (KH, KW, CG, _), (top, bottom, left, right) = x_shape, w_shape, padding
    per_image = groups * out_size[0] * out_size[1] * KH * KW * CG
    images = max(1, min(N, BUFFER // max(1, per_image)))
    framed = np.zeros((images, top + H + bottom, left + W + right, C), dtype)
    runs = (1, KW * CG) if groups == 1 and dilation[1] == 1 else (KW, CG)
    return framed, np.empty((groups, images, *out_size, KH, *runs), dtype)


def _windows(
    x: NDArray[np.floating],
    w_shape: tuple[int, int, int, int],
    out_size: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int, int, int],
    dilation: tuple[int, int],
    groups: int,
) -> Iterator[tuple[slice, NDArray[np.floating]]]:
    """Yield the windows of a few images at a time, [G, rows, KH*KW*CG], after their place among the rows (n oh ow).

    The array is the same every time, filled anew.
    """
    (N, H, W, _), (top, _, left, _), (OH, OW) = x.shape, padding, out_size
    framed, patches = _buffers(x.shape, w_shape, out_size, padding, dilation, groups, x.dtype)
    for first in range(0, N, len(framed)):
        images = min(len(framed), N - first)
        framed[:images, top : top + H, left : left + W] = x[first : first + images]
        part = patches if images == len(framed) else np.empty((groups, images, *patches.shape[2:]), x.dtype)
        _unfold(framed.reshape(*framed.shape[:2], -1), part, x.shape[3], stride, dilation)
        rows = slice(first * OH * OW, (first + images) * OH * OW)
        yield rows, part.reshape(groups, images * OH * OW, -1)


def _weights_by_group(w: NDArray[np.floating], groups: int) -> NDArray[np.floating]:
    """Return w [KH, KW, CG, K] as [G, KH*KW*CG, K/G]."""
    K = w.shape[3]
    return np.ascontiguousarray(w.reshape(-1, groups, K // groups).transpose(1, 0, 2))


def _rows_by_group(y: NDArray[np.floating], groups: int) -> NDArray[np.floating]:
    """Return y [N, OH, OW, K] as [G, N*OH*OW, K/G]."""
    K = y.shape[3]
    return y.reshape(-1, groups, K // groups).transpose(1, 0, 2)


def conv2d_forward(
    x: NDArray[np.floating],
    w: NDArray[np.floating],
    stride: tuple[int, int],
    padding: tuple[int, int, int, int],
    dilation: tuple[int, int],
    groups: int,
) -> NDArray[np.floating]:
    """Return y, the convolution of x with w (the module's first equation); a bias is the caller's addition.

    Args:
        x: float32 or float64 [N, H, W, C], C-contiguous.
        w: dtype of x, [KH, KW, C/G, K], C-contiguous.
        stride: (sh, sw) >= 1.
        padding: (top, bottom, left, right) >= 0.
        dilation: (dh, dw) >= 1.
        groups: G >= 1, a divisor of C and of K.

    Returns:
        y: dtype of x, [N, OH, OW, K] with OH = (H + top + bottom - dh*(KH-1) - 1) // sh + 1,
            OW alike; C-contiguous.

    Source: see the module.
    """
    (N, H, W, C), (KH, KW, _, K), (top, bottom, left, right) = x.shape, w.shape, padding
    OH = (H + top + bottom - dilation[0] * (KH - 1) - 1) // stride[0] + 1
    OW = (W + left + right - dilation[1] * (KW - 1) - 1) // stride[1] + 1
    y = np.empty((N, OH, OW, K), x.dtype)
    if _is_matrix_product(w.shape, stride, padding, groups):
        w_matrix = w.reshape(C, K)
        each(lambda part: product(_rows(x[part]), w_matrix, _rows(y[part])), parts_of(N, max(x.size, y.size)))
    else:
        settings, parts = (stride, padding, dilation, groups), parts_of(N, max(x.size, y.size))
        each(lambda part: _forward_by_windows(x[part], w, y[part], *settings), parts)
    return y


def _rows(x: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return x [N, H, W, C] as [N*H*W, C]."""
    return x.reshape(-1, x.shape[3])


def _multiply(a: NDArray[np.floating], b: NDArray[np.floating], out: NDArray[np.floating], groups: int) -> None:
    """Write out = a @ b; with several groups the rows of `a` or `out` are not one after the other in memory."""
    if groups == 1:
        product(a, b, out)
    else:
        np.matmul(a, b, out=out)


def _forward_by_windows(
    x: NDArray[np.floating],
    w: NDArray[np.floating],
    y: NDArray[np.floating],
    stride: tuple[int, int],
    padding: tuple[int, int, int, int],
    dilation: tuple[int, int],
    groups: int,
) -> None:
    """Write y[q] = patches[q] @ w[q]."""
    y_by_group, w_by_group = _rows_by_group(y, groups), _weights_by_group(w, groups)
    for rows, windows in _windows(x, w.shape, y.shape[1:3], stride, padding, dilation, groups):
        for q in range(groups):
            _multiply(windows[q], w_by_group[q], y_by_group[q, rows], groups)


def conv2d_grad_input(
    g: NDArray[np.floating],
    w: NDArray[np.floating],
    x_shape: tuple[int, int, int, int],
    stride: tuple[int, int],
    padding: tuple[int, int, int, int],
    dilation: tuple[int, int],
    groups: int,
) -> NDArray[np.floating]:
    """Return gx, the gradient of the loss in x: fold(g @ w^T).

    Args:
        g: gradient of the loss in y, float32 or float64 [N, OH, OW, K], C-contiguous.
        w: dtype of g, [KH, KW, C/G, K], C-contiguous.
        x_shape: (N, H, W, C).
        stride, padding, dilation, groups: as in `conv2d_forward`.

    Returns:
        gx: dtype of g, shape x_shape, C-contiguous.

    Source: derived here: y = unfold(x) @ w is linear in x, its transpose is fold(g @ w^T).
    """
    N, C, K, gx = x_shape[0], x_shape[3], g.shape[3], np.empty(x_shape, g.dtype)
    if _is_matrix_product(w.shape, stride, padding, groups):
        w_turned = np.ascontiguousarray(w.reshape(C, K).T)
        each(lambda part: product(_rows(g[part]), w_turned, _rows(gx[part])), parts_of(N, max(g.size, gx.size)))
    else:
        settings, parts = (stride, padding, dilation, groups), parts_of(N, max(g.size, gx.size))
        each(lambda part: _grad_input_by_windows(g[part], w, gx[part], *settings), parts)
    return gx


def _grad_input_by_windows(
    g: NDArray[np.floating],
    w: NDArray[np.floating],
    gx: NDArray[np.floating],
    stride: tuple[int, int],
    padding: tuple[int, int, int, int],
    dilation: tuple[int, int],
    groups: int,
) -> None:
    """Write gx = fold(g @ w^T)."""
    (N, H, W, C), (KH, KW, CG, _), (_, OH, OW, _), (top, _, left, _) = gx.shape, w.shape, g.shape, padding
    g_by_group = _rows_by_group(g, groups)
    w_by_group = np.ascontiguousarray(_weights_by_group(w, groups).transpose(0, 2, 1))
    framed, patches = _buffers(gx.shape, w.shape, (OH, OW), padding, dilation, groups, g.dtype)
    for first in range(0, N, len(framed)):
        images = min(len(framed), N - first)
        part = patches if images == len(framed) else np.empty((groups, images, *patches.shape[2:]), g.dtype)
        rows = slice(first * OH * OW, (first + images) * OH * OW)
        for q in range(groups):
            _multiply(g_by_group[q, rows], w_by_group[q], part[q].reshape(-1, KH * KW * CG), groups)
        framed[:] = 0
        _fold(part, framed.reshape(*framed.shape[:2], -1), C, stride, dilation)
        gx[first : first + images] = framed[:images, top : top + H, left : left + W]


def conv2d_grad_weight(
    g: NDArray[np.floating],
    x: NDArray[np.floating],
    w_shape: tuple[int, int, int, int],
    stride: tuple[int, int],
    padding: tuple[int, int, int, int],
    dilation: tuple[int, int],
    groups: int,
) -> NDArray[np.floating]:
    """Return gw, the gradient of the loss in w: unfold(x)^T @ g.

    Args:
        g: gradient of the loss in y, float32 or float64 [N, OH, OW, K], C-contiguous.
        x: dtype of g, [N, H, W, C], C-contiguous.
        w_shape: (KH, KW, C/G, K).
        stride, padding, dilation, groups: as in `conv2d_forward`.

    Returns:
        gw: dtype of g, shape w_shape, C-contiguous.

    Source: derived here: y = unfold(x) @ w is linear in w.
    """
    parts = parts_of(len(g), max(g.size, x.size))
    if _is_matrix_product(w_shape, stride, padding, groups):
        found = each(lambda part: transposed_product(_rows(x[part]), _rows(g[part])), parts)
    else:
        settings = w_shape, stride, padding, dilation, groups
        found = each(lambda part: _grad_weight_by_windows(g[part], x[part], *settings), parts)
    return reduce(np.add, found).reshape(w_shape)


def _grad_weight_by_windows(
    g: NDArray[np.floating],
    x: NDArray[np.floating],
    w_shape: tuple[int, int, int, int],
    stride: tuple[int, int],
    padding: tuple[int, int, int, int],
    dilation: tuple[int, int],
    groups: int,
) -> NDArray[np.floating]:
    """Return unfold(x)^T @ g as [KH*KW*CG, G, K/G]."""
    (_, OH, OW, K), g_by_group = g.shape, _rows_by_group(g, groups)
    by_group = np.zeros((groups, w_shape[0] * w_shape[1] * w_shape[2], K // groups), g.dtype)
    for rows, windows in _windows(x, w_shape, (OH, OW), stride, padding, dilation, groups):
        for q in range(groups):
            if groups == 1:
                by_group[q] += transposed_product(windows[q], g_by_group[q, rows])
            else:
                by_group[q] += windows[q].T @ g_by_group[q, rows]
    return np.ascontiguousarray(by_group.transpose(1, 0, 2))
