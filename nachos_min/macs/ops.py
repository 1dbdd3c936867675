"""One frozen record per operator: its shapes, and from them its multiplications, parameters and other work.

A network is a `Graph`: nodes in execution order. One MAC is one multiplication whose product feeds an accumulator,
in a convolution, transposed convolution, linear or recurrent layer or matrix product. Other work has columns:

    bias_adds         output elements that get a bias            norm_elems  elements normalised
    act_elems:<kind>  elements through an activation, by kind    mul_elems   elements of a product
    pool_in pool_out  elements into and out of a pool            add_elems   elements of a sum
    mean_out          elements out of a mean   pointwise:<kind> reduce_in:<kind> resize_out:<mode>  the rest
    interpolation     products of values read between pixels   fft_ops  real operations of Fourier transforms

`macs` counts taps on padded zeros; `valid_macs` leaves them out. Convolutions and pools are in `windows.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from math import log2, prod
from typing import TypeVar

from nachos_min.macs.record import CountError, MapOperator, Operator, Shape, UnaryOperator, broadcast
from nachos_min.macs.windows import AvgPool as AvgPool
from nachos_min.macs.windows import Conv as Conv
from nachos_min.macs.windows import Conv2d as Conv2d
from nachos_min.macs.windows import ConvTranspose as ConvTranspose
from nachos_min.macs.windows import ConvTranspose2d as ConvTranspose2d
from nachos_min.macs.windows import MaxPool as MaxPool
from nachos_min.macs.windows import Pool


class Linear(UnaryOperator, plural="linear layers"):
    """Linear layer over the last axis; every other axis is rows: rows * in * out MACs."""

    out_features: int
    bias: bool = True

    @property
    def output(self) -> Shape:
        return (*self.input[:-1], self.out_features)

    @property
    def macs(self) -> int:
        return prod(self.input) * self.out_features

    @property
    def params(self) -> int:
        return (self.input[-1] + self.bias) * self.out_features


class MatMul(Operator, plural="matrix products"):
    """Matrix product (..., m, k) times (..., k, n); leading axes broadcast: batch * m * k * n MACs."""

    left: Shape
    right: Shape

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(len(self.left) >= 2, "left must have at least 2 axes", self.left)
        self.require(len(self.right) >= 2, "right must have at least 2 axes", self.right)
        both = f"{self.left} times {self.right}"
        self.require(self.left[-1] == self.right[-2], "inner lengths must be equal", both)
        self.require(broadcast(self.left[:-2], self.right[:-2]) is not None, "leading axes must broadcast", both)

    @property
    def output(self) -> Shape:
        return (*(broadcast(self.left[:-2], self.right[:-2]) or ()), self.left[-2], self.right[-1])

    @property
    def macs(self) -> int:
        return prod(self.output) * self.left[-1]


class Einsum(Operator, plural="Einstein sums"):
    """Einstein sum of one or two arrays: the product of all lengths in MACs, if a letter is summed over.

    Where no letter is summed over, nothing is accumulated: the elements are products (`mul_elems`) or, with one
    array, only moved.

    Args:
        equation: such as "nchw,oc->nohw": one letter per axis, no spaces or dots, the output stated.
        shapes: one per array, its axes as the equation has them; 1 where an axis is broadcast.

    >>> Einsum("nchw,oc->nohw", ((1, 8, 16, 16), (16, 8))).macs == 16 * 16 * 8 * 16
    True
    """

    equation: str
    shapes: tuple[Shape, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        _, arrow, result = self.equation.partition("->")
        letters = "".join(self.terms)
        sound = bool(arrow) and (not letters or letters.isalpha()) and set(result) <= set(letters)
        sound &= len(set(result)) == len(result)
        self.require(sound, "equation must be such as 'ij,jk->ik'", repr(self.equation))
        self.require(len(self.shapes) <= 2, "must have one or two arrays", len(self.shapes))
        fits = list(map(len, self.terms)) == list(map(len, self.shapes))
        self.require(fits, f"equation {self.equation!r} must fit the shapes", self.shapes)
        letter_lengths(self.terms, self.shapes)

    @property
    def terms(self) -> list[str]:
        """Letters of each array's axes."""
        return self.equation.partition("->")[0].split(",")

    @property
    def lengths(self) -> dict[str, int]:
        """Length of the axis that each letter stands for."""
        return letter_lengths(self.terms, self.shapes)

    @property
    def sums(self) -> bool:
        """Whether a letter is summed over."""
        return bool(set("".join(self.terms)) - set(self.equation.partition("->")[2]))

    @property
    def output(self) -> Shape:
        lengths = self.lengths
        return tuple(lengths[letter] for letter in self.equation.partition("->")[2])

    @property
    def macs(self) -> int:
        return prod(self.lengths.values()) if len(self.shapes) == 2 and self.sums else 0

    @property
    def columns(self) -> dict[str, int]:
        return {"mul_elems": prod(self.output)} if len(self.shapes) == 2 and not self.sums else {}


