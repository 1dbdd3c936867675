"""What a search optimises on the surrogates: both ends of a candidate's curve, or its error within budgets.

A candidate stands for a curve of accuracy against MACs, and a front takes the best of all curves.

    ends       NSGA-II minimises the least error and the fewest MACs that a candidate can reach, which no thresholds
               reach together; new candidates are chosen evenly spread in MACs (the paper's way)
    budgets    NSGA-II minimises the least errors within three budgets; new candidates are chosen by expected gain

Both are fitted to the archive in every iteration. Read `surrogates/objectives.py` and `subset.py` (ends),
`surrogates/curves.py` and `gain.py` (budgets) first; `nachos.py` hands an aim to NSGA-II.
"""

from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np
from scipy.special import expit

from nachos_min.nas.gain import choose_by_gain
from nachos_min.nas.limits import Limits
from nachos_min.nas.populations import Bools, PopulationCosts
from nachos_min.nas.subset import choose_evenly
from nachos_min.nas.surrogates.curves import Curves
from nachos_min.nas.surrogates.objectives import Floats, IntArray, Surrogates


class Aim(Protocol):
    """A fitted aim.

    Attributes:
        objectives, constraints: how many there are.
    """

    objectives: ClassVar[int]
    constraints: ClassVar[int]

    def predict(self, genomes: IntArray, costs: PopulationCosts, admissible: Bools) -> tuple[Floats, Floats]:
        """Return objectives and constraints as `nsga2.minimize` takes them, NaN for genomes never trained.

        Args:
            genomes: int64 (n, length), canonical.
            costs: of the genomes.
            admissible: bool (n,), whether static counts allow them.
        """
        ...

    def choose(self, genomes: IntArray, costs: PopulationCosts, wanted: int) -> list[int]:
        """Return which of `genomes` (n, length), all admissible, to train next: `wanted` indices."""
        ...


@dataclass(frozen=True)
class Ends:
    """The least error and the fewest MACs.

    Attributes:
        surrogates: predict both.
        limits: of the search.
        front: float64 (f,), the fewest MACs of the candidates that the search goes on from.
    """

    objectives: ClassVar[int] = 2
    constraints: ClassVar[int] = 3
    surrogates: Surrogates
    limits: Limits
    front: Floats

    def predict(self, genomes: IntArray, costs: PopulationCosts, admissible: Bools) -> tuple[Floats, Floats]:
        """Return objectives and constraints; see `Aim.predict`."""
        # A genome that is never trained has no figures: NaN ranks it behind all others, and keeps it out of the
        # largest violation, by which those of the others are divided.
        macs = np.full(len(genomes), np.nan)
        macs[admissible] = self.surrogates.macs(genomes[admissible], costs[admissible])
        error = np.where(admissible, self.surrogates.error(genomes, costs), np.nan)
        over = np.zeros(len(genomes)) if self.limits.max_macs is None else macs / self.limits.max_macs - 1
        short = error - (1 - self.limits.min_accuracy)
        return np.column_stack([error, macs]), np.column_stack([over, short, np.where(admissible, -1.0, 1.0)])

    def choose(self, genomes: IntArray, costs: PopulationCosts, wanted: int) -> list[int]:
        """Return which to train next, evenly spread in MACs together with the front."""
        return [int(index) for index in choose_evenly(self.front, self.surrogates.macs(genomes, costs), wanted)]


@dataclass(frozen=True)
class Budgets:
    """The least errors within three budgets, shares of the limit.

    Attributes:
        curves: predict them.
        budgets: float64 (3,), average MACs.
        best: float64 (3,), the best admissible accuracy known within each, 0 where there is none.
        min_accuracy: limit, in 0..1.
    """

    objectives: ClassVar[int] = 3
    constraints: ClassVar[int] = 2
    curves: Curves
    budgets: Floats
    best: Floats
    min_accuracy: float

    def predict(self, genomes: IntArray, costs: PopulationCosts, admissible: Bools) -> tuple[Floats, Floats]:
        """Return objectives and constraints; see `Aim.predict`."""
        log_odds, _ = self.curves.log_odds(genomes, costs, self.budgets)
        error = np.where(admissible[:, None], expit(log_odds), np.nan)
        short = error[:, -1] - (1 - self.min_accuracy)
        return error, np.column_stack([short, np.where(admissible, -1.0, 1.0)])

    def choose(self, genomes: IntArray, costs: PopulationCosts, wanted: int) -> list[int]:
        """Return which to train next, those expected to add most within the budgets."""
        log_odds, deviation = self.curves.log_odds(genomes, costs, self.budgets)
        return choose_by_gain(log_odds, deviation, self.best, self.min_accuracy, wanted)
