"""Convolution, dense or in groups: copy every window into a row of a matrix, then one matrix product (BLAS).

    y[n, oh, ow, k] = sum over kh, kw, c of xp[n, oh*sh + kh*dh, ow*sw + kw*dw, c] * w[kh, kw, c, k]
        with xp the map x surrounded by zeros; with G groups, output channels of group q
        read the input channels of group q only

`_unfold` writes the windows, patches[q, (n oh ow), (kh kw c)]. Its transpose, fold, adds them to a map; it is the
same loop nest, run with back=True:

    y[q] = patches[q] @ w[q]        gw[q] = patches[q]^T @ g[q]        gx = fold(g[q] @ w[q]^T)

The windows of a 3x3 convolution are nine times the map. They are made for a few images at a time, in a buffer that
stays in the second-level cache. The patches of a 1x1 convolution are x itself. Depthwise convolutions, which have
no sum over channels, are in `depthwise.py`; a bias is in `batch_norm.py`.

Source: Chellapilla, Puri, Simard, High performance convolutional neural networks for document processing, 2006. The
gradients are derived here: y = unfold(x) @ w is linear in x and in w.
"""

from collections.abc import Iterator
from functools import reduce

import numpy as np

from nachos_kernels._jit import Floats, Pair, Sides, each, kernel, parts_of

BUFFER = 1 << 17  # numbers of windows made at a time: half a megabyte in float32
SMALL = 1_000_000  # multiplications of a product that OpenBLAS computes without copying the matrices first
LEAST = 32  # fewest rows in a part of a product; if parts would be smaller, do one product

Shape = tuple[int, int, int, int]
Block = tuple[slice, slice, Floats, Floats]


@kernel
def rows_at_once(rows: int, C: int, K: int) -> int:
    """Return how many rows of a product [rows, C] @ [C, K] are computed at a time: BLAS copies large ones."""
    part = SMALL // max(1, C * K) // 16 * 16
    return part if LEAST <= part < rows else max(1, rows)


@kernel
def product(a: Floats, b: Floats, out: Floats) -> None:
    """Write out[R, K] = a[R, C] @ b[C, K], all C-contiguous, by BLAS."""
    R, part = a.shape[0], rows_at_once(a.shape[0], b.shape[0], b.shape[1])
    for first in range(0, R, part):
        np.dot(a[first : first + part], b, out[first : first + part])


@kernel
def transposed_product(a: Floats, b: Floats) -> Floats:
    """Return a^T @ b [C, K] of a[R, C] and b[R, K], both C-contiguous, by BLAS."""
    R, C, K = a.shape[0], a.shape[1], b.shape[1]
    total, part = np.zeros((C, K), a.dtype), rows_at_once(R, C, K)
    term = np.empty((C, K), a.dtype)
    for first in range(0, R, part):
        np.dot(a[first : first + part].T, b[first : first + part], term)
        total += term
    return total


