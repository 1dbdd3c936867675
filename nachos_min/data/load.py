"""Load a data set by name or from a file: read, check, split, scale. It does not resize."""

import os
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from nachos_min.data import readers
from nachos_min.data.dataset import DataError, Dataset, Split, statistics, stratified_split

BUILT_IN = ("digits", "digits32")
DIGITS = Path(__file__).with_name("digits.h5")

# Any fixed numbers would do; the splits of every run follow from them.
_TEST_SEED, _VALIDATION_SEED, _CALIBRATION_SEED = 1_797, 20_401, 31_337
_SMALL = 10_000  # training samples below which validation takes 20 %: 10 % of fewer would measure too coarsely


def load(name_or_path: str, standardise: str = "channel", validation: str = "halves") -> Dataset:
    """Return a data set ready to train on.

    A file without a test split gets one (20 %, stratified). Without a validation split, it is taken from what
    remains, stratified: 20 % of fewer than 10,000 samples, else 10 %. Both splits are the same on every machine
    and for every run seed. Every feature is then standardised with the training images' mean and deviation.

    Args:
        name_or_path: "digits" (1,797 images of 8 x 8, ten classes), "digits32" (24,000 scenes of 32 x 32 in
            colour, painted from them), or a file: .h5, .hdf5 or .npz with arrays images and labels, optionally
            the same with "test_" and "validation_" in front, and a difficulty with each; .mat as SVHN.
        standardise: what a feature is: a `channel`, or each `pixel` of a channel.
        validation: `halves`: half of the validation split becomes the calibration split, stratified; or `whole`.

    Raises:
        DataError: unknown name, no such file, unknown format, or the content breaks a rule.
    """
    data = load_unscaled(name_or_path)
    scaling = statistics(data.train.images, standardise)
    if not scaling.inverse.any():
        same = f"but all {len(data.train)} training images are the same"
        raise DataError(f"{name_or_path}: images must differ, {same}")
    splits: dict[str, Any] = {"train": data.train, "validation": data.validation, "test": data.test}
    for name, split in splits.items():
        scaled = replace(split.images, scaling=scaling)
        if not all(np.isfinite(scaled[begin : begin + 1024]).all() for begin in range(0, len(scaled), 1024)):
            where = f"a feature of the {name} images"
            raise DataError(f"{name_or_path}: {where} lies too many deviations out for float32")
        splits[name] = replace(split, images=scaled)
    if validation == "halves":
        splits["validation"], splits["calibration"] = _halves(name_or_path, splits["validation"])
    return replace(data, **splits)


def load_unscaled(name_or_path: str) -> Dataset:
    """Return a data set divided as `load` divides it, with its images' own values; arguments and errors alike."""
    if name_or_path == "digits32":
        from nachos_min.data.scenes import digits32

        digits = load_unscaled("digits")
        name, arrays = name_or_path, digits32(digits.train, digits.validation, digits.test)
    else:
        path = DIGITS if name_or_path == "digits" else Path(name_or_path)
        if os.path.isdir(path):  # `os.path` and not `Path`: it answers for a name that is too long to be one, too
            raise DataError(f"{path}: data must be a file, got a folder")
        if not os.path.exists(path):
            rule = f"one of the built-in names ({', '.join(BUILT_IN)}) or a file ({', '.join(readers.FORMATS)})"
            raise DataError(f"data must be {rule}, got {name_or_path!r}, which does not exist")
        name, arrays = path.stem, readers.read(path)
    found = readers.check_arrays(name_or_path, arrays)
    train, test, validation = found[""], found.get("test_"), found.get("validation_")
    sizes = np.bincount(train.labels)
    label, needed = int(sizes.argmin()), 1 + (test is None) + (validation is None)
    if sizes[label] < needed:
        raise DataError(
            f"{name_or_path}: every class must have at least {needed} samples, one for each split that is made of "
            f"them, class {label} has {sizes[label]}"
        )
    if test is None:
        train, test = _divide(train, Fraction(1, 5), _TEST_SEED)
    if validation is None:
        share = Fraction(1, 5) if len(train) < _SMALL else Fraction(1, 10)
        train, validation = _divide(train, share, _VALIDATION_SEED)
    return Dataset(name, train, validation, test, len(sizes), readers.digest(found))


def _halves(source: str, split: Split) -> tuple[Split, Split]:
    """Return (validation, calibration); a class with a single sample stays in validation."""
    alone = np.bincount(split.labels)[split.labels] == 1
    chosen = np.flatnonzero(~alone)
    if not len(chosen):
        raise DataError(
            f"{source}: validation must have at least 2 samples of a class to be halved, "
            f"got {len(split)} of as many classes"
        )
    generator = np.random.Generator(np.random.PCG64(_CALIBRATION_SEED))
    kept, held_out = stratified_split(split.labels[chosen], Fraction(1, 2), generator)
    return split.take(np.sort(np.concatenate([chosen[kept], np.flatnonzero(alone)]))), split.take(chosen[held_out])


def _divide(split: Split, share: Fraction, seed: int) -> tuple[Split, Split]:
    """Return (kept, held out)."""
    kept, held_out = stratified_split(split.labels, share, np.random.Generator(np.random.PCG64(seed)))
    return split.take(kept), split.take(held_out)
