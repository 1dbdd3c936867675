"""The attributes of an ONNX node, each read as the type that its operator's rule expects.

Read `labels.py` first. In the body of a function an attribute can stand for one of the call's; those are put in
their place here.
"""

from collections.abc import Mapping
from typing import Any, Final, final

from nachos_min.macs.onnx_reader.labels import quoted
from nachos_min.macs.record import CountError

_FLOAT, _INT, _STRING, _TENSOR, _GRAPH, _FLOATS, _INTS = 1, 2, 3, 4, 5, 6, 7  # AttributeProto.AttributeType
_NAMES = {_FLOAT: "a float", _INT: "an integer", _STRING: "a text", _TENSOR: "a tensor", _GRAPH: "a graph"} | {
    _FLOATS: "floats",
    _INTS: "integers",
}
MOST: Final = 4096  # numbers in a list: windows have two, a split may have hundreds


@final
class Attributes:
    """Attributes of one node by name.

    Args:
        protos: the node's AttributeProtos.
        outer: attributes of the call whose function's body the node is in.

    Raises:
        CountError: an attribute is given twice.
    """

    def __init__(self, protos: Any, outer: Mapping[str, Any]) -> None:
        self.protos: dict[str, Any] = {}
        for proto in protos:
            if proto.name in self.protos:
                raise CountError(f"attribute {quoted(proto.name)} must be given once, got it twice")
            if not proto.ref_attr_name:
                self.protos[proto.name] = proto
            elif proto.ref_attr_name in outer:
                self.protos[proto.name] = outer[proto.ref_attr_name]

    def __contains__(self, name: str) -> bool:
        return name in self.protos

    def integer(self, name: str, default: int) -> int:
        """Return an integer attribute; CountError if it is none."""
        proto = self._get(name, _INT)
        return default if proto is None else int(proto.i)

    def number(self, name: str, default: float) -> float:
        """Return a floating point attribute; CountError if it is none."""
        proto = self._get(name, _FLOAT)
        return default if proto is None else float(proto.f)

    def text(self, name: str, default: str) -> str:
        """Return a text attribute; CountError if it is none."""
        proto = self._get(name, _STRING)
        return default if proto is None else bytes(proto.s[:MOST]).decode("utf-8", "replace")

    def integers(self, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
        """Return a list of integers; CountError if it is none, or has more than 4,096."""
        proto = self._get(name, _INTS)
        if proto is None:
            return default
        if len(proto.ints) > MOST:
            raise CountError(f"attribute {quoted(name)} must have at most {MOST} integers, got {len(proto.ints)}")
        return tuple(proto.ints)

    def numbers(self, name: str) -> tuple[float, ...]:
        """Return a list of floats; CountError if it is none, or has more than 4,096."""
        proto = self._get(name, _FLOATS)
        if proto is None:
            return ()
        if len(proto.floats) > MOST:
            raise CountError(f"attribute {quoted(name)} must have at most {MOST} floats, got {len(proto.floats)}")
        return tuple(proto.floats)

    def tensor(self, name: str) -> Any:
        """Return a TensorProto, None if there is none; CountError if the attribute is none."""
        proto = self._get(name, _TENSOR)
        return None if proto is None else proto.t

    def graph(self, name: str) -> Any:
        """Return a GraphProto; CountError if the attribute is none or missing."""
        proto = self._get(name, _GRAPH)
        if proto is None:
            raise CountError(f"attribute {quoted(name)} must be given, got none")
        return proto.g

    def _get(self, name: str, kind: int) -> Any:
        proto = self.protos.get(name)
        if proto is not None and proto.type != kind:
            raise CountError(f"attribute {quoted(name)} must be {_NAMES[kind]}, got type {proto.type}")
        return proto
