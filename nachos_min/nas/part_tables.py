"""Everything that the parts of a space's networks can cost, as arrays: counted once, looked up from then on.

Read `space.py`, `genome.py` and `eenn/heads.py` first; `populations.py` adds the entries up. A layer's cost
depends on its stage, its slot, its kernel and its expansion, and on nothing that comes before it: a stage's first
layer brings any map to the stage's own width and size, and every further one keeps them. An early exit's head
depends on its stage alone.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from nachos_min.eenn.architecture import Architecture, Map
from nachos_min.eenn.costs import PartCost, part_cost
from nachos_min.eenn.heads import head_ladder
from nachos_min.nas.genome import GenomeCoder

IntArray = np.ndarray[Any, np.dtype[np.int64]]

# Counting a part takes about 0.1 ms, so that the tables of the largest space allowed are a second or two of work.
_MOST_LAYERS = 1 << 14


class NoTablesError(ValueError):
    """The space's costs cannot be tabulated: count its members one by one."""


@dataclass(frozen=True)
class Counts:
    """Arrays of one shape, int64: MACs, trainable parameters, float32 bytes alive at once."""

    macs: IntArray
    params: IntArray
    peak_bytes: IntArray


@dataclass(frozen=True)
class PartTables:
    """The costs of all parts at one resolution.

    Attributes:
        before: the stem and the trunk together, shape ().
        layers: of each stage: the layer in each slot by its kernel and expansion gene, shape (D, K, E).
        heads: of each stage but the last: the heads that the designer may choose, the cheapest first, shape (h,).
        final: the final head, shape ().
    """

    before: Counts
    layers: tuple[Counts, ...]
    heads: tuple[Counts, ...]
    final: Counts


def part_tables(coder: GenomeCoder, resolution: int | None) -> PartTables:
    """Return the costs of all parts of the networks of `coder` at `resolution`.

    Args:
        coder: of the space; knows the shape of the images and the number of classes.
        resolution: side in pixels, one of the space's; None: the data's own.

    Raises:
        NoTablesError: if a sum over parts, MACs or parameters, can exceed int64, or a peak does, or there are more
            than 16,384 choices of a layer, over all resolutions.

    Source: derived here. A head is chosen from the ladder as the first that costs less than a bound. Such a head
    costs less than every head before it, or one of those would have been chosen; the others never are. Heads
    that undercut all before them are in falling order of cost, and the first below a bound is the dearest below it.
    """
    space = coder.space
    choices = len(space.stages) * space.slots * len(space.kernels) * len(space.expansions)
    choices *= max(1, len(space.resolutions))
    if choices > _MOST_LAYERS:
        raise NoTablesError(f"a space with tables has at most {_MOST_LAYERS} choices of a layer, got {choices}")
    uniform = {
        (kernel, expansion): _uniform(coder, resolution, kernel, expansion)
        for kernel in space.kernels
        for expansion in space.expansions
    }
    network = next(iter(uniform.values()))  # all agree in all that is read of it here
    shape = network.stem.output(network.input_shape)
    before = [part_cost(network.stem, network.input_shape)]
    for block in network.trunk:
        before.append(part_cost(block, shape))
        shape = block.output(shape)
    maps, layers = [], []
    for stage, blocks in enumerate(network.stages):
        slots = []
        for slot, block in enumerate(blocks):
            slots.append([part_cost(each.stages[stage][slot], shape) for each in uniform.values()])
            shape = block.output(shape)
        layers.append(slots)
        maps.append(shape)
    heads = [_undercutting(_ladder(coder, feature_map)) for feature_map in maps[:-1]]
    final = part_cost(network.final, shape, coder.classes)
    _check_sums([[part] for part in (*before, final)] + [slot for slots in layers for slot in slots] + heads)
    form = (space.slots, len(space.kernels), len(space.expansions))
    whole = PartCost(
        sum(part.macs for part in before),
        sum(part.params for part in before),
        max(part.peak_bytes for part in before),
    )
    return PartTables(
        _counts([whole], ()),
        tuple(_counts([cost for slot in slots for cost in slot], form) for slots in layers),
        tuple(_counts(costs, (len(costs),)) for costs in heads),
        _counts([final], ()),
    )


def _uniform(coder: GenomeCoder, resolution: int | None, kernel: int, expansion: int) -> Architecture:
    """Return the deepest backbone in which every layer makes the same choice."""
    stages, slots = len(coder.space.stages), coder.space.slots
    every_kernel, every_expansion = [[kernel] * slots] * stages, [[expansion] * slots] * stages
    shape = coder.input_shape(resolution)
    return coder.space.backbone([slots] * stages, every_kernel, every_expansion, shape, coder.classes)


def _ladder(coder: GenomeCoder, feature_map: Map) -> list[PartCost]:
    """Return the costs of the heads for a map (H, W, C), in the order in which the designer tries them."""
    heads = head_ladder(min(feature_map[:2]), coder.space.exit_widths)
    return [part_cost(head, feature_map, coder.classes) for head in heads]


def _undercutting(costs: list[PartCost]) -> list[PartCost]:
    """Return those that need fewer MACs than all before them, the cheapest first."""
    found = costs[:1]
    for cost in costs[1:]:
        if cost.macs < found[-1].macs:
            found.append(cost)
    return found[::-1]


def _check_sums(choices: list[list[PartCost]]) -> None:
    """Raise NoTablesError unless every network's counts fit int64: one part, or none, of each of `choices`.

    Counted in Python's integers, as if the dearest part could be had everywhere.
    """
    most = {
        "MACs": sum(max(part.macs for part in parts) for parts in choices),
        "parameters": sum(max(part.params for part in parts) for parts in choices),
        "bytes alive at once": max(part.peak_bytes for parts in choices for part in parts),
    }
    for unit, value in most.items():
        if value >= 1 << 63:
            raise NoTablesError(f"a network of a space with tables has fewer than 2^63 {unit}, got up to {value}")


def _counts(costs: list[PartCost], shape: tuple[int, ...]) -> Counts:
    macs, params, peaks = zip(*((cost.macs, cost.params, cost.peak_bytes) for cost in costs), strict=True)
    return Counts(*(np.array(values, np.int64).reshape(shape) for values in (macs, params, peaks)))
