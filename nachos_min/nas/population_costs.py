"""The exact costs of a population as arrays, by decoding and counting one genome after another.

Read `genome.py` and `eenn/costs.py` first. `populations.py` looks the same arrays up in tables, several hundred
times as fast; `count_each` here is what it is held against, and what remains where no tables can be made. Which
costs are within limits is said by `limits.py`.
"""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np

from nachos_min.eenn.costs import StaticCosts, static_costs
from nachos_min.eenn.heads import CostOrderError
from nachos_min.nas.genome import GenomeCoder, NotAnEENNError, as_genome
from nachos_min.nas.space import SpaceError

Bools = np.ndarray[Any, np.dtype[np.bool_]]
IntArray = np.ndarray[Any, np.dtype[np.int64]]

# Genomes checked or looked up together, so that what is computed of them stays in a core's cache.
CHUNK = 4096


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
    length = coder.length
    if genomes.ndim != 2 or genomes.shape[1] != length or genomes.dtype.kind not in "iu":
        form = f"{genomes.dtype} of shape {genomes.shape}"
        raise SpaceError(f"a population of space {coder.space.name} must be integers (n, {length}), got {form}")
    upper = coder.upper
    for begin in range(0, len(genomes), CHUNK):
        chunk = genomes[begin : begin + CHUNK].astype(np.int64, copy=False)
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
