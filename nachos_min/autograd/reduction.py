"""Sums and means over axes.

Read `arithmetic.py` first: a sum is the transpose of a repetition, so its vjp repeats, as `unbroadcast` sums.
"""

from typing import TypeAlias

import numpy as np

from nachos_min.autograd.arguments import check_tensors
from nachos_min.autograd.registry import operator
from nachos_min.autograd.tape import record
from nachos_min.autograd.tensor import Array, Tensor

Axis: TypeAlias = int | tuple[int, ...] | None


def _repeat(gradient: Array, shape: tuple[int, ...], axis: Axis, keepdims: bool) -> Array:
    """Return `gradient`, that of a sum over `axis`, repeated along it: a read-only view, no copy."""
    if axis is not None and not keepdims:
        gradient = np.expand_dims(gradient, axis)
    return np.broadcast_to(gradient, shape)


@operator
def sum(x: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Return the sum of x over `axis`.

    Args:
        x: any shape.
        axis: the axis or axes to sum over, negative ones from the end; None for all.
        keepdims: whether these axes stay, with length 1.

    Raises:
        numpy.exceptions.AxisError: (a ValueError) if x has no such axis.
    """
    check_tensors("sum", x)
    return record(
        x.data.sum(axis=axis, keepdims=keepdims),
        (x, lambda g: _repeat(g, x.shape, axis, keepdims)),
    )


@operator
def mean(x: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Return the mean of x over `axis`.

    Args:
        x, axis, keepdims: as in `sum`.

    Raises:
        ValueError: if x has no element, or no such axis (numpy.exceptions.AxisError).
    """
    check_tensors("mean", x)
    if x.size == 0:
        raise ValueError(f"mean: needs at least one element, got shape {x.shape}")
    total = x.data.sum(axis=axis, keepdims=keepdims)
    count = x.size // total.size
    return record(total / count, (x, lambda g: _repeat(g / count, x.shape, axis, keepdims)))
