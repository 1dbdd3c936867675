"""Records of what computes nothing: arrays that are given, and elements that are moved, picked or repeated.

Read `record.py` first. They are in a graph so that it is clear which array an operator reads.
"""

from dataclasses import dataclass
from math import prod
from typing import final

from nachos_min.macs.record import CountError, Operator, Shape, UnaryOperator, check_number, check_shape, name


@final
@dataclass(frozen=True)
class Flatten(UnaryOperator):
    """The same numbers as one vector: (H, W, C) to (H * W * C,). Nothing is computed or copied.

    Args:
        input: any shape.

    Raises:
        CountError: input is not a shape.
    """

    @property
    def output(self) -> Shape:
        return (prod(self.input),)


@final
@dataclass(frozen=True)
class Slice(UnaryOperator):
    """The numbers `begin` up to `end` of the last axis, such as the logits of a head. Nothing is computed.

    Args:
        input: (..., features).
        begin: first position taken, 0 <= begin < end.
        end: first position left out, end <= features.

    Raises:
        CountError: input is not a shape, or the range is not within its last axis.
    """

    begin: int
    end: int

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number(self, "begin", self.begin, 0)
        check_number(self, "end", self.end, self.begin + 1)
        if self.end > self.input[-1]:
            raise CountError(f"{name(self)}: end must be <= {self.input[-1]}, got {self.end}")

    @property
    def output(self) -> Shape:
        return (*self.input[:-1], self.end - self.begin)


@final
@dataclass(frozen=True)
class Source(Operator):
    """An array that no operator makes: a further input of the network, a constant, a parameter used by itself.

    Args:
        shape: of the array.
        trained: number of its elements that are trained, 0 for an input or a constant.

    Raises:
        CountError: a value breaks its rule.
    """

    shape: Shape
    trained: int = 0

    def __post_init__(self) -> None:
        check_shape(self, "shape", self.shape)
        check_number(self, "trained", self.trained, 0)

    @property
    def operands(self) -> tuple[Shape, ...]:
        return ()

    @property
    def output(self) -> Shape:
        return self.shape

    @property
    def params(self) -> int:
        return self.trained


@final
@dataclass(frozen=True)
class Move(Operator):
    """Elements at other places: reshaped, permuted, sliced, padded, repeated, joined, looked up in a table.

    Args:
        shapes: of the arrays it reads.
        result: shape of the array it writes.

    Raises:
        CountError: one of them is not a shape.
    """

    shapes: tuple[Shape, ...]
    result: Shape

    def __post_init__(self) -> None:
        for shape in self.shapes:
            check_shape(self, "each of shapes", shape)
        check_shape(self, "result", self.result)

    @property
    def operands(self) -> tuple[Shape, ...]:
        return self.shapes

    @property
    def output(self) -> Shape:
        return self.result
