"""CIFAR-10 and CIFAR-100 as published: the binary and the Python version, unpacked or as an archive.

An archive is read as a stream and never unpacked to disk. A pickle calls nothing: see `_Arguments`.

Source: Krizhevsky, "Learning multiple layers of features from tiny images", 2009, and the page of the data sets.
"""

import mmap
import os
import pickle
import re
import tarfile
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import IO, Any, ClassVar, Self, TypeAlias, final

import numpy as np
from numpy.typing import NDArray

from nachos_min.data.dataset import DataError
from nachos_min.data.limits import Asked, Room
from nachos_min.data.unpacked import Unpacked
from nachos_min.files import open_file

_SIDE = 32
_PIXELS = 3 * _SIDE * _SIDE
_MEMBERS = 100  # of an archive; the published ones have 9 at most
_STEPS = 1 << 20  # of reading a pickle; the published ones have 250,000
_TUPLE = 1000  # steps that a tuple counts: tuples in tuples would end the interpreter
_LARGE = 1 << 20  # bytes of a frame, and of a text whose letters may be any
_LAST_LATIN = 0xC3  # byte in UTF-8 that begins the last letters of Latin-1


@dataclass(frozen=True)
class _Version:
    """The names of the files of one version, and what is in them."""

    train: tuple[str, ...]
    test: str
    meta: str  # the names of the classes
    classes: int
    labels: int  # binary: bytes in front of an image; the last one is its class
    key: str = ""  # Python: labels stand under this key with an s, names of classes with _names

    @property
    def files(self) -> tuple[str, ...]:
        return (*self.train, self.test, self.meta)


_TEN = tuple(f"data_batch_{number}" for number in range(1, 6))
_VERSIONS = (
    _Version(tuple(f"{name}.bin" for name in _TEN), "test_batch.bin", "batches.meta.txt", 10, 1),
    _Version(("train.bin",), "test.bin", "fine_label_names.txt", 100, 2),
    _Version(_TEN, "test_batch", "batches.meta", 10, 0, "label"),
    _Version(("train",), "test", "meta", 100, 0, "fine_label"),
)
_VERSION_OF = {name: version for version in _VERSIONS for name in version.files}


def holds_cifar(path: Path) -> bool:
    """Return whether `path` is a folder with the training files of a version, one of its files, or an archive."""
    if path.is_file():
        return path.name in _VERSION_OF or bool(re.search(r"\.(tgz|tar(\.gz)?)$", path.name.lower()))
    return any((path / version.train[0]).is_file() for version in _VERSIONS)


def read_cifar(path: Path, asked: Asked) -> dict[str, Any]:
    """Return images uint8 [N, 32, 32, 3], labels int64 [N], test_images, test_labels and class_names.

    Of CIFAR-100's labels, the 100 fine ones. Test images and names of classes may be missing. `path` is the folder
    with the unpacked files, one of them, or the archive. DataError if a file is not laid out as published.
    """
    packed = path.is_file() and path.name not in _VERSION_OF
    files = _packed(path, asked.room) if packed else _unpacked(path, asked.room)
    found: dict[str, Any] = {}
    with closing(files):
        for name, content in files:
            read = _meta if name == _VERSION_OF[name].meta else _images
            found[name] = read(f"{path}: {name}", _VERSION_OF[name], content)
    version = next((each for each in _VERSIONS if each.train[0] in found), None)
    if version is None or not set(version.train) <= found.keys() <= set(version.files):
        needed = f"{_TEN[0]} .. {_TEN[-1][-1]} or train, with .bin or without"
        listed = ", ".join(sorted(found)) or "none"
        raise DataError(f"{path}: all files of one version of CIFAR are needed ({needed}), found {listed}")
    arrays = {}
    for prefix, names in (("", version.train), ("test_", (version.test,))):
        parts = [found.pop(name) for name in names if name in found]
        if parts:
            arrays[f"{prefix}labels"] = np.concatenate([labels for _, labels in parts])
            arrays[f"{prefix}images"] = images = _empty(len(arrays[f"{prefix}labels"]))
            while parts:  # from the last on: a part's memory is free before the next one is copied
                part, _ = parts.pop()
                begin = sum(len(labels) for _, labels in parts)
                images[begin : begin + len(part)] = part
    return arrays | ({"class_names": found[version.meta]} if version.meta in found else {})


def _empty(samples: int) -> NDArray[np.uint8]:
    """Return images whose memory goes back to the system as soon as they are not used; malloc might keep it."""
    pixels = np.frombuffer(mmap.mmap(-1, samples * _PIXELS), np.uint8)
    return pixels.reshape(samples, _SIDE, _SIDE, 3)


