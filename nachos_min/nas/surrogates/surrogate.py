"""What every surrogate offers: a recipe that is fitted to points, and the fitted model that predicts.

A surrogate stands in for training a network: from a few dozen evaluated genomes it guesses the error or the
average MACs of any other. Recipe and model are two frozen objects, so that nothing is half-fitted.

Read nothing before this. Left out: the algorithms (one file each) and the choice among them (switching.py).
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


class Model(Protocol):
    """A fitted surrogate."""

    def predict(self, X: Floats) -> Floats:
        """Return the predicted values.

        Args:
            X: float64 (m, genes), genes scaled as they were when the model was fitted.

        Returns:
            float64 (m,).

        Raises:
            ValueError: X is not a table with the number of genes the model was fitted on.
        """
        ...


class Surrogate(ABC):
    """A recipe: which algorithm, with which settings."""

    name: ClassVar[str]

    @abstractmethod
    def fit_each(self, X: Floats, y: Floats, subsets: Bools, rng: np.random.Generator) -> Sequence[Model]:
        """Return one model per row of `subsets`, each fitted only to the points marked in its row.

        Cross-validation needs ten fits to almost the same points. Asking for all of them at once lets an
        algorithm share the work (mlp.py trains all its networks side by side).

        Args:
            X: float64 (n, genes), every gene scaled to [0, 1]; constant and collinear columns are welcome.
            y: float64 (n,), finite.
            subsets: bool (fits, n), at least one True in each row.
            rng: the only source of randomness.

        Returns:
            `fits` models, in the order of the rows.
        """

    def fit(self, X: Floats, y: Floats, rng: np.random.Generator) -> Model:
        """Return the model fitted to all points.

        Args:
            X: float64 (n, genes), every gene scaled to [0, 1].
            y: float64 (n,).
            rng: the only source of randomness.

        Returns:
            The fitted model.

        Raises:
            ValueError: X is not a table with at least one row and one column, y does not have one value per
                row, or either holds a value that is not finite.
        """
        check_points(X, y)
        return self.fit_each(X, y, np.ones((1, len(y)), dtype=bool), rng)[0]


def check_points(X: Floats, y: Floats) -> None:
    """Check that X and y can be fitted.

    Args:
        X: float64 (n, genes).
        y: float64 (n,).

    Raises:
        ValueError: X is not a table with at least one row and one column, y does not have one value per row,
            or either holds a value that is not finite.
    """
    if X.ndim != 2 or 0 in X.shape:
        raise ValueError(f"X must be (n, genes) with n >= 1 and genes >= 1, got shape {X.shape}")
    if y.shape != X.shape[:1]:
        raise ValueError(f"y must have shape ({len(X)},), one value per row of X, got {y.shape}")
    for name, values in (("X", X), ("y", y)):
        bad = np.argwhere(~np.isfinite(values))
        if len(bad):
            where = tuple(int(i) for i in bad[0])
            raise ValueError(f"{name} must be finite, got {values[where]} at index {where}")


def check_genes(X: Floats, genes: int) -> None:
    """Check that X can be predicted by a model fitted on so many genes.

    Args:
        X: float64 (m, genes).
        genes: number of columns the model was fitted on.

    Raises:
        ValueError: X is not a table with `genes` columns.
    """
    if X.ndim != 2 or X.shape[1] != genes:
        raise ValueError(f"X must be (m, {genes}), the genes the model was fitted on, got shape {X.shape}")
