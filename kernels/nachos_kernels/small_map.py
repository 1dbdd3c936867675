"""3x3 convolution of maps of at most 2x2 cells: every output reads every cell, so it is one matrix product.

On such a map, with one cell of padding, five of the nine taps of each window (eight on a map of one cell) lie
beside the map. Written for whole maps instead of windows,

    y[n, (a b k)] = sum over i, j, c of x[n, (i j c)] * m[(i j c), (a b k)]        m = w[1 + i - a, 1 + j - b, c, k]

costs 16 products for each pair of channels, where windows cost 36, and Winograd's tiles 16 and their sums. m holds
one tap for each pair of cells; it is made by strides alone, as a view that is copied once. With m, the gradients
are those of a matrix product: gx = g @ m^T, and gw collects the blocks of x^T @ g that belong to one tap.

Measured in float32 against `winograd.py`, forward: 64 maps of 32 to 32 channels 44 -> 34 us, 32 maps of 16 to 32
19 -> 14, of 64 to 128 193 -> 126. The weights' gradient on 2x2 cells is slower this way (51 -> 58, 21 -> 36):
`conv2d.py` takes it from here for maps of one cell only.

Read `conv2d.py` before. Source: derived here.
"""

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray


def is_small_map(
    x_shape: tuple[int, int, int, int],
    w_shape: tuple[int, int, int, int],
    stride: tuple[int, int],
    padding: tuple[int, int, int, int],
    dilation: tuple[int, int],
    groups: int,
) -> bool:
    """Return True if the convolution is 3x3, of a map of at most 2x2 cells to one of the same size.

    Args:
        x_shape: (N, H, W, C).
        w_shape: (KH, KW, C/G, K).
        stride, padding, dilation, groups: as in `conv2d.py`.
    """
    plain = w_shape[:2] == (3, 3) and stride == dilation == (1, 1) and padding == (1, 1, 1, 1) and groups == 1
    return plain and max(x_shape[1:3]) <= 2


def _matrix(w: NDArray[np.floating], H: int, W: int) -> NDArray[np.floating]:
    """Return m[(i j c), (a b k)] = w[1 + i - a, 1 + j - b, c, k]."""
    (_, _, C, K), (down, right, channel, number) = w.shape, w.strides
    m = as_strided(w[1:, 1:], (H, W, C, H, W, K), (down, right, channel, -down, -right, number), writeable=False)
    return m.reshape(H * W * C, H * W * K)


def small_map_forward(x: NDArray[np.floating], w: NDArray[np.floating], y: NDArray[np.floating]) -> None:
    """Write y, the convolution of x with w at stride 1 and padding 1.

    Args:
        x: float32 or float64 [N, H, W, C] with H, W <= 2, C-contiguous.
        w: dtype of x, [3, 3, C, K].
        y: dtype of x, [N, H, W, K], C-contiguous.

    Source: see the module.
    """
    N, H, W, C = x.shape
    np.matmul(x.reshape(N, H * W * C), _matrix(w, H, W), out=y.reshape(N, H * W * w.shape[3]))


def small_map_grad_input(g: NDArray[np.floating], w: NDArray[np.floating], gx: NDArray[np.floating]) -> None:
    """Write gx = g @ m^T, the gradient of the loss in x.

    Args:
        g: gradient of the loss in y, float32 or float64 [N, H, W, K] with H, W <= 2, C-contiguous.
        w: dtype of g, [3, 3, C, K].
        gx: dtype of g, [N, H, W, C], C-contiguous.

    Source: see the module.
    """
    N, H, W, K = g.shape
    np.matmul(g.reshape(N, H * W * K), _matrix(w, H, W).T, out=gx.reshape(N, H * W * w.shape[2]))


def small_map_grad_weight(g: NDArray[np.floating], x: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return gw, the gradient of the loss in w.

    Args:
        g: gradient of the loss in y, float32 or float64 [N, H, W, K] with H, W <= 2, C-contiguous.
        x: dtype of g, [N, H, W, C], C-contiguous.

    Returns:
        gw: dtype of g, [3, 3, C, K], C-contiguous.

    Source: see the module.
    """
    (N, H, W, C), K = x.shape, g.shape[3]
    gm = (x.reshape(N, H * W * C).T @ g.reshape(N, H * W * K)).reshape(H, W, C, H, W, K)
    gw = np.zeros((3, 3, C, K), g.dtype)
    for i, j, a, b in np.ndindex(H, W, H, W):
        gw[1 + i - a, 1 + j - b] += gm[i, j, :, a, b]
    return gw
