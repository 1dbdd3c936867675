"""Depthwise convolution of small maps that are stored cell by cell: [H, W, (N C)] instead of [N, H, W, C].

    y[oh, ow, (n c)] = sum over kh, kw of x[oh*s + kh - KH//2, ow*s + kw - KW//2, (n c)] * w[kh, kw, c]

over the taps that meet the map; the sides of w are odd. Read `depthwise.py` before, which does the same for
[N, H, W, C]. On small maps its frame of zeros is most of the work: a 5x5 filter on a 2x2 map multiplies 100 times
for 16 that count. Here all images' numbers of one cell lie side by side, one run that is long however small the map
is, so that every tap is a loop over a run, and those outside of the map are left out. All three functions are
sums of products of runs: of x and w, of g and w, of g and x.

The weights of a tap are repeated to about 512 numbers, and so many numbers of a run are taken at a time.
"""

import numpy as np
from numpy.typing import NDArray

from nachos_kernels._jit import kernel

TILE = 512  # numbers


@kernel
def _add_products(
    y: NDArray[np.floating],
    a: NDArray[np.floating],
    a_starts: NDArray[np.int64],
    b: NDArray[np.floating],
    b_starts: NDArray[np.int64],
    count: int,
) -> None:
    """Add y[j] += sum over i < count of a[a_starts[i] + j] * b[b_starts[i] + j]; four products to one load of y."""
    i = 0
    while i + 4 <= count:
        a0, a1, a2, a3 = a[a_starts[i] :], a[a_starts[i + 1] :], a[a_starts[i + 2] :], a[a_starts[i + 3] :]
        b0, b1, b2, b3 = b[b_starts[i] :], b[b_starts[i + 1] :], b[b_starts[i + 2] :], b[b_starts[i + 3] :]
        for j in range(y.size):
            y[j] += (a0[j] * b0[j] + a1[j] * b1[j]) + (a2[j] * b2[j] + a3[j] * b3[j])
        i += 4
    while i < count:
        a0, b0 = a[a_starts[i] :], b[b_starts[i] :]
        for j in range(y.size):
            y[j] += a0[j] * b0[j]
        i += 1


