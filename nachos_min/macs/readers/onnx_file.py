"""An ONNX file read field by field into the few frozen messages that a count needs, without the package onnx.

A hostile file of 100 MB can make a Protocol Buffers parser take many gigabytes: two bytes are an empty message
that becomes an object. So weights' values and everything descriptive are left out, and reading stops when there
are more fields, or deeper ones, than a network has. Files that a model names for its weights are never opened.

Source: protobuf.dev, "Encoding"; onnx.proto for the numbers.
"""

import mmap
import os
import stat
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import prod
from typing import Annotated, Any, Final, Protocol, final, get_args, get_origin, get_type_hints, overload

import numpy as np
from numpy.typing import NDArray

from nachos_min.macs.record import CountError

Values = NDArray[Any]
MAX_BYTES: Final = 2 << 30  # Protocol Buffers have no longer messages
MAX_FIELDS: Final = 1_000_000  # a network of 1,000 layers has 25,000
MAX_KEPT: Final = 16 << 20  # bytes besides weights
MAX_AXES: Final = 16  # networks have up to eight
MAX_NUMBERS: Final = 4096  # in a list: windows have two, a split may have hundreds
_MAX_DEPTH = 90  # messages in messages; protobuf itself stops at 100
_MAX_NAME = 1024  # bytes; the longest that exporters write has some hundred
_MAX_DATA = 1024  # bytes of a tensor that are kept: shapes, axes, bounds of a clip, never weights
_NAME_SHOWN, _LINE_SHOWN = 60, 400  # characters of a name and of a message

FLOATS: Final = frozenset({1, 10, 11, 16})  # float, float16, double, bfloat16
# TensorProto.DataType -> NumPy's type; texts and what NumPy lacks have none.
_NUMPY = ("", "<f4", "u1", "i1", "<u2", "<i2", "<i4", "<i8", "", "?", "<f2", "<f8", "<u4", "<u8")
DTYPES: Final = {number: dtype for number, dtype in enumerate(_NUMPY) if dtype}
# Bytes of one element in `raw_data`; types of less than a byte are not checked.
_BYTES = {number: np.dtype(dtype).itemsize for number, dtype in DTYPES.items()} | {14: 8, 15: 16, 16: 2}
_COMPLEX = (14, 15)
_FLOAT_DATA, _TEXT_DATA, _RAW_DATA, _DOUBLE_DATA = 4, 6, 9, 10
_TYPED_DATA = {1: _FLOAT_DATA, 7: 7, 11: _DOUBLE_DATA, 12: 11, 13: 11}  # others are in int32_data, 5
_CONTINUED = bytes(range(128, 256))

# The messages of onnx.proto; a number is that of the field. A count reads no other fields.


@dataclass(frozen=True)
class Tensor:
    """A TensorProto.

    Args:
        values: if they are few and their type has a NumPy equivalent.
        locations: files that its values are in.
    """

    name: str
    dims: tuple[int, ...]
    data_type: int
    values: Values | None
    locations: tuple[str, ...]


@dataclass(frozen=True)
class Attribute:
    name: Annotated[str, 1] = ""
    f: Annotated[float, 2] = 0.0
    i: Annotated[int, 3] = 0
    s: Annotated[bytes, 4] = b""
    t: Annotated[Tensor | None, 5] = None
    g: Annotated["Graph | None", 6] = None
    floats: Annotated[tuple[float, ...], 7] = ()
    ints: Annotated[tuple[int, ...], 8] = ()
    type: Annotated[int, 20] = 0
    ref_attr_name: Annotated[str, 21] = ""


@dataclass(frozen=True)
class Node:
    input: Annotated[tuple[str, ...], 1] = ()
    output: Annotated[tuple[str, ...], 2] = ()
    name: Annotated[str, 3] = ""
    op_type: Annotated[str, 4] = ""
    attribute: Annotated[tuple[Attribute, ...], 5] = ()
    domain: Annotated[str, 7] = ""
    overload: Annotated[str, 8] = ""


@dataclass(frozen=True)
class Dimension:
    length: Annotated[int, 1] | Annotated[str, 2] = "?"


