"""Samples that a trained network is given: of any format, with labels or without, its own data set included."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nachos_min.data.dataset import DataError, Dataset
from nachos_min.data.labels import plain_labels
from nachos_min.data.limits import Asked, Room, room_of
from nachos_min.data.load import SPLITS, divided, halves, read_source
from nachos_min.data.readers import Arrays
from nachos_min.data.seen import Seen

ALL = "all"  # samples of whatever split


@dataclass(frozen=True, eq=False)
class Given:
    """Samples of one split."""

    images: NDArray[Any]  # uint8 or float32 [N, H, W, C], unscaled, as `Seen.images` gives them
    labels: NDArray[np.int64] | None  # int64 [N], right classes; None: not known
    split: str  # train, validation, calibration or test; or `ALL`
    own: bool  # whether the network learned from this data set
    names: tuple[str | int, ...]  # of each sample its file in a folder, else its row in the array of images


def read_given(
    source: str,
    seen: Seen,
    digest: str,
    split: str | None = None,
    *,
    halved: bool = False,
    max_bytes: int | None = None,
) -> Given:
    """Return the samples of a split: of the data set that a network learned from, or of other data.

    `source` is as of `load`, also without labels, an image, or a folder of images. Data with the `digest` of those
    learned from are divided as they were; `halved`: half of the validation split was the calibration split. Without
    a `split`, it is test, or what there is. DataError if the data have no such split or are unlike those `seen`.
    """
    asked = Asked(room_of(source, max_bytes), seen.resolution, seen.shape)
    name, arrays = read_source(source, asked)
    own = _own(source, name, arrays, seen, digest, asked.room)
    if own is not None:
        splits = own.splits
        if halved:
            splits["validation"], splits["calibration"] = halves(source, splits["validation"])
        parts = [*splits] if split == ALL else [_chosen(source, splits, split)]
        own_pixels, labels, names = list[NDArray[Any]](), list[NDArray[np.int64]](), list[str | int]()
        for each in parts:
            images = splits[each].images
            rows = np.arange(len(images)) if images.rows is None else images.rows
            own_pixels.append(images.stored[rows])
            labels.append(splits[each].labels)
            names += _names(arrays, SPLITS.get(each, SPLITS["validation"]), rows)
        joined = np.concatenate(own_pixels), np.concatenate(labels)
        return Given(*joined, split or parts[0], True, tuple(names))
    there = {each: prefix for each, prefix in SPLITS.items() if f"{prefix}images" in arrays}
    there = there if len(there) > 1 else {ALL: next(iter(there.values()))}
    chosen = _chosen(source, there, split)
    prefix = there[chosen]
    try:
        pixels, classes = seen.images(arrays[f"{prefix}images"], asked.room), None
        if f"{prefix}labels" in arrays:
            plain = plain_labels(source, f"{prefix}labels", arrays[f"{prefix}labels"])
            if (called := arrays.get("class_names")) is not None and plain.dtype.kind == "i":
                plain = np.array([called[label] if 0 <= label < len(called) else label for label in plain])
            classes = seen.classes(plain)
    except DataError as error:
        raise DataError(str(error) if str(error).startswith(source) else f"{source}: {error}") from None
    if not len(pixels) or (classes is not None and len(classes) != len(pixels)):
        counts = f"{len(pixels)} images" + ("" if classes is None else f" and {len(classes)} labels")
        raise DataError(f"{source}: must have at least one image, and as many labels as images, got {counts}")
    return Given(pixels, classes, chosen, False, _names(arrays, prefix, np.arange(len(pixels))))


def _own(source: str, name: str, arrays: Arrays, seen: Seen, digest: str, room: Room) -> Dataset | None:
    """Return the data set that was learned from, as it was divided, if these arrays are it."""
    if not {"images", "labels"} <= arrays.keys():
        return None
    try:
        dataset = divided(source, name, arrays, seen.layout, seen.resolution, replace(room))
    except DataError:  # data that could not be learned from may be given all the same
        return None
    return dataset if dataset.digest == digest else None


def _chosen(source: str, splits: Collection[str], split: str | None) -> str:
    """Return the split that is asked for; of those there test, or the first."""
    if split is None:
        return "test" if "test" in splits else next(iter(splits))
    if split not in splits:
        raise DataError(f"{source}: split must be one that these data have ({', '.join(splits)}), got {split}")
    return split


def _names(arrays: Arrays, prefix: str, rows: NDArray[np.int64]) -> tuple[str | int, ...]:
    files = arrays.get(f"{prefix if f'{prefix}images' in arrays else ''}files")
    return tuple(rows.tolist() if files is None else (files[row] for row in rows))