@kernel
def _unfold(x: Floats, patches: Floats, channels: int, stride: Pair, dilation: Pair, back: bool) -> None:
    """Fill patches[q, n, oh, ow, kh, kw, c] = x[n, oh*sh + kh*dh, ow*sw + kw*dw, q*CG + c].

    If `back`, fold: add the patches to those places of x. x is [N, H, W*C] with C = `channels`.
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
                            if back:
                                for c in range(CG):
                                    cells[c] += run[c]
                            else:
                                for c in range(CG):
                                    run[c] = cells[c]


def _is_matrix_product(w_shape: Shape, stride: Pair, padding: Sides, groups: int) -> bool:
    """Return whether the convolution is x @ w: 1x1, stride 1, no padding, one group."""
    return w_shape[:2] == (1, 1) and stride == (1, 1) and not any(padding) and groups == 1


def _blocks(
    x_shape: Shape,
    w_shape: Shape,
    out_size: Pair,
    padding: Sides,
    dilation: Pair,
    groups: int,
    dtype: np.dtype[np.floating],
) -> Iterator[Block]:
    """Yield (images, rows, framed, patches) for as many images at a time as fit the buffer.

    `rows` are places of (n oh ow); `framed` has the size of xp and is zero at first. Both arrays are used again.
    In one group without dilation, the KW cells of a window's row are neighbours in the map as in the patches: they
    are one run of KW*C numbers, like one cell with so many channels.
    """
    (N, H, W, C), (KH, KW, CG, _), (top, bottom, left, right) = x_shape, w_shape, padding
    cells = out_size[0] * out_size[1]
    together = max(1, min(N, BUFFER // max(1, groups * cells * KH * KW * CG)))
    framed = np.zeros((together, top + H + bottom, left + W + right, C), dtype)
    numbers = np.empty(groups * together * cells * KH * KW * CG, dtype)
    run = (1, KW * CG) if groups == 1 and dilation[1] == 1 else (KW, CG)
    for first in range(0, N, together):
        end = min(first + together, N)
        shape = groups, end - first, *out_size, KH, *run
        patches = numbers[: len(numbers) * (end - first) // together].reshape(shape)
        yield slice(first, end), slice(first * cells, end * cells), framed, patches


def _windows(
    x: Floats, w_shape: Shape, out_size: Pair, stride: Pair, padding: Sides, dilation: Pair, groups: int
) -> Iterator[tuple[slice, Floats]]:
    """Yield (rows, windows): which of (n oh ow), and their windows [G, rows, KH*KW*CG], one array filled anew."""
    (N, H, W, C), (top, _, left, _) = x.shape, padding
    if _is_matrix_product(w_shape, stride, padding, groups):
        yield slice(0, N * H * W), x.reshape(1, -1, C)
        return
    for images, rows, framed, patches in _blocks(x.shape, w_shape, out_size, padding, dilation, groups, x.dtype):
        framed[: images.stop - images.start, top : top + H, left : left + W] = x[images]
        _unfold(framed.reshape(*framed.shape[:2], -1), patches, C, stride, dilation, False)
        yield rows, patches.reshape(groups, rows.stop - rows.start, -1)


def _weights_by_group(w: Floats, groups: int) -> Floats:
    """Return w [KH, KW, CG, K] as [G, KH*KW*CG, K/G]."""
    return np.ascontiguousarray(w.reshape(-1, groups, w.shape[3] // groups).transpose(1, 0, 2))


def _rows_by_group(y: Floats, groups: int) -> Floats:
    """Return y [N, OH, OW, K] as [G, N*OH*OW, K/G]."""
    return y.reshape(-1, groups, y.shape[3] // groups).transpose(1, 0, 2)


def _multiply(a: Floats, b: Floats, out: Floats, groups: int) -> None:
    """Write out = a @ b; with several groups the rows of `a` or `out` are not one after the other in memory."""
    if groups == 1:
        product(a, b, out)
    else:
        np.matmul(a, b, out=out)


def conv2d_forward(x: Floats, w: Floats, stride: Pair, padding: Sides, dilation: Pair, groups: int) -> Floats:
    """Return y, the convolution of x with w, without bias.

    Args:
        x: float32 or float64 [N, H, W, C], C-contiguous.
        w: dtype of x, [KH, KW, C/G, K], C-contiguous.
        stride: (sh, sw) >= 1.
        padding: (top, bottom, left, right) >= 0.
        dilation: (dh, dw) >= 1.
        groups: G >= 1, a divisor of C and of K.

    Returns:
        [N, OH, OW, K] with OH = (H + top + bottom - dh*(KH-1) - 1) // sh + 1, OW alike; C-contiguous.
    """
    (N, H, W, _), (KH, KW, _, K), (top, bottom, left, right) = x.shape, w.shape, padding
    OH = (H + top + bottom - dilation[0] * (KH - 1) - 1) // stride[0] + 1
    OW = (W + left + right - dilation[1] * (KW - 1) - 1) // stride[1] + 1
    y, w_by_group = np.empty((N, OH, OW, K), x.dtype), _weights_by_group(w, groups)

    def forward(part: slice) -> None:
        y_by_group = _rows_by_group(y[part], groups)
        for rows, windows in _windows(x[part], w.shape, (OH, OW), stride, padding, dilation, groups):
            for q in range(groups):
                _multiply(windows[q], w_by_group[q], y_by_group[q, rows], groups)

    each(forward, parts_of(N, max(x.size, y.size)))
    return y


def conv2d_grad_input(
    g: Floats, w: Floats, x_shape: Shape, stride: Pair, padding: Sides, dilation: Pair, groups: int
) -> Floats:
    """Return gx, the gradient of the loss in x: fold(g @ w^T).

    Args:
        g: gradient of the loss in y, float32 or float64 [N, OH, OW, K], C-contiguous.
        w: dtype of g, [KH, KW, C/G, K], C-contiguous.
        x_shape: (N, H, W, C).
        stride, padding, dilation, groups: as in `conv2d_forward`.
    """
    (N, H, W, C), (top, _, left, _), gx = x_shape, padding, np.empty(x_shape, g.dtype)
    w_by_group = np.ascontiguousarray(_weights_by_group(w, groups).transpose(0, 2, 1))
    direct = _is_matrix_product(w.shape, stride, padding, groups)

    def backward(part: slice) -> None:
        g_by_group, gx_part = _rows_by_group(g[part], groups), gx[part]
        if direct:
            product(g_by_group[0], w_by_group[0], gx_part.reshape(-1, C))
            return
        sizes = gx_part.shape, w.shape, g.shape[1:3], padding, dilation, groups, g.dtype
        for images, rows, framed, patches in _blocks(*sizes):
            windows = patches.reshape(groups, rows.stop - rows.start, -1)
            for q in range(groups):
                _multiply(g_by_group[q, rows], w_by_group[q], windows[q], groups)
            framed[:] = 0
            _unfold(framed.reshape(*framed.shape[:2], -1), patches, C, stride, dilation, True)
            gx_part[images] = framed[: images.stop - images.start, top : top + H, left : left + W]

    each(backward, parts_of(N, max(g.size, gx.size)))
    return gx


def conv2d_grad_weight(
    g: Floats, x: Floats, w_shape: Shape, stride: Pair, padding: Sides, dilation: Pair, groups: int
) -> Floats:
    """Return gw, the gradient of the loss in w: unfold(x)^T @ g.

    Args:
        g: gradient of the loss in y, float32 or float64 [N, OH, OW, K], C-contiguous.
        x: dtype of g, [N, H, W, C], C-contiguous.
        w_shape: (KH, KW, C/G, K).
        stride, padding, dilation, groups: as in `conv2d_forward`.
    """
    KH, KW, CG, K = w_shape

    def backward(part: slice) -> Floats:
        g_by_group, gw = _rows_by_group(g[part], groups), np.zeros((groups, KH * KW * CG, K // groups), g.dtype)
        for rows, windows in _windows(x[part], w_shape, g.shape[1:3], stride, padding, dilation, groups):
            for q in range(groups):
                if groups == 1:
                    gw[q] += transposed_product(windows[q], g_by_group[q, rows])
                else:
                    gw[q] += windows[q].T @ g_by_group[q, rows]
        return np.ascontiguousarray(gw.transpose(1, 0, 2))

    return reduce(np.add, each(backward, parts_of(len(g), max(g.size, x.size)))).reshape(w_shape)
