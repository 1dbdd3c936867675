"""A data set: splits of scaled images, how samples are divided into splits, scaled, and resized."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from math import prod
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from nachos_min.errors import InputError

if TYPE_CHECKING:
    from nachos_min.data.limits import Room

MAX_VALUES = 2**31  # of one array: 8 GiB as float32, more than this program can train on in reasonable time
LARGEST, REDUCED = 96, 64  # shorter sides: the largest that is kept, and what larger ones become
_ROUNDED = 64  # least range of bytes that are resized to bytes: a mask of 0 and 1 would lose all between


class DataError(InputError):
    """A data set that cannot be used; the message gives the file, the value and the rule."""


def chunks(shape: tuple[int, ...], values: int = 1 << 22) -> list[slice]:
    """Return slices of samples to convert at a time, 1,024 or fewer with as many `values`, not everything."""
    step = max(1, min(1024, values // max(prod(shape[1:]), 1)))
    return [slice(begin, begin + step) for begin in range(0, shape[0], step)]


@dataclass(frozen=True, eq=False)
class Scaling:
    """What gives each feature (a channel, or its pixels each) mean 0 and variance 1 on the training images."""

    mean: NDArray[np.float64]  # (C,), or (H, W, C)
    inverse: NDArray[np.float64]  # 1 / standard deviation; 0 for a constant feature

    def __call__(self, images: NDArray[Any]) -> NDArray[np.float32]:
        """Return (images - mean) * inverse, infinite where float32 cannot hold it."""
        with np.errstate(over="ignore"):
            return ((images - self.mean) * self.inverse).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Images:
    """Images that are kept as they were read, and scaled and resized when some of them are asked for.

    `images[begin:end]` and `images[indices]` are float32 [n, H, W, C], as a network takes them. An image has the
    same numbers, to the last bit, whichever others are asked for with it. Several splits may keep one array.
    """

    stored: NDArray[Any]  # uint8 or float32 [M, H, W, C]; may be a memory map that several processes share
    rows: NDArray[np.int64] | None = None  # int64 [N], which of them these are; None: all
    scaling: Scaling | None = None  # None: the numbers as stored
    size: tuple[int, int] | None = None  # (H, W) to resize to; None: as stored

    def __len__(self) -> int:
        return len(self.stored) if self.rows is None else len(self.rows)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, H, W, C)."""
        height, width = self.size or self.stored.shape[1:3]
        return (len(self), height, width, self.stored.shape[3])

    @property
    def dtype(self) -> np.dtype[np.float32]:
        """What indexing returns."""
        return np.dtype(np.float32)

    def __getitem__(self, chosen: slice | NDArray[np.int64]) -> NDArray[np.float32]:
        images = self.unscaled(chosen)
        scaled = images.astype(np.float32) if self.scaling is None else self.scaling(images)
        return scaled if self.size is None else resize(scaled, self.size)

    def unscaled(self, chosen: slice | NDArray[np.int64] = slice(None)) -> NDArray[Any]:
        """Return images as they are stored."""
        return self.stored[chosen] if self.rows is None else self.stored[self.rows[chosen]]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[np.float32]:
        """Return all images as one array: for tests and figures, since it can be large."""
        parts = [self[part] for part in chunks(self.shape)]
        return np.asarray(np.concatenate(parts) if parts else self[:0], dtype)

    def take(self, chosen: NDArray[np.int64]) -> "Images":
        """Return the images whose indices are `chosen`, int64 [K], in that order; none is copied."""
        return replace(self, rows=chosen if self.rows is None else self.rows[chosen])

    def at(self, size: tuple[int, int]) -> "Images":
        """Return the images at `size`, (H, W)."""
        return replace(self, size=None if size == self.stored.shape[1:3] else size)


ImageSource: TypeAlias = np.ndarray[Any, np.dtype[np.floating[Any]]] | Images  # what gives [n, H, W, C] by index


