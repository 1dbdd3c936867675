"""Exact costs of an architecture, part by part: the same integers as counting all its records, much sooner.

Read `lowering.py` first. A search asks for the costs of thousands of architectures that are made of a few
hundred different parts (a block, or a head, on a map of some size). Each part is lowered and counted once and
remembered; an architecture is then a sum. That the sums equal the count of the whole graph is tested.
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate

from nachos_min.eenn.architecture import Architecture, ExitHead, FinalHead, Map, MBConvSpec, Stem
from nachos_min.eenn.lowering import lower_part
from nachos_min.macs.count import count, peak_activation_bytes


@dataclass(frozen=True)
class PartCost:
    """Counts of one part for one sample: MACs, trainable parameters, float32 bytes alive at once."""

    macs: int
    params: int
    peak_bytes: int


@dataclass(frozen=True)
class StaticCosts:
    """Exact counts of an architecture for one sample.

    Attributes:
        exit_costs: MACs paid when leaving at each of the E exits, heads passed on the way included.
        params: trainable parameters.
        peak_bytes: largest sum of float32 arrays alive at once.
    """

    exit_costs: tuple[int, ...]
    params: int
    peak_bytes: int

    @property
    def cheapest(self) -> int:
        """MACs of a sample that leaves at the first exit."""
        return self.exit_costs[0]

    @property
    def worst_macs(self) -> int:
        """MACs of a sample that leaves at the final exit."""
        return self.exit_costs[-1]


@lru_cache(maxsize=1 << 16)
def part_cost(part: Stem | MBConvSpec | ExitHead | FinalHead, feature_map: Map, classes: int = 0) -> PartCost:
    """Return the counts of one part of a network.

    Args:
        part: what runs.
        feature_map: shape (H, W, C) of what it reads.
        classes: C, for heads; not read for other parts.

    Returns:
        Counts for one sample. The peak of an early exit includes the map it read, from which the backbone
        goes on.
    """
    graph = lower_part(part, feature_map, classes)
    counted = count(graph)
    return PartCost(counted.macs, counted.params, peak_activation_bytes(graph))


def segment_costs(architecture: Architecture) -> tuple[PartCost, ...]:
    """Return the counts of the backbone between consecutive exits: E of them, heads left out."""
    found = []
    shape = architecture.input_shape
    parts: list[PartCost] = [part_cost(architecture.stem, shape)]
    shape = architecture.stem.output(shape)
    for blocks in architecture.segments():
        for block in blocks:
            parts.append(part_cost(block, shape))
            shape = block.output(shape)
        found.append(together(parts))
        parts = []
    return tuple(found)


def head_costs(architecture: Architecture) -> tuple[PartCost, ...]:
    """Return the counts of the E heads, the final one last."""
    heads = (*(early.head for early in architecture.exits), architecture.final)
    return tuple(
        part_cost(head, shape, architecture.classes)
        for head, shape in zip(heads, architecture.exit_maps(), strict=True)
    )


def static_costs(architecture: Architecture) -> StaticCosts:
    """Return the exact counts of `architecture` for one sample.

    Source: derived here. With B_i the backbone's MACs up to exit i and H_i those of its head, the cost of
    leaving at exit i is B_i + H_1 + ... + H_i: every head passed on the way has run.
    """
    segments, heads = segment_costs(architecture), head_costs(architecture)
    steps = [segment.macs + head.macs for segment, head in zip(segments, heads, strict=True)]
    whole = together([*segments, *heads])
    return StaticCosts(tuple(accumulate(steps)), whole.params, whole.peak_bytes)


def together(parts: list[PartCost]) -> PartCost:
    """Return the counts of parts run one after the other. Between two of them only one map is alive."""
    return PartCost(
        sum(part.macs for part in parts),
        sum(part.params for part in parts),
        max((part.peak_bytes for part in parts), default=0),
    )