def _unpacked(path: Path, room: Room) -> Generator[tuple[str, IO[bytes]]]:
    """Yield name and content of the wanted files of a folder, or beside a file."""
    for name in _VERSION_OF:
        file = (path if path.is_dir() else path.parent) / name
        if file.is_file():
            with open_file(file, links=file == path) as content:
                room.take(os.fstat(content.fileno()).st_size, name)
                yield name, content


@final
class _Member(tarfile.TarInfo):
    """A plain file or folder of an archive. Notes on one, such as times, are taken for files of no interest.

    The reader in Python's library would keep them, however large they are.
    """

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        """Return the member that a header describes; ValueError for a link, a device or another kind."""
        member = super().frombuf(buf, encoding, errors)
        if member.type in _NOTES:
            member.type, member.name = tarfile.REGTYPE, "note"
        elif member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE):
            raise ValueError(
                f"an archive must hold files and folders only, {member.name!r} is of type {member.type!r}"
            )
        return member


_NOTES = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME)


def _packed(path: Path, room: Room) -> Generator[tuple[str, IO[bytes]]]:
    """Yield name and content of the wanted files of an archive, in its order."""
    seen: set[str] = set()
    with open_file(path) as file:
        zipped = file.read(2) == b"\x1f\x8b"
        file.seek(0)
        bounded: Any = _Bounded(Unpacked(file) if zipped else file, replace(room))
        with tarfile.open(fileobj=bounded, mode="r|", tarinfo=_Member) as archive:
            for number, member in enumerate(archive):
                place = PurePosixPath(member.name)
                if place.is_absolute() or ".." in place.parts:
                    rule = "must hold files and folders below its own place only"
                    raise DataError(f"{path}: an archive {rule}, got {member.name!r}")
                if number > _MEMBERS:
                    rule = "must be that of CIFAR-10 or CIFAR-100; unpack others, and give the folder"
                    raise DataError(f"{path}: an archive {rule}, got more than {_MEMBERS} files")
                if member.isdir() or place.name not in _VERSION_OF:
                    continue
                if place.name in seen:
                    raise DataError(f"{path}: an archive must hold each file once, got a second {member.name!r}")
                seen.add(place.name)
                room.take(member.size, place.name)
                content = archive.extractfile(member)
                if content is not None:
                    yield place.name, content
        while bounded.read(1 << 20):  # to the end, where the checksum is
            pass


@final
class _Bounded:
    """A stream that refuses to give more than there is room for: a small archive may unpack to an enormous one."""

    def __init__(self, file: Any, room: Room) -> None:
        self._file, self._room = file, room

    def read(self, size: int) -> bytes:
        """Return the next `size` bytes, fewer at the end."""
        content: bytes = self._file.read(size)
        self._room.take(len(content), "the unpacked archive")
        return content


