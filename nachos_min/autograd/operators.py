"""What surrounds the mathematics of an operator: its entry in a list, its count of MACs, checks of its arguments.

Arguments are checked once, here, before any kernel runs. Every message names the operator, the value and the rule.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from numbers import Real
from typing import Any, TypeVar, final

import numpy as np
from numpy.typing import NDArray

from nachos_min.autograd.tape import Array, Operand, Tensor

Operator = TypeVar("Operator", bound=Callable[..., Any])

OPERATORS: dict[str, Callable[..., Any]] = {}
COUNTED_OPERATORS: set[str] = set()  # those that multiply and accumulate


def operator(function: Operator) -> Operator:
    """Return `function`, which records its own vjps, after entering it in `OPERATORS` under its name."""
    OPERATORS[function.__name__] = function
    return function


def counted_operator(function: Operator) -> Operator:
    """Return `function`, entered as an operator that multiplies and accumulates, and so calls `count`."""
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
    for value in (a, b):
        if not isinstance(value, Tensor | Real | np.number | np.ndarray):
            raise TypeError(f"{operator}: expected a Tensor, number or array, got {type(value).__name__}")
    x, y = (value if isinstance(value, Tensor) else Tensor(np.asarray(value, like.dtype)) for value in (a, b))
    check_tensors(operator, x, y)
    return x, y


def check_axes(operator: str, name: str, tensor: Tensor, axes: str) -> None:
    """Raise ValueError unless `tensor` has as many axes as `axes` has names, as in "N H W C"."""
    if tensor.data.ndim != axes.count(" ") + 1:
        raise ValueError(f"{operator}: {name} must be ({', '.join(axes.split())}), got shape {tensor.shape}")


def check_shape(operator: str, name: str, array: Tensor | Array, *shape: int) -> None:
    """Raise ValueError unless `array` has this shape."""
    if array.shape != shape:
        raise ValueError(f"{operator}: {name} must have shape {shape}, got {array.shape}")


def for_kernel(array: NDArray[Any]) -> NDArray[Any]:
    """Return `array`, or a copy if it is not C-contiguous and writable: kernels are compiled for that layout."""
    flags = array.flags
    return array if flags.c_contiguous and flags.writeable else array.copy()
