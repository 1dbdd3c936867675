"""An ONNX file read field by field into the few frozen messages that a count needs, without the package onnx.

Weights' values and all that is descriptive are left out. All that is done with a file is counted in `Steps`: a
hostile one ends there before it fills the memory or takes minutes. Files that a model names for its weights stay
closed.

Source: protobuf.dev, "Encoding"; onnx.proto for the numbers.
"""

import mmap
import os
import struct
from collections import namedtuple
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import prod
from typing import Any, Final, final

import numpy as np
from numpy.typing import NDArray

from nachos_min.files import open_file
from nachos_min.macs.readers.builder import label, quoted, require
from nachos_min.macs.record import CountError

Values = NDArray[Any]
MAX_BYTES: Final = 2 << 30  # Protocol Buffers have no longer messages
MAX_STEPS: Final = 3_000_000  # a network of 1,000 nodes takes 200,000
MAX_AXES: Final = 16  # networks have up to eight
MAX_NUMBERS: Final = 4096  # in a list: windows have two, a split may have hundreds
_MAX_DEPTH = 90  # messages in messages; protobuf itself stops at 100
_MAX_NAME = 1024  # bytes; the longest that exporters write has some hundred
_MAX_DATA = 1024  # bytes of a tensor that are kept: shapes, axes, bounds of a clip, never weights

FLOATS: Final = frozenset({1, 10, 11, 16})  # float, float16, double, bfloat16
# TensorProto.DataType -> NumPy's type; texts and what NumPy lacks have none.
_NUMPY = ("", "<f4", "u1", "i1", "<u2", "<i2", "<i4", "<i8", "", "?", "<f2", "<f8", "<u4", "<u8")
DTYPES: Final = {number: dtype for number, dtype in enumerate(_NUMPY) if dtype}
# Bytes of one element in `raw_data`; types of less than a byte are not checked.
_BYTES = {number: np.dtype(dtype).itemsize for number, dtype in DTYPES.items()} | {14: 8, 15: 16, 16: 2}
_COMPLEX = (14, 15)
_TYPED = {1: "floats", 7: "longs", 11: "doubles", 12: "unsigned", 13: "unsigned", 14: "floats", 15: "doubles"}
_NUMBERS = {"floats": "float", "doubles": "double"}  # what the fields of data hold; others have integers
_FIXED = {"float": (4, 5), "double": (8, 1)}  # bytes of a number, and wire type of one that stands alone
_CONTINUED = bytes(range(128, 256))

# The messages of onnx.proto, as far as a count reads them: number, name and type of each field, "*" if it is
# repeated. Fields of one name are a `oneof`. They become named tuples. The data of a tensor
# are spans: wire type, integer, first byte and end.
_MESSAGES = {
    "Model": "7 graph Graph, 8 opset_import OperatorSet*, 25 functions Function*",
    "OperatorSet": "1 domain text, 2 version int",
    "Graph": "1 node Node*, 2 name text, 5 initializer Tensor*, 11 input Value*, 12 output Value*",
    "Function": "1 name text, 4 input text*, 5 output text*, 6 attribute text*, 7 node Node*, "
    "9 opset_import OperatorSet*, 10 domain text, 11 attribute_proto Attribute*, 13 overload text",
    "Node": "1 input text*, 2 output text*, 3 name text, 4 op_type text, 5 attribute Attribute*, 7 domain text, "
    "8 overload text",
    "Attribute": "1 name text, 2 f float, 3 i int, 4 s bytes, 5 t Tensor, 6 g Graph, 7 floats float*, 8 ints int*, "
    "9 strings bytes*, 20 type int, 21 ref_attr_name text",
    "Value": "1 name text, 2 type Type",
    "Type": "1 tensor_type TensorType",
    "TensorType": "2 shape Shape",
    "Shape": "1 dim Dimension*",
    "Dimension": "1 length int, 2 length text",
    "Tensor": "1 dims int*, 2 data_type int, 4 floats span*, 5 ints span*, 6 texts span*, 7 longs span*, "
    "8 name text, 9 raw span*, 10 doubles span*, 11 unsigned span*, 13 external_data Entry*, 14 data_location int",
    "Entry": "1 key text, 2 value text",
}
_DATA_OF = {1: "f", 2: "i", 3: "s", 4: "t", 5: "g", 6: "floats", 7: "ints", 8: "strings"}  # AttributeType -> field
_DATA = frozenset(_DATA_OF.values())
_SPARSE_INITIALIZER = 15  # of a graph
_DEFAULTS = {"text": "", "int": 0, "float": 0.0, "bytes": b""}
Message = Any  # a named tuple


def _fields(text: str) -> dict[int, tuple[str, str, bool]]:
    """Return number -> (name, type, whether it is repeated)."""
    found = {}
    for each in text.split(", "):
        number, name, kind = each.split()
        found[int(number)] = (name, kind.rstrip("*"), kind.endswith("*"))
    return found