@dataclass(frozen=True, eq=False)
class Split:
    """Images with their labels."""

    images: Images  # give float32 [N, H, W, C]
    labels: NDArray[np.int64]  # int64 [N], 0 .. classes - 1
    difficulty: NDArray[np.float32] | None = None  # [N] from 0 to 1, where the data have it; only reports show it

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def largest_share(self) -> float:
        """The largest class's share of the samples: the accuracy of always naming it."""
        return float(np.bincount(self.labels).max() / len(self))

    def take(self, chosen: NDArray[np.int64]) -> "Split":
        """Return the samples whose indices are `chosen`, int64 [K], in that order."""
        hard = None if self.difficulty is None else self.difficulty[chosen]
        return Split(self.images.take(chosen), self.labels[chosen], hard)


@dataclass(frozen=True, eq=False, repr=False)
class Dataset:
    """Images to train on, to choose by, and to measure on."""

    name: str  # "digits", "digits32", or the file's name without its ending
    train: Split  # fits the weights
    validation: Split  # chooses thresholds and networks
    test: Split  # takes part in no choice
    classes: int  # their number, >= 2; every one occurs in every split that was made here
    digest: str  # SHA-256 of the arrays before splitting and scaling, in hexadecimal
    calibration: Split | None = None  # gives the figures that are shown; None: `validation` gives them
    class_names: tuple[str, ...] = ()  # of each class, in order: its name, or its label as text
    class_labels: tuple[int | bool | str, ...] = ()  # of each class its label as the data had it
    notes: tuple[str, ...] = ()  # one sentence for each thing that was done to the data, in order

    def __repr__(self) -> str:
        counts = ", ".join(f"{len(split)} {name}" for name, split in self.splits.items())
        return f"<Dataset {self.name}: {self.classes} classes, {kind_of(self.image_shape[:2])}; {counts}>"

    @property
    def splits(self) -> dict[str, Split]:
        """The splits that there are, by name."""
        named = ((name, getattr(self, name)) for name in ("train", "validation", "calibration", "test"))
        return {name: split for name, split in named if split is not None}

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
    held_out, order = np.zeros(len(labels), dtype=bool), np.lexsort((keys, labels))
    _, begins, counts = np.unique(labels[order], return_index=True, return_counts=True)
    for begin, count in zip(begins.tolist(), counts.tolist(), strict=True):
        wanted = min(max(int(count * share + Fraction(1, 2)), 1), count - 1)
        held_out[order[begin : begin + wanted]] = True
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def statistics(images: ImageSource, per: str) -> Scaling:
    """Return what standardises every `channel`, or every `pixel` of a channel, of images [N, H, W, C].

    A feature is constant if its largest value is its smallest, since its computed variance may be a rounding error
    away from 0; its inverse is 0. Sums run over the images one after the other: they are the same on every machine.
    """
    together: tuple[int, ...] = (0, 1, 2) if per == "channel" else (0,)
    size = images.shape[0] * images.shape[1] * images.shape[2]
    count, shape = (size, images.shape[3:]) if per == "channel" else (len(images), images.shape[1:])
    least, most = np.full(images.shape[1:], np.inf), np.full(images.shape[1:], -np.inf)

    def values(these: NDArray[np.float32]) -> NDArray[Any]:
        np.minimum(least, these.min(axis=0), out=least)
        np.maximum(most, these.max(axis=0), out=most)
        return these

    mean = _sum(images, together, values, shape) / count
    squares = _sum(images, together, lambda these: np.square(difference := these - mean, out=difference), shape)
    if per == "channel":
        least, most = least.min(axis=(0, 1)), most.max(axis=(0, 1))
    deviation = np.sqrt(squares / count)
    return Scaling(mean, np.divide(1.0, deviation, out=np.zeros_like(mean), where=most > least))


def _sum(
    images: ImageSource,
    together: tuple[int, ...],
    of: Callable[[NDArray[np.float32]], NDArray[Any]],
    shape: tuple[int, ...],
) -> NDArray[np.float64]:
    """Return the sum of `of(images)` over the axes `together`: of 1,024 images at once, then over these sums.

    Of several channels, as of pixels, NumPy adds one image after the other: so the 1,024 need not be in memory
    together. Of one channel it adds halves.
    """
    total, halves = np.zeros(shape), together != (0,) and shape == (1,)
    for group in chunks(images.shape, 1 << 25 if halves else sys.maxsize):
        found = None
        step = 1024 if halves else chunks(images.shape)[0].stop
        for begin in range(group.start, min(group.stop, len(images)), step):
            block = of(images[begin : min(begin + step, group.stop)])
            if found is not None:
                block = block.astype(np.float64, copy=False)
                block[(0,) * len(together)] += found
            found = block.sum(axis=together, dtype=np.float64)
        total += 0 if found is None else found
    return total


