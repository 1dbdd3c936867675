"""Exact costs of a whole population of genomes at once, as arrays: by tables, or by counting one after another.

A layer's cost depends on its kernel, its expansion, its stage's width and the map it reads. The first layer of a
stage also depends on the width before it, a head on the width of its map, and every map on resolution and stem
stride. So what some slots of a stage cost together is an array with an axis for each of their genes. The genes of
a genome are turned into its place in each array; a network is then a few look-ups and sums.
Which costs are within limits is said by `limits.py`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import product
from math import prod
from typing import Any

import numpy as np

from nachos_min.eenn.costs import PartCost, StaticCosts, part_cost, static_costs, together
from nachos_min.eenn.heads import CostOrderError
from nachos_min.nas.genome import GenomeCoder, IntArray, NotAnEENNError, as_genome
from nachos_min.nas.space import SpaceError

Bools = np.ndarray[Any, np.dtype[np.bool_]]

# Genomes checked or looked up together, so that what is computed of them stays in a core's cache.
_CHUNK = 4096

# Counting a part takes about 0.1 ms, so that the tables of the largest space allowed are a second or two of work.
_MOST_PARTS = 1 << 14

# Entries of one table. A stage with more forms is looked up in several tables. Places must stay below 2^24, up to
# which float32 holds every integer: they are computed by a matrix product.
_ENTRIES = 1 << 15

# Slots of one table: with two forms each, as many as _ENTRIES allow. An array has at most 64 axes, two for a slot.
_TOGETHER = 15


class NoTablesError(ValueError):
    """The space's costs cannot be tabulated: count its members one by one."""


@dataclass(frozen=True)
class PopulationCosts:
    """Exact counts of n genomes in a space of S stages, for one sample.

    Attributes:
        exits: bool (n, S): whether there is an exit after each stage; the last column is True.
        exit_costs: MACs paid when leaving after each stage, int64 (n, S); 0 where there is no exit.
        params: trainable parameters, int64 (n,).
        peak_bytes: largest sum of float32 arrays alive at once, int64 (n,).
        unordered: int64 (n,): the stage whose exit has no head that keeps the cost order, 0 if all have one.
            Where it is not 0 there is no such network, and its counts are 0.

    A genome without an early exit has the counts of its backbone. Beyond 2^63 the integers are Python's, in arrays
    of objects; `CostTables` never makes such arrays.
    """

    exits: Bools
    exit_costs: IntArray
    params: IntArray
    peak_bytes: IntArray
    unordered: IntArray

    def __len__(self) -> int:
        """Return the number of genomes n."""
        return len(self.params)

    def __getitem__(self, rows: slice | IntArray | Bools) -> "PopulationCosts":
        """Return the counts of some of the genomes: a slice, indices, or a mask (n,)."""
        return PopulationCosts(*(getattr(self, field.name)[rows] for field in fields(self)))

    @property
    def legal(self) -> Bools:
        """Whether each genome is an early-exit network: an early exit, and the cost order kept; (n,)."""
        found: Bools = np.logical_and(self.exits[:, :-1].any(axis=1), self.unordered == 0)
        return found

    @property
    def static(self) -> Bools:
        """Whether each genome has no early exit, (n,): it is a network all the same, though not an EENN."""
        found: Bools = np.logical_not(self.exits[:, :-1].any(axis=1))
        return found

    @property
    def cheapest(self) -> IntArray:
        """MACs paid at the first exit, int64 (n,)."""
        found = self.exit_costs[:, -1]
        for stage in range(self.exits.shape[1] - 2, -1, -1):
            found = np.where(self.exits[:, stage], self.exit_costs[:, stage], found)
        return found

    @property
    def worst_macs(self) -> IntArray:
        """MACs of a sample that leaves at the final exit, int64 (n,)."""
        return self.exit_costs[:, -1]


def check_population(coder: GenomeCoder, genomes: IntArray) -> None:
    """Check that every row of `genomes` is a genome of `coder`.

    Raises:
        SpaceError: if the array does not hold integers in the shape (n, length), or a gene is not in its range;
            names the row and the gene.
    """
    length, upper = coder.length, coder.upper
    if genomes.ndim != 2 or genomes.shape[1] != length or genomes.dtype.kind not in "iu":
        form = f"{genomes.dtype} of shape {genomes.shape}"
        raise SpaceError(f"a population of space {coder.space.name} must be integers (n, {length}), got {form}")
    for begin in range(0, len(genomes), _CHUNK):
        chunk = genomes[begin : begin + _CHUNK].astype(np.int64, copy=False)
        # As an unsigned number a negative gene is larger than all that are allowed.
        if (chunk.view(np.uint64).max(axis=0) > upper.astype(np.uint64)).any():
            row, gene = np.argwhere((chunk < 0) | (chunk > upper))[0].tolist()
            rule = f"genome {begin + row}: gene {gene} must be in 0..{upper[gene]}"
            raise SpaceError(f"{rule}, got {genomes[begin + row, gene]}")


