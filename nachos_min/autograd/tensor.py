"""The Tensor: an array that remembers how it was computed.

Start here, then read `tape.py` (how gradients travel) and `arithmetic.py` (what an operator looks like). A
Tensor's methods are the functions of this package written with a dot or a sign: `a * b` is `multiply(a, b)`.

Left out on purpose: integer tensors (labels and indices are NumPy arrays), second derivatives, devices, and
any guard against changing `data` in place between the forward pass and `backward`.
"""

from typing import TYPE_CHECKING, Any, TypeAlias, final

import numpy as np
from numpy.typing import ArrayLike, NDArray

# The whole room, whose functions the methods below call. It is still being imported when this line runs,
# which is why it is imported as a module: its names are looked up at the first call.
from nachos_min import autograd

if TYPE_CHECKING:
    from nachos_min.autograd.tape import Node

Array: TypeAlias = NDArray[np.floating[Any]]
Constant: TypeAlias = float | np.number[Any] | NDArray[Any]
Operand: TypeAlias = "Tensor | Constant"

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


@final
class Tensor:
    """A float32 or float64 array with the history that computed it.

    >>> x = Tensor([1.0, 2.0, 3.0], requires_grad=True)
    >>> y = (x * x).sum()
    >>> y.backward()
    >>> x.grad
    array([2., 4., 6.])

    Attributes:
        data: the array, float32 or float64. An optimiser changes it in place.
        requires_grad: True if gradients flow to this tensor.
        grad: on leaves (tensors made by the user with `requires_grad=True`): the sum of all gradients that
            `backward` has delivered since it was last set to None; same shape and dtype as `data`. It never
            shares memory with another array. On computed tensors: always None.
        node: what the tape knows about this tensor's computation; None on leaves and constants.
    """

    __slots__ = ("__weakref__", "data", "grad", "node", "requires_grad")
    # Makes NumPy leave `array + tensor` to Tensor.__radd__, instead of adding the tensor to every element.
    __array_ufunc__ = None

    def __init__(self, data: ArrayLike, requires_grad: bool = False) -> None:
        """Wrap `data` without copying it.

        Args:
            data: float32 or float64 array, or what NumPy makes one of (a float, a list of floats).
            requires_grad: whether `backward` should deliver a gradient to this tensor.

        Raises:
            TypeError: if `data` is neither float32 nor float64.
        """
        array: Array = np.asarray(data)
        if array.dtype not in FLOATS:
            raise TypeError(f"Tensor must be float32 or float64, got {array.dtype}")
        self.data = array
        self.requires_grad = requires_grad
        self.grad: Array | None = None
        self.node: Node | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of `data`."""
        return self.data.shape

    @property
    def dtype(self) -> np.dtype[np.floating[Any]]:
        """The dtype of `data`: float32 or float64."""
        return self.data.dtype

    @property
    def ndim(self) -> int:
        """The number of axes."""
        return self.data.ndim

    @property
    def size(self) -> int:
        """The number of elements."""
        return self.data.size

    def __repr__(self) -> str:
        """Return the values, the dtype, and the operator that computed them."""
        values = np.array2string(self.data, separator=", ", threshold=20, prefix="Tensor(")
        history = f", from {self.node.operator}" if self.node else ", leaf" if self.requires_grad else ""
        return f"Tensor({values}, {self.dtype}{history})"

    def item(self) -> float:
        """Return the only element as a Python float (ValueError from NumPy if there are more)."""
        return float(self.data.item())

    def detach(self) -> "Tensor":
        """Return a constant that shares `data`: no gradient flows through it."""
        return Tensor(self.data)

    def backward(self, gradient: ArrayLike | None = None) -> None:
        """Add to every leaf's `grad` the gradient of this tensor in it; see `tape.backward`."""
        autograd.backward(self, gradient)

    def sum(self, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> "Tensor":
        """Return the sum over `axis`; see `reduction.sum`."""
        return autograd.sum(self, axis, keepdims)

    def mean(self, axis: int | tuple[int, ...] | None = None, keepdims: bool = False) -> "Tensor":
        """Return the mean over `axis`; see `reduction.mean`."""
        return autograd.mean(self, axis, keepdims)

    def reshape(self, shape: int | tuple[int, ...]) -> "Tensor":
        """Return the same elements in another shape; see `shape.reshape`."""
        return autograd.reshape(self, shape)

    def transpose(self, axes: tuple[int, ...] | None = None) -> "Tensor":
        """Return the tensor with its axes permuted; see `shape.transpose`."""
        return autograd.transpose(self, axes)

    def __getitem__(self, index: Any) -> "Tensor":
        return autograd.getitem(self, index)

    def __neg__(self) -> "Tensor":
        return autograd.negate(self)

    def __add__(self, other: Operand) -> "Tensor":
        return autograd.add(self, other)

    def __radd__(self, other: Operand) -> "Tensor":
        return autograd.add(other, self)

    def __sub__(self, other: Operand) -> "Tensor":
        return autograd.subtract(self, other)

    def __rsub__(self, other: Operand) -> "Tensor":
        return autograd.subtract(other, self)

    def __mul__(self, other: Operand) -> "Tensor":
        return autograd.multiply(self, other)

    def __rmul__(self, other: Operand) -> "Tensor":
        return autograd.multiply(other, self)

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
