"""Read arrays from a file or a folder, one function a format.

Before an array is read, its declared size is counted: a file of a few bytes may declare an enormous one. Pickled
objects are never loaded.
"""

import zipfile
from collections.abc import Callable, Mapping
from functools import partial
from io import BytesIO
from math import prod
from pathlib import Path
from typing import IO, Any, TypeAlias, final

import numpy as np
from numpy.lib import format as npy

from nachos_min.data.cifar import holds_cifar, read_cifar
from nachos_min.data.csv_table import read_csv
from nachos_min.data.dataset import DataError
from nachos_min.data.folders import ENDINGS, holds_images, inside, read_images
from nachos_min.data.hdf5_file import read_apart
from nachos_min.data.idx import holds_idx, read_idx
from nachos_min.data.keys import PREFIXES, choose, meaning
from nachos_min.data.limits import SAMPLE_BYTES, Asked, Room
from nachos_min.data.matlab import read_variables
from nachos_min.files import open_file

# Arrays under `keys.NAMES`; maybe "class_names", tuple of str, by label 0 .. K-1; "notes", tuple of str; "files",
# "test_files" and so on, the name of each sample's file.
Arrays: TypeAlias = dict[str, Any]
_HEADER = 10_000  # bytes of a .npy file's description; NumPy writes 128
_PART = 1 << 22  # bytes of a .zip file that are read at a time, so also of its list of members
_TEXT = 128  # bytes of a label as Python's text, without its letters
ARCHIVES = (".7z", ".bz2", ".gz", ".rar", ".xz", ".zip", ".zst")  # which are not read: unpacked, they may be


def read(path: Path, asked: Asked | None = None) -> Arrays:
    """Return the arrays of an existing file or folder under the names that `check_arrays` knows.

    DataError if the content is unknown, damaged, too large, or holds objects.
    """
    asked = asked or Asked(Room(str(path)))
    arrays = _reading(path, "file or folder", partial(_recognised, path, asked))
    for name, array in arrays.items():
        if name.endswith("images"):
            kept = array.size if array.dtype in (np.uint8, np.bool_) else 4 * array.size
            samples = SAMPLE_BYTES * array.shape[0] if array.ndim else 0
            asked.room.take(samples + max(0, kept - array.nbytes), f"what is made of {name}")
        elif name.endswith("labels") and array.dtype.kind in "SU":
            letters = array.dtype.itemsize // (4 if array.dtype.kind == "U" else 1)
            asked.room.take(array.size * (_TEXT + 12 * letters), f"the text in {name}")
    return arrays


def _recognised(path: Path, asked: Asked) -> Arrays:
    """Return the arrays as `read` does."""
    # An archive often unpacks to a folder in a folder.
    while path.is_dir() and len(within := inside(path)) == 1 and within[0].is_dir():
        path = within[0]
    for kind, recognised, reader in RECOGNISED:
        if recognised(path):
            return _reading(path, kind, partial(reader, path, asked))
    if path.is_dir():
        kinds = ", ".join(kind for kind, *_ in RECOGNISED)
        file = next((each.name for each in inside(path) if each.suffix.lower() in FORMATS), None)
        advice = f"; is it the file {file}?" if file else ""
        raise DataError(f"{path}: a data folder must be one of: {kinds}; it holds something else{advice}")
    ending = path.suffix.lower()
    if not asked.labelled and ending in ENDINGS:
        return _reading(path, "image", partial(read_images, path, asked))
    if ending not in FORMATS:
        advice = "; unpack it, and give the folder" if ending in ARCHIVES else ""
        raise DataError(f"{path}: a data file must end in one of {', '.join(FORMATS)}, got {ending!r}{advice}")
    kind, by_ending = FORMATS[ending]
    return _reading(path, kind, partial(by_ending, path, asked))


def _reading(path: Path, kind: str, reader: Callable[[], Arrays]) -> Arrays:
    try:
        return reader()
    except DataError:
        raise
    except Exception as error:  # libraries and decompressors raise another class for every kind of damage
        if isinstance(error, OSError) and error.filename is not None:
            raise DataError(f"{error.filename} cannot be read: {error.strerror}") from None
        raise DataError(f"{path}: must be a whole {kind}, but it cannot be read ({error})") from None


