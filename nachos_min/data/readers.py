"""Read arrays from a file, one function a format, check them, and bring them to one shape and type.

Before an array is read, its declared shape is checked: a file of a few bytes may declare an enormous one. Pickled
objects are never loaded. SciPy and h5py are slow to import, so each is imported by the function that needs it.
"""

import hashlib
import zipfile
from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from nachos_min.data.dataset import DataError, Images, Split

Arrays: TypeAlias = dict[str, NDArray[Any]]

MAX_VALUES = 2**31  # of one array: 8 GiB as float32, more than this program can train on in reasonable time
PREFIXES = ("", "test_", "validation_")  # of the arrays of each split, in the order of the digest
NAMES = tuple(prefix + name for prefix in PREFIXES for name in ("images", "labels", "difficulty"))


def read(path: Path) -> Arrays:
    """Return the arrays of an existing file under the names that `check_arrays` knows.

    Raises:
        DataError: unknown ending, a damaged file, objects, a shape that is too large or not like SVHN's in .mat.
    """
    ending = path.suffix.lower()
    if ending not in FORMATS:
        raise DataError(f"{path}: a data file must end in one of {', '.join(FORMATS)}, got {ending!r}")
    kind, reader = FORMATS[ending]
    try:
        return reader(path)
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


FORMATS: dict[str, tuple[str, Callable[[Path], Arrays]]] = {
    ".h5": ("HDF5 file", _read_hdf5),
    ".hdf5": ("HDF5 file", _read_hdf5),
    ".npz": (".npz file", _read_npz),
    ".mat": ("MATLAB file of version 7 or before", _read_mat),
}


def check_arrays(source: str, arrays: Mapping[str, NDArray[Any]]) -> dict[str, Split]:
    """Return the splits of a data set by the prefix of their arrays, "", "test_" and "validation_", if present.

    Args:
        source: the file, for messages.
        arrays: "images" [N, H, W] or [N, H, W, C] of numbers, "labels" [N] or [N, 1] of integers; if there are
            any, "difficulty" [N] of numbers from 0 to 1; and the same with "test_" or "validation_" in front.

    Raises:
        DataError: an array is missing, empty, of the wrong shape or type, not finite; counts differ; a label
            is negative; a class between 0 and the largest label has no sample; fewer than two classes; an
            image or label of another split is unlike those of the first; a difficulty is not from 0 to 1.
    """
    for name in ("images", "labels"):
        if name not in arrays:
            found = ", ".join(sorted(arrays)) or "neither"
            raise DataError(f"{source}: arrays 'images' and 'labels' are needed, found {found}")
    train = _split(source, "", arrays)
    named = np.unique(train.labels)
    classes = int(named[-1]) + 1
    if len(named) < classes:
        missing = int(np.flatnonzero(named != np.arange(len(named)))[0])
        raise DataError(f"{source}: labels must use every class 0 .. {classes - 1}, none is {missing}")
    if classes < 2:
        raise DataError(f"{source}: labels must name at least 2 classes, got {classes}")
    splits = {"": train}
    for prefix in PREFIXES[1:]:
        present = [name for name in NAMES if name.startswith(prefix) and name in arrays]
        if not present:
            continue
        if not {f"{prefix}images", f"{prefix}labels"} <= set(present):
            found = " and ".join(present)
            raise DataError(f"{source}: {prefix}images and {prefix}labels are needed together, found only {found}")
        split = _split(source, prefix, arrays)
        expected, shape = train.images.shape[1:], split.images.shape[1:]
        if shape != expected:
            raise DataError(f"{source}: {prefix}images must be {expected} like images, got {shape}")
        if split.labels.max() >= classes:
            raise DataError(f"{source}: {prefix}labels must be below {classes}, got {split.labels.max()}")
        splits[prefix] = split
    return splits


def digest(splits: Mapping[str, Split]) -> str:
    """Return the SHA-256 over name, type, shape and little-endian bytes of all images and labels."""
    told = hashlib.sha256()
    for prefix, split in splits.items():
        for name, array in (("images", split.images), ("labels", split.labels)):
            kind = "<f4" if name == "images" else "<i8"
            told.update(f"{prefix}{name} {kind} {array.shape}\n".encode())
            for begin in range(0, len(array), 1024):
                told.update(np.ascontiguousarray(array[begin : begin + 1024], dtype=kind).data)
    return told.hexdigest()


def _split(source: str, prefix: str, arrays: Mapping[str, NDArray[Any]]) -> Split:
    images = _images(source, f"{prefix}images", arrays[f"{prefix}images"])
    labels = _labels(source, f"{prefix}labels", arrays[f"{prefix}labels"])
    if len(images) != len(labels):
        raise DataError(
            f"{source}: {prefix}images and {prefix}labels must be equally many, got {len(images)} and {len(labels)}"
        )
    hard = f"{prefix}difficulty"
    difficulty = _difficulty(source, hard, arrays[hard], len(images)) if hard in arrays else None
    return Split(images, labels, difficulty)


def _images(source: str, name: str, array: NDArray[Any]) -> Images:
    if array.ndim not in (3, 4) or array.size == 0:
        raise DataError(f"{source}: {name} must be [N, H, W] or [N, H, W, C], none 0, got shape {array.shape}")
    if array.dtype.kind not in "buif":
        raise DataError(f"{source}: {name} must be real numbers, got {array.dtype}")
    whole = array.dtype.kind in "bui" and 0 <= array.min() <= array.max() <= 255
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite and is reported below
        images = array.astype(np.uint8 if whole else np.float32, order="C", copy=False)
    if not whole and not np.isfinite(images).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(images))[0])
        raise DataError(f"{source}: {name} must be finite in float32, got {array[where]} at {list(where)}")
    return Images(images if images.ndim == 4 else images[..., None])


def _labels(source: str, name: str, array: NDArray[Any]) -> NDArray[np.int64]:
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise DataError(f"{source}: {name} must be [N], got shape {array.shape}")
    if array.dtype.kind not in "ui":
        raise DataError(f"{source}: {name} must be integers, got {array.dtype}")
    if array.size and (array.min() < 0 or array.max() >= MAX_VALUES):
        worst = array.min() if array.min() < 0 else array.max()
        raise DataError(f"{source}: {name} must be 0 .. number of classes - 1, got {worst}")
    return array.astype(np.int64)


def _difficulty(source: str, name: str, array: NDArray[Any], samples: int) -> NDArray[np.float32]:
    if array.shape != (samples,) or array.dtype.kind not in "uif":
        found = f"{array.dtype} of shape {array.shape}"
        raise DataError(f"{source}: {name} must be one number for each of {samples} images, got {found}")
    outside = ~((array >= 0) & (array <= 1))  # a NaN is outside, too
    if outside.any():
        raise DataError(f"{source}: {name} must be from 0 to 1, got {array[outside][0]}")
    return array.astype(np.float32)
