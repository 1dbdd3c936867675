"""Operators on arrays of any shape: arithmetic, sums, moves, matrix products, activations, class probabilities.

Each operator computes its value, and beside it stands the vjp of each input. `g` is the gradient of the loss in the
value. Operators raise TypeError if an argument is no Tensor or dtypes differ, and ValueError if shapes, axes or
numbers do not fit (IndexError for an index).
"""

from collections.abc import Sequence
from itertools import accumulate, pairwise
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nachos_kernels import activation as kernels
from nachos_min.autograd import operators
from nachos_min.autograd.operators import check_axes, check_shape, check_tensors, for_kernel, operator
from nachos_min.autograd.tape import Array, Axis, Operand, Tensor, Vjp, record

# Element-wise arithmetic. The shapes of two operands broadcast; one of them may be a constant number or array.


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
    """Return a + b. Source: d(a + b) = da + db."""
    x, y = operators.operands("add", a, b)
    return record(
        x.data + y.data,
        (x, lambda g: unbroadcast(g, x.shape)),
        (y, lambda g: unbroadcast(g, y.shape)),
    )


@operator
def subtract(a: Operand, b: Operand) -> Tensor:
    """Return a - b. Source: d(a - b) = da - db."""
    x, y = operators.operands("subtract", a, b)
    return record(
        x.data - y.data,
        (x, lambda g: unbroadcast(g, x.shape)),
        (y, lambda g: -unbroadcast(g, y.shape)),
    )


@operator
def multiply(a: Operand, b: Operand) -> Tensor:
    """Return a * b, element by element. Source: d(ab) = b da + a db."""
    x, y = operators.operands("multiply", a, b)
    return record(
        x.data * y.data,
        (x, lambda g: unbroadcast(g * y.data, x.shape)),
        (y, lambda g: unbroadcast(g * x.data, y.shape)),
    )


@operator
def divide(a: Operand, b: Operand) -> Tensor:
    """Return a / b. Source: d(a/b) = da / b - (a/b) db / b."""
    x, y = operators.operands("divide", a, b)
    value = x.data / y.data
    return record(
        value,
        (x, lambda g: unbroadcast(g / y.data, x.shape)),
        (y, lambda g: unbroadcast(-g * value / y.data, y.shape)),
    )


@operator
def negate(x: Tensor) -> Tensor:
    """Return -x. Source: d(-x) = -dx."""
    check_tensors("negate", x)
    return record(-x.data, (x, lambda g: -g))


@operator
def power(x: Tensor, exponent: float) -> Tensor:
    """Return x ** exponent, a constant number (else TypeError). Source: d(x^p) = p x^(p-1) dx."""
    check_tensors("power", x)
    if not isinstance(exponent, Real):
        raise TypeError(f"power: exponent must be a number, got {type(exponent).__name__}")
    p = float(exponent)  # a NumPy float64 would pull float32 up
    if p == 0.0:  # p x^(p-1) would be 0 * inf at x = 0
        return record(np.ones_like(x.data), (x, lambda g: np.zeros_like(g)))
    return record(x.data**p, (x, lambda g: g * (p * x.data ** (p - 1.0))))


@operator
def exp(x: Tensor) -> Tensor:
    """Return e to the power x. Source: d(e^x) = e^x dx."""
    check_tensors("exp", x)
    value = np.exp(x.data)
    return record(value, (x, lambda g: g * value))


@operator
def log(x: Tensor) -> Tensor:
    """Return the natural logarithm of x > 0; elsewhere NumPy's -inf or NaN. Source: d(log x) = dx / x."""
    check_tensors("log", x)
    return record(np.log(x.data), (x, lambda g: g / x.data))


@operator
def clip(x: Tensor, low: float | None = None, high: float | None = None) -> Tensor:
    """Return x limited to [low, high], None leaving a side open. Source: dx inside, limits included; else 0."""
    check_tensors("clip", x)
    bottom, top = -np.inf if low is None else float(low), np.inf if high is None else float(high)
    if bottom > top:
        raise ValueError(f"clip: low must be <= high, got {low} and {high}")
    inside = (x.data >= bottom) & (x.data <= top)
    return record(np.clip(x.data, bottom, top), (x, lambda g: g * inside))


# Sums over axes. A sum is the transpose of a repetition: its vjp repeats, as `unbroadcast` sums.


def _repeat(gradient: Array, shape: tuple[int, ...], axis: Axis, keepdims: bool) -> Array:
    """Return `gradient`, that of a sum over `axis`, repeated along it: a read-only view, no copy."""
    if axis is not None and not keepdims:
        gradient = np.expand_dims(gradient, axis)
    return np.broadcast_to(gradient, shape)


