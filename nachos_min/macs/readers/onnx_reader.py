"""An ONNX file as graphs of records, for any convention to count: `read_onnx`.

Shapes are computed operator by operator from the inputs' shapes. A file does not say which initialisers were
trained: all of more than one floating point number are, once an operator reads them, except running statistics of
batch norm. Initialisers that two nodes read count once in each graph.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count, zip_longest
from typing import Final, final

from nachos_min.macs.ops import Graph
from nachos_min.macs.readers import onnx_layers, onnx_moves
from nachos_min.macs.readers.builder import Builder, label, quoted, require
from nachos_min.macs.readers.names import ARITIES, ATTRIBUTES
from nachos_min.macs.readers.onnx_call import RULES, Array, Call, checked_shape, from_tensor
from nachos_min.macs.readers.onnx_file import Message, Steps, declared_lengths, load
from nachos_min.macs.record import CountError, Shape

MAX_DEPTH: Final = 30  # branches and functions inside one another
OLDEST: Final = 7  # operator set; before it, shapes broadcast by other rules
NEWEST: Final = 28
_STANDARD = ("", "ai.onnx")
_RULES = (onnx_layers, onnx_moves)  # files whose rules register themselves in RULES
Length = int | str  # a number, or the name of one that the file leaves open


@final
@dataclass(frozen=True)
class Branch:
    """One branch of an `If` whose condition depends on the data; arrays of the graph around it are sources."""

    name: str  # such as "If_12/then"; an `If` inside gives "If_12/else/If_3/then"
    graph: Graph
    inside: str = ""  # the branch around its `If`

    @property
    def decision(self) -> str:
        """Name of its `If`, which each of the two branches has."""
        return self.name.rpartition("/")[0]


@final
@dataclass(frozen=True)
class OnnxReading:
    """What an ONNX file computes."""

    graph: Graph  # what always runs
    branches: tuple[Branch, ...]  # of each `If` that depends on the data, those inside others after them
    inputs: dict[str, Shape]  # shapes used, by name, in the file's order


def read_onnx(path: str | os.PathLike[str], input_shapes: Mapping[str, Shape] | Shape | None = None) -> OnnxReading:
    """Return what an ONNX file of operator sets 7 to 28 computes, as records; weights' values are not read.

    `input_shapes` have the batch axis: one for the first input, or several by name; None if the file says them all,
    or leaves no more open than the number of samples: then it is 1. CountError, one line, whatever the file.
    """
    steps = Steps()
    model = load(path, steps)
    sets = len(model.opset_import)
    require(model.graph is not None, f"no ONNX file: it has no graph, got {sets} operator sets only")
    shapes = _input_shapes(model.graph, input_shapes)
    walk = _Walk(model, steps)
    scope = _Scope(steps, Builder(steps.spend), walk.opset)
    scope.constants(model.graph)
    for position, (name, shape) in enumerate(shapes.items()):
        scope.define(name, Array(shape, scope.builder.given(label(name), shape) if position else -1))
    walk.body(model.graph.node, scope)
    for value in model.graph.output:
        require(value.name in scope.arrays, f"an output must be made by some node, got {quoted(value.name)}")
        made = scope.arrays[value.name]
        declared = declared_lengths(value)
        if declared is not None and made is not None:
            known = tuple(length if isinstance(length, int) else "?" for length in declared)
            what = f"output {quoted(value.name)} is declared as {_listed(declared)}"
            require(_agree(made.shape, known, {}), f"{what}, its operators make {made.shape}")
    return OnnxReading(tuple(scope.builder.nodes), tuple(walk.branches), shapes)


# Shapes of the inputs: what the file declares, completed by what the user gives. A name stands for one length.


def _input_shapes(graph: Message, given: Mapping[str, Shape] | Shape | None) -> dict[str, Shape]:
    """Return the shape of each input that is no initialiser, in the file's order."""
    fixed = {tensor.name for tensor in graph.initializer}
    declared: dict[str, tuple[Length, ...] | None] = {}
    for value in graph.input:
        require(value.name not in declared, f"every input must have its own name, got {quoted(value.name)} twice")
        if value.name not in fixed:
            declared[value.name] = _declared(value)
    names = list(declared)
    if isinstance(given, tuple):
        require(names, f"the network has no input, got shape {given}")
        given = {names[0]: given}
    given = given or {}
    listed = ", ".join(label(known) for known in names[:8]) or "none"
    for name in given:
        require(name in declared, f"inputs are {listed}, got a shape for {quoted(name)}")
    lengths: dict[str, int] = {}
    for name, shape in given.items():
        sound = isinstance(shape, tuple) and all(type(length) is int and length >= 1 for length in shape)
        require(sound, f"a shape must be integers >= 1, got {shape!r} for input {quoted(name)}")
        known = declared[name]
        checked_shape(shape)
        if known is not None and not _agree(shape, known, lengths):
            raise CountError(f"input {quoted(name)} is declared as {_listed(known)}, got {shape}")
    first = next(iter(names), "")
    batch, *others = declared.get(first) or ("?",)
    if isinstance(batch, str) and batch != "?" and others and batch not in others:
        lengths.setdefault(batch, 1)
    return {n: given[n] if n in given else _completed(n, declared[n], lengths, n == first) for n in names}


