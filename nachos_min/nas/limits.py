"""Limits of a search, and what a candidate costs before any weight exists.

Read `genome.py` first. Some limits need a trained network (average MACs under its thresholds, accuracy); the
others are exact static counts. A candidate that breaks a static limit, whose cheapest path alone exceeds the
MACs limit, or whose exits cannot be ordered by cost, is inadmissible for a stated reason and never trained.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from nachos_min.eenn.costs import StaticCosts, static_costs
from nachos_min.eenn.heads import CostOrderError
from nachos_min.nas.genome import GenomeCoder, NotAnEENNError


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

    def static_reason(self, costs: StaticCosts) -> str | None:
        """Return why `costs` alone make a candidate inadmissible, or None if they do not."""
        checks = (
            ("the cheapest exit costs {} MACs", costs.exit_costs[0], self.max_macs),
            ("the worst case costs {} MACs", costs.worst_macs, self.max_worst_macs),
            ("it has {} parameters", costs.params, self.max_params),
            ("its activations need {} bytes", costs.peak_bytes, self.max_peak_bytes),
        )
        for text, value, limit in checks:
            if limit is not None and value > limit:
                return f"{text.format(value)}, the limit is {limit}"
        return None

    def admissible(self, correct: int, samples: int, total_macs: int) -> bool:
        """Return whether accuracy correct/samples and average total_macs/samples keep the limits, unrounded."""
        accurate = Fraction(correct, samples) >= Fraction(str(self.min_accuracy))
        return accurate and (self.max_macs is None or total_macs <= self.max_macs * samples)


@dataclass
class StaticCheck:
    """Remembers the static costs of every genome asked for, and counts the inadmissible ones."""

    coder: GenomeCoder
    limits: Limits

    def __post_init__(self) -> None:
        self._known: dict[tuple[int, ...], StaticCosts | str] = {}

    def costs(self, genome: Sequence[int]) -> StaticCosts | str:
        """Return the costs of a canonical `genome`, or the reason (one clause) why it is inadmissible."""
        key = tuple(genome)
        if key not in self._known:
            try:
                found = static_costs(self.coder.decode(key))
                self._known[key] = self.limits.static_reason(found) or found
            except (CostOrderError, NotAnEENNError) as error:
                self._known[key] = str(error)
        return self._known[key]

    @property
    def inadmissible(self) -> int:
        """How many of the genomes asked for so far are inadmissible by static count."""
        return sum(isinstance(known, str) for known in self._known.values())
