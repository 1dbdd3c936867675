"""Read arrays from a file or a folder, one function a format.

Before an array is read, its declared shape is checked: a file of a few bytes may declare an enormous one. Pickled
objects are never loaded. SciPy and h5py are slow to import, so each is imported by the function that needs it.
"""

import zipfile
from collections.abc import Callable
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from nachos_min.data.cifar import holds_cifar, read_cifar
from nachos_min.data.dataset import MAX_VALUES, DataError
from nachos_min.data.folders import holds_images, read_images
from nachos_min.data.idx import holds_idx, read_idx

# Arrays under names of `NAMES`; maybe "class_names", tuple of str, by label 0 .. K-1; and "notes", tuple of str.
Arrays: TypeAlias = dict[str, Any]

PREFIXES = ("", "test_", "validation_")  # of the arrays of each split, in the order of the digest
NAMES = tuple(prefix + name for prefix in PREFIXES for name in ("images", "labels", "difficulty"))


def read(path: Path, resolution: int | None = None) -> Arrays:
    """Return the arrays of an existing file or folder under the names that `check_arrays` knows.

    Args:
        path: a file or a folder.
        resolution: the shorter side to resize to, for readers of images that differ in size; None: the reader's.

    Raises:
        DataError: unknown ending or content, a damaged file, objects, a shape that is too large.
    """
    for kind, recognised, reader in RECOGNISED:
        if recognised(path):
            return _reading(path, kind, partial(reader, path, resolution))
    if path.is_dir():
        kinds = ", ".join(kind for kind, *_ in RECOGNISED) or "none is known"
        raise DataError(f"{path}: a data folder must be one of: {kinds}; its content is none of them")
    ending = path.suffix.lower()
    if ending not in FORMATS:
        raise DataError(f"{path}: a data file must end in one of {', '.join(FORMATS)}, got {ending!r}")
    kind, by_ending = FORMATS[ending]
    return _reading(path, kind, partial(by_ending, path))


def _reading(path: Path, kind: str, reader: Callable[[], Arrays]) -> Arrays:
    try:
        return reader()
    except DataError:
        raise
    except Exception as error:  # libraries and decompressors raise another class for every kind of damage
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: must be a whole {kind}, but it cannot be read ({reason})") from None


def _check_declared(path: Path, name: str, shape: tuple[int, ...]) -> None:
    if prod(shape) > MAX_VALUES:
        raise DataError(f"{path}: {name} must have at most {MAX_VALUES} values, it declares shape {shape}")


def _read_hdf5(path: Path) -> Arrays:
    import h5py

    arrays = {}
    with h5py.File(path, "r") as file:
        for name in NAMES:
            entry = file.get(name)
            if isinstance(entry, h5py.Dataset):
                _check_declared(path, name, entry.shape or ())
                arrays[name] = entry[()]
    return arrays


def _read_npz(path: Path) -> Arrays:
    arrays = {}
    with zipfile.ZipFile(path) as archive:
        members = {member.filename: member for member in archive.infolist()}
        for name in NAMES:
            member = members.get(f"{name}.npy")
            if member is not None:
                with archive.open(member) as stream:
                    version = npy.read_magic(stream)
                    header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
                    shape, _, dtype = header(stream)
                _check_declared(path, name, shape)
                size = member.file_size
                if not dtype.hasobject and prod(shape) * dtype.itemsize > size:
                    declared = f"declares shape {shape} of {dtype}"
                    raise DataError(f"{path}: {name} {declared}, but holds only {size} bytes")
                with archive.open(member) as stream:
                    arrays[name] = npy.read_array(stream, allow_pickle=False)
    return arrays


def _read_mat(path: Path) -> Arrays:
    """Read X [H, W, C, N] and y [N, 1] with classes 1 .. K, K meaning 0; a file of test images may be beside it.

    Source: SVHN's format 2 (Netzer et al., "Reading digits in natural images", 2011), in train_32x32.mat.
    """
    images, labels = _read_svhn(path)
    classes = int(labels.max(initial=0))
    arrays = {"images": images, "labels": _from_one(labels, classes)}
    beside = path.with_name(path.name.replace("train", "test"))
    if beside != path and beside.exists():
        images, labels = _read_svhn(beside)
        arrays |= {"test_images": images, "test_labels": _from_one(labels, classes)}
    return arrays


def _from_one(labels: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """Return classes 1 .. K as 1 .. K - 1, 0; classes that already start at 0 stay as they are."""
    return labels if (labels == 0).any() else np.where(labels == classes, 0, labels)


def _read_svhn(path: Path) -> tuple[NDArray[Any], NDArray[np.int64]]:
    from scipy import io

    for name, shape, _ in io.whosmat(path):
        _check_declared(path, name, shape)
    content = io.loadmat(path, variable_names=["X", "y"])
    if "X" not in content or "y" not in content:
        raise DataError(f"{path}: variables X [H, W, C, N] and y [N, 1] are needed, as in SVHN")
    images, labels = content["X"], content["y"].ravel()
    if images.ndim != 4:
        raise DataError(f"{path}: X must be [H, W, C, N], got shape {images.shape}")
    if labels.dtype.kind not in "uif":
        raise DataError(f"{path}: y must be numbers, got {labels.dtype}")
    # MATLAB's own numbers are float64, so whole floats are labels too; a NaN equals nothing and is wrong.
    wrong = ~((labels >= 0) & (labels < MAX_VALUES) & (labels == np.floor(labels)))
    if wrong.any():
        raise DataError(f"{path}: y must be whole numbers >= 0 below {MAX_VALUES}, got {labels[wrong][0]}")
    return images.transpose(3, 0, 1, 2), labels.astype(np.int64)


# Formats recognised by content or by a name within, in the order in which they are tried: what it is, whether a
# path is one, and its reader, which is told the resolution.
RECOGNISED: list[tuple[str, Callable[[Path], bool], Callable[[Path, int | None], Arrays]]] = [
    ("folder or file of the MNIST family", holds_idx, lambda path, _: read_idx(path)),
    ("folder or archive of CIFAR-10 or CIFAR-100", holds_cifar, lambda path, _: read_cifar(path)),
    ("folder of images, with a folder for each class", holds_images, read_images),
]
# Formats recognised by the ending of a file's name.
FORMATS: dict[str, tuple[str, Callable[[Path], Arrays]]] = {
    ".h5": ("HDF5 file", _read_hdf5),
    ".hdf5": ("HDF5 file", _read_hdf5),
    ".npz": (".npz file", _read_npz),
    ".mat": ("MATLAB file of version 7 or before", _read_mat),
}
