"""Exact costs of many genomes at once, as arrays: by tables, or by counting one after another.

A layer's cost depends on its kernel, its expansion, its stage's width and the map it reads; the first layer of a
stage also on the width before it. A head's depends on the width of its map. Every map depends on resolution and
stem stride. So the costs of a layer slot, or of an exit, are an array with an axis for each of these genes, and
those of a network are look-ups and sums. Left out: limits (`limits.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from nachos_min.eenn.architecture import is_flat
from nachos_min.eenn.lowering import CostOrderError, PartCost, StaticCosts, part_cost, static_costs, together
from nachos_min.nas.genome import GenomeCoder, IntArray, NotAnEENNError, as_genome
from nachos_min.nas.space import SpaceError

Bools = np.ndarray[Any, np.dtype[np.bool_]]

_MOST_PARTS = 1 << 14  # limits the time that making tables takes


class NoTablesError(ValueError):
    """The space's costs cannot be tabulated: count its members one by one."""


@dataclass(frozen=True)
class PopulationCosts:
    """Exact counts of n genomes in a space of S stages, for one sample; int64, or Python's integers beyond.

    A genome without an early exit has the counts of its backbone; one that breaks the cost order has counts of 0.
    """

    exits: Bools  # (n, S): whether there is an exit after each stage; the last column is True
    exit_costs: IntArray  # (n, S): MACs paid when leaving after each stage; 0 where there is no exit
    params: IntArray  # (n,)
    peak_bytes: IntArray  # (n,): largest sum of float32 arrays alive at once
    unordered: IntArray  # (n,): the stage whose exit has no head that keeps the cost order; 0 if all have one

    def __len__(self) -> int:
        """Return the number of genomes n."""
        return len(self.params)

    def __getitem__(self, rows: slice | IntArray | Bools) -> "PopulationCosts":
        """Return the counts of some of the genomes: a slice, indices, or a mask (n,)."""
        return PopulationCosts(*(getattr(self, field.name)[rows] for field in fields(self)))

    @property
    def static(self) -> Bools:
        """Whether each genome has no early exit, (n,)."""
        return np.asarray(~self.exits[:, :-1].any(axis=1))

    @property
    def legal(self) -> Bools:
        """Whether each genome has an early exit and keeps the cost order, (n,)."""
        return np.asarray(~self.static & (self.unordered == 0))

    @property
    def exit_count(self) -> IntArray:
        """Number of exits, the final one included, int64 (n,)."""
        return np.asarray(self.exits.sum(axis=1))

    @property
    def leaving(self) -> IntArray:
        """MACs of leaving after each stage, or at the next exit where there is none, int64 (n, S)."""
        found = self.exit_costs.copy()
        for stage in range(found.shape[1] - 2, -1, -1):
            found[:, stage] = np.where(self.exits[:, stage], found[:, stage], found[:, stage + 1])
        return found

    @property
    def cheapest(self) -> IntArray:
        """MACs paid at the first exit, int64 (n,)."""
        return self.leaving[:, 0]

    @property
    def worst_macs(self) -> IntArray:
        """MACs of a sample that leaves at the final exit, int64 (n,)."""
        return self.exit_costs[:, -1]


def check_population(coder: GenomeCoder, genomes: IntArray) -> None:
    """Raise SpaceError unless `genomes` are integers (n, length), each gene in its range."""
    length, upper = coder.length, coder.upper
    if genomes.ndim != 2 or genomes.shape[1] != length or genomes.dtype.kind not in "iu":
        form = f"{genomes.dtype} of shape {genomes.shape}"
        raise SpaceError(f"a population of space {coder.space.name} must be integers (n, {length}), got {form}")
    for row, gene in np.argwhere((genomes < 0) | (genomes > upper))[:1].tolist():
        raise SpaceError(f"genome {row}: gene {gene} must be in 0..{upper[gene]}, got {genomes[row, gene]}")


