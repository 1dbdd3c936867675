"""The part of an ONNX file that a count needs, copied out of it before any library may parse it.

A hostile file of 100 MB can make a Protocol Buffers parser take many gigabytes: two bytes are an empty message
that becomes an object. So this file walks the encoding by itself. It keeps the fields listed below, leaves out
the weights' values (only their shapes count) and everything descriptive, checks that each tensor has the data
its shape asks for, and stops when there are more fields, or deeper ones, than a network has.

What the fields mean is `file.py` and `walk.py`. Source: protobuf.dev, "Encoding"; onnx.proto for the numbers.
"""

from dataclasses import dataclass, field
from math import prod
from typing import Protocol, final, overload

from nachos_min.macs.record import CountError

MAX_FIELDS = 1_000_000  # a network of 1,000 layers has 25,000; a million take about two seconds
MAX_KEPT = 16 << 20  # bytes besides weights; parsed they take up to eight times as much
_MAX_DEPTH = 90  # messages in messages; protobuf itself stops at 100
MAX_AXES = 16  # networks have up to eight
_MAX_NAME = 1024  # bytes; the longest that exporters write has some hundred
_MAX_DATA = 1024  # bytes of a tensor that are kept: shapes, axes, bounds of a clip, never weights

_PLAIN, _TEXT, _DATA, _SPARSE = "plain", "text", "data", "sparse"
_FIELDS: dict[str, dict[int, str]] = {
    "Model": {7: "Graph", 8: "OperatorSet", 25: "Function"},
    "OperatorSet": {1: _TEXT, 2: _PLAIN},
    "Graph": {1: "Node", 2: _TEXT, 5: "Tensor", 11: "Value", 12: "Value", 15: _SPARSE},
    "Function": {1: _TEXT, 4: _TEXT, 5: _TEXT, 6: _TEXT, 7: "Node", 9: "OperatorSet", 10: _TEXT}
    | {11: "Attribute", 13: _TEXT},
    "Node": {1: _TEXT, 2: _TEXT, 3: _TEXT, 4: _TEXT, 5: "Attribute", 7: _TEXT, 8: _TEXT},
    "Attribute": {1: _TEXT, 2: _PLAIN, 3: _PLAIN, 4: _PLAIN, 5: "Tensor", 6: "Graph", 7: _PLAIN, 8: _PLAIN}
    | {9: _PLAIN, 20: _PLAIN, 21: _TEXT},
    "Tensor": {1: _PLAIN, 2: _PLAIN, 8: _TEXT, 13: "Entry", 14: _PLAIN}
    | dict.fromkeys((4, 5, 6, 7, 9, 10, 11), _DATA),
    "Entry": {1: _TEXT, 2: _TEXT},
    "Value": {1: _TEXT, 2: "Type"},
    "Type": {1: "TensorType"},
    "TensorType": {1: _PLAIN, 2: "Shape"},
    "Shape": {1: "Dimension"},
    "Dimension": {1: _PLAIN, 2: _TEXT},
}
# Bytes of one element in `raw_data`, by TensorProto.DataType; types of less than a byte are not checked.
_BYTES = {1: 4, 2: 1, 3: 1, 4: 2, 5: 2, 6: 4, 7: 8, 9: 1, 10: 2, 11: 8, 12: 4, 13: 8, 14: 8, 15: 16, 16: 2}
_FIXED = {4: 4, 10: 8}  # bytes of one value in float_data and double_data; other typed fields hold varints
_CONTINUED = bytes(range(128, 256))


class Data(Protocol):
    """Bytes, or a file mapped as such."""

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> bytes: ...
    def __len__(self) -> int: ...


def needed(data: Data) -> bytes:
    """Return the encoded model without what a count does not need.

    Args:
        data: the whole file.

    Returns:
        An encoded ModelProto of at most 16 MiB, whose tensors of more than 1,024 bytes have no values.

    Raises:
        CountError: the encoding is damaged or asks for too much, a name is no UTF-8, a tensor's data do not fit
            its shape, or there is a sparse initialiser.
    """
    return _Copy(data).message("Model", 0, len(data), 0)


@dataclass
class _Tensor:
    """What is known of a tensor while its fields go by."""

    dims: list[int] = field(default_factory=list)
    data_type: int = 0
    values: int = 0
    raw_bytes: int | None = None
    external: bool = False

    def add_axis(self, length: int) -> None:
        if len(self.dims) >= MAX_AXES:
            raise CountError(f"a tensor must have at most {MAX_AXES} axes, got more")
        self.dims.append(_signed(length))

    def check(self, at: int) -> None:
        elements = prod(self.dims)
        size = _BYTES.get(self.data_type)
        if self.external or size is None or min(self.dims, default=0) < 0:
            return  # nothing to hold it against, or refused where its shape is read
        if self.raw_bytes is not None:
            found, wanted = f"{self.raw_bytes} bytes", self.raw_bytes == elements * size
        else:
            found, wanted = (
                f"{self.values} values",
                self.values == elements * (2 if self.data_type in (14, 15) else 1),
            )
        if not wanted:
            raise CountError(f"the tensor that ends at byte {at} must hold {elements} elements, got {found}")


