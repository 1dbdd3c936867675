"""Design the early exits of a backbone so that asking an exit is always cheaper than going on.

Read `architecture.py` first. The rule (the paper's cost order), with B_i the backbone's MACs up to the map
that feeds exit i and H_i the MACs of its head:

    B_i + H_i < B_{i+1} + H_{i+1}        for i = 1..E-1

Exits are designed from the last early one backwards, since the bound of exit i is exit i+1. For each, the
designer walks down a ladder of heads, beginning with the richest, and takes the first that keeps the order.
Or the heads are given: then the order is only checked.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from nachos_min.eenn.architecture import Architecture, Exit, ExitHead
from nachos_min.eenn.costs import part_cost, segment_costs


class CostOrderError(ValueError):
    """No head that an exit may have keeps the cost order: the placement of exits is inadmissible.

    Attributes:
        stage: the stage (1-based) after which the exit stands.
    """

    def __init__(self, message: str, stage: int = 0) -> None:
        super().__init__(message)
        self.stage = stage


@dataclass(frozen=True)
class GridHead:
    """A head for maps of any size: pooled to about `cells` x `cells`, 3x3 convolutions `widths`, a linear layer."""

    cells: int
    widths: tuple[int, ...]

    def on(self, size: int) -> ExitHead:
        """Return the head on a map whose shorter side is `size` pixels.

        >>> GridHead(4, (8,)).on(16).pool, GridHead(4, (8,)).on(2).pool
        (4, 1)
        """
        return ExitHead(max(1, size // self.cells), self.widths)


def head_ladder(size: int, widths: Sequence[int]) -> Iterator[ExitHead]:
    """Yield heads from the richest to the poorest, for a map whose shorter side is `size` pixels.

    Pooling 1, 2, 4, ... up to the map's size with all convolutions `widths`; then the same with the last
    convolution left out, and so on; at the end pooling by `size` (a square map becomes 1x1) and the linear layer.

    Args:
        size: shorter side of the map in pixels, >= 1.
        widths: output channels of the richest head's 3x3 convolutions; may be empty.

    >>> [(head.pool, head.widths) for head in head_ladder(2, (8, 16))]
    [(1, (8, 16)), (2, (8, 16)), (1, (8,)), (2, (8,)), (2, ())]
    """
    for count in range(len(widths), 0, -1):
        pool = 1
        while pool <= size:
            yield ExitHead(pool, tuple(widths[:count]))
            pool *= 2
    yield ExitHead(size, ())


def design_exits(
    backbone: Architecture, stages: Sequence[int], widths: Sequence[int] = (), heads: Sequence[GridHead] = ()
) -> Architecture:
    """Return `backbone` with an early exit after each of `stages` and the cost order kept.

    Args:
        backbone: an architecture without early exits.
        stages: stage numbers, ascending, from 1 to S - 1 (after stage S comes the final exit).
        widths: output channels of the 3x3 convolutions of the ladder's richest head.
        heads: one head for each of `stages`, in place of the ladder; empty: the ladder.

    Returns:
        The architecture with, at each exit, the first head of the ladder that keeps B_i + H_i < B_{i+1} + H_{i+1},
        or the head given.

    Raises:
        CostOrderError: if every head of an exit breaks the order; names the exit and both costs.
        ValueError: if `stages` are not as above.

    Source: derived here from the NACHOS paper's cost rule (arXiv 2401.13330); unlike the released code's
    pooling rule the walk cannot end with the order violated.
    """
    if list(stages) != sorted(set(stages) & set(range(1, len(backbone.stages)))):
        rule = f"ascending numbers from 1 to {len(backbone.stages) - 1}"
        raise ValueError(f"stages of early exits must be {rule}, got {tuple(stages)}")
    # Where the exits are decides the maps that feed them; which heads stand there does not.
    placed = backbone.with_exits(tuple(Exit(stage, ExitHead(1, ())) for stage in stages))
    maps = placed.exit_maps()
    reached = list(accumulate(segment.macs for segment in segment_costs(placed)))
    bound = reached[-1] + part_cost(backbone.final, maps[-1], backbone.classes).macs
    exits: list[Exit] = []
    for index, stage in reversed(list(enumerate(stages))):
        costs = []
        size = min(maps[index][:2])
        for head in [heads[index].on(size)] if heads else head_ladder(size, widths):
            costs.append(reached[index] + part_cost(head, maps[index], backbone.classes).macs)
            if costs[-1] < bound:
                exits.append(Exit(stage, head))
                break
        else:
            # The ladder's last head is not always the cheapest: with many classes a narrow convolution in
            # front of the linear layer saves more than it costs.
            raise CostOrderError(
                f"exit after stage {stage}: its cheapest head costs {min(costs)} MACs in all, "
                f"which must be below the {bound} of the next exit",
                stage,
            )
        bound = costs[-1]
    return backbone.with_exits(tuple(reversed(exits)))