def count_each(coder: GenomeCoder, genomes: IntArray) -> PopulationCosts:
    """Return the counts of `genomes` by decoding and counting one after the other.

    Args:
        coder: of the genomes.
        genomes: integers (n, length), canonical or not.

    Raises:
        SpaceError: if the array is not of that form, or a gene is not in its range.
    """
    check_population(coder, genomes)
    stages = len(coder.space.stages)
    exits, exit_costs, params, peaks, unordered = [], [], [], [], []
    for genome in map(as_genome, genomes):
        placed, broken, counted = (*coder.genes(genome).exits, stages), 0, StaticCosts((0,) * stages, 0, 0)
        try:
            counted = static_costs(coder.decode(genome))
        except NotAnEENNError:
            counted = static_costs(coder.backbone(genome))
        except CostOrderError as error:
            broken = error.stage
        costs = dict(zip(placed, counted.exit_costs, strict=False))
        exits.append([stage in placed for stage in range(1, stages + 1)])
        exit_costs.append([costs.get(stage, 0) for stage in range(1, stages + 1)])
        params.append(counted.params)
        peaks.append(counted.peak_bytes)
        unordered.append(broken)
    return PopulationCosts(
        np.array(exits, bool).reshape(-1, stages),
        _integers([cost for row in exit_costs for cost in row]).reshape(-1, stages),
        _integers(params),
        _integers(peaks),
        _integers(unordered),
    )


def _integers(values: list[int]) -> IntArray:
    """Return an array of `values`: int64, or Python's integers if one needs more."""
    return np.array(values, object if max(values, default=0) >= 1 << 63 else np.int64)


class CostTables:
    """Looks up what the genomes of `coder` cost.

    Raises:
        NoTablesError: if a sum over parts, MACs or parameters, can exceed int64, or a peak does, or there are more
            than 16,384 choices of layers and heads.
    """

    def __init__(self, coder: GenomeCoder) -> None:
        self.coder = coder
        _check_choices(coder)
        stages = range(len(coder.space.stages))
        layers = [_layer_counts(coder, stage) for stage in stages]
        heads = [_head_counts(coder, stage) for stage in stages[:-1]]
        _check_sums([first for first, _ in layers] + [rest for _, rest in layers] * (coder.space.slots - 1) + heads)
        tables = [(stage, *table) for stage in stages for table in _layer_tables(coder, stage, *layers[stage])]
        self._layers = [(stage, counts) for stage, counts, _ in tables]
        self._heads: list[tuple[IntArray, int | None]] = []  # the table, and its row of places
        weights = [row for *_, row in tables]
        for stage, counts in enumerate(heads):
            table, row = _head_table(coder, stage, counts)
            self._heads.append((table, len(weights) if any(row) else None))  # None: no gene but the bit matters
            weights += [row] * any(row)
        self._weights = np.array(weights, np.float32)

    def costs(self, genomes: IntArray) -> PopulationCosts:
        """Return the counts of `genomes`, equal to those of counting each (`count_each`).

        Args:
            genomes: integers (n, length), canonical or not: genes of inactive layer slots are not read.

        Raises:
            SpaceError: if the array is not of that form, or a gene is not in its range.
        """
        stages, n = len(self.coder.space.stages), len(genomes)
        check_population(self.coder, genomes)
        # One row a stage, so that each is written in one piece; shown to the outside one column a stage.
        exits, exit_costs = np.ones((stages, n), bool), np.empty((stages, n), np.int64)
        params, peaks, unordered = np.empty(n, np.int64), np.empty(n, np.int64), np.zeros(n, np.int64)
        found = PopulationCosts(exits.T, exit_costs.T, params, peaks, unordered)
        for begin in range(0, n, _CHUNK):
            self._write(genomes[begin : begin + _CHUNK], found[begin : begin + _CHUNK])
        return found

    def _write(self, genomes: IntArray, found: PopulationCosts) -> None:
        """Write the counts of `genomes` (n, length) into the arrays of `found`."""
        # Exact: sums of products of integers, all below 2^24.
        places = (self._weights @ genomes.astype(np.float32).T).astype(np.intp)
        stages, n = found.exits.shape[1], len(genomes)
        macs, params, peaks = np.zeros((stages, n), np.int64), np.zeros(n, np.int64), np.zeros(n, np.int64)
        for (stage, counts), place in zip(self._layers, places, strict=False):
            macs[stage] += counts[0].take(place)
            params += counts[1].take(place)
            np.maximum(peaks, counts[2].take(place), out=peaks)

        placed = np.ascontiguousarray(genomes[:, self.coder.exit_genes].T != 0)
        head_macs = np.empty(placed.shape, np.int64)
        # What the next exit costs more than the backbone up to here: the head must cost less (`eenn/heads.py`).
        bound = macs[-1]
        for stage in range(stages - 2, -1, -1):
            heads, row = self._heads[stage]
            if row is None:
                place = rung = np.searchsorted(heads[0, 1:, 0], bound) * placed[stage]
            else:
                below = (costs.take(places[row]) < bound for costs in heads[0, 1:])
                rung = sum(below, np.zeros(n, np.intp)) * placed[stage]
                place = places[row] + rung * heads.shape[2]
            if (unordered := placed[stage] & (rung == 0)).any():
                found.unordered[unordered & (found.unordered == 0)] = stage + 1
            head_macs[stage] = heads[0].take(place)
            params += heads[1].take(place)
            np.maximum(peaks, heads[2].take(place), out=peaks)
            bound = np.where(placed[stage], head_macs[stage], bound) + macs[stage]

        spent = macs[0]
        for stage in range(stages - 1):
            spent += head_macs[stage]
            found.exits[:, stage] = placed[stage]
            found.exit_costs[:, stage] = spent * placed[stage]
            spent += macs[stage + 1]
        found.exit_costs[:, -1], found.params[:], found.peak_bytes[:] = spent, params, peaks
        if (impossible := found.unordered != 0).any():
            for counts in (found.exit_costs, found.params, found.peak_bytes):
                counts[impossible] = 0


