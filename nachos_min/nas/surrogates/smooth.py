"""Smooth surrogates, functions of distances between points: a radial basis function and a Gaussian process.

A cubic radial basis function with a linear tail is the smooth surface through all points:

    s(x) = sum_i lambda_i |x - x_i|^3  +  c_0 + c . x        with  sum_i lambda_i = 0,  sum_i lambda_i x_i = 0

A Gaussian process is the smooth mean of values that vary by chance, as two trainings of one network do. The
likelihood of the points decides how much of their values is noise:

    y(x) = mean + f(x) + noise,    f ~ GP(0, signal k)
    k(a, b) = (1 + r + r^2 / 3) exp(-r),    r = sqrt(5) |a - b| / length

Left out: a length for each gene.
"""

from dataclasses import dataclass
from math import log, pi
from typing import ClassVar

import numpy as np
from scipy import linalg
from scipy.optimize import minimize

from nachos_min.nas.surrogates.surrogate import Floats, Surrogate

RIDGE = 1e-12  # relative to the trace: far above rounding (1e-16 n), so that Cholesky cannot fail on close points

# Wide normal priors of two logarithms, which decide where the points are few: the length in root mean square
# distances of the points, and the noise in signals.
CENTRE, WIDTH = np.array([0.5, -1.0]), np.array([1.0, 2.0])
BOUNDS = ((-2.5, 4.5), (-9.0, 5.0))  # beyond them k is the identity or constant, or A is singular


@dataclass(frozen=True)
class RBFModel:
    """A fitted surface in rotated coordinates of dimension r <= genes."""

    origin: Floats  # (genes,) mean of the points
    basis: Floats  # (genes, r) orthonormal directions in which the points differ
    centres: Floats  # (n, r) the points
    weights: Floats  # (n,) lambda
    tail: Floats  # (1 + r,) c_0 and c

    def predict(self, X: Floats) -> Floats:
        """Return s(x), (m,), at X (m, genes)."""
        Z = (X - self.origin) @ self.basis
        return _cubes(Z, self.centres) @ self.weights + _with_one(Z) @ self.tail


@dataclass(frozen=True)
class RBF(Surrogate):
    """The surface through all points; through their mean where points coincide.

    Points may be fewer than genes, and genes constant or copies of others. So the points are rotated into an
    orthonormal basis of the directions in which they differ: distances stay, and the tail has full rank.

    With Phi_ij = |x_i - x_j|^3 and P the rows (1, x_i), the unknowns solve

        Phi lambda + P c = y,    P^T lambda = 0.

    Let P = [Q1 Q2] [R; 0] be its QR decomposition: the lambda with P^T lambda = 0 are exactly the Q2 a. The
    equation Q2^T Phi Q2 a = Q2^T y remains. Its matrix is positive definite, since the cube is conditionally
    positive definite of order 2. Then R c = Q1^T (y - Phi lambda).

    Source:
        H. Wendland, "Scattered Data Approximation", 2005, chapter 8. Rotation, null space, merging: derived here.
    """

    name: ClassVar[str] = "rbf"

    def fit(self, X: Floats, y: Floats, rng: np.random.Generator) -> RBFModel:
        """Return the surface through the points."""
        del rng  # interpolation has no choice to make
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
    """Return |a - b|^3, (len(A), len(B))."""
    return np.asarray(squares(A, B) ** 1.5)


def _with_one(Z: Floats) -> Floats:
    """Return the rows (1, z)."""
    return np.asarray(np.column_stack([np.ones(len(Z)), Z]))


@dataclass(frozen=True)
class GaussianProcessModel:
    """A fitted process; `signal` and `noise` are variances, in squares of the unit of y."""

    points: Floats  # (n, genes)
    length: float
    mean: float
    signal: float
    noise: float
    weights: Floats  # A^-1 (y - mean), (n,), with A = k + noise / signal

    def predict(self, X: Floats) -> Floats:
        """Return the mean of y, (m,), at X (m, genes)."""
        return np.asarray(self.mean + matern(squares(X, self.points) / self.length**2) @ self.weights)


