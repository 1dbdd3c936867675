"""3x3 convolution with 4 products in place of 9: Winograd's minimal filtering F(2x2, 3x3), forward and gradients.

Two neighbouring outputs of a filter of three taps read four numbers d and cost six products. Four are enough:

    y0 = d0 w0 + d1 w1 + d2 w2 = m0 + m1 + m2         m0 = (d0 - d2) w0      m1 = (d1 + d2) (w0 + w1 + w2) / 2
    y1 = d1 w0 + d2 w1 + d3 w2 = m1 - m2 - m3         m3 = (d1 - d3) w2      m2 = (d2 - d1) (w0 - w1 + w2) / 2

In matrices, with a product of numbers in the middle:

    y = A^T [(G w) * (B^T d)]      A^T = [1 1  1  0]     B^T = [1  0 -1  0]     G = [ 1    0    0 ]
                                         [0 1 -1 -1]           [0  1  1  0]         [1/2  1/2  1/2]
                                                               [0 -1  1  0]         [1/2 -1/2  1/2]
                                                               [0  1  0 -1]         [ 0    0    1 ]

The same along the rows and along the columns computes a tile of 2x2 outputs from 4x4 cells with 16 products
where the definition has 36. With C input and K output channels each of the 16 is a product of matrices:

    V[a, b] = B^T d B     cells of all tiles, [tiles, C]         U[a, b] = G w G^T      weights, [C, K]
    M[a, b] = V[a, b] @ U[a, b]           y = A^T M A     four outputs of each tile

y is linear in w and in the cells, so the gradients are the transposes: that of the weights is

    gw = G^T (V^T @ A g A^T) G,

that of the map is the convolution of g with the filter turned by half a turn and C and K exchanged.

B and A hold nothing but 0, 1 and -1: V, y and A g A^T are sums. They are made for a few images at a time, so that
the 16 matrices stay in the second-level cache, and in long loops: the cells are first laid out with even and odd
columns apart and the images innermost (`_lay_out`), where the cells that all tiles of one row of tiles have at one
place are one run of numbers.

Measured against windows and one product (`conv2d.py`), float32, 64 maps: 16x16x24 to 32 channels 2.71 -> 1.57 ms,
4x4x64 to 32 0.44 -> 0.26; the products reach what BLAS does. The error relative to the result's root mean square,
by windows and here: forward 2.1e-7 and 1.6e-7 for 16 channels, 3.8e-7 and 2.9e-7 for 64 (shorter sums make up
for the differences); for 64, the map's gradient 1.2e-7 and 2.2e-7, the weights' 1.2e-7 and 3.8e-7, at worst 3.3
times that of windows (1.6e-7 and 5.3e-7). An infinite cell makes its outputs NaN, as inf - inf; a NaN reaches the
outputs that read its cell and no others.

Read `conv2d.py` before. Left out: larger tiles, whose transforms multiply and lose digits.

Source: Winograd, Arithmetic complexity of computations, 1980; Lavin, Gray, Fast algorithms for convolutional neural
networks, 2016, section 4.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nachos_kernels._jit import kernel

BUFFER = 1 << 17  # numbers of the larger of V and M made at a time; half and twice as many took as long
# 16 matrices a power of two apart would compete for the same lines of the first-level cache: 3 to 5 % slower.
GAP = 80

# Row a of B^T takes cell TAKEN[a][0] plus TAKEN[a][2] times cell TAKEN[a][1].
TAKEN = ((0, 2, -1), (1, 2, 1), (2, 1, -1), (1, 3, -1))
A = ((1, 0), (1, 1), (1, -1), (0, -1))
G = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
G_BOTH_WAYS: dict[np.dtype[Any], NDArray[np.floating]] = {
    np.dtype(dtype): np.kron(G, G).astype(dtype) for dtype in (np.float32, np.float64)
}


@kernel
def _lay_out(x: NDArray[np.floating], cells: NDArray[np.floating], top: int, left: int) -> None:
    """Fill cells[h, p, j, n, c] = xp[n, h, 2j + p, c], xp being x behind `top` rows and `left` columns of zeros."""
    rows, _, columns, N, C = cells.shape
    _, H, W, _ = x.shape
    for h in range(rows):
        for p in range(2):
            for j in range(columns):
                row, column = h - top, 2 * j + p - left
                on_the_map = 0 <= row < H and 0 <= column < W
                for n in range(N):
                    run = cells[h, p, j, n]
                    if on_the_map:
                        cell = x[n, row, column]
                        for c in range(C):
                            run[c] = cell[c]
                    else:
                        for c in range(C):
                            run[c] = 0


@kernel
def _map_to_tiles(cells: NDArray[np.floating], v: NDArray[np.floating], step: int) -> None:
    """Fill V = B^T d B: v[a, b, (i run)] from cells[h, p, run + step], a step leading from column j to j + 1."""
    rows, _, length = cells.shape
    length -= step
    for i in range(rows // 2 - 1):
        to = slice(i * length, (i + 1) * length)
        for a in range(4):
            first, second, sign = TAKEN[a]
            s = v.dtype.type(sign)
            d0, e0 = cells[2 * i + first, 0], cells[2 * i + second, 0]  # columns 0 and, a step on, 2 of each tile
            d1, e1 = cells[2 * i + first, 1], cells[2 * i + second, 1]  # columns 1 and 3
            d2, e2, d3, e3 = d0[step:], e0[step:], d1[step:], e1[step:]
            v0, v1, v2, v3 = v[a, 0, to], v[a, 1, to], v[a, 2, to], v[a, 3, to]
            for k in range(length):
                v0[k] = (d0[k] + s * e0[k]) - (d2[k] + s * e2[k])
            for k in range(length):
                v1[k] = (d1[k] + s * e1[k]) + (d2[k] + s * e2[k])
            for k in range(length):
                v2[k] = (d2[k] + s * e2[k]) - (d1[k] + s * e1[k])
            for k in range(length):
                v3[k] = (d1[k] + s * e1[k]) - (d3[k] + s * e3[k])


@kernel
def _tiles_to_map(m: NDArray[np.floating], cells: NDArray[np.floating], y: NDArray[np.floating]) -> None:
    """Write y[n, h, w, k] = A^T M A, M being m[a, b, (i j n k)]; cells[p, q, j, n, k] is room for a row of tiles.

    Row p of A^T is 1 at p and, at p + 1 and p + 2, 1 in the first row, -1 in the second.
    """
    _, _, columns, N, K = cells.shape
    _, H, W, _ = y.shape
    length = columns * N * K
    for i in range((H + 1) // 2):
        of = slice(i * length, (i + 1) * length)
        for p in range(min(2, H - 2 * i)):
            s = m.dtype.type(1 - 2 * p)
            for q in range(2):
                t = m.dtype.type(1 - 2 * q)
                a0, a1, a2 = m[p, q, of], m[p, q + 1, of], m[p, q + 2, of]
                b0, b1, b2 = m[p + 1, q, of], m[p + 1, q + 1, of], m[p + 1, q + 2, of]
                c0, c1, c2 = m[p + 2, q, of], m[p + 2, q + 1, of], m[p + 2, q + 2, of]
                run = cells[p, q].reshape(-1)
                for k in range(length):
                    run[k] = (a0[k] + t * (a1[k] + a2[k])) + s * (
                        (b0[k] + t * (b1[k] + b2[k])) + (c0[k] + t * (c1[k] + c2[k]))
                    )
            for j in range(columns):
                for q in range(min(2, W - 2 * j)):
                    for n in range(N):
                        out, cell = y[n, 2 * i + p, 2 * j + q], cells[p, q, j, n]
                        for k in range(K):
                            out[k] = cell[k]


@kernel
def _gradient_to_tiles(cells: NDArray[np.floating], m: NDArray[np.floating]) -> None:
    """Fill m[a, b, (i run)] = A g A^T from cells[h, p, run], g as `_lay_out` writes it."""
    rows, _, length = cells.shape
    for i in range(rows // 2):
        to = slice(i * length, (i + 1) * length)
        g00, g01, g10, g11 = cells[2 * i, 0], cells[2 * i, 1], cells[2 * i + 1, 0], cells[2 * i + 1, 1]
        for a in range(4):
            for b in range(4):
                (a0, a1), (b0, b1) = A[a], A[b]
                s00, s01 = m.dtype.type(a0 * b0), m.dtype.type(a0 * b1)
                s10, s11 = m.dtype.type(a1 * b0), m.dtype.type(a1 * b1)
                out = m[a, b, to]
                for k in range(length):
                    out[k] = (s00 * g00[k] + s01 * g01[k]) + (s10 * g10[k] + s11 * g11[k])


@kernel
def _matrices(rows: int, channels: int, like: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return room for 16 matrices [rows, channels]: [4, 4, a little more than all numbers]."""
    return np.empty((4, 4, rows * channels + GAP), like.dtype)


