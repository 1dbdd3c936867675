"""A Tensor remembers how it was computed, and `backward` walks back through that record, the tape.

An operator (`arithmetic.py`) computes a value and, for each input, a *vjp* (vector-Jacobian product): the function
that takes the gradient of the loss in the value to the gradient of the loss in that input. Nothing here knows any
mathematics. To watch a gradient travel, set a breakpoint in the inner loop of `backward`.

Left out: integer tensors (labels and indices are NumPy arrays), second derivatives (vjps compute on arrays, not on
Tensors), a tape that outlives `backward`, any guard against changing `data` in place before `backward`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from itertools import count
from typing import Any, NamedTuple, TypeAlias, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

# The operators, which a Tensor's methods call. The package is still being imported here: names are looked up later.
from nachos_min import autograd

Array: TypeAlias = NDArray[np.floating[Any]]
Axis: TypeAlias = int | tuple[int, ...] | None
Operand: TypeAlias = "Tensor | float | np.number[Any] | NDArray[Any]"
Vjp: TypeAlias = Callable[[Array], Array]

_FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


@final
class Tensor:
    """A float32 or float64 array with the history that computed it. Its methods call the functions of this package.

    >>> x = Tensor([1.0, 2.0, 3.0], requires_grad=True)
    >>> y = (x * x).sum()
    >>> y.backward()
    >>> x.grad
    array([2., 4., 6.])

    Attributes:
        data: the array. An optimiser changes it in place. `shape`, `dtype`, `ndim` and `size` are its own.
        requires_grad: True if gradients flow to this tensor.
        grad: on leaves (made with `requires_grad=True`) the sum of all gradients since it was last set to None, an
            array like `data`; on computed tensors None.
        node: how this tensor was computed; None on leaves and constants.
    """

    __slots__ = ("__weakref__", "data", "grad", "node", "requires_grad")
    # Makes NumPy leave `array + tensor` to Tensor.__radd__, instead of adding the tensor to every element.
    __array_ufunc__ = None

    def __init__(self, data: ArrayLike, requires_grad: bool = False) -> None:
        """Wrap `data` without a copy; TypeError if NumPy makes neither a float32 nor a float64 array of it."""
        array: Array = np.asarray(data)
        if array.dtype not in _FLOATS:
            raise TypeError(f"Tensor must be float32 or float64, got {array.dtype}")
        self.data = array
        self.requires_grad = requires_grad
        self.grad: Array | None = None
        self.node: Node | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape

    @property
    def dtype(self) -> np.dtype[np.floating[Any]]:
        return self.data.dtype

    @property
    def ndim(self) -> int:
        return self.data.ndim

    @property
    def size(self) -> int:
        return self.data.size

    def __repr__(self) -> str:
        values = np.array2string(self.data, separator=", ", threshold=20, prefix="Tensor(")
        history = f", from {self.node.operator}" if self.node else ", leaf" if self.requires_grad else ""
        return f"Tensor({values}, {self.dtype}{history})"

    def item(self) -> float:
        """Return the only element as a Python float; NumPy raises ValueError if there are more."""
        return float(self.data.item())

    def detach(self) -> "Tensor":
        """Return a constant that shares `data`: no gradient flows through it."""
        return Tensor(self.data)

    def backward(self, gradient: ArrayLike | None = None) -> None:
        """Add to every leaf's `grad` the gradient of this tensor in it; see the function `backward`."""
        backward(self, gradient)

    def sum(self, axis: Axis = None, keepdims: bool = False) -> "Tensor":
        return autograd.sum(self, axis, keepdims)

    def mean(self, axis: Axis = None, keepdims: bool = False) -> "Tensor":
        return autograd.mean(self, axis, keepdims)

    def reshape(self, shape: int | tuple[int, ...]) -> "Tensor":
        return autograd.reshape(self, shape)

    def transpose(self, axes: tuple[int, ...] | None = None) -> "Tensor":
        return autograd.transpose(self, axes)

    def __getitem__(self, index: Any) -> "Tensor":
        return autograd.getitem(self, index)

    def __neg__(self) -> "Tensor":
        return autograd.negate(self)

    def __add__(self, other: Operand) -> "Tensor":
        return autograd.add(self, other)

    __radd__ = __add__

    def __sub__(self, other: Operand) -> "Tensor":
        return autograd.subtract(self, other)

    def __rsub__(self, other: Operand) -> "Tensor":
        return autograd.subtract(other, self)

    def __mul__(self, other: Operand) -> "Tensor":
        return autograd.multiply(self, other)

    __rmul__ = __mul__

    def __truediv__(self, other: Operand) -> "Tensor":
        return autograd.divide(self, other)

    def __rtruediv__(self, other: Operand) -> "Tensor":
        return autograd.divide(other, self)

    def __pow__(self, exponent: float) -> "Tensor":
        return autograd.power(self, exponent)

    def __matmul__(self, other: Operand) -> "Tensor":
        return autograd.matmul(self, other)

    def __rmatmul__(self, other: Operand) -> "Tensor":
        return autograd.matmul(other, self)


