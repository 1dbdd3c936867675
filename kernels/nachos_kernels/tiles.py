"""Tiles: rows of few channels taken together as one long row, and sums over them. See `batch_norm_loops.py`."""

import numpy as np
from numpy.typing import NDArray

from nachos_kernels._jit import kernel

ZERO = np.float32(0)  # exact in both dtypes
TILE = 512  # numbers; 256 to 1024 took the same time, 2048 up to half as much again
TERMS = 64  # of a short sum


@kernel
def tile(per_channel: NDArray[np.floating], times: int) -> NDArray[np.floating]:
    """Return tile[t, c] = per_channel[c], flat.

    Args:
        per_channel: float32 or float64 [C].
        times: >= 1.
    """
    C = per_channel.size
    repeated = np.empty(times * C, per_channel.dtype)
    for t in range(times):
        for c in range(C):
            repeated[t * C + c] = per_channel[c]
    return repeated


@kernel
def add_short_sums(short: NDArray[np.floating], total: NDArray[np.float64]) -> None:
    """Add total[c] += short[t, c] over t, and set `short` to zero.

    Args:
        short: float32 or float64 [T*C], changed.
        total: float64 [C], changed.
    """
    C = total.size
    for t in range(short.size // C):
        for c in range(C):
            total[c] += short[t * C + c]
            short[t * C + c] = ZERO
