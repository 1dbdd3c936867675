"""The inverted residual block in training, forward and backward, each as one compiled function.

    z1 = x @ w1                  y1 = f(batch_norm(z1))          1x1, expand; may be missing: y1 = x
    z2 = depthwise(y1, w2)       y2 = f(batch_norm(z2))          k x k
    z3 = y2 @ w3                 y  = batch_norm(z3) [+ x]       1x1, project

f(u) = u gate(u), see `GATES` in `activation.py`. This is for small maps, where calls from Python take longer than
the arithmetic.

Inside, maps are stored cell by cell, [H, W, N, C]; only the narrow ends x and y are [N, H, W, C]. Products and
batch norm see rows [., C] in any order. The depthwise convolution sees the numbers (n c) of a cell as one run,
which is long however small the map is. Every tap is a loop over runs, and taps outside of the map are left out; a
frame of zeros, as in `depthwise.py`, would be most of the work.

Source: Sandler et al., MobileNetV2, 2018, section 3.3. The gradients are those of the parts, from the last to the
first.
"""

import numpy as np

from nachos_kernels._jit import Floats, Ints, Pair, kernel
from nachos_kernels.activation import GATES, IDENTITY
from nachos_kernels.batch_norm import normalised, through_norm
from nachos_kernels.conv2d import product, transposed_product

Normed = tuple[Floats, Floats, Floats]  # weight of a convolution; scale and shift of the batch norm after it
ALWAYS_OPEN = GATES[IDENTITY]  # the projection has no activation
TILE = 512  # numbers of a run that are taken at a time
# Rows of the list of meetings. Not Python integers: Numba would compile a function again for each value.
OUT, CELL, TAP = np.int64(0), np.int64(1), np.int64(2)


# Depthwise convolution of maps [H, W, (N C)]. `_meetings` lists which output cell meets which input cell at which
# tap. All three functions walk that list, sorted by what they add to:
#
#     y[out] += x[cell] * w[tap]        gx[cell] += g[out] * w[tap]        gw[tap] += g[out] * x[cell]


@kernel
def _meetings(H: int, W: int, KH: int, KW: int, stride: int) -> Ints:
    """Return output cell oh*OW + ow, input cell h*W + w and tap kh*KW + kw of every product, as three rows."""
    OH, OW = (H - 1) // stride + 1, (W - 1) // stride + 1
    found, count = np.empty((3, OH * OW * KH * KW), np.int64), 0
    for oh in range(OH):
        for ow in range(OW):
            for kh in range(KH):
                for kw in range(KW):
                    h, w = oh * stride + kh - KH // 2, ow * stride + kw - KW // 2
                    if 0 <= h < H and 0 <= w < W:
                        found[OUT, count], found[CELL, count], found[TAP, count] = (
                            oh * OW + ow,
                            h * W + w,
                            kh * KW + kw,
                        )
                        count += 1
    return found[:, :count].copy()


