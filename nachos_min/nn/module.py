"""Modules: objects that own parameters and buffers, and know their names.

A `Module` finds its parameters (Tensor attributes), buffers (array attributes, such as running statistics) and
children (Module attributes, or lists of modules) among its attributes, in the order in which `__init__` assigned
them. Left out: hooks, devices, parameters shared under two names.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from nachos_min.autograd import Tensor

Array = np.ndarray[Any, np.dtype[Any]]


class Module(ABC):
    """A part of a network. Subclasses assign their parameters in `__init__` and define `__call__`."""

    training: bool = True

    @abstractmethod
    def __call__(self, x: Tensor) -> Any:
        """Return the module's output for `x`."""

    def children(self) -> Iterator[tuple[str, "Module"]]:
        """Yield (name, child) for every Module attribute; members of a list are named `attribute.index`."""
        for name, value in vars(self).items():
            if isinstance(value, Module):
                yield name, value
            elif isinstance(value, list):
                for index, member in enumerate(value):
                    if isinstance(member, Module):
                        yield f"{name}.{index}", member

    def named_parameters(self, prefix: str = "") -> dict[str, Tensor]:
        """Return every parameter below this module by its dotted name."""
        found = {prefix + name: value for name, value in vars(self).items() if isinstance(value, Tensor)}
        for name, child in self.children():
            found.update(child.named_parameters(f"{prefix}{name}."))
        return found

    def named_buffers(self, prefix: str = "") -> dict[str, Array]:
        """Return every buffer (state that no gradient changes) below this module by its dotted name."""
        found = {prefix + name: value for name, value in vars(self).items() if isinstance(value, np.ndarray)}
        for name, child in self.children():
            found.update(child.named_buffers(f"{prefix}{name}."))
        return found

    def train(self, mode: bool = True) -> None:
        """Switch this module and all below it to training, or to inference if `mode` is False."""
        self.training = mode
        for _, child in self.children():
            child.train(mode)

    def _arrays(self) -> dict[str, Array]:
        """Return the arrays of all parameters, then all buffers, by dotted name."""
        parameters = {name: tensor.data for name, tensor in self.named_parameters().items()}
        return parameters | self.named_buffers()

    def state(self) -> dict[str, Array]:
        """Return copies of all parameters and buffers by dotted name: what must be stored to rebuild it."""
        return {name: array.copy() for name, array in self._arrays().items()}

    def load_state(self, state: Mapping[str, Array]) -> None:
        """Copy what `state()` returned into this module, in place: an optimiser that holds the tensors keeps them.

        Raises:
            ValueError: if a name is missing or unknown, or a shape differs. Nothing was copied then.
        """
        own = self._arrays()
        if unequal := sorted(own.keys() ^ state.keys()):
            where = "missing" if unequal[0] in own else "unknown"
            raise ValueError(f"state: {where} name {unequal[0]!r}")
        for name, target in own.items():
            if target.shape != state[name].shape:
                raise ValueError(f"state: {name!r} has shape {state[name].shape}, expected {target.shape}")
        for name, target in own.items():
            target[...] = state[name]

    def astype(self, dtype: type[np.floating[Any]]) -> None:
        """Convert every parameter and buffer to float32 or, for gradient checks, float64; gradients are dropped."""
        for name, value in vars(self).items():
            if isinstance(value, Tensor):
                value.data, value.grad = value.data.astype(dtype), None
            elif isinstance(value, np.ndarray):
                setattr(self, name, value.astype(dtype))
        for _, child in self.children():
            child.astype(dtype)