@final
class _Copy:
    def __init__(self, data: Data) -> None:
        self.data = data
        self.fields = 0
        self.kept = 0

    def message(self, kind: str, at: int, end: int, depth: int) -> bytes:
        """Return the message from `at` up to `end` without what is not needed."""
        if depth > _MAX_DEPTH:
            raise CountError(f"messages must be nested at most {_MAX_DEPTH} deep, got more at byte {at}")
        known = _FIELDS[kind]
        out = bytearray()
        tensor = _Tensor()
        while at < end:
            begin = at
            tag, at = self.varint(at, end)
            number, wire = tag >> 3, tag & 7
            value, body, at = self.content(wire, begin, at, end)
            what = known.get(number, "")
            if kind == "Tensor":
                self.note(tensor, number, wire, value, body, at)
            if what == _SPARSE:
                raise CountError(f"initialisers must be dense, got a sparse one at byte {begin}")
            if what in _FIELDS:
                if wire == 2:
                    inner = self.message(what, body, at, depth + 1)
                    out += _encoded(tag) + _encoded(len(inner)) + inner
            elif what == _PLAIN or (what == _TEXT and wire == 2) or (what == _DATA and at - begin <= _MAX_DATA):
                self.kept += at - begin
                if self.kept > MAX_KEPT:
                    raise CountError(f"besides weights a file must hold at most {MAX_KEPT} bytes, got more")
                piece = self.data[begin:at]
                if what == _TEXT:
                    _check_text(piece[body - begin :], begin)
                out += piece
        if kind == "Tensor":
            tensor.check(at)
        return bytes(out)

    def content(self, wire: int, begin: int, at: int, end: int) -> tuple[int, int, int]:
        """Return a field's whole number (0 if it is none), where its body begins, and where the field ends."""
        self.fields += 1
        if self.fields > MAX_FIELDS:
            raise CountError(f"a file must have at most {MAX_FIELDS} fields besides weights, got more")
        body, value = at, 0
        if wire == 0:
            value, at = self.varint(at, end)
        elif wire == 2:
            size, body = self.varint(at, end)
            at = body + size
        else:
            at += {1: 8, 5: 4}.get(wire, end)
        if at > end or wire not in (0, 1, 2, 5):
            raise CountError(f"no ONNX file or a damaged one: a field at byte {begin} goes beyond its end")
        return value, body, at

    def varint(self, at: int, end: int) -> tuple[int, int]:
        """Return the number at `at`, seven bits a byte, and where it ends."""
        value = 0
        for place in range(10):
            if at >= end:
                break
            byte = self.data[at]
            at += 1
            value |= (byte & 127) << (7 * place)
            if byte < 128:
                return value, at
        raise CountError(f"no ONNX file or a damaged one: a number at byte {at} has no end")

    def note(self, tensor: _Tensor, number: int, wire: int, value: int, body: int, end: int) -> None:
        """Write down what a field says about its tensor."""
        if number == 1 and wire in (0, 2):
            while wire == 2 and body < end:  # packed, which other writers than onnx may do
                value, body = self.varint(body, end)
                tensor.add_axis(value)
            if wire == 0:
                tensor.add_axis(value)
        elif number == 2:
            tensor.data_type = value
        elif number == 9:
            tensor.raw_bytes = (tensor.raw_bytes or 0) + end - body
        elif number == 13 or (number == 14 and value):
            tensor.external = True
        elif _FIELDS["Tensor"].get(number) == _DATA:
            tensor.values += self.values(number, wire, body, end)

    def values(self, number: int, wire: int, body: int, end: int) -> int:
        """Return how many values a typed data field holds: one, unless they are packed."""
        if wire != 2 or number == 6:
            return 1
        if number in _FIXED:
            return (end - body) // _FIXED[number]
        step = 1 << 20
        pieces = (self.data[at : min(at + step, end)] for at in range(body, end, step))
        return sum(len(piece.translate(None, _CONTINUED)) for piece in pieces)


def _signed(value: int) -> int:
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value


def _encoded(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def _check_text(text: bytes, at: int) -> None:
    if len(text) > _MAX_NAME:
        raise CountError(f"a name must have at most {_MAX_NAME} bytes, got {len(text)} at byte {at}")
    try:
        text.decode("utf-8")
    except UnicodeDecodeError:
        raise CountError(f"names must be UTF-8, got other bytes at byte {at}") from None