def _read_hdf5(path: Path, asked: Asked) -> Arrays:
    arrays = read_apart(path, int(asked.room.most), labelled=asked.labelled)
    asked.room.take(sum(array.nbytes for array in arrays.values()), "all arrays")
    return arrays


@final
class _InParts:
    """A file that is read in small parts only: a damaged .zip may call all its content the list of its members."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self.seek, self.tell, self.seekable = file, file.seek, file.tell, file.seekable

    def read(self, size: int = -1) -> bytes:
        """Return the next `size` bytes, fewer at the end."""
        content = self._file.read(size if 0 <= size <= _PART else _PART + 1)
        if len(content) > _PART:
            raise ValueError(f"a list of its members, or a text, has more than {_PART:,} bytes")
        return content


def _read_npz(path: Path, asked: Asked) -> Arrays:
    with open_file(path) as file, zipfile.ZipFile(_InParts(file)) as archive:
        streams: dict[str, tuple[Path, Callable[[], IO[bytes]]]] = {}
        for each in archive.infolist():
            name = each.filename.removesuffix(".npy")
            if name in streams:
                raise DataError(f"{path}: each array must be there once, got {name} twice")
            if each.flag_bits & 1 or each.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise DataError(f"{path}: arrays must be stored or deflated and not encrypted, {name} is not")
            streams[name] = path, partial(archive.open, each)
        return _read_streams(path, streams, asked)


def _read_streams(path: Path, streams: Mapping[str, tuple[Path, Callable[[], IO[bytes]]]], asked: Asked) -> Arrays:
    """Return the arrays of .npy streams; `streams` are by name their file, and what opens them."""

    def describe(name: str) -> str:
        with streams[name][1]() as stream:
            try:
                shape, dtype = _npy_header(stream)
            except ValueError:
                return "(no array)"
        return f"{list(shape)} {dtype}"

    arrays = {}
    for name, own in choose(path, streams, describe, labelled=asked.labelled).items():
        file, opened = streams[own]
        with opened() as stream:
            shape, dtype = _npy_header(stream)
        if dtype.hasobject:
            rule = "must be numbers or text, got pickled objects"
            raise DataError(f"{file}: {own} {rule}; save texts with .astype(str)")
        if dtype.kind not in "biufcSU" or not dtype.itemsize or min(shape, default=0) < 0:
            raise DataError(f"{file}: {own} must be an array of numbers or text, got {dtype} of shape {shape}")
        asked.room.take(prod(shape) * dtype.itemsize, f"{own} of shape {shape}")
        with opened() as stream:
            try:
                arrays[name] = npy.read_array(stream, allow_pickle=False)
            except (EOFError, ValueError):
                raise DataError(f"{file}: {own} declares shape {shape} of {dtype}, but holds fewer bytes") from None
            if stream.read(1):
                raise DataError(f"{file}: {own} declares shape {shape} of {dtype}, but holds more bytes")
    return arrays


def _npy_header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Return the shape and the type that a .npy stream declares."""
    version = npy.read_magic(stream)
    width, read = (2, npy.read_array_header_1_0) if version == (1, 0) else (4, npy.read_array_header_2_0)
    told = stream.read(width)
    size = int.from_bytes(told, "little")
    if size > _HEADER:
        raise ValueError(f"its description must have at most {_HEADER:,} bytes, it declares {size:,}")
    shape, _, dtype = read(BytesIO(told + stream.read(size)))
    return shape, dtype


def _read_npy(path: Path, asked: Asked) -> Arrays:
    """Read the file of images, and files beside it that are named like it: labels, and other splits."""
    meant = meaning(path.stem)
    if not asked.labelled and (meant is None or meant[0] != "images"):
        return _read_npy_files(path, {path.stem: path}, asked)
    if meant is None or meant[0] != "images":
        rule = "the training images, called images.npy, x.npy, data.npy or x_train.npy"
        raise DataError(f"{path}: a .npy file must be {rule}, with labels.npy, y.npy or .., got {path.name}")
    files = {path.stem: path}
    for stem, file in _npy_files(path.parent).items():
        other = meaning(stem)
        if other is not None and other[0] != "images" and other[1] == meant[1]:
            files[stem] = file
    return _read_npy_files(path, files, asked)


