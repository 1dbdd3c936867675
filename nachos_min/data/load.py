"""Load a data set by name or from a file: read, check, split, scale. The room's front door.

Before it: `dataset.py` (what comes out), `arrays.py` (what is checked), `split.py`, `scaling.py`; one reader
per format. It does not resize: see `resize.py`.
"""

import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nachos_min.data.arrays import check_arrays
from nachos_min.data.dataset import DataError, Dataset, Split
from nachos_min.data.scaling import fit_standardisation
from nachos_min.data.split import stratified_split

BUILT_IN = {"digits": Path(__file__).with_name("digits.h5")}

_FORMATS = (".h5", ".hdf5", ".npz", ".mat")
_TEST_SHARE = Fraction(1, 5)
_TEST_SEED = 1_797  # any fixed numbers would do; the splits of every run of everybody follow from these two
_VALIDATION_SEED = 20_401
_SMALL = 10_000  # training samples below which validation takes 20 %: 10 % of fewer would measure too coarsely


def load(name_or_path: str) -> Dataset:
    """Return a data set ready to train on.

    A file without a test split gets one (20 %, stratified). Validation is taken from what remains,
    stratified: 20 % of fewer than 10,000 samples, else 10 %. Both splits are the same on every machine and
    for every run seed. Every feature is then standardised with the training images' mean and deviation.

    Args:
        name_or_path: "digits" (1,797 images of 8 x 8, ten classes), or a file: .h5, .hdf5 or .npz with arrays
            images, labels and optionally test_images, test_labels; .mat as SVHN.

    Returns:
        The three splits, with the digest of the file's arrays.

    Raises:
        DataError: unknown name, no such file, unknown format, or the content breaks a rule.
    """
    path = BUILT_IN.get(name_or_path) or Path(name_or_path)
    raw = check_arrays(str(path), _read(name_or_path, path))
    train, test = raw.train, raw.test
    _check_each_class_fills(path, train, splits=3 if test is None else 2)
    if test is None:
        train, test = _divide(train, _TEST_SHARE, _TEST_SEED)
    share = Fraction(1, 5) if len(train) < _SMALL else Fraction(1, 10)
    train, validation = _divide(train, share, _VALIDATION_SEED)
    scaling = fit_standardisation(train.images)
    if not scaling.inverse.any():
        raise DataError(f"{path}: images must differ, but all {len(train)} training images are the same")
    splits = {
        name: Split(scaling.apply(split.images), split.labels)
        for name, split in (("train", train), ("validation", validation), ("test", test))
    }
    for name, split in splits.items():
        if not np.isfinite(split.images).all():
            raise DataError(f"{path}: a feature of the {name} images lies too many deviations out for float32")
    return Dataset(name=path.stem, **splits, classes=raw.classes, digest=raw.digest)


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


def _check_each_class_fills(path: Path, split: Split, splits: int) -> None:
    sizes = np.bincount(split.labels)
    label = int(sizes.argmin())
    if sizes[label] < splits:
        raise DataError(
            f"{path}: every class must have at least {splits} samples, one for each split that is made of "
            f"them, class {label} has {sizes[label]}"
        )


def _divide(split: Split, share: Fraction, seed: int) -> tuple[Split, Split]:
    """Return (kept, held out)."""
    generator = np.random.Generator(np.random.PCG64(seed))
    kept, held_out = stratified_split(split.labels, share, generator)
    return (
        Split(split.images[kept], split.labels[kept]),
        Split(split.images[held_out], split.labels[held_out]),
    )