@kernel
def _weight_tiles(w: NDArray[np.floating], run: int) -> NDArray[np.floating]:
    """Return tiles[kh, kw, (t c)] = w[kh, kw, c], as many t as make about TILE numbers of a run."""
    KH, KW, C = w.shape
    times = max(1, min(run // C, TILE // C))
    tiles = np.empty((KH, KW, times * C), w.dtype)
    for kh in range(KH):
        for kw in range(KW):
            for t in range(times):
                for c in range(C):
                    tiles[kh, kw, t * C + c] = w[kh, kw, c]
    return tiles


@kernel
def cells_forward(x: NDArray[np.floating], w: NDArray[np.floating], stride: int) -> NDArray[np.floating]:
    """Return y, the map in which every channel is filtered by its own kernel.

        for oh, ow:  for kh, kw:  for n, c:
            y[oh, ow, (n c)] += x[oh*s + kh - KH//2, ow*s + kw - KW//2, (n c)] * w[kh, kw, c]

    Args:
        x: float32 or float64 [H, W, N*C], C-contiguous.
        w: dtype of x, [KH, KW, C], C-contiguous, sides odd.
        stride: s >= 1, both ways.

    Returns:
        y: dtype of x, [OH, OW, N*C] with OH = (H - 1) // s + 1, OW alike.

    Source: Howard et al., MobileNets, 2017, equation 3.
    """
    (H, W, run), (KH, KW, _) = x.shape, w.shape
    tiles = _weight_tiles(w, run)
    L, numbers, weights = tiles.shape[2], x.reshape(-1), tiles.reshape(-1)
    y = np.zeros(((H - 1) // stride + 1, (W - 1) // stride + 1, run), x.dtype)
    cells, taps = np.empty(KH * KW, np.int64), np.empty(KH * KW, np.int64)
    for first in range(0, run, L):
        for oh in range(y.shape[0]):
            for ow in range(y.shape[1]):
                count = 0
                for kh in range(KH):
                    for kw in range(KW):
                        h, v = oh * stride + kh - KH // 2, ow * stride + kw - KW // 2
                        if 0 <= h < H and 0 <= v < W:
                            cells[count], taps[count] = (h * W + v) * run + first, (kh * KW + kw) * L
                            count += 1
                _add_products(y[oh, ow, first : first + L], numbers, cells, weights, taps, count)
    return y


@kernel
def cells_grad_input(
    g: NDArray[np.floating], w: NDArray[np.floating], size: tuple[int, int], stride: int
) -> NDArray[np.floating]:
    """Return gx, the gradient of the loss in x.

        for h, v:  for kh, kw:  for n, c:
            gx[h, v, (n c)] += g[oh, ow, (n c)] * w[kh, kw, c]   where oh*s + kh - KH//2 = h, ow*s + kw - KW//2 = v

    Args:
        g: gradient of the loss in y, float32 or float64 [OH, OW, N*C], C-contiguous.
        w: dtype of g, [KH, KW, C], C-contiguous.
        size: (H, W).
        stride: as in `cells_forward`.

    Returns:
        gx: dtype of g, [H, W, N*C].

    Source: derived here: y is linear in x, and w[kh, kw, c] the coefficient of x[h, v, (n c)].
    """
    (OH, OW, run), (KH, KW, _), (H, W) = g.shape, w.shape, size
    tiles = _weight_tiles(w, run)
    L, numbers, weights = tiles.shape[2], g.reshape(-1), tiles.reshape(-1)
    gx = np.zeros((H, W, run), g.dtype)
    cells, taps = np.empty(KH * KW, np.int64), np.empty(KH * KW, np.int64)
    for first in range(0, run, L):
        for h in range(H):
            for v in range(W):
                count = 0
                for kh in range(KH):
                    for kw in range(KW):
                        oh, ow = h + KH // 2 - kh, v + KW // 2 - kw  # times the stride
                        if oh % stride == 0 and ow % stride == 0:
                            oh, ow = oh // stride, ow // stride
                            if 0 <= oh < OH and 0 <= ow < OW:
                                cells[count], taps[count] = (oh * OW + ow) * run + first, (kh * KW + kw) * L
                                count += 1
                _add_products(gx[h, v, first : first + L], numbers, cells, weights, taps, count)
    return gx


@kernel
def cells_grad_weight(
    g: NDArray[np.floating], x: NDArray[np.floating], w_shape: tuple[int, int, int], stride: int
) -> NDArray[np.floating]:
    """Return gw, the gradient of the loss in w.

        for kh, kw:  for oh, ow:  for n, c:
            gw[kh, kw, c] += g[oh, ow, (n c)] * x[oh*s + kh - KH//2, ow*s + kw - KW//2, (n c)]

    The sums are kept apart for each place in a tile until the end.

    Args:
        g: gradient of the loss in y, float32 or float64 [OH, OW, N*C], C-contiguous.
        x: dtype of g, [H, W, N*C], C-contiguous.
        w_shape: (KH, KW, C).
        stride: as in `cells_forward`.

    Returns:
        gw: dtype of g, shape w_shape.

    Source: derived here: y is linear in w, and x[h, v, (n c)] the coefficient of w[kh, kw, c].
    """
    (H, W, run), (OH, OW, _), (KH, KW, C) = x.shape, g.shape, w_shape
    L = max(1, min(run // C, TILE // C)) * C
    sums, gw = np.zeros((KH, KW, L), g.dtype), np.zeros((KH, KW, C), g.dtype)
    g_numbers, x_numbers = g.reshape(-1), x.reshape(-1)
    g_cells, x_cells = np.empty(OH * OW, np.int64), np.empty(OH * OW, np.int64)
    for first in range(0, run, L):
        for kh in range(KH):
            for kw in range(KW):
                count = 0
                for oh in range(OH):
                    for ow in range(OW):
                        h, v = oh * stride + kh - KH // 2, ow * stride + kw - KW // 2
                        if 0 <= h < H and 0 <= v < W:
                            g_cells[count], x_cells[count] = (oh * OW + ow) * run + first, (h * W + v) * run + first
                            count += 1
                total = sums[kh, kw, : min(L, run - first)]
                _add_products(total, g_numbers, g_cells, x_numbers, x_cells, count)
    for kh in range(KH):
        for kw in range(KW):
            for t in range(L // C):
                for c in range(C):
                    gw[kh, kw, c] += sums[kh, kw, t * C + c]
    return gw
