"""What every surrogate offers, and how cross-validation chooses one of several (adaptive switching).

A surrogate stands in for training a network: from a few dozen evaluated genomes it predicts the error or the
average MACs of any other. Predictions rank candidates, so Kendall's tau on points it has not seen judges it.
Left out: the algorithms (the other files), mixtures of surrogates.
"""

import math
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


class Surrogate:
    """An algorithm and its settings. It defines `fit`, or `fit_each` where fits share work.

    Points are X float64 (n, genes), numbers of order 1, and y (n,). Columns may be constant or collinear.
    """

    name: ClassVar[str]

    def fit(self, X: Floats, y: Floats, rng: np.random.Generator) -> Model:
        """Return the model of all points."""
        return self.fit_each(X, y, np.ones((1, len(y)), dtype=bool), rng)[0]

    def fit_each(self, X: Floats, y: Floats, subsets: Bools, rng: np.random.Generator) -> Sequence[Model]:
        """Return a model of the marked points for each row of `subsets`, bool (fits, n)."""
        return [self.fit(X[subset], y[subset], rng) for subset in subsets]


def kendall_tau(a: Floats, b: Floats) -> float:
    """Return Kendall's tau-b of two paired samples (n,), in [-1, 1].

        tau_b = (concordant - discordant) / sqrt((pairs - ties in a) * (pairs - ties in b))

    It is 0 where it is undefined: when a sample is constant or has fewer than two values.

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
    """The surrogate chosen."""

    model: Model  # fitted to all points
    name: str
    missed: float  # root mean square out of fold
    taus: Mapping[str, tuple[float, ...]]  # of every surrogate, in each fold
    out_of_fold: Floats  # predictions of the chosen one for points it had not seen


def adaptive_switching(X: Floats, y: Floats, rng: np.random.Generator, surrogates: Sequence[Surrogate]) -> Switched:
    """Return the surrogate with the largest mean minus standard deviation of tau, fitted to all points.

    >>> from nachos_min.nas.aims import SURROGATES
    >>> rng = np.random.default_rng(0)
    >>> X = rng.integers(0, 3, (40, 5)) / 2
    >>> adaptive_switching(X, X @ np.array([3.0, 1.0, 0.5, 0.2, 0.1]), rng, SURROGATES).name
    'rbf'

    X is float64 (n, genes), y (n,). `rng` deals the points into folds and gives every surrogate its own stream. Of
    equal scores the earlier wins.

    Raises:
        ValueError: fewer than two points, a value not finite, other shapes, no surrogate or two of one name.

    Source:
        Z. Lu et al., "NSGANetV2: evolutionary multi-objective surrogate-assisted neural architecture search",
        ECCV 2020 (the switching); NACHOS, arXiv 2401.13330 (mean minus deviation).
    """
    if X.ndim != 2 or 0 in X.shape or y.shape != X.shape[:1] or len(y) < 2 or not np.isfinite(np.c_[X, y]).all():
        rule = "points must be finite, X (n, genes) and y (n,) with n >= 2 and genes >= 1"
        raise ValueError(f"{rule}, got shapes {X.shape} and {y.shape}")
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
    """Return bool (folds, n): each of n >= 2 points in one of ten folds; two or more of four points if n < 40."""
    count = min(FOLDS, max(2, n // FOLD_SIZE))
    fold_of = rng.permutation(n) % count
    return np.asarray(fold_of == np.arange(count)[:, None])
