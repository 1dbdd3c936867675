"""Records of the operators that are one matrix product: linear layers, products of two arrays, Einstein sums.

Read `record.py` first. Convolutions, which multiply as much but slide a window, are in `windows.py`.
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
    name,
)


@final
@dataclass(frozen=True)
class Linear(UnaryOperator):
    """Linear layer over the last axis; every other axis is rows: rows * in * out MACs.

    Args:
        input: (..., in).
        out_features: >= 1.
        bias: whether one number per output feature is added.

    Raises:
        CountError: a value breaks its rule.
    """

    out_features: int
    bias: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_number(self, "out_features", self.out_features, 1)

    @property
    def output(self) -> Shape:
        return (*self.input[:-1], self.out_features)

    @property
    def macs(self) -> int:
        return prod(self.input) * self.out_features

    @property
    def params(self) -> int:
        return (self.input[-1] + self.bias) * self.out_features

    @property
    def columns(self) -> dict[str, int]:
        return {"bias_adds": prod(self.output)} if self.bias else {}


@final
@dataclass(frozen=True)
class MatMul(Operator):
    """Matrix product (..., m, k) times (..., k, n); leading axes broadcast: batch * m * k * n MACs.

    Args:
        left: (..., m, k).
        right: (..., k, n).

    Raises:
        CountError: fewer than two axes, inner lengths that differ, or leading axes that do not broadcast.
    """

    left: Shape
    right: Shape

    def __post_init__(self) -> None:
        for field, shape in (("left", self.left), ("right", self.right)):
            check_shape(self, field, shape)
            if len(shape) < 2:
                raise CountError(f"{name(self)}: {field} must have at least 2 axes, got {shape}")
        if self.left[-1] != self.right[-2]:
            raise CountError(f"{name(self)}: inner lengths must be equal, got {self.left} times {self.right}")
        if broadcast(self.left[:-2], self.right[:-2]) is None:
            raise CountError(f"{name(self)}: leading axes must broadcast, got {self.left} times {self.right}")

    @property
    def operands(self) -> tuple[Shape, ...]:
        return (self.left, self.right)

    @property
    def output(self) -> Shape:
        return (*(broadcast(self.left[:-2], self.right[:-2]) or ()), self.left[-2], self.right[-1])

    @property
    def macs(self) -> int:
        return prod(self.output) * self.left[-1]


@final
@dataclass(frozen=True)
class Einsum(Operator):
    """Einstein sum of one or two arrays: the product of all lengths in MACs, if a letter is summed over.

    Where no letter is summed over, nothing is accumulated, and the elements are products (`mul_elems`) or, with
    one array, only moved. An ellipsis stands for no letters here: a reader writes it out.

    Args:
        equation: such as "nchw,oc->nohw": one letter per axis, no spaces, the output stated.
        shapes: one per array, its axes as the equation has them; 1 where an axis is broadcast.

    Raises:
        CountError: the equation is no such text, does not fit the shapes, or has more than two arrays.

    >>> Einsum("nchw,oc->nohw", ((1, 8, 16, 16), (16, 8))).macs == 16 * 16 * 8 * 16
    True
    """

    equation: str
    shapes: tuple[Shape, ...]

    def __post_init__(self) -> None:
        for shape in self.shapes:
            check_shape(self, "each of shapes", shape)
        terms, arrow, result = self.equation.partition("->")
        letters = terms.split(",")
        known = set(terms) - {","}
        sound = arrow and (not known or "".join(sorted(known)).isalpha()) and set(result) <= known
        if not sound or len(set(result)) != len(result):
            raise CountError(f"{name(self)}: equation must be such as 'ij,jk->ik', got {self.equation!r}")
        if len(self.shapes) > 2:
            raise CountError(f"{name(self)}: must have one or two arrays, got {len(self.shapes)}")
        if [len(term) for term in letters] != [len(shape) for shape in self.shapes]:
            raise CountError(f"{name(self)}: equation {self.equation!r} must fit the shapes, got {self.shapes}")
        lengths = self.lengths
        for term, shape in zip(letters, self.shapes, strict=True):
            for letter, length in zip(term, shape, strict=True):
                if length not in (1, lengths[letter]):
                    longest = lengths[letter]
                    raise CountError(f"{name(self)}: axis {letter} must have length {longest}, got {length}")

    @property
    def lengths(self) -> dict[str, int]:
        """Length of the axis that each letter stands for."""
        found: dict[str, int] = {}
        for term, shape in zip(self.equation.partition("->")[0].split(","), self.shapes, strict=True):
            for letter, length in zip(term, shape, strict=True):
                found[letter] = max(length, found.get(letter, 1))
        return found

    @property
    def _accumulates(self) -> bool:
        terms, _, result = self.equation.partition("->")
        return len(self.shapes) == 2 and bool(set(terms) - {","} - set(result))

    @property
    def operands(self) -> tuple[Shape, ...]:
        return self.shapes

    @property
    def output(self) -> Shape:
        lengths = self.lengths
        return tuple(lengths[letter] for letter in self.equation.partition("->")[2])

    @property
    def macs(self) -> int:
        return prod(self.lengths.values()) if self._accumulates else 0

    @property
    def columns(self) -> dict[str, int]:
        return {"mul_elems": prod(self.output)} if len(self.shapes) == 2 and not self._accumulates else {}
