"""One record, a dict of plain values and arrays, as the bytes of one HDF5 file, and back without any loss.

    dict         a group, one member per key
    ndarray      a data set of its type and shape; a type that HDF5 lacks (text, dates, structures) as bytes,
                 uint8 with attributes `dtype` (as in a .npy header) and `shape`
    list, tuple  as JSON if it holds plain values only; else a group with members 0, 1, 2 .. and the attribute
                 `sequence`, "list" or "tuple"
    plain value  int, float, str, bool, None: JSON text (ASCII), which is exact for all of them, in a scalar data
                 set of fixed length; a tuple is written {"tuple": [...]}

The file begins with 512 bytes that HDF5 skips: a line with the SHA-256 of what follows. It is verified before
anything is parsed, because some damaged files make the HDF5 library crash. What is parsed are the bytes that were
verified. Anybody can seal a file, so nothing in it is believed: a member that leads elsewhere, holds more than the
file has bytes for, or is of another form than the above makes the file a damaged one.
"""

import ast
import hashlib
import json
import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from h5py import h5f, h5g
from numpy.lib import format as npy

from nachos_min.errors import InputError
from nachos_min.files import read_file
from nachos_min.hdf5 import Members, attribute

_USER_BLOCK = 512  # bytes; the smallest that HDF5 allows
_PLAIN = int | float | str | None
_HDF5_KINDS = "biufc"  # bool, integers, floats, complex: h5py gives these back with the very same dtype
MOST_BYTES = 1 << 29  # of a file, and of its arrays
_MOST_TEXT = 1 << 23  # bytes of one JSON text; lists of nothing need 50 times as much memory
_MOST_DEEP = 64  # lists inside each other
_DTYPE = re.compile(r"[\w\s\[\](),'<>|=]{1,1000}")  # attribute `dtype`: no expression to compute
_NO_KEY = re.compile(r"\A\.?\Z|[/\0\ud800-\udfff]")  # the last are halves of a surrogate pair, no text


class StoreError(InputError):
    """A run that cannot be written, read or continued; the message names the file, and the rule."""


def encode(record: Mapping[str, Any], *, compress: bool = False) -> bytes:
    """Return the bytes of an HDF5 file that holds the record; `compress`: arrays by DEFLATE, without loss.

    Keys are text without "/" and not "."; values are int, float, str, bool, None, NumPy arrays of any type but
    object, and lists, tuples and dicts of all these; else StoreError, which gives the place.
    """
    filters = {"compression": "gzip", "shuffle": True} if compress else {}
    layout: Any = {"userblock_size": _USER_BLOCK, "track_order": True}
    with h5py.File("record", "w", driver="core", backing_store=False, **layout) as file:
        for key, value in record.items():
            _put(file, key, value, "", filters)
        file.flush()
        content: bytes = file.id.get_file_image()  # what follows the user block
    return _seal(content) + content


def decode(path: Path, without: Collection[str] = (), *, given: bool = False) -> dict[str, Any]:
    """Return the record in a file that `encode` made: the same types, order of keys, and bits.

    Keys that are `without` value are not read. A file that a user has `given` may be a link, and compressed.
    StoreError if the file cannot be read, or is not as it was written.
    """
    try:
        content = read_file(path, MOST_BYTES, links=given)
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}") from None
    if content[:_USER_BLOCK] != _seal(memoryview(content)[_USER_BLOCK:]):
        raise StoreError(f"{path} is damaged: its content is not what its checksum says")
    try:
        reader = _Reader(MOST_BYTES, compressed=given)
        return reader.values(h5g.open(h5f.open_file_image(content), b"/"), without)
    except MemoryError:
        raise
    except Exception:  # whatever HDF5, JSON or NumPy raise: somebody sealed what `encode` does not make
        raise StoreError(f"{path} is damaged: it was not written as this program writes it") from None