def _declared(value: Message) -> tuple[Length, ...] | None:
    named = f"input {quoted(value.name)}"
    require(value.type and value.type.tensor_type, f"{named} must be a tensor, got another type or none")
    declared = declared_lengths(value)
    if declared is not None:
        checked_shape((1,) * len(declared))
        positive = all(isinstance(length, str) or length >= 1 for length in declared)
        require(positive, f"{named} must have lengths >= 1, got {_listed(declared)}")
    return declared


def _agree(shape: Shape, declared: tuple[Length, ...], lengths: dict[str, int]) -> bool:
    """Return whether a shape is as declared, and note in `lengths` what the named lengths are."""
    if len(shape) != len(declared):
        return False
    for length, known in zip(shape, declared, strict=True):
        if length != (known if isinstance(known, int) else lengths.get(known, length)):
            return False
        if isinstance(known, str) and known != "?":
            lengths[known] = length
    return True


def _completed(name: str, declared: tuple[Length, ...] | None, lengths: dict[str, int], first: bool) -> Shape:
    """Return the shape of an input that is not given; the error says how to give it."""
    if declared is None:
        raise CountError(f"input {quoted(name)} has no declared shape: give it with --input, got none")
    shape = tuple(lengths.get(length, 0) if isinstance(length, str) else length for length in declared)
    if 0 in shape:
        usual = (1, 3, 224, 224) if len(shape) == 4 else (1,) * len(shape)
        filled = tuple(length or filling for length, filling in zip(shape, usual, strict=True))
        way = f"--input {','.join(map(str, filled))}" if first else f"read_onnx(..., {{{label(name)!r}: {filled}}})"
        raise CountError(f"input {quoted(name)} has dynamic dimensions {_listed(declared)}: give them with {way}")
    return shape


def _listed(declared: tuple[Length, ...]) -> str:
    return f"({', '.join(label(str(length)) for length in declared)})"


# The nodes, one after another. A branch whose condition is constant is part of the graph. Of any other `If` both
# branches are graphs of their own. A function's body is put in the place of its call.


