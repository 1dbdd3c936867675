"""Pooling: the largest cell of each window, its average, or the average of the map.

Window (oh, ow) covers the rows oh*sh - top <= h < oh*sh - top + kh that lie on the map, and columns alike.
Padded cells never win a maximum; in an average they count as zeros. The caller keeps every padding smaller
than the window, so that each window holds at least one cell.

A loop over the channels of one cell is short. An average is therefore taken along the columns first, where a row of
the map is one run of W*C numbers, and only then across the columns, cell by cell.
"""

import numpy as np
from numpy.typing import NDArray

from nachos_kernels._jit import Floats, Pair, Sides, kernel

NO_PADDING = (0, 0, 0, 0)


@kernel
def max_pool_forward(x: Floats, size: Pair, stride: Pair, padding: Sides) -> tuple[Floats, NDArray[np.int32]]:
    """Return y, the largest cell of each window, and argmax, where it was found.

        for n, oh, ow:  for h, w in the window:  for c:
            if x[n, h, w, c] > y[n, oh, ow, c]:
                y[n, oh, ow, c], argmax[n, oh, ow, c] = x[n, h, w, c], h*W + w

    Args:
        x: float32 or float64 [N, H, W, C], C-contiguous.
        size: (kh, kw) >= 1.
        stride: (sh, sw) >= 1.
        padding: (top, bottom, left, right), 0 <= padding < size.

    Returns:
        y: dtype of x, [N, OH, OW, C] with OH = (H + top + bottom - kh) // sh + 1, OW alike; a NaN wins.
        argmax: int32 [N, OH, OW, C], h*W + w of the winner, the first one in case of a tie.
    """
    N, H, W, C = x.shape
    (kh, kw), (sh, sw), (top, bottom, left, right) = size, stride, padding
    OH = (H + top + bottom - kh) // sh + 1
    OW = (W + left + right - kw) // sw + 1
    y = np.empty((N, OH, OW, C), x.dtype)
    argmax = np.empty((N, OH, OW, C), np.int32)
    for n in range(N):
        for oh in range(OH):
            h_first, h_end = max(0, oh * sh - top), min(H, oh * sh - top + kh)
            for ow in range(OW):
                w_first, w_end = max(0, ow * sw - left), min(W, ow * sw - left + kw)
                best, where = y[n, oh, ow], argmax[n, oh, ow]
                for c in range(C):
                    best[c] = x[n, h_first, w_first, c]
                    where[c] = h_first * W + w_first
                for h in range(h_first, h_end):
                    for w in range(w_first, w_end):
                        if h == h_first and w == w_first:
                            continue
                        cell = x[n, h, w]
                        for c in range(C):
                            # NaN alone differs from itself; the first NaN stays
                            wins = cell[c] > best[c] or (cell[c] != cell[c] and best[c] == best[c])
                            # written whether it wins or not: a conditional store is slower
                            where[c] = np.int32(h * W + w) if wins else where[c]
                            best[c] = cell[c] if wins else best[c]
    return y, argmax


@kernel
def max_pool_grad_input(g: Floats, argmax: NDArray[np.int32], x_shape: tuple[int, int, int, int]) -> Floats:
    """Return gx, each gradient at the cell that won: gx[n, argmax[n, oh, ow, c], c] += g[n, oh, ow, c].

    Args:
        g: gradient of the loss in y, float32 or float64 [N, OH, OW, C], C-contiguous.
        argmax: what `max_pool_forward` returned.
        x_shape: (N, H, W, C).
    """
    (N, H, W, C), (_, OH, OW, _) = x_shape, g.shape
    gx = np.zeros((N, H * W, C), g.dtype)
    for n in range(N):
        for oh in range(OH):
            for ow in range(OW):
                for c in range(C):
                    gx[n, argmax[n, oh, ow, c], c] += g[n, oh, ow, c]
    return gx.reshape((N, H, W, C))


