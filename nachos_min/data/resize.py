"""Bring images to the square resolution that a search space asks for, by bilinear interpolation.

Read nothing before it. Each axis is a small matrix of weights, so a resize is two matrix products.
"""

import numpy as np
from numpy.typing import NDArray

from nachos_min.data.dataset import DataError


def resize(images: NDArray[np.float32], resolution: int) -> NDArray[np.float32]:
    """Return the images at resolution x resolution.

    Args:
        images: float32 [N, H, W, C].
        resolution: pixels on a side, >= 1.

    Returns:
        float32 [N, resolution, resolution, C].

    Raises:
        DataError: resolution < 1.

    Source: bilinear interpolation between pixel centres; when shrinking, the weights are widened to cover
    every pixel (PyTorch's `interpolate` with mode "bilinear", antialias).
    """
    if resolution < 1:
        raise DataError(f"resolution must be >= 1, got {resolution}")
    rows = _weights(images.shape[1], resolution)
    columns = _weights(images.shape[2], resolution)
    resized = np.einsum("ph,nhwc,qw->npqc", rows, images, columns, optimize=True)
    return np.ascontiguousarray(resized, dtype=np.float32)


def _weights(length: int, resolution: int) -> NDArray[np.float32]:
    """Return a matrix [resolution, length]: row o holds a hat around the place of output pixel o, with sum 1."""
    step = length / resolution
    centres = (np.arange(resolution) + 0.5) * step - 0.5
    distance = np.abs(np.arange(length) - centres[:, None]) / max(step, 1.0)
    hat = np.maximum(0.0, 1.0 - distance)
    weights = hat / hat.sum(axis=1, keepdims=True)
    return np.asarray(weights, dtype=np.float32)
