"""A graph of records while it is put together: nodes, constants that become nodes, weights used again.

Read `ops.py` and `arrays.py` first. A constant gets a node (`Source`) when the first operator reads it as an
array; what a convolution, linear layer or norm has as weights belongs to its record and gets none.
"""

from dataclasses import replace
from typing import Final, final

from nachos_min.macs.onnx_reader.arrays import Array
from nachos_min.macs.onnx_reader.labels import label
from nachos_min.macs.ops import Node, Source
from nachos_min.macs.record import CountError, Operator, Shape

MAX_NODES: Final = 100_000
MAX_VALUES: Final = 4_000_000  # of all constants that are computed: 32 MB


@final
class Budget:
    """How much work a file has asked for in all its graphs; CountError when it is more than any network does."""

    def __init__(self) -> None:
        self.nodes = 0
        self.inputs = 0
        self.values = 0

    def spend_node(self, inputs: int) -> None:
        """Count a node of the file and what it reads."""
        self.nodes += 1
        self.inputs += inputs
        if self.nodes > MAX_NODES or self.inputs > 4 * MAX_NODES:
            raise CountError(
                f"a network must have at most {MAX_NODES} nodes, functions written out, and {4 * MAX_NODES} "
                f"inputs of nodes, got more"
            )

    def allows_values(self, elements: int) -> bool:
        """Return whether a constant of so many elements may still be computed, and count it if so."""
        allowed = self.values + elements <= MAX_VALUES
        self.values += elements * allowed
        return allowed


@final
class Assembly:
    """The nodes of one graph so far.

    Args:
        budget: shared by all graphs of a file.
    """

    def __init__(self, budget: Budget) -> None:
        self.nodes: list[Node] = []
        self.budget = budget
        self._sources: dict[str, int] = {}
        self._layers: dict[tuple[str, ...], int] = {}
        self._credited: set[str] = set()

    def add(
        self,
        name: str,
        op: Operator,
        inputs: tuple[int, ...],
        batch: int = 1,
        shares: int | None = None,
        trained: int | None = None,
    ) -> int:
        """Return the position of a new node, whose fields these are."""
        self.nodes.append(Node(label(name), op, inputs, batch=batch, relaid=True, shares=shares, trained=trained))
        return len(self.nodes) - 1

    def position(self, array: Array) -> int:
        """Return the node that makes an array; a constant gets one when it is first read."""
        if array.node is not None:
            return array.node
        if array.key not in self._sources:
            op = Source(record_shape(array.shape), self._credit(array))
            self._sources[array.key] = self.add(array.key, op, ())
        return self._sources[array.key]

    def layer(
        self, name: str, op: Operator, inputs: tuple[int, ...], batch: int, weights: tuple[Array, ...]
    ) -> int:
        """Return the position of a new node that has weights; if an earlier one has the same, it shares them.

        Args:
            name: of the node.
            op: its record.
            inputs: nodes it reads.
            batch: samples.
            weights: what it has learnt; weights that nodes make, or that are not trained, count nothing here.
        """
        new = sum(self._credit(array) for array in weights)
        keys = tuple(array.key for array in weights if array.constant)
        first = self._layers.setdefault(keys, len(self.nodes))
        if new == 0 and keys and first < len(self.nodes) and self.nodes[first].op.params == op.params:
            return self.add(name, op, inputs, batch, shares=first)
        return self.add(name, op, inputs, batch, trained=None if new == op.params else new)

    def _credit(self, array: Array) -> int:
        """Return the trained values of a constant that no node has counted yet."""
        if not array.trained or not array.constant or array.key in self._credited:
            return 0
        self._credited.add(array.key)
        return array.elements

    def outside(self, array: Array, name: str) -> Array:
        """Return an array of another graph as one of this graph's."""
        if array.constant:
            return array
        return replace(array, node=self.add(name, Source(record_shape(array.shape)), ()))


def record_shape(shape: Shape) -> Shape:
    """Return the shape as records have it: a single number is (1,)."""
    return shape or (1,)


def rows(shape: Shape) -> tuple[int, Shape]:
    """Return samples and the shape of one, of an array whose first axis is samples if it has a second."""
    return (shape[0], shape[1:]) if len(shape) > 1 else (1, record_shape(shape))


def maps(shape: Shape, what: str) -> tuple[int, Shape]:
    """Return samples and (H, W, C) of one, of an array (N, C, H, W) or (N, C, L), which has height 1.

    Args:
        shape: of the array.
        what: operator that reads it, for the message.

    Raises:
        CountError: other axes.
    """
    if len(shape) == 4:
        return shape[0], (shape[2], shape[3], shape[1])
    if len(shape) == 3:
        return shape[0], (1, shape[2], shape[1])
    raise CountError(f"no rule for {what} over {max(len(shape) - 2, 0)} axes, got {shape}")