@dataclass(frozen=True)
class GaussianProcess(Surrogate):
    """The process of the most probable length, noise and signal.

    Source:
        C. E. Rasmussen, C. K. I. Williams, "Gaussian Processes for Machine Learning", 2006, chapter 5.
    """

    name: ClassVar[str] = "gp"

    def fit(self, X: Floats, y: Floats, rng: np.random.Generator) -> GaussianProcessModel:
        """Return the process of the points; of equal y it predicts their value."""
        del rng  # the search for the maximum starts at the centre of the priors
        distances = squares(X, X)
        unit = float(np.sqrt(distances.mean())) or 1.0
        z = y - y.mean()
        if z.std() <= 1e-12 * abs(y.mean()):  # equal values, and rounding
            return GaussianProcessModel(X, unit, float(y.mean()), 0.0, 0.0, np.zeros(len(y)))

        def cost(hyper: Floats) -> tuple[float, Floats]:
            value, slope = log_likelihood(distances / unit**2, z / z.std(), hyper)
            away = (hyper - CENTRE) / WIDTH
            return float(away @ away) / 2 - value, away / WIDTH - slope

        length, noise = np.exp(minimize(cost, CENTRE, jac=True, method="L-BFGS-B", bounds=BOUNDS).x)
        return conditioned(X, y, unit * float(length), float(noise))


def conditioned(X: Floats, y: Floats, length: float, noise: float) -> GaussianProcessModel:
    """Return the process of a length (in the unit of X), a noise (in signals) and the most likely signal."""
    mean = float(y.mean())
    factor = covariance_factor(squares(X, X) / length**2, noise)
    weights = linalg.cho_solve((factor, True), y - mean)
    signal = float((y - mean) @ weights) / len(y)
    return GaussianProcessModel(X, length, mean, signal, signal * noise, weights)


def log_likelihood(distances: Floats, z: Floats, hyper: Floats) -> tuple[float, Floats]:
    """Return the logarithm of the marginal likelihood under the most likely signal, and its gradient (2,).

        log p(z) = -1/2 (n log(2 pi signal) + log |A| + n),    A = k + noise,    signal = z^T A^-1 z / n
        d log p  =  1/2 trace((a a^T / signal - A^-1) dA),     a = A^-1 z

    The signal is at its maximum and adds nothing to the gradient. `distances` (n, n) are squared, z (n,) has mean 0
    and is not all 0, and `hyper` are the logarithms of the length and of the noise in signals.
    """
    length, noise = np.exp(hyper)
    scaled = distances / length**2
    factor = covariance_factor(scaled, noise)
    inverse = linalg.cho_solve((factor, True), np.eye(len(z)))
    a = inverse @ z
    signal = float(z @ a) / len(z)
    value = -(len(z) * (log(2 * pi * signal) + 1) / 2 + float(np.log(factor.diagonal()).sum()))
    pull = (np.outer(a, a) / signal - inverse) / 2
    r = np.sqrt(5 * scaled)
    slope = r * r * (1 + r) / 3 * np.exp(-r)  # of k along the logarithm of the length
    return value, np.array([np.vdot(pull, slope), noise * np.trace(pull)])


def covariance_factor(scaled: Floats, noise: float) -> Floats:
    """Return the lower Cholesky factor of A = k + noise, for squared distances in lengths (n, n)."""
    covariance = matern(scaled)
    covariance[np.diag_indices_from(covariance)] += noise
    return np.asarray(linalg.cholesky(covariance, lower=True))


def matern(scaled: Floats) -> Floats:
    """Return the Matern 5/2 kernel k of squared distances in lengths."""
    r = np.sqrt(5 * scaled)
    return np.asarray((1 + r + r * r / 3) * np.exp(-r))


def squares(A: Floats, B: Floats) -> Floats:
    """Return |a - b|^2 by |a|^2 + |b|^2 - 2 a.b, (len(A), len(B))."""
    return np.asarray(np.maximum((A * A).sum(axis=1)[:, None] + (B * B).sum(axis=1) - 2 * A @ B.T, 0))
