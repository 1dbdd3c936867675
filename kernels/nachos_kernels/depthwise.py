"""Depthwise convolution: each channel is filtered by a kernel of its own.

    y[n, oh, ow, c] = sum over kh, kw of xp[n, oh*sh + kh*dh, ow*sw + kw*dw, c] * w[kh, kw, c]
        with xp the map x surrounded by zeros

Read `_jit.py` before. All three functions are the loop nest n, oh, kh, kw, (ow c), whose innermost loop takes a
whole row of y, all its columns and channels, as one array of numbers. Three preparations make that possible:

- Each image is copied into a frame of zeros, so that no tap falls outside (`_frame`).
- With stride sw, columns that lie sw apart are put side by side: column ow*sw + kw*dw of the framed row is then
  found ow*C numbers after where tap kw begins (`_starts`), whatever the stride.
- The weights of one tap are repeated to the length of the row, or of about 512 numbers of it (`_weight_tiles`).

A loop over the channels alone is too short to be fast, and it loads and stores y once for each tap; here nine
taps, or five, are one expression. Measured in float32 against that loop, 64 images: 32x32x48 with 3x3 5.1 ->
2.4 ms, with 5x5 12.5 -> 6.1; 8x8x24 with 3x3 0.22 -> 0.07; on maps of 2x2, mostly frame, it loses: 0.017 ->
0.020 (96 channels), its weights' gradient 0.018 -> 0.037. Tried and dropped: two rows of y in one loop,
which share the loads of weights; tiles of 256 numbers.

Dense and grouped convolutions are in `conv2d.py`.
"""

from functools import reduce

import numpy as np
from numpy.typing import NDArray

from nachos_kernels._jit import kernel
from nachos_kernels.parts import each, parts_of

TILE = 512  # numbers


