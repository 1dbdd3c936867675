"""Depthwise convolution: each channel is filtered by a kernel of its own.

    y[n, oh, ow, c] = sum over kh, kw of xp[n, oh*sh + kh*dh, ow*sw + kw*dw, c] * w[kh, kw, c]
        with xp the map x surrounded by zeros

All three functions are the loop nest n, tile, oh, kh, kw, (ow c). A tile is a run of columns of a row of y, about
TILE numbers (ow c), which the innermost loop takes as one array. Three preparations make that possible:

- Each image is copied into a frame of zeros, so that every tap falls on it (`_copy_image`).
- With stride sw, columns that are sw apart are put side by side: column ow*sw + kw*dw of the framed row is then
  ow*C numbers after the place where tap kw begins, whatever the stride (`_frame_for`).
- The weights of one tap are repeated to the length of a tile (`_weight_tiles`).

Small maps in training, stored cell by cell, are filtered by `inverted_residual.py`.

Source: Howard et al., MobileNets, 2017, equation 3. The gradients are derived here: y is linear in x and in w.
"""

from functools import reduce

import numpy as np

from nachos_kernels._jit import Floats, Ints, Pair, Sides, each, kernel, parts_of

TILE = 512  # numbers


@kernel
def _on_cache_lines(numbers: int, dtype: np.dtype[np.floating]) -> Floats:
    """Return zeros that begin at a multiple of 64 bytes: a vector register is then read from one cache line."""
    room = np.zeros(numbers + 16, dtype)
    first = -(room.ctypes.data // room.itemsize) % (64 // room.itemsize)
    return room[first : first + numbers]


@kernel
def _frame_for(
    x: Floats, C: int, sizes: tuple[int, int, int, int], stride: Pair, dilation: Pair
) -> tuple[Floats, Ints]:
    """Return a frame [row, s, (q c)] of zeros and `start`, for `sizes` (OH, OW, KH, KW).

    Framed column q*sw + s is at (s, q). start[kw] is where tap kw of the first window begins in a row of numbers.
    """
    (OH, OW, KH, KW), (sh, sw), (dh, dw) = sizes, stride, dilation
    columns, height = OW + (KW - 1) * dw // sw, (OH - 1) * sh + (KH - 1) * dh + 1
    start = np.empty(KW, np.int64)
    for kw in range(KW):
        q, s = divmod(kw * dw, sw)
        start[kw] = (s * columns + q) * C
    return _on_cache_lines(height * sw * columns * C, x.dtype).reshape((height, sw, columns * C)), start


@kernel
def _copy_image(x: Floats, frame: Floats, C: int, top: int, left: int, inward: bool) -> None:
    """Copy one image x[h, (w c)] to frame[r, s, (q c)], r = h + top, q*sw + s = w + left; or back, if not inward.

    What does not fit is left out: rows and columns that no window sees, or, with negative top or left, that are cut
    off. The rest of the frame stays as it is.
    """
    (H, W), (rows, sw) = (x.shape[0], x.shape[1] // C), frame.shape[:2]
    begin, end = max(0, -left), min(W, frame.shape[2] // C * sw - left)
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
def _weight_tiles(w: Floats, OW: int) -> Floats:
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
def _nine_taps(y: Floats, above: Floats, middle: Floats, below: Floats, start: Ints, w: Floats) -> None:
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
def _add_five_taps(y: Floats, row: Floats, start: Ints, w: Floats) -> None:
    """Add y[j] += sum over kw < 5 of row[start[kw] + j] * w[kw, j]."""
    a, b, c, d, e = row[start[0] :], row[start[1] :], row[start[2] :], row[start[3] :], row[start[4] :]
    wa, wb, wc, wd, we = w[0], w[1], w[2], w[3], w[4]
    for j in range(y.size):
        y[j] += a[j] * wa[j] + b[j] * wb[j] + c[j] * wc[j] + d[j] * wd[j] + e[j] * we[j]


@kernel
def _add_product(y: Floats, a: Floats, b: Floats) -> None:
    """Add y[j] += a[j] * b[j]."""
    for j in range(y.size):
        y[j] += a[j] * b[j]


@kernel
def _add_four_products(y: Floats, g: Floats, g_step: int, x: Floats, x_step: int) -> None:
    """Add y[j] += sum over i < 4 of g[i*g_step + j] * x[i*x_step + j]."""
    g0, g1, g2, g3 = g, g[g_step:], g[2 * g_step :], g[3 * g_step :]
    x0, x1, x2, x3 = x, x[x_step:], x[2 * x_step :], x[3 * x_step :]
    for j in range(y.size):
        y[j] += (g0[j] * x0[j] + g1[j] * x1[j]) + (g2[j] * x2[j] + g3[j] * x3[j])


@kernel
def _filter(x: Floats, w: Floats, y: Floats, corner: Pair, stride: Pair, dilation: Pair) -> None:
    """Write y[n, oh, ow, c] of the module's equation; corner is (top, left), which may be negative: cut off."""
    (N, _, _, C), (KH, KW, _), (_, OH, OW, _), (top, left) = x.shape, w.shape, y.shape, corner
    frame, start = _frame_for(x, C, (OH, OW, KH, KW), stride, dilation)
    (sh, _), (dh, _), tiles = stride, dilation, _weight_tiles(w, OW)
    rows, y_rows, images = frame.reshape((len(frame), -1)), y.reshape((N, OH, -1)), x.reshape((N, x.shape[1], -1))
    for n in range(N):
        _copy_image(images[n], frame, C, top, left, True)
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


@kernel
def _scatter(g: Floats, w: Floats, gx: Floats, corner: Pair, stride: Pair, dilation: Pair) -> None:
    """Write gx of `depthwise_grad_input`, with any stride: `_filter` transposed, tap by tap."""
    (N, H, _, C), (_, OH, OW, _), (KH, KW, _), (top, left) = gx.shape, g.shape, w.shape, corner
    frame, start = _frame_for(g, C, (OH, OW, KH, KW), stride, dilation)
    (sh, _), (dh, _), tiles = stride, dilation, _weight_tiles(w, OW)
    rows, images, g_rows = frame.reshape((len(frame), -1)), gx.reshape((N, H, -1)), g.reshape((N, OH, -1))
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
        _copy_image(images[n], frame, C, top, left, False)


@kernel
def _weight_sums(
    g: Floats, x: Floats, w_shape: tuple[int, int, int], corner: Pair, stride: Pair, dilation: Pair
) -> Floats:
    """Return gw of `depthwise_grad_weight` for some images: four rows at a time, one sum a place of the tile."""
    (N, _, _, C), (_, OH, OW, _), (KH, KW, _), (top, left) = x.shape, g.shape, w_shape, corner
    frame, start = _frame_for(x, C, (OH, OW, KH, KW), stride, dilation)
    (sh, _), (dh, _), gw = stride, dilation, np.zeros((KH, KW, C), g.dtype)
    sums = _weight_tiles(gw, OW)
    g_row, x_row = OW * C, frame.shape[1] * frame.shape[2]  # numbers
    g_numbers, x_numbers, images = g.reshape(-1), frame.reshape(-1), x.reshape((N, x.shape[1], -1))
    for n in range(N):
        _copy_image(images[n], frame, C, top, left, True)
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


def depthwise_forward(x: Floats, w: Floats, stride: Pair, padding: Sides, dilation: Pair) -> Floats:
    """Return y, the map in which every channel is filtered by its own kernel.

    Args:
        x: float32 or float64 [N, H, W, C], C-contiguous.
        w: dtype of x, [KH, KW, C], C-contiguous.
        stride: (sh, sw) >= 1.
        padding: (top, bottom, left, right) >= 0.
        dilation: (dh, dw) >= 1.

    Returns:
        [N, OH, OW, C] with OH = (H + top + bottom - dh*(KH-1) - 1) // sh + 1, OW alike.
    """
    (N, H, W, C), (KH, KW, _), (top, bottom, left, right) = x.shape, w.shape, padding
    OH = (H + top + bottom - dilation[0] * (KH - 1) - 1) // stride[0] + 1
    OW = (W + left + right - dilation[1] * (KW - 1) - 1) // stride[1] + 1
    y = np.empty((N, OH, OW, C), x.dtype)
    each(lambda part: _filter(x[part], w, y[part], (top, left), stride, dilation), parts_of(N, y.size))
    return y


def depthwise_grad_input(
    g: Floats, w: Floats, x_shape: tuple[int, int, int, int], stride: Pair, padding: Sides, dilation: Pair
) -> Floats:
    """Return gx, the gradient of the loss in x.

        gxp[n, oh*sh + kh*dh, ow*sw + kw*dw, c] += g[n, oh, ow, c] * w[kh, kw, c]

    With stride 1 that is g filtered by w upside down: gx[h] = sum over kh' of gp[h + kh'*dh] * w[KH-1-kh'], the
    frame of zeros around g being dh*(KH-1) - top wide.

    Args:
        g: gradient of the loss in y, float32 or float64 [N, OH, OW, C], C-contiguous.
        w: dtype of g, [KH, KW, C], C-contiguous.
        x_shape: (N, H, W, C).
        stride, padding, dilation: as in `depthwise_forward`.
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


def depthwise_grad_weight(
    g: Floats, x: Floats, w_shape: tuple[int, int, int], stride: Pair, padding: Sides, dilation: Pair
) -> Floats:
    """Return gw, the gradient of the loss in w.

        gw[kh, kw, c] += g[n, oh, ow, c] * xp[n, oh*sh + kh*dh, ow*sw + kw*dw, c]

    Args:
        g: gradient of the loss in y, float32 or float64 [N, OH, OW, C], C-contiguous.
        x: dtype of g, [N, H, W, C], C-contiguous.
        w_shape: (KH, KW, C).
        stride, padding, dilation: as in `depthwise_forward`.
    """
    corner, parts = (padding[0], padding[2]), parts_of(len(g), g.size)
    return reduce(
        np.add, each(lambda part: _weight_sums(g[part], x[part], w_shape, corner, stride, dilation), parts)
    )