@final
@dataclass(frozen=True)
class _Scope:
    """Names that nodes can read, and where their records go."""

    steps: Steps
    builder: Builder
    opset: int
    parent: "_Scope | None" = None  # the scope around, whose names can be read, too
    path: str = ""  # before the names of its arrays, so that keys differ between scopes
    prefix: str = ""  # before the names of its nodes
    branch: str = ""  # name of the branch it is in
    attributes: Mapping[str, Message] = field(default_factory=dict)  # of the call, in a function's body
    arrays: dict[str, Array | None] = field(default_factory=dict)  # None for one whose shape is not known

    def constants(self, graph: Message) -> None:
        for tensor in graph.initializer:
            self.steps.spend(4)
            self.define(tensor.name, from_tensor(tensor, self.path + tensor.name, trainable=True))

    def define(self, name: str, array: Array | None) -> None:
        self.steps.spend(1)
        if name in self.arrays:
            raise CountError(f"every array must be made once, got {quoted(name)} twice")
        self.arrays[name] = array

    def outputs(self, names: Sequence[str]) -> tuple[Array, ...]:
        """Return arrays by name. One that is listed often is looked up once."""
        self.steps.spend(len(names))
        made = {name: self.array(name) for name in dict.fromkeys(names)}
        return tuple([made[name] for name in names])

    def array(self, name: str) -> Array:
        """Return the array of a name; one from another graph becomes a source of this one."""
        scope: _Scope | None = self
        while scope is not None and name not in scope.arrays:
            self.steps.spend(1)
            scope = scope.parent
        self.steps.spend(1)
        if scope is None:
            raise CountError(f"must read what an earlier node, input or initialiser makes, got {quoted(name)}")
        found = scope.arrays[name]
        if found is None:
            raise CountError(f"must read an array of fixed shape, got {quoted(name)}, which no rule gives one")
        if scope.builder is not self.builder:
            if not found.constant:
                found = replace(found, node=self.builder.given(label(name), found.shape))
            self.arrays[name] = found
        return found


@final
class _Walk:
    """A walk through one model; CountError for an operator set that is not known."""

    def __init__(self, model: Message, steps: Steps) -> None:
        self.steps = steps
        self.functions = {(f.domain, f.name, f.overload): f for f in model.functions}
        self.opset = _standard_set(model.opset_import, 0)
        self.domains = {each.domain for part in (model, *model.functions) for each in part.opset_import}
        self.branches: list[Branch] = []
        self.decisions: set[str] = set()
        self.paths = (f"{scope}:" for scope in count(1))  # of scopes inside

    def body(self, nodes: Sequence[Message], scope: _Scope, depth: int = 0) -> None:
        """Add nodes to a scope."""
        require(depth <= MAX_DEPTH, f"branches and functions must be nested at most {MAX_DEPTH} deep, got more")
        for index, node in enumerate(nodes):
            try:
                self.steps.spend(10 + len(node.attribute) + len(node.output))
                self.node(node, index, scope, depth)
            except CountError as error:
                if str(error).startswith("node "):  # a node inside says already where it is
                    raise
                operator = label(f"{node.domain}.{node.op_type}" if node.domain else node.op_type)
                place = f"{scope.branch}/{index}" if scope.branch else index
                raise CountError(f"node {place} {quoted(node.name)} ({operator}): {error}") from None

    def node(self, node: Message, index: int, scope: _Scope, depth: int) -> None:
        """Add one node to a scope."""
        call = Call(
            operator=node.op_type,
            opset=scope.opset,
            name=scope.prefix + (label(node.name) or f"{label(node.op_type)}_{index}"),
            key=scope.path + next(iter(node.output), ""),
            inputs=tuple(scope.array(each) if each else None for each in node.input),
            outputs=len(node.output),
            attributes=_attributes(node, scope.attributes),
            builder=scope.builder,
            steps=self.steps,
        )
        function = self.functions.get((node.domain, node.op_type, node.overload))
        if node.domain in _STANDARD:
            _check_signature(call)
        else:
            require(node.domain in self.domains, f"its domain must be imported, got {quoted(node.domain)}")
        made: Array | tuple[Array | None, ...]
        if node.domain in _STANDARD and node.op_type in RULES:
            made = RULES[node.op_type](call)
        elif node.domain in _STANDARD and node.op_type == "If":
            made = self.either(call, scope, depth)
            require(call.outputs <= len(made), f"a branch must make {call.outputs} outputs, got {len(made)}")
        elif function is not None:
            made = self.written_out(function, call, scope, depth)
        else:
            raise CountError(f"no rule for counting operator {quoted(node.op_type)}")
        arrays = (made,) if isinstance(made, Array) else made
        for place, output in enumerate(node.output):
            if output:
                scope.define(output, arrays[place] if place < len(arrays) else None)

    def either(self, call: Call, scope: _Scope, depth: int) -> tuple[Array | None, ...]:
        """Return what `If` makes; None for an output whose shape depends on the branch."""
        condition = call.input().values
        if condition is not None and condition.size == 1:
            inner = replace(scope, parent=scope, path=next(self.paths), attributes={}, arrays={})
            return self.branch(call, "then" if condition.any() else "else", inner, depth)
        decision, shapes = f"{scope.branch}/{call.name}".removeprefix("/"), []
        if decision in self.decisions:  # names of nodes need not differ
            decision += f".{len(self.decisions)}"
        self.decisions.add(decision)
        for word in ("then", "else"):
            name = f"{decision}/{word}"
            inner = _Scope(self.steps, Builder(self.steps.spend), scope.opset, scope, next(self.paths), branch=name)
            place = len(self.branches)
            shapes.append([array.shape for array in self.branch(call, word, inner, depth)])
            self.branches.insert(place, Branch(name, tuple(inner.builder.nodes), scope.branch))
        one, other = map(len, shapes)
        require(one == other, f"branches must make as many arrays, got {one} and {other}")
        return tuple(call.sourced(a) if a == b else None for a, b in zip(*shapes, strict=True))

    def branch(self, call: Call, word: str, inner: _Scope, depth: int) -> tuple[Array, ...]:
        """Return the outputs of one branch."""
        graph = call.attribute(f"{word}_branch", None)
        require(graph is not None, f"attribute '{word}_branch' must be given, got none")
        inner.constants(graph)
        self.body(graph.node, inner, depth + 1)
        return inner.outputs([output.name for output in graph.output])

    def written_out(self, function: Message, call: Call, scope: _Scope, depth: int) -> tuple[Array, ...]:
        """Return what a function makes, its body in the place of the call."""
        self.steps.spend(len(function.attribute_proto) + len(call.attributes) + len(function.opset_import))
        sizes, given = (len(function.input), len(function.output)), (len(call.inputs), call.outputs)
        fits = sizes[0] >= given[0] and sizes[1] >= given[1]
        require(fits, f"it must have up to {sizes[0]} inputs and {sizes[1]} outputs, got {given[0]} and {given[1]}")
        attributes = {each.name: each for each in function.attribute_proto} | dict(call.attributes)
        opset = _standard_set(function.opset_import, scope.opset)
        names = next(self.paths), f"{call.name}/", scope.branch
        inner = _Scope(self.steps, scope.builder, opset, None, *names, attributes)
        self.steps.spend(len(function.input))
        inner.arrays.update(zip_longest(function.input, call.inputs))
        require(len(inner.arrays) == len(function.input), "the inputs of a function must have different names")
        self.body(function.node, inner, depth + 1)
        return inner.outputs(function.output)


