"""The hypervolume of a front: one number that grows when the front gets better anywhere.

It is the area (two objectives) or the volume (three) between the front and a reference point. Left out: more.
"""

from fractions import Fraction

import numpy as np
import numpy.typing as npt

from nachos_min.errors import InputError


def hypervolume(F: npt.ArrayLike, reference: npt.ArrayLike) -> float:
    """Return the area or volume that the points of F dominate below the reference point.

    Dominated points, points not better than the reference in every objective, and points with a NaN add nothing.

    Args:
        F: float[n, M], M = 2 or 3 objectives, minimised.
        reference: float[M], finite.

    Raises:
        InputError: the reference is not 2 or 3 finite numbers, or F does not have that many columns.

    Source:
        Zitzler, Thiele 1998, "Multiobjective optimization using evolutionary algorithms". Derived here: the volume
        is the sum, over points sorted by f3, of the area of all points so far times the step to the next f3.

    >>> hypervolume([[0.0, 1.0], [1.0, 0.0]], [2.0, 2.0])
    3.0
    >>> hypervolume([[0.0, 0.0, 1.0], [1.0, 1.0, 0.0]], [2.0, 2.0, 2.0])
    5.0
    """
    corner = np.asarray(reference, dtype=np.float64)
    if corner.shape not in ((2,), (3,)) or not np.isfinite(corner).all():
        raise InputError(f"reference must be 2 or 3 finite numbers, got {reference!r}")
    points = np.asarray(F, dtype=np.float64)
    if points.size == 0:
        return 0.0
    if points.ndim != 2 or points.shape[1] != len(corner):
        raise InputError(f"F must have shape (n, {len(corner)}) as the reference has, got {points.shape}")
    points = points[(points < corner).all(axis=1)]
    if len(corner) == 2:
        return _area(points, corner)

    points = points[np.argsort(points[:, 2])]
    tops = np.append(points[1:, 2], corner[2])  # of slabs: the next point's f3
    volume = 0.0
    for met, (height, top) in enumerate(zip(points[:, 2], tops, strict=False), start=1):
        if top > height:
            volume += _area(points[:met, :2], corner[:2]) * float(top - height)
    return volume


def _area(points: npt.NDArray[np.float64], corner: npt.NDArray[np.float64]) -> float:
    """Return the dominated area of points in any order: each that lowers the best f2 so far adds one strip."""
    right, best = corner.tolist()
    area = 0.0
    for f1, f2 in points[np.argsort(points[:, 0])].tolist():
        if f2 < best:
            # Rounded once, as a fused multiply-add rounds it: a compiler may fuse or not, so bits would differ.
            area = float(Fraction(right - f1) * Fraction(best - f2) + Fraction(area))
            best = f2
    return area
