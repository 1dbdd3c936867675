"""The graph as a module runs: which node made each tensor, and which module was running.

Tensors are told apart by identity and kept alive, so that no identity is used twice. Views share their memory:
after one of them was written to, the others are read through one more node that moves the new elements in.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass, replace
from importlib import import_module
from typing import Any

from nachos_min.macs.ops import Graph, Move, Written
from nachos_min.macs.readers.builder import Builder, Step, Weight
from nachos_min.macs.record import CountError, Shape, name

Tensor = Any  # a torch.Tensor: PyTorch is untyped here, so that types can be checked where it is not installed


def load_torch() -> Any:
    """Return the module `torch`, imported when it is first needed; CountError if it is not installed."""
    try:
        return import_module("torch")
    except ImportError as error:
        raise CountError(f"PyTorch must be installed to read a module, got {error}") from None


def tensors_in(values: object) -> Iterator[Tensor]:
    """Yield the tensors of nested tuples, lists, dictionaries and dataclasses, in order."""
    if isinstance(values, load_torch().Tensor):
        yield values
    elif isinstance(values, tuple | list):
        for value in values:
            yield from tensors_in(value)
    elif isinstance(values, dict):
        yield from tensors_in(list(values.values()))
    elif is_dataclass(values) and not isinstance(values, type):
        yield from tensors_in([getattr(values, field.name) for field in fields(values)])


def shape_of(x: Tensor) -> Shape:
    """Return a tensor's shape as records have it: that of a single number is (1,)."""
    return tuple(int(length) for length in x.shape) or (1,)


def version(x: Tensor) -> int:
    """Return a number that grows with each in-place write to a tensor's memory; 0 if PyTorch keeps none."""
    return 0 if x.is_inference() else int(x._version)


@dataclass(frozen=True)
class Place:
    """The innermost module that is running, as `Written` describes it.

    Args:
        path: its first name in the network, "" for the network itself or none.
        module, layer, leaf, paths, training: as of `Written`.
    """

    path: str = ""
    module: str = ""
    layer: str = ""
    leaf: bool = True
    paths: int = 1
    training: bool = False


class RunningModules:
    """Which modules of a network are running, innermost last."""

    def __init__(self, root: Any) -> None:
        self._names: dict[int, list[str]] = {}
        for path, module in _named(root, ""):
            self._names.setdefault(id(module), []).append(path)
        self._running: list[Any] = []

    @contextmanager
    def followed(self) -> Iterator[None]:
        """Hook every module's start and end; the hooks are gone afterwards, whatever happens."""
        hooks = load_torch().nn.modules.module
        before = hooks.register_module_forward_pre_hook(self._enter)
        after = hooks.register_module_forward_hook(self._leave, always_call=True)
        try:
            yield
        finally:
            before.remove()
            after.remove()

    def _enter(self, module: Any, _args: object) -> None:
        self._running.append(module)

    def _leave(self, module: Any, _args: object, _output: object) -> None:
        while self._running and self._running.pop() is not module:
            pass

    def innermost(self) -> Place:
        """Return the innermost module that is running."""
        if not self._running:
            return Place()
        module = self._running[-1]
        kind = type(module)
        own = kind.__module__.startswith("torch.nn.modules.")
        names = self._names.get(id(module), [])
        return Place(
            path=names[0] if names else "",
            module=kind.__qualname__ if own else f"{kind.__module__}.{kind.__qualname__}",
            layer=_layer(kind),
            leaf=not any(True for _ in module.children()),
            paths=len(names),
            training=bool(module.training),
        )