def count_each(coder: GenomeCoder, genomes: IntArray) -> PopulationCosts:
    """Return the counts of `genomes`, integers (n, length), by decoding and counting one after the other."""
    check_population(coder, genomes)
    stages = len(coder.space.stages)
    exits = np.ones((len(genomes), stages), bool)
    exits[:, :-1] = genomes[:, coder.exit_genes] != 0
    rows: list[list[int]] = []
    for genome, placed in zip(map(as_genome, genomes), exits.tolist(), strict=True):
        broken, counted = 0, StaticCosts((0,) * stages, 0, 0)
        try:
            counted = static_costs(coder.decode(genome))
        except NotAnEENNError:
            counted = static_costs(coder.backbone(genome))
        except CostOrderError as error:
            broken = error.stage
        costs = iter(counted.exit_costs)
        paid = [next(costs) if here else 0 for here in placed]
        rows.append([*paid, counted.params, counted.peak_bytes, broken])
    kind = object if max(map(max, rows), default=0) >= 1 << 63 else np.int64
    counts = np.array(rows, kind).reshape(-1, stages + 3)
    return PopulationCosts(exits, counts[:, :stages], *counts[:, stages:].T)


class CostTables:
    """Looks up what the genomes of `coder` cost.

    Raises:
        NoTablesError: a sum over parts can exceed int64, or more than 16,384 layers and heads must be counted.
    """

    def __init__(self, coder: GenomeCoder) -> None:
        self.coder, space = coder, coder.space
        _check_choices(coder)
        stages = range(len(space.stages))
        layers = [_layer_counts(coder, stage) for stage in stages]
        heads = [_head_counts(coder, stage) for stage in stages[:-1]]
        _check_sums([first for first, _ in layers] + [rest for _, rest in layers] * (space.slots - 1) + heads)
        depths, sides = np.array(space.depths)[:, None, None], ("resolution", "stem stride")
        self._layers: list[list[_Table]] = []
        for stage, (first, rest) in enumerate(layers):
            before, width = f"width {stage}" if stage else "stem channels", f"width {stage + 1}"
            kernel = len(stages) + stage * space.slots
            expansion = kernel + len(stages) * space.slots
            tables = [_table(coder, first, [*sides, before, width, kernel, expansion])]
            for slot in range(1, space.slots):
                counts = rest[:, :, :, 0, :, None] * (depths > slot)  # an inactive slot adds nothing
                tables.append(_table(coder, counts, [*sides, width, stage, kernel + slot, expansion + slot]))
            self._layers.append(tables)
        self._heads: list[_Table] = []
        for stage, counts in enumerate(heads):
            counts = np.stack([np.zeros_like(counts), counts], axis=1)  # by the exit bit
            genes = [coder.exit_genes.start + stage, *sides, f"width {stage + 1}"]
            if space.exit_heads:
                counts, genes = counts[..., None], [*genes, coder.head_genes.start + stage]
            self._heads.append(_table(coder, counts, genes))

    def costs(self, genomes: IntArray) -> PopulationCosts:
        """Return the counts of `genomes`, integers (n, length), canonical or not: those of `count_each`."""
        check_population(self.coder, genomes)
        columns, stages, rows = genomes.astype(np.intp).T, len(self._layers), np.arange(len(genomes))
        exits = np.ones((stages, len(genomes)), bool)
        exits[:-1] = columns[self.coder.exit_genes] != 0
        steps, heads = np.zeros(exits.shape, np.int64), np.zeros(exits.shape, np.int64)
        params, peaks, unordered = (np.zeros(len(genomes), np.int64) for _ in range(3))

        def add(counts: IntArray) -> IntArray:
            """Add parameters and peak of a part of each network, counts (3, n); return its MACs."""
            np.add(params, counts[1], out=params)
            np.maximum(peaks, counts[2], out=peaks)
            return np.asarray(counts[0])

        for stage, tables in enumerate(self._layers):
            for table in tables:
                steps[stage] += add(table.counts[:, *columns[table.genes]])
        # What the next exit costs more than the backbone up to here: the head must cost less (`eenn/lowering.py`).
        bound = steps[-1]
        for stage in range(stages - 2, -1, -1):
            options = self._heads[stage].counts[:, *columns[self._heads[stage].genes]]  # (3, n, rungs of a ladder)
            below = (options[0] < bound[:, None]).sum(axis=1)
            unordered[exits[stage] & (below == 0) & (unordered == 0)] = stage + 1
            heads[stage] = add(options[:, rows, below - 1] * (below > 0))  # the dearest of those below
            bound = np.where(exits[stage], heads[stage], bound) + steps[stage]

        exit_costs = (steps + heads).cumsum(axis=0) * exits
        for counts in (exit_costs, params, peaks):
            counts[..., unordered != 0] = 0
        return PopulationCosts(exits.T, exit_costs.T, params, peaks, unordered)