def _check_choices(coder: GenomeCoder) -> None:
    """Raise NoTablesError if there are too many parts to count."""
    space, forms = coder.space, len(coder.space.kernels) * len(coder.space.expansions)
    choices = 0
    for number, stage in enumerate(space.stages, start=1):
        layers = (len(space.entering(number)) + space.slots - 1) * forms
        choices += len(stage.channels) * (layers + len(space.exit_heads))
    choices *= len(space.optional["resolution"]) * len(space.stem.stride)
    if choices > _MOST_PARTS:
        rule = f"a space with tables has at most {_MOST_PARTS} choices of layers and heads"
        raise NoTablesError(f"{rule}, got {choices}")


def _check_sums(choices: list[IntArray]) -> None:
    """Raise NoTablesError unless every network's counts fit int64: one part, or none, of each of `choices`.

    Counted in Python's integers, as if the dearest part could be had everywhere.
    """
    most = [[counts.max() for counts in parts] for parts in choices]
    macs, params, peaks = zip(*most, strict=True)
    sums = {"MACs": sum(macs), "parameters": sum(params), "bytes alive at once": max(peaks)}
    for unit, value in sums.items():
        if value >= 1 << 63:
            raise NoTablesError(f"a network of a space with tables has fewer than 2^63 {unit}, got up to {value}")


def _layer_counts(coder: GenomeCoder, stage: int) -> tuple[IntArray, IntArray]:
    """Return the counts (3, R, T, P, W, K, E) of the first layer of a stage, and those of any other, with P = 1.

    By resolution, stem stride, width before, width, kernel and expansion. Stem and trunk are counted with the first
    stage, the final head with the last. MACs, parameters and peak are Python's integers.
    """
    space, spec, last = coder.space, coder.space.stages[stage], stage == len(coder.space.stages) - 1
    forms, entering = list(product(space.kernels, space.expansions)), space.entering(stage + 1)
    first: list[PartCost] = []
    further: list[PartCost] = []
    for side, stride in product(space.optional["resolution"], space.stem.stride):
        maps = space.maps(coder.input_shape(side), stride)
        for place, reads in enumerate(entering):
            stem = space.stem.one(space.stem.channels[place], stride) if stage == 0 else None
            for width in spec.channels:
                others = [] if stem is None else [coder.before(side, stem)]
                others += [part_cost(space.final, (*maps[-1], width), coder.classes)] if last else []
                for form in forms:
                    block = space.block(spec, reads, width, *form, spec.stride)
                    first.append(together([part_cost(block, (*maps[stage], reads)), *others]))
        for width in spec.channels:
            blocks = [space.block(spec, width, width, *form, 1) for form in forms]
            further += [part_cost(block, (*maps[stage + 1], width)) for block in blocks]
    forms_axes = len(spec.channels), len(space.kernels), len(space.expansions)
    return _counts(coder, first, len(entering), *forms_axes), _counts(coder, further, 1, *forms_axes)