def _named(module: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield modules with their names: under each parent anew, but one parent's second name for a child is none."""
    yield path, module
    for name_of_child, child in module.named_children():
        yield from _named(child, f"{path}.{name_of_child}" if path else name_of_child)


def _layer(kind: type) -> str:
    for base in kind.__mro__:
        if base.__module__.startswith("torch.nn.modules.") and base.__qualname__ != "Module":
            return base.__qualname__
    return ""


class Recording:
    """Nodes in execution order, and where every tensor comes from."""

    def __init__(self, inputs: object) -> None:
        """Begin with the network's first array, which is -1; any other becomes a source when it is read."""
        self._builder = Builder()
        self._weights_from: dict[int, tuple[int, ...]] = {}  # node -> nodes that computed its weights
        self._made: dict[int, tuple[int, int]] = {}  # tensor -> its node, and earlier in-place writes to its memory
        self._writes: dict[int, list[int]] = {}  # memory -> nodes that wrote to it in place
        self._alive: list[Tensor] = []
        first = next(tensors_in(inputs))
        self._samples = shape_of(first)[0]
        self._put(first, -1)

    def knows(self, x: Tensor) -> bool:
        """Return whether `x` comes from a node or is the network's input."""
        return id(x) in self._made

    def add(self, steps: Iterable[Step], changed: set[int], function: str, place: Place) -> None:
        """Append one call's steps as nodes.

        Args:
            steps: what the call comes to.
            changed: identities of the tensors that it wrote over.
            function: how the call was spelt.
            place: the module that made the call.
        """
        made: dict[int, int] = {}
        for step in steps:
            inputs = tuple(
                made[id(source)] if isinstance(source, Step) else self.position(source, place)
                for source in step.reads
            )
            computed = tuple(self.position(x, place) for x in step.weights if self.knows(x))
            position = made[id(step)] = self._append(step, inputs, function, place)
            self._weights_from[position] = computed
            for x in step.makes:
                if id(x) in changed:
                    self._writes.setdefault(_memory(x), []).append(position)
                self._put(x, position)

    def same(self, result: Tensor, source: Tensor, place: Place) -> None:
        """Note that `result` is the array `source` under another name."""
        self._put(result, self.position(source, place))

    def position(self, x: Tensor, place: Place) -> int:
        """Return the node that a tensor is read from; one that no node made becomes a source."""
        if not self.knows(x):
            written = self._as_written("", place)
            self._put(x, self._builder.source(_label("Source", place), shape_of(x), self._weight(x), written))
        seen = self._made[id(x)][1]
        for write in self._writes.get(_memory(x), [])[seen:]:
            node = self._builder.nodes[write]
            move = Step(Move((shape_of(x), (node.batch, *node.op.output)), shape_of(x)), ())
            self._put(x, self._append(move, (self._made[id(x)][0], write), "", place))
        return self._made[id(x)][0]

    def _put(self, x: Tensor, position: int) -> None:
        self._alive.append(x)
        self._made[id(x)] = (position, len(self._writes.get(_memory(x), ())))

    def _append(self, step: Step, inputs: tuple[int, ...], function: str, place: Place) -> int:
        written = self._as_written(function, place, step.padding, step.facts)
        own_layer = place.path and place.module == place.layer and function
        label = place.path if own_layer else _label(function or name(step.op), place)
        weights = [self._weight(x) for x in step.weights]
        return self._builder.add(label, step.op, inputs, step.batch, weights, written)

    def _weight(self, x: Tensor) -> Weight:
        self._alive.append(x)
        return id(x), int(x.numel()) if isinstance(x, load_torch().nn.Parameter) else 0

    def _as_written(
        self, function: str, place: Place, padding: str = "", known: frozenset[str] = frozenset()
    ) -> Written:
        return Written(
            function=function,
            module=place.module,
            layer=place.layer,
            leaf=place.leaf,
            paths=place.paths,
            training=place.training,
            padding=padding,
            samples=self._samples,
            facts=known - ({"statistics"} if place.training else set()),
        )

    def graph(self, outputs: object) -> Graph:
        """Return all nodes; those that `outputs` do not depend on are marked as not used.

        A value read with .item(), such as the confidence that decides a branch, does not count as a use.
        """
        nodes = self._builder.nodes
        waiting = [self._made[id(x)][0] for x in tensors_in(outputs) if self.knows(x)]
        used: set[int] = set()
        while waiting:
            position = waiting.pop()
            if position >= 0 and position not in used:
                used.add(position)
                waiting += [*nodes[position].inputs, *self._weights_from.get(position, ())]
        return tuple(
            node
            if position in used or node.written is None
            else replace(node, written=replace(node.written, used=False))
            for position, node in enumerate(nodes)
        )


def _label(spelt: str, place: Place) -> str:
    return f"{place.path} {spelt}".strip()


def _memory(x: Tensor) -> int:
    """Return what tensors have in common that share their memory."""
    try:
        return int(x.untyped_storage()._cdata)
    except (NotImplementedError, RuntimeError):  # sparse and other layouts have no one piece of memory
        return id(x)
