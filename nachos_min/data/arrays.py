"""Check arrays as they were read from a file, whatever its format, and bring them to one shape and type.

Read `dataset.py` first. Before a reader reads an array it asks `check_declared`, so that a file of a few
bytes that declares an enormous shape is refused and not allocated.
"""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nachos_min.data.dataset import DataError, Split

MAX_VALUES = 2**31  # of one array: 8 GiB as float32, more than this program can train on in reasonable time

_PREFIXES = ("", "test_", "validation_")  # of the arrays of each split, in the order of the digest
NAMES = tuple(prefix + name for prefix in _PREFIXES for name in ("images", "labels", "difficulty"))


@dataclass(frozen=True, eq=False)
class RawArrays:
    """Checked arrays before splitting and scaling.

    Args:
        train: everything that is neither test nor validation.
        test, validation: None if the file has no such split.
        classes: number of classes, >= 2.
        digest: SHA-256 of images and labels, in hexadecimal.
    """

    train: Split
    test: Split | None
    validation: Split | None
    classes: int
    digest: str


def check_declared(source: str, name: str, shape: tuple[int, ...]) -> None:
    """Check that an array of this shape may be read.

    Args:
        source: the file, for the message.
        name: the array's name in it.
        shape: the shape that the file declares.

    Raises:
        DataError: it has more than MAX_VALUES values.
    """
    if prod(shape) > MAX_VALUES:
        raise DataError(f"{source}: {name} must have at most {MAX_VALUES} values, it declares shape {shape}")


def check_arrays(source: str, arrays: Mapping[str, NDArray[Any]]) -> RawArrays:
    """Return the arrays of a file in one shape and type.

    Args:
        source: the file, for messages.
        arrays: "images" [N, H, W] or [N, H, W, C] of numbers, "labels" [N] or [N, 1] of integers; if there are
            any, "difficulty" [N] of numbers from 0 to 1; and the same with "test_" or "validation_" in front,
            or neither.

    Returns:
        Images float32 [N, H, W, C], labels int64 [N] and difficulty float32 [N].

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
    classes = _classes(source, train.labels)
    test, validation = (_other_split(source, prefix, arrays, train, classes) for prefix in _PREFIXES[1:])
    return RawArrays(train, test, validation, classes, _digest(train, test, validation))


def _split(source: str, prefix: str, arrays: Mapping[str, NDArray[Any]]) -> Split:
    """Return the split whose arrays' names begin with `prefix`; its images and labels are there."""
    images = _images(source, f"{prefix}images", arrays[f"{prefix}images"])
    labels = _labels(source, f"{prefix}labels", arrays[f"{prefix}labels"])
    if len(images) != len(labels):
        raise DataError(
            f"{source}: {prefix}images and {prefix}labels must be equally many, got {len(images)} and {len(labels)}"
        )
    hard = f"{prefix}difficulty"
    difficulty = _difficulty(source, hard, arrays[hard], len(images)) if hard in arrays else None
    return Split(images, labels, difficulty)


def _other_split(
    source: str, prefix: str, arrays: Mapping[str, NDArray[Any]], train: Split, classes: int
) -> Split | None:
    """Return the split whose arrays' names begin with `prefix`, like `train`, or None if there is none."""
    present = [name for name in NAMES if prefix and name.startswith(prefix) and name in arrays]
    if not present:
        return None
    if not {f"{prefix}images", f"{prefix}labels"} <= set(present):
        found = " and ".join(present)
        raise DataError(f"{source}: {prefix}images and {prefix}labels are needed together, found only {found}")
    split = _split(source, prefix, arrays)
    if split.images.shape[1:] != train.images.shape[1:]:
        raise DataError(
            f"{source}: {prefix}images must be {train.images.shape[1:]} like images, got {split.images.shape[1:]}"
        )
    if split.labels.max() >= classes:
        raise DataError(f"{source}: {prefix}labels must be below {classes}, got {split.labels.max()}")
    return split


def _images(source: str, name: str, array: NDArray[Any]) -> NDArray[np.float32]:
    if array.ndim not in (3, 4) or array.size == 0:
        raise DataError(f"{source}: {name} must be [N, H, W] or [N, H, W, C], none 0, got shape {array.shape}")
    if array.dtype.kind not in "buif":
        raise DataError(f"{source}: {name} must be real numbers, got {array.dtype}")
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite and is reported below
        images = array.astype(np.float32, order="C")
    if not np.isfinite(images).all():
        where = tuple(int(i) for i in np.argwhere(~np.isfinite(images))[0])
        raise DataError(f"{source}: {name} must be finite in float32, got {array[where]} at {list(where)}")
    return images if images.ndim == 4 else images[..., None]


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


def _classes(source: str, labels: NDArray[np.int64]) -> int:
    found = np.unique(labels)
    classes = int(found[-1]) + 1
    if len(found) < classes:
        missing = int(np.flatnonzero(found != np.arange(len(found)))[0])
        raise DataError(f"{source}: labels must use every class 0 .. {classes - 1}, none is {missing}")
    if classes < 2:
        raise DataError(f"{source}: labels must name at least 2 classes, got {classes}")
    return classes


def _digest(*splits: Split | None) -> str:
    """Return the SHA-256 over name, type, shape and little-endian bytes of every array that is learnt from."""
    digest = hashlib.sha256()
    for prefix, split in zip(_PREFIXES, splits, strict=True):
        if split is not None:
            for name, array in (("images", split.images), ("labels", split.labels)):
                plain = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
                digest.update(f"{prefix}{name} {plain.dtype.str} {plain.shape}\n".encode())
                digest.update(plain.data)
    return digest.hexdigest()
