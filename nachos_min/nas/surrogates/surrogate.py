"""What every surrogate offers, and how cross-validation chooses one of several (adaptive switching).

A surrogate stands in for training a network: from a few dozen evaluated genomes it predicts the error or the
average MACs of any other. A recipe (`Surrogate`) is fitted to points and gives a `Model`. Candidates are ranked by
its predictions, so it is judged by Kendall's tau, the pairs it puts in the right order, on points it has not seen.
Left out: the algorithms (one file each), mixtures of surrogates.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

FOLDS = 10  # the method's number
FOLD_SIZE = 4  # fewest points in a fold where there are enough: the tau of two points is only ever -1, 0 or 1


class Model(Protocol):
    """A fitted surrogate."""

    def predict(self, X: Floats) -> Floats:
        """Return the predicted values, float64 (m,), of X (m, genes), scaled as when the model was fitted."""
        ...


class Surrogate(ABC):
    """A recipe: which algorithm, with which settings."""

    name: ClassVar[str]

    @abstractmethod
    def fit_each(self, X: Floats, y: Floats, subsets: Bools, rng: np.random.Generator) -> Sequence[Model]:
        """Return one model per row of `subsets`, bool (fits, n), each fitted only to the points marked in its row.

        Points are X float64 (n, genes), numbers of order 1, constant and collinear columns allowed, and y (n,).
        Cross-validation fits almost the same points ten times; an algorithm may share the work.
        """

    def fit(self, X: Floats, y: Floats, rng: np.random.Generator) -> Model:
        """Return the model fitted to all points; arguments and errors as of `adaptive_switching`."""
        check_points(X, y)
        return self.fit_each(X, y, np.ones((1, len(y)), dtype=bool), rng)[0]


def check_points(X: Floats, y: Floats) -> None:
    """Raise ValueError unless X is (n >= 1, genes >= 1), y is (n,), and both are finite."""
    if X.ndim != 2 or 0 in X.shape:
        raise ValueError(f"X must be (n, genes) with n >= 1 and genes >= 1, got shape {X.shape}")
    if y.shape != X.shape[:1]:
        raise ValueError(f"y must have shape ({len(X)},), one value per row of X, got {y.shape}")
    for name, values in (("X", X), ("y", y)):
        if not np.isfinite(values).all():
            raise ValueError(f"{name} must be finite, got {values[~np.isfinite(values)][0]}")


def kendall_tau(a: Floats, b: Floats) -> float:
    """Return Kendall's tau-b of two paired samples (n,), in [-1, 1].

        tau_b = (concordant - discordant) / sqrt((pairs - ties in a) * (pairs - ties in b))

    It is 0 where it is undefined: when a sample is constant or has fewer than two values. `scipy.stats` has the
    same number, but importing it takes longer than fitting the surrogates.

    >>> kendall_tau(np.array([1.0, 2.0, 3.0]), np.array([10.0, 30.0, 20.0]))  # 2 pairs right, 1 wrong
    0.3333333333333333

    Source:
        M. G. Kendall, "The treatment of ties in ranking problems", Biometrika 33(3), 1945.
    """
    order_a = np.sign(a[:, None] - a)
    order_b = np.sign(b[:, None] - b)
    untied = math.sqrt(np.count_nonzero(order_a) * np.count_nonzero(order_b))
    return float(np.vdot(order_a, order_b)) / untied if untied else 0.0


def score(taus: Sequence[float]) -> float:
    """Return mean minus standard deviation of tau over the folds: the largest wins."""
    return float(np.mean(taus)) - float(np.std(taus))


@dataclass(frozen=True, eq=False)
class Switched:
    """The surrogate chosen: fitted to all points, its name, and the root mean square it missed out of fold.

    `taus` are of every surrogate in each fold, `out_of_fold` the predictions of the chosen one for points it had
    not seen.
    """

    model: Model
    name: str
    missed: float
    taus: Mapping[str, tuple[float, ...]]
    out_of_fold: Floats


def adaptive_switching(X: Floats, y: Floats, rng: np.random.Generator, surrogates: Sequence[Surrogate]) -> Switched:
    """Return the surrogate with the largest mean minus standard deviation of tau, fitted to all points.

    >>> from nachos_min.nas.aims import SURROGATES
    >>> rng = np.random.default_rng(0)
    >>> X = rng.integers(0, 3, (40, 5)) / 2
    >>> adaptive_switching(X, X @ np.array([3.0, 1.0, 0.5, 0.2, 0.1]), rng, SURROGATES).name
    'rbf'

    Args:
        X: float64 (n, genes), n >= 2.
        y: float64 (n,).
        rng: deals the points into folds and gives every surrogate its own stream.
        surrogates: those to choose from, with different names. Of equal scores the earlier wins.

    Raises:
        ValueError: fewer than two points, no surrogate or two of one name, other shapes, a value not finite.

    Source:
        Z. Lu et al., "NSGANetV2: evolutionary multi-objective surrogate-assisted neural architecture search",
        ECCV 2020 (the switching); NACHOS, arXiv 2401.13330 (mean minus deviation).
    """
    check_points(X, y)
    if len(y) < 2:
        raise ValueError(f"cross-validation needs at least 2 points, got {len(y)}")
    names = [surrogate.name for surrogate in surrogates]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"surrogates must be one or more with different names, got {names}")

    folds = deal_folds(len(y), rng)
    subsets = np.concatenate([~folds, np.ones((1, len(y)), dtype=bool)])  # the last fit is the one to keep
    found: list[Switched] = []
    taus: dict[str, tuple[float, ...]] = {}
    for surrogate, stream in zip(surrogates, rng.spawn(len(surrogates)), strict=True):
        *partial, model = surrogate.fit_each(X, y, subsets, stream)
        unseen = np.empty(len(y))
        for fold, blind in zip(folds, partial, strict=True):
            unseen[fold] = blind.predict(X[fold])
        taus[surrogate.name] = tuple(kendall_tau(unseen[fold], y[fold]) for fold in folds)
        missed = float(np.sqrt(np.mean((unseen - y) ** 2)))
        found.append(Switched(model, surrogate.name, missed, taus, unseen))
    return max(found, key=lambda each: score(taus[each.name]))


def deal_folds(n: int, rng: np.random.Generator) -> Bools:
    """Return bool (folds, n): each of n >= 2 points in one fold, fold sizes different by at most one.

    There are ten folds from 40 points on; with fewer points fewer, so that a fold keeps four, but at least two.
    """
    count = min(FOLDS, max(2, n // FOLD_SIZE))
    fold_of = rng.permutation(n) % count
    return np.asarray(fold_of == np.arange(count)[:, None])
