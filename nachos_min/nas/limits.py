"""Limits of a search, and what a candidate costs before any weight exists.

Average MACs and accuracy need a trained network; the other limits are on exact static counts. A candidate that
breaks a static limit, whose cheapest path alone exceeds the MACs limit, or whose exits cannot be ordered by cost,
is inadmissible for a stated reason and never trained.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import partial
from math import floor
from typing import Any

import numpy as np

from nachos_min.eenn.lowering import CostOrderError, StaticCosts, static_costs
from nachos_min.eenn.thresholds import Figures, SplitLimits, split_limits
from nachos_min.nas.genome import Genome, GenomeCoder, IntArray, NotAnEENNError, as_genome
from nachos_min.nas.populations import Bools, CostTables, NoTablesError, PopulationCosts, count_each

# Random genomes drawn and counted together: this takes hardly longer than counting one.
_DRAWN = 64

# Shares of the MACs limit. Users mean to spend it, or somewhat less: accuracy far below it counts for nothing.
BUDGETS = (0.5, 0.75, 1.0)


@dataclass(frozen=True)
class Limits:
    """What a solution must keep; None means no limit.

    Attributes:
        max_macs: average MACs of one inference under the exit policy.
        min_accuracy: top-1 accuracy on the validation split, in 0..1.
        max_worst_macs: MACs of the most expensive inference.
        max_params: parameters.
        max_peak_bytes: bytes of activations alive at once, float32, one sample.
    """

    max_macs: int | None
    min_accuracy: float
    max_worst_macs: int | None = None
    max_params: int | None = None
    max_peak_bytes: int | None = None

    def budgets(self, most: int) -> tuple[float, ...]:
        """Return the budgets of average MACs that a search improves on.

        Args:
            most: MACs of the space's largest network, in place of no limit or a larger one.
        """
        return tuple(share * min(self.max_macs or most, most) for share in BUDGETS)

    def tightened(self, margin: float) -> "Limits":
        """Return limits further inside: accuracy by `margin`, average MACs by this share.

        Numbers are taken as the decimals they are written as: 0.9 and 0.01 make 0.91.
        """
        if not margin:
            return self
        share, most = Fraction(str(margin)), self.max_macs
        fewer = None if most is None else max(1, floor(most * (1 - share)))
        return replace(self, max_macs=fewer, min_accuracy=float(Fraction(str(self.min_accuracy)) + share))

    def static_reason(self, costs: StaticCosts) -> str | None:
        """Return why `costs` alone make a candidate inadmissible, or None if they do not."""
        for text, value, limit in self._static(costs):
            if limit is not None and value > limit:
                return f"{text.format(value)}, the limit is {limit}"
        return None

    def statically_admissible(self, costs: PopulationCosts, *, static: bool = False) -> Bools:
        """Return which genomes are legal and without a `static_reason`, bool (n,).

        With `static` networks without early exits are legal, and no others.
        """
        kept = costs.static if static else costs.legal
        for _, values, limit in self._static(costs):
            if limit is not None:
                kept &= values <= limit
        return kept

    def _static(self, costs: StaticCosts | PopulationCosts) -> tuple[tuple[str, Any, int | None], ...]:
        """Return what is limited, of one candidate or of many: in words, the count or counts, the limit."""
        return (
            ("the cheapest exit costs {} MACs", costs.cheapest, self.max_macs),
            ("the worst case costs {} MACs", costs.worst_macs, self.max_worst_macs),
            ("it has {} parameters", costs.params, self.max_params),
            ("its activations need {} bytes", costs.peak_bytes, self.max_peak_bytes),
        )

    def on(self, samples: int) -> SplitLimits:
        """Return the limits on accuracy and average MACs as integers of a split of `samples`."""
        return split_limits(self.max_macs, self.min_accuracy, samples)

    def admissible(self, figures: Figures) -> bool:
        """Return whether the accuracy and the average MACs of a split keep the limits."""
        return self.on(figures.samples).admit(figures)


class StaticCheck:
    """Counts genomes of `coder` before they are trained, and collects those that are inadmissible by `limits`."""

    def __init__(self, coder: GenomeCoder, limits: Limits) -> None:
        self.coder, self.limits = coder, limits
        self._inadmissible: set[Genome] = set()
        try:
            self._count = CostTables(coder).costs
        except NoTablesError:
            self._count = partial(count_each, coder)

    def costs(self, genome: Sequence[int]) -> StaticCosts | str:
        """Return the costs of a canonical `genome`, or the reason (one clause) why it is inadmissible."""
        try:
            found = static_costs(self.coder.decode(genome))
            answer = self.limits.static_reason(found) or found
        except (CostOrderError, NotAnEENNError) as error:
            answer = str(error)
        if isinstance(answer, str):
            self._inadmissible.add(tuple(genome))
        return answer

    def population(self, genomes: IntArray) -> tuple[PopulationCosts, Bools]:
        """Return the costs of canonical `genomes` (n, length), and which of them are admissible, bool (n,)."""
        costs, admissible = self._judged(genomes)
        self._inadmissible.update(map(as_genome, genomes[~admissible]))
        return costs, admissible

    def drawn(self, rng: np.random.Generator) -> Iterator[tuple[Genome, bool]]:
        """Yield random canonical members of the space, without end, each with whether it is admissible.

        The same genomes as `GenomeCoder.sample` returns one after the other, though `rng` is ahead of them.
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
        return costs, self.limits.statically_admissible(costs, static=self.coder.static)

    @property
    def inadmissible(self) -> int:
        """How many of the genomes met so far are inadmissible by static count."""
        return len(self._inadmissible)
