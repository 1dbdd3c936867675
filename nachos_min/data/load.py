"""Load a data set by name, from a file or folder, or from arrays: read, check, resize, split, scale."""

import os
from collections.abc import Mapping
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nachos_min.data import checks, readers
from nachos_min.data.dataset import (
    MAX_VALUES,
    DataError,
    Dataset,
    Split,
    chunks,
    extent,
    fitted_size,
    kind_of,
    resized,
    statistics,
    stratified_split,
)
from nachos_min.data.hdf5_file import read_here
from nachos_min.data.keys import choose, meaning
from nachos_min.data.limits import Asked, Room, room_of
from nachos_min.errors import shorten

Pair: TypeAlias = tuple[NDArray[Any], NDArray[Any]]  # images, labels
Source: TypeAlias = str | os.PathLike[str] | Pair | Mapping[str, Pair] | Dataset

BUILT_IN = ("digits", "digits32")
IN_MEMORY = "arrays"  # the name of data that are no file
SPLITS = {"train": "", "validation": "validation_", "test": "test_"}  # a split's prefix in the names of arrays
DIGITS = Path(__file__).with_name("digits.h5")

# Any fixed numbers would do; the splits of every run follow from them.
_TEST_SEED, _VALIDATION_SEED, _CALIBRATION_SEED = 1_797, 20_401, 31_337
_SMALL = 10_000  # training samples below which validation takes 20 %: 10 % of fewer would measure too coarsely


def load(
    source: Source,
    standardise: str = "channel",
    validation: str = "halves",
    *,
    layout: str | None = None,
    resolution: int | None = None,
    max_bytes: int | None = None,
) -> Dataset:
    """Return a data set ready to train on; a Dataset is returned as it is.

    Data without a test split get one (20 %, stratified). Without a validation split, it is taken from what
    remains, stratified: 20 % of fewer than 10,000 samples, else 10 %. Both splits are the same on every machine
    and for every run seed. Every feature is then standardised with the training images' mean and deviation.

    Args:
        source: "digits" (1,797 images of 8 x 8, ten classes), "digits32" (24,000 scenes of 32 x 32 in colour,
            painted from them), a file or folder as the room's README lists them, arrays (images, labels), or
            {"train": (images, labels), "validation": ..., "test": ...}. Arrays are not copied where avoidable.
        standardise: what a feature is: a `channel`, or each `pixel` of a channel.
        validation: `halves`: half of the validation split becomes the calibration split, stratified; or `whole`.
        layout: what the axes of images are: `chw`, `hwc` or `signal`; None: channels last, unless that is doubtful.
        resolution: shorter side in pixels that images are brought to; None: those above 96 are brought to 64.
        max_bytes: most bytes that a file or folder may decode to; None: 340 million.

    Raises:
        DataError: unknown name, no such file, unknown format, or the content breaks a rule.
    """
    if isinstance(source, Dataset):
        if layout is not None or resolution is not None:
            given = f"{layout} and {resolution}"
            raise DataError(f"layout and resolution must not be given with a Dataset, got {given}")
        return source
    data, said = load_unscaled(source, layout=layout, resolution=resolution, max_bytes=max_bytes), _said(source)
    scaling = statistics(data.train.images, standardise)
    if not scaling.inverse.any():
        same = f"but all {len(data.train)} training images are the same in float32"
        raise DataError(f"{said}: images must differ, {same}")
    splits: dict[str, Any] = data.splits
    for name, split in splits.items():
        scaled = replace(split.images, scaling=scaling)
        # Bytes are never that many deviations out.
        parts = chunks(scaled.shape) if scaled.stored.dtype == np.float32 else ()
        if not all(np.isfinite(scaled[part]).all() for part in parts):
            where = f"a feature of the {name} images"
            raise DataError(f"{said}: {where} lies too many deviations out for float32")
        splits[name] = replace(split, images=scaled)
    if validation == "halves":
        splits["validation"], splits["calibration"] = halves(said, splits["validation"])
    return replace(data, **splits)


def load_unscaled(
    source: Source, *, layout: str | None = None, resolution: int | None = None, max_bytes: int | None = None
) -> Dataset:
    """Return a data set divided as `load` divides it, with its images' own values; arguments and errors alike."""
    if layout not in (None, *checks.LAYOUTS):
        raise DataError(f"layout must be one of {', '.join(checks.LAYOUTS)}, got {layout!r}")
    if resolution is not None and not (type(resolution) is int and resolution >= 1):
        raise DataError(f"resolution must be a whole number >= 1, got {shorten(resolution)}")
    asked = Asked(room_of(source, max_bytes), resolution)
    return divided(_said(source), *read_source(source, asked), layout, resolution, asked.room)


def read_source(source: Source, asked: Asked) -> tuple[str, readers.Arrays]:
    """Return the name and the arrays of a source that `load` takes."""
    if isinstance(source, str | os.PathLike):
        return _from_place(str(source), asked)
    return IN_MEMORY, _from_memory(source)