@kernel
def _on_cache_lines(numbers: int, dtype: np.dtype[np.floating]) -> NDArray[np.floating]:
    """Return zeros that begin at a multiple of 64 bytes: a vector register is then read from one cache line."""
    room = np.zeros(numbers + 16, dtype)
    first = -(room.ctypes.data // room.itemsize) % (64 // room.itemsize)
    return room[first : first + numbers]


@kernel
def _frame(x: NDArray[np.floating], frame: NDArray[np.floating], C: int, top: int, left: int, inward: bool) -> None:
    """Copy one image x[h, w, c] to frame[r, s, q, c], r = h + top and q*sw + s = w + left; or back, if not inward.

    Both are given with (w c) and (q c) as one axis. What does not fit is left out: rows and columns that no window
    reaches, or, if top or left is negative, that are cut off. The rest of the frame stays as it is.
    """
    (H, W), (rows, sw, columns) = (
        (x.shape[0], x.shape[1] // C),
        (frame.shape[0], frame.shape[1], frame.shape[2] // C),
    )
    begin, end = max(0, -left), min(W, columns * sw - left)
    together = max(1, end - begin) if sw == 1 else 1  # columns that are neighbours in both
    for h in range(max(0, -top), min(H, rows - top)):
        for w in range(begin, end, together):
            q, s = (w + left) // sw, (w + left) % sw
            cells = x[h, w * C : (w + together) * C]
            framed = frame[h + top, s, q * C : (q + together) * C]
            if inward:
                for j in range(cells.size):
                    framed[j] = cells[j]
            else:
                for j in range(cells.size):
                    cells[j] = framed[j]


@kernel
def _starts(KW: int, sw: int, dw: int, columns: int, C: int) -> NDArray[np.int64]:
    """Return start[kw], where in a framed row [s, q, c], taken as numbers, tap kw of the first window stands."""
    start = np.empty(KW, np.int64)
    for kw in range(KW):
        q, s = divmod(kw * dw, sw)
        start[kw] = (s * columns + q) * C
    return start


@kernel
def _weight_tiles(w: NDArray[np.floating], OW: int) -> NDArray[np.floating]:
    """Return tiles[kh, kw, t, c] = w[kh, kw, c], (t c) flat: as many columns as make about TILE numbers."""
    KH, KW, C = w.shape
    times = max(1, min(OW, TILE // C))
    tiles = _on_cache_lines(KH * KW * times * C, w.dtype).reshape((KH, KW, times * C))
    for kh in range(KH):
        for kw in range(KW):
            for t in range(times):
                for c in range(C):
                    tiles[kh, kw, t * C + c] = w[kh, kw, c]
    return tiles


@kernel
def _nine_taps(
    y: NDArray[np.floating],
    above: NDArray[np.floating],
    middle: NDArray[np.floating],
    below: NDArray[np.floating],
    start: NDArray[np.int64],
    w: NDArray[np.floating],
) -> None:
    """Write y[j] = sum over kh, kw of row_kh[start[kw] + j] * w[kh, kw, j], a 3x3 kernel."""
    a, b, c = above[start[0] :], above[start[1] :], above[start[2] :]
    d, e, f = middle[start[0] :], middle[start[1] :], middle[start[2] :]
    g, h, i = below[start[0] :], below[start[1] :], below[start[2] :]
    wa, wb, wc, wd, we, wf = w[0, 0], w[0, 1], w[0, 2], w[1, 0], w[1, 1], w[1, 2]
    wg, wh, wi = w[2, 0], w[2, 1], w[2, 2]
    for j in range(y.size):
        y[j] = (
            (a[j] * wa[j] + b[j] * wb[j] + c[j] * wc[j])
            + (d[j] * wd[j] + e[j] * we[j] + f[j] * wf[j])
            + (g[j] * wg[j] + h[j] * wh[j] + i[j] * wi[j])
        )


@kernel
def _add_five_taps(
    y: NDArray[np.floating], row: NDArray[np.floating], start: NDArray[np.int64], w: NDArray[np.floating]
) -> None:
    """Add y[j] += sum over kw < 5 of row[start[kw] + j] * w[kw, j]."""
    a, b, c, d, e = row[start[0] :], row[start[1] :], row[start[2] :], row[start[3] :], row[start[4] :]
    wa, wb, wc, wd, we = w[0], w[1], w[2], w[3], w[4]
    for j in range(y.size):
        y[j] += a[j] * wa[j] + b[j] * wb[j] + c[j] * wc[j] + d[j] * wd[j] + e[j] * we[j]


@kernel
def _add_product(y: NDArray[np.floating], a: NDArray[np.floating], b: NDArray[np.floating]) -> None:
    """Add y[j] += a[j] * b[j]."""
    for j in range(y.size):
        y[j] += a[j] * b[j]


@kernel
def _filter(
    x: NDArray[np.floating],
    w: NDArray[np.floating],
    y: NDArray[np.floating],
    corner: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
) -> None:
    """Write y[n, oh, ow, c] of the module's equation; corner is (top, left), which may be negative: cut off."""
    (N, _, _, C), (KH, KW, _), (_, OH, OW, _), (top, left) = x.shape, w.shape, y.shape, corner
    (sh, sw), (dh, dw) = stride, dilation
    columns, height = OW + (KW - 1) * dw // sw, (OH - 1) * sh + (KH - 1) * dh + 1
    frame = _on_cache_lines(height * sw * columns * C, x.dtype).reshape((height, sw, columns * C))
    rows, start, tiles = frame.reshape((height, -1)), _starts(KW, sw, dw, columns, C), _weight_tiles(w, OW)
    y_rows, images = y.reshape((N, OH, -1)), x.reshape((N, x.shape[1], -1))
    for n in range(N):
        _frame(images[n], frame, C, top, left, True)
        for first in range(0, OW * C, tiles.shape[2]):
            for oh in range(OH):
                y_tile = y_rows[n, oh, first : first + tiles.shape[2]]
                if KH == 3 and KW == 3:
                    above, middle, below = rows[oh * sh], rows[oh * sh + dh], rows[oh * sh + 2 * dh]
                    _nine_taps(y_tile, above[first:], middle[first:], below[first:], start, tiles)
                    continue
                y_tile[:] = 0
                for kh in range(KH):
                    row, kw = rows[oh * sh + kh * dh, first:], 0
                    while kw < KW:
                        if kw + 5 <= KW:
                            _add_five_taps(y_tile, row, start[kw:], tiles[kh, kw:])
                            kw += 5
                        else:
                            _add_product(y_tile, row[start[kw] :], tiles[kh, kw])
                            kw += 1


def depthwise_forward(
    x: NDArray[np.floating],
    w: NDArray[np.floating],
    stride: tuple[int, int],
    padding: tuple[int, int, int, int],
    dilation: tuple[int, int],
) -> NDArray[np.floating]:
    """Return y, the map in which every channel is filtered by its own kernel.

        for n, oh:  for kh, kw:  for ow, c:
            y[n, oh, ow, c] += xp[n, oh*sh + kh*dh, ow*sw + kw*dw, c] * w[kh, kw, c]

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
    y = np.empty((N, OH, OW, C), x.dtype)
    each(lambda part: _filter(x[part], w, y[part], (top, left), stride, dilation), parts_of(N, y.size))
    return y


@kernel
def _scatter(
    g: NDArray[np.floating],
    w: NDArray[np.floating],
    gx: NDArray[np.floating],
    corner: tuple[int, int],
    stride: tuple[int, int],
    dilation: tuple[int, int],
) -> None:
    """Write gx of `depthwise_grad_input`, with any stride: `_filter` transposed, tap by tap."""
    (N, H, _, C), (_, OH, OW, _), (KH, KW, _), (top, left) = gx.shape, g.shape, w.shape, corner
    (sh, sw), (dh, dw) = stride, dilation
    columns, height = OW + (KW - 1) * dw // sw, (OH - 1) * sh + (KH - 1) * dh + 1
    frame = _on_cache_lines(height * sw * columns * C, g.dtype).reshape((height, sw, columns * C))
    rows, start, tiles = frame.reshape((height, -1)), _starts(KW, sw, dw, columns, C), _weight_tiles(w, OW)
    images, g_rows = gx.reshape((N, H, -1)), g.reshape((N, OH, -1))
    for n in range(N):
        frame[:] = 0
        for first in range(0, OW * C, tiles.shape[2]):
            for oh in range(OH):
                g_tile = g_rows[n, oh, first : first + tiles.shape[2]]
                for kh in range(KH):
                    row = rows[oh * sh + kh * dh, first:]
                    for kw in range(KW):
                        target = row[start[kw] : start[kw] + g_tile.size]
                        _add_product(target, g_tile, tiles[kh, kw])
        images[n] = 0
        _frame(images[n], frame, C, top, left, False)


def depthwise_grad_input(
    g: NDArray[np.floating],
    w: NDArray[np.floating],
    x_shape: tuple[int, int, int, int],
    stride: tuple[int, int],
    padding: tuple[int, int, int, int],
    dilation: tuple[int, int],
) -> NDArray[np.floating]:
    """Return gx, the gradient of the loss in x.

        for n, oh:  for kh, kw:  for ow, c:
            gxp[n, oh*sh + kh*dh, ow*sw + kw*dw, c] += g[n, oh, ow, c] * w[kh, kw, c]

    With stride 1 that is g filtered by w upside down: gx[h] = sum over kh' of gp[h + kh'*dh] * w[KH-1-kh'], the
    frame of zeros around g being dh*(KH-1) - top wide.

    Args:
        g: gradient of the loss in y, float32 or float64 [N, OH, OW, C], C-contiguous.
        w: dtype of g, [KH, KW, C], C-contiguous.
        x_shape: (N, H, W, C).
        stride, padding, dilation: as in `depthwise_forward`.

    Returns:
        gx: dtype of g, shape x_shape.

    Source: derived here: y is linear in x, and w[kh, kw, c] is the coefficient of xp[n, oh*sh + kh*dh, ...].
    """
    (top, _, left, _), (dh, dw), (KH, KW, _) = padding, dilation, w.shape
    gx = np.empty(x_shape, g.dtype)
    parts = parts_of(len(gx), gx.size)
    if stride == (1, 1):
        upside_down = np.ascontiguousarray(w[::-1, ::-1])
        corner = dh * (KH - 1) - top, dw * (KW - 1) - left
        each(lambda part: _filter(g[part], upside_down, gx[part], corner, stride, dilation), parts)
    else:
        each(lambda part: _scatter(g[part], w, gx[part], (top, left), stride, dilation), parts)
    return gx


@kernel
def _add_four_products(
    y: NDArray[np.floating], g: NDArray[np.floating], g_step: int, x: NDArray[np.floating], x_step: int
) -> None:
    """Add y[j] += sum over i < 4 of g[i*g_step + j] * x[i*x_step + j]."""
    g0, g1, g2, g3 = g, g[g_step:], g[2 * g_step :], g[3 * g_step :]
    x0, x1, x2, x3 = x, x[x_step:], x[2 * x_step :], x[3 * x_step :]
    for j in range(y.size):
        y[j] += (g0[j] * x0[j] + g1[j] * x1[j]) + (g2[j] * x2[j] + g3[j] * x3[j])


def depthwise_grad_weight(
    g: NDArray[np.floating],
    x: NDArray[np.floating],
    w_shape: tuple[int, int, int],
    stride: tuple[int, int],
    padding: tuple[int, int, int, int],
    dilation: tuple[int, int],
) -> NDArray[np.floating]:
    """Return gw, the gradient of the loss in w.

        for n, oh:  for kh, kw:  for ow, c:
            gw[kh, kw, c] += g[n, oh, ow, c] * xp[n, oh*sh + kh*dh, ow*sw + kw*dw, c]

    The sums are kept apart for each place in a tile until the end, and take up four rows of y at a time.

    Args:
        g: gradient of the loss in y, float32 or float64 [N, OH, OW, C], C-contiguous.
        x: dtype of g, [N, H, W, C], C-contiguous.
        w_shape: (KH, KW, C).
        stride, padding, dilation: as in `depthwise_forward`.

    Returns:
        gw: dtype of g, shape w_shape.

    Source: derived here: y is linear in w, and xp[n, oh*sh + kh*dh, ...] is the coefficient of w[kh, kw, c].
    """
    parts = parts_of(len(g), g.size)
    sums = each(lambda part: _weight_sums(g[part], x[part], w_shape, stride, padding, dilation), parts)
    return reduce(np.add, sums)


@kernel
def _weight_sums(
    g: NDArray[np.floating],
    x: NDArray[np.floating],
    w_shape: tuple[int, int, int],
    stride: tuple[int, int],
    padding: tuple[int, int, int, int],
    dilation: tuple[int, int],
) -> NDArray[np.floating]:
    """Return gw of `depthwise_grad_weight` for a part of the images."""
    (N, _, _, C), (_, OH, OW, _), (KH, KW, _) = x.shape, g.shape, w_shape
    (sh, sw), (top, _, left, _), (dh, dw) = stride, padding, dilation
    columns, height = OW + (KW - 1) * dw // sw, (OH - 1) * sh + (KH - 1) * dh + 1
    frame = _on_cache_lines(height * sw * columns * C, x.dtype).reshape((height, sw, columns * C))
    start = _starts(KW, sw, dw, columns, C)
    gw = np.zeros((KH, KW, C), g.dtype)
    sums = _weight_tiles(gw, OW)
    g_row, x_row = OW * C, sw * columns * C  # numbers
    g_numbers, x_numbers, images = g.reshape(-1), frame.reshape(-1), x.reshape((N, x.shape[1], -1))
    for n in range(N):
        _frame(images[n], frame, C, top, left, True)
        for first in range(0, g_row, sums.shape[2]):
            oh = 0
            while oh < OH:
                together = 4 if oh + 4 <= OH else 1
                length = min(sums.shape[2], g_row - first)
                g_tile = g_numbers[(n * OH + oh) * g_row + first :]
                for kh in range(KH):
                    for kw in range(KW):
                        x_tile = x_numbers[(oh * sh + kh * dh) * x_row + start[kw] + first :]
                        total = sums[kh, kw, :length]
                        if together == 4:
                            _add_four_products(total, g_tile, g_row, x_tile, sh * x_row)
                        else:
                            _add_product(total, g_tile, x_tile)
                oh += together
    for kh in range(KH):
        for kw in range(KW):
            for j in range(sums.shape[2]):
                gw[kh, kw, j % C] += sums[kh, kw, j]
    return gw