def _seal(content: bytes | memoryview) -> bytes:
    """Return the user block of a file with this content."""
    line = f"nachos_min record, SHA-256 of all after byte {_USER_BLOCK}: {hashlib.sha256(content).hexdigest()}\n"
    return line.encode().ljust(_USER_BLOCK, b"\n")


def _put(group: Any, key: object, value: object, place: str, filters: Mapping[str, Any]) -> None:
    """Add a member to `group`, which stands at `place`, its arrays with `filters`."""
    if not isinstance(key, str) or _NO_KEY.search(key):
        raise StoreError(f"a key{place and ' in ' + place} must be text without '/' and not '.', got {key!r}")
    place = f"{place}.{key}" if place else key
    if _is_plain(value):
        group.create_dataset(key, data=np.bytes_(json.dumps(_to_json(value)).encode("ascii")))
    elif isinstance(value, np.ndarray):
        if value.dtype.hasobject:
            raise StoreError(f"{place} must be an array of plain numbers, text or dates, got {value.dtype}")
        if value.dtype.kind in _HDF5_KINDS:
            group.create_dataset(key, data=value, **(filters if value.size > 1 else {}))  # one has no chunks
        else:
            stored = group.create_dataset(key, data=np.frombuffer(value.tobytes(), dtype=np.uint8))
            stored.attrs["dtype"] = repr(npy.dtype_to_descr(value.dtype))
            stored.attrs["shape"] = np.array(value.shape, dtype=np.int64)
    elif isinstance(value, Mapping | list | tuple):
        inner = group.create_group(key, track_order=True)
        if not isinstance(value, Mapping):
            inner.attrs["sequence"] = "tuple" if isinstance(value, tuple) else "list"
            value = {str(position): item for position, item in enumerate(value)}
        for inner_key, inner_value in value.items():
            _put(inner, inner_key, inner_value, place, filters)
    else:
        raise StoreError(
            f"{place} must be int, float, str, bool, None, an array, or a list, tuple or dict of these, "
            f"got {type(value).__module__}.{type(value).__qualname__}"
        )


class _Reader(Members):
    """Reads the members of a file; any exception says that they are not as `encode` makes them."""

    def values(self, group: h5g.GroupID, without: Collection[str] = ()) -> dict[str, Any]:
        """Return the values in a group by their keys, but some."""
        return {key: self._value(member, key) for key, member in self.of(group) if key not in without}

    def _value(self, member: Any, key: str) -> Any:
        """Return the value of a low-level member; those of h5py take twice as long, and a run has thousands."""
        if isinstance(member, h5g.GroupID):
            content, sequence = self.values(member), attribute(member, "sequence")
            return content if sequence is None else {"tuple": tuple, "list": list}[sequence](content.values())
        stored = self.array(member, key)
        if stored.dtype.kind == "S":
            if stored.nbytes > _MOST_TEXT:
                raise ValueError("text is too long")
            return _from_json(json.loads(stored.item()))
        if (described := attribute(member, "dtype")) is None:
            return stored
        if not _DTYPE.fullmatch(described):
            raise ValueError("no type of NumPy")
        dtype = npy.descr_to_dtype(ast.literal_eval(described))
        return np.frombuffer(stored.tobytes(), dtype).reshape(attribute(member, "shape").tolist()).copy()


def _is_plain(value: object) -> bool:
    return all(map(_is_plain, value)) if isinstance(value, list | tuple) else isinstance(value, _PLAIN)


def _to_json(value: Any) -> Any:
    if isinstance(value, tuple):
        return {"tuple": [_to_json(item) for item in value]}
    return [_to_json(item) for item in value] if isinstance(value, list) else value


def _from_json(value: Any, depth: int = 0) -> Any:
    if depth > _MOST_DEEP:
        raise ValueError("lists are too deep inside each other")
    if isinstance(value, dict):
        return tuple(_from_json(item, depth + 1) for item in value["tuple"])
    return [_from_json(item, depth + 1) for item in value] if isinstance(value, list) else value
