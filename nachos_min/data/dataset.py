"""What a data set is to the rest of the program: three splits of scaled images, and a digest of their origin.

Plain frozen data; how it is made is in `load.py`.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nachos_min.errors import InputError


class DataError(InputError):
    """A data set that cannot be used; the message gives the file, the value and the rule."""


@dataclass(frozen=True, eq=False)
class Split:
    """Images with their labels.

    Args:
        images: float32 [N, H, W, C].
        labels: int64 [N], 0 .. classes - 1.
        difficulty: float32 [N], how hard each image is, from 0 to 1, where the data say so. It takes part in
            nothing but reports.
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

    Args:
        name: "digits", "digits32", or the file's name without its ending.
        train: what weights are fitted to.
        validation: what thresholds and networks are chosen by.
        calibration: what the figures shown are of, chosen by nothing but whether they keep the limits; None: those
            of `validation` are shown.
        test: takes part in no choice.
        classes: number of classes, >= 2; every one occurs in every split that was made here.
        digest: SHA-256 of the arrays as read, before splitting and scaling, in hexadecimal.
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
