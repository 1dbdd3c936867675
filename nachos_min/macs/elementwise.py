"""Records of the operators that treat every element alike: activations, sums, products and the rest.

Read `record.py` first. None of this is a MAC: a product of two arrays, such as squeeze-and-excitation's scaling
of a map, feeds no accumulator. It is counted in columns, one per kind.
"""

from dataclasses import dataclass
from math import prod
from typing import final

from nachos_min.macs.record import (
    CountError,
    Operator,
    Shape,
    UnaryOperator,
    broadcast,
    check_number,
    check_shape,
    check_word,
    name,
)


@final
@dataclass(frozen=True)
class Activation(UnaryOperator):
    """Element-wise function, counted in a column of its kind.

    Args:
        input: any shape.
        kind: its name in small letters, such as "relu" or "hswish".

    Raises:
        CountError: a value breaks its rule.
    """

    kind: str

    def __post_init__(self) -> None:
        super().__post_init__()
        check_word(self, "kind", self.kind)

    @property
    def columns(self) -> dict[str, int]:
        return {f"act_elems:{self.kind}": prod(self.input)}


@final
@dataclass(frozen=True)
class Softmax(UnaryOperator):
    """Exponentials divided by their sum along one axis; counted as an activation.

    Args:
        input: any shape.
        features: length of the axis that is summed over, >= 1, divides the number of elements.

    Raises:
        CountError: a value breaks its rule.
    """

    features: int

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number(self, "features", self.features, 1)
        if prod(self.input) % self.features:
            raise CountError(f"{name(self)}: features must divide {prod(self.input)} elements, got {self.features}")

    @property
    def columns(self) -> dict[str, int]:
        return {"act_elems:softmax": prod(self.input)}


@dataclass(frozen=True)
class _Elementwise(Operator):
    """Arrays combined element by element, broadcast to one shape; a number is no array."""

    shapes: tuple[Shape, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.shapes, tuple) or not self.shapes:
            raise CountError(f"{name(self)}: shapes must be a tuple of at least one, got {self.shapes!r}")
        for shape in self.shapes:
            check_shape(self, "each of shapes", shape)
        if self._common is None:
            raise CountError(f"{name(self)}: shapes must broadcast, got {self.shapes}")

    @property
    def _common(self) -> Shape | None:
        common: Shape | None = ()
        for shape in self.shapes:
            common = None if common is None else broadcast(common, shape)
        return common

    @property
    def operands(self) -> tuple[Shape, ...]:
        return self.shapes

    @property
    def output(self) -> Shape:
        return self._common or ()


@final
@dataclass(frozen=True)
class Add(_Elementwise):
    """Element-wise sum, such as a residual connection.

    Args:
        shapes: of the arrays added, one if a number is added to it.

    Raises:
        CountError: what is given are not shapes, or they do not broadcast.
    """

    @property
    def columns(self) -> dict[str, int]:
        return {"add_elems": prod(self.output)}


@final
@dataclass(frozen=True)
class Multiply(_Elementwise):
    """Element-wise product, such as squeeze-and-excitation's scaling of a map (H, W, C) by (C,).

    Args:
        shapes: of the arrays multiplied, one if it is multiplied by a number.

    Raises:
        CountError: what is given are not shapes, or they do not broadcast.
    """

    @property
    def columns(self) -> dict[str, int]:
        return {"mul_elems": prod(self.output)}


@final
@dataclass(frozen=True)
class Pointwise(_Elementwise):
    """Any other element-wise operator, counted in a column of its kind.

    Args:
        shapes: of the arrays it reads.
        kind: its name in small letters, such as "sub", "div" or "exp".

    Raises:
        CountError: what is given are not shapes, they do not broadcast, or the kind is no such name.
    """

    kind: str

    def __post_init__(self) -> None:
        super().__post_init__()
        check_word(self, "kind", self.kind)

    @property
    def columns(self) -> dict[str, int]:
        return {f"pointwise:{self.kind}": prod(self.output)}
