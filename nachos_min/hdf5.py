"""What of an HDF5 file is read: its own arrays, of plain types, each within a bound of bytes known beforehand.

A file may come from anybody. It may lead to other files (links, virtual data sets, external storage), name filters
that are loaded as plugins, declare an array of terabytes, or link a group into itself. All of this is refused by
what the file declares, before any of it is read. Damaged metadata can still crash the HDF5 library: so
`data/hdf5_file.py` reads users' files in a process of their own, and records carry a checksum.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from math import prod
from typing import Any

import h5py
import numpy as np
from h5py import h5a, h5d, h5g, h5l, h5o, h5s, h5t, h5z
from numpy.typing import NDArray

from nachos_min.errors import InputError, shorten

# Others, if not built in, are libraries that HDF5 finds by their number and runs.
_FILTERS = {h5z.FILTER_DEFLATE: "gzip", h5z.FILTER_SHUFFLE: "", h5z.FILTER_FLETCHER32: "", h5z.FILTER_LZF: "lzf"}
_LAYOUTS = {h5d.COMPACT, h5d.CONTIGUOUS, h5d.CHUNKED}  # not VIRTUAL: it is made of data sets elsewhere
_NUMBERS = {h5t.INTEGER: "iu", h5t.FLOAT: "f", h5t.ENUM: "b", h5t.COMPOUND: "c"}  # as h5py stores these kinds
_RATIO = 1_100  # bytes that one byte of DEFLATE gives, at most (1,032), with what surrounds it
MOST_CHUNK = 1 << 26  # bytes: a chunk is held several times while it is decompressed
MOST_CHUNKS = 1 << 20
MOST_MEMBERS = 100_000  # of a group
MOST_ATTRIBUTE = 1 << 16  # bytes


class Hdf5Error(InputError):
    """Something in an HDF5 file that is not read; the message names it, and the rule, but not the file."""


def links(group: h5g.GroupID) -> dict[str, int | None]:
    """Return the names in a group in their order, with the address of each object; None for no hard link."""
    if (count := group.get_num_objs()) > MOST_MEMBERS:
        raise Hdf5Error(f"a group must have at most {MOST_MEMBERS:,} members, got {count:,}")
    found = {name: group.links.get_info(encoded(name)) for name in h5py.Group(group)}
    return {name: info.u if info.type == h5l.TYPE_HARD else None for name, info in found.items()}


def encoded(name: str) -> bytes:
    """Return a name as it stands in the file."""
    return name.encode("utf-8", "surrogateescape")


def is_text(kind: h5t.TypeID) -> bool:
    """Return whether a type is text of variable length, whose bytes stand elsewhere in the file."""
    return kind.get_class() == h5t.STRING and bool(kind.is_variable_str())


def plain_type(kind: h5t.TypeID) -> np.dtype[Any] | None:
    """Return a type of numbers, truth values or text of fixed length as NumPy's, byte for byte; None for others."""
    of = kind.get_class()
    if of == h5t.STRING:
        return None if kind.is_variable_str() else np.dtype(f"S{kind.get_size()}")
    if of not in _NUMBERS or kind.get_size() > 32:
        return None
    try:
        found = kind.dtype
        same = found.kind in _NUMBERS[of] and kind.equal(_stored_as(found))
    except (TypeError, ValueError):
        return None
    return found if same else None


@lru_cache
def _stored_as(kind: np.dtype[Any]) -> h5t.TypeID:
    """Return the type that h5py stores values of a NumPy type as."""
    return h5t.py_create(kind, logical=True)


