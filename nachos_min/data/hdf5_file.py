"""Read HDF5 files: a user's in a process of its own, since the HDF5 library crashes or never ends on some damage.

That process has limits on memory and processor time, and sends the arrays through a pipe, a block at a time.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nachos_min.data.dataset import DataError
from nachos_min.data.keys import choose
from nachos_min.data.limits import Room
from nachos_min.errors import message
from nachos_min.files import open_file

Arrays = dict[str, NDArray[Any]]

_SMALL = 1 << 26  # bytes that may be declared without being stored
_BLOCK, _CHUNKS, _TEXTS = 1 << 24, 1 << 12, 1 << 28  # bytes, chunks, bytes of text that are read at once
_VARIABLE = 16  # bytes of a text's place in the file
_LONGEST = 4_096  # bytes of one text, far more than a class's name may have
_MEMORY = 1 << 29  # bytes that the process may take, beside twice the largest block
_SECONDS, _RATE, _EACH = 2, 20_000_000, 2e-5  # of processor time: to begin; bytes in each; for a chunk or a text
_PROGRAM = "from nachos_min.data.hdf5_file import _send; _send()"
_REFUSED = 3  # exit status: standard error says why


def read_apart(path: Path, most: int, *, labelled: bool) -> Arrays:
    """Return the arrays of a user's file by the names that `check_arrays` knows; `labelled` as of `choose`.

    DataError if the file breaks a rule, or its arrays have more than `most` bytes; ValueError if it is damaged.
    """
    told = f"import sys; sys.path[:] = {sys.path!r}; {_PROGRAM}"
    flags = ["-W", "ignore", "-P", "-c", told, os.fspath(path), str(most), str(int(labelled))]
    one = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    ends: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    arrays: Arrays = {}
    with subprocess.Popen([sys.executable, *flags], env=os.environ | one, **ends) as process:
        received: Any = process.stdout
        errors: Any = process.stderr
        try:
            whole = True
            while whole and (line := received.readline()):
                name, kind, shape = json.loads(line)
                arrays[name] = array = np.empty(shape, kind)
                whole = received.readinto(array.reshape(-1).view(np.uint8)) == array.nbytes
            said, status = errors.read().decode(errors="replace"), process.wait()
        finally:
            process.kill()
    if status == _REFUSED:
        raise DataError(said)
    if status or not whole:
        signals = {-each: each.name for each in signal.Signals}
        raise ValueError(said or f"the process that read it ended with {signals.get(status, status)}")
    return arrays


def read_here(path: Path) -> Arrays:
    """Return the arrays of a file that this program made."""
    import h5py  # which is slow to import

    with h5py.File(path, "r") as file:
        found = _found(path, file, sys.maxsize, labelled=True)
        return {each.name: np.concatenate([*each.blocks()]) for each in found}


def _send() -> None:
    """Write the arrays of the file that the command line names to standard output."""
    import h5py

    path, most, labelled = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3] == "1"
    limit(_SECONDS, _MEMORY)
    try:
        with open_file(path) as opened, h5py.File(opened, "r") as file:
            found = _found(path, file, most, labelled=labelled)
            limit(_SECONDS + sum(each.seconds for each in found), _MEMORY + 2 * max(each.block for each in found))
            for each in found:
                kind, blocks = each.typed()
                sys.stdout.buffer.write(json.dumps([each.name, kind.str, each.stored.shape]).encode() + b"\n")
                for rows in blocks:
                    sys.stdout.buffer.write(np.ascontiguousarray(rows).reshape(-1).view(np.uint8).data)
            sys.stdout.buffer.flush()
    except Exception as error:  # the library's are of another class for every kind of damage
        refused = isinstance(error, DataError)
        sys.stderr.write(str(error) if refused else message(error) or type(error).__name__)
        sys.stderr.flush()
        os._exit(_REFUSED if refused else 1)


def limit(seconds: float, memory: int) -> None:
    """End this process after some seconds more of processor time; let it take so many bytes beside what it has."""
    if sys.platform == "win32":
        return  # it has no such limits
    import resource

    with suppress(OSError):  # macOS has not all of them
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        for what, value in (
            (resource.RLIMIT_CORE, 0),
            (resource.RLIMIT_CPU, int(time.process_time() + seconds) + 1),
            (resource.RLIMIT_AS, pages * resource.getpagesize() + memory),
        ):
            most = resource.getrlimit(what)[1]
            resource.setrlimit(what, (value if most == resource.RLIM_INFINITY else min(value, most), most))


@dataclass(frozen=True)
class _Found:
    """An array that may be read."""

    path: Path
    name: str  # as `check_arrays` knows it
    own: str  # in the file
    stored: Any  # h5py.Dataset
    text: bool  # of variable length
    rows: int  # that are read at once
    most: int  # bytes

    @property
    def block(self) -> int:
        """Bytes of what is read at once."""
        return int(self.rows * (self.stored.nbytes // max(1, len(self.stored))))

    @property
    def seconds(self) -> float:
        """Processor time that reading may take."""
        values = self.stored.size
        chunk = prod(self.stored.chunks) if self.stored.chunks else values
        return float(self.stored.nbytes / _RATE + (values if self.text else values / max(1, chunk)) * _EACH)

    def blocks(self) -> Iterator[NDArray[Any]]:
        """Yield the rows in order."""
        for begin in range(0, len(self.stored), self.rows):
            yield self.stored[begin : begin + self.rows]

    def typed(self) -> tuple[np.dtype[Any], Iterable[NDArray[Any]]]:
        """Return the type of the values and the rows; text becomes bytes of one length."""
        if not self.text:
            return self.stored.dtype, self.blocks()
        parts, longest = [], 1
        for rows in self.blocks():
            longest = max(longest, *map(len, rows.flat))
            if longest > _LONGEST:
                raise DataError(
                    f"{self.path}: {self.own} must each have at most {_LONGEST:,} bytes, got {longest:,}"
                )
            if (needed := self.stored.size * longest) > self.most:
                rule = f"at most {self.most:,} bytes as text of one length"
                raise DataError(f"{self.path}: {self.own} must have {rule}, got {needed:,}")
            parts.append(rows.astype(f"S{longest}"))
        return np.dtype(f"S{longest}"), (part.astype(f"S{longest}") for part in parts)


def _found(path: Path, file: Any, most: int, *, labelled: bool) -> list[_Found]:
    """Return the arrays of an open file that are to be read; DataError as `read_apart`."""
    import h5py
    from h5py import h5g, h5o

    from nachos_min import hdf5

    root, room = h5g.open(file.id, b"/"), Room(str(path), most)
    try:
        links = hdf5.links(root)
        own = [name for name, address in links.items() if address is not None]
        arrays = {name for name in own if h5o.get_info(root, hdf5.encoded(name)).type == h5o.TYPE_DATASET}

        def stored(name: str) -> Any:
            return h5py.Dataset(h5o.open(root, hdf5.encoded(name)))

        def describe(name: str) -> str:
            if name not in arrays:
                return "(a link)" if links[name] is None else "(a group)"
            kind = stored(name).id.get_type()
            plain = hdf5.plain_type(kind)
            told = "text" if hdf5.is_text(kind) else "of another type" if plain is None else plain
            return f"{list(stored(name).shape or ())} {told}"

        found = []
        for name, title in choose(path, links, describe, links.keys() - arrays, labelled=labelled).items():
            array, kind = stored(title), stored(title).id.get_type()
            text, plain = hdf5.is_text(kind), hdf5.plain_type(kind)
            item = _VARIABLE if text else 0 if plain is None else plain.itemsize
            if not 0 < item <= _LONGEST or not array.shape:
                raise DataError(f"{path}: {title} must be an array of numbers or text, got {describe(title)}")
            room.take(item * array.size, f"{title} of shape {array.shape}")
            hdf5.check_storage(array.id, title, most, item, compressed=True, small=_SMALL)
            rows = _rows(array, item, file.id.get_filesize() if text else 1)
            found.append(_Found(path, name, title, array, text, rows, most - room.taken))
    except hdf5.Hdf5Error as error:
        raise DataError(f"{path}: {error}") from None
    return found


def _rows(array: Any, item: int, longest: int) -> int:
    """Return how many rows are read at once: whole chunks; fewer texts, which may have `longest` bytes each."""
    chunk = array.chunks or (1, *array.shape[1:])
    each = chunk[0] * max(1, prod(array.shape[1:])) * item
    across = prod(-(-length // max(1, part)) for length, part in zip(array.shape[1:], chunk[1:], strict=True))
    rows = int(chunk[0] * max(1, min(_BLOCK // each, _CHUNKS // max(1, across))))
    return max(min(rows, 16), min(rows, _TEXTS // longest))
