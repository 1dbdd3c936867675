"""Check arrays that were read or given, and bring them to one shape and type: channels last, classes from 0."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from math import isqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nachos_min.data.dataset import DataError, Images, Split, chunks
from nachos_min.data.keys import NAMES, PREFIXES
from nachos_min.data.labels import MOST_CLASSES, find_classes, plain_labels
from nachos_min.errors import some

LAYOUTS = ("chw", "hwc", "signal")
LONGEST = 4_096  # of a signal; a network would see longer ones through many more layers than a space has
_LONG = 4  # times as long as wide: arrays that may be signals
_SIDE = 8  # of a square: rows of so many values may be images


@dataclass(frozen=True)
class Checked:
    """What `check_arrays` returns."""

    splits: dict[str, Split]  # by the prefix of their arrays, "", "test_" and "validation_", if present
    class_names: tuple[str, ...]
    class_labels: tuple[int | bool | str, ...]
    notes: tuple[str, ...]


def check_arrays(source: str, arrays: Mapping[str, Any], layout: str | None = None) -> Checked:
    """Return the splits of a data set with the names of its classes.

    `arrays` are "images" with the axes that `layout` allows; "labels" as `plain_labels` takes them; maybe
    "difficulty" [N] from 0 to 1; the same with "test_" or "validation_" in front; maybe "class_names" of the labels
    0 .. K - 1, and "notes" of the reader. DataError, which names `source`, if an array is missing or not like this.
    """
    notes = [*arrays.get("notes", ())]
    for prefix in PREFIXES:
        present = [name for name in NAMES if name.startswith(prefix) and name in arrays] if prefix else []
        if present and not {f"{prefix}images", f"{prefix}labels"} <= set(present):
            found = " and ".join(present)
            raise DataError(f"{source}: {prefix}images and {prefix}labels are needed together, found only {found}")
    given = [prefix for prefix in PREFIXES if f"{prefix}images" in arrays]
    images, labels = {}, {}
    for prefix in given:
        told = [] if prefix else notes
        images[prefix] = _images(source, f"{prefix}images", arrays[f"{prefix}images"], layout, told)
        labels[prefix] = plain_labels(source, f"{prefix}labels", arrays[f"{prefix}labels"])
        if len(images[prefix]) != len(labels[prefix]):
            counts = f"{len(images[prefix])} and {len(labels[prefix])}"
            raise DataError(f"{source}: {prefix}images and {prefix}labels must be equally many, got {counts}")
        expected, shape = images[""].shape[1:], images[prefix].shape[1:]
        if shape != expected:
            raise DataError(f"{source}: {prefix}images must be {expected} like images, got {shape}")
        own, train = (float(np.ptp(images[each].stored)) for each in (prefix, ""))
        if not train <= 10 * own <= 100 * train:
            notes.append(f"{prefix}images span {own:g} and images {train:g}: both should be on one scale")
    names = arrays.get("class_names")
    if isinstance(names, np.ndarray):
        if names.size > MOST_CLASSES:
            raise DataError(f"{source}: class_names must be at most {MOST_CLASSES:,}, got shape {names.shape}")
        names = plain_labels(source, "class_names", names).astype(str).tolist()
    classes = find_classes(source, labels[""], names)
    splits = {}
    for prefix in given:
        numbers, hard = classes.number(source, f"{prefix}labels", labels[prefix]), f"{prefix}difficulty"
        difficulty = _difficulty(source, hard, arrays[hard], len(numbers)) if hard in arrays else None
        splits[prefix] = Split(images[prefix], numbers, difficulty)
    given_as = (False, True) if arrays["labels"].dtype.kind == "b" else tuple(classes.values.tolist())
    return Checked(splits, classes.names, given_as, (*notes, *classes.notes))


def _laid_out(source: str, name: str, array: NDArray[Any], layout: str | None, notes: list[str]) -> NDArray[Any]:
    """Return a view of `array` as [N, H, W, C]; signals have height 1."""
    shape = list(array.shape)
    if layout == "signal" or (layout is None and array.ndim == 2):
        if array.ndim not in (2, 3) or array.size == 0:
            raise DataError(
                f"{source}: {name} must be [N, length] or [N, length, channels], none 0, got shape {shape}"
            )
        if shape[1] > LONGEST:
            rule = f"signals must have at most {LONGEST} values"
            raise DataError(f"{source}: {rule}, {name} have {shape[1]}; cut or average them before")
        if layout is None:
            side = isqrt(shape[1])
            square = side >= _SIDE and side**2 == shape[1]
            other = f"; images of {side}x{side} must be {[shape[0], side, side]}" if square else ""
            notes.append(f"{name} have 2 axes, {shape}: each row is a signal of length {shape[1]}{other}")
        elif array.ndim == 3 and shape[1] < shape[2]:
            notes.append(
                f"{name} are {shape}: signals of length {shape[1]} with {shape[2]} channels, not the reverse"
            )
        return array.reshape(shape[0], 1, shape[1], -1)
    if array.ndim not in (3, 4) or array.size == 0 or (layout == "chw" and array.ndim == 3):
        rule = "[N, C, H, W]" if layout == "chw" else "[N, H, W] or [N, H, W, C]"
        raise DataError(f"{source}: {name} must be {rule}, none 0, got shape {array.shape}")
    if array.ndim == 3:
        if layout is None and max(shape[1:]) >= _LONG * min(shape[1:]):
            notes.append(
                f"{name} have 3 axes, {shape}: grey images of {shape[1]}x{shape[2]} pixels; signals must be "
                "[N, length, channels], with --layout signal"
            )
        return array[..., None]
    if layout is None and shape[1] in (1, 3, 4) and shape[3] > 4:
        _, a, b, c = shape
        readings = (
            f"chw for {some(a, 'channel')} of {b}x{c} pixels, or --layout hwc for {c} channels of {a}x{b} pixels"
        )
        raise DataError(f"{source}: {name} are {shape}: say --layout {readings}")
    return array.transpose(0, 2, 3, 1) if layout == "chw" else array


def digest(splits: Mapping[str, Split]) -> str:
    """Return the SHA-256 over name, type, shape and little-endian bytes of all images and labels."""
    told = hashlib.sha256()
    for prefix, split in splits.items():
        for name, array in (("images", split.images), ("labels", split.labels)):
            kind = "<f4" if name == "images" else "<i8"
            told.update(f"{prefix}{name} {kind} {array.shape}\n".encode())
            for part in chunks(array.shape):
                told.update(np.ascontiguousarray(array[part], dtype=kind).data)
    return told.hexdigest()


def _images(source: str, name: str, array: NDArray[Any], layout: str | None, notes: list[str]) -> Images:
    """Return images as bytes where all are whole numbers from 0 to 255, else as float32."""
    channels_last = _laid_out(source, name, array, layout, notes)
    if array.dtype.kind not in "buif":
        raise DataError(f"{source}: {name} must be real numbers, got {array.dtype}")
    kind = np.uint8 if array.dtype.kind == "b" or _are_bytes(array) else np.float32
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite and is reported below
        if array.dtype.kind == "f" and kind == np.float32:
            for part in chunks(array.shape):
                finite = np.isfinite(array[part].astype(np.float32))
                if not finite.all():
                    at = np.argwhere(~finite)[0].tolist()
                    at[0] += part.start
                    raise DataError(f"{source}: {name} must be finite in float32, got {array[tuple(at)]} at {at}")
        if kind == np.float32:
            notes += _rounded(name, channels_last)
        return Images(channels_last.astype(kind, order="C", copy=False))


def _rounded(name: str, images: NDArray[Any]) -> list[str]:
    """Return a sentence if float32 rounds a column of a table, or a channel, by much of its range."""
    if np.can_cast(images.dtype, np.float32):
        return []
    apart = 0 if images.shape[1] == 1 else (0, 1, 2)
    parts = [images[part] for part in chunks(images.shape)]
    least = np.min([part.min(axis=apart) for part in parts], axis=0)
    most = np.max([part.max(axis=apart) for part in parts], axis=0)
    lost = np.max([np.abs(part - part.astype(np.float32)).max(axis=apart) for part in parts], axis=0)
    spread = np.subtract(most, least, dtype=np.float64)
    wrong = int(((spread > 0) & (10 * lost > spread)).sum())
    what = f"{name}: float32 rounds {wrong} of {lost.size} features by over a tenth of its range"
    return [f"{what}; subtract its mean before"] if wrong else []


def _are_bytes(array: NDArray[Any]) -> bool:
    """Return whether every number is whole and from 0 to 255."""
    if array.dtype == np.uint8:
        return True
    parts = (array[part] for part in chunks(array.shape))
    return all(((part >= 0) & (part <= 255) & (part == np.floor(part))).all() for part in parts)


def _difficulty(source: str, name: str, array: NDArray[Any], samples: int) -> NDArray[np.float32]:
    if array.shape != (samples,) or array.dtype.kind not in "uif":
        found = f"{array.dtype} of shape {array.shape}"
        raise DataError(f"{source}: {name} must be one number for each of {samples} images, got {found}")
    outside = ~((array >= 0) & (array <= 1))  # a NaN is outside, too
    if outside.any():
        raise DataError(f"{source}: {name} must be from 0 to 1, got {array[outside][0]}")
    return array.astype(np.float32)