def check_storage(
    dataset: h5d.DatasetID, name: str, most: int, item: int, *, compressed: bool, small: int = 0
) -> int:
    """Return the bytes of the values of a data set called `name`, each of `item` bytes, without reading them.

    Hdf5Error if they are more than `most`, or are not stored whole in this file, by filters that are built in, and
    none unless `compressed`. Up to `small` bytes may be declared without being stored.
    """
    if dataset.get_offset() is not None:  # in one piece, in this file
        size, stored = item * int(prod(dataset.shape)), dataset.get_storage_size()
        if size <= min(stored, most):
            return size
    space, made = dataset.get_space(), dataset.get_create_plist()
    if space.get_simple_extent_type() not in (h5s.SIMPLE, h5s.SCALAR):
        raise Hdf5Error(f"{name} must be an array, got an empty data space")
    shape, layout = space.get_simple_extent_dims(), made.get_layout()
    declared, values = f"declares shape {shape} of {item}-byte values", int(prod(shape))
    if layout not in _LAYOUTS or made.get_external_count():
        raise Hdf5Error(f"{name} must be stored in this file, got a virtual data set or external storage")
    if values * item > most:
        raise Hdf5Error(f"{name} must have at most {most:,} bytes, it {declared}")
    filters = [made.get_filter(place)[0] for place in range(made.get_nfilters())]
    if other := [number for number in filters if number not in _FILTERS or not compressed]:
        known = "compressed by gzip or lzf, or not at all" if compressed else "stored without filters"
        raise Hdf5Error(f"{name} must be {known}, got HDF5 filter {other[0]}")
    if layout == h5d.CHUNKED:
        chunk = made.get_chunk()
        count = prod(-(-length // part) for length, part in zip(shape, chunk, strict=True))
        if prod(chunk) * item > MOST_CHUNK or count > MOST_CHUNKS:
            rule = f"at most {MOST_CHUNKS:,} chunks of at most {MOST_CHUNK:,} bytes"
            raise Hdf5Error(f"{name} must be stored in {rule}, got {count:,} of shape {chunk}")
    squeezed = any(_FILTERS[number] for number in filters)
    if values * item > max(small, dataset.get_storage_size() * (_RATIO if squeezed else 1)):
        raise Hdf5Error(f"{name} {declared}, but holds only {dataset.get_storage_size():,} bytes")
    return values * item


@dataclass
class Members:
    """Reads what a file holds that has one name for each object, and decodes to at most `most` bytes."""

    most: int
    compressed: bool = False  # whether arrays may be; otherwise what is read is in the file byte for byte
    _met: set[int] = field(default_factory=set)  # addresses of objects

    def of(self, group: h5g.GroupID) -> Iterator[tuple[str, Any]]:
        """Yield the members of a group, a GroupID or DatasetID each, by name; Hdf5Error if one is no hard link.

        An object that was met before is refused: a group linked into itself never ends.
        """
        for name, address in links(group).items():
            if address is None or address in self._met:
                raise Hdf5Error(f"{shorten(name)} must be an object with this one name, got a link")
            self._met.add(address)
            yield name, h5o.open(group, encoded(name))

    def array(self, dataset: h5d.DatasetID, name: str) -> NDArray[Any]:
        """Return the values of a data set; Hdf5Error as `check_storage`, or if its type is not plain."""
        if not isinstance(dataset, h5d.DatasetID) or (kind := plain_type(dataset.get_type())) is None:
            raise Hdf5Error(f"{shorten(name)} must be an array of numbers, truth values or bytes")
        self.most -= check_storage(dataset, shorten(name), self.most, kind.itemsize, compressed=self.compressed)
        found = np.empty(dataset.shape, kind)
        dataset.read(h5s.ALL, h5s.ALL, found)
        return found


def attribute(member: Any, name: str) -> Any:
    """Return an attribute of a member, text or numbers, or None; Hdf5Error if it is something else."""
    if not h5a.exists(member, name.encode()):
        return None
    stored = h5a.open(member, name.encode())
    kind, space = stored.get_type(), stored.get_space()
    simple = space.get_simple_extent_type() in (h5s.SIMPLE, h5s.SCALAR)
    within = simple and space.get_simple_extent_npoints() * kind.get_size() <= MOST_ATTRIBUTE
    if not (within and (is_text(kind) or plain_type(kind) is not None)):
        raise Hdf5Error(f"attribute {name} must be text or numbers of at most {MOST_ATTRIBUTE:,} bytes")
    holder = h5py.Group(member) if isinstance(member, h5g.GroupID) else h5py.Dataset(member)
    return holder.attrs[name]
