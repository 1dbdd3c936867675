"""The graph as a module runs: which node made each tensor, and which module was running.

Tensors are not kept alive: what is known of one is valid while its weak reference is. Views share memory: after a
write to one of them, the others are read through a further node that moves the new elements in.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import fields, is_dataclass, replace
from functools import cache
from importlib import import_module
from itertools import count
from threading import local
from typing import Any, NamedTuple
from weakref import ref

from nachos_min.macs.ops import Conv, ConvTranspose, Graph, Move, Written
from nachos_min.macs.readers.builder import Builder, Step, Weight
from nachos_min.macs.record import CountError, Operator, Shape, name

Tensor = Any  # a torch.Tensor: PyTorch is untyped here, so that types can be checked where it is not installed


@cache
def load_torch() -> Any:
    """Return the module `torch`, imported when it is first needed; CountError if it is not installed."""
    try:
        return import_module("torch")
    except ImportError as error:
        raise CountError(f"PyTorch must be installed to read a module, got {error}") from None


def tensors_in(values: object) -> Iterator[Tensor]:
    """Return the tensors of nested tuples, lists, mappings and dataclasses, in order."""
    found: list[Tensor] = []
    _gather((values,), load_torch().Tensor, found)
    return iter(found)


_PLAIN = frozenset((int, float, bool, str, type(None)))  # what holds no tensors, and is often met


def _gather(values: Iterable[Any], kind: type, found: list[Tensor]) -> None:
    for value in values:
        if isinstance(value, kind):
            found.append(value)
        elif type(value) in _PLAIN:
            continue
        elif isinstance(value, tuple | list):
            _gather(value, kind, found)
        elif type(value) is dict or isinstance(value, Mapping):
            _gather(list(value.values()), kind, found)
        elif is_dataclass(value) and not isinstance(value, type):
            _gather([getattr(value, field.name) for field in fields(value)], kind, found)


def shape_of(x: Tensor) -> Shape:
    """Return a tensor's shape as records have it: that of a single number is (1,)."""
    return tuple(map(int, x.shape)) or (1,)


def versions(tensors: list[Tensor]) -> list[int]:
    """Return numbers that grow with each in-place write to a tensor's memory; 0 if PyTorch keeps none."""
    try:
        return [x._version for x in tensors]
    except RuntimeError:  # made in inference mode
        return [0 if x.is_inference() else x._version for x in tensors]


Place = tuple[str, Written]  # the innermost module that is running: its first name, and how it is written


class RunningModules:
    """Which modules of a network are running, innermost last."""

    def __init__(self, root: Any) -> None:
        self._names: dict[int, list[str]] = {}
        for path, module in _named(root, ""):
            self._names.setdefault(id(module), []).append(path)
        self._here = _Running()
        self._places: dict[tuple[int, bool], Place] = {}

    @contextmanager
    def followed(self, listening: Callable[[], AbstractContextManager[None]]) -> Iterator[None]:
        """Hook modules' starts and ends, and make a thread that runs one listen; the hooks are gone afterwards."""

        def enter(module: Any, _args: object) -> None:
            self._here.running.append(module)
            if len(self._here.running) == 1 and id(module) in self._names:
                self._here.listening.enter_context(listening())

        def leave(module: Any, _args: object, _output: object) -> None:
            running = self._here.running
            while running and running.pop() is not module:
                pass
            if not running:
                self._here.listening.close()

        hooks = load_torch().nn.modules.module
        before = hooks.register_module_forward_pre_hook(enter)
        after = hooks.register_module_forward_hook(leave, always_call=True)
        try:
            yield
        finally:
            before.remove()
            after.remove()

    def innermost(self) -> Place:
        """Return the innermost module that is running in this thread."""
        running = self._here.running
        if not running:
            return "", Written("")
        module = running[-1]
        key = id(module), _training(module)
        place = self._places.get(key)
        if place is None:
            place = self._place(module)
            if id(module) in self._names:
                self._places[key] = place
        return place

    def _place(self, module: Any) -> Place:
        names = self._names.get(id(module), [])
        kind: Any = type(module)
        leaf = next(module.children(), None) is None
        written = Written("", *_class(kind), leaf, paths=len(names), training=_training(module))
        return names[0] if names else "", written


@cache
def _class(kind: Any) -> tuple[str, str]:
    """Return the names of a module's class, and of the class of torch.nn that it is or derives from."""
    own = [each for each in kind.__mro__ if each.__module__.startswith("torch.nn.modules.")]
    layers = [each.__qualname__ for each in own if each.__qualname__ != "Module"]
    return ("" if kind in own else f"{kind.__module__}.") + kind.__qualname__, layers[0] if layers else ""


class _Running(local):
    """The modules that run in a thread, and what it listens with because of them."""

    def __init__(self) -> None:
        self.running: list[Any] = []
        self.listening = ExitStack()


def _training(module: Any) -> bool:
    return bool(getattr(module, "training", False))  # frozen TorchScript has no flag


