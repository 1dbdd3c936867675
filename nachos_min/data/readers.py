"""Read arrays from a file or a folder, one function a format.

Before an array is read, its declared shape is checked: a file of a few bytes may declare an enormous one. Pickled
objects are never loaded.
"""

import io
import zipfile
from collections.abc import Callable, Mapping
from functools import partial
from math import prod
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np
from numpy.lib import format as npy

from nachos_min.data.cifar import holds_cifar, read_cifar
from nachos_min.data.csv_table import read_csv
from nachos_min.data.dataset import MAX_VALUES, DataError
from nachos_min.data.folders import ENDINGS, holds_images, inside, read_images
from nachos_min.data.hdf5_file import read_apart
from nachos_min.data.idx import holds_idx, read_idx
from nachos_min.data.keys import PREFIXES, choose, meaning
from nachos_min.data.matlab import read_variables
from nachos_min.errors import one_line

# Arrays under `keys.NAMES`; maybe "class_names", tuple of str, by label 0 .. K-1; "notes", tuple of str; "files",
# "test_files" and so on, the name of each sample's file.
Arrays: TypeAlias = dict[str, Any]
Shape: TypeAlias = tuple[int, int, int]  # H, W, C
ARCHIVES = (".7z", ".bz2", ".gz", ".rar", ".xz", ".zip", ".zst")  # which are not read: unpacked, they may be


def read(path: Path, resolution: int | None = None, expected: Shape | None = None) -> Arrays:
    """Return the arrays of an existing file or folder under the names that `check_arrays` knows.

    `resolution` is the shorter side that images of several sizes are resized to. `expected` is (H, W, C) of samples
    whose labels may be missing. DataError if the content is unknown, damaged, too large, or holds objects.
    """
    return _reading(path, "file or folder", partial(_recognised, path, resolution, expected))


def _recognised(path: Path, resolution: int | None, expected: Shape | None) -> Arrays:
    """Return the arrays as `read` does."""
    # An archive often unpacks to a folder in a folder; a link may lead back.
    while path.is_dir() and len(within := inside(path)) == 1 and within[0].is_dir() and not within[0].is_symlink():
        path = within[0]
    for kind, recognised, reader in RECOGNISED:
        if recognised(path):
            return _reading(path, kind, partial(reader, path, resolution, expected))
    if path.is_dir():
        kinds = ", ".join(kind for kind, *_ in RECOGNISED)
        file = next((each.name for each in inside(path) if each.suffix.lower() in FORMATS), None)
        advice = f"; is it the file {file}?" if file else ""
        raise DataError(f"{path}: a data folder must be one of: {kinds}; it holds something else{advice}")
    ending = path.suffix.lower()
    if expected and ending in ENDINGS:
        return _reading(path, "image", partial(read_images, path, resolution, expected))
    if ending not in FORMATS:
        advice = "; unpack it, and give the folder" if ending in ARCHIVES else ""
        raise DataError(f"{path}: a data file must end in one of {', '.join(FORMATS)}, got {ending!r}{advice}")
    kind, by_ending = FORMATS[ending]
    return _reading(path, kind, partial(by_ending, path, expected))


def _reading(path: Path, kind: str, reader: Callable[[], Arrays]) -> Arrays:
    try:
        return reader()
    except DataError:
        raise
    except Exception as error:  # libraries and decompressors raise another class for every kind of damage
        raise DataError(f"{path}: must be a whole {kind}, but it cannot be read ({one_line(error)})") from None


def _check_declared(path: Path, name: str, shape: tuple[int, ...]) -> None:
    if prod(shape) > MAX_VALUES:
        raise DataError(f"{path}: {name} must have at most {MAX_VALUES} values, it declares shape {shape}")


def _read_hdf5(path: Path, expected: Shape | None) -> Arrays:
    return read_apart(path, 4 * MAX_VALUES, labelled=not expected)


def _read_npz(path: Path, expected: Shape | None) -> Arrays:
    with zipfile.ZipFile(path) as archive:
        members = {each.filename.removesuffix(".npy"): each for each in archive.infolist()}
        streams = {name: (path, each.file_size, partial(archive.open, each)) for name, each in members.items()}
        return _read_streams(path, streams, labelled=not expected)


def _read_streams(
    path: Path, streams: Mapping[str, tuple[Path, int, Callable[[], IO[bytes]]]], *, labelled: bool
) -> Arrays:
    """Return the arrays of .npy streams; `streams` are by name their file, size in bytes, and what opens them."""

    def describe(name: str) -> str:
        with streams[name][2]() as stream:
            try:
                shape, dtype = _npy_header(stream)
            except ValueError:
                return "(no array)"
        return f"{list(shape)} {dtype}"

    arrays = {}
    for name, own in choose(path, streams, describe, labelled=labelled).items():
        file, size, opened = streams[own]
        with opened() as stream:
            shape, dtype = _npy_header(stream)
        _check_declared(file, own, shape)
        if dtype.hasobject:
            rule = "must be numbers or text, got pickled objects"
            raise DataError(f"{file}: {own} {rule}; save texts with .astype(str)")
        if prod(shape) * max(dtype.itemsize, 1) > size:
            raise DataError(f"{file}: {own} declares shape {shape} of {dtype}, but holds only {size} bytes")
        with opened() as stream:
            arrays[name] = npy.read_array(stream, allow_pickle=False)
    return arrays


