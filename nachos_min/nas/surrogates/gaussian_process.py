"""A Gaussian process with noise: a smooth mean, once it is known how much of the values is chance.

    y(x) = mean + f(x) + noise,    f ~ GP(0, signal k)
    k(a, b) = (1 + r + r^2 / 3) exp(-r),    r = sqrt(5) |a - b| / length

Two trainings of one network differ. A surface through all points follows that noise; here the likelihood of the
points decides how much of them is noise. Left out: a length for each gene.
"""

from dataclasses import dataclass
from math import log, pi
from typing import ClassVar

import numpy as np
from scipy import linalg
from scipy.optimize import minimize

from nachos_min.nas.surrogates.surrogate import Bools, Floats, Surrogate

# Normal priors of two logarithms: the length in root mean square distances of the points, the noise in signals.
# They are wide: they decide where the points are few.
CENTRE, WIDTH = np.array([0.5, -1.0]), np.array([1.0, 2.0])
BOUNDS = ((-2.5, 4.5), (-9.0, 5.0))  # beyond them k is the identity or constant, or A is singular


@dataclass(frozen=True)
class GaussianProcessModel:
    """A fitted process; `signal` and `noise` are variances, in squares of the unit of y.

    The points are (n, genes); weights = A^-1 (y - mean), (n,), with A = k + noise / signal.
    """

    points: Floats
    length: float
    mean: float
    signal: float
    noise: float
    weights: Floats

    def predict(self, X: Floats) -> Floats:
        """Return the mean of y for every row of X (m, genes): float64 (m,)."""
        return np.asarray(self.mean + matern(squares(X, self.points) / self.length**2) @ self.weights)


@dataclass(frozen=True)
class GaussianProcess(Surrogate):
    """The recipe; it has no settings."""

    name: ClassVar[str] = "gp"

    def fit_each(
        self, X: Floats, y: Floats, subsets: Bools, rng: np.random.Generator
    ) -> list[GaussianProcessModel]:
        """Return one process per row of `subsets`."""
        del rng  # the maximum is sought from the centre of the priors
        return [most_probable(X[subset], y[subset]) for subset in subsets]


def most_probable(X: Floats, y: Floats) -> GaussianProcessModel:
    """Return the process of the most probable length, noise and signal, given the points X (n, genes), y (n,).

    Where all y are equal it predicts them.

    Source:
        C. E. Rasmussen, C. K. I. Williams, "Gaussian Processes for Machine Learning", 2006, chapter 5.
    """
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
    """Return the process of known length (in the unit of X) and noise (in signals), with the most likely signal.

    Source:
        Rasmussen and Williams, chapter 2, algorithm 2.1.
    """
    mean = float(y.mean())
    factor = covariance_factor(squares(X, X) / length**2, noise)
    weights = linalg.cho_solve((factor, True), y - mean)
    signal = float((y - mean) @ weights) / len(y)
    return GaussianProcessModel(X, length, mean, signal, signal * noise, weights)


def log_likelihood(distances: Floats, z: Floats, hyper: Floats) -> tuple[float, Floats]:
    """Return the logarithm of the marginal likelihood under the most likely signal, and its gradient (2,).

        log p(z) = -1/2 (n log(2 pi signal) + log |A| + n),    A = k + noise,    signal = z^T A^-1 z / n
        d log p  =  1/2 trace((a a^T / signal - A^-1) dA),     a = A^-1 z

    The signal adds nothing to the gradient, since it is at its maximum. Given are squared distances of the points
    (n, n), z (n,) not all 0, of mean 0, and `hyper`, the logarithms of the length and of the noise in signals.
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
