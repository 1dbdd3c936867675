"""Bring every channel, or every channel of every pixel, to mean 0 and variance 1 over the training images.

The statistics are fitted on training images alone and then applied to all.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

_CHUNK = 1024  # images converted to float64 at a time: 25 MB of 32 x 32 x 3, instead of a copy of everything


@dataclass(frozen=True, eq=False)
class Standardisation:
    """Mean and inverse standard deviation per feature: a channel [C], or a channel of a pixel [H, W, C].

    Args:
        mean: float64.
        inverse: float64, 1 / standard deviation, 0 where a feature is constant.
    """

    mean: NDArray[np.float64]
    inverse: NDArray[np.float64]

    def apply(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return (images - mean) / standard deviation; constant features become 0.

        Args:
            images: float32 [N, H, W, C].

        Returns:
            float32 [N, H, W, C]; infinite where a value lies further out than float32 can say.
        """
        scaled = np.empty_like(images)
        with np.errstate(over="ignore"):
            for start in range(0, len(images), _CHUNK):
                part = slice(start, start + _CHUNK)
                scaled[part] = (images[part] - self.mean) * self.inverse
        return scaled


def fit_standardisation(images: NDArray[np.float32], per: str) -> Standardisation:
    """Return the mean and inverse standard deviation of every feature, computed in float64.

    A feature is constant if its largest value is its smallest: its computed variance may be a rounding error
    away from 0, and dividing by that would make noise of it. Sums run over the images one after the other, so
    they are the same on every machine.

    Args:
        images: float32 [N, H, W, C], N >= 1, finite.
        per: what a feature is: a `channel`, or each `pixel` of a channel.

    Returns:
        The statistics (population variance).
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
    return Standardisation(mean, np.divide(1.0, deviation, out=np.zeros_like(mean), where=varies))