def letter_lengths(terms: Sequence[str], shapes: Sequence[Shape]) -> dict[str, int]:
    """Return the length of each letter's axes, of which some may be 1; CountError if the others differ."""
    found: dict[str, int] = {}
    axes = list(zip("".join(terms), chain(*shapes), strict=True))
    for letter, length in axes:
        found[letter] = max(length, found.get(letter, 1))
    for letter, length in axes:
        if length not in (1, found[letter]):
            raise CountError(f"Einsum: axis {letter} must have length {found[letter]}, got {length}")
    return found


# What one step of a recurrent layer does for each hidden value: gates, products, and activations by kind.
_CELLS: dict[str, tuple[int, int, dict[str, int]]] = {
    "lstm": (4, 3, {"sigmoid": 3, "tanh": 2}),
    "gru": (3, 3, {"sigmoid": 2, "tanh": 1}),
    "rnn_tanh": (1, 0, {"tanh": 1}),
    "rnn_relu": (1, 0, {"relu": 1}),
}


class Recurrent(UnaryOperator, plural="recurrent layers"):
    """One layer and direction of a recurrent network: T * gates * H * (I + R) MACs, and T * H * P of a projection.

    T steps read I features and the R that the step before made: P if the state is projected, else H.

    Args:
        input: (T, I); of packed sequences T is the number of elements in all.
        kind: "lstm", "gru", "rnn_tanh" or "rnn_relu".
        hidden: H, features of the state.
        projection: P, 0 for none.
        biases: vectors of gates * H that are added, 2 in PyTorch and ONNX.

    >>> Recurrent((5, 3), "lstm", hidden=4).macs == 5 * 4 * 4 * (3 + 4)
    True
    """

    kind: str
    hidden: int
    projection: int = 0
    biases: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.kind in _CELLS, f"kind must be one of {', '.join(_CELLS)}", self.kind)
        self.require(len(self.input) == 2, "input must be (T, I)", self.input)

    @property
    def output(self) -> Shape:
        return (self.input[0], self.projection or self.hidden)

    @property
    def gates(self) -> int:
        """Gates of each hidden value."""
        return _CELLS[self.kind][0]

    @property
    def _weights(self) -> int:
        """Weights of all gates and of the projection; every step multiplies by each once."""
        return self.gates * self.hidden * (self.input[1] + self.output[1]) + self.hidden * self.projection

    @property
    def macs(self) -> int:
        return self.input[0] * self._weights

    @property
    def params(self) -> int:
        return self._weights + self.biases * self.gates * self.hidden

    @property
    def columns(self) -> dict[str, int]:
        gates, products, activations = _CELLS[self.kind]
        states = self.input[0] * self.hidden
        found = {"bias_adds": self.biases * gates * states, "mul_elems": products * states}
        return found | {f"act_elems:{kind}": each * states for kind, each in activations.items()}


