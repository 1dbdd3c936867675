"""A data set: splits of scaled images, how samples are divided into splits, scaled, and resized."""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from nachos_min.errors import InputError

_CHUNK = 1024  # images converted to float64 at a time: 25 MB of 32 x 32 x 3, instead of a copy of everything


class DataError(InputError):
    """A data set that cannot be used; the message gives the file, the value and the rule."""


@dataclass(frozen=True, eq=False)
class Split:
    """Images with their labels.

    Attributes:
        images: float32 [N, H, W, C].
        labels: int64 [N], 0 .. classes - 1.
        difficulty: float32 [N] from 0 to 1, where the data have it; only reports show it.
    """

    images: NDArray[np.float32]
    labels: NDArray[np.int64]
    difficulty: NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, chosen: NDArray[np.int64]) -> "Split":
        """Return the samples whose indices are `chosen`, int64 [K], in that order."""
        hard = None if self.difficulty is None else self.difficulty[chosen]
        return Split(self.images[chosen], self.labels[chosen], hard)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images to train on, to choose by, and to measure on.

    Attributes:
        name: "digits", "digits32", or the file's name without its ending.
        train: fits the weights.
        validation: chooses thresholds and networks.
        test: takes part in no choice.
        classes: number of classes, >= 2; every one occurs in every split that was made here.
        digest: SHA-256 of the arrays as read, before splitting and scaling, in hexadecimal.
        calibration: gives the figures that are shown; None: `validation` gives them.
    """

    name: str
    train: Split
    validation: Split
    test: Split
    classes: int
    digest: str
    calibration: Split | None = None

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of one image."""
        _, height, width, channels = self.train.images.shape
        return (height, width, channels)


def stratified_split(
    labels: NDArray[np.int64], share: Fraction, generator: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the indices kept and held out, each int64 and ascending; every class keeps its share.

    The samples of a class with the smallest random keys are held out. Keys are the raw stream of the generator,
    which NumPy promises never to change (NumPy enhancement proposal 19).

    >>> kept, held_out = stratified_split(
    ...     np.array([0, 1, 0, 1, 0, 1]), Fraction(1, 3), np.random.Generator(np.random.PCG64(0)))
    >>> kept, held_out
    (array([0, 1, 4, 5]), array([2, 3]))

    Args:
        labels: int64 [N], at least two samples of each class that occurs.
        share: of each class, between 0 and 1; rounded half up, but one sample at least is held out and one kept.
        generator: PCG64, whose 64 bits make equal keys unlikely.
    """
    keys = np.asarray(generator.bit_generator.random_raw(len(labels)), dtype=np.uint64)
    held_out = np.zeros(len(labels), dtype=bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        wanted = min(max(int(len(members) * share + Fraction(1, 2)), 1), len(members) - 1)
        held_out[members[np.argsort(keys[members], kind="stable")[:wanted]]] = True
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def statistics(images: NDArray[np.float32], per: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean and inverse standard deviation of every `channel`, or every `pixel` of a channel, of images.

    A feature is constant if its largest value is its smallest, since its computed variance may be a rounding error
    away from 0; its inverse is 0. Sums run over the images one after the other: they are the same on every machine.
    """
    together = (0, 1, 2) if per == "channel" else (0,)
    count = images.size // images.shape[-1] if per == "channel" else len(images)
    shape = images.shape[len(together) :]
    total, squares = np.zeros(shape), np.zeros(shape)
    for start in range(0, len(images), _CHUNK):
        total += images[start : start + _CHUNK].sum(axis=together, dtype=np.float64)
    mean = total / count
    for start in range(0, len(images), _CHUNK):
        squares += ((images[start : start + _CHUNK] - mean) ** 2).sum(axis=together)
    varies = images.max(axis=together) > images.min(axis=together)
    deviation = np.sqrt(squares / count)
    return mean, np.divide(1.0, deviation, out=np.zeros_like(mean), where=varies)


def standardised(
    images: NDArray[np.float32], mean: NDArray[np.float64], inverse: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Return (images - mean) * inverse, infinite where float32 cannot hold it."""
    scaled = np.empty_like(images)
    with np.errstate(over="ignore"):
        for start in range(0, len(images), _CHUNK):
            part = slice(start, start + _CHUNK)
            scaled[part] = (images[part] - mean) * inverse
    return scaled


def resize(images: NDArray[np.float32], resolution: int) -> NDArray[np.float32]:
    """Return the images, float32 [N, H, W, C], at `resolution` x `resolution` pixels; DataError if it is < 1.

    Source: bilinear interpolation between pixel centres; when shrinking, the weights are widened to cover
    every pixel (PyTorch's `interpolate` with mode "bilinear", antialias).
    """
    if resolution < 1:
        raise DataError(f"resolution must be >= 1, got {resolution}")
    rows, columns = _weights(images.shape[1], resolution), _weights(images.shape[2], resolution)
    resized = np.einsum("ph,nhwc,qw->npqc", rows, images, columns, optimize=True)
    return np.ascontiguousarray(resized, dtype=np.float32)


def _weights(length: int, resolution: int) -> NDArray[np.float32]:
    """Return a matrix [resolution, length]: row o holds a hat around the place of output pixel o, with sum 1."""
    step = length / resolution
    centres = (np.arange(resolution) + 0.5) * step - 0.5
    distance = np.abs(np.arange(length) - centres[:, None]) / max(step, 1.0)
    hat = np.maximum(0.0, 1.0 - distance)
    return np.asarray(hat / hat.sum(axis=1, keepdims=True), dtype=np.float32)