def resize(images: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """Return the images, float32 [N, H, W, C], at `size`, (H, W) in pixels; DataError if one is < 1.

    Source: bilinear interpolation between pixel centres; when shrinking, the weights are widened to cover
    every pixel (PyTorch's `interpolate` with mode "bilinear", antialias).
    """
    if min(size) < 1:
        raise DataError(f"resolution must be >= 1, got {min(size)}")
    for axis, wanted in enumerate(size, start=1):
        if images.shape[axis] != wanted:
            # Term by term: a matrix product may round an image otherwise beside others.
            pixels, weights = taps(images.shape[axis], wanted)
            shape = [1, 1, 1, 1]
            shape[axis] = wanted
            terms = zip(pixels, weights, strict=True)
            images = sum(np.take(images, each, axis) * weight.reshape(shape) for each, weight in terms)
    return np.ascontiguousarray(images)


def kind_of(size: tuple[int, int]) -> str:
    """Return what samples of (height, width) are, for reading.

    >>> kind_of((28, 20)), kind_of((1, 187))
    ('images of 28x20 pixels', 'signals of length 187')
    """
    return f"{'signals of length' if size[0] == 1 else 'images of'} {extent(size)}{' pixels' * (size[0] > 1)}"


def extent(size: tuple[int, int]) -> str:
    """Return (height, width) for reading; of a signal, its length."""
    return str(size[1]) if size[0] == 1 else f"{size[0]}x{size[1]}"


def fitted_size(size: tuple[int, int], resolution: int | None) -> tuple[int, int]:
    """Return the (H, W) that images of `size` are brought to: the shorter side is `resolution`, the aspect kept.

    At height 1 the length is `resolution`. None: images with a shorter side above 96 are brought to 64.

    >>> fitted_size((300, 400), 32), fitted_size((300, 400), None), fitted_size((32, 40), None)
    ((32, 43), (64, 85), (32, 40))
    >>> fitted_size((1, 9), 3)
    (1, 3)
    """
    height, width = size
    if resolution is None:
        if min(size) <= LARGEST:
            return size
        resolution = REDUCED
    if height == 1:
        return 1, resolution
    shorter = min(size)
    return (2 * height * resolution + shorter) // (2 * shorter), (2 * width * resolution + shorter) // (2 * shorter)


def resized(images: Images, size: tuple[int, int], room: "Room", *, as_bytes: bool | None = None) -> Images:
    """Return unscaled images stored at `size`, (H, W): bytes of a wide range rounded half up, others as float32.

    `as_bytes` says which of the two, whatever the images are. DataError if they find no `room`.
    """
    stored = images.stored
    kept = (stored.dtype == np.uint8 and np.ptp(stored) >= _ROUNDED) if as_bytes is None else as_bytes
    shape, kind = (len(stored), *size, stored.shape[3]), np.dtype(np.uint8 if kept else np.float32)
    room.take(prod(shape) * kind.itemsize, f"images at {extent(size)}")
    made = np.empty(shape, kind)
    for part in chunks(stored.shape):
        pixels = resize(stored[part].astype(np.float32), size)
        made[part] = np.clip(np.floor(pixels + np.float32(0.5)), 0, 255) if kept else pixels
    return replace(images, stored=made)


def taps(length: int, wanted: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return the pixels that make each output pixel, and their weights, which sum to 1: both [taps, wanted].

    The weights are a hat around the place of the output pixel.
    """
    step = length / wanted
    reach = max(step, 1.0)
    centres = (np.arange(wanted) + 0.5) * step - 0.5
    first = np.ceil(centres - reach).astype(np.int64)
    pixels = first + np.arange(int(2 * reach) + 1)[:, None]
    hat = np.maximum(0.0, 1.0 - np.abs(pixels - centres) / reach)
    hat[(pixels < 0) | (pixels >= length)] = 0.0
    return np.clip(pixels, 0, length - 1), np.asarray(hat / hat.sum(axis=0), dtype=np.float32)
