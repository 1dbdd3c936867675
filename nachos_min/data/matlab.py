"""Numbers and text in MATLAB files of versions 5 to 7. SciPy's reader ends the process on some damaged files.

A file is 128 bytes and a series of elements: a tag with type and size, the content, and zeros up to 8 bytes.
A variable is an element that may be compressed, and holds elements: flags, shape, name, values by columns.

Source: The MathWorks, "MAT-File Format", chapter 1.
"""

import mmap
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nachos_min.data.limits import Room
from nachos_min.files import open_file

_MATRIX, _COMPRESSED = 14, 15
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_TEXTS = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
_NUMERIC = ("double", "single", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
_KINDS = ("unknown", "cell", "struct", "object", "char", "sparse", *_NUMERIC, "function", "opaque")
_COMPLEX, _LOGICAL = 0x800, 0x200  # flags
_HEADER = 1024  # bytes that hold flags, shape and name of every variable
_PIECE = 1 << 14  # bytes that are unpacked at a time; a thousandfold may come of them
_MOST = 1000  # variables of a file
_CELL = 2000  # bytes that a cell counts at least: it takes some time and Python's text


@dataclass(frozen=True)
class Variable:
    """A variable whose values are not read yet."""

    name: str
    shape: tuple[int, ...]
    kind: str  # as MATLAB calls it
    order: str  # of bytes, "<" or ">"
    packed: int  # bytes of the whole element, once unpacked; 0: it is not packed
    content: memoryview  # from the element with the values on; all, if packed

    def values(self, room: Room, *, counted: bool = False) -> NDArray[Any] | None:
        """Return numbers, or a text for each row or cell; None if it has neither; ValueError if it is damaged.

        Unless its bytes are `counted`, they are taken from the room.
        """
        if self.kind not in ("cell", "char", "logical", *_NUMERIC):
            return None
        if self.packed:
            room.take(self.packed, self.name)
            whole, unpacking = bytearray(), zlib.decompressobj()
            for begin in range(0, len(self.content), _PIECE):
                whole += unpacking.decompress(self.content[begin : begin + _PIECE])
                if len(whole) > self.packed:
                    break
            if len(whole) != self.packed or not unpacking.eof:
                raise ValueError(f"{self.name} is cut off, or of another size than it declares")
            return _variable(_element(memoryview(whole), self.order)[1], self.order).values(room, counted=True)
        if self.kind == "cell":
            texts, rest = list[str](), self.content
            while rest:
                room.take(_CELL, self.name)
                _, inner, rest = _element(rest, self.order)
                cell = _variable(inner, self.order)
                if cell.kind != "char" or cell.shape[0] != 1 or (text := cell.values(room)) is None:
                    return None
                texts.append(str(text[0]))
            room.take(4 * len(texts) * max(map(len, texts), default=0), self.name)
            return np.array(texts, np.str_).reshape(self.shape, order="F")
        stored, raw, _ = _element(self.content, self.order)
        if stored not in (_TEXTS if self.kind == "char" else _NUMBERS):
            raise ValueError(f"{self.name} has values of the unknown type {stored}")
        if self.kind == "char":
            ends = {"<": "-le", ">": "-be"}[self.order] if _TEXTS[stored][-2:] in ("16", "32") else ""
            room.take(8 * len(raw), self.name)
            letters = np.frombuffer(bytes(raw).decode(_TEXTS[stored] + ends).encode("utf-32-le"), "<u4")
            rows = np.ascontiguousarray(letters.reshape(self.shape, order="F").reshape(self.shape[0], -1))
            return rows.view(f"<U{rows.shape[1]}")[:, 0] if rows.size else np.zeros(len(rows), "<U1")
        room.take(0 if counted else len(raw), self.name)
        array = np.frombuffer(raw, self.order + _NUMBERS[stored]).reshape(self.shape, order="F")
        return array.astype(array.dtype.newbyteorder("="), copy=False)


def read_variables(path: Path, *, links: bool = True) -> dict[str, Variable]:
    """Return name -> variable; ValueError if the file is damaged or of another version."""
    with open_file(path, links=links) as file:
        content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    order = {b"IM": "<", b"MI": ">"}.get(bytes(content[126:128]))
    if order is None or content[124 if order == ">" else 125] != 1:
        raise ValueError("its first 128 bytes are those of no such file")
    found: dict[str, Variable] = {}
    rest = content[128:]
    while rest:
        kind, inner, rest = _element(rest, order)
        if kind == _COMPRESSED:
            head = memoryview(zlib.decompressobj().decompress(inner[: 4 * _HEADER], _HEADER))
            if len(head) < 8 or head[0 if order == "<" else 3] != _MATRIX:
                raise ValueError("it has a packed element that is no variable")
            size = int.from_bytes(head[4:8], "little" if order == "<" else "big")
            variable = _variable(head[8:], order, inner, 8 + size)
        elif kind == _MATRIX:
            variable = _variable(inner, order)
        else:
            raise ValueError(f"it has an element of the unknown type {kind}")
        if variable.name in found or len(found) == _MOST:
            raise ValueError(f"it must have at most {_MOST:,} variables, each once, at {variable.name!r}")
        found[variable.name] = variable
    return found


def _variable(content: memoryview, order: str, whole: memoryview | None = None, packed: int = 0) -> Variable:
    _, flags, content = _element(content, order)
    _, sides, content = _element(content, order)
    _, name, content = _element(content, order)
    if max(len(sides), len(name)) > _HEADER or len(sides) % 4 or len(flags) < 4:
        raise ValueError("it has a variable without a proper shape and name")
    bits = struct.unpack_from(f"{order}I", flags)[0]
    kind = _KINDS[bits & 0xFF] if bits & 0xFF < len(_KINDS) else "unknown"
    kind = f"complex {kind}" if bits & _COMPLEX else "logical" if bits & _LOGICAL else kind
    shape = struct.unpack(f"{order}{len(sides) // 4}i", sides)
    if min(shape, default=-1) < 0:
        raise ValueError(f"it has a variable of shape {shape}")
    return Variable(bytes(name).decode("latin-1"), shape, kind, order, packed, content if whole is None else whole)


def _element(content: memoryview, order: str) -> tuple[int, memoryview, memoryview]:
    """Return (type, content, what follows) of the first element; ValueError if it is cut off."""
    if len(content) < 8:
        raise ValueError("it is cut off")
    kind, size = struct.unpack_from(f"{order}2I", content)
    begin, short = 8, kind >> 16
    if short:  # up to four bytes stand in the tag itself
        kind, size, begin = kind & 0xFFFF, short, 4
    end = begin + size
    if end > len(content) or size > (4 if short else size):
        raise ValueError("it is cut off")
    return kind, content[begin:end], content[8 if short else end if kind == _COMPRESSED else -(-end // 8) * 8 :]
