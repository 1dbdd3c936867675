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
from nachos_min.nas.population_costs import PopulationCosts
from nachos_min.nas.surrogates.switching import Switched, adaptive_switching

Floats = np.ndarray[Any, np.dtype[np.float64]]
IntArray = np.ndarray[Any, np.dtype[np.int64]]
StarMap = Callable[[Callable[..., Switched], Iterable[tuple[Any, ...]]], Iterable[Switched]]


@dataclass(frozen=True)
class Surrogates:
    """Cheap predictions of error and average MACs, fitted on the archive.

    The second surrogate predicts average MACs as a share of cost_E, which is in (0, 1] and known exactly: what
    is left to learn is only where samples leave.
    """

    upper: IntArray
    error_model: Switched
    share_model: Switched

    @classmethod
    def fit(
        cls,
        upper: IntArray,
        evaluations: Sequence[Evaluation],
        rng: np.random.Generator,
        starmap: StarMap = itertools.starmap,
    ) -> "Surrogates":
        """Return surrogates chosen by adaptive switching and fitted on `evaluations`.

        Args:
            upper: largest value of each gene.
            evaluations: two or more.
            rng: gives each surrogate a stream of its own.
            starmap: calls a function with each of some arguments; `Workers.starmap` fits both side by side.
        """
        genes = np.array([found.genome for found in evaluations]) / np.maximum(upper, 1)
        error = np.array([1 - found.validation.accuracy for found in evaluations])
        share = np.array([found.validation.average_macs / found.costs.worst_macs for found in evaluations])
        streams = rng.spawn(2)
        return cls(upper, *starmap(adaptive_switching, [(genes, error, streams[0]), (genes, share, streams[1])]))

    def error(self, genomes: IntArray) -> Floats:
        """Return the predicted error of each genome, in 0..1."""
        return np.clip(self.error_model.model.predict(genomes / np.maximum(self.upper, 1)), 0.0, 1.0)

    def macs(self, genomes: IntArray, costs: PopulationCosts) -> Floats:
        """Return the predicted average MACs of each genome, between its cheapest and its worst exact cost."""
        if len(genomes) == 0:
            return np.zeros(0)
        worst, cheapest = costs.worst_macs.astype(np.float64), costs.cheapest.astype(np.float64)
        share = self.share_model.model.predict(genomes / np.maximum(self.upper, 1))
        return np.clip(share * worst, cheapest, worst)
