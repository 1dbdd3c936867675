"""Read a data set from a MATLAB file in the layout of SVHN: X [H, W, C, N] and y [N, 1] with classes 1 .. K.

SVHN (Netzer et al., "Reading digits in natural images with unsupervised feature learning", 2011) calls the
digit 0 class 10: class K becomes 0 here, the others keep their number. Its test images are a file of
their own, so `train_32x32.mat` takes `test_32x32.mat` beside it, if there is one, as its test split.
"""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import io

from nachos_min.data.arrays import MAX_VALUES, check_declared
from nachos_min.data.dataset import DataError


def read_mat(path: Path) -> dict[str, NDArray[Any]]:
    """Return images and labels, with a test split if a file beside it holds one.

    Args:
        path: an existing file.

    Returns:
        "images" [N, H, W, C] and "labels" [N], and the same with "test_" in front.

    Raises:
        DataError: it is no MATLAB file up to version 7, is damaged, lacks X or y, declares too large a shape,
            or a label is no whole number >= 0.
    """
    images, labels = _read(path)
    classes = int(labels.max(initial=0))
    arrays = {"images": images, "labels": _from_one(labels, classes)}
    beside = path.with_name(path.name.replace("train", "test"))
    if beside != path and beside.exists():
        images, labels = _read(beside)
        arrays |= {"test_images": images, "test_labels": _from_one(labels, classes)}
    return arrays


def _from_one(labels: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """Return classes 1 .. K as 1 .. K - 1, 0; classes that already start at 0 stay as they are."""
    return labels if (labels == 0).any() else np.where(labels == classes, 0, labels)


def _read(path: Path) -> tuple[NDArray[Any], NDArray[np.int64]]:
    try:
        for name, shape, _ in io.whosmat(path):
            check_declared(str(path), name, shape)
        content = io.loadmat(path, variable_names=["X", "y"])
    except DataError:
        raise
    except Exception as error:  # SciPy raises another class for every kind of damage, some of them its own
        reason = " ".join(str(error).split())
        raise DataError(
            f"{path}: must be a whole MATLAB file of version 7 or before, but it cannot be read ({reason})"
        ) from None
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