@operator
def sum(x: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Return the sum over `axis`, one or several or None for all; with `keepdims` they stay, with length 1."""
    check_tensors("sum", x)
    value = x.data.sum(axis=axis, keepdims=keepdims)
    return record(value, (x, lambda g: _repeat(g, x.shape, axis, keepdims)))


@operator
def mean(x: Tensor, axis: Axis = None, keepdims: bool = False) -> Tensor:
    """Return the mean over `axis`, arguments as in `sum`; ValueError if x has no element."""
    check_tensors("mean", x)
    if x.size == 0:
        raise ValueError(f"mean: needs at least one element, got shape {x.shape}")
    total = x.data.sum(axis=axis, keepdims=keepdims)
    count = x.size // total.size
    return record(total / count, (x, lambda g: _repeat(g / count, x.shape, axis, keepdims)))


# Moves, which change no element. Their vjps move the gradient back; an element taken twice receives both gradients.


@operator
def reshape(x: Tensor, shape: int | tuple[int, ...]) -> Tensor:
    """Return the elements of x, in row-major order, in another shape; one length may be -1, for what is left."""
    check_tensors("reshape", x)
    return record(x.data.reshape(shape), (x, lambda g: g.reshape(x.shape)))


@operator
def transpose(x: Tensor, axes: tuple[int, ...] | None = None) -> Tensor:
    """Return x with its axes permuted: axis `axes[i]` of x becomes axis i; None reverses all."""
    check_tensors("transpose", x)
    back = None if axes is None else np.argsort([axis % x.ndim for axis in axes]).tolist()
    return record(x.data.transpose(axes), (x, lambda g: g.transpose(back)))


@operator
def concatenate(tensors: Sequence[Tensor], axis: int = 0) -> Tensor:
    """Return tensors, whose shapes differ at most along `axis`, one behind the other; ValueError without any."""
    check_tensors("concatenate", *tensors)
    value = np.concatenate([tensor.data for tensor in tensors], axis)
    before: tuple[Any, ...] = (slice(None),) * (axis % value.ndim)
    edges = accumulate((tensor.shape[axis] for tensor in tensors), initial=0)

    def part(begin: int, end: int) -> Vjp:
        return lambda g: np.asarray(g[(*before, slice(begin, end))])

    return record(value, *((x, part(*ends)) for x, ends in zip(tensors, pairwise(edges), strict=True)))


@operator
def stack(tensors: Sequence[Tensor], axis: int = 0) -> Tensor:
    """Return tensors of one shape along a new axis, which becomes axis `axis`; ValueError without any."""
    check_tensors("stack", *tensors)
    value = np.stack([tensor.data for tensor in tensors], axis)
    before: tuple[Any, ...] = (slice(None),) * (axis % value.ndim)

    def part(place: int) -> Vjp:
        return lambda g: np.asarray(g[(*before, place)])

    return record(value, *((x, part(place)) for place, x in enumerate(tensors)))


@operator
def getitem(x: Tensor, index: Any) -> Tensor:
    """Return x[index], index as in NumPy: integers, slices, `...`, None, arrays of integers or Booleans, tuples."""
    check_tensors("getitem", x)
    parts = index if isinstance(index, tuple) else (index,)
    takes_once = all(isinstance(part, int | np.integer | slice | None) or part is ... for part in parts)

    def vjp(g: Array) -> Array:
        gradient = np.zeros_like(x.data)
        if takes_once:
            gradient[index] = g
        else:
            np.add.at(gradient, index, g)  # unlike +=, adds once for every time an element was taken
        return gradient

    return record(x.data[index], (x, vjp))


# Matrix products. For Y = A B: d<g, A B> = <g, dA B> + <g, A dB> = <g B^T, dA> + <A^T g, dB>.


@operators.counted_operator
def matmul(a: Operand, b: Operand) -> Tensor:
    """Return the products (..., m, k) @ (..., k, n); the axes before broadcast. Counts batch * m * k * n MACs."""
    x, y = operators.operands("matmul", a, b)
    if x.ndim < 2 or y.ndim < 2 or x.shape[-1] != y.shape[-2]:
        raise ValueError(f"matmul: needs (..., m, k) and (..., k, n), got {x.shape} and {y.shape}")
    value = x.data @ y.data
    operators.count("matmul", value.size * x.shape[-1])
    return record(
        value,
        (x, lambda g: unbroadcast(g @ np.swapaxes(y.data, -1, -2), x.shape)),
        (y, lambda g: unbroadcast(np.swapaxes(x.data, -1, -2) @ g, y.shape)),
    )


@operators.counted_operator
def linear(x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    """Return x (..., in) @ w (in, out) + b (out,), shape (..., out). Counts rows * in * out MACs."""
    check_tensors("linear", x, w, *(() if b is None else (b,)))
    check_axes("linear", "weight", w, "in out")
    features, out = w.shape
    check_shape("linear", "input", x, *x.shape[:-1], features)
    rows = x.data.reshape(-1, features)
    value = rows @ w.data
    operators.count("linear", value.size * features)
    inputs: list[tuple[Tensor, Vjp]] = [
        (x, lambda g: (g.reshape(-1, out) @ w.data.T).reshape(x.shape)),
        (w, lambda g: rows.T @ g.reshape(-1, out)),
    ]
    if b is not None:
        check_shape("linear", "bias", b, out)
        value += b.data
        inputs.append((b, lambda g: g.reshape(-1, out).sum(axis=0)))
    return record(value.reshape(*x.shape[:-1], out), *inputs)


# Activations f. Formulas of f(x) and g * f'(x) are in `nachos_kernels/activation.py`, tanh is NumPy's.


def _activated(x: Tensor, code: int) -> Array:
    return kernels.activation_forward(for_kernel(x.data), code)


def _through(g: Array, x: Tensor, code: int) -> Array:
    return kernels.activation_grad_input(for_kernel(g), for_kernel(x.data), code)


@operator
def relu(x: Tensor) -> Tensor:
    """Return max(x, 0); the gradient at 0 is 0."""
    check_tensors("relu", x)
    return record(_activated(x, kernels.RELU), (x, lambda g: _through(g, x, kernels.RELU)))


@operator
def hswish(x: Tensor) -> Tensor:
    """Return x * hsigmoid(x). Source: Howard et al., "Searching for MobileNetV3", ICCV 2019, section 5.2."""
    check_tensors("hswish", x)
    return record(_activated(x, kernels.HSWISH), (x, lambda g: _through(g, x, kernels.HSWISH)))


@operator
def hsigmoid(x: Tensor) -> Tensor:
    """Return min(max(x + 3, 0), 6) / 6: a sigmoid made of three straight lines. Source: as of `hswish`."""
    check_tensors("hsigmoid", x)
    return record(_activated(x, kernels.HSIGMOID), (x, lambda g: _through(g, x, kernels.HSIGMOID)))


@operator
def sigmoid(x: Tensor) -> Tensor:
    """Return 1 / (1 + exp(-x)); 0 and 1 far out, never NaN."""
    check_tensors("sigmoid", x)
    return record(_activated(x, kernels.SIGMOID), (x, lambda g: _through(g, x, kernels.SIGMOID)))


@operator
def tanh(x: Tensor) -> Tensor:
    """Return the hyperbolic tangent of x. Source: d(tanh x) = (1 - tanh^2 x) dx."""
    check_tensors("tanh", x)
    value = np.tanh(x.data)
    return record(value, (x, lambda g: g * (1.0 - value * value)))


# Class probabilities from scores z, and the loss that trains them. The largest score m is subtracted first, so that
# exp never overflows: log_softmax_c(z) = z_c - m - log sum_k exp(z_k - m), softmax = exp(log_softmax).


def _log_softmax(scores: Array, axis: int) -> Array:
    shifted: Array = scores - scores.max(axis=axis, keepdims=True)
    value: Array = shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True))
    return value


@operator
def log_softmax(x: Tensor, axis: int = -1) -> Tensor:
    """Return log(softmax(x)), accurate where it is tiny. Source: d log p_c / d z_k = [c = k] - p_k."""
    check_tensors("log_softmax", x)
    value = _log_softmax(x.data, axis)
    return record(value, (x, lambda g: g - np.exp(value) * g.sum(axis=axis, keepdims=True)))


@operator
def softmax(x: Tensor, axis: int = -1) -> Tensor:
    """Return probabilities p along `axis`, proportional to exp(x). Source: d p_c / d z_k = p_c ([c = k] - p_k)."""
    check_tensors("softmax", x)
    value = np.exp(_log_softmax(x.data, axis))
    return record(value, (x, lambda g: value * (g - (g * value).sum(axis=axis, keepdims=True))))


@operator
def cross_entropy(logits: Tensor, labels: NDArray[np.integer[Any]]) -> Tensor:
    """Return each sample's loss (N,), -log softmax(logits)[label], from scores (N, C) and integers 0 <= label < C.

    Source: d loss / d z = softmax(z) - onehot(label).
    """
    check_tensors("cross_entropy", logits)
    check_axes("cross_entropy", "logits", logits, "N C")
    labels = np.asarray(labels)
    samples, classes = logits.shape
    if labels.shape != (samples,) or labels.dtype.kind not in "iu":
        raise ValueError(f"cross_entropy: labels must be {samples} integers, got {labels.dtype} {labels.shape}")
    wrong = labels[(labels < 0) | (labels >= classes)]
    if wrong.size:
        raise ValueError(f"cross_entropy: labels must be in 0..{classes - 1}, got {wrong[0]}")
    log_probabilities = _log_softmax(logits.data, 1)
    each = np.arange(samples)

    def vjp(g: Array) -> Array:
        gradient = np.exp(log_probabilities)
        gradient[each, labels] -= 1.0
        gradient *= g[:, np.newaxis]
        return gradient

    return record(-log_probabilities[each, labels], (logits, vjp))
