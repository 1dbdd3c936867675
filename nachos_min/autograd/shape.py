"""Operators that move elements and change none: reshape, transpose, concatenate, stack, getitem.

Read `tape.py` first. Their vjps move the gradient back the same way. An element that was taken twice receives
both gradients.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from nachos_min.autograd.arguments import check_tensors
from nachos_min.autograd.registry import operator
from nachos_min.autograd.tape import Vjp, record
from nachos_min.autograd.tensor import Array, Tensor


@operator
def reshape(x: Tensor, shape: int | tuple[int, ...]) -> Tensor:
    """Return the elements of x, in row-major order, in another shape.

    Args:
        x: any shape.
        shape: the new lengths; one may be -1, and is then computed from the others.

    Raises:
        ValueError: (from NumPy) if the number of elements differs.
    """
    check_tensors("reshape", x)
    return record(x.data.reshape(shape), (x, lambda g: g.reshape(x.shape)))


@operator
def transpose(x: Tensor, axes: tuple[int, ...] | None = None) -> Tensor:
    """Return x with its axes permuted.

    Args:
        x: any shape.
        axes: `axes[i]` is the axis of x that becomes axis i, negative ones from the end; None reverses all.

    Raises:
        ValueError: (from NumPy) if `axes` is not a permutation of x's axes.
    """
    check_tensors("transpose", x)
    value = x.data.transpose(axes)
    back = None if axes is None else np.argsort([axis % x.ndim for axis in axes]).tolist()
    return record(value, (x, lambda g: g.transpose(back)))


@operator
def concatenate(tensors: Sequence[Tensor], axis: int = 0) -> Tensor:
    """Return the tensors put one behind the other along an axis they have.

    Args:
        tensors: at least one, of one dtype, whose shapes differ at most along `axis`.
        axis: the axis along which they are put, a negative one from the end.

    Raises:
        ValueError: if there are none, or (from NumPy) if the other lengths differ.
        TypeError: if one is not a Tensor, or dtypes differ.
    """
    _check_sequence("concatenate", tensors)
    value = np.concatenate([tensor.data for tensor in tensors], axis)
    before = (slice(None),) * (axis % value.ndim)
    inputs: list[tuple[Tensor, Vjp]] = []
    start = 0
    for tensor in tensors:
        end = start + tensor.shape[axis]

        def vjp(g: Array, part: tuple[Any, ...] = (*before, slice(start, end))) -> Array:
            return np.asarray(g[part])

        inputs.append((tensor, vjp))
        start = end
    return record(value, *inputs)


@operator
def stack(tensors: Sequence[Tensor], axis: int = 0) -> Tensor:
    """Return the tensors put one behind the other along a new axis.

    Args:
        tensors: at least one, of one shape and dtype.
        axis: the place of the new axis in the result, a negative one from the end.

    Raises:
        ValueError: if there are none, or (from NumPy) if shapes differ.
        TypeError: if one is not a Tensor, or dtypes differ.
    """
    _check_sequence("stack", tensors)
    value = np.stack([tensor.data for tensor in tensors], axis)
    before = (slice(None),) * (axis % value.ndim)
    inputs: list[tuple[Tensor, Vjp]] = []
    for place, tensor in enumerate(tensors):

        def vjp(g: Array, part: tuple[Any, ...] = (*before, place)) -> Array:
            return np.asarray(g[part])

        inputs.append((tensor, vjp))
    return record(value, *inputs)


def _check_sequence(name: str, tensors: Sequence[Tensor]) -> None:
    if not tensors:
        raise ValueError(f"{name}: needs at least one tensor, got none")
    check_tensors(name, *tensors)


@operator
def getitem(x: Tensor, index: Any) -> Tensor:
    """Return x[index].

    Args:
        x: any shape.
        index: what NumPy takes: integers, slices, `...`, None, integer or Boolean arrays, a tuple of these.

    Raises:
        IndexError: (from NumPy) if an index is out of bounds.
    """
    check_tensors("getitem", x)

    def vjp(g: Array) -> Array:
        gradient = np.zeros_like(x.data)
        if _takes_once(index):
            gradient[index] = g
        else:
            np.add.at(gradient, index, g)  # unlike +=, adds once for every time an element was taken
        return gradient

    return record(x.data[index], (x, vjp))


def _takes_once(index: Any) -> bool:
    """Return True if the index consists of integers, slices, `...` and None: these take no element twice."""
    parts = index if isinstance(index, tuple) else (index,)
    return all(isinstance(part, int | np.integer | slice | None) or part is ... for part in parts)
