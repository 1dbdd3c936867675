"""A bias, and the ReLU behind it, in one pass over the rows [R, C] of a map; and back.

    y[r, c] = max(y[r, c] + b[c], 0), or without max        gu = g where y > 0, else 0        gb[c] = sum_r gu[r, c]

Read `tiles.py` and `batch_norm_loops.py` before: the loops go over tiles, and sums are made of short sums.
"""

import numpy as np
from numpy.typing import NDArray

from nachos_kernels._jit import kernel
from nachos_kernels.parts import each, parts_of
from nachos_kernels.tiles import TERMS, TILE, ZERO, add_short_sums, tile


@kernel
def _add(y: NDArray[np.floating], b: NDArray[np.floating], relu: bool) -> None:
    """Write y = y + b, or its ReLU, in place, for rows y[R, C]."""
    R, C = y.shape
    biases, numbers = tile(b, max(1, min(R, TILE // C))), y.reshape(-1)
    lowest = ZERO if relu else -np.float32(np.inf)
    for first in range(0, R * C, biases.size):
        y_tile = numbers[first : first + biases.size]
        for j in range(y_tile.size):
            u = y_tile[j] + biases[j]
            y_tile[j] = lowest if u < lowest else u  # written so that NaN stays


@kernel
def _gradients(
    g: NDArray[np.floating], y: NDArray[np.floating], gu: NDArray[np.floating], relu: bool
) -> NDArray[np.float64]:
    """Return gb of rows; with ReLU, write gu; without, gu is g and y is not looked at."""
    R, C = g.shape
    L, sums = max(1, min(R, TILE // C)) * C, np.zeros(C)
    short = np.zeros(L, g.dtype)
    g_numbers, y_numbers, gu_numbers = g.reshape(-1), y.reshape(-1), gu.reshape(-1)
    for count, first in enumerate(range(0, R * C, L), 1):
        g_tile = g_numbers[first : first + L]
        if relu:
            y_tile, gu_tile = y_numbers[first : first + L], gu_numbers[first : first + L]
            for j in range(g_tile.size):
                u = g_tile[j] * (ZERO if y_tile[j] <= ZERO else np.float32(1))
                gu_tile[j] = u
                short[j] += u
        else:
            for j in range(g_tile.size):
                short[j] += g_tile[j]
        if count % TERMS == 0:
            add_short_sums(short, sums)
    add_short_sums(short, sums)
    return sums


def bias_forward(y: NDArray[np.floating], b: NDArray[np.floating], relu: bool) -> None:
    """Write y = y + b, or max(y + b, 0), in place.

    Args:
        y: float32 or float64 [N, ..., C], C-contiguous, changed.
        b: dtype of y, [C].
        relu: whether ReLU follows.
    """
    rows = y.reshape(-1, y.shape[-1])
    each(lambda part: _add(rows[part], b, relu), parts_of(len(rows), rows.size))


def bias_grad(
    g: NDArray[np.floating], y: NDArray[np.floating], relu: bool
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Return (gu, gb): the gradients of the loss in what the bias was added to, and in the bias.

    Args:
        g: gradient of the loss in y, float32 or float64 [N, ..., C], C-contiguous.
        y: what `bias_forward` wrote, dtype and shape of g.
        relu: as in `bias_forward`.

    Returns:
        gu: g itself without ReLU.
        gb: dtype of g, [C].
    """
    rows, gu = (-1, g.shape[-1]), np.empty_like(g) if relu else g
    g_rows, y_rows, gu_rows = g.reshape(rows), y.reshape(rows), gu.reshape(rows)
    parts = parts_of(len(g_rows), g.size)
    sums = each(lambda part: _gradients(g_rows[part], y_rows[part], gu_rows[part], relu), parts)
    return gu, np.sum(sums, axis=0).astype(g.dtype)