def _form(name: str) -> Any:
    """Return the class of a message: a repeated field is () without values, a message None."""
    defaults = {field: () if many else _DEFAULTS.get(kind) for field, kind, many in _NUMBERED[name].values()}
    return namedtuple(name, list(defaults), defaults=list(defaults.values()))


_NUMBERED = {name: _fields(text) for name, text in _MESSAGES.items()}
_FORMS = {name: _form(name) for name in _MESSAGES}


@final
class Steps:
    """What is left of the work that may be done with one file.

    A step is a number, a name or an attribute that is looked at. What takes longer, or more memory, is more steps:
    a field 2, a message or data of a tensor 4, an initialiser 5, a node 10, a node of the graph 100, 20 for each
    array that it reads and 8 for each axis of those.
    """

    left = MAX_STEPS

    def spend(self, steps: int) -> None:
        """Count steps before they are done; CountError when a file needs more than any network does."""
        self.left -= steps
        if self.left < 0:
            limit = f"an ONNX file must take at most {MAX_STEPS:,} steps to read"
            raise CountError(f"{limit}: fields, numbers, nodes with their arrays, functions written out; got more")


@dataclass(frozen=True)
class Tensor:
    """A TensorProto; its values are kept if they are few."""

    name: str
    dims: tuple[int, ...]
    data_type: int
    values: Values | None


def declared_lengths(value: Message) -> tuple[int | str, ...] | None:
    """Return what a Value says of a tensor's axes, None if nothing; "?" is an open length without a name."""
    shape = value.type and value.type.tensor_type and value.type.tensor_type.shape
    return shape and tuple("?" if axis.length == "" else axis.length for axis in shape.dim)


Span = tuple[int, int]  # first byte, and the one behind the last


def load(path: str | os.PathLike[str], steps: Steps) -> Message:
    """Return the model in a file, without its weights; CountError if it cannot be read or is damaged."""
    data: bytes | mmap.mmap = b""  # an empty file cannot be mapped
    try:
        with open_file(path) as file:
            size = os.fstat(file.fileno()).st_size
            require(size <= MAX_BYTES, f"an .onnx file must have at most {MAX_BYTES} bytes, got {size}")
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
    except OSError as error:
        raise CountError(f"the file cannot be read: {error.strerror}, got {label(os.fspath(path))}") from None
    return _Parser(data, steps).message("Model", [(0, len(data))], 0)


