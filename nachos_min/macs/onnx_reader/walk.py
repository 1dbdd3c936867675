"""The nodes of an ONNX model one after another, each by its rule; branches of `If`, and functions, among them.

Read `call.py` and `rules.py` first. A branch whose condition is fixed before any sample comes is part of the
graph. Of any other `If` both branches are graphs of their own, and what it makes is given to the graph around it
(a `Source`). A function's body is put in the place of its call.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, final

from nachos_min.macs.onnx_reader.arrays import Array, from_tensor
from nachos_min.macs.onnx_reader.assembly import Assembly, Budget
from nachos_min.macs.onnx_reader.attributes import Attributes
from nachos_min.macs.onnx_reader.call import Call
from nachos_min.macs.onnx_reader.labels import label, quoted, shortened
from nachos_min.macs.onnx_reader.rules import RULES
from nachos_min.macs.ops import Graph
from nachos_min.macs.record import CountError

MAX_DEPTH: Final = 30  # branches and functions inside one another
OLDEST: Final = 7  # operator set; before it, shapes broadcast by other rules
_STANDARD = ("", "ai.onnx")


class LocatedError(CountError):
    """A CountError that says at which node."""


@final
@dataclass(frozen=True)
class Branch:
    """One branch of an `If` whose condition depends on the data.

    Args:
        name: of the `If` and which branch, such as "If_12/then"; an `If` inside gives "If_12/else/If_3/then".
        graph: its nodes; arrays of the graph around it are sources.
    """

    name: str
    graph: Graph


@final
@dataclass(frozen=True)
class _Scope:
    """Names that nodes can read, and where their records go.

    Args:
        assembly: the graph.
        opset: version of the operator set.
        parent: the scope around, whose names can be read, too.
        path: before the names of its arrays, so that keys differ between scopes.
        prefix: before the names of its nodes.
        branch: name of the branch it is in.
        attributes: of the call, in a function's body.
        arrays: by name; None for one whose shape is not known.
    """

    assembly: Assembly
    opset: int
    parent: "_Scope | None" = None
    path: str = ""
    prefix: str = ""
    branch: str = ""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    arrays: dict[str, Array | None] = field(default_factory=dict)

    def define(self, name: str, array: Array | None) -> None:
        if name in self.arrays:
            raise CountError(f"every array must be made once, got {quoted(name)} twice")
        self.arrays[name] = array

    def array(self, name: str) -> Array:
        """Return the array of a name; one from another graph becomes a source of this one."""
        scope: _Scope | None = self
        while scope is not None and name not in scope.arrays:
            scope = scope.parent
        if scope is None:
            raise CountError(f"must read what an earlier node, input or initialiser makes, got {quoted(name)}")
        found = scope.arrays[name]
        if found is None:
            raise CountError(
                f"must read an array whose shape is fixed, got {quoted(name)}, which no rule gives one"
            )
        if scope.assembly is not self.assembly:
            found = self.assembly.outside(found, name)
            self.arrays[name] = found
        return found


@final
class Walk:
    """A walk through one model.

    Args:
        model: onnx.ModelProto.
        newest: newest operator set known.

    Raises:
        CountError: an operator set that is not known.
    """

    def __init__(self, model: Any, newest: int) -> None:
        self.functions = {(f.domain, f.name, f.overload): f for f in model.functions}
        self.newest = newest
        self.opset = self.standard_set(model.opset_import, 0)
        self.branches: list[Branch] = []
        self.budget = Budget()
        self.scopes = 0

    def standard_set(self, imports: Any, default: int) -> int:
        """Return the version of ONNX's own operators that is imported; CountError if it is not known."""
        found = [int(each.version) for each in imports if each.domain in _STANDARD] or [default]
        if not OLDEST <= found[-1] <= self.newest:
            raise CountError(f"the operator set must be {OLDEST} to {self.newest}, got {found[-1] or 'none'}")
        return found[-1]

    def path(self) -> str:
        """Return what keys begin with in one more scope."""
        self.scopes += 1
        return f"{self.scopes}:"

    def root(self) -> "_Scope":
        """Return the scope of the model's own graph, still empty."""
        return _Scope(Assembly(self.budget), self.opset)

    def body(self, graph: Any, scope: "_Scope", depth: int = 0) -> None:
        """Add the nodes of a graph or function to a scope."""
        if depth > MAX_DEPTH:
            raise CountError(f"branches and functions must be nested at most {MAX_DEPTH} deep, got more")
        for index, node in enumerate(graph.node):
            try:
                self.budget.spend_node(len(node.input))
                self.node(node, index, scope, depth)
            except LocatedError:
                raise
            except CountError as error:
                operator = label(f"{node.domain}.{node.op_type}" if node.domain else node.op_type)
                where = f"node {scope.branch}{'/' if scope.branch else ''}{index} {quoted(node.name)} ({operator})"
                raise LocatedError(shortened(f"{where}: {error}")) from None

    def constants(self, graph: Any, scope: "_Scope") -> None:
        """Add the initialisers of a graph to a scope."""
        for tensor in graph.initializer:
            scope.define(tensor.name, from_tensor(tensor, scope.path + tensor.name, trainable=True))

    def node(self, node: Any, index: int, scope: "_Scope", depth: int) -> None:
        """Add one node to a scope."""
        name = scope.prefix + (label(node.name) or f"{label(node.op_type)}_{index}")
        call = Call(
            operator=node.op_type,
            opset=scope.opset,
            name=name,
            key=scope.path + next(iter(node.output), ""),
            inputs=tuple(scope.array(each) if each else None for each in node.input),
            outputs=len(node.output),
            attributes=Attributes(node.attribute, scope.attributes),
            assembly=scope.assembly,
        )
        function = self.functions.get((node.domain, node.op_type, node.overload))
        if node.domain in _STANDARD and node.op_type in RULES:
            made: tuple[Array | None, ...] = RULES[node.op_type](call)
        elif node.domain in _STANDARD and node.op_type == "If":
            made = self.either(call, scope, depth)
        elif function is not None:
            made = self.written_out(function, call, scope, depth)
        else:
            raise CountError(f"no rule for counting operator {quoted(node.op_type)}")
        for place, output in enumerate(node.output):
            if output:
                scope.define(output, made[place] if place < len(made) else None)

    def either(self, call: Call, scope: "_Scope", depth: int) -> tuple[Array | None, ...]:
        """Return what `If` makes; None for an output whose shape depends on the branch."""
        condition = call.input().values
        if condition is not None and condition.size == 1:
            word = "then" if condition.any() else "else"
            inner = _Scope(scope.assembly, scope.opset, scope, self.path(), scope.prefix, scope.branch)
            return self.branch(call, word, inner, depth)
        name = f"{scope.branch}/{call.name}" if scope.branch else call.name
        shapes = []
        for word in ("then", "else"):
            inner = _Scope(Assembly(self.budget), scope.opset, scope, self.path(), branch=f"{name}/{word}")
            place = len(self.branches)
            shapes.append([array.shape for array in self.branch(call, word, inner, depth)])
            self.branches.insert(place, Branch(inner.branch, tuple(inner.assembly.nodes)))
        if len(shapes[0]) != len(shapes[1]):
            raise CountError(f"branches must make as many arrays, got {len(shapes[0])} and {len(shapes[1])}")
        return tuple(call.sourced(a) if a == b else None for a, b in zip(*shapes, strict=True))

    def branch(self, call: Call, word: str, inner: "_Scope", depth: int) -> tuple[Array, ...]:
        """Return the arrays that one branch hands out."""
        graph = call.attributes.graph(f"{word}_branch")
        self.constants(graph, inner)
        self.body(graph, inner, depth + 1)
        return tuple(inner.array(output.name) for output in graph.output)

    def written_out(self, function: Any, call: Call, scope: "_Scope", depth: int) -> tuple[Array, ...]:
        """Return what a function makes, its body in the place of the call."""
        attributes = {proto.name: proto for proto in function.attribute_proto} | call.attributes.protos
        opset = self.standard_set(function.opset_import, scope.opset)
        inner = _Scope(
            scope.assembly, opset, None, self.path(), f"{call.name}/", scope.branch, attributes=attributes
        )
        for formal, array in zip(function.input, call.inputs, strict=False):
            inner.define(formal, array)
        for formal in function.input[len(call.inputs) :]:
            inner.define(formal, None)
        self.body(function, inner, depth + 1)
        return tuple(inner.array(output) for output in function.output)
