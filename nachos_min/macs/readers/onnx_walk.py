"""The nodes of an ONNX file, one after another: branches, loops, functions, and what stops a count.

A branch whose condition is constant is part of the graph. Of any other `If` both branches are graphs of their own.
A function's body is put in the place of its call. A node that cannot be counted makes arrays of unknown shape;
reading goes on, so that one error lists all causes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count, zip_longest
from typing import Any, Final, final

import numpy as np

from nachos_min.macs.ops import Graph
from nachos_min.macs.readers.builder import Builder, Causes, label, path_label, quoted, require
from nachos_min.macs.readers.names import ARITIES, ATTRIBUTES
from nachos_min.macs.readers.onnx_call import RULES, UNKNOWN, Array, Call, checked_axes, from_tensor
from nachos_min.macs.readers.onnx_file import Message, Steps
from nachos_min.macs.record import CountError, Shape

MAX_DEPTH: Final = 30  # branches and functions inside one another
OLDEST: Final = 7  # operator set; before it, shapes broadcast by other rules
NEWEST: Final = 28
_STANDARD = ("", "ai.onnx")
_UNROLLED = 64  # turns of a loop that are followed one by one
_ENDLESS = 2**31 - 1  # turns, of a loop that ends by its condition
_FIRST_DECIDES = ("ScatterND", "ScatterElements", "Scatter", "TensorScatter")  # what shape an array has


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
class Scope:
    """Names that nodes can read, and where their records go."""

    steps: Steps
    builder: Builder
    opset: int
    parent: "Scope | None" = None  # the scope around, whose names can be read, too
    path: str = ""  # before the names of its arrays, so that keys differ between scopes
    home: str = ""  # before the names of its initialisers, which are the same each time it runs
    prefix: str = ""  # before the names of its nodes
    branch: str = ""  # name of the branch it is in
    attributes: Mapping[str, Message] = field(default_factory=dict)  # of the call, in a function's body
    depth: int = 0  # branches and functions around it
    times: int = 1  # how often it runs, with arrays of the same shapes
    arrays: dict[str, Array | None] = field(default_factory=dict)  # None for one whose shape is not known

    def constants(self, graph: Message) -> None:
        for tensor in graph.initializer:
            self.steps.spend(4)
            self.define(tensor.name, from_tensor(tensor, f"{self.home}/{tensor.name}", trainable=True))

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
        scope: Scope | None = self
        while scope is not None and name not in scope.arrays:
            self.steps.spend(1)
            scope = scope.parent
        self.steps.spend(1)
        if scope is None:
            raise CountError(f"must read what an earlier node, input or initialiser makes, got {quoted(name)}")
        found = scope.arrays[name]
        if found is None:
            raise CountError(f"must read an array of fixed shape, got {quoted(name)}, which no rule gives one")
        if scope.builder is not self.builder or scope.times != self.times:
            found = self.arrays[name] = self.here(name, found)
        return found

    def here(self, name: str, array: Array) -> Array:
        """Return an array of another graph, or all arrays of a sequence, as sources of this one."""
        if array.parts is not None:
            return replace(array, parts=tuple(self.here(name, part) for part in array.parts))
        return array if array.constant else replace(array, node=self.builder.given(label(name), array.shape))


@final
class Walk:
    """A walk through one model; CountError for an operator set that is not known."""

    def __init__(self, model: Message, steps: Steps) -> None:
        self.steps = steps
        self.functions = {(f.domain, f.name, f.overload): f for f in model.functions}
        self.opset = _standard_set(model.opset_import, 0)
        self.domains = {each.domain for part in (model, *model.functions) for each in part.opset_import}
        self.branches: list[Branch] = []
        self.decisions: set[str] = set()
        self.paths = (f"{scope}:" for scope in count(1))  # of scopes inside
        self.homes: dict[tuple[str, str, str], str] = {}
        self.causes = Causes()

    def body(self, nodes: Sequence[Message], scope: Scope) -> None:
        """Add nodes to a scope; what one that cannot be counted makes is unknown."""
        limit = f"branches and functions must be nested at most {MAX_DEPTH} deep"
        require(scope.depth <= MAX_DEPTH, f"{limit}, got more")
        for index, node in enumerate(nodes):
            self.steps.spend(10 + len(node.attribute) + len(node.output))
            try:
                made = self.node(node, index, scope)
                for output, array in zip_longest(node.output, made[: len(node.output)]):
                    if output:
                        scope.define(output, array)
            except CountError as error:
                if self.steps.left < 0:
                    raise
                self.steps.spend(100)
                operator = label(f"{node.domain}.{node.op_type}" if node.domain else node.op_type)
                place = f"{scope.branch}/{index}" if scope.branch else str(index)
                self.causes.add(f" ({operator}): {error}", f"node {place} {quoted(node.name)}")
                scope.arrays.update(dict.fromkeys(filter(None, node.output), UNKNOWN))

    def node(self, node: Message, index: int, scope: Scope) -> tuple[Array | None, ...]:
        """Return what one node makes, None where no rule gives a shape."""
        call = Call(
            operator=node.op_type,
            opset=scope.opset,
            name=scope.prefix + (path_label(node.name) or f"{label(node.op_type)}_{index}"),
            key=scope.path + next(iter(node.output), ""),
            inputs=tuple(scope.array(each) if each else None for each in node.input),
            outputs=len(node.output),
            attributes=_attributes(node, scope.attributes),
            builder=scope.builder,
            steps=self.steps,
        )
        name = node.op_type if node.domain in _STANDARD else f"{node.domain}.{node.op_type}"
        _check_signature(call, name)
        imported = node.domain in _STANDARD or node.domain in self.domains
        require(imported, f"its domain must be imported, got {quoted(node.domain)}")
        function = self.functions.get((node.domain, node.op_type, node.overload))
        clashes = function is not None and node.domain in _STANDARD and name in RULES
        require(not clashes, f"no rule for a function of the file that is named as an operator, got {quoted(name)}")
        flow = {"If": self.either, "Loop": self.loop, "Scan": self.scan}.get(name)
        if name not in RULES and not flow and function is None:
            raise CountError(f"no rule for counting operator {quoted(node.op_type)}")
        if any(array is UNKNOWN for array in call.inputs):
            return (UNKNOWN,) * call.outputs
        if function is not None and name not in RULES:
            return self.written_out(function, call, scope)
        if flow:
            return flow(call, scope)
        try:
            made = RULES[name](call)
        except IndexError:
            shapes = [array.shape for array in call.inputs if array]
            raise CountError(f"its arrays must have more axes or elements, got {shapes[:8]}") from None
        arrays = (made,) if isinstance(made, Array) else made
        first = node.op_type in _FIRST_DECIDES
        bounded = any(array is not None and array.bounded for array in call.inputs[: 1 if first else None])
        return tuple(replace(array, bounded=bounded) for array in arrays) if bounded or first else arrays

    # Branches.

    def either(self, call: Call, scope: Scope) -> tuple[Array | None, ...]:
        """Return what `If` makes; None for an output whose shape depends on the branch."""
        condition = call.input()
        if condition.fixed is not None:
            inner = self.within(call, scope)
            return self.inside(call, "then_branch" if condition.fixed else "else_branch", inner)
        decision, made = f"{scope.branch}/{call.name}".removeprefix("/"), []
        while decision in self.decisions:  # names of nodes need not differ
            decision += f".{len(self.decisions)}"
        self.decisions.add(decision)
        for word in ("then", "else"):
            name, builder, place = f"{decision}/{word}", Builder(self.steps.spend, scope.times), len(self.branches)
            inner = replace(self.within(call, scope, name), builder=builder, branch=name, prefix="")
            made.append(self.inside(call, f"{word}_branch", inner))
            self.branches.insert(place, Branch(name, tuple(builder.nodes), scope.branch))
        one, other = map(len, made)
        require(one == other, f"branches must make as many arrays, got {one} and {other}")
        return tuple(_joined(call, *pair) for pair in zip(*made, strict=True))

    def inside(self, call: Call, attribute: str, inner: Scope, reads: Sequence[Any] = ()) -> tuple[Array, ...]:
        """Return the outputs of a graph in an attribute, whose inputs are `reads`."""
        graph = call.attribute(attribute, None)
        require(graph is not None, f"attribute '{attribute}' must be given, got none")
        fits = len(graph.input) == len(reads) and len(graph.output) >= call.outputs
        makes = f"'{attribute}' must have {len(reads)} inputs and at least {call.outputs} outputs"
        require(fits, f"{makes}, got {len(graph.input)} and {len(graph.output)}")
        inner.constants(graph)
        for value, array in zip(graph.input, reads, strict=True):
            inner.define(value.name, array)
        self.body(graph.node, inner)
        return inner.outputs([output.name for output in graph.output])

    # Loops. A short one is followed turn by turn, so that what is constant is folded.

    def loop(self, call: Call, scope: Scope) -> tuple[Array | None, ...]:
        """Return the states after the last turn, and what each turn adds, stacked."""
        last, going, *states = (*call.inputs, None)[: max(2, len(call.inputs))]
        turns, more = (1 if array is None else array.fixed for array in (last, going))
        require(None not in (turns, more), "how often it runs depends on the data")
        turns = _ENDLESS if last is None else turns or 0
        if more and _UNROLLED < turns < _ENDLESS:
            return self.repeated(call, turns, states, (0,) * (call.outputs - len(states)), scope)
        rows: list[tuple[Array, ...]] = []
        while more and len(rows) < turns:
            self.steps.spend(100)
            given = (call.constant(len(rows)), call.constant(np.True_), *states)
            inner = self.within(call, scope, prefix=f"{call.name}/{len(rows)}/")
            go, *made = self.inside(call, "body", inner, given)
            if go is UNKNOWN:
                return (UNKNOWN,) * call.outputs
            more, states = go.fixed, [*made[: len(states)]]
            require(more is not None, "how often it runs depends on the data")
            rows.append(tuple(made[len(states) :]))
        return (*states, *(_stacked(call, arrays) for arrays in zip(*rows, strict=True)))

    def scan(self, call: Call, scope: Scope) -> tuple[Array | None, ...]:
        """Return the states after the last turn, and what each turn adds; a turn reads a slice of some arrays."""
        require(call.opset > 8, "no rule for Scan of operator set 8")
        arrays, number = call.given(), call.get("num_scan_inputs", 0)
        require(0 < number <= len(arrays), f"num_scan_inputs must be 1 to {len(arrays)}, got {number}")
        states, scanned = arrays[: len(arrays) - number], arrays[len(arrays) - number :]
        axes = call.get("scan_input_axes", (0,) * number)
        after = call.get("scan_output_axes", (0,) * (call.outputs - len(states)))
        counts = (len(axes), len(states) + len(after))
        require(counts == (number, call.outputs), f"it must have an axis for each array, got {axes} and {after}")
        places = [checked_axes((axis,), len(x.shape))[0] for axis, x in zip(axes, scanned, strict=True)]
        require(not any(array.bounded for array in scanned), "how often it runs depends on the data")
        lengths = {x.shape[place] for place, x in zip(places, scanned, strict=True)}
        require(len(lengths) == 1, f"the arrays that it scans must be of one length, got {sorted(lengths)}")
        slices = [x.shape[:place] + x.shape[place + 1 :] for place, x in zip(places, scanned, strict=True)]
        return self.repeated(call, lengths.pop(), states, after, scope, slices)

    def repeated(
        self, call: Call, turns: int, states: Any, axes: Shape, scope: Scope, slices: Sequence[Shape] | None = None
    ) -> tuple[Array | None, ...]:
        """Return what a body makes that runs `turns` times with arrays of the same shapes, counted as a batch.

        `axes`: where each output is stacked. `slices`: what a Scan's body reads besides its states.
        """
        scope.builder.times *= turns
        try:
            inner = replace(self.within(call, scope, prefix=f"{call.name}/"), times=scope.builder.times)
            reads = [each and replace(call.sourced(each.shape), bounded=each.bounded) for each in states]
            if slices is None:
                reads = [call.sourced(()), call.constant(np.True_), *reads]
            reads += [call.sourced(shape) for shape in slices or ()]
            made = list(self.inside(call, "body", inner, reads))
        finally:
            scope.builder.times //= turns
        if any(array is UNKNOWN for array in made):
            return (UNKNOWN,) * call.outputs
        if slices is None:
            require(made.pop(0).fixed, f"whether it goes on must be fixed in a loop of more than {_UNROLLED} turns")
        shapes = [array.shape for array in made[: call.outputs]]
        before, after = ([(each.shape, each.bounded) for each in part if each] for part in (states, made))
        same = before == after[: len(states)]
        same &= all(each is not None and each.parts is None for each in (*states, *made))
        require(same, f"it must read arrays that keep their shapes in a loop of more than {_UNROLLED} turns")
        for place, axis in enumerate(axes, len(states)):
            (at,) = checked_axes((axis,), len(shapes[place]) + 1)
            shapes[place] = (*shapes[place][:at], turns, *shapes[place][at:])
        return tuple(replace(call.sourced(s), bounded=x.bounded) for s, x in zip(shapes, made, strict=False))

    def within(self, call: Call, scope: Scope, word: str = "", prefix: str = "") -> Scope:
        """Return a scope inside; where it stands names its initialisers, however often it runs."""
        place = (scope.home, call.key.removeprefix(scope.path), word)
        home = self.homes.setdefault(place, f"{len(self.homes)}/")
        inner = replace(scope, parent=scope, path=next(self.paths), home=home, prefix=prefix or scope.prefix)
        return replace(inner, depth=scope.depth + 1, attributes={}, arrays={})

    # Functions.

    def written_out(self, function: Message, call: Call, scope: Scope) -> tuple[Array, ...]:
        """Return what a function makes, its body in the place of the call."""
        self.steps.spend(len(function.attribute_proto) + len(call.attributes) + len(function.opset_import))
        sizes, given = (len(function.input), len(function.output)), (len(call.inputs), call.outputs)
        fits = sizes[0] >= given[0] and sizes[1] >= given[1]
        require(fits, f"it must have up to {sizes[0]} inputs and {sizes[1]} outputs, got {given[0]} and {given[1]}")
        attributes = {each.name: each for each in function.attribute_proto} | dict(call.attributes)
        opset = _standard_set(function.opset_import, scope.opset)
        inner = self.within(call, scope, prefix=f"{call.name}/")
        inner = replace(inner, parent=None, opset=opset, attributes=attributes)
        self.steps.spend(len(function.input))
        inner.arrays.update(zip_longest(function.input, call.inputs))
        require(len(inner.arrays) == len(function.input), "the inputs of a function must have different names")
        self.body(function.node, inner)
        return inner.outputs(function.output)


def _joined(call: Call, one: Array, other: Array) -> Array | None:
    """Return what stands for an output of either branch."""
    if one is UNKNOWN or other is UNKNOWN:
        return UNKNOWN
    bounded = one.bounded or other.bounded
    alike = len(one.shape) == len(other.shape) if bounded else one.shape == other.shape
    if not alike or one.parts is not None or other.parts is not None:
        return None
    return replace(call.sourced(tuple(map(max, one.shape, other.shape))), bounded=bounded)


def _stacked(call: Call, arrays: tuple[Array, ...]) -> Array | None:
    """Return arrays of equal shape as one with an axis more."""
    if any(array is UNKNOWN for array in arrays):
        return UNKNOWN
    if len({array.shape for array in arrays}) > 1 or arrays[0].parts is not None:
        return None
    made = call.move((len(arrays), *arrays[0].shape), lambda *values: np.stack(values), *arrays)
    return replace(made, bounded=any(array.bounded for array in arrays))


def _standard_set(imports: Sequence[Message], default: int) -> int:
    """Return the version of ONNX's own operators that is imported; CountError if it is not known."""
    found: list[int] = [each.version for each in imports if each.domain in _STANDARD] or [default]
    if not OLDEST <= found[-1] <= NEWEST:
        raise CountError(f"the operator set must be {OLDEST} to {NEWEST}, got {found[-1] or 'none'}")
    return found[-1]


def _check_signature(call: Call, name: str) -> None:
    """Check what a node has and how many arrays it reads and makes, if its operator is known."""
    least, most, outputs = ARITIES.get(name, (1, 1, 1))
    inputs, known = len(call.inputs), name in RULES or name in ARITIES
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
