"""One frozen record per operator: its shapes, and from them its multiplications, parameters and other work.

A network is a `Graph`: a tuple of `Node` in execution order. Nothing is built or run; the records know shapes
only, of one sample, channels last: (H, W, C) for a map, (..., features) for anything else. All figures are
Python integers, so nothing overflows and nothing is rounded.

One MAC is one multiplication whose product feeds an accumulator, in a convolution, transposed convolution,
linear layer or matrix product. All other work is counted in columns of its own:

    bias_adds         output elements that get a bias            norm_elems  elements normalised
    act_elems:<kind>  elements through an activation, by kind    mul_elems   elements of a product
    pool_in pool_out  elements into and out of a sliding pool    add_elems   elements of a sum
    mean_out          elements out of a mean over the whole map

`macs` counts taps on padded zeros, as is usual; `valid_macs` leaves them out. Before this read
`axis.py`, `record.py` and `windows.py` (convolutions and pools, importable from here too); sums over a graph
are in `count.py`.
"""

import re
from dataclasses import dataclass
from math import prod
from typing import final

from nachos_min.macs.record import CountError as CountError
from nachos_min.macs.record import Operator, Shape, UnaryOperator, check_map, check_number, check_shape, name
from nachos_min.macs.windows import AvgPool as AvgPool
from nachos_min.macs.windows import Conv2d as Conv2d
from nachos_min.macs.windows import ConvTranspose2d as ConvTranspose2d
from nachos_min.macs.windows import MaxPool as MaxPool


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
        if _broadcast(self.left[:-2], self.right[:-2]) is None:
            raise CountError(f"{name(self)}: leading axes must broadcast, got {self.left} times {self.right}")

    @property
    def operands(self) -> tuple[Shape, ...]:
        return (self.left, self.right)

    @property
    def output(self) -> Shape:
        return (*(_broadcast(self.left[:-2], self.right[:-2]) or ()), self.left[-2], self.right[-1])

    @property
    def macs(self) -> int:
        return prod(self.output) * self.left[-1]


@final
@dataclass(frozen=True)
class BatchNorm(UnaryOperator):
    """Normalisation per channel (the last axis), the same work in training and inference.

    Args:
        input: (..., C).
        affine: whether a scale and a shift per channel are trained.

    Raises:
        CountError: input is not a shape.
    """

    affine: bool = True

    @property
    def params(self) -> int:
        return 2 * self.input[-1] * self.affine

    @property
    def columns(self) -> dict[str, int]:
        return {"norm_elems": prod(self.input)}


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
        if not re.fullmatch("[a-z][a-z0-9_]*", self.kind):
            raise CountError(f"{name(self)}: kind must be a name in small letters, got {self.kind!r}")

    @property
    def columns(self) -> dict[str, int]:
        return {f"act_elems:{self.kind}": prod(self.input)}


@final
@dataclass(frozen=True)
class GlobalAvgPool(UnaryOperator):
    """Mean over the whole map: (H, W, C) to (C,).

    Args:
        input: (H, W, C).

    Raises:
        CountError: input is not a map.
    """

    def __post_init__(self) -> None:
        check_map(self)

    @property
    def output(self) -> Shape:
        return self.input[2:]

    @property
    def columns(self) -> dict[str, int]:
        return {"mean_out": self.input[2]}


@dataclass(frozen=True)
class _Elementwise(UnaryOperator):
    """Two arrays combined element by element; the second may be broadcast to the first."""

    @property
    def operands(self) -> tuple[Shape, ...]:
        return (self.input, self.input)

    def check_operands(self, shapes: tuple[Shape, ...]) -> None:
        fits = len(shapes) == 2 and shapes[0] == self.input and _broadcast(*shapes) == self.input
        if not fits:
            super().check_operands(shapes)


@final
@dataclass(frozen=True)
class Add(_Elementwise):
    """Element-wise sum of two arrays, such as a residual connection.

    Args:
        input: shape of the first array and of the sum; the second may be broadcast to it.

    Raises:
        CountError: input is not a shape.
    """

    @property
    def columns(self) -> dict[str, int]:
        return {"add_elems": prod(self.input)}


@final
@dataclass(frozen=True)
class Multiply(_Elementwise):
    """Element-wise product of two arrays, such as squeeze-and-excitation's scaling of a map by (C,).

    Args:
        input: shape of the first array and of the product; the second may be broadcast to it.

    Raises:
        CountError: input is not a shape.
    """

    @property
    def columns(self) -> dict[str, int]:
        return {"mul_elems": prod(self.input)}


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


@dataclass(frozen=True)
class Node:
    """One execution of an operator in a graph. A layer called twice is two nodes; one never called is none.

    Args:
        name: what tables call it.
        op: the operator's record.
        inputs: positions in the graph of the nodes whose arrays it reads; -1 is the network's input.
        exit: 0 for the backbone, i >= 1 for the head of exit i (the final classifier is the last head).
        shares: position of the earlier node whose weights it uses again, so that they are counted once.
    """

    name: str
    op: Operator
    inputs: tuple[int, ...]
    exit: int = 0
    shares: int | None = None


Graph = tuple[Node, ...]  # execution order: backbone up to exit 1, head 1, backbone up to exit 2, head 2, ...


def _broadcast(left: Shape, right: Shape) -> Shape | None:
    """Return the shape that both broadcast to by NumPy's rule, or None."""
    axes = max(len(left), len(right))
    pairs = zip((1,) * (axes - len(left)) + left, (1,) * (axes - len(right)) + right, strict=True)
    shape = tuple(max(a, b) if 1 in (a, b) else a * (a == b) for a, b in pairs)
    return None if 0 in shape else shape