class Node(NamedTuple):
    """How a tensor was computed: when, and from which inputs that need a gradient, each with its vjp."""

    time: int  # inputs are recorded before what is computed from them
    inputs: tuple[tuple[Tensor, Vjp], ...]

    @property
    def operator(self) -> str:
        """The name of the operator: vjps are written inside it, and Python remembers where."""
        return self.inputs[0][1].__qualname__.partition(".")[0] if self.inputs else "a freed tape"


_FREED = Node(-1, ())  # takes the place of a node that `backward` has used
_clock = count()
# A context variable: each thread has its own, so no_grad in one does not disturb another.
_recording: ContextVar[bool] = ContextVar("recording", default=True)


@contextmanager
def no_grad() -> Iterator[None]:
    """Return a context in which nothing is recorded, in this thread; contexts may be nested."""
    token = _recording.set(False)
    try:
        yield
    finally:
        _recording.reset(token)


def record(value: ArrayLike, *inputs: tuple[Tensor, Vjp]) -> Tensor:
    """Return `value` as a Tensor that remembers the inputs it was computed from.

    Args:
        value: float32 or float64 array, what the operator computed.
        inputs: pairs of an input and its vjp, from arrays like `value` to arrays like the input. A vjp is called at
            most once. It may return its argument or a view of it, but must not change it: others may hold it.
    """
    result = Tensor(value)
    if _recording.get():
        needed = tuple(pair for pair in inputs if pair[0].requires_grad)
        if needed:
            result.requires_grad = True
            result.node = Node(next(_clock), needed)
    return result


def once(compute: Callable[[Array], tuple[Array, ...]]) -> Callable[[Array], tuple[Array, ...]]:
    """Return `compute`, run at its first call only: a tape serves once, so every call brings the same gradient."""
    results: list[tuple[Array, ...]] = []

    def remembered(g: Array) -> tuple[Array, ...]:
        if not results:
            results.append(compute(g))
        return results[0]

    return remembered


def backward(result: Tensor, gradient: ArrayLike | None = None) -> None:
    """Add to every leaf's `grad` the gradient of `result` in that leaf, and free the tape behind `result`.

    A tape serves once: arrays are released on the way. Losses that share a part of it must be summed up before.

    Args:
        result: a tensor that requires a gradient.
        gradient: of the loss in `result`, same shape, converted to its dtype; 1 if left out, for one element.

    Raises:
        RuntimeError: if `result` needs no gradient, or an earlier `backward` freed a part of its tape.
        ValueError: if `gradient` is missing or has another shape, or a vjp returns another shape or dtype than its
            input has (a defect of that operator).

    Source: Griewank and Walther, "Evaluating Derivatives", 2nd edition, section 3.2 (reverse mode).
    """
    if not result.requires_grad:
        raise RuntimeError("backward: nothing was recorded: no input requires a gradient, or it was under no_grad")
    if gradient is None and result.size != 1:
        raise ValueError(f"backward without a gradient needs one element, got shape {result.shape}")
    first: Array = np.ones_like(result.data) if gradient is None else np.asarray(gradient, result.dtype)
    if first.shape != result.shape:
        raise ValueError(f"backward: gradient has shape {first.shape}, tensor has {result.shape}")
    waiting = _oldest_first(result)
    gradients = {result: first}
    while waiting:
        tensor, node = waiting.pop()
        upstream = gradients.pop(tensor)  # complete: all that was computed from `tensor` is younger than it
        tensor.node = _FREED
        for source, vjp in node.inputs:
            term = vjp(upstream)
            data = source.data
            if term.shape != data.shape or term.dtype != data.dtype:
                raise ValueError(
                    f"{node.operator}: vjp returned {term.dtype} {term.shape} "
                    f"for an input of {source.dtype} {source.shape}"
                )
            # Not +=, which would change an array that another input may hold as well.
            gradients[source] = gradients[source] + term if source in gradients else term
    for leaf, total in gradients.items():
        # A copy, because several inputs may hold the same array.
        leaf.grad = np.array(total, order="C") if leaf.grad is None else np.asarray(leaf.grad + total)


def _oldest_first(result: Tensor) -> list[tuple[Tensor, Node]]:
    """Return `result` and all computed tensors it depends on, with their nodes, in the order they were recorded.

    A value is recorded after its inputs, so this is a topological order. It is found without recursion.
    """
    found: list[tuple[Tensor, Node]] = []
    todo, seen = [result], {result}
    for tensor in todo:  # grows while it is walked
        node = tensor.node
        if node is _FREED:
            raise RuntimeError(
                "backward: this tape was freed by an earlier backward; compute the value again, "
                "or add the losses up and call backward once"
            )
        if node is not None:
            found.append((tensor, node))
            for source, _ in node.inputs:
                if source.node is not None and source not in seen:  # leaves have no inputs
                    seen.add(source)
                    todo.append(source)
    return sorted(found, key=lambda computed: computed[1].time)
