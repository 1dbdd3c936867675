"""Element-wise arithmetic with broadcasting.

Read `tape.py` first. Each operator computes its value, and beside it stands the vjp of each input. The
derivative rules are the ones of school; the only new thought is `unbroadcast`: where an input was repeated to
fit the other, its gradient is the sum over the repetitions.
"""

from numbers import Real

import numpy as np

from nachos_min.autograd.arguments import check_tensors, operands
from nachos_min.autograd.registry import operator
from nachos_min.autograd.tape import record
from nachos_min.autograd.tensor import Array, Operand, Tensor


def unbroadcast(gradient: Array, shape: tuple[int, ...]) -> Array:
    """Return `gradient` summed over the axes along which an array of `shape` was repeated to get its shape.

    >>> unbroadcast(np.ones((2, 3)), (3,))
    array([2., 2., 2.])
    """
    if gradient.shape == shape:
        return gradient
    new = gradient.ndim - len(shape)
    repeated = (new + axis for axis, length in enumerate(shape) if length == 1)
    return np.asarray(gradient.sum(axis=(*range(new), *repeated), keepdims=True).reshape(shape))


@operator
def add(a: Operand, b: Operand) -> Tensor:
    """Return a + b.

    Args:
        a, b: Tensors of one dtype, any shapes that broadcast; one of both may be a number or an array, which
            becomes a constant of the other's dtype.

    Returns:
        The sum: broadcast shape, the Tensors' dtype.

    Raises:
        TypeError: if neither is a Tensor, one is neither number nor array, or dtypes differ.
        ValueError: (from NumPy) if the shapes do not broadcast.

    Source: d(a + b) = da + db.
    """
    x, y = operands("add", a, b)
    return record(
        x.data + y.data,
        (x, lambda g: unbroadcast(g, x.shape)),
        (y, lambda g: unbroadcast(g, y.shape)),
    )


@operator
def subtract(a: Operand, b: Operand) -> Tensor:
    """Return a - b; arguments as in `add`. Source: d(a - b) = da - db."""
    x, y = operands("subtract", a, b)
    return record(
        x.data - y.data,
        (x, lambda g: unbroadcast(g, x.shape)),
        (y, lambda g: -unbroadcast(g, y.shape)),
    )


@operator
def multiply(a: Operand, b: Operand) -> Tensor:
    """Return a * b, element by element; arguments as in `add`. Source: d(ab) = b da + a db."""
    x, y = operands("multiply", a, b)
    return record(
        x.data * y.data,
        (x, lambda g: unbroadcast(g * y.data, x.shape)),
        (y, lambda g: unbroadcast(g * x.data, y.shape)),
    )


@operator
def divide(a: Operand, b: Operand) -> Tensor:
    """Return a / b; arguments as in `add`. Source: d(a/b) = da / b - (a/b) db / b."""
    x, y = operands("divide", a, b)
    value = x.data / y.data
    return record(
        value,
        (x, lambda g: unbroadcast(g / y.data, x.shape)),
        (y, lambda g: unbroadcast(-g * value / y.data, y.shape)),
    )


@operator
def negate(x: Tensor) -> Tensor:
    """Return -x, any shape. Source: d(-x) = -dx."""
    check_tensors("negate", x)
    return record(-x.data, (x, lambda g: -g))


@operator
def power(x: Tensor, exponent: float) -> Tensor:
    """Return x ** exponent.

    Args:
        x: any shape; where it is negative, the exponent must be an integer (else NaN, as in NumPy).
        exponent: a constant number.

    Raises:
        TypeError: if `exponent` is not a number.

    Source: d(x^p) = p x^(p-1) dx.
    """
    check_tensors("power", x)
    if not isinstance(exponent, Real):
        raise TypeError(f"power: exponent must be a number, got {type(exponent).__name__}")
    p = float(exponent)  # a NumPy float64 would pull float32 up
    if p == 0.0:  # p x^(p-1) would be 0 * inf at x = 0
        return record(np.ones_like(x.data), (x, lambda g: np.zeros_like(g)))
    return record(x.data**p, (x, lambda g: g * (p * x.data ** (p - 1.0))))


@operator
def exp(x: Tensor) -> Tensor:
    """Return e to the power x, any shape. Source: d(e^x) = e^x dx."""
    check_tensors("exp", x)
    value = np.exp(x.data)
    return record(value, (x, lambda g: g * value))


@operator
def log(x: Tensor) -> Tensor:
    """Return the natural logarithm of x > 0, any shape. Source: d(log x) = dx / x.

    Elsewhere the value is NumPy's, -inf or NaN, with its warning.
    """
    check_tensors("log", x)
    return record(np.log(x.data), (x, lambda g: g / x.data))


@operator
def clip(x: Tensor, low: float | None = None, high: float | None = None) -> Tensor:
    """Return x limited to [low, high].

    Args:
        x: any shape.
        low, high: the limits; None leaves a side open.

    Raises:
        ValueError: if low > high.

    Source: dx inside, limits included; 0 outside, where the value does not move.
    """
    check_tensors("clip", x)
    bottom, top = -np.inf if low is None else float(low), np.inf if high is None else float(high)
    if bottom > top:
        raise ValueError(f"clip: low must be <= high, got {low} and {high}")
    inside = (x.data >= bottom) & (x.data <= top)
    return record(np.clip(x.data, bottom, top), (x, lambda g: g * inside))