def _npy_files(folder: Path) -> dict[str, Path]:
    return {file.stem: file for file in sorted(folder.glob("*.npy"))}


def _read_npy_files(path: Path, files: Mapping[str, Path], asked: Asked) -> Arrays:
    opened = {name: (file, partial(open_file, file, links=file == path)) for name, file in files.items()}
    return _read_streams(path, opened, asked)


def _holds_npy(path: Path) -> bool:
    return path.is_dir() and any(meaning(stem) for stem in _npy_files(path))


def _read_mat(path: Path, asked: Asked) -> Arrays:
    """Read variables of known names; X [H, W, C, N] with y is laid out like SVHN, whose test file may be beside it.

    Source: SVHN's format 2 (Netzer et al., "Reading digits in natural images", 2011), in train_32x32.mat.
    """
    arrays, svhn = _read_variables(path, asked)
    beside = path.with_name(path.name.replace("train", "test"))
    if svhn:
        others = _read_variables(beside, asked, links=False)[0] if beside != path and beside.exists() else {}
        arrays |= {f"test_{name}": array for name, array in others.items() if name != "notes"}
        labels = arrays["labels"]
        if np.array_equal(np.unique(labels), np.arange(1, 11)):  # the label of the digit 0 is 10
            for name in {"labels", "test_labels"} & arrays.keys():
                arrays[name] = np.where(arrays[name] == 10, 0, arrays[name])
    return arrays


def _read_variables(path: Path, asked: Asked, *, links: bool = True) -> tuple[Arrays, bool]:
    """Return the arrays of a MATLAB file, samples first, and whether they are laid out like SVHN's."""
    there = read_variables(path, links=links)
    described = {name: f"{list(each.shape)} {each.kind}" for name, each in there.items()}
    chosen = choose(path, there, described.__getitem__, labelled=asked.labelled)
    arrays: Arrays = {}
    for name, own in chosen.items():
        if (array := there[own].values(asked.room)) is None:
            raise DataError(f"{path}: {own} must be numbers or text, got {there[own].kind}")
        # MATLAB has no one-dimensional arrays.
        rows = array.ndim == 2 and 1 in array.shape and not name.endswith("images")
        arrays[name] = array.ravel() if rows else array
    svhn = (chosen.get("images"), chosen.get("labels")) == ("X", "y") and arrays["images"].ndim == 4
    svhn = svhn and arrays["images"].shape[3] == len(arrays["labels"])
    notes = []
    for name in chosen.keys() & {prefix + "images" for prefix in PREFIXES}:
        array, count = arrays[name], len(arrays.get(name.replace("images", "labels"), ()))
        last = array.shape[-1] == count != len(array) if count else array.shape[:-1] == asked.expected
        if (svhn and name == "images") or last:
            arrays[name] = np.moveaxis(array, -1, 0)
            notes += [] if svhn else [f"{name} are {list(array.shape)}: the last axis is that of the samples"]
    return arrays | {"notes": tuple(sorted(notes))}, svhn


# Formats recognised by content or by a name within, in the order in which they are tried: what it is, whether a
# path is one, and its reader.
RECOGNISED: list[tuple[str, Callable[[Path], bool], Callable[[Path, Asked], Arrays]]] = [
    ("folder or file of the MNIST family", holds_idx, read_idx),
    ("folder or archive of CIFAR-10 or CIFAR-100", holds_cifar, read_cifar),
    ("folder of .npy files", _holds_npy, lambda path, asked: _read_npy_files(path, _npy_files(path), asked)),
    ("folder of images, with a folder for each class", holds_images, read_images),
]
# Formats recognised by the ending of a file's name.
FORMATS: dict[str, tuple[str, Callable[[Path, Asked], Arrays]]] = {
    ".h5": ("HDF5 file", _read_hdf5),
    ".hdf5": ("HDF5 file", _read_hdf5),
    ".npz": (".npz file", _read_npz),
    ".npy": (".npy file", _read_npy),
    ".csv": ("table of numbers", read_csv),
    ".mat": ("MATLAB file of version 5 to 7", _read_mat),
}
