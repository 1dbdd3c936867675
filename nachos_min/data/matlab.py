"""Numbers and text in MATLAB files of versions 5 to 7. SciPy's reader ends the process on some damaged files.

A file is 128 bytes and a series of elements: a tag with type and size, the content, and zeros up to 8 bytes.
A variable is an element that may be compressed, and holds elements: flags, shape, name, values by columns.

Source: The MathWorks, "MAT-File Format", chapter 1.
"""

import mmap
import zlib
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MATRIX, _COMPRESSED = 14, 15
_NUMBERS = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
_TEXTS = {1: "latin-1", 2: "latin-1", 4: "utf-16", 16: "utf-8", 17: "utf-16", 18: "utf-32"}
_NUMERIC = ("double", "single", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")
_KINDS = ("unknown", "cell", "struct", "object", "char", "sparse", *_NUMERIC, "function", "opaque")
_COMPLEX, _LOGICAL = 0x800, 0x200  # flags
_HEADER = 1024  # bytes that hold flags, shape and name of every variable


@dataclass(frozen=True)
class Variable:
    """A variable whose values are not read yet."""

    name: str
    shape: tuple[int, ...]
    kind: str  # as MATLAB calls it
    order: str  # of bytes, "<" or ">"
    packed: bool
    content: memoryview  # from the element with the values on; all, if packed

    def values(self) -> NDArray[Any] | None:
        """Return numbers, or a text for each row or cell; None if it has neither; ValueError if it is damaged."""
        if self.packed:
            unpacking = zlib.decompressobj()
            whole = unpacking.decompress(
                self.content, _HEADER + prod(self.shape) * (_HEADER if self.kind == "cell" else 8)
            )
            if not unpacking.eof:
                raise ValueError(f"{self.name} is cut off, or larger than its shape")
            return _variable(_element(memoryview(whole), self.order)[1], self.order).values()
        if self.kind == "cell":
            texts, rest = list[str](), self.content
            while rest:
                _, inner, rest = _element(rest, self.order)
                cell = _variable(inner, self.order)
                if cell.kind != "char" or cell.shape[0] != 1 or (text := cell.values()) is None:
                    return None
                texts.append(text[0])
            return np.array(texts, np.str_).reshape(self.shape, order="F")
        if self.kind not in ("char", "logical", *_NUMERIC):
            return None
        stored, raw, _ = _element(self.content, self.order)
        if stored not in (_TEXTS if self.kind == "char" else _NUMBERS):
            raise ValueError(f"{self.name} has values of the unknown type {stored}")
        if self.kind == "char":
            ends = {"<": "-le", ">": "-be"}[self.order] if _TEXTS[stored][-2:] in ("16", "32") else ""
            letters = np.array(list(bytes(raw).decode(_TEXTS[stored] + ends)), np.str_)
            rows = letters.reshape(self.shape, order="F").reshape(self.shape[0], -1).tolist()
            return np.array(["".join(row) for row in rows], np.str_)
        array = np.frombuffer(raw, self.order + _NUMBERS[stored]).reshape(self.shape, order="F")
        return array.astype(array.dtype.newbyteorder("="), copy=False)


def read_variables(path: Path) -> dict[str, Variable]:
    """Return name -> variable; ValueError if the file is damaged or of another version."""
    with open(path, "rb") as file:
        content = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    order = {b"IM": "<", b"MI": ">"}.get(bytes(content[126:128]))
    if order is None or content[124 if order == ">" else 125] != 1:
        raise ValueError("its first 128 bytes are those of no such file")
    found: dict[str, Variable] = {}
    rest = content[128:]
    while rest:
        kind, inner, rest = _element(rest, order)
        if kind == _COMPRESSED:
            head = memoryview(zlib.decompressobj().decompress(inner, _HEADER))
            variable = _variable(head[8:], order, inner)
        elif kind == _MATRIX:
            variable = _variable(inner, order)
        else:
            raise ValueError(f"it has an element of the unknown type {kind}")
        found[variable.name] = variable
    return found


def _variable(content: memoryview, order: str, packed: memoryview | None = None) -> Variable:
    _, flags, content = _element(content, order)
    _, sides, content = _element(content, order)
    _, name, content = _element(content, order)
    bits = int(np.frombuffer(flags[:4], f"{order}u4")[0])
    kind = dict(enumerate(_KINDS)).get(bits & 0xFF, "unknown")
    kind = f"complex {kind}" if bits & _COMPLEX else "logical" if bits & _LOGICAL else kind
    shape = tuple(np.frombuffer(sides, f"{order}i4").tolist())
    if min(shape, default=-1) < 0:
        raise ValueError(f"it has a variable of shape {shape}")
    return Variable(
        bytes(name).decode("latin-1"), shape, kind, order, packed is not None, content if packed is None else packed
    )


def _element(content: memoryview, order: str) -> tuple[int, memoryview, memoryview]:
    """Return (type, content, what follows) of the first element; ValueError if it is cut off."""
    if len(content) < 8:
        raise ValueError("it is cut off")
    kind, size = np.frombuffer(content[:8], f"{order}u4").tolist()
    begin, short = 8, kind >> 16
    if short:  # up to four bytes stand in the tag itself
        kind, size, begin = kind & 0xFFFF, short, 4
    end = begin + size
    if end > len(content) or size > (4 if short else size):
        raise ValueError("it is cut off")
    return kind, content[begin:end], content[8 if short else end if kind == _COMPRESSED else -(-end // 8) * 8 :]