@dataclass(frozen=True)
class Shape:
    dim: Annotated[tuple[Dimension, ...], 1] = ()


@dataclass(frozen=True)
class TensorType:
    shape: Annotated[Shape | None, 2] = None


@dataclass(frozen=True)
class Type:
    tensor_type: Annotated[TensorType | None, 1] = None


@dataclass(frozen=True)
class Value:
    name: Annotated[str, 1] = ""
    type: Annotated[Type | None, 2] = None

    @property
    def tensor_type(self) -> TensorType | None:
        """What is declared, None unless it is a tensor."""
        return None if self.type is None else self.type.tensor_type

    @property
    def lengths(self) -> tuple[int | str, ...] | None:
        """Declared lengths of the axes, None if there are none; "?" is an open length without a name."""
        shape = None if self.tensor_type is None else self.tensor_type.shape
        return None if shape is None else tuple("?" if axis.length == "" else axis.length for axis in shape.dim)


@dataclass(frozen=True)
class Graph:
    node: Annotated[tuple[Node, ...], 1] = ()
    name: Annotated[str, 2] = ""
    initializer: Annotated[tuple[Tensor, ...], 5] = ()
    input: Annotated[tuple[Value, ...], 11] = ()
    output: Annotated[tuple[Value, ...], 12] = ()


@dataclass(frozen=True)
class OperatorSet:
    domain: Annotated[str, 1] = ""
    version: Annotated[int, 2] = 0


@dataclass(frozen=True)
class Function:
    name: Annotated[str, 1] = ""
    input: Annotated[tuple[str, ...], 4] = ()
    output: Annotated[tuple[str, ...], 5] = ()
    node: Annotated[tuple[Node, ...], 7] = ()
    opset_import: Annotated[tuple[OperatorSet, ...], 9] = ()
    domain: Annotated[str, 10] = ""
    attribute_proto: Annotated[tuple[Attribute, ...], 11] = ()
    overload: Annotated[str, 13] = ""


@dataclass(frozen=True)
class Model:
    graph: Annotated[Graph | None, 7] = None
    opset_import: Annotated[tuple[OperatorSet, ...], 8] = ()
    functions: Annotated[tuple[Function, ...], 25] = ()


def _numbered(form: type) -> dict[int, tuple[str, Any, bool]]:
    """Return field number -> (name, type, whether it is repeated) of a message."""
    found: dict[int, tuple[str, Any, bool]] = {}
    for name, hint in get_type_hints(form, include_extras=True).items():
        for each in (hint,) if get_origin(hint) is Annotated else get_args(hint):  # a union is a `oneof`
            kind, number = get_args(each)
            inner = get_args(kind)
            found[number] = (name, inner[0] if inner else kind, get_origin(kind) is tuple)
    return found


_FORMS = (Attribute, Node, Dimension, Shape, TensorType, Type, Value, Graph, OperatorSet, Function, Model)
_NUMBERED = {form: _numbered(form) for form in _FORMS}
_UNKNOWN: tuple[str, Any, bool] = ("", None, False)
_SPARSE_INITIALIZER = 15  # of a graph


class _Data(Protocol):
    """Bytes, or a file mapped as such."""

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> bytes: ...
    def __len__(self) -> int: ...


Span = tuple[int, int]  # first byte, and the one behind the last


def load(path: str | os.PathLike[str]) -> Model:
    """Return the model in a file, without its weights; CountError if it cannot be read or is damaged."""
    try:
        data = _mapped(path)
    except OSError as error:
        raise CountError(f"the file cannot be read: {error.strerror}, got {label(os.fspath(path))}") from None
    model = _Parser(data).message(Model, [(0, len(data))], 0)
    assert isinstance(model, Model)
    return model


