"""Which module of a network is running: its names, its class, and whether others stand inside it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from nachos_min.macs.torch_reader.installed import load_torch


@dataclass(frozen=True)
class Place:
    """The innermost module that is running, as `Written` describes it.

    Args:
        path: its first name in the network, "" for the network itself or none.
        module, layer, leaf, paths, training: as of `Written`; a module that is held in a plain list, where no
            tool finds it, stands under 0 paths.
    """

    path: str
    module: str
    layer: str
    leaf: bool
    paths: int
    training: bool


NOWHERE = Place("", "", "", True, 1, False)


class RunningModules:
    """Follow which modules are running, innermost last."""

    def __init__(self, root: Any) -> None:
        self._names: dict[int, list[str]] = {}
        for name, module in _named(root, ""):
            self._names.setdefault(id(module), []).append(name)
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
            return NOWHERE
        module = self._running[-1]
        names = self._names.get(id(module), [])
        return Place(
            path=names[0] if names else "",
            module=_class_name(type(module)),
            layer=_layer(type(module)),
            leaf=not any(True for _ in module.children()),
            paths=len(names),
            training=bool(module.training),
        )


def _named(module: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield modules with their names: under each parent anew, but one parent's second name for a child is none.

    That is how PyTorch lists children, and with it every tool that goes through them.
    """
    yield name, module
    for child_name, child in module.named_children():
        yield from _named(child, f"{name}.{child_name}" if name else child_name)


def _class_name(kind: type) -> str:
    own = kind.__module__.startswith("torch.nn.modules.")
    return kind.__qualname__ if own else f"{kind.__module__}.{kind.__qualname__}"


def _layer(kind: type) -> str:
    for base in kind.__mro__:
        if base.__module__.startswith("torch.nn.modules.") and base.__qualname__ != "Module":
            return base.__qualname__
    return ""
