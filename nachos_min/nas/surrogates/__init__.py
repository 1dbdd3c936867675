"""Cheap models of an expensive evaluation: `surrogate.py` says what they offer, then a file an algorithm."""

from typing import Final

from nachos_min.nas.surrogates.gaussian_process import GaussianProcess
from nachos_min.nas.surrogates.mlp import MLP
from nachos_min.nas.surrogates.rbf import RBF
from nachos_min.nas.surrogates.regression_trees import RegressionTrees
from nachos_min.nas.surrogates.surrogate import Surrogate

# Switching chooses among the first three. From few points, cross-validation picks a worse process too often.
SURROGATES: Final[tuple[Surrogate, ...]] = (RBF(), RegressionTrees(), MLP())
BY_NAME: Final = {surrogate.name: surrogate for surrogate in (*SURROGATES, GaussianProcess())}
