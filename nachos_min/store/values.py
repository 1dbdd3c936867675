"""One record, a dict of plain values and arrays, as the bytes of one HDF5 file, and back without any loss.

Layout of a file:

    dict         a group, one member per key
    ndarray      a data set of its type and shape; a type that HDF5 lacks (text, dates, structures) as bytes
                 in a data set of uint8 with attributes `dtype` (as in a .npy header) and `shape`
    list, tuple  as JSON if it holds plain values only; else a group with members 0, 1, 2 .. and the attribute
                 `sequence`, "list" or "tuple"
    plain value  int, float, str, bool, None: JSON text (ASCII), which is exact for integers of any size and
                 for every float, in a scalar data set of fixed length; a tuple is written {"tuple": [...]}

The file begins with HDF5's user block, 512 bytes that HDF5 itself skips: one line with the SHA-256 of all
that follows. It is verified before anything is parsed, so that a flipped bit is found and not only a
missing end, and because the HDF5 library does not survive every damaged file: some make it crash. The file
is made in memory; `files.py` puts it on the disk. Read `errors.py` before; `run.py` says what is stored.
"""

import ast
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from nachos_min.store.errors import StoreError

_USER_BLOCK = 512  # bytes; the smallest that HDF5 allows
_HDF5_KINDS = "biufc"  # bool, integers, floats, complex: h5py gives these back with the very same dtype


def encode(record: Mapping[str, Any], *, compress: bool = False) -> bytes:
    """Return the bytes of an HDF5 file that holds the record.

    Args:
        record: keys are text without "/" and not "."; values are int, float, str, bool, None, NumPy arrays
            of any type but object, and lists, tuples and dicts of all these.
        compress: store arrays compressed (DEFLATE), without loss: fewer bytes, more time.

    Returns:
        The file, to be written as it is.

    Raises:
        StoreError: a key or a value is none of these; the message gives its place.
    """
    with h5py.File(
        "record", "w", driver="core", backing_store=False, userblock_size=_USER_BLOCK, track_order=True
    ) as file:
        for key, value in record.items():
            _put(file, key, value, "", {"compression": "gzip", "shuffle": True} if compress else {})
        file.flush()
        content: bytes = file.id.get_file_image()  # what follows the user block
    return _seal(content) + content


def decode(path: Path) -> dict[str, Any]:
    """Return the record that a file holds, equal to the one written: types, order of keys, every bit.

    Args:
        path: a file whose content `encode` made.

    Returns:
        The record.

    Raises:
        StoreError: the file cannot be read, or a bit of it is not as it was written; the message names it.
    """
    try:
        whole = path.read_bytes()
    except OSError as error:
        raise StoreError(f"{path} cannot be read: {error.strerror}") from None
    if whole[:_USER_BLOCK] != _seal(whole[_USER_BLOCK:]):
        raise StoreError(f"{path} is damaged: its content is not what its checksum says")
    with h5py.File(path, "r", locking=False) as file:  # files never change, and some disks cannot lock
        return {key: _get(member) for key, member in file.items()}


def _seal(content: bytes) -> bytes:
    """Return the user block of a file with this content."""
    digest = hashlib.sha256(content).hexdigest()
    line = f"nachos_min record, SHA-256 of all after byte {_USER_BLOCK}: {digest}\n"
    return line.encode().ljust(_USER_BLOCK, b"\n")


def _put(group: Any, key: object, value: object, place: str, filters: Mapping[str, Any]) -> None:
    if not isinstance(key, str) or key in ("", ".") or "/" in key or "\0" in key or not _is_unicode(key):
        raise StoreError(f"a key{place and ' in ' + place} must be text without '/' and not '.', got {key!r}")
    place = f"{place}.{key}" if place else key
    if _is_plain(value):
        text = json.dumps(_to_json(value))
        group.create_dataset(key, data=np.bytes_(text.encode("ascii")))
    elif isinstance(value, np.ndarray):
        _put_array(group, key, value, place, filters)
    elif isinstance(value, Mapping):
        inner = group.create_group(key, track_order=True)
        for inner_key, inner_value in value.items():
            _put(inner, inner_key, inner_value, place, filters)
    elif isinstance(value, list | tuple):
        inner = group.create_group(key, track_order=True)
        inner.attrs["sequence"] = "tuple" if isinstance(value, tuple) else "list"
        for position, item in enumerate(value):
            _put(inner, str(position), item, place, filters)
    else:
        raise StoreError(
            f"{place} must be int, float, str, bool, None, an array, or a list, tuple or dict of these, "
            f"got {type(value).__module__}.{type(value).__qualname__}"
        )


def _put_array(group: Any, key: str, array: NDArray[Any], place: str, filters: Mapping[str, Any]) -> None:
    if array.dtype.hasobject:
        raise StoreError(f"{place} must be an array of plain numbers, text or dates, got {array.dtype}")
    if array.dtype.kind in _HDF5_KINDS:
        group.create_dataset(key, data=array, **(filters if array.size > 1 else {}))  # one has no chunks
    else:
        stored = group.create_dataset(key, data=np.frombuffer(array.tobytes(), dtype=np.uint8))
        stored.attrs["dtype"] = repr(npy.dtype_to_descr(array.dtype))
        stored.attrs["shape"] = np.array(array.shape, dtype=np.int64)


def _get(member: Any) -> Any:
    if isinstance(member, h5py.Group):
        content = {key: _get(inner) for key, inner in member.items()}
        kind = member.attrs.get("sequence")
        if kind is None:
            return content
        return tuple(content.values()) if kind == "tuple" else list(content.values())
    if member.dtype.kind == "S":
        return _from_json(json.loads(member[()]))
    if "dtype" in member.attrs:
        dtype = npy.descr_to_dtype(ast.literal_eval(member.attrs["dtype"]))
        shape = tuple(int(length) for length in member.attrs["shape"])
        return np.frombuffer(member[()].tobytes(), dtype=dtype).reshape(shape).copy()
    return member[...]  # not [()], which makes a scalar of an array without axes


def _is_plain(value: object) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, int | float | str)


def _to_json(value: Any) -> Any:
    if isinstance(value, list | tuple):
        items = [_to_json(item) for item in value]
        return {"tuple": items} if isinstance(value, tuple) else items
    return value


def _from_json(value: Any) -> Any:
    if isinstance(value, dict):
        return tuple(_from_json(item) for item in value["tuple"])
    return [_from_json(item) for item in value] if isinstance(value, list) else value


def _is_unicode(key: str) -> bool:
    try:
        key.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return False
    return True
