"""What surrounds the mathematics of an operator: its entry in a list, its count of MACs, checks of its arguments.

Arguments are checked once, here, before any kernel runs. Every message names the operator, the value and the rule.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from numbers import Real
from operator import index
from typing import Any, TypeAlias, TypeVar, final

import numpy as np
from numpy.typing import NDArray

from nachos_min.autograd.tape import Array, Operand, Tensor

Operator = TypeVar("Operator", bound=Callable[..., Any])
Pair: TypeAlias = tuple[int, int]
Sides: TypeAlias = tuple[int, int, int, int]

# Tests demand a gradient, a PyTorch and a MAC case of each.
OPERATORS: dict[str, Callable[..., Any]] = {}
COUNTED_OPERATORS: set[str] = set()


def operator(function: Operator) -> Operator:
    """Return `function`, which records its own vjps, after entering it in `OPERATORS` under its name."""
    OPERATORS[function.__name__] = function
    return function


def counted_operator(function: Operator) -> Operator:
    """Return `function`, entered as an operator that multiplies, accumulates, and calls `count`."""
    COUNTED_OPERATORS.add(function.__name__)
    return operator(function)


@final
class MacCounter:
    """What `count_macs` collects: MACs `by_operator`, by name; operators that did not run are missing."""

    def __init__(self) -> None:
        self.by_operator: dict[str, int] = {}

    @property
    def total(self) -> int:
        """The MACs of all operators."""
        return sum(self.by_operator.values())


_counters: ContextVar[tuple[MacCounter, ...]] = ContextVar("counters", default=())


@contextmanager
def count_macs() -> Iterator[MacCounter]:
    """Return a context that counts the multiply-accumulates (MACs) that operators execute in this thread.

    Convolutions, padding taps included, and matrix products count, in exact Python integers; biases, element-wise
    products and the backward pass do not. An outer counter counts on inside an inner one.

    >>> from nachos_min.autograd import Tensor, linear
    >>> with count_macs() as counter:
    ...     y = linear(Tensor(np.ones((2, 3))), Tensor(np.ones((3, 5))))
    >>> counter.total, counter.by_operator
    (30, {'linear': 30})
    """
    counter = MacCounter()
    token = _counters.set((*_counters.get(), counter))
    try:
        yield counter
    finally:
        _counters.reset(token)


def count(operator: str, macs: int) -> None:
    """Add `macs` under `operator` to every active counter; operators call this once per forward pass."""
    for counter in _counters.get():
        counter.by_operator[operator] = counter.by_operator.get(operator, 0) + macs


def check_tensors(operator: str, *tensors: Tensor) -> None:
    """Raise TypeError unless all arguments are Tensors of one dtype, ValueError if there are none."""
    if not tensors:
        raise ValueError(f"{operator}: needs at least one tensor, got none")
    for tensor in tensors:
        if not isinstance(tensor, Tensor):
            raise TypeError(f"{operator}: expected a Tensor, got {type(tensor).__name__}")
        if tensor.data.dtype != tensors[0].data.dtype:
            raise TypeError(f"{operator}: dtypes must be equal, got {tensors[0].dtype} and {tensor.dtype}")


def operands(operator: str, a: Operand, b: Operand) -> tuple[Tensor, Tensor]:
    """Return both operands as Tensors of one dtype, or raise TypeError; one may be a number or an array."""
    like = a if isinstance(a, Tensor) else b
    if not isinstance(like, Tensor):
        given = f"{type(a).__name__} and {type(b).__name__}"
        raise TypeError(f"{operator}: one operand must be a Tensor, got {given}")
    x, y = _as_tensor(operator, a, like), _as_tensor(operator, b, like)
    check_tensors(operator, x, y)
    return x, y


def _as_tensor(operator: str, value: Operand, like: Tensor) -> Tensor:
    if isinstance(value, Tensor):
        return value
    if not isinstance(value, Real | np.number | np.ndarray):
        raise TypeError(f"{operator}: expected a Tensor, number or array, got {type(value).__name__}")
    return Tensor(np.asarray(value, like.dtype))


def check_shape(operator: str, name: str, array: Tensor | Array, *axes: str | int) -> None:
    """Raise ValueError unless `array` has these axes: a number is a length, a name stands for any length."""
    shape = array.shape
    if shape != axes:
        fits = len(shape) == len(axes)
        for axis, length in zip(axes, shape, strict=False):
            fits = fits and (axis == length or type(axis) is str)
        if not fits:
            raise ValueError(f"{operator}: {name} must be ({', '.join(map(str, axes))}), got shape {shape}")


def pair(operator: str, name: str, value: int | Sequence[int]) -> Pair:
    """Return (along the height, along the width) from one integer >= 1 or two, or raise ValueError."""
    first, second = _integers(operator, name, value, (1, 2), 1)
    return first, second


def sides(operator: str, value: int | Sequence[int]) -> Sides:
    """Return padding (top, bottom, left, right) from one integer >= 0, (height, width), or four; or ValueError."""
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


def check_window(
    operator: str, shape: tuple[int, ...], window: Pair, padding: Sides = (0, 0, 0, 0), dilation: Pair = (1, 1)
) -> None:
    """Raise ValueError unless a window of taps `dilation` apart fits the padded map of an (N, H, W, C) `shape`."""
    height, width = shape[1] + padding[0] + padding[1], shape[2] + padding[2] + padding[3]
    span_h, span_w = dilation[0] * (window[0] - 1) + 1, dilation[1] * (window[1] - 1) + 1
    if span_h > height or span_w > width:
        raise ValueError(
            f"{operator}: a window of {span_h}x{span_w} does not fit a map of {shape[1]}x{shape[2]} "
            f"padded to {height}x{width}"
        )


def for_kernel(array: NDArray[Any]) -> NDArray[Any]:
    """Return `array`, or a copy if it is not C-contiguous and writable: kernels are compiled for that layout."""
    flags = array.flags
    return array if flags.c_contiguous and flags.writeable else array.copy()