def _head_counts(coder: GenomeCoder, stage: int) -> IntArray:
    """Return the counts (3, R, T, W, h) of the heads of a stage, as `GenomeCoder.heads` lists them.

    A shorter list is filled up with its last head.
    """
    space, channels = coder.space, coder.space.stages[stage].channels
    settings = product(space.optional["resolution"], space.stem.stride)
    maps = [space.maps(coder.input_shape(side), stride)[stage + 1] for side, stride in settings]
    found = [[cost for _, cost in coder.heads((*sides, width))] for sides in maps for width in channels]
    most = max(map(len, found))
    filled = [cost for costs in found for cost in costs + costs[-1:] * (most - len(costs))]
    return _counts(coder, filled, len(channels), most)


def _counts(coder: GenomeCoder, costs: list[PartCost], *shape: int) -> IntArray:
    """Return MACs, parameters and peaks as Python's integers (3, R, T, *shape)."""
    rows = np.array([(cost.macs, cost.params, cost.peak_bytes) for cost in costs], object)
    return rows.T.reshape(3, -1, len(coder.space.stem.stride), *shape)


def _layer_tables(
    coder: GenomeCoder, stage: int, first: IntArray, further: IntArray
) -> Iterator[tuple[IntArray, list[float]]]:
    """Yield tables that cover all slots of a stage: counts (3, entries), and the weights of the genes in a place.

    An inactive slot adds nothing whatever its genes, which is why they need not be canonical.
    """
    space, stages, end = coder.space, len(coder.space.stages), 0
    kernels, expansions, depths = len(space.kernels), len(space.expansions), np.array(space.depths)
    while (begin := end) < space.slots:
        before = ("stem channels" if stage == 0 else f"width {stage}") if begin == 0 else None
        axes = [_axis(coder, name) for name in ("resolution", "stem stride", before, f"width {stage + 1}")]
        axes.append((stage, len(depths)))
        while end < min(space.slots, begin + _TOGETHER):
            if end > begin and prod(size for _, size in axes) * kernels * expansions > _ENTRIES:
                break
            gene = stages + stage * space.slots + end
            axes += [(gene, kernels), (gene + stages * space.slots, expansions)]
            end += 1
        sums = np.zeros((3, *(size for _, size in axes)), np.int64)
        for slot in range(begin, end):
            layers, one = further if slot else first, (1, 1)
            form = (1, *one * (slot - begin), kernels, expansions, *one * (end - slot - 1))
            active = (depths > slot).reshape(-1, *one * (end - begin))
            costs = layers.astype(np.int64).reshape(*layers.shape[:5], *form) * active
            sums[:2] += costs[:2]
            np.maximum(sums[2], costs[2], out=sums[2])
        yield sums.reshape(3, -1), _weights(coder, axes)


def _head_table(coder: GenomeCoder, stage: int, heads: IntArray) -> tuple[IntArray, list[float]]:
    """Return counts (3, rungs + 1, entries) of the heads (3, R, T, W, h) of a stage, and the weights in a place.

    With a ladder its heads are the rungs, the cheapest first; with a gene the rung is the head it selects. Rung 0
    is no head at all.
    """
    axes = [_axis(coder, name) for name in ("resolution", "stem stride", f"width {stage + 1}")]
    rungs = heads.shape[-1]
    if coder.space.exit_heads:
        axes.append((coder.head_genes.start + stage, rungs))
        rungs = 1
    table = heads.astype(np.int64).reshape(3, -1, rungs).swapaxes(1, 2)
    return np.concatenate([np.zeros_like(table[:, :1]), table], axis=1), _weights(coder, axes)


_Axis = tuple[int | None, int]  # the place of a gene, None if there is no such gene, and its number of values


def _axis(coder: GenomeCoder, name: str | None) -> _Axis:
    return (None, 1) if name is None else (coder.places.get(name), len(coder.space.optional[name]))


def _weights(coder: GenomeCoder, axes: Sequence[_Axis]) -> list[float]:
    """Return what to multiply the genes of a genome by: the sum is its place in a flat array with these axes."""
    weights, step = [0.0] * coder.length, 1
    for gene, size in reversed(axes):
        if gene is not None:
            weights[gene] = float(step)
        step *= size
    return weights
