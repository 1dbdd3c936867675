"""Checks of what operators are given, made once, before any kernel runs: kernels trust their input.

Every message names the operator, the value and the rule.
"""

from collections.abc import Sequence
from numbers import Real
from operator import index
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nachos_min.autograd.tensor import Array, Operand, Tensor

Pair: TypeAlias = tuple[int, int]
Sides: TypeAlias = tuple[int, int, int, int]


def check_tensors(operator: str, *tensors: Tensor) -> None:
    """Check that all arguments are Tensors of one dtype.

    Raises:
        TypeError: if one is not a Tensor, or dtypes differ.
    """
    for tensor in tensors:
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{operator}: expected a Tensor, got {type(tensor).__name__}")
        if tensor.data.dtype != tensors[0].data.dtype:
            raise TypeError(f"{operator}: dtypes must be equal, got {tensors[0].dtype} and {tensor.dtype}")


def operands(operator: str, a: Operand, b: Operand) -> tuple[Tensor, Tensor]:
    """Return both operands as Tensors; a number or array becomes a constant of the other one's dtype.

    Raises:
        TypeError: if neither is a Tensor, if one is neither number nor array, or if dtypes differ.
    """
    if isinstance(a, Tensor):
        x, y = a, b if isinstance(b, Tensor) else _constant(operator, b, a)
    elif isinstance(b, Tensor):
        x, y = _constant(operator, a, b), b
    else:
        given = f"{type(a).__name__} and {type(b).__name__}"
        raise TypeError(f"{operator}: one operand must be a Tensor, got {given}")
    check_tensors(operator, x, y)
    return x, y


def _constant(operator: str, value: Any, like: Tensor) -> Tensor:
    if not isinstance(value, Real | np.number | np.ndarray):
        raise TypeError(f"{operator}: expected a Tensor, number or array, got {type(value).__name__}")
    return Tensor(np.asarray(value, like.dtype))


def check_axes(operator: str, name: str, tensor: Tensor, axes: str) -> None:
    """Check that `tensor` has as many axes as `axes` has names, as in "N H W C".

    Raises:
        ValueError: if it has another number of axes.
    """
    if tensor.data.ndim != axes.count(" ") + 1:
        raise ValueError(f"{operator}: {name} must be ({', '.join(axes.split())}), got shape {tensor.shape}")


def check_channels(operator: str, channels: int, **vectors: Tensor | Array) -> None:
    """Check that each of `vectors` holds one number per channel.

    Raises:
        ValueError: if a shape is not (channels,).
    """
    for name, vector in vectors.items():
        if vector.shape != (channels,):
            raise ValueError(f"{operator}: {name} must have shape ({channels},), got {vector.shape}")


def pair(operator: str, name: str, value: int | Sequence[int], minimum: int = 1) -> Pair:
    """Return (along the height, along the width) from one integer or two.

    Raises:
        ValueError: if it is neither one integer nor two, or if one is below `minimum`.
    """
    first, second = _integers(operator, name, value, (1, 2), minimum)
    return first, second


def sides(operator: str, value: int | Sequence[int]) -> Sides:
    """Return padding as (top, bottom, left, right), from one integer, (height, width), or all four.

    Raises:
        ValueError: if it is not 1, 2 or 4 integers, or if one is negative.
    """
    given = _integers(operator, "padding", value, (1, 2, 4), 0)
    if len(given) == 2:
        return given[0], given[0], given[1], given[1]
    return given[0], given[1], given[2], given[3]


def _integers(operator: str, name: str, value: Any, lengths: tuple[int, ...], minimum: int) -> tuple[int, ...]:
    """Return the integers of `value`, a single one twice; `lengths` are the numbers of them allowed."""
    if type(value) is int and value >= minimum:  # by far the most frequent, and once per layer and step
        return value, value
    try:
        given = tuple(index(part) for part in (value if isinstance(value, Sequence) else (value,)))
    except TypeError:
        given = ()
    if len(given) not in lengths:
        allowed = ", ".join(str(length) for length in lengths[:-1])
        raise ValueError(f"{operator}: {name} must be {allowed} or {lengths[-1]} integers, got {value!r}")
    if min(given) < minimum:
        raise ValueError(f"{operator}: {name} must be >= {minimum}, got {value!r}")
    return given * 2 if len(given) == 1 else given


def check_window(operator: str, shape: tuple[int, ...], window: Pair, padding: Sides, dilation: Pair) -> None:
    """Check that a window of `window` taps, `dilation` apart, fits the padded map of an (N, H, W, C) `shape`.

    Raises:
        ValueError: if it does not.
    """
    height, width = shape[1] + padding[0] + padding[1], shape[2] + padding[2] + padding[3]
    span_h, span_w = dilation[0] * (window[0] - 1) + 1, dilation[1] * (window[1] - 1) + 1
    if span_h > height or span_w > width:
        raise ValueError(
            f"{operator}: a window of {span_h}x{span_w} does not fit a map of {shape[1]}x{shape[2]} "
            f"padded to {height}x{width}"
        )


def for_kernel(array: NDArray[Any]) -> NDArray[Any]:
    """Return `array` itself if it is C-contiguous and writable, else a copy that is.

    Kernels are compiled for that layout; any other would be compiled a second time.
    """
    flags = array.flags
    return array if flags.c_contiguous and flags.writeable else array.copy()
