"""Load a data set by name or from a file: read, check, split, scale. The room's front door.

Before it: `dataset.py` (what comes out), `arrays.py` (what is checked), `split.py`, `scaling.py`; one reader
per format. It does not resize: see `resize.py`.
"""

import os
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nachos_min.data.arrays import check_arrays
from nachos_min.data.dataset import DataError, Dataset, Split
from nachos_min.data.scaling import fit_standardisation
from nachos_min.data.split import stratified_split

BUILT_IN = ("digits", "digits32")
DIGITS = Path(__file__).with_name("digits.h5")

_FORMATS = (".h5", ".hdf5", ".npz", ".mat")
_TEST_SHARE = Fraction(1, 5)
_TEST_SEED = 1_797  # any fixed numbers would do; the splits of every run of everybody follow from these two
_VALIDATION_SEED = 20_401
_CALIBRATION_SEED = 31_337
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

    Returns:
        The splits, with the digest of the file's arrays.

    Raises:
        DataError: unknown name, no such file, unknown format, or the content breaks a rule.
    """
    data = load_unscaled(name_or_path)
    scaling = fit_standardisation(data.train.images, standardise)
    if not scaling.inverse.any():
        raise DataError(
            f"{name_or_path}: images must differ, but all {len(data.train)} training images are the same"
        )
    train, choosing, test = (
        replace(split, images=scaling.apply(split.images)) for split in (data.train, data.validation, data.test)
    )
    for name, split in (("train", train), ("validation", choosing), ("test", test)):
        if not np.isfinite(split.images).all():
            raise DataError(
                f"{name_or_path}: a feature of the {name} images lies too many deviations out for float32"
            )
    calibration = None
    if validation == "halves":
        choosing, calibration = _halves(name_or_path, choosing)
    return replace(data, train=train, validation=choosing, calibration=calibration, test=test)


def load_unscaled(name_or_path: str) -> Dataset:
    """Return a data set divided as `load` divides it, with its images' own values: for people to look at.

    Args:
        name_or_path: as for `load`.

    Raises:
        DataError: unknown name, no such file, unknown format, or the content breaks a rule.
    """
    if name_or_path == "digits32":
        from nachos_min.data.digits32 import digits32

        digits = load_unscaled("digits")
        name, arrays = name_or_path, digits32(digits.train, digits.validation, digits.test)
    else:
        path = DIGITS if name_or_path == "digits" else Path(name_or_path)
        name, arrays = path.stem, _read(name_or_path, path)
    raw = check_arrays(name_or_path, arrays)
    _check_each_class_fills(name_or_path, raw.train, splits=1 + (raw.test is None) + (raw.validation is None))
    train, test, validation = raw.train, raw.test, raw.validation
    if test is None:
        train, test = _divide(train, _TEST_SHARE, _TEST_SEED)
    if validation is None:
        share = Fraction(1, 5) if len(train) < _SMALL else Fraction(1, 10)
        train, validation = _divide(train, share, _VALIDATION_SEED)
    return Dataset(name, train, validation, test, raw.classes, raw.digest)


def _read(name: str, path: Path) -> dict[str, NDArray[Any]]:
    """Return what the file's reader does. It is imported when needed: SciPy and h5py are slow to import."""
    if os.path.isdir(path):  # `os.path` and not `Path`: it answers for a name that is too long to be one, too
        raise DataError(f"{path}: data must be a file, got a folder")
    if not os.path.exists(path):
        rule = f"one of the built-in names ({', '.join(BUILT_IN)}) or a file ({', '.join(_FORMATS)})"
        raise DataError(f"data must be {rule}, got {name!r}, which does not exist")
    ending = path.suffix.lower()
    if ending == ".npz":
        from nachos_min.data.read_npz import read_npz

        return read_npz(path)
    if ending == ".mat":
        from nachos_min.data.read_mat import read_mat

        return read_mat(path)
    if ending in (".h5", ".hdf5"):
        from nachos_min.data.read_hdf5 import read_hdf5

        return read_hdf5(path)
    raise DataError(f"{path}: a data file must end in one of {', '.join(_FORMATS)}, got {ending!r}")


def _check_each_class_fills(source: str, split: Split, splits: int) -> None:
    sizes = np.bincount(split.labels)
    label = int(sizes.argmin())
    if sizes[label] < splits:
        raise DataError(
            f"{source}: every class must have at least {splits} samples, one for each split that is made of "
            f"them, class {label} has {sizes[label]}"
        )


def _halves(source: str, split: Split) -> tuple[Split, Split]:
    """Return (validation, calibration); a class with a single sample stays in validation."""
    alone = np.bincount(split.labels)[split.labels] == 1
    several = split.take(np.flatnonzero(~alone))
    if not len(several):
        raise DataError(
            f"{source}: validation must have at least 2 samples of a class to be halved, "
            f"got {len(split)} of as many classes"
        )
    generator = np.random.Generator(np.random.PCG64(_CALIBRATION_SEED))
    kept, held_out = stratified_split(several.labels, Fraction(1, 2), generator)
    chosen = np.flatnonzero(~alone)
    return split.take(np.sort(np.concatenate([chosen[kept], np.flatnonzero(alone)]))), split.take(chosen[held_out])


def _divide(split: Split, share: Fraction, seed: int) -> tuple[Split, Split]:
    """Return (kept, held out)."""
    generator = np.random.Generator(np.random.PCG64(seed))
    kept, held_out = stratified_split(split.labels, share, generator)
    return split.take(kept), split.take(held_out)
