"""The two surrogates of a search: cheap predictions of a candidate's error and average MACs, without training it.

Read `switching.py` (how each is chosen) and `nas/evaluate.py` (what is predicted) first; `nas/nachos.py` searches
on them.
"""

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nachos_min.nas.evaluate import Evaluation
from nachos_min.nas.populations import PopulationCosts
from nachos_min.nas.surrogates.surrogate import Surrogate
from nachos_min.nas.surrogates.switching import SURROGATES, Switched, adaptive_switching

Floats = np.ndarray[Any, np.dtype[np.float64]]
IntArray = np.ndarray[Any, np.dtype[np.int64]]
StarMap = Callable[[Callable[..., Switched], Iterable[tuple[Any, ...]]], Iterable[Switched]]


# Costs differ a hundredfold and say more than genes: what counts is their ratio, and a gene's whole range weighs as
# much as costs that differ by half.
GENES_BESIDE_COSTS = 0.2


@dataclass(frozen=True)
class Features:
    """What surrogates see of a genome, as numbers of order 1.

    Attributes:
        upper: largest value of each gene.
        costs: whether the exact costs stand beside the genes, as decimal logarithms: MACs of leaving after each
            stage, or at the next exit where there is none, and the parameters.
        scale: costs to divide by, those of the space's largest network: MACs, parameters.
    """

    upper: IntArray
    costs: bool = False
    scale: tuple[int, int] = (1, 1)

    def __call__(self, genomes: IntArray, costs: PopulationCosts) -> Floats:
        """Return float64 (n, features) of n genomes and their costs."""
        genes = genomes / np.maximum(self.upper, 1)
        if not self.costs:
            return np.asarray(genes)
        leaving = costs.exit_costs.astype(np.float64)
        for stage in range(leaving.shape[1] - 2, -1, -1):
            leaving[:, stage] = np.where(costs.exits[:, stage], leaving[:, stage], leaving[:, stage + 1])
        macs, params = self.scale
        logarithms = np.log10(np.maximum(leaving, 1) / macs), np.log10(np.maximum(costs.params, 1) / params)
        return np.column_stack([GENES_BESIDE_COSTS * genes, *logarithms])


@dataclass(frozen=True)
class Surrogates:
    """Cheap predictions of error and average MACs, fitted on the archive.

    Of a candidate that stands for a whole curve they predict both ends: the least error, and the fewest MACs.
    The second surrogate predicts average MACs as a share of cost_E, which is in (0, 1] and known exactly: what
    is left to learn is only where samples leave.
    """

    features: Features
    error_model: Switched
    share_model: Switched

    @classmethod
    def fit(
        cls,
        features: Features,
        evaluations: Sequence[Evaluation],
        costs: PopulationCosts,
        rng: np.random.Generator,
        starmap: StarMap = itertools.starmap,
        surrogates: Sequence[Surrogate] = SURROGATES,
    ) -> "Surrogates":
        """Return surrogates chosen by adaptive switching and fitted on `evaluations`.

        Args:
            features: what they see of a genome.
            evaluations: two or more.
            costs: of their genomes, in the same order.
            rng: gives each surrogate a stream of its own.
            starmap: calls a function with each of some arguments; `Workers.starmap` fits both side by side.
            surrogates: those to choose from.
        """
        X = features(np.array([found.genome for found in evaluations]), costs)
        error = np.array([found.reach()[0] for found in evaluations])
        share = np.array([found.reach()[1] / found.costs.worst_macs for found in evaluations])
        targets = zip((error, share), rng.spawn(2), strict=True)
        return cls(features, *starmap(adaptive_switching, [(X, y, own, surrogates) for y, own in targets]))

    def error(self, genomes: IntArray, costs: PopulationCosts) -> Floats:
        """Return the predicted error of each genome, in 0..1."""
        return np.clip(self.error_model.model.predict(self.features(genomes, costs)), 0.0, 1.0)

    def macs(self, genomes: IntArray, costs: PopulationCosts) -> Floats:
        """Return the predicted average MACs of each genome, between its cheapest and its worst exact cost."""
        if len(genomes) == 0:
            return np.zeros(0)
        worst, cheapest = costs.worst_macs.astype(np.float64), costs.cheapest.astype(np.float64)
        share = self.share_model.model.predict(self.features(genomes, costs))
        return np.clip(share * worst, cheapest, worst)
