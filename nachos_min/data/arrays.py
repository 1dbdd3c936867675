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

_NAMES = ("images", "labels", "test_images", "test_labels")


@dataclass(frozen=True, eq=False)
class RawArrays:
    """Checked arrays before splitting and scaling.

    Args:
        train: everything that is not test.
        test: None if the file has no test split.
        classes: number of classes, >= 2.
        digest: SHA-256 of the arrays, in hexadecimal.
    """

    train: Split
    test: Split | None
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
        arrays: "images" [N, H, W] or [N, H, W, C] of numbers, "labels" [N] or [N, 1] of integers, and the
            same with "test_" in front, or neither.

    Returns:
        Images float32 [N, H, W, C] and labels int64 [N].

    Raises:
        DataError: an array is missing, empty, of the wrong shape or type, not finite; counts differ; a label
            is negative; a class between 0 and the largest label has no sample; fewer than two classes; a test
            image or label is unlike the others.
    """
    for name in ("images", "labels"):
        if name not in arrays:
            found = ", ".join(sorted(arrays)) or "neither"
            raise DataError(f"{source}: arrays 'images' and 'labels' are needed, found {found}")
    if ("test_images" in arrays) != ("test_labels" in arrays):
        present = "test_images" if "test_images" in arrays else "test_labels"
        raise DataError(f"{source}: test_images and test_labels are needed together, found only {present}")
    train = Split(_images(source, "images", arrays["images"]), _labels(source, "labels", arrays["labels"]))
    _check_lengths(source, "", train)
    classes = _classes(source, train.labels)
    test = None
    if "test_images" in arrays:
        test = Split(
            _images(source, "test_images", arrays["test_images"]),
            _labels(source, "test_labels", arrays["test_labels"]),
        )
        _check_lengths(source, "test_", test)
        if test.images.shape[1:] != train.images.shape[1:]:
            raise DataError(
                f"{source}: test_images must be {train.images.shape[1:]} like images, got {test.images.shape[1:]}"
            )
        if test.labels.max() >= classes:
            raise DataError(f"{source}: test_labels must be below {classes}, got {test.labels.max()}")
    return RawArrays(train, test, classes, _digest(train, test))


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


def _check_lengths(source: str, prefix: str, split: Split) -> None:
    if len(split.images) != len(split.labels):
        raise DataError(
            f"{source}: {prefix}images and {prefix}labels must be equally many, "
            f"got {len(split.images)} and {len(split.labels)}"
        )


def _classes(source: str, labels: NDArray[np.int64]) -> int:
    found = np.unique(labels)
    classes = int(found[-1]) + 1
    if len(found) < classes:
        missing = int(np.flatnonzero(found != np.arange(len(found)))[0])
        raise DataError(f"{source}: labels must use every class 0 .. {classes - 1}, none is {missing}")
    if classes < 2:
        raise DataError(f"{source}: labels must name at least 2 classes, got {classes}")
    return classes


def _digest(train: Split, test: Split | None) -> str:
    """Return the SHA-256 over name, type, shape and little-endian bytes of every array."""
    arrays: list[NDArray[Any]] = [train.images, train.labels]
    arrays += [] if test is None else [test.images, test.labels]
    digest = hashlib.sha256()
    for name, array in zip(_NAMES, arrays, strict=False):
        plain = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
        digest.update(f"{name} {plain.dtype.str} {plain.shape}\n".encode())
        digest.update(plain.data)
    return digest.hexdigest()