@kernel
def _sorted(meetings: Ints, by: np.int64, targets: int) -> tuple[Ints, Ints]:
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
def _add_products(y: Floats, a: Floats, a_starts: Ints, b: Floats, b_starts: Ints) -> None:
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
def _weighted_sums(x: Floats, w: Floats, y: Floats, meetings: Ints, source: np.int64, target: np.int64) -> None:
    """Add y[target cell] += x[source cell] * w[tap] for all meetings; x, y [cells, (N C)], w [taps, C]."""
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
def _cells_forward(x: Floats, w: Floats, stride: int) -> Floats:
    """Return y [OH, OW, (N C)] of x [H, W, (N C)], each channel filtered by w [KH, KW, C] with odd sides.

    y[oh, ow, (n c)] = sum over kh, kw of x[oh*s + kh - KH//2, ow*s + kw - KW//2, (n c)] * w[kh, kw, c]
    """
    (H, W, run), (KH, KW, C) = x.shape, w.shape
    y = np.zeros(((H - 1) // stride + 1, (W - 1) // stride + 1, run), x.dtype)
    meetings, taps = _meetings(H, W, KH, KW, stride), w.reshape((KH * KW, C))
    _weighted_sums(x.reshape((-1, run)), taps, y.reshape((-1, run)), meetings, CELL, OUT)
    return y


@kernel
def _cells_grad_input(g: Floats, w: Floats, size: Pair, stride: int) -> Floats:
    """Return gx [H, W, (N C)] of g [OH, OW, (N C)], size being (H, W)."""
    run, (KH, KW, C), (H, W) = g.shape[2], w.shape, size
    gx = np.zeros((H, W, run), g.dtype)
    meetings, taps = _meetings(H, W, KH, KW, stride), w.reshape((KH * KW, C))
    _weighted_sums(g.reshape((-1, run)), taps, gx.reshape((-1, run)), meetings, OUT, CELL)
    return gx


@kernel
def _cells_grad_weight(g: Floats, x: Floats, w_shape: tuple[int, int, int], stride: int) -> Floats:
    """Return gw [KH, KW, C]; each place in a tile has a sum of its own until the end."""
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


@kernel
def _swapped(x: Floats) -> Floats:
    """Return y[b, a, c] = x[a, b, c]: cells of images, or images of cells."""
    A, B, C = x.shape
    y = np.empty((B, A, C), x.dtype)
    for a in range(A):
        for b in range(B):
            for c in range(C):
                y[b, a, c] = x[a, b, c]
    return y


@kernel
def _pointwise(x: Floats, w: Floats) -> Floats:
    """Return x[R, C] @ w[C, K]."""
    z = np.empty((x.shape[0], w.shape[1]), x.dtype)
    product(x, w, z)
    return z


@kernel
def inverted_residual_forward(
    x: Floats,
    expand: Normed,
    depthwise: Normed,
    project: Normed,
    eps: float,
    gate: Floats,
    stride: int,
    residual: bool,
) -> tuple[Floats, tuple[Floats, ...]]:
    """Return y [N, OH, OW, K], and `kept`: what the gradient needs.

    Args:
        x: float32 or float64 [N, H, W, C], C-contiguous, as all arrays here, and of one dtype.
        expand: weight [C, M], gamma [M], beta [M], or of size 0 if there is no expansion; then M is C.
        depthwise: weight [KH, KW, M], gamma [M], beta [M]; sides odd, zeros around the map are half of them.
        project: weight [M, K], gamma [K], beta [K].
        eps: > 0, added to the variances.
        gate: of the activation, see `gate_of`.
        stride: of the depthwise convolution, >= 1.
        residual: whether x is added; then K is C and stride 1.

    Returns:
        kept: x and the maps between as rows, x, z1, y1, z2, y2, z3 (z1 and y1 are x without expansion), and
            [mean, gamma / std, beta, 1 / std, var] of each batch norm.
    """
    (w1, gamma1, beta1), (w2, gamma2, beta2), (w3, gamma3, beta3) = expand, depthwise, project
    (N, H, W, C), M = x.shape, w2.shape[2]
    always_open = np.array(ALWAYS_OPEN).astype(x.dtype)
    rows = _swapped(x.reshape((N, H * W, C))).reshape((-1, C))
    z1, y1, affine1 = rows, rows, np.empty((5, 0), x.dtype)
    if w1.size:
        z1 = _pointwise(rows, w1)
        y1, affine1 = normalised(z1, gamma1, beta1, eps, gate)
    filtered = _cells_forward(y1.reshape((H, W, N * M)), w2, stride)
    z2 = filtered.reshape((-1, M))
    y2, affine2 = normalised(z2, gamma2, beta2, eps, gate)
    z3 = _pointwise(y2, w3)
    y3, affine3 = normalised(z3, gamma3, beta3, eps, always_open)
    if residual:
        y3 += rows
    y = _swapped(y3.reshape((-1, N, w3.shape[1])))
    y = y.reshape((N, filtered.shape[0], filtered.shape[1], w3.shape[1]))
    return y, (rows, z1, y1, z2, y2, z3, affine1, affine2, affine3)


@kernel
def inverted_residual_grad(
    g: Floats,
    x_shape: tuple[int, int, int, int],
    expand: Normed,
    depthwise: Normed,
    project: Normed,
    gate: Floats,
    stride: int,
    residual: bool,
    kept: tuple[Floats, ...],
) -> tuple[Floats, ...]:
    """Return the gradients in x, w1, gamma1, beta1, w2, gamma2, beta2, w3, gamma3, beta3.

    Args:
        g: gradient of the loss in y, dtype and shape of y.
        x_shape: (N, H, W, C).
        expand, depthwise, project, gate, stride, residual: what `inverted_residual_forward` was given.
        kept: what it returned.
    """
    (w1, gamma1, _), (w2, gamma2, _), (w3, gamma3, _) = expand, depthwise, project
    rows, z1, y1, z2, y2, z3, affine1, affine2, affine3 = kept
    (N, H, W, C), (_, OH, OW, K), M = x_shape, g.shape, w2.shape[2]
    always_open = np.array(ALWAYS_OPEN).astype(g.dtype)
    g_rows = _swapped(g.reshape((N, OH * OW, K))).reshape((-1, K))
    gz3, ggamma3, gbeta3 = through_norm(g_rows, z3, gamma3, affine3, always_open, 1.0 / len(z3))
    gw3 = transposed_product(y2, gz3)
    gy2 = _pointwise(gz3, np.ascontiguousarray(w3.T))
    gz2, ggamma2, gbeta2 = through_norm(gy2, z2, gamma2, affine2, gate, 1.0 / len(z2))
    g_cells = gz2.reshape((OH, OW, N * M))
    gw2 = _cells_grad_weight(g_cells, y1.reshape((H, W, N * M)), w2.shape, stride)
    gx = _cells_grad_input(g_cells, w2, (H, W), stride).reshape((-1, M))
    gw1, ggamma1, gbeta1 = np.empty_like(w1), np.empty_like(gamma1), np.empty_like(gamma1)
    if w1.size:
        gz1, ggamma1, gbeta1 = through_norm(gx, z1, gamma1, affine1, gate, 1.0 / len(z1))
        gw1 = transposed_product(rows, gz1)
        gx = _pointwise(gz1, np.ascontiguousarray(w1.T))
    if residual:
        gx += g_rows
    gx = _swapped(gx.reshape((H * W, N, C))).reshape(x_shape)
    return gx, gw1, ggamma1, gbeta1, gw2, ggamma2, gbeta2, gw3, ggamma3, gbeta3
