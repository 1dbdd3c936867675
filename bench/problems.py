"""Standard test problems for multi-objective optimisation, by their published formulas.

Each `Problem` carries its bounds, `evaluate(X) -> (F, G)` with G <= 0 feasible, the reference point its
hypervolume is measured from, and the hypervolume that the median of ten runs should reach with 100 genomes and
250 generations. Used by `bench_nsga2.py` and by the tests; NumPy only.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Problem:
    """One problem: `evaluate` takes X float[n, V], V = len(lower), and gives F float[n, M], G float[n, K]."""

    name: str
    lower: tuple[float, ...]
    upper: tuple[float, ...]
    constraints: int
    evaluate: Callable[[Floats], tuple[Floats, Floats]]
    reference: tuple[float, ...]
    target: float


def _free(*objectives: Floats) -> tuple[Floats, Floats]:
    """Return (F, G) of a problem without constraints."""
    return np.column_stack(objectives), np.empty((len(objectives[0]), 0))


# ZDT1 to ZDT6. Source: Zitzler, Deb, Thiele 2000, "Comparison of multiobjective evolutionary algorithms", sec. 4.


def zdt1(X: Floats) -> tuple[Floats, Floats]:
    """Convex front f2 = 1 - sqrt(f1)."""
    f1, g = X[:, 0], 1 + 9 * X[:, 1:].mean(axis=1)
    return _free(f1, g * (1 - np.sqrt(f1 / g)))


def zdt2(X: Floats) -> tuple[Floats, Floats]:
    """Concave front f2 = 1 - f1**2."""
    f1, g = X[:, 0], 1 + 9 * X[:, 1:].mean(axis=1)
    return _free(f1, g * (1 - (f1 / g) ** 2))


def zdt3(X: Floats) -> tuple[Floats, Floats]:
    """A front in five pieces."""
    f1, g = X[:, 0], 1 + 9 * X[:, 1:].mean(axis=1)
    return _free(f1, g * (1 - np.sqrt(f1 / g) - f1 / g * np.sin(10 * np.pi * f1)))


def zdt4(X: Floats) -> tuple[Floats, Floats]:
    """The front of ZDT1 behind 21**9 local ones."""
    f1, rest = X[:, 0], X[:, 1:]
    g = 1 + (10 + rest**2 - 10 * np.cos(4 * np.pi * rest)).sum(axis=1)
    return _free(f1, g * (1 - np.sqrt(f1 / g)))


def zdt6(X: Floats) -> tuple[Floats, Floats]:
    """A concave front on which random points are spread unevenly."""
    f1 = 1 - np.exp(-4 * X[:, 0]) * np.sin(6 * np.pi * X[:, 0]) ** 6
    g = 1 + 9 * X[:, 1:].mean(axis=1) ** 0.25
    return _free(f1, g * (1 - (f1 / g) ** 2))


def dtlz2(X: Floats) -> tuple[Floats, Floats]:
    """An eighth of the unit sphere, three objectives.

    Source: Deb, Thiele, Laumanns, Zitzler 2005, "Scalable test problems", sec. 6.7.2 (k = 10).
    """
    a, b = X[:, 0] * np.pi / 2, X[:, 1] * np.pi / 2
    radius = 1 + ((X[:, 2:] - 0.5) ** 2).sum(axis=1)
    return _free(radius * np.cos(a) * np.cos(b), radius * np.cos(a) * np.sin(b), radius * np.sin(a))


def bnh(X: Floats) -> tuple[Floats, Floats]:
    """Source: Binh, Korn 1997, "MOBES"; constraints scaled by their right-hand sides, 25 and 7.7."""
    x, y = X.T
    F = np.column_stack([4 * x**2 + 4 * y**2, (x - 5) ** 2 + (y - 5) ** 2])
    return F, np.column_stack([((x - 5) ** 2 + y**2 - 25) / 25, (7.7 - (x - 8) ** 2 - (y + 3) ** 2) / 7.7])


def srn(X: Floats) -> tuple[Floats, Floats]:
    """Source: Srinivas, Deb 1994, "Multiobjective optimization using nondominated sorting", as in Deb 2001."""
    x, y = X.T
    F = np.column_stack([2 + (x - 2) ** 2 + (y - 1) ** 2, 9 * x - (y - 1) ** 2])
    return F, np.column_stack([x**2 + y**2 - 225, x - 3 * y + 10])


def tnk(X: Floats) -> tuple[Floats, Floats]:
    """Source: Tanaka, Watanabe, Furukawa, Tanino 1995; the front lies on a wavy constraint boundary."""
    x, y = X.T
    wave = 1 + 0.1 * np.cos(16 * np.arctan2(x, y))
    return X.copy(), np.column_stack([wave - x**2 - y**2, 2 * ((x - 0.5) ** 2 + (y - 0.5) ** 2) - 1])


def osy(X: Floats) -> tuple[Floats, Floats]:
    """Source: Osyczka, Kundu 1995; the front has five parts, each on other constraints. Scaled as in Deb 2001."""
    a, b, c, d, e, f = X.T
    f1 = -(25 * (a - 2) ** 2 + (b - 2) ** 2 + (c - 1) ** 2 + (d - 4) ** 2 + (e - 1) ** 2)
    G = np.column_stack(
        [
            (2 - a - b) / 2,
            (a + b - 6) / 6,
            (b - a - 2) / 2,
            (a - 3 * b - 2) / 2,
            ((c - 3) ** 2 + d - 4) / 4,
            (4 - (e - 3) ** 2 - f) / 4,
        ]
    )
    return np.column_stack([f1, (X**2).sum(axis=1)]), G


_ZERO_TO_ONE_30 = ((0.0,) * 30, (1.0,) * 30)
_ZERO_TO_ONE_12 = ((0.0,) * 12, (1.0,) * 12)
_ZERO_TO_ONE_10 = ((0.0,) * 10, (1.0,) * 10)

PROBLEMS = (
    Problem("ZDT1", *_ZERO_TO_ONE_30, 0, zdt1, (1, 1), 0.6599),
    Problem("ZDT2", *_ZERO_TO_ONE_30, 0, zdt2, (1, 1), 0.3265),
    Problem("ZDT3", *_ZERO_TO_ONE_30, 0, zdt3, (1, 1), 1.0404),
    Problem("ZDT4", (0.0,) + (-5.0,) * 9, (1.0,) + (5.0,) * 9, 0, zdt4, (1, 1), 0.655),
    Problem("ZDT6", *_ZERO_TO_ONE_10, 0, zdt6, (1, 1), 0.3144),
    Problem("BNH", (0, 0), (5, 3), 2, bnh, (140, 50), 5252.8),
    Problem("SRN", (-20, -20), (20, 20), 2, srn, (250, 50), 42330),
    Problem("TNK", (0, 1e-30), (np.pi, np.pi), 2, tnk, (1.2, 1.2), 0.6511),
    Problem("OSY", (0, 0, 1, 0, 1, 0), (10, 10, 5, 6, 5, 10), 6, osy, (0, 80), 16501),
    Problem("DTLZ2", *_ZERO_TO_ONE_12, 0, dtlz2, (1.1, 1.1, 1.1), 0.705),
)