@final
class _Parser:
    def __init__(self, data: bytes | mmap.mmap, steps: Steps) -> None:
        self.data = data
        self.spend = steps.spend

    def message(self, form: str, spans: list[Span], depth: int) -> Message:
        """Return the message whose encoding stands in `spans`; a singular message may be written in parts."""
        if depth > _MAX_DEPTH:
            raise CountError(f"messages must be nested at most {_MAX_DEPTH} deep, got more at byte {spans[0][0]}")
        self.spend(4)
        known = _NUMBERED[form]
        found: dict[str, Any] = {}
        parts: dict[int, list[Span]] = {}
        for number, wire, value, body, end in self.fields(spans):
            if form == "Graph" and number == _SPARSE_INITIALIZER:
                raise CountError(f"initialisers must be dense, got a sparse one at byte {body}")
            if number not in known:
                continue
            name, kind, many = known[number]
            if kind == "span":
                self.spend(4)
                found.setdefault(name, []).append((wire, value, body, end))
            elif kind in _DEFAULTS:
                values = self.values(kind, wire, value, body, end)
                if many:
                    found.setdefault(name, []).extend(values)
                elif (wire == 2) == (kind in ("text", "bytes")):  # a singular number is not packed
                    found.update((name, each) for each in values)
            elif wire == 2 and many:
                found.setdefault(name, []).append(self.message(kind, [(body, end)], depth + 1))
            elif wire == 2:
                parts.setdefault(number, []).append((body, end))
        for number, of_one in parts.items():
            name, kind, _ = known[number]
            found[name] = self.message(kind, of_one, depth + 1)
        if form == "Attribute" and (unfit := found.keys() & _DATA - {_DATA_OF.get(found.get("type", 0))}):
            named = quoted(found.get("name", ""))
            raise CountError(f"attribute {named} must have the data of its type, got {', '.join(sorted(unfit))}")
        made = _FORMS[form](**{name: tuple(v) if isinstance(v, list) else v for name, v in found.items()})
        return self.tensor(made, spans[-1][1]) if form == "Tensor" else made

    def fields(self, spans: Iterable[Span]) -> Iterator[tuple[int, int, int, int, int]]:
        """Yield each field's number, wire type, integer (0 if it has none), first byte and end."""
        for at, end in spans:
            while at < end:
                begin = at
                tag, at = self.varint(at, end)
                number, wire = tag >> 3, tag & 7
                self.spend(2)
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
                yield number, wire, value, body, at

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

    def values(self, kind: str, wire: int, value: int, body: int, end: int) -> Iterator[Any]:
        """Yield a field's values: one, unless they are numbers that are packed; none of another wire type."""
        self.spend((end - body) // 16)
        if kind == "int" and wire == 0:
            yield _signed(value)
        elif kind == "int" and wire == 2:
            for _ in range(MAX_NUMBERS + 1):
                if body < end:
                    self.spend(1)
                    value, body = self.varint(body, end)
                    yield _signed(value)
        elif kind in _FIXED and wire in (2, _FIXED[kind][1]):
            size, _ = _FIXED[kind]
            count = min((end - body) // size, MAX_NUMBERS + 1)
            fits = (end - body) % size == 0
            require(fits, f"no ONNX file or a damaged one: a number at byte {end} has no end")
            self.spend(count)
            yield from struct.unpack(f"<{count}{kind[0]}", self.data[body : body + size * count])
        elif kind == "bytes" and wire == 2:
            yield self.data[body:end]
        elif kind == "text" and wire == 2:
            yield self.text(body, end)

    def text(self, body: int, end: int) -> str:
        size = end - body
        require(size <= _MAX_NAME, f"a name must have at most {_MAX_NAME} bytes, got {size} at byte {body}")
        try:
            return self.data[body:end].decode("utf-8")
        except UnicodeDecodeError:
            raise CountError(f"names must be UTF-8, got other bytes at byte {body}") from None

    def tensor(self, read: Message, at: int) -> Tensor:
        """Return a tensor, having checked that it has the data that its shape needs; few values are kept."""
        dims, kind, external = read.dims, read.data_type, bool(read.external_data) or read.data_location != 0
        require(len(dims) <= MAX_AXES, f"a tensor must have at most {MAX_AXES} axes, got {len(dims)}")
        for entry in read.external_data:
            if entry.key == "location":
                _check_location(entry.value, read.name)
        elements, size, field = prod(dims), _BYTES.get(kind), _TYPED.get(kind, "ints")
        if not external and size is not None and min(dims, default=0) >= 0:
            typed = {name for name in ("texts", "ints", *_TYPED.values()) if getattr(read, name)}
            unfit = typed - {field} or (typed and read.raw)
            require(not unfit, f"a tensor must have one field of data, that of its type, got {sorted(typed)}")
            count = sum(self.packed(_NUMBERS.get(field), *span) for span in getattr(read, field))
            found, enough = f"{count} values", count == elements * (1 + (kind in _COMPLEX))
            if read.raw:
                count = sum(end - body for _, _, body, end in read.raw)
                found, enough = f"{count} bytes", count == elements * size
            require(enough, f"the tensor that ends at byte {at} must hold {elements} elements, got {found}")
        raw, few = b"", [span for span in read.raw or getattr(read, field) if span[3] - span[2] <= _MAX_DATA]
        numbers: list[Any] = []
        for span in few:
            if read.raw:
                raw = self.data[span[2] : span[3]]
            else:
                numbers += self.values(_NUMBERS.get(field, "int"), *span)
        return Tensor(read.name, dims, kind, None if external else _array(kind, dims, raw, numbers))

    def packed(self, kind: str | None, wire: int, _: int, body: int, end: int) -> int:
        """Return how many values a span of data holds: one, unless they are packed."""
        if wire != 2:
            return 1
        if kind is not None:
            return (end - body) // _FIXED[kind][0]
        step = 1 << 20
        self.spend((end - body) // 512)
        pieces = (self.data[at : min(at + step, end)] for at in range(body, end, step))
        return sum(len(piece.translate(None, _CONTINUED)) for piece in pieces)


def _check_location(location: str, tensor: str) -> None:
    """Check the name of the file that holds a tensor's values, though it stays closed."""
    parts = location.replace("\\", "/").split("/")
    beside = parts[0] != "" and ".." not in parts and ":" not in parts[0]
    if location and not beside:
        named = f"the data of {quoted(tensor)}"
        raise CountError(f"{named} must be in a file beside the model or below, got {quoted(location)}")


def _array(data_type: int, dims: tuple[int, ...], raw: bytes, numbers: list[Any]) -> Values | None:
    """Return a tensor's values, None if they were left out or its type has no NumPy equivalent."""
    dtype = DTYPES.get(data_type)
    if dtype is None:
        return None
    try:
        if raw:
            return np.frombuffer(raw, dtype).reshape(dims)
        given = [n % 2**64 if dtype == "<u8" else n for n in numbers]
        return np.array(given, dtype="<u2" if dtype == "<f2" else dtype).view(dtype).reshape(dims)
    except (ValueError, OverflowError):
        return None


def _signed(value: int) -> int:
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value
