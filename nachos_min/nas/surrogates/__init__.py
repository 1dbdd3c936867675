"""Cheap models of an expensive evaluation: read surrogate.py, an algorithm per file, then switching.py."""

from nachos_min.nas.surrogates.gaussian_process import GaussianProcess
from nachos_min.nas.surrogates.kendall import kendall_tau
from nachos_min.nas.surrogates.mlp import MLP
from nachos_min.nas.surrogates.rbf import RBF
from nachos_min.nas.surrogates.regression_trees import RegressionTrees
from nachos_min.nas.surrogates.surrogate import Model, Surrogate
from nachos_min.nas.surrogates.switching import SURROGATES, FoldScores, Switched, adaptive_switching

__all__ = [
    "MLP",
    "RBF",
    "SURROGATES",
    "FoldScores",
    "GaussianProcess",
    "Model",
    "RegressionTrees",
    "Surrogate",
    "Switched",
    "adaptive_switching",
    "kendall_tau",
]
