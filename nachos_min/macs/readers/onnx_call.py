"""One ONNX node while its rule runs: what it reads, its attributes, and the ways to add what it does.

A rule returns the arrays that its node makes. Exported networks compute shapes as they run
(`x.view(x.shape[0], -1)` is four operators in a file), so NumPy carries out operators on constants, up to `FEW`
elements. A larger array is only a shape.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from inspect import signature
from math import prod
from typing import Any, Final, TypeVar, cast, final

import numpy as np

from nachos_min.macs.ops import Activation, Move, Pointwise
from nachos_min.macs.readers.builder import Builder, Step, array_shape, label, path_label, quoted, require, rows
from nachos_min.macs.readers.onnx_file import FLOATS, MAX_AXES, MAX_NUMBERS, Message, Steps, Tensor, Values
from nachos_min.macs.record import CountError, Operator, Shape, broadcast

FEW: Final = 4096
MAX_TEXT: Final = 256  # bytes of a text attribute; a mode is a word, an equation has up to 52 letters
T = TypeVar("T")
# Type of an attribute's default -> AttributeProto.AttributeType, its field, and its name in messages.
_ATTRIBUTES: Final[dict[Any, tuple[int, str, str]]] = {
    float: (1, "f", "a float"),
    int: (2, "i", "an integer"),
    str: (3, "s", "a text"),
    Tensor: (4, "t", "a tensor"),
    None: (5, "g", "a graph"),
    list: (6, "floats", "floats"),
    tuple: (7, "ints", "integers"),
    bytes: (8, "strings", "texts"),
}
MICROSOFT: Final = "com.microsoft."  # ONNX Runtime's domain
Fold = Callable[..., Any]  # NumPy's form of an operator: arrays in, an array out


@dataclass(frozen=True)
class Array:
    """An array of a network that is being read; one that no node makes is a constant."""

    shape: Shape  # () for a single number
    node: int | None = None  # position of the node that makes it, -1 for the network's input
    values: Values | None = None  # of a constant with few elements, or of what was computed from such alone
    key: str = ""  # the same for two constants if they have the same elements, whatever their axes
    trained: bool = False  # whether it is an initialiser of floating point numbers
    bounded: bool = False  # whether it may have fewer elements, which depends on the data
    parts: "tuple[Array, ...] | None" = None  # arrays of a sequence, which has no shape

    @property
    def constant(self) -> bool:
        """Whether it does not depend on the network's input."""
        return self.node is None

    @property
    def fixed(self) -> int | None:
        """The integer that it is, None if it depends on the data."""
        values = None if self.bounded else self.values
        whole = values is not None and values.size == 1 and values.dtype.kind in "iub"
        return int(values.item()) if whole and values is not None else None

    @property
    def weight(self) -> "Array":
        """The same array as a layer's weights, which are trained wherever a file keeps them."""
        return replace(self, trained=self.constant)

    @property
    def elements(self) -> int:
        return prod(self.shape)

    @property
    def counted(self) -> tuple[str, int]:
        """Key and number of trained values, as the builder takes them."""
        return self.key, self.elements if self.trained else 0


Arrays = Sequence[Array]
UNKNOWN: Final = Array((), key="?")  # what a node makes that cannot be counted


def layer_weights(*arrays: Array | None) -> tuple[Array, ...]:
    """Return the weights of a layer, without those left out."""
    return tuple(array.weight for array in arrays if array is not None)


def checked_shape(shape: Shape) -> Shape:
    """Return the shape, if an ONNX file can have it: at most 16 axes, lengths 0 to 2**63 - 1."""
    require(len(shape) <= MAX_AXES, f"an array must have at most {MAX_AXES} axes, got {len(shape)}")
    for length in shape:
        require(0 <= length < 2**63, f"an axis must have 0 to 2**63 - 1 elements, got {length}")
    return shape


def integers(what: str, values: Shape, count: int, least: int) -> Shape:
    """Return the integers of a setting, of which there must be `count`, none below `least`."""
    sound = len(values) == count and min(values, default=least) >= least
    require(sound, f"{what} must be {count} integers >= {least}, got {values[:64]}")
    return values


def from_tensor(tensor: Tensor, key: str, trainable: bool) -> Array:
    """Return a file's constant; it is trained if it may be and has more than one floating point number."""
    shape = checked_shape(tensor.dims)
    trained = trainable and tensor.data_type in FLOATS and prod(shape) > 1
    return Array(shape, None, tensor.values, key, trained)