def _mapped(path: str | os.PathLike[str]) -> mmap.mmap | bytes:
    """Return a file's bytes, which are read page by page as they are looked at."""
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise CountError(f"the target must be an ordinary file, got {label(os.fspath(path))}")
    if status.st_size > MAX_BYTES:
        raise CountError(f"an .onnx file must have at most {MAX_BYTES} bytes, got {status.st_size}")
    if status.st_size == 0:
        return b""  # nothing that could be mapped
    with open(path, "rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


@final
class _Parser:
    def __init__(self, data: _Data) -> None:
        self.data = data
        self.seen = 0
        self.kept = 0

    def message(self, form: type[Any], spans: list[Span], depth: int) -> Any:
        """Return the message whose encoding stands in `spans`; a singular message may be written in parts."""
        if depth > _MAX_DEPTH:
            raise CountError(f"messages must be nested at most {_MAX_DEPTH} deep, got more at byte {spans[0][0]}")
        if form is Tensor:
            return self.tensor(spans)
        single: dict[str, Any] = {}
        repeated: dict[str, list[Any]] = {}
        parts: dict[int, list[Span]] = {}
        for number, wire, value, body, end in self.fields(spans):
            if form is Graph and number == _SPARSE_INITIALIZER:
                raise CountError(f"initialisers must be dense, got a sparse one at byte {body}")
            name, kind, many = _NUMBERED[form].get(number, _UNKNOWN)
            if kind in _NUMBERED or kind is Tensor:
                if wire == 2 and many:
                    repeated.setdefault(name, []).append(self.message(kind, [(body, end)], depth + 1))
                elif wire == 2:
                    parts.setdefault(number, []).append((body, end))
            elif many:
                repeated.setdefault(name, []).extend(self.values(kind, wire, value, body, end))
            elif kind is not None and (wire == 2) == (kind in (str, bytes)):
                single |= dict.fromkeys([name], *self.values(kind, wire, value, body, end))
        for number, of_one in parts.items():
            name, kind, _ = _NUMBERED[form][number]
            single[name] = self.message(kind, of_one, depth + 1)
        return form(**single, **{name: tuple(values) for name, values in repeated.items()})

    def fields(self, spans: Iterable[Span]) -> Iterator[tuple[int, int, int, int, int]]:
        """Yield each field's number, wire type, whole number (0 if it is none), first byte and end."""
        for at, end in spans:
            while at < end:
                begin = at
                tag, at = self.varint(at, end)
                number, wire = tag >> 3, tag & 7
                self.seen += 1
                if self.seen > MAX_FIELDS:
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

    def values(self, kind: type, wire: int, value: int, body: int, end: int) -> Iterator[Any]:
        """Yield a field's values: one, unless they are numbers that are packed; none of another wire type."""
        self.kept += end - body
        if self.kept > MAX_KEPT:
            raise CountError(f"besides weights a file must hold at most {MAX_KEPT} bytes, got more")
        if kind is int and wire == 0:
            yield _signed(value)
        elif kind is int and wire == 2:
            for _ in range(MAX_NUMBERS + 1):
                if body < end:
                    value, body = self.varint(body, end)
                    yield _signed(value)
        elif kind is float and wire in (2, 5):
            count = min((end - body) // 4, MAX_NUMBERS + 1)
            if wire == 2 and (end - body) % 4:
                raise CountError(f"no ONNX file or a damaged one: a number at byte {end} has no end")
            yield from struct.unpack(f"<{count}f", self.data[body : body + 4 * count])
        elif kind is bytes and wire == 2:
            yield self.data[body:end]
        elif kind is str and wire == 2:
            yield self.text(body, end)

    def text(self, body: int, end: int) -> str:
        """Return a name."""
        if end - body > _MAX_NAME:
            raise CountError(f"a name must have at most {_MAX_NAME} bytes, got {end - body} at byte {body}")
        try:
            return self.data[body:end].decode("utf-8")
        except UnicodeDecodeError:
            raise CountError(f"names must be UTF-8, got other bytes at byte {body}") from None

    def tensor(self, spans: list[Span]) -> Tensor:
        """Return a tensor, having checked that it has the data that its shape needs."""
        name, data_type, raw = "", 0, b""
        dims: list[int] = []
        numbers: dict[int, list[Any]] = {}  # by field, of those that are kept
        count, raw_bytes, external = 0, -1, False
        locations: list[str] = []
        for number, wire, value, body, end in self.fields(spans):
            small = end - body <= _MAX_DATA
            if number == 1:
                for length in self.values(int, wire, value, body, end):
                    if len(dims) >= MAX_AXES:
                        raise CountError(f"a tensor must have at most {MAX_AXES} axes, got more")
                    dims.append(length)
            elif number == 2 and wire == 0:
                data_type = value
            elif number == 8 and wire == 2:
                name = self.text(body, end)
            elif number == 13 and wire == 2:
                external = True
                locations += self.location(body, end)
            elif number == 14:
                external |= value != 0
            elif number == _RAW_DATA and wire == 2:
                raw_bytes = max(raw_bytes, 0) + end - body
                raw = self.data[body:end] if small else b""
            elif number in (_FLOAT_DATA, 5, _TEXT_DATA, 7, _DOUBLE_DATA, 11):
                count += self.packed(number, wire, body, end)
                if small and number != _TEXT_DATA:
                    numbers.setdefault(number, []).extend(self.typed(number, wire, value, body, end))
        elements, size = prod(dims), _BYTES.get(data_type)
        if not external and size is not None and min(dims, default=0) >= 0:
            if raw_bytes >= 0:
                found, enough = f"{raw_bytes} bytes", raw_bytes == elements * size
            else:
                found, enough = f"{count} values", count == elements * (1 + (data_type in _COMPLEX))
            if not enough:
                at = spans[-1][1]
                raise CountError(f"the tensor that ends at byte {at} must hold {elements} elements, got {found}")
        values = None if external else _array(data_type, tuple(dims), raw, numbers)
        return Tensor(name, tuple(dims), data_type, values, tuple(locations))

    def location(self, body: int, end: int) -> list[str]:
        """Return the file that an entry of `external_data` names, if it names one."""
        entry = {
            n: self.text(at, to) for n, wire, _, at, to in self.fields([(body, end)]) if wire == 2 and n in (1, 2)
        }
        return [entry.get(2, "")] if entry.get(1) == "location" else []

    def packed(self, number: int, wire: int, body: int, end: int) -> int:
        """Return how many values a typed data field holds: one, unless they are packed."""
        if wire != 2 or number == _TEXT_DATA:
            return 1
        if number in (_FLOAT_DATA, _DOUBLE_DATA):
            return (end - body) // (4 if number == _FLOAT_DATA else 8)
        step = 1 << 20
        pieces = (self.data[at : min(at + step, end)] for at in range(body, end, step))
        return sum(len(piece.translate(None, _CONTINUED)) for piece in pieces)

    def typed(self, number: int, wire: int, value: int, body: int, end: int) -> Iterable[Any]:
        """Return the numbers of a short typed data field."""
        if number == _DOUBLE_DATA:
            return np.frombuffer(self.data[body : end - (end - body) % 8], "<f8").tolist() if wire in (1, 2) else ()
        return self.values(float if number == _FLOAT_DATA else int, wire, value, body, end)


def _array(data_type: int, dims: tuple[int, ...], raw: bytes, numbers: dict[int, list[Any]]) -> Values | None:
    """Return a tensor's values, None if they were left out or its type has no NumPy equivalent."""
    dtype = DTYPES.get(data_type)
    if dtype is None:
        return None
    try:
        if raw:
            return np.frombuffer(raw, dtype).reshape(dims)
        given = [n % 2**64 if dtype == "<u8" else n for n in numbers.get(_TYPED_DATA.get(data_type, 5), [])]
        return np.array(given, dtype="<u2" if dtype == "<f2" else dtype).view(dtype).reshape(dims)
    except (ValueError, OverflowError):
        return None


def _signed(value: int) -> int:
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value


# Names from a file as messages and tables show them: one short line, whatever the file says.


def label(text: str) -> str:
    """Return a name without control characters, cut in the middle if it is long.

    >>> label("block\\n1")
    'block?1'
    """
    if len(text) > _NAME_SHOWN:
        text = f"{text[: _NAME_SHOWN // 2]}...{text[-_NAME_SHOWN // 2 + 3 :]}"
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def quoted(text: str) -> str:
    """Return a name as a message quotes it."""
    return f"'{label(text)}'"


def shortened(message: str) -> str:
    """Return a message, cut if its values make it long."""
    return message if len(message) <= _LINE_SHOWN else f"{message[:_LINE_SHOWN]}..."