def divided(
    said: str, name: str, arrays: readers.Arrays, layout: str | None, resolution: int | None, room: Room
) -> Dataset:
    """Return arrays as a data set called `name`, as `load_unscaled` does; messages call it `said`."""
    checked = checks.check_arrays(said, arrays, layout)
    del arrays
    found, notes = checked.splits, [*checked.notes]
    sizes = np.bincount(found[""].labels)
    label, needed = int(sizes.argmin()), 1 + ("test_" not in found) + ("validation_" not in found)
    if sizes[label] < needed:
        raise DataError(
            f"{said}: every class must have at least {needed} samples, one for each split that is made of "
            f"them, class {checked.class_names[label]}, one of {len(sizes):,}, has {sizes[label]}"
        )
    before = found[""].images.shape[1:3]
    size = fitted_size(before, resolution)
    if size != before:
        most = max(len(split) for split in found.values()) * found[""].images.shape[3] * size[0] * size[1]
        if most > MAX_VALUES or (size[0] == 1 and size[1] > checks.LONGEST):
            rule = f"at most {MAX_VALUES} values in all, and signals {checks.LONGEST} each"
            raise DataError(
                f"{said}: resized images must have {rule}, resolution {resolution} makes them {size[0]}x{size[1]}"
            )
        notes.append(f"{kind_of(before)} are resized to {extent(size)}")
        found = {
            prefix: replace(split, images=resized(split.images, size, room)) for prefix, split in found.items()
        }
    train, test, validation = found[""], found.get("test_"), found.get("validation_")
    digest = checks.digest(found)
    if test is None:
        train, test = _divide(train, Fraction(1, 5), _TEST_SEED, "test", notes)
    if validation is None:
        share = Fraction(1, 5) if len(train) < _SMALL else Fraction(1, 10)
        train, validation = _divide(train, share, _VALIDATION_SEED, "validation", notes)
    called = None, checked.class_names, checked.class_labels
    return Dataset(name, train, validation, test, len(sizes), digest, *called, notes=tuple(notes))


def _said(source: Source) -> str:
    """Return what messages call the data."""
    return str(source) if isinstance(source, str | os.PathLike) else IN_MEMORY


def named(path: str | os.PathLike[str]) -> str:
    """Return what the data at a path are called, as the folder of their run is: without the endings of a file.

    >>> named("mine/photos.tar.gz"), named("mine/x.npz")
    ('photos', 'x')
    """
    place = Path(os.path.abspath(path))
    return place.name if place.is_dir() else place.stem.removesuffix(".tar")


def _from_place(said: str, asked: Asked) -> tuple[str, readers.Arrays]:
    """Return the data's name, and the arrays of a built-in data set, a file or a folder."""
    if said == "digits32":
        from nachos_min.data.scenes import digits32

        digits = load_unscaled("digits")
        return said, digits32(digits.train, digits.validation, digits.test)
    if said == "digits":
        return said, read_here(DIGITS)
    path = Path(said)
    # `os.path` and not `Path`: it answers for a name that is too long to be one, too.
    if not said or not (os.path.isfile(path) or os.path.isdir(path)):
        names, endings = ", ".join(BUILT_IN), ", ".join(readers.FORMATS)
        rule = f"one of the built-in names ({names}), a file ({endings}) or a folder"
        what = "is a pipe or a device" if os.path.exists(path) else "does not exist"
        raise DataError(f"data must be {rule}, got {said!r}, which {what}")
    return named(path), readers.read(path, asked)


def _from_memory(source: Any) -> readers.Arrays:
    """Return the arrays of (images, labels), of a mapping of splits to such pairs, or of known names to arrays."""
    splits = {"train": source} if isinstance(source, tuple) else source
    if not isinstance(splits, Mapping):
        rule = "a name, a path, (images, labels), a mapping of splits to such pairs, or a Dataset"
        raise DataError(f"data must be {rule}, got {type(source).__name__}")
    if any(meaning(str(name)) for name in splits):
        chosen = choose(IN_MEMORY, map(str, splits), lambda name: type(splits[name]).__name__)
        arrays = {name: splits[own] for name, own in chosen.items()}
    else:
        if "train" not in splits or not splits.keys() <= SPLITS.keys():
            raise DataError(f"splits of data must be train, and if given validation and test, got {[*splits]}")
        arrays = {}
        for split, pair in splits.items():
            if not (isinstance(pair, tuple) and len(pair) == 2):
                got = f"{len(pair)} values" if isinstance(pair, tuple) else type(pair).__name__
                raise DataError(f"{split} must be (images, labels), got {got}")
            arrays |= {SPLITS[split] + noun: array for noun, array in zip(("images", "labels"), pair, strict=True)}
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray) or isinstance(array, np.ma.MaskedArray):
            advice = "" if isinstance(array, np.ndarray) else "; numpy.asarray makes one"
            raise DataError(f"{name} must be a NumPy array, got {type(array).__name__}{advice}")
    return {name: np.asarray(array) for name, array in arrays.items()}  # a matrix would keep its two axes


def halves(source: str, split: Split) -> tuple[Split, Split]:
    """Return (validation, calibration); a class with a single sample stays in validation."""
    alone = np.bincount(split.labels)[split.labels] == 1
    chosen = np.flatnonzero(~alone)
    if not len(chosen):
        given = f"got one of each of {len(split)} classes; give more, or --validation whole"
        raise DataError(f"{source}: validation must have at least 2 samples of a class to be halved, {given}")
    generator = np.random.Generator(np.random.PCG64(_CALIBRATION_SEED))
    kept, held_out = stratified_split(split.labels[chosen], Fraction(1, 2), generator)
    return split.take(np.sort(np.concatenate([chosen[kept], np.flatnonzero(alone)]))), split.take(chosen[held_out])


def _divide(split: Split, share: Fraction, seed: int, name: str, notes: list[str]) -> tuple[Split, Split]:
    """Return (kept, held out), and note it."""
    kept, held_out = stratified_split(split.labels, share, np.random.Generator(np.random.PCG64(seed)))
    notes.append(
        f"no {name} split was given: {len(held_out):,} of {len(split):,} samples are held out for it, "
        f"{float(100 * share):g} % of each class"
    )
    return split.take(kept), split.take(held_out)
