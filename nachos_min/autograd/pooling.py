"""Pooling of NHWC maps: the largest cell of each window, its average, or the average of the whole map.

Read `tape.py` first; the loops are in `nachos_kernels/pool.py`.
"""

from collections.abc import Sequence

from nachos_kernels import pool as kernels
from nachos_min.autograd.arguments import (
    Pair,
    Sides,
    check_axes,
    check_tensors,
    check_window,
    for_kernel,
    pair,
    sides,
)
from nachos_min.autograd.registry import operator
from nachos_min.autograd.tape import record
from nachos_min.autograd.tensor import Tensor


@operator
def max_pool(
    x: Tensor,
    size: int | Sequence[int],
    *,
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
) -> Tensor:
    """Return the largest cell of each window; its gradient goes to the first cell that won.

    Args:
        x: maps (N, H, W, C).
        size: of the window >= 1, one integer or (height, width).
        stride: step between windows >= 1, one integer or (height, width); None: the size.
        padding: cells around the map that never win, 0 <= padding < size, one integer, (height, width) or
            (top, bottom, left, right).

    Returns:
        (N, OH, OW, C) with OH = (H + top + bottom - size) // stride + 1, and OW alike.

    Raises:
        ValueError: if a shape or number breaks a rule above, or the window does not fit the padded map.
        TypeError: if x is not a Tensor.
    """
    settings = _settings("max_pool", x, size, stride, padding)
    N, H, W, C = x.shape
    value, winners = kernels.max_pool_forward(for_kernel(x.data), *settings)
    return record(value, (x, lambda g: kernels.max_pool_grad_input(for_kernel(g), winners, (N, H, W, C))))


@operator
def avg_pool(
    x: Tensor,
    size: int | Sequence[int],
    *,
    stride: int | Sequence[int] | None = None,
    padding: int | Sequence[int] = 0,
) -> Tensor:
    """Return the average of each window.

    Args:
        x, size, stride, padding: as in `max_pool`; padded cells count as zeros.

    Returns:
        (N, OH, OW, C), sizes as in `max_pool`.

    Raises:
        ValueError, TypeError: as in `max_pool`.
    """
    settings = _settings("avg_pool", x, size, stride, padding)
    N, H, W, C = x.shape
    value = kernels.avg_pool_forward(for_kernel(x.data), *settings)
    return record(value, (x, lambda g: kernels.avg_pool_grad_input(for_kernel(g), (N, H, W, C), *settings)))


@operator
def global_avg_pool(x: Tensor) -> Tensor:
    """Return the average of each channel's whole map.

    Args:
        x: maps (N, H, W, C), H and W >= 1.

    Returns:
        (N, C).

    Raises:
        ValueError: if x has not four axes, or its map is empty. TypeError: if x is not a Tensor.
    """
    check_tensors("global_avg_pool", x)
    check_axes("global_avg_pool", "input", x, "N H W C")
    N, H, W, C = x.shape
    check_window("global_avg_pool", x.shape, (1, 1), (0, 0, 0, 0), (1, 1))
    value = kernels.global_avg_pool_forward(for_kernel(x.data))
    return record(value, (x, lambda g: kernels.global_avg_pool_grad_input(for_kernel(g), (N, H, W, C))))


def _settings(
    name: str,
    x: Tensor,
    size: int | Sequence[int],
    stride: int | Sequence[int] | None,
    padding: int | Sequence[int],
) -> tuple[Pair, Pair, Sides]:
    """Return (size, stride, padding) as the kernels want them, checked."""
    check_tensors(name, x)
    check_axes(name, "input", x, "N H W C")
    window, zeros = pair(name, "size", size), sides(name, padding)
    steps = window if stride is None else pair(name, "stride", stride)
    # A window of nothing but padding would have no largest cell.
    if max(zeros[:2]) >= window[0] or max(zeros[2:]) >= window[1]:
        raise ValueError(f"{name}: padding must be < size {size!r}, got {padding!r}")
    check_window(name, x.shape, window, zeros, (1, 1))
    return window, steps, zeros
