"""Labels of any kind as classes 0 .. K - 1: integers from any base, whole floats, text, truth values, one-hot."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nachos_min.data.dataset import DataError, chunks
from nachos_min.errors import shorten

MOST_CLASSES = 1 << 15  # more would each have few samples, and a head of a network their number of rows
LONGEST_TEXT = 200  # characters of a label; a longer one is a sentence and no class
_WHOLE = np.float64(2**53)  # whole numbers below are exact in float64; float16 cannot hold it


@dataclass(frozen=True, eq=False)
class Classes:
    """The classes of a data set."""

    values: NDArray[Any]  # int64 or text [K], the label of each class, ascending
    names: tuple[str, ...]  # what each class is called
    notes: tuple[str, ...]  # sentences on how labels became classes

    def number(self, source: str, name: str, labels: NDArray[Any]) -> NDArray[np.int64]:
        """Return the class of each of `labels`, which `plain_labels` made; DataError if one is of no class."""
        alike = labels.dtype.kind == self.values.dtype.kind
        at = np.searchsorted(self.values, labels).clip(max=len(self.values) - 1) if alike else 0
        unknown = self.values[at] != labels if alike else np.ones(len(labels), bool)
        if unknown.any():
            rule = f"one of the {len(self.values)} labels of the training images"
            raise DataError(f"{source}: {name} must each be {rule}, got {labels[unknown][0]}")
        return np.asarray(at, np.int64)


def plain_labels(source: str, name: str, array: NDArray[Any]) -> NDArray[Any]:
    """Return labels, one for each sample, as int64 or text [N]; truth values as text, one-hot rows as integers.

    `array` is [N] or [N, 1] of integers, whole floats, text or truth values, or one-hot [N, K]; else DataError,
    with the names `source` of the file and `name` of the array.
    """
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    kind = array.dtype.kind
    if array.ndim == 2 and kind in "buif":
        parts = [array[part] for part in chunks(array.shape)]
        one_hot = (((part == 1).sum(axis=1) == 1).all() and ((part == 1) | (part == 0)).all() for part in parts)
        if not (array.size and all(one_hot)):
            rule = "[N], or [N, K] with one 1 and else 0 in each row"
            raise DataError(f"{source}: {name} must be {rule}, got shape {array.shape}")
        return np.asarray(array.argmax(axis=1), np.int64)
    if array.ndim != 1:
        raise DataError(f"{source}: {name} must be [N], got shape {array.shape}")
    if kind == "b":
        return array.astype(str)
    if kind == "f":
        wrong = ~((np.abs(array) < _WHOLE) & (array == np.floor(array)))  # a NaN is wrong, too
        if wrong.any():
            raise DataError(f"{source}: {name} must be whole numbers or text, got {array[wrong][0]}")
    elif kind == "u" and array.size and array.max() >= 2**63:
        raise DataError(f"{source}: {name} must be below 2^63, got {array.max()}")
    if kind in "uif":
        return array.astype(np.int64)
    return _texts(source, name, array)


def _texts(source: str, name: str, array: NDArray[Any]) -> NDArray[np.str_]:
    """Return text [N] as it is compared and shown: without blanks around it."""
    texts = array.tolist()
    if array.dtype.kind not in "SUO" or not all(isinstance(text, str | bytes) for text in texts):
        raise DataError(f"{source}: {name} must be integers, whole numbers, text or one-hot, got {array.dtype}")
    try:
        texts = [(text.decode() if isinstance(text, bytes) else text).strip() for text in texts]
    except UnicodeDecodeError:
        raise DataError(f"{source}: {name} must be text in UTF-8, got other bytes") from None
    for row, text in enumerate(texts):
        if not 1 <= len(text) <= LONGEST_TEXT:
            rule = f"text of 1 to {LONGEST_TEXT} characters"
            raise DataError(f"{source}: {name} must be {rule}, row {row} has {len(text)}")
    return np.array(texts, dtype=np.str_)


def find_classes(source: str, labels: NDArray[Any], names: Sequence[str] | None = None) -> Classes:
    """Return the classes that the labels of the training images, from `plain_labels`, name, in ascending order.

    `names` are of the labels 0 .. K - 1; None: labels are their own names. DataError, with the name `source` of the
    file, if there are fewer than two classes, two of the same name, or a label without one.
    """
    for name, count in Counter(names or ()).items():
        if count > 1:
            raise DataError(f"{source}: class names must differ, got {shorten(name)} more than once")
    values = np.unique(labels)
    if not 2 <= len(values) <= MOST_CLASSES:
        more = f"and at most {MOST_CLASSES:,}, " if len(values) > 2 else ""
        raise DataError(f"{source}: labels must name at least 2 classes, {more}got {len(values):,}")
    for name in values.tolist() if names is None else names:
        if any("\ud800" <= letter <= "\udfff" for letter in str(name)):  # bytes of a file's name that are no UTF-8
            raise DataError(f"{source}: names of classes must be text in UTF-8, got {shorten(str(name))}")
    first, last, most = values[0], values[-1], len(values) - 1
    notes = []
    if values.dtype.kind == "U":
        notes.append(f"labels are text: classes 0 to {most} in alphabetical order, from {first} to {last}")
    elif (first, last) != (0, most):
        notes.append(f"labels are {len(values)} numbers from {first} to {last}: renumbered 0 to {most}")
    if names is None:
        return Classes(values, tuple(map(str, values)), tuple(notes))
    if values.dtype.kind != "i" or first < 0 or last >= len(names):
        rule = f"whole numbers from 0 to {len(names) - 1}, one for each of the class names"
        raise DataError(f"{source}: labels must be {rule}, got {first} to {last}")
    return Classes(values, tuple(names[value] for value in values), tuple(notes))
