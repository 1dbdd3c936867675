"""Depthwise convolution of small maps that are stored cell by cell: [H, W, (N C)] instead of [N, H, W, C].

    y[oh, ow, (n c)] = sum over kh, kw of x[oh*s + kh - KH//2, ow*s + kw - KW//2, (n c)] * w[kh, kw, c]

over the taps that meet the map; the sides of w are odd. Read `depthwise.py` before, which does the same for
[N, H, W, C]. On small maps its frame of zeros is most of the work: a 5x5 filter on a 2x2 map multiplies 100 times
for 16 that count. Here all images' numbers of one cell lie side by side, one run that is long however small the map
is, so that every tap is a loop over runs, and those outside of the map are left out.

Which cell of y meets which cell of x at which tap is listed once (`_meetings`). Each of the three functions goes
through the list, in the order of what it adds to: y[out] += x[cell] * w[tap], gx[cell] += g[out] * w[tap],
gw[tap] += g[out] * x[cell]. The weights of a tap are repeated to about 512 numbers, and so many numbers of a run
are taken at a time (256 of a 3x3 filter took a sixth longer).
"""

import numpy as np
from numpy.typing import NDArray

from nachos_kernels._jit import kernel

TILE = 512  # numbers
# Rows of the list of meetings. Not Python integers: Numba would compile a function again for each of those.
OUT, CELL, TAP = np.int64(0), np.int64(1), np.int64(2)


@kernel
def _meetings(H: int, W: int, KH: int, KW: int, stride: int) -> NDArray[np.int64]:
    """Return the places of output cell, input cell and tap of every product, as three rows."""
    OH, OW = (H - 1) // stride + 1, (W - 1) // stride + 1
    found, count = np.empty((3, OH * OW * KH * KW), np.int64), 0
    for oh in range(OH):
        for ow in range(OW):
            for kh in range(KH):
                for kw in range(KW):
                    h, v = oh * stride + kh - KH // 2, ow * stride + kw - KW // 2
                    if 0 <= h < H and 0 <= v < W:
                        found[OUT, count], found[CELL, count] = oh * OW + ow, h * W + v
                        found[TAP, count] = kh * KW + kw
                        count += 1
    meetings = np.empty((3, count), np.int64)
    for row in range(3):
        for i in range(count):
            meetings[row, i] = found[row, i]
    return meetings


