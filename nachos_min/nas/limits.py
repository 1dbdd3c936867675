"""Limits of a search, and which genomes they admit before any weight exists.

Average MACs and accuracy need a trained network; the other limits are on exact static counts. A candidate is never
trained if it breaks a static limit, its cheapest path exceeds the MACs limit, or its exits have no order by cost.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from math import floor
from typing import Any

import numpy as np

from nachos_min.eenn.lowering import StaticCosts
from nachos_min.eenn.thresholds import Figures, PolicyTables, SplitLimits, split_limits
from nachos_min.nas.genome import Genome, GenomeCoder, IntArray, as_genome
from nachos_min.nas.populations import Bools, CostTables, NoTablesError, PopulationCosts, count_each

Floats = np.ndarray[Any, np.dtype[np.float64]]

# Random genomes drawn and counted together: this takes hardly longer than counting one.
_DRAWN = 64

# Shares of the MACs limit. Users mean to spend it, or somewhat less: accuracy far below it counts for nothing.
BUDGETS = (0.5, 0.75, 1.0)

# The limits that static counts can break, and which count is compared with each.
COUNTED = {
    "max_macs": "cheapest",
    "max_worst_macs": "worst_macs",
    "max_params": "params",
    "max_peak_bytes": "peak_bytes",
    "max_exits": "exit_count",
}


@dataclass(frozen=True)
class Limits:
    """What a network must keep; None means no limit."""

    max_macs: int | None  # average of one inference under the exit policy
    min_accuracy: float  # `Figures.metric` on the validation split, in 0..1
    max_worst_macs: int | None = None  # of the most expensive inference
    max_params: int | None = None
    max_peak_bytes: int | None = None  # activations alive at once, float32, one sample
    max_exits: int | None = None  # with the final one

    def tightened(self, margin: float) -> "Limits":
        """Return limits further inside: accuracy by `margin`, average MACs by this share.

        Numbers are taken as the decimals they are written as: 0.9 and 0.01 make 0.91.
        """
        if not margin:
            return self
        share, most = Fraction(str(margin)), self.max_macs
        fewer = None if most is None else max(1, floor(most * (1 - share)))
        return replace(self, max_macs=fewer, min_accuracy=float(Fraction(str(self.min_accuracy)) + share))

    def budgets(self, most: int) -> tuple[float, ...]:
        """Return the budgets of average MACs that a search improves on; `most`: of the space's largest network."""
        return tuple(share * min(self.max_macs or most, most) for share in BUDGETS)

    def on(self, split: Figures | PolicyTables) -> SplitLimits:
        """Return the limits on accuracy and average MACs as integers of a split."""
        return split_limits(self.max_macs, self.min_accuracy, split.samples, split.full_score)

    def admissible(self, figures: Figures) -> bool:
        """Return whether the accuracy and the average MACs of a split keep the limits."""
        return self.on(figures).admit(figures)

    @property
    def counted(self) -> dict[str, int]:
        """The limits on static counts that are set, by their names in COUNTED."""
        return {name: limit for name in COUNTED if (limit := getattr(self, name)) is not None}

    def warnings(self, metric: str, largest_class: float | None, classes: int) -> tuple[str, ...]:
        """Return a sentence if one answer to all images already has `min_accuracy`; else nothing.

        `largest_class` is the share of the training split that its largest class has, None if it is not known.
        """
        balanced = metric == "balanced"
        reached = 1 / classes if balanced else largest_class
        if reached is None or not 0 < self.min_accuracy <= reached:
            return ()
        one = "any one class" if balanced else "the largest class"
        other = "" if balanced else ", or use --metric balanced"
        rule = f"min_accuracy {self.min_accuracy} is reached by always answering {one} ({reached:.4f})"
        return (f"WARNING: {rule}: set it higher{other}.",)

    def exceeded(self, costs: StaticCosts | PopulationCosts) -> Any:
        """Return whether static counts alone exceed a limit: a bool, or bool (n,) of a population."""
        found: Any = np.zeros(len(costs), bool) if isinstance(costs, PopulationCosts) else False
        for name, limit in self.counted.items():
            found = found | (getattr(costs, COUNTED[name]) > limit)
        return found

    def excess(self, costs: PopulationCosts) -> Floats:
        """Return by how much static counts exceed the limits, as the sum of shares of each: float64 (n,)."""
        found = np.zeros(len(costs))
        for name, limit in self.counted.items():
            found += np.maximum(0.0, np.asarray(getattr(costs, COUNTED[name]) / limit - 1, np.float64))
        return found


class StaticCheck:
    """Counts genomes of `coder` before they are trained, and collects those that are inadmissible by `limits`."""

    def __init__(self, coder: GenomeCoder, limits: Limits) -> None:
        self.coder, self.limits = coder, limits
        self._inadmissible: set[Genome] = set()
        try:
            self._count = CostTables(coder).costs
        except NoTablesError:
            self._count = partial(count_each, coder)

    def population(self, genomes: IntArray) -> tuple[PopulationCosts, Bools]:
        """Return the costs of canonical `genomes` (n, length), and which of them are admissible, bool (n,)."""
        costs, admissible = self._judged(genomes)
        self._inadmissible.update(map(as_genome, genomes[~admissible]))
        return costs, admissible

    def drawn(self, rng: np.random.Generator) -> Iterator[tuple[Genome, bool]]:
        """Yield random canonical members of the space, without end, each with whether it is admissible.

        The same genomes as repeated `GenomeCoder.sample`; `rng` may have drawn further.
        """
        while True:
            genomes = self.coder.draw(rng, _DRAWN)
            _, admissible = self._judged(genomes)
            for genome, kept in zip(map(as_genome, genomes), admissible.tolist(), strict=True):
                if not kept:
                    self._inadmissible.add(genome)
                yield genome, kept

    def _judged(self, genomes: IntArray) -> tuple[PopulationCosts, Bools]:
        costs = self._count(genomes)
        legal = costs.static if self.coder.static else costs.legal
        return costs, legal & ~self.limits.exceeded(costs)

    @property
    def inadmissible(self) -> int:
        """How many of the genomes met so far are inadmissible by static count."""
        return len(self._inadmissible)