def _named(module: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Yield modules with their names: under each parent anew, but one parent's second name for a child is none."""
    yield path, module
    for name_of_child, child in module.named_children():
        yield from _named(child, f"{path}.{name_of_child}" if path else name_of_child)


_WEIGHT = -2  # in the place of a node: that of a weight which no node made


class _Known(NamedTuple):
    """What is known of a tensor."""

    tensor: Any  # a weak reference: another tensor may later have the same identity
    serial: int  # which no other tensor ever has
    node: int  # that made it
    writes: int  # in-place writes to its memory before


class Recording:
    """Nodes in execution order, and where every tensor comes from; the network's first array is -1."""

    def __init__(self, inputs: object) -> None:
        self._builder = Builder()
        self._weights_from: dict[int, tuple[int, ...]] = {}  # node -> nodes that computed its weights
        self._known: dict[int, _Known] = {}  # by a tensor's identity
        self._serials = count()
        self._writes: dict[int, list[int]] = {}  # memory -> nodes that wrote to it in place
        first = next(tensors_in(inputs))
        self._samples = shape_of(first)[0] or 1
        self._put(first, -1)

    def _find(self, x: Tensor) -> _Known | None:
        known = self._known.get(id(x))
        return known if known and known.tensor() is not None else None

    def knows(self, x: Tensor) -> bool:
        """Return whether `x` comes from a node or is the network's input."""
        known = self._find(x)
        return known is not None and known.node != _WEIGHT

    def add(
        self, steps: Iterable[Step], changed: set[int], function: str, place: Place, of_complex: bool = False
    ) -> None:
        """Append the steps of a call, spelt `function`, that wrote over the tensors with identities `changed`."""
        made: dict[int, int] = {}
        for step in steps:
            inputs = tuple(made[id(x)] if isinstance(x, Step) else self.position(x, place) for x in step.reads)
            computed = tuple(self.position(x, place) for x in step.weights if self.knows(x))
            real = real_products(step.op) if of_complex else 1
            position = made[id(step)] = self._append(step, inputs, function, place, real)
            if computed:
                self._weights_from[position] = computed
            for x in step.makes:
                if id(x) in changed:
                    self._writes.setdefault(memory(x), []).append(position)
                self._put(x, position)

    def same(self, result: Tensor, source: Tensor, place: Place) -> None:
        """Note that `result` is the array `source` under another name."""
        self._put(result, self.position(source, place))

    def position(self, x: Tensor, place: Place) -> int:
        """Return the node that a tensor is read from; one that no node made becomes a source."""
        known = self._find(x)
        if known is None or known.node == _WEIGHT:
            label, written = f"{place[0]} Source".strip(), replace(place[1], samples=self._samples)
            known = self._put(x, self._builder.source(label, shape_of(x), self._weight(x), written))
        for write in self._writes.get(memory(x), [])[known.writes :] if self._writes else ():
            node = self._builder.nodes[write]
            move = Step(Move((shape_of(x), (node.batch, *node.op.output)), shape_of(x)), ())
            known = self._put(x, self._append(move, (known.node, write), "", place))
        return known.node

    def _put(self, x: Tensor, position: int) -> _Known:
        before = self._find(x)
        serial = before.serial if before else next(self._serials)
        writes = len(self._writes.get(memory(x), ())) if self._writes else 0
        known = self._known[id(x)] = _Known(ref(x), serial, position, writes)
        return known

    def _append(self, step: Step, inputs: tuple[int, ...], function: str, place: Place, real: int = 1) -> int:
        path, module = place
        known = module.facts | step.facts if module.facts else step.facts
        known = known - {"statistics"} if module.training else known
        about = module.module, module.layer, module.leaf, module.paths, True, module.training
        written = Written(function, *about, step.padding, self._samples, known)
        own_layer = path and module.module == module.layer and function
        label = path if own_layer else f"{path} {function or name(step.op)}".strip()
        weights = [self._weight(x) for x in step.weights]
        return self._builder.add(label, step, inputs, weights, written, real)

    def _weight(self, x: Tensor) -> Weight:
        known = self._find(x) or self._put(x, _WEIGHT)
        return known.serial, int(x.numel()) if isinstance(x, load_torch().nn.Parameter) else 0

    def graph(self, outputs: object) -> Graph:
        """Return all nodes; those that `outputs` do not depend on are not used. Reading with .item() is no use."""
        nodes = self._builder.nodes
        waiting = [self._known[id(x)].node for x in tensors_in(outputs) if self.knows(x)]
        used: set[int] = set()
        while waiting:
            position = waiting.pop()
            if position >= 0 and position not in used:
                used.add(position)
                waiting += [*nodes[position].inputs, *self._weights_from.get(position, ())]
        return tuple(
            node if position in used else replace(node, written=node.written and replace(node.written, used=False))
            for position, node in enumerate(nodes)
        )


def real_products(op: Operator) -> int:
    """Return the real multiplications of a product of complex numbers: PyTorch's convolutions need one less."""
    return 3 if isinstance(op, Conv | ConvTranspose) else 4


def memory(x: Tensor) -> int:
    """Return what tensors have in common that share their memory."""
    try:
        return int(x.untyped_storage()._cdata)
    except (NotImplementedError, RuntimeError):  # sparse and other layouts have no one piece of memory
        return id(x)
