"""One ONNX node while its rule runs: what it reads, its attributes, and the ways to write down what it does.

Read `arrays.py` and `assembly.py` first. A rule gives the arrays that its node makes. It either adds records, or,
if what the node reads is fixed before any sample comes, gives another constant.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Any, final

import numpy as np

from nachos_min.macs.onnx_reader.arrays import FEW, Array, Values, checked_shape
from nachos_min.macs.onnx_reader.assembly import Assembly, record_shape, rows
from nachos_min.macs.onnx_reader.attributes import Attributes
from nachos_min.macs.ops import Activation, Add, Move, Source
from nachos_min.macs.record import CountError, Operator, Shape, broadcast

Fold = Callable[..., Any]  # NumPy's form of an operator: arrays in, an array out


@final
@dataclass(frozen=True)
class Call:
    """A node whose rule runs.

    Args:
        operator: its type.
        opset: version of the operator set.
        name: of the node, for the records.
        key: text that no other node's arrays have as `Array.key`.
        inputs: what it reads; None where an optional input is left out.
        outputs: how many arrays it must make.
        attributes: its attributes.
        assembly: the graph that records go to.
    """

    operator: str
    opset: int
    name: str
    key: str
    inputs: tuple[Array | None, ...]
    outputs: int
    attributes: Attributes
    assembly: Assembly

    def optional(self, index: int) -> Array | None:
        """Return an input, None if it is left out."""
        return self.inputs[index] if index < len(self.inputs) else None

    def input(self, index: int = 0) -> Array:
        """Return an input; CountError if it is left out."""
        array = self.optional(index)
        if array is None:
            raise CountError(f"input {index + 1} must be given, got {len(self.inputs)} inputs")
        return array

    def given(self) -> tuple[Array, ...]:
        """Return all inputs that are not left out; CountError if there is none."""
        self.input()
        return tuple(array for array in self.inputs if array is not None)

    def integers(self, index: int, what: str) -> tuple[int, ...]:
        """Return the values of an input that says how the node works.

        Args:
            index: of the input.
            what: it is, for the message.

        Raises:
            CountError: it is left out, has no fixed values, or has more than 4,096.
        """
        values = self.input(index).values
        if values is None:
            raise CountError(f"its {what} must be fixed before any sample comes, got input {index + 1} computed")
        if values.dtype.kind not in "iu":
            raise CountError(f"its {what} must be integers, got {values.dtype} as input {index + 1}")
        return tuple(int(value) for value in values.ravel())

    def setting(self, attribute: str, index: int, default: tuple[int, ...]) -> tuple[int, ...]:
        """Return integers that older operator sets give as an attribute and newer ones as an input."""
        if attribute in self.attributes or self.optional(index) is None:
            return self.attributes.integers(attribute, default)
        return self.integers(index, attribute)

    def add(self, op: Operator, arrays: tuple[Array, ...], shape: Shape, batch: int = 1) -> Array:
        """Return what a new node makes, which reads `arrays`."""
        position = self.assembly.position
        return Array(
            checked_shape(shape),
            self.assembly.add(self.name, op, tuple(position(array) for array in arrays), batch),
        )

    def layer(self, op: Operator, array: Array, shape: Shape, batch: int, weights: tuple[Array, ...]) -> Array:
        """Return what a new node makes that reads `array` and has `weights`."""
        inputs = (self.assembly.position(array),)
        return Array(checked_shape(shape), self.assembly.layer(self.name, op, inputs, batch, weights))

    def activation(self, array: Array, kind: str, weights: tuple[Array, ...] = ()) -> Array:
        """Return `array` through an activation, which has weights if it is prelu."""
        batch, sample = rows(array.shape)
        return self.layer(Activation(sample, kind), array, array.shape, batch, weights)

    def elementwise(
        self, arrays: tuple[Array, ...], build: Callable[[tuple[Shape, ...]], Operator], fold: Fold | None = None
    ) -> Array:
        """Return arrays combined element by element.

        Args:
            arrays: what is combined; constants without axes are numbers and no operands.
            build: gives the record of the operands' shapes.
            fold: the same in NumPy, for constants.

        Raises:
            CountError: the shapes do not broadcast.
        """
        shape: Shape | None = ()
        for array in arrays:
            shape = None if shape is None else broadcast_any(shape, array.shape)
        if shape is None:
            raise CountError(f"shapes must broadcast, got {tuple(array.shape for array in arrays)}")
        values = self._folded(arrays, shape, fold)
        if values is not None and not any(array.trained for array in arrays):
            return Array(shape, None, values, self.key)
        operands = tuple(array for array in arrays if not array.number) or arrays[:1]
        made = self.add(build(tuple(record_shape(array.shape) for array in operands)), operands, shape)
        return Array(shape, made.node, values)

    def plus(self, arrays: tuple[Array, ...]) -> Array:
        """Return a sum of arrays."""
        return self.elementwise(arrays, Add)

    def move(self, arrays: tuple[Array, ...], shape: Shape, fold: Fold | None, part: int = 0) -> Array:
        """Return the elements of arrays at other places, which is no work if they are constants.

        Args:
            arrays: whose elements are moved.
            shape: of the result.
            fold: the same in NumPy, None if nobody computes shapes so.
            part: which of several results of one node this is.
        """
        checked_shape(shape)
        values = self._folded(arrays, shape, fold)
        if values is not None or prod(shape) == 0 or all(array.constant for array in arrays):
            whole = len(arrays) == 1 and arrays[0].constant and arrays[0].elements == prod(shape)
            trained = any(array.constant and array.trained for array in arrays)
            return Array(shape, None, values, arrays[0].key if whole else f"{self.key}/{part}", trained)
        arrays = tuple(array for array in arrays if array.elements)  # Concat may join empty ones
        shapes = tuple(record_shape(array.shape) for array in arrays)
        return self.add(Move(shapes, record_shape(shape)), arrays, shape)

    def fixed(self, shape: Shape, make: Callable[[], Any]) -> Array:
        """Return a constant that this node makes, with its values if they are few.

        Args:
            shape: of it.
            make: gives the values.
        """
        few = (
            max(shape, default=0) <= FEW and prod(shape) <= FEW and self.assembly.budget.allows_values(prod(shape))
        )
        return Array(checked_shape(shape), None, np.asarray(make()).reshape(shape) if few else None, self.key)

    def sourced(self, shape: Shape) -> Array:
        """Return an array that somebody else makes."""
        return self.add(Source(record_shape(shape)), (), shape)

    def _folded(self, arrays: tuple[Array, ...], shape: Shape, fold: Fold | None) -> Values | None:
        """Return what NumPy makes of constants, None unless all is known and small."""
        known = [array.values for array in arrays if array.values is not None]
        if fold is None or len(known) != len(arrays) or prod(shape) > FEW or max(shape, default=0) > FEW:
            return None
        if not self.assembly.budget.allows_values(prod(shape)):
            return None
        try:
            with np.errstate(all="ignore"):
                values = np.asarray(fold(*known))
        except (ArithmeticError, IndexError, TypeError, ValueError):
            return None  # what NumPy cannot do has no known value; whoever needs it says so
        return values if values.shape == shape else None


def broadcast_any(left: Shape, right: Shape) -> Shape | None:
    """Return the shape that both broadcast to, None if there is none; axes of no elements are allowed."""
    if 0 not in left and 0 not in right:
        return broadcast(left, right)
    axes = max(len(left), len(right))
    pairs = zip((1,) * (axes - len(left)) + left, (1,) * (axes - len(right)) + right, strict=True)
    shape = tuple(b if a == 1 else a if b in (1, a) else -1 for a, b in pairs)
    return None if -1 in shape else shape