def _npy_header(stream: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Return the shape and the type that a .npy stream declares."""
    version = npy.read_magic(stream)
    header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = header(stream)
    return shape, dtype


def _read_npy(path: Path, expected: Shape | None) -> Arrays:
    """Read the file of images, and files beside it that are named like it: labels, and other splits."""
    meant = meaning(path.stem)
    if expected and (meant is None or meant[0] != "images"):
        return _read_npy_files(path, {path.stem: path}, expected)
    if meant is None or meant[0] != "images":
        rule = "the training images, called images.npy, x.npy, data.npy or x_train.npy"
        raise DataError(f"{path}: a .npy file must be {rule}, with labels.npy, y.npy or .., got {path.name}")
    files = {path.stem: path}
    for stem, file in _npy_files(path.parent).items():
        other = meaning(stem)
        if other is not None and other[0] != "images" and other[1] == meant[1]:
            files[stem] = file
    return _read_npy_files(path, files, expected)


def _npy_files(folder: Path) -> dict[str, Path]:
    return {file.stem: file for file in sorted(folder.glob("*.npy"))}


def _read_npy_files(path: Path, files: Mapping[str, Path], expected: Shape | None) -> Arrays:
    opened = {name: (file, file.stat().st_size, partial(io.FileIO, file)) for name, file in files.items()}
    return _read_streams(path, opened, labelled=not expected)


def _holds_npy(path: Path) -> bool:
    return path.is_dir() and any(meaning(stem) for stem in _npy_files(path))


def _read_mat(path: Path, expected: Shape | None) -> Arrays:
    """Read variables of known names; X [H, W, C, N] with y is laid out like SVHN, whose test file may be beside it.

    Source: SVHN's format 2 (Netzer et al., "Reading digits in natural images", 2011), in train_32x32.mat.
    """
    arrays, svhn = _read_variables(path, expected)
    beside = path.with_name(path.name.replace("train", "test"))
    if svhn:
        others = _read_variables(beside, expected)[0] if beside != path and beside.exists() else {}
        arrays |= {f"test_{name}": array for name, array in others.items() if name != "notes"}
        labels = arrays["labels"]
        if np.array_equal(np.unique(labels), np.arange(1, 11)):  # the label of the digit 0 is 10
            for name in {"labels", "test_labels"} & arrays.keys():
                arrays[name] = np.where(arrays[name] == 10, 0, arrays[name])
    return arrays


def _read_variables(path: Path, expected: Shape | None) -> tuple[Arrays, bool]:
    """Return the arrays of a MATLAB file, samples first, and whether they are laid out like SVHN's."""
    there = read_variables(path)
    described = {name: f"{list(each.shape)} {each.kind}" for name, each in there.items()}
    chosen = choose(path, there, described.__getitem__, labelled=not expected)
    arrays: Arrays = {}
    for name, own in chosen.items():
        _check_declared(path, own, there[own].shape)
        if (array := there[own].values()) is None:
            raise DataError(f"{path}: {own} must be numbers or text, got {there[own].kind}")
        # MATLAB has no one-dimensional arrays.
        rows = array.ndim == 2 and 1 in array.shape and not name.endswith("images")
        arrays[name] = array.ravel() if rows else array
    svhn = (chosen.get("images"), chosen.get("labels")) == ("X", "y") and arrays["images"].ndim == 4
    svhn = svhn and arrays["images"].shape[3] == len(arrays["labels"])
    notes = []
    for name in chosen.keys() & {prefix + "images" for prefix in PREFIXES}:
        array, count = arrays[name], len(arrays.get(name.replace("images", "labels"), ()))
        last = array.shape[-1] == count != len(array) if count else expected and array.shape[:-1] == expected
        if (svhn and name == "images") or last:
            arrays[name] = np.moveaxis(array, -1, 0)
            notes += [] if svhn else [f"{name} are {list(array.shape)}: the last axis is that of the samples"]
    return arrays | {"notes": tuple(sorted(notes))}, svhn


# Formats recognised by content or by a name within, in the order in which they are tried: what it is, whether a
# path is one, and its reader, which is told the resolution and what is expected.
RECOGNISED: list[tuple[str, Callable[[Path], bool], Callable[[Path, int | None, Shape | None], Arrays]]] = [
    (
        "folder or file of the MNIST family",
        holds_idx,
        lambda path, _, expected: read_idx(path, labelled=not expected),
    ),
    ("folder or archive of CIFAR-10 or CIFAR-100", holds_cifar, lambda path, *_: read_cifar(path)),
    (
        "folder of .npy files",
        _holds_npy,
        lambda path, _, expected: _read_npy_files(path, _npy_files(path), expected),
    ),
    ("folder of images, with a folder for each class", holds_images, read_images),
]
# Formats recognised by the ending of a file's name.
FORMATS: dict[str, tuple[str, Callable[[Path, Shape | None], Arrays]]] = {
    ".h5": ("HDF5 file", _read_hdf5),
    ".hdf5": ("HDF5 file", _read_hdf5),
    ".npz": (".npz file", _read_npz),
    ".npy": (".npy file", _read_npy),
    ".csv": ("table of numbers", read_csv),
    ".mat": ("MATLAB file of version 5 to 7", _read_mat),
}