@kernel
def avg_pool_forward(x: Floats, size: Pair, stride: Pair, padding: Sides) -> Floats:
    """Return y, the average of each window, padded cells counting as zeros.

        for n, oh, ow:  for h, w in the window:  for c:  y[n, oh, ow, c] += x[n, h, w, c] / (kh*kw)

    The divisor is kh*kw in every window, as PyTorch's default. Arguments and shape of y as in `max_pool_forward`.
    """
    N, H, W, C = x.shape
    (kh, kw), (sh, sw), (top, bottom, left, right) = size, stride, padding
    OH = (H + top + bottom - kh) // sh + 1
    OW = (W + left + right - kw) // sw + 1
    y = np.empty((N, OH, OW, C), x.dtype)
    rows = x.reshape(N, H, W * C)
    columns = np.empty(W * C, x.dtype)  # the sums of each column, for one row of windows
    cells = x.dtype.type(kh * kw)
    for n in range(N):
        for oh in range(OH):
            h_first, h_end = max(0, oh * sh - top), min(H, oh * sh - top + kh)
            row = rows[n, h_first]
            for i in range(W * C):
                columns[i] = row[i]
            for h in range(h_first + 1, h_end):
                row = rows[n, h]
                for i in range(W * C):
                    columns[i] += row[i]
            for ow in range(OW):
                w_first, w_end = max(0, ow * sw - left), min(W, ow * sw - left + kw)
                total, cell = y[n, oh, ow], columns[w_first * C :]
                for c in range(C):
                    total[c] = cell[c]
                for w in range(w_first + 1, w_end):
                    cell = columns[w * C :]
                    for c in range(C):
                        total[c] += cell[c]
                for c in range(C):
                    total[c] /= cells
    return y


@kernel
def avg_pool_grad_input(
    g: Floats, x_shape: tuple[int, int, int, int], size: Pair, stride: Pair, padding: Sides
) -> Floats:
    """Return gx, in which each gradient is shared equally by its window.

        for n, oh, ow:  for h, w in the window:  for c:  gx[n, h, w, c] += g[n, oh, ow, c] / (kh*kw)

    Args:
        g: gradient of the loss in y, float32 or float64 [N, OH, OW, C], C-contiguous.
        x_shape: (N, H, W, C).
        size, stride, padding: as in `max_pool_forward`.
    """
    (N, H, W, C), (_, OH, OW, _) = x_shape, g.shape
    (kh, kw), (sh, sw), (top, _, left, _) = size, stride, padding
    gx = np.zeros((N, H, W * C), g.dtype)
    columns = np.empty(W * C, g.dtype)
    cells = g.dtype.type(kh * kw)
    for n in range(N):
        for oh in range(OH):
            for i in range(W * C):
                columns[i] = 0
            for ow in range(OW):
                w_first, w_end = max(0, ow * sw - left), min(W, ow * sw - left + kw)
                share = g[n, oh, ow]
                for w in range(w_first, w_end):
                    cell = columns[w * C :]
                    for c in range(C):
                        cell[c] += share[c] / cells
            for h in range(max(0, oh * sh - top), min(H, oh * sh - top + kh)):
                row = gx[n, h]
                for i in range(W * C):
                    row[i] += columns[i]
    return gx.reshape((N, H, W, C))


def global_avg_pool_forward(x: Floats) -> Floats:
    """Return y[n, c] = sum over h, w of x[n, h, w, c] / (H*W): an average with one window."""
    N, H, W, C = x.shape
    return avg_pool_forward(x, (H, W), (1, 1), NO_PADDING).reshape(N, C)


def global_avg_pool_grad_input(g: Floats, x_shape: tuple[int, int, int, int]) -> Floats:
    """Return gx[n, h, w, c] = g[n, c] / (H*W) of shape x_shape, (N, H, W, C)."""
    N, H, W, C = x_shape
    return avg_pool_grad_input(g.reshape(N, 1, 1, C), x_shape, (H, W), (1, 1), NO_PADDING)
