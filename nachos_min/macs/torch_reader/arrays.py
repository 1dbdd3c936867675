"""Which node of the graph made which tensor, also after a tensor was overwritten in place.

Tensors are told apart by identity and kept alive, so that no identity is used twice. Views share their memory:
after one of them was written to, the others are read through one more node that moves the new elements in.
"""

from dataclasses import dataclass
from typing import Any

Tensor = Any


@dataclass(frozen=True)
class Made:
    """Where a tensor's elements come from.

    Args:
        position: of the node that made it, -1 for the network's input.
        writes: number of in-place writes to its memory that had been made by then.
    """

    position: int
    writes: int


class MadeBy:
    """Tensor -> the node that made it."""

    def __init__(self) -> None:
        self._made: dict[int, Made] = {}
        self._written: dict[int, list[int]] = {}
        self._alive: list[Tensor] = []

    def __contains__(self, x: Tensor) -> bool:
        return id(x) in self._made

    def put(self, x: Tensor, position: int) -> None:
        """Note that the node at `position` made `x`."""
        self._alive.append(x)
        self._made[id(x)] = Made(position, len(self._written.get(_memory(x), ())))

    def overwrite(self, x: Tensor, position: int) -> None:
        """Note that the node at `position` wrote over `x`, and with it over all that share its memory."""
        self._written.setdefault(_memory(x), []).append(position)
        self.put(x, position)

    def position(self, x: Tensor) -> int:
        """Return the node that made `x`, in-place writes through other views left aside."""
        return self._made[id(x)].position

    def later_writes(self, x: Tensor) -> list[int]:
        """Return the nodes that have since written to the memory of `x` through other views, in order."""
        return self._written.get(_memory(x), [])[self._made[id(x)].writes :]


def version(x: Tensor) -> int:
    """Return a number that grows with each in-place write to a tensor's memory; 0 if PyTorch keeps none."""
    return 0 if x.is_inference() else int(x._version)


def _memory(x: Tensor) -> int:
    """Return what tensors have in common that share their memory."""
    try:
        return int(x.untyped_storage()._cdata)
    except (NotImplementedError, RuntimeError):  # sparse and other layouts have no one piece of memory
        return id(x)
