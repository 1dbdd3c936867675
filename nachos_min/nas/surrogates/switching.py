"""Adaptive switching: let cross-validation decide, at every iteration, which surrogate to trust.

No surrogate is best for every data set and every archive size. The points are dealt into folds; every
surrogate predicts each fold from the other folds; the one whose order of the unseen points agrees best *and
most steadily* with the truth is fitted again to all points. Read surrogate.py and kendall.py first.

Left out: mixing surrogates.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, final

import numpy as np

from nachos_min.nas.surrogates.gaussian_process import GaussianProcess
from nachos_min.nas.surrogates.kendall import kendall_tau
from nachos_min.nas.surrogates.mlp import MLP
from nachos_min.nas.surrogates.rbf import RBF
from nachos_min.nas.surrogates.regression_trees import RegressionTrees
from nachos_min.nas.surrogates.surrogate import Bools, Floats, Model, Surrogate, check_points

SURROGATES: Final[tuple[Surrogate, ...]] = (RBF(), RegressionTrees(), MLP())
# The process is chosen by name only: from few points, cross-validation picks a worse one too often.
BY_NAME: Final = {surrogate.name: surrogate for surrogate in (*SURROGATES, GaussianProcess())}
FOLDS = 10  # the method's number
FOLD_SIZE = 4  # fewest points in a fold where there are enough: the tau of two points is only ever -1, 0 or 1


@final
@dataclass(frozen=True)
class FoldScores:
    """How well one surrogate ordered the points it had not seen.

    Attributes:
        taus: Kendall's tau within each fold, in [-1, 1]; 0 where predictions or values are all equal.
    """

    taus: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Return the mean tau over the folds."""
        return float(np.mean(self.taus))

    @property
    def deviation(self) -> float:
        """Return the standard deviation of tau over the folds (divisor: number of folds)."""
        return float(np.std(self.taus))

    @property
    def score(self) -> float:
        """Return mean - deviation: the tau that can be counted on. The largest wins."""
        return self.mean - self.deviation


@final
@dataclass(frozen=True, eq=False)
class Switched:
    """The winner.

    Attributes:
        model: the winner, fitted to all points.
        name: its name.
        scores: every surrogate's scores by name, in the order they were tried.
        out_of_fold: float64 (n,): for each point, the winner's prediction while it had not seen that point.
        missed: root mean square of what these predictions missed.
    """

    model: Model
    name: str
    scores: Mapping[str, FoldScores]
    out_of_fold: Floats
    missed: float


def adaptive_switching(
    X: Floats, y: Floats, rng: np.random.Generator, surrogates: Sequence[Surrogate] = SURROGATES
) -> Switched:
    """Return the surrogate with the largest mean minus standard deviation of tau, fitted to all points.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> X = rng.integers(0, 3, (40, 5)) / 2
    >>> adaptive_switching(X, X @ np.array([3.0, 1.0, 0.5, 0.2, 0.1]), rng).name
    'rbf'

    Args:
        X: float64 (n, genes), every gene scaled to [0, 1], n >= 2.
        y: float64 (n,).
        rng: deals the points into folds and gives every surrogate its own stream. Equal generators give equal
            results.
        surrogates: those to choose from, with different names. Of equal scores the earlier wins (when y is
            constant, all score 0).

    Returns:
        The winner, everybody's scores, and the winner's out-of-fold predictions.

    Raises:
        ValueError: fewer than two points, no surrogate, two of the same name, X is not a table, y does not
            have one value per row, or a value is not finite.

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
    everything = np.ones((1, len(y)), dtype=bool)
    subsets = np.concatenate([~folds, everything])  # the last fit is the one to keep
    models: dict[str, Model] = {}
    scores: dict[str, FoldScores] = {}
    out_of_fold: dict[str, Floats] = {}
    for surrogate, stream in zip(surrogates, rng.spawn(len(surrogates)), strict=True):
        *partial, models[surrogate.name] = surrogate.fit_each(X, y, subsets, stream)
        unseen = np.empty(len(y))
        for fold, model in zip(folds, partial, strict=True):
            unseen[fold] = model.predict(X[fold])
        out_of_fold[surrogate.name] = unseen
        scores[surrogate.name] = FoldScores(tuple(kendall_tau(unseen[fold], y[fold]) for fold in folds))
    winner = max(names, key=lambda name: scores[name].score)
    missed = float(np.sqrt(np.mean((out_of_fold[winner] - y) ** 2)))
    return Switched(models[winner], winner, scores, out_of_fold[winner], missed)


def deal_folds(n: int, rng: np.random.Generator) -> Bools:
    """Return bool (folds, n): each point in exactly one fold, fold sizes different by at most one.

    Args:
        n: number of points, >= 2.
        rng: shuffles them.

    Returns:
        Ten folds from 40 points on; with fewer points fewer folds, so that a fold keeps four points to order,
        but never fewer than two.
    """
    count = min(FOLDS, max(2, n // FOLD_SIZE))
    fold_of = rng.permutation(n) % count
    return np.asarray(fold_of == np.arange(count)[:, None])