def _standard_set(imports: Sequence[Message], default: int) -> int:
    """Return the version of ONNX's own operators that is imported; CountError if it is not known."""
    found: list[int] = [each.version for each in imports if each.domain in _STANDARD] or [default]
    if not OLDEST <= found[-1] <= NEWEST:
        raise CountError(f"the operator set must be {OLDEST} to {NEWEST}, got {found[-1] or 'none'}")
    return found[-1]


def _check_signature(call: Call) -> None:
    """Check what a node of ONNX's own has and how many arrays it reads and makes, if its operator is known."""
    least, most, outputs = ARITIES.get(call.operator, (1, 1, 1))
    inputs, known = len(call.inputs), call.operator in RULES or call.operator in ARITIES
    if known and (unknown := call.attributes.keys() - ATTRIBUTES):
        raise CountError(f"attributes must be those of ONNX's operators, got {quoted(min(unknown))}")
    if known and not (least <= inputs <= most and call.outputs <= outputs):
        rule = f"it must have {least} to {most} inputs and up to {outputs} outputs"
        raise CountError(f"{rule}, got {inputs} and {call.outputs}")


def _attributes(node: Message, outer: Mapping[str, Message]) -> dict[str, Message]:
    """Return a node's attributes; one that stands for an attribute of a function's call is put in its place."""
    found: dict[str, Message] = {}
    for each in node.attribute:
        if each.name in found:
            raise CountError(f"attribute {quoted(each.name)} must be given once, got it twice")
        if not each.ref_attr_name:
            found[each.name] = each
        elif each.ref_attr_name in outer:
            found[each.name] = outer[each.ref_attr_name]
    return found