@kernel
def _sorted(meetings: NDArray[np.int64], by: np.int64, targets: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the list in the order of its row `by`, and where each of the `targets` places begins in it."""
    starts = np.zeros(targets + 1, np.int64)
    for place in meetings[by]:
        starts[place + 1] += 1
    for target in range(targets):
        starts[target + 1] += starts[target]
    ordered, free = np.empty(meetings.shape, np.int64), starts.copy()
    for i in range(meetings.shape[1]):
        target = meetings[by, i]
        for row in range(3):
            ordered[row, free[target]] = meetings[row, i]
        free[target] += 1
    return ordered, starts


@kernel
def _add_products(
    y: NDArray[np.floating],
    a: NDArray[np.floating],
    a_starts: NDArray[np.int64],
    b: NDArray[np.floating],
    b_starts: NDArray[np.int64],
) -> None:
    """Add y[j] += sum over i of a[a_starts[i] + j] * b[b_starts[i] + j]; four products to one load of y."""
    i = 0
    while i + 4 <= a_starts.size:
        a0, a1, a2, a3 = a[a_starts[i] :], a[a_starts[i + 1] :], a[a_starts[i + 2] :], a[a_starts[i + 3] :]
        b0, b1, b2, b3 = b[b_starts[i] :], b[b_starts[i + 1] :], b[b_starts[i + 2] :], b[b_starts[i + 3] :]
        for j in range(y.size):
            y[j] += (a0[j] * b0[j] + a1[j] * b1[j]) + (a2[j] * b2[j] + a3[j] * b3[j])
        i += 4
    while i < a_starts.size:
        a0, b0 = a[a_starts[i] :], b[b_starts[i] :]
        for j in range(y.size):
            y[j] += a0[j] * b0[j]
        i += 1


@kernel
def _weighted_sums(
    x: NDArray[np.floating],
    w: NDArray[np.floating],
    y: NDArray[np.floating],
    meetings: NDArray[np.int64],
    source: np.int64,
    target: np.int64,
) -> None:
    """Add y[target cell] += x[source cell] * w[tap] for all meetings; x, y [cells, run]."""
    (taps, C), run = w.shape, x.shape[1]
    times = max(1, min(run // C, TILE // C))
    tiles = np.empty((taps, times, C), w.dtype)
    for tap in range(taps):
        for t in range(times):
            for c in range(C):
                tiles[tap, t, c] = w[tap, c]
    ordered, starts = _sorted(meetings, target, len(y))
    L, numbers, weights = times * C, x.reshape(-1), tiles.reshape(-1)
    x_starts, w_starts = ordered[source] * run, ordered[TAP] * L
    for first in range(0, run, L):
        for cell in range(len(y)):
            of = slice(starts[cell], starts[cell + 1])
            _add_products(y[cell, first : first + L], numbers[first:], x_starts[of], weights, w_starts[of])


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
    (H, W, run), (KH, KW, C) = x.shape, w.shape
    y = np.zeros(((H - 1) // stride + 1, (W - 1) // stride + 1, run), x.dtype)
    meetings, taps = _meetings(H, W, KH, KW, stride), w.reshape((KH * KW, C))
    _weighted_sums(x.reshape((-1, run)), taps, y.reshape((-1, run)), meetings, CELL, OUT)
    return y


@kernel
def cells_grad_input(
    g: NDArray[np.floating], w: NDArray[np.floating], size: tuple[int, int], stride: int
) -> NDArray[np.floating]:
    """Return gx, the gradient of the loss in x.

        for oh, ow:  for kh, kw:  for n, c:
            gx[oh*s + kh - KH//2, ow*s + kw - KW//2, (n c)] += g[oh, ow, (n c)] * w[kh, kw, c]

    Args:
        g: gradient of the loss in y, float32 or float64 [OH, OW, N*C], C-contiguous.
        w: dtype of g, [KH, KW, C], C-contiguous.
        size: (H, W).
        stride: as in `cells_forward`.

    Returns:
        gx: dtype of g, [H, W, N*C].

    Source: derived here: y is linear in x, and w[kh, kw, c] the coefficient of the x it meets.
    """
    run, (KH, KW, C), (H, W) = g.shape[2], w.shape, size
    gx = np.zeros((H, W, run), g.dtype)
    meetings, taps = _meetings(H, W, KH, KW, stride), w.reshape((KH * KW, C))
    _weighted_sums(g.reshape((-1, run)), taps, gx.reshape((-1, run)), meetings, OUT, CELL)
    return gx


@kernel
def cells_grad_weight(
    g: NDArray[np.floating], x: NDArray[np.floating], w_shape: tuple[int, int, int], stride: int
) -> NDArray[np.floating]:
    """Return gw, the gradient of the loss in w.

        for oh, ow:  for kh, kw:  for n, c:
            gw[kh, kw, c] += g[oh, ow, (n c)] * x[oh*s + kh - KH//2, ow*s + kw - KW//2, (n c)]

    The sums are kept apart for each place in a tile until the end.

    Args:
        g: gradient of the loss in y, float32 or float64 [OH, OW, N*C], C-contiguous.
        x: dtype of g, [H, W, N*C], C-contiguous.
        w_shape: (KH, KW, C).
        stride: as in `cells_forward`.

    Returns:
        gw: dtype of g, shape w_shape.

    Source: derived here: y is linear in w, and the x it meets the coefficient of w[kh, kw, c].
    """
    (H, W, run), (KH, KW, C) = x.shape, w_shape
    times = max(1, min(run // C, TILE // C))
    ordered, starts = _sorted(_meetings(H, W, KH, KW, stride), TAP, KH * KW)
    L, g_numbers, x_numbers = times * C, g.reshape(-1), x.reshape(-1)
    g_starts, x_starts = ordered[OUT] * run, ordered[CELL] * run
    sums, gw = np.zeros((KH * KW, L), g.dtype), np.zeros((KH, KW, C), g.dtype)
    for first in range(0, run, L):
        for tap in range(KH * KW):
            of = slice(starts[tap], starts[tap + 1])
            total = sums[tap, : min(L, run - first)]
            _add_products(total, g_numbers[first:], g_starts[of], x_numbers[first:], x_starts[of])
    for tap in range(KH * KW):
        for t in range(times):
            for c in range(C):
                gw[tap // KW, tap % KW, c] += sums[tap, t * C + c]
    return gw