@kernel
def _matrix(matrices: NDArray[np.floating], place: int, channels: int) -> NDArray[np.floating]:
    """Return matrix `place` of 16 as [rows, channels]."""
    numbers = matrices[place // 4, place % 4, : matrices.shape[2] - GAP]
    return numbers.reshape((-1, channels))


def winograd_pays(
    w_shape: tuple[int, int, int, int],
    out_shape: tuple[int, int, int],
    stride: tuple[int, int],
    padding: tuple[int, int, int, int],
    dilation: tuple[int, int],
    groups: int,
) -> bool:
    """Return True if the convolution can be computed here and is faster than by windows.

    Measured forward and backward, batch 32 and 64: 1.2 to 2.1 times as fast from four channels on (0.7 to 1.3 with
    three or fewer: the products are then too narrow), and on 3x3 maps still 1.0 to 1.2; on a map of one cell, where
    a tile computes four outputs for one, 0.6. With fewer than 32 tiles the transforms of the weights take longer
    than the products that they save.

    Args:
        w_shape: (KH, KW, C/G, K).
        out_shape: (N, OH, OW).
        stride, padding, dilation, groups: as in `conv2d.py`.
    """
    N, OH, OW = out_shape
    plain = w_shape[:2] == (3, 3) and stride == dilation == (1, 1) and groups == 1 and max(padding) <= 2
    tiles = N * ((OH + 1) // 2) * ((OW + 1) // 2)
    return plain and min(w_shape[2:]) >= 4 and min(OH, OW) >= 2 and tiles >= 32


def winograd_forward(
    x: NDArray[np.floating], w: NDArray[np.floating], padding: tuple[int, int, int, int], y: NDArray[np.floating]
) -> None:
    """Write y, the convolution of x with w at stride 1.

    Args:
        x: float32 or float64 [N, H, W, C], C-contiguous.
        w: dtype of x, [3, 3, C, K], C-contiguous.
        padding: (top, bottom, left, right) >= 0.
        y: dtype of x, [N, OH, OW, K] with OH = H + top + bottom - 2, OW alike; C-contiguous.

    Source: Lavin, Gray, 2016, algorithm 1.
    """
    _forward(x, w, G_BOTH_WAYS[x.dtype], padding, y)


@kernel
def _forward(
    x: NDArray[np.floating],
    w: NDArray[np.floating],
    both_ways: NDArray[np.floating],
    padding: tuple[int, int, int, int],
    y: NDArray[np.floating],
) -> None:
    """Write y of `winograd_forward`; `both_ways` is G along the rows and the columns, [16, 9]."""
    (N, _, _, C), (_, OH, OW, K), (top, _, left, _) = x.shape, y.shape, padding
    tall, wide = (OH + 1) // 2, (OW + 1) // 2
    u = np.dot(both_ways, w.reshape((9, C * K))).reshape((16, C, K))
    at_once = max(1, min(N, BUFFER // (16 * tall * wide * max(C, K))))
    for first in range(0, N, at_once):
        images = min(at_once, N - first)
        cells = np.empty((2 * tall + 2, 2, wide + 1, images, C), x.dtype)
        v, m = _matrices(tall * wide * images, C, x), _matrices(tall * wide * images, K, x)
        row = np.empty((2, 2, wide, images, K), x.dtype)
        _lay_out(x[first : first + images], cells, top, left)
        _map_to_tiles(cells.reshape((2 * tall + 2, 2, -1)), v, images * C)
        for place in range(16):
            np.dot(_matrix(v, place, C), u[place], _matrix(m, place, K))
        _tiles_to_map(m, row, y[first : first + images])


def winograd_grad_input(
    g: NDArray[np.floating], w: NDArray[np.floating], padding: tuple[int, int, int, int], gx: NDArray[np.floating]
) -> None:
    """Write gx, the gradient of the loss in x: g convolved with the filter turned by half a turn.

    Args:
        g: gradient of the loss in y, float32 or float64 [N, OH, OW, K], C-contiguous.
        w: dtype of g, [3, 3, C, K], C-contiguous.
        padding: of the forward pass, (top, bottom, left, right), each 0, 1 or 2.
        gx: dtype of g, [N, OH + 2 - top - bottom, OW + 2 - left - right, C], C-contiguous.

    Source: derived here: x[h] is read by y[h + top - kh] through w[kh].
    """
    top, bottom, left, right = padding
    turned = np.ascontiguousarray(w[::-1, ::-1].transpose(0, 1, 3, 2))
    winograd_forward(g, turned, (2 - top, 2 - bottom, 2 - left, 2 - right), gx)


def winograd_grad_weight(
    g: NDArray[np.floating], x: NDArray[np.floating], padding: tuple[int, int, int, int]
) -> NDArray[np.floating]:
    """Return gw, the gradient of the loss in w: G^T (V^T @ A g A^T) G.

    Args:
        g: gradient of the loss in y, float32 or float64 [N, OH, OW, K], C-contiguous.
        x: dtype of g, [N, H, W, C], C-contiguous.
        padding: as in `winograd_forward`.

    Returns:
        gw: dtype of g, [3, 3, C, K], C-contiguous.

    Source: derived here: the transpose of y = A^T [(G w G^T) * V] A in w.
    """
    gu = _weight_sums(g, x, padding)
    return (G_BOTH_WAYS[g.dtype].T @ gu).reshape(3, 3, x.shape[3], g.shape[3])


@kernel
def _weight_sums(
    g: NDArray[np.floating], x: NDArray[np.floating], padding: tuple[int, int, int, int]
) -> NDArray[np.floating]:
    """Return V^T @ A g A^T, [16, C*K]."""
    (N, OH, OW, K), C, (top, _, left, _) = g.shape, x.shape[3], padding
    tall, wide = (OH + 1) // 2, (OW + 1) // 2
    gu, term = np.zeros((16, C, K), g.dtype), np.empty((C, K), g.dtype)
    at_once = max(1, min(N, BUFFER // (16 * tall * wide * max(C, K))))
    for first in range(0, N, at_once):
        images = min(at_once, N - first)
        cells = np.empty((2 * tall + 2, 2, wide + 1, images, C), x.dtype)
        upstream = np.empty((2 * tall, 2, wide, images, K), g.dtype)
        v, m = _matrices(tall * wide * images, C, x), _matrices(tall * wide * images, K, g)
        _lay_out(x[first : first + images], cells, top, left)
        _map_to_tiles(cells.reshape((2 * tall + 2, 2, -1)), v, images * C)
        _lay_out(g[first : first + images], upstream, 0, 0)
        _gradient_to_tiles(upstream.reshape((2 * tall, 2, -1)), m)
        for place in range(16):
            np.dot(_matrix(v, place, C).T, _matrix(m, place, K), term)
            for c in range(C):
                for k in range(K):
                    gu[place, c, k] += term[c, k]
    return gu.reshape((16, C * K))