class _Table(NamedTuple):
    """Counts (3, ...), MACs, parameters and peaks, with an axis for each of some genes, and the genes' indices."""

    counts: IntArray
    genes: list[int]


def _table(coder: GenomeCoder, counts: IntArray, genes: Sequence[str | int]) -> _Table:
    """Return a table of `counts` (3, ...), whose axes are of `genes`, names or indices; further axes stay."""
    places = [coder.places.get(gene) if isinstance(gene, str) else gene for gene in genes]
    single = tuple(axis for axis, place in enumerate(places, start=1) if place is None)  # no choice, no gene
    return _Table(counts.astype(np.int64).squeeze(single), [place for place in places if place is not None])


def _check_choices(coder: GenomeCoder) -> None:
    """Raise NoTablesError if there are too many parts to count."""
    space, choices = coder.space, 0
    for number, stage in enumerate(space.stages, start=1):
        layers = (len(space.entering(number)) + space.slots - 1) * len(space.kernels) * len(space.expansions)
        choices += len(stage.channels) * (layers + len(space.exit_heads))
    choices *= len(space.optional["resolution"]) * len(space.stem.stride)
    if choices > _MOST_PARTS:
        raise NoTablesError(f"tables are of at most {_MOST_PARTS} choices of layers and heads, got {choices}")


def _check_sums(choices: list[IntArray]) -> None:
    """Raise NoTablesError unless the most of one part of each of `choices` (Python's integers) adds up in int64."""
    macs, params, peaks = zip(*([counts.max() for counts in parts] for parts in choices), strict=True)
    if (most := max(sum(macs), sum(params), *peaks)) >= 1 << 63:
        raise NoTablesError(f"tables are of counts below 2^63, got up to {most}")


def _layer_counts(coder: GenomeCoder, stage: int) -> tuple[IntArray, IntArray]:
    """Return the counts (3, R, T, P, W, K, E) of the first layer of a stage, and those of any other, with P = 1.

    The axes: resolution, stem stride, width before, width, kernel, expansion. The first stage includes stem and
    trunk, the last the final head.
    """
    space, spec, last = coder.space, coder.space.stages[stage], stage == len(coder.space.stages) - 1
    forms, entering = list(product(space.kernels, space.expansions)), space.entering(stage + 1)
    first: list[PartCost] = []
    further: list[PartCost] = []
    for side, stride in product(space.optional["resolution"], space.stem.stride):
        image = coder.input_shape(side)
        maps, flat = space.maps(image, stride), is_flat(image)
        for channels, reads in zip(space.stem.channels if stage == 0 else entering, entering, strict=True):
            stem = [coder.before(side, space.stem.one(channels, stride))] if stage == 0 else []
            for width in spec.channels:
                final = [part_cost(space.final, (*maps[-1], width), coder.classes, flat=flat)] if last else []
                for form in forms:
                    block = space.block(spec, reads, width, *form, spec.stride)
                    here = part_cost(block, (*maps[stage], reads), flat=flat)
                    first.append(together([here, *stem, *final]))
        for width in spec.channels:
            blocks = [space.block(spec, width, width, *form, 1) for form in forms]
            further += [part_cost(block, (*maps[stage + 1], width), flat=flat) for block in blocks]
    axes = len(spec.channels), len(space.kernels), len(space.expansions)
    return _counts(coder, first, len(entering), *axes), _counts(coder, further, 1, *axes)


def _head_counts(coder: GenomeCoder, stage: int) -> IntArray:
    """Return the counts (3, R, T, W, h) of the heads of a stage; a shorter list is filled up with its last head."""
    space, channels = coder.space, coder.space.stages[stage].channels
    images = map(coder.input_shape, space.optional["resolution"])
    maps = [
        (space.maps(image, stride)[stage + 1], is_flat(image)) for image in images for stride in space.stem.stride
    ]
    found = [[cost for _, cost in coder.heads((*sides, w), flat)] for sides, flat in maps for w in channels]
    most = max(map(len, found))
    filled = [cost for costs in found for cost in costs + costs[-1:] * (most - len(costs))]
    return _counts(coder, filled, len(channels), most)


def _counts(coder: GenomeCoder, costs: list[PartCost], *shape: int) -> IntArray:
    """Return MACs, parameters and peaks as Python's integers (3, R, T, *shape)."""
    rows = np.array([(cost.macs, cost.params, cost.peak_bytes) for cost in costs], object)
    return rows.T.reshape(3, -1, len(coder.space.stem.stride), *shape)