def _images(source: str, version: _Version, file: IO[bytes]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return (images [N, 32, 32, 3], labels [N]) of one file, which has planes of red, green and blue."""
    if version.labels:
        row = version.labels + _PIXELS
        content = file.read()
        if not content or len(content) % row:
            raise DataError(f"{source} must have rows of {row} bytes, got {len(content)} bytes")
        rows = np.frombuffer(content, np.uint8).reshape(-1, row)
        planes, labels = rows[:, version.labels :], rows[:, version.labels - 1].astype(np.int64)
    else:
        batch = _unpickled(source, file)
        planes, listed = _array(source, batch.pop("data", None)), batch.get(f"{version.key}s")
        if planes.ndim != 2 or planes.shape[1] != _PIXELS or not planes.size:
            raise DataError(f"{source}: data must be [N, {_PIXELS}], N >= 1, got shape {planes.shape}")
        if (
            not isinstance(listed, list)
            or len(listed) != len(planes)
            or any(type(each) is not int for each in listed)
        ):
            raise DataError(f"{source}: {version.key}s must be a list of {len(planes)} whole numbers")
        labels = np.array(listed, np.int64)
    wrong = (labels < 0) | (labels >= version.classes)
    if wrong.any():
        raise DataError(f"{source}: labels must be from 0 to {version.classes - 1}, got {labels[wrong][0]}")
    images = _empty(len(labels))
    images[:] = planes.reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1)
    return images, labels


def _meta(source: str, version: _Version, file: IO[bytes]) -> tuple[str, ...]:
    """Return the names of the classes."""
    names = file.read().split() if version.labels else _unpickled(source, file).get(f"{version.key}_names")
    if not isinstance(names, list) or len(names) != version.classes:
        raise DataError(f"{source} must list the names of {version.classes} classes, got {len(names or ())}")
    return tuple(_text(each) for each in names)


# Pickles. NumPy's own functions could be called with forged arguments, so they are not called either.

_CALLABLE = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),  # since NumPy 2
    ("_codecs", "encode"),  # how Python 3 writes bytes for Python 2
}


@final
class _Arguments:
    """What a pickle gives to a function that it wants called. Nothing is called: `_array` reads the arguments."""

    def __init__(self, function: str, given: tuple[Any, ...]) -> None:
        self.function, self.given, self.state = function, given, ((),)

    def __setstate__(self, state: Any) -> None:
        self.state = state


Step: TypeAlias = Callable[[Any], None]


def _counted(step: Step, count: int) -> Step:
    def counting(reader: Any) -> None:
        reader.steps += count
        if reader.steps > _STEPS:
            raise pickle.UnpicklingError(f"it takes more than {_STEPS:,} steps")
        step(reader)

    return counting


def _refused(_: Any) -> None:
    raise pickle.UnpicklingError("it has a step that makes more than numbers, texts, lists and dicts")


def _frame(reader: Any) -> None:
    """Read a frame, which Python ends after 64 kB: a large object stands alone."""
    size = int.from_bytes(reader.read(8), "little")
    if size > _LARGE:
        raise pickle.UnpicklingError(f"it has a frame of {size:,} bytes")
    reader._unframer.load_frame(size)


def _text_of(width: int) -> Step:
    def read(reader: Any) -> None:
        raw = reader.read(int.from_bytes(reader.read(width), "little"))
        # One letter beyond Latin-1 makes each letter take four bytes instead of one.
        if len(raw) > _LARGE and np.frombuffer(raw, np.uint8).max() > _LAST_LATIN:
            raise pickle.UnpicklingError("it has a large text that is no Latin-1")
        reader.append(raw.decode("utf-8", "surrogatepass"))

    return read


# Left out: what makes objects or extensions, is no content of the file, or asks for memory first.
_LEFT_OUT = pickle.BYTEARRAY8 + pickle.NEXT_BUFFER + pickle.READONLY_BUFFER + pickle.PERSID + pickle.BINPERSID
_LEFT_OUT += pickle.EXT1 + pickle.EXT2 + pickle.EXT4 + pickle.INST + pickle.OBJ + pickle.NEWOBJ + pickle.NEWOBJ_EX
_LEFT_OUT += pickle.UNICODE
_TUPLES = pickle.TUPLE + pickle.TUPLE1 + pickle.TUPLE2 + pickle.TUPLE3
_READ = {pickle.FRAME[0]: _frame, pickle.BINUNICODE[0]: _text_of(4), pickle.BINUNICODE8[0]: _text_of(8)}


@final
class _Unpickler(pickle._Unpickler):
    """Reads numbers, texts, lists and dicts; of all functions it knows the names of those that make arrays.

    It is derived from the one in Python: the one in C sets aside memory for whatever index a damaged file names.
    Steps are counted, since each byte of a file may make an object.
    """

    steps = 0
    dispatch: ClassVar = {
        code: _refused if code in _LEFT_OUT else _counted(step, _TUPLE if code in _TUPLES else 1)
        for code, step in (pickle._Unpickler.dispatch | _READ).items()
    }

    def find_class(self, module: str, name: str) -> Callable[..., _Arguments]:
        """Return what keeps the arguments; UnpicklingError for any other function."""
        if (module, name) not in _CALLABLE:
            raise pickle.UnpicklingError(f"a pickle must hold arrays only, it asks for {module}.{name}")
        return lambda *given: _Arguments(name, given)


def _unpickled(source: str, file: IO[bytes]) -> dict[str, Any]:
    """Return the dict in a pickle."""
    try:
        batch = _Unpickler(file, encoding="bytes").load()
    except Exception as error:  # damaged opcodes raise any exception
        rule = "must be a whole pickle of arrays"
        raise DataError(f"{source} {rule}, it cannot be read ({error})") from None
    if not isinstance(batch, dict):
        raise DataError(f"{source} must hold a dict, got {type(batch).__name__}")
    return {_text(key): value for key, value in batch.items()}


def _text(value: Any) -> str:
    """Return text as the Pythons write it: as bytes, as text, or as bytes made of text; "" for anything else."""
    if isinstance(value, _Arguments) and value.function == "encode":
        value = value.given[0]
    return value.decode("latin-1") if isinstance(value, bytes) else value if isinstance(value, str) else ""


def _array(source: str, value: Any) -> NDArray[np.uint8]:
    """Return the array of bytes that a pickle describes; DataError if it is described in another way."""
    try:
        _, shape, kind, by_columns, content = value.state
        if value.function != "_reconstruct" or kind.function != "dtype" or _text(kind.given[0]) != "u1":
            raise TypeError
        raw = content if isinstance(content, bytes) else _text(content).encode("latin-1")
        return np.frombuffer(raw, np.uint8).reshape(shape, order="F" if by_columns else "C")
    except (AttributeError, TypeError, ValueError, IndexError):
        raise DataError(f"{source}: data must be an array of bytes, got {type(value).__name__}") from None