@final
@dataclass(frozen=True)
class Call:
    """A node whose rule runs."""

    operator: str
    opset: int  # version of the operator set
    name: str
    key: str  # text that no other node's arrays have as `Array.key`
    inputs: tuple[Array | None, ...]  # None where an optional input is left out
    outputs: int  # how many arrays it must make
    attributes: Mapping[str, Message]
    builder: Builder
    steps: Steps

    # What it reads.

    def optional(self, index: int) -> Array | None:
        """Return an input, None if it is left out; CountError if it is a sequence."""
        array = self.inputs[index] if index < len(self.inputs) else None
        require(array is None or array.parts is None, f"input {index + 1} must be an array, got a sequence")
        return array

    def input(self, index: int = 0) -> Array:
        """Return an input; CountError if it is left out."""
        array = self.optional(index)
        if array is None:
            raise CountError(f"input {index + 1} must be given, got {len(self.inputs)} inputs")
        return array

    def given(self) -> tuple[Array, ...]:
        """Return all inputs that are not left out; CountError if the first is."""
        self.input()
        arrays = map(self.optional, range(len(self.inputs)))
        return tuple(array for array in arrays if array is not None)

    def sequence(self) -> tuple[Array, ...]:
        """Return the arrays of the first input; CountError if it is no sequence of known length."""
        found = self.inputs[0].parts if self.inputs and self.inputs[0] else None
        if found is None:
            raise CountError(f"input 1 must be a sequence of fixed length, got {len(self.inputs)} inputs")
        self.steps.spend(len(found))
        return found

    def fixed(self, index: int, what: str) -> tuple[int, ...]:
        """Return the integers of an input that says how the node works; CountError if they are not fixed."""
        values = self.input(index).values
        if values is None:
            raise CountError(f"its {what} must be fixed before any sample comes, got input {index + 1} computed")
        require(values.dtype.kind in "iu", f"its {what} must be integers, got {values.dtype} as input {index + 1}")
        self.steps.spend(values.size)
        return tuple(map(int, values.ravel()))

    def setting(self, attribute: str, index: int, default: tuple[int, ...]) -> tuple[int, ...]:
        """Return integers that older operator sets give as an attribute and newer ones as an input."""
        if attribute in self.attributes or self.optional(index) is None:
            return self.get(attribute, default)
        return self.fixed(index, attribute)

    # Its attributes, each of the type of its default; CountError if it is of another.

    def get(self, name: str, default: T) -> T:
        """Return an integer, a floating point number, a text or at most 4,096 integers."""
        found = self.attribute(name, type(default), default)
        return cast(T, found.decode("utf-8", "replace") if isinstance(found, bytes) else found)

    def attribute(self, name: str, kind: Any, default: Any = None) -> Any:
        """Return an attribute of a kind of `_ATTRIBUTES`."""
        number, field, what = _ATTRIBUTES[kind]
        given = self.attributes.get(name)
        if given is None:
            return default
        require(given.type == number, f"attribute {quoted(name)} must be {what}, got type {given.type}")
        found = getattr(given, field)
        if kind in (tuple, list, str, bytes):
            most, unit = (MAX_TEXT, "bytes") if kind is str else (MAX_NUMBERS, what)
            require(len(found) <= most, f"attribute {quoted(name)} must have at most {most} {unit}, got more")
            self.steps.spend(len(found))
        return found

    def axis(self, default: int, axes: int) -> int:
        """Return the attribute "axis", counted from the front."""
        return checked_axes((self.get("axis", default),), axes)[0]

    # What it does.

    def add(
        self, op: Operator, arrays: Arrays, shape: Shape, batch: int = 1, weights: Arrays = (), border: Shape = ()
    ) -> Array:
        """Return what a new node makes, which reads `arrays`, has `weights` and puts a `border` of zeros around."""
        bounded = any(array.bounded for array in (*arrays, *weights))
        if op.macs and bounded:
            raise CountError(f"the rows that it multiplies depend on the data, got at most {arrays[0].shape}")
        source = self.builder.source  # of a constant, which gets a node when it is first read
        inputs = [source(label(x.key), x.shape, x.counted) if x.node is None else x.node for x in arrays]
        trained = tuple(array.counted for array in weights if array.constant)
        step = Step(op, (), batch=batch, border=border)
        node = self.builder.add(path_label(self.name), step, tuple(inputs), trained)
        return Array(checked_shape(shape), node, bounded=bounded)

    def run(self, steps: Sequence[Step]) -> list[Array]:
        """Return what each of several steps makes."""
        made: dict[int, Array] = {}
        for step in steps:
            reads = [made[id(each)] if isinstance(each, Step) else each for each in step.reads]
            made[id(step)] = self.add(step.op, reads, step.op.output, step.batch)
        return [made[id(step)] for step in steps]

    def activation(self, array: Array, kind: str, weights: tuple[Array, ...] = ()) -> Array:
        """Return `array` through an activation, which has weights if it is prelu."""
        batch, sample = rows(array.shape)
        return self.add(Activation(sample, kind), (array,), array.shape, batch, weights)

    def elementwise(
        self, arrays: tuple[Array, ...], build: Callable[[tuple[Shape, ...]], Operator], fold: Fold | None = None
    ) -> Array:
        """Return arrays combined element by element; constants without axes are numbers and no operands.

        `build` gives the record of the operands' shapes; `fold` does the same in NumPy, for constants.
        """
        shapes = tuple(array.shape for array in arrays)
        shape = broadcast(*shapes)
        if shape is None:
            raise CountError(f"shapes must broadcast, got {shapes}")
        values = self._folded(arrays, shape, fold)
        if values is not None and not any(array.trained for array in arrays):
            return Array(shape, None, values, self.key, bounded=any(array.bounded for array in arrays))
        operands = tuple(array for array in arrays if array.shape or not array.constant) or arrays[:1]
        made = self.add(build(tuple(array_shape(array.shape) for array in operands)), operands, shape)
        return replace(made, values=values)

    def pointwise(self, kind: str, arrays: tuple[Array, ...], fold: Fold | None = None) -> Array:
        """Return what a function of each element makes."""
        return self.elementwise(arrays, partial(Pointwise, kind=kind), fold)

    def move(self, shape: Shape, fold: Fold | None, *arrays: Array, part: int = 0, border: Shape = ()) -> Array:
        """Return the elements of arrays at other places; constants are folded.

        `fold` does the same in NumPy, None if shape arithmetic does not need it; `part` numbers a node's results;
        `border` are zeros around.
        """
        checked_shape(shape)
        values = self._folded(arrays, shape, fold)
        if values is not None or prod(shape) == 0 or all(array.constant for array in arrays):
            same = len(arrays) == 1 and arrays[0].constant and arrays[0].elements == prod(shape)
            trained = any(array.constant and array.trained for array in arrays)
            key, bounded = arrays[0].key if same else f"{self.key}/{part}", any(array.bounded for array in arrays)
            return Array(shape, None, values, key, trained, bounded)
        arrays = tuple(array for array in arrays if array.elements)  # Concat may join empty ones
        shapes = tuple(array_shape(array.shape) for array in arrays)
        return self.add(Move(shapes, array_shape(shape)), arrays, shape, border=border)

    def constant(self, values: Any) -> Array:
        return Array(np.shape(values), None, np.asarray(values), self.key)

    def unknown(self, shape: Shape) -> Array:
        """Return a constant whose values are not known."""
        return Array(checked_shape(shape), key=self.key)

    def filled(self, shape: Shape, make: Callable[[], Any]) -> Array:
        """Return a constant whose values `make` gives, if they are few."""
        few = self._few(checked_shape(shape))
        return Array(shape, None, np.asarray(make()).reshape(shape) if few else None, self.key)

    def sourced(self, shape: Shape) -> Array:
        """Return an array that another graph or no operator makes."""
        return Array(shape, self.builder.given(path_label(self.name), shape))

    def _few(self, shape: Shape) -> bool:
        """Return whether a constant of this shape is computed; its elements are counted if so."""
        elements = prod(shape)
        few = max(elements, *shape, 0) <= FEW
        self.steps.spend(elements // 8 if few else 0)
        return few

    def _folded(self, arrays: tuple[Array, ...], shape: Shape, fold: Fold | None) -> Values | None:
        """Return what NumPy makes of constants, None unless all is known and small."""
        known = [each.values if each.elements else np.zeros(each.shape, int) for each in arrays]
        known = [values for values in known if values is not None]
        if fold is None or len(known) != len(arrays) or not self._few(shape):
            return None
        try:
            with np.errstate(all="ignore"):
                values = np.asarray(fold(*known))
        except (ArithmeticError, IndexError, TypeError, ValueError):
            return None  # what NumPy cannot do has no known value; a rule that needs it says so
        return values if values.shape == shape else None


Rule = Callable[[Call], Array | tuple[Array, ...]]
RULES: Final[dict[str, Rule]] = {}  # by operator; an operator without a rule is refused


def rule(*operators: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Return a decorator that makes a function the rule of operators; "~" is ONNX Runtime's domain.

    The function takes the call and then the node's inputs; one that may be left out has the default None.
    """

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        _, *reads = signature(function).parameters.values()
        left_out = [each.default is None for each in reads]

        def run(call: Call) -> Array | tuple[Array, ...]:
            inputs = (call.optional(i) if may else call.input(i) for i, may in enumerate(left_out))
            made: Array | tuple[Array, ...] = function(call, *inputs)
            return made

        RULES.update({operator.replace("~", MICROSOFT): run for operator in operators})
        return function

    return register


def checked_axes(axes: tuple[int, ...], count: int) -> tuple[int, ...]:
    """Return different axes of `count`, counted from the front; those given may be counted from the end."""
    found = tuple(axis + count if axis < 0 else axis for axis in axes)
    sound = all(0 <= axis < count for axis in found) and len(set(found)) == len(found)
    require(sound, f"axes must be different ones of {count}, got {axes}")
    return found
