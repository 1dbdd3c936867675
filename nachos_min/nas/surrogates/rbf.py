"""A cubic radial basis function with a linear tail: the smooth surface through all known points.

    s(x) = sum_i lambda_i |x - x_i|^3  +  c_0 + c . x        with  sum_i lambda_i = 0,  sum_i lambda_i x_i = 0

The tail carries the trend, the cubes carry what bends; the side conditions keep the cubes from imitating a trend,
which makes the solution unique. Genomes may be fewer than genes, and genes constant or copies of others:

- The points are rotated into an orthonormal basis of the directions in which they differ. This changes no distance,
  and the tail has full rank there. Directions in which the points do not differ get no slope.
- Points that coincide are merged into one, with the mean of their values.

Left out: other kernels and smoothing. All known values are met, noise included.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from scipy import linalg

from nachos_min.nas.surrogates.surrogate import Bools, Floats, Surrogate

RIDGE = 1e-12  # relative to the trace: far above rounding (1e-16 n), so that Cholesky cannot fail on close points


@dataclass(frozen=True)
class RBFModel:
    """A fitted surface; everything but `origin` is in rotated coordinates of dimension r <= genes."""

    origin: Floats  # (genes,) mean of the points
    basis: Floats  # (genes, r) orthonormal directions in which the points differ
    centres: Floats  # (n, r) the points
    weights: Floats  # (n,) lambda
    tail: Floats  # (1 + r,) c_0 and c

    def predict(self, X: Floats) -> Floats:
        """Return s(x) for every row of X (m, genes): float64 (m,)."""
        Z = (X - self.origin) @ self.basis
        return _cubes(Z, self.centres) @ self.weights + _with_one(Z) @ self.tail


@dataclass(frozen=True)
class RBF(Surrogate):
    """The recipe; it has no settings."""

    name: ClassVar[str] = "rbf"

    def fit_each(self, X: Floats, y: Floats, subsets: Bools, rng: np.random.Generator) -> list[RBFModel]:
        """Return one surface per row of `subsets`."""
        del rng  # interpolation has no choice to make
        return [interpolate(X[subset], y[subset]) for subset in subsets]


def interpolate(X: Floats, y: Floats) -> RBFModel:
    """Return the surface through the points X (n, genes), y (n,); the mean where points coincide.

    With Phi_ij = |x_i - x_j|^3 and P the rows (1, x_i), the unknowns solve

        Phi lambda + P c = y,    P^T lambda = 0.

    Let P = [Q1 Q2] [R; 0] be its QR decomposition: the lambda with P^T lambda = 0 are exactly the Q2 a. What
    remains is Q2^T Phi Q2 a = Q2^T y. Its matrix is positive definite, since the cube is conditionally positive
    definite of order 2, so Cholesky solves it; then R c = Q1^T (y - Phi lambda).

    Source:
        H. Wendland, "Scattered Data Approximation", 2005, chapter 8. Rotation, null space, merging: derived here.
    """
    X, group = np.unique(X, axis=0, return_inverse=True)
    y = np.bincount(group, weights=y) / np.bincount(group)
    origin = X.mean(axis=0)
    _, size, directions = linalg.svd(X - origin, full_matrices=False)
    basis = np.asarray(directions[size > 1e-9 * max(size[0], 1.0)].T)  # genes are of order 1: less is rounding
    Z = (X - origin) @ basis
    cubes, P = _cubes(Z, Z), _with_one(Z)
    columns = P.shape[1]
    Q, R = linalg.qr(P)
    Q1, Q2 = Q[:, :columns], Q[:, columns:]
    weights = np.zeros(len(y))
    if Q2.shape[1]:
        A = Q2.T @ cubes @ Q2
        A[np.diag_indices_from(A)] += RIDGE * np.trace(A)
        weights = Q2 @ linalg.cho_solve(linalg.cho_factor(A), Q2.T @ y)
    tail = linalg.solve_triangular(R[:columns], Q1.T @ (y - cubes @ weights))
    return RBFModel(origin, basis, Z, weights, tail)


def _cubes(A: Floats, B: Floats) -> Floats:
    """Return (len(A), len(B)): |a - b|^3, distances by |a|^2 + |b|^2 - 2 a.b (one matrix product)."""
    squares = (A * A).sum(axis=1)[:, None] + (B * B).sum(axis=1) - 2 * A @ B.T
    return np.asarray(np.maximum(squares, 0) ** 1.5)


def _with_one(Z: Floats) -> Floats:
    """Return the rows (1, z)."""
    return np.asarray(np.column_stack([np.ones(len(Z)), Z]))
