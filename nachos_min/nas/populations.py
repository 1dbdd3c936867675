"""Exact costs of a whole population of genomes at once: the integers of counting each, millions a second.

Read `population_costs.py` (what is returned) and `part_tables.py` first. The genes of a stage are turned into one
number, the place of the stage's costs in a table; a network is then a few look-ups and sums, and the design of
its exits a binary search for each.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nachos_min.nas.genome import GenomeCoder
from nachos_min.nas.part_tables import Counts, PartTables, part_tables
from nachos_min.nas.population_costs import CHUNK, IntArray, PopulationCosts, check_population

# Entries of one table of partial sums. A stage with more forms is looked up in several tables. Places must stay
# below 2^24, up to which float32 holds every integer: they are computed by a matrix product.
_ENTRIES = 1 << 15

# Slots of one table: with two forms each, as many as _ENTRIES allow; with a single form an array could not have
# an axis for each of any number of slots.
_TOGETHER = 15


class CostTables:
    """Looks up what the genomes of `coder` cost.

    Raises:
        NoTablesError: if a sum could exceed int64, or the space has too many choices (`part_tables.py`).
    """

    def __init__(self, coder: GenomeCoder) -> None:
        self.coder = coder
        self._several = len(coder.space.resolutions) > 1
        self._lookups = [_Lookup(coder, part_tables(coder, side)) for side in coder.space.resolutions or (None,)]

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
        for begin in range(0, n, CHUNK):
            part = slice(begin, begin + CHUNK)
            if self._several:
                sides = genomes[part, -1]
                for side in np.unique(sides).tolist():
                    rows = begin + np.flatnonzero(sides == side)
                    self._lookups[side].write(genomes[rows], found, rows)
            else:
                self._lookups[0].write(genomes[part], found, part)
        return found


@dataclass(frozen=True)
class _Group:
    """Partial sums of some slots of a stage: by the depth gene, then kernel and expansion of each slot."""

    stage: int
    weights: IntArray
    counts: Counts


class _Lookup:
    """The tables of one resolution."""

    def __init__(self, coder: GenomeCoder, parts: PartTables) -> None:
        self.parts, self.exit_genes = parts, coder.exit_genes
        self.groups = list(_groups(coder, parts))
        self.weights = np.array([group.weights for group in self.groups], np.float32)
        # Entry 0 of every ladder is no head at all.
        self.heads = [
            Counts(*(np.concatenate([[0], row]) for row in (heads.macs, heads.params, heads.peak_bytes)))
            for heads in parts.heads
        ]

    def write(self, genomes: IntArray, found: PopulationCosts, rows: slice | IntArray) -> None:
        """Write the counts of `genomes` (n, length) into the `rows` of `found`."""
        # Exact: sums of products of integers, all below 2^24.
        places = (self.weights @ genomes.astype(np.float32).T).astype(np.intp)
        parts, stages = self.parts, len(self.parts.layers)
        macs = np.zeros((stages, len(genomes)), np.int64)
        params = np.full(len(genomes), parts.before.params + parts.final.params)
        peaks = np.full(len(genomes), np.maximum(parts.before.peak_bytes, parts.final.peak_bytes))
        for group, place in zip(self.groups, places, strict=True):
            macs[group.stage] += group.counts.macs.take(place)
            params += group.counts.params.take(place)
            np.maximum(peaks, group.counts.peak_bytes.take(place), out=peaks)

        placed = np.ascontiguousarray(genomes[:, self.exit_genes].T != 0)
        head_macs = np.empty(placed.shape, np.int64)
        # What the next exit costs more than the backbone up to here: the head must cost less (`eenn/heads.py`).
        bound = macs[-1] + parts.final.macs
        for stage in range(stages - 2, -1, -1):
            heads = self.heads[stage]
            head = np.searchsorted(heads.macs[1:], bound) * placed[stage]  # the dearest below; 0: none
            if (unordered := placed[stage] & (head == 0)).any():
                first = unordered & (found.unordered[rows] == 0)
                found.unordered[rows] += (stage + 1) * first
            head_macs[stage] = heads.macs.take(head)
            params += heads.params.take(head)
            np.maximum(peaks, heads.peak_bytes.take(head), out=peaks)
            bound = np.where(placed[stage], head_macs[stage], bound) + macs[stage]

        spent = macs[0] + parts.before.macs
        for stage in range(stages - 1):
            spent += head_macs[stage]
            found.exits[rows, stage] = placed[stage]
            found.exit_costs[rows, stage] = spent * placed[stage]
            spent += macs[stage + 1]
        found.exit_costs[rows, -1] = spent + parts.final.macs
        found.params[rows], found.peak_bytes[rows] = params, peaks
        impossible = found.unordered[rows] != 0
        if impossible.any():
            gone = np.arange(len(found))[rows][impossible]
            found.exit_costs[gone], found.params[gone], found.peak_bytes[gone] = 0, 0, 0


def _groups(coder: GenomeCoder, parts: PartTables) -> Iterator[_Group]:
    """Yield tables of partial sums that cover all slots of all stages.

    With m slots of F = K E forms each and depth genes 0..D-1, the place of a genome's sum is

        depth F^m + form_1 F^(m-1) + ... + form_m,        form = kernel E + expansion

    An inactive slot adds nothing whatever its genes, which is why they need not be canonical.
    """
    space, stages, slots = coder.space, len(coder.space.stages), coder.space.slots
    forms = len(space.kernels) * len(space.expansions)
    together = 1
    while together < min(slots, _TOGETHER) and len(space.depths) * forms ** (together + 1) <= _ENTRIES:
        together += 1
    for stage, layers in enumerate(parts.layers):
        for begin in range(0, slots, together):
            several = range(begin, min(begin + together, slots))
            weights = np.zeros(coder.length, np.int64)
            weights[stage] = forms ** len(several)
            shape = (len(space.depths), *[forms] * len(several))
            sums = Counts(*(np.zeros(shape, np.int64) for _ in range(3)))
            for axis, slot in enumerate(several, start=1):
                weight = forms ** (len(several) - axis)
                weights[stages + stage * slots + slot] = weight * len(space.expansions)
                weights[stages + (stages + stage) * slots + slot] = weight
                along = [1] * len(shape)
                along[axis] = forms
                active = np.flatnonzero(np.array(space.depths) > slot)
                sums.macs[active] += layers.macs[slot].reshape(along)
                sums.params[active] += layers.params[slot].reshape(along)
                sums.peak_bytes[active] = np.maximum(
                    sums.peak_bytes[active], layers.peak_bytes[slot].reshape(along)
                )
            flat = Counts(sums.macs.ravel(), sums.params.ravel(), sums.peak_bytes.ravel())
            yield _Group(stage, weights, flat)
