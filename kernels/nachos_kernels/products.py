"""Products of a long, narrow matrix [R, C] with a small one, by BLAS: what convolutions become.

Read `_jit.py` before. In compiled code `np.dot` is the same BLAS as in Python, and a call costs less: 16 x 8 by
8 x 8 takes 0.09 us instead of 0.49 (`@`, which makes the result's array, too: 0.92).

OpenBLAS first copies the factors of a large product into panels, which pays if each is used often. Here one
factor is long and narrow, and a small product, which is computed in place, is faster for each part of it.
Measured in float32, thousand millions of multiplications a second, of 55 that a large square product reaches:
65,536 x 16 by 16 x 48 in one 37, in parts 49; the transposed product of the weights' gradient 23 and 56. A sum
over rows is also more accurate in parts. The larger the small matrix, the fewer rows a part has: 4096 x 128 by
128 x 240 in one 52, in parts of 32 rows 57, the transposed product 46 and 49; but by 128 x 256, which would leave
parts of 16 rows, the product in one 52, in parts 57, and the transposed product 45 and 41.
"""

import numpy as np
from numpy.typing import NDArray

from nachos_kernels._jit import kernel

SMALL = 1_000_000  # multiplications of a product that OpenBLAS still takes as small
LEAST = 32  # rows of a part; with fewer the transposed product is faster in one


@kernel
def rows_at_once(rows: int, C: int, K: int) -> int:
    """Return how many rows [rows, C] of a product with [C, K] are taken at a time, `rows` for all of them."""
    part = SMALL // max(1, C * K) // 16 * 16
    return part if LEAST <= part < rows else max(1, rows)


@kernel
def product(a: NDArray[np.floating], b: NDArray[np.floating], out: NDArray[np.floating]) -> None:
    """Write out[R, K] = a[R, C] @ b[C, K].

    Args:
        a, b, out: float32 or float64, one dtype, C-contiguous.
    """
    R, part = a.shape[0], rows_at_once(a.shape[0], b.shape[0], b.shape[1])
    for first in range(0, R, part):
        np.dot(a[first : first + part], b, out[first : first + part])


@kernel
def transposed_product(a: NDArray[np.floating], b: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return a^T @ b [C, K] of a[R, C] and b[R, K].

    Args:
        a, b: float32 or float64, one dtype, C-contiguous.
    """
    R, C, K = a.shape[0], a.shape[1], b.shape[1]
    total, part = np.zeros((C, K), a.dtype), rows_at_once(R, C, K)
    term = np.empty((C, K), a.dtype)
    for first in range(0, R, part):
        np.dot(a[first : first + part].T, b[first : first + part], term)
        total += term
    return total