class Transform(UnaryOperator, plural="Fourier transforms", column="fft_ops"):
    """Fourier transforms of `length` points over all elements, the work of each estimated as 5 n log2 n.

    A product of a transform feeds no accumulator here: it is no MAC. The estimate is the usual one, rounded.

    Source: Frigo and Johnson, "The Design and Implementation of FFTW3", section 4.
    """

    length: int

    @property
    def columns(self) -> dict[str, int]:
        each = round(5 * self.length * log2(self.length))
        return {"fft_ops": prod(self.input) // self.length * each}


class Norm(UnaryOperator, column="norm_elems"):
    """Every element is normalised once; `affine` trains a scale and a shift for each channel, the last axis."""

    @property
    def affine(self) -> bool:
        """Whether it has them: a field of each record below."""
        return False

    @property
    def params(self) -> int:
        return 2 * self.input[-1] * self.affine


class BatchNorm(Norm, plural="batch norm"):
    """Normalisation per channel, the same work in training and inference."""

    affine: bool = True


class LayerNorm(Norm, plural="layer norm"):
    """Normalisation over the last `axes` axes, with a scale (`affine`) and a shift (`bias`) for each feature."""

    axes: int = 1
    affine: bool = True
    bias: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(self.axes <= len(self.input), f"axes must be <= {len(self.input)}", self.axes)

    @property
    def params(self) -> int:
        return prod(self.input[-self.axes :]) * (self.affine + self.bias)


class GroupNorm(Norm, plural="group norm"):
    """Normalisation over groups of channels of each sample."""

    groups: int
    affine: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        channels = self.input[-1]
        self.require(channels % self.groups == 0, f"groups must divide {channels} channels", self.groups)


class InstanceNorm(Norm, plural="instance norm"):
    """Normalisation of each channel of each sample."""

    affine: bool = False


class Activation(UnaryOperator, plural="{0.kind} activations", column="act_elems:{0.kind}"):
    """Element-wise function, counted in a column of its kind, such as "relu" or "hswish"."""

    kind: str


class Softmax(UnaryOperator, plural="softmax", column="act_elems:softmax"):
    """Exponentials divided by their sum along one axis of length `features`; counted as an activation."""

    features: int

    def __post_init__(self) -> None:
        super().__post_init__()
        elements, divides = prod(self.input), prod(self.input) % (self.features or 1) == 0
        self.require(divides, f"features must divide {elements} elements", self.features)


class _Elementwise(Operator):
    """Arrays combined element by element, broadcast to one shape; a number is no array, so one shape will do."""

    shapes: tuple[Shape, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        self.require(len(self.shapes) > 0, "shapes must be a tuple of at least one", self.shapes)
        self.require(broadcast(*self.shapes) is not None, "shapes must broadcast", self.shapes)

    @property
    def output(self) -> Shape:
        return broadcast(*self.shapes) or ()


class Add(_Elementwise, plural="element-wise sums", column="add_elems"):
    """Element-wise sum, such as a residual connection."""


class Multiply(_Elementwise, plural="element-wise products", column="mul_elems"):
    """Element-wise product, such as squeeze-and-excitation's scaling of a map (H, W, C) by (C,): no MAC."""


class Pointwise(_Elementwise, plural="element-wise {0.kind}", column="pointwise:{0.kind}"):
    """Any other element-wise operator, counted in a column of its kind, such as "sub", "div" or "exp"."""

    kind: str


class GlobalAvgPool(MapOperator, plural="the mean over the map", column="mean_out"):
    """Mean over the map: (H, W, C) to (C,)."""

    @property
    def output(self) -> Shape:
        return self.input[-1:]


class _Resized(MapOperator):
    """A map of another size."""

    size: Shape

    @property
    def output(self) -> Shape:
        return (*self.size, self.input[-1])


class AdaptiveAvgPool(_Resized, Pool, plural="adaptive average pooling"):
    """Means of as many windows as the output has pixels; to one pixel it is the mean over the map."""

    @property
    def columns(self) -> dict[str, int]:
        return {"mean_out": self.input[-1]} if set(self.size) == {1} else super().columns


class AdaptiveMaxPool(_Resized, Pool, plural="adaptive max pooling"):
    """Largest values of as many windows as the output has pixels."""


class Resize(_Resized, plural="resizing", column="resize_out:{0.mode}"):
    """Interpolation of a map by a mode such as "nearest" or "bilinear"."""

    mode: str


class Reduce(UnaryOperator, plural="reductions"):
    """Reduction of a kind such as "mean", "sum" or "max" to the shape `result`; a single number is (1,)."""

    result: Shape
    kind: str

    def __post_init__(self) -> None:
        super().__post_init__()
        divides = prod(self.input) % (prod(self.result) or 1) == 0
        self.require(divides, f"result must divide the {prod(self.input)} elements", self.result)

    @property
    def columns(self) -> dict[str, int]:
        is_mean = self.kind == "mean"
        return {"mean_out": prod(self.result)} if is_mean else {f"reduce_in:{self.kind}": prod(self.input)}


class Flatten(UnaryOperator, plural="flattening"):
    """The same numbers as one vector: (H, W, C) to (H * W * C,). Nothing is computed or copied."""

    @property
    def output(self) -> Shape:
        return (prod(self.input),)


class Slice(UnaryOperator, plural="slicing"):
    """The numbers `begin` up to `end` of the last axis, such as the logits of a head. Nothing is computed."""

    begin: int
    end: int

    def __post_init__(self) -> None:
        super().__post_init__()
        least, most = self.begin + 1, self.input[-1]
        self.require(least <= self.end <= most, f"end must be from {least} to {most}", self.end)

    @property
    def output(self) -> Shape:
        return (*self.input[:-1], self.end - self.begin)


class Source(Operator, plural="given arrays"):
    """An array that no operator makes: another input, a constant, a parameter of which `trained` are trained."""

    shape: Shape
    trained: int = 0

    @property
    def output(self) -> Shape:
        return self.shape

    @property
    def params(self) -> int:
        return self.trained


class Move(Operator, plural="moving elements"):
    """Elements at other places: reshaped, permuted, sliced, padded, repeated, joined, looked up in a table."""

    shapes: tuple[Shape, ...]
    result: Shape


class Sample(Operator, plural="values between pixels"):
    """Values read between pixels, each a sum of `products`: 4 for a bilinear point, 8 for a trilinear one.

    Where several points are averaged, as by roi_align, `products` is that of all. It is a column of its own.
    """

    shapes: tuple[Shape, ...]
    result: Shape
    products: int

    @property
    def columns(self) -> dict[str, int]:
        return {"interpolation": self.products * prod(self.result)}


@dataclass(frozen=True)
class Written:
    """How a node was written in PyTorch. The exact count depends on shapes alone; other tools' counts do not.

    Args:
        function: what Python called: "F.conv2d" (also for torch.conv2d, the same), "Tensor.add", "x + y", or
            an expression that is one operator here: "x * relu6(x + 3) / 6", "relu6(x + 3) / 6", "mean(3).mean(2)".
        module: class of the innermost module that was running: a bare name for one of torch.nn ("Conv2d"), with its
            package for any other ("timm.layers.SqueezeExcite"); "" outside any module.
        layer: the class of torch.nn that `module` is or derives from ("Conv2d"), "" if none but Module.
        leaf: whether that module has no modules inside.
        paths: under how many parents' names that module stands in the network, 0 if it is kept in a plain list.
        used: whether the network's output depends on the node.
        training: whether the module was in training mode.
        padding: "same" or "valid" when a convolution's padding was given by that word.
        samples: first axis of the network's first input.
        facts: what else the shapes do not show. "vector": a product's right array had one axis; "strided": the rows
            that a weight or vector multiplies are not one matrix without a copy; "swapped": they are, with one
            index of the second axis; "size": an interpolation was told its output's size, "side": by one number;
            "dots": an Einstein sum's equation had some; "unbatched": a layer's array had no axis of samples;
            "statistics": a norm used its input's, not its own; "slopes": PReLU has one for each channel; "fused":
            attention was executed as one operator; "scaled": a product whose first array attention scales;
            "causal": one of which attention masks what comes later; "taken": the caller took the function out of
            its module before, as by `from torch.nn.functional import relu`; "packed": a recurrent layer was given
            a packed sequence.
    """

    function: str
    module: str = ""
    layer: str = ""
    leaf: bool = True
    paths: int = 1
    used: bool = True
    training: bool = False
    padding: str = ""
    samples: int = 1
    facts: frozenset[str] = frozenset()


_Kind = TypeVar("_Kind", bound=Operator)


@dataclass(frozen=True)
class Node:
    """One execution of an operator in a graph. A layer called twice is two nodes; one never called is none.

    Args:
        name: what tables call it.
        op: the operator's record, of one sample.
        inputs: positions in the graph of the nodes whose arrays it reads; -1 is the network's input.
        exit: 0 for the backbone, i >= 1 for the head of exit i (the final classifier is the last head).
        shares: position of the earlier node whose weights it uses again, so that they are counted once.
        batch: samples in this one execution, >= 0; work is multiplied by it.
        relaid: whether arrays arrive with other axes, as from a file; then elements must agree, not shapes.
        written: how it was written in PyTorch; None for a network that never was.
        trained: trained values that it brings, if not its operator's `params` (some are computed or constant).
        real: real multiplications of one product: 4 of two complex numbers, 3 in the form that needs more sums.
    """

    name: str
    op: Operator
    inputs: tuple[int, ...]
    exit: int = 0
    shares: int | None = None
    batch: int = 1
    relaid: bool = False
    written: Written | None = None
    trained: int | None = None
    real: int = 1

    def op_as(self, *kinds: type[_Kind]) -> _Kind:
        """Return the operator, which the caller knows to be of one of these kinds."""
        assert isinstance(self.op, kinds)
        return self.op

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the batch, taps on padded zeros included."""
        return self.batch * self.op.macs * self.real

    @property
    def valid_macs(self) -> int:
        """The same without taps on padded zeros."""
        return self.batch * self.op.valid_macs * self.real

    @property
    def params(self) -> int:
        """Trained values, 0 where an earlier node's are shared."""
        if self.shares is not None:
            return 0
        return self.op.params if self.trained is None else self.trained

    @property
    def columns(self) -> dict[str, int]:
        """Work of the batch that is not a MAC, the columns it touches."""
        return {column: self.batch * amount for column, amount in self.op.columns.items()}


Graph = tuple[Node, ...]  # execution order: backbone up to exit 1, head 1, backbone up to exit 2, head 2, ...
