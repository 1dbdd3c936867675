"""Genomes: members of a space as integer vectors, their canonical form, and what they decode to.

Read `space.py` first. The genes are choice indices, in this order (S stages, D slots a stage):

    depth S | kernel S x D | expansion S x D | exit bit S-1 | resolution 0 or 1

Depth gene j selects the j-th depth; slots beyond it are inactive. The canonical form sets the genes of
inactive slots to 0, so that two genomes are the same network exactly when their canonical forms are equal.
At the end: the configurations in JSON that CNAS, the paper's code, reads and writes.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from nachos_min.eenn.architecture import Architecture
from nachos_min.eenn.costs import static_costs
from nachos_min.eenn.heads import CostOrderError, design_exits
from nachos_min.nas.space import Space, SpaceError

IntArray = np.ndarray[Any, np.dtype[np.int64]]
Genome = tuple[int, ...]


class NotAnEENNError(ValueError):
    """The genome places no early exit: a static network, which the search does not consider."""


@dataclass(frozen=True)
class Genes:
    """The genes of one genome, by meaning: values, not indices."""

    depths: tuple[int, ...]
    kernels: tuple[tuple[int, ...], ...]
    expansions: tuple[tuple[int, ...], ...]
    exits: tuple[int, ...]
    resolution: int | None


@dataclass(frozen=True)
class GenomeCoder:
    """Translates between genomes of `space` and architectures for images of `image_shape` (H, W, C).

    With `static` the members are the backbones, networks without early exits: what a search for EENNs is held
    against. Genomes keep their length, and the canonical form has no exit bit set.
    """

    space: Space
    image_shape: tuple[int, int, int]
    classes: int
    static: bool = False

    @property
    def length(self) -> int:
        """Number of genes."""
        return len(self.upper)

    @property
    def upper(self) -> IntArray:
        """Largest value of each gene, int64 (length,); the smallest is 0."""
        space, slots = self.space, len(self.space.stages) * self.space.slots
        genes = [len(space.depths) - 1] * len(space.stages)
        genes += [len(space.kernels) - 1] * slots
        genes += [len(space.expansions) - 1] * slots
        genes += [1] * (len(space.stages) - 1)
        genes += [len(space.resolutions) - 1] * (len(space.resolutions) > 1)
        return np.array(genes, np.int64)

    @property
    def exit_genes(self) -> slice:
        """Where the exit bits stand."""
        begin = len(self.space.stages) * (1 + 2 * self.space.slots)
        return slice(begin, begin + len(self.space.stages) - 1)

    def canonical(self, genomes: IntArray) -> IntArray:
        """Return `genomes` (n, length) with the genes of inactive layer slots set to 0, int64 of that shape.

        The exit bits, too, if the coder is `static`.
        """
        stages, slots = len(self.space.stages), self.space.slots
        depths = np.array(self.space.depths)[genomes[:, :stages]]
        active = (np.arange(slots) < depths[:, :, None]).reshape(len(genomes), stages * slots)
        result = genomes.astype(np.int64, copy=True)
        result[:, stages : stages + 2 * stages * slots] *= np.tile(active, 2)
        if self.static:
            result[:, self.exit_genes] = 0
        return result

    def genes(self, genome: Sequence[int]) -> Genes:
        """Return the values that `genome` selects.

        Raises:
            SpaceError: if its length or a gene is out of range; names the position and the range.
        """
        upper = self.upper
        if len(genome) != len(upper):
            raise SpaceError(f"genome of space {self.space.name} must have {len(upper)} genes, got {len(genome)}")
        for position, (gene, largest) in enumerate(zip(genome, upper, strict=True)):
            if not 0 <= gene <= largest:
                raise SpaceError(f"gene {position} must be in 0..{largest}, got {gene}")
        space, stages, slots = self.space, len(self.space.stages), self.space.slots
        depths = tuple(space.depths[gene] for gene in genome[:stages])

        def rows(begin: int, values: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
            return tuple(
                tuple(values[gene] for gene in genome[begin + s * slots : begin + s * slots + depths[s]])
                for s in range(stages)
            )

        bits = genome[self.exit_genes]
        if len(space.resolutions) > 1:
            resolution: int | None = space.resolutions[genome[-1]]
        else:
            resolution = space.resolutions[0] if space.resolutions else None
        return Genes(
            depths,
            rows(stages, space.kernels),
            rows(stages + stages * slots, space.expansions),
            tuple(stage for stage, bit in enumerate(bits, start=1) if bit),
            resolution,
        )

    def input_shape(self, resolution: int | None) -> tuple[int, int, int]:
        """Return (H, W, C) of an image as the network sees it at `resolution` (None: the data's own)."""
        height, width, channels = self.image_shape
        return (height, width, channels) if resolution is None else (resolution, resolution, channels)

    def backbone(self, genome: Sequence[int]) -> Architecture:
        """Return the backbone of `genome`, without early exits."""
        genes = self.genes(genome)
        shape = self.input_shape(genes.resolution)
        return self.space.backbone(genes.depths, genes.kernels, genes.expansions, shape, self.classes)

    def decode(self, genome: Sequence[int]) -> Architecture:
        """Return the early-exit architecture of `genome`, its heads designed to keep the cost order.

        Raises:
            SpaceError: if the genome is not of this space.
            NotAnEENNError: if it places no early exit and the coder is not `static`.
            CostOrderError: if no head keeps the cost order.
        """
        stages = self.genes(genome).exits
        if not stages and self.static:
            return self.backbone(genome)
        if not stages:
            raise NotAnEENNError("an early-exit network needs at least one early exit, got none")
        return design_exits(self.backbone(genome), stages, self.space.exit_widths)

    def largest(self) -> Architecture:
        """Return the space's largest network: every choice at its largest, and the early exits that cost most.

        Those need not be all of them: an exit that stands closer to the next must have a cheaper head.
        """
        genome = self.upper
        networks = [self.backbone(as_genome(genome))]
        for bits in product((0, 1), repeat=len(self.space.stages) - 1):
            genome[self.exit_genes] = bits
            with suppress(NotAnEENNError, CostOrderError):
                networks.append(self.decode(as_genome(genome)))
        return max(networks, key=lambda network: static_costs(network).worst_macs)

    def backbone_genes(self, genome: Sequence[int]) -> list[int]:
        """Return the genes of `genome` without the exit bits."""
        genes = list(genome)
        del genes[self.exit_genes]
        return genes

    def draw(self, rng: np.random.Generator, draws: int) -> IntArray:
        """Return those of `draws` random genomes that are members, canonical, int64 (m, length).

        Every gene is uniform; m <= draws: those without an early exit are left out, unless the coder is `static`.
        """
        genomes = rng.integers(0, self.upper, (draws, self.length), endpoint=True)
        if self.static:
            return self.canonical(genomes)
        return self.canonical(genomes[genomes[:, self.exit_genes].any(axis=1)])

    def sample(self, rng: np.random.Generator) -> Genome:
        """Return a random canonical member: every gene uniform, then rejection of those without an early exit."""
        while not len(found := self.draw(rng, 1)):
            pass
        return as_genome(found[0])


def as_genome(row: IntArray) -> Genome:
    """Return one row of a population as a tuple of Python integers."""
    return tuple(int(gene) for gene in row)


def from_cnas(coder: GenomeCoder, text: str, *, unpadded: bool = False) -> Genome:
    """Return the canonical genome of a configuration in the JSON form that CNAS writes.

    Args:
        coder: of the space the configuration is from.
        text: `{"ks": [...], "e": [...], "d": [...], "b": [...], "r": 32}`; the lists `ks` and `e` are compact
            (one entry per layer) or padded (one per slot). Without `b` no early exit is placed.
        unpadded: return instead the network that the released sampler builds from a compact list: it reads the
            entries as those of the first slots, whatever the depths, and fills the slots that remain with the
            largest kernel and expansion.

    Returns:
        The genome, a tuple of integers.

    Raises:
        SpaceError: if the text is not such a configuration; the message names the field and the rule.
    """
    try:
        fields = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise SpaceError(f"configuration is not JSON: {error}") from None
    if not isinstance(fields, Mapping):
        raise SpaceError(f"configuration must be a JSON object, got {type(fields).__name__}")
    space, stages, slots = coder.space, len(coder.space.stages), coder.space.slots
    depths = _choices(fields, "d", space.depths, (stages,))
    layers = [space.depths[gene] for gene in depths]
    genome = list(depths)
    for field, values in (("ks", space.kernels), ("e", space.expansions)):
        genes = _choices(fields, field, values, (sum(layers), stages * slots))
        if len(genes) != stages * slots and unpadded:
            genes += [len(values) - 1] * (stages * slots - len(genes))
        elif len(genes) != stages * slots:
            compact = iter(genes)
            genes = [next(compact) if slot < depth else 0 for depth in layers for slot in range(slots)]
        genome += genes
    genome += _choices({"b": [0] * (stages - 1)} | dict(fields), "b", (0, 1), (stages - 1,))
    if len(space.resolutions) > 1 or "r" in fields:
        resolutions = space.resolutions or coder.image_shape[:1]
        resolution = _choices({"r": [fields.get("r")]}, "r", resolutions, (1,))
        genome += resolution if len(space.resolutions) > 1 else []
    return as_genome(coder.canonical(np.array([genome]))[0])


def _choices(fields: Mapping[str, Any], field: str, values: Sequence[int], lengths: tuple[int, ...]) -> list[int]:
    """Return the choice indices of a configuration's list."""
    given = fields.get(field)
    rule = " or ".join(str(length) for length in sorted(set(lengths)))
    if not isinstance(given, list) or len(given) not in lengths:
        got = f"{len(given)}" if isinstance(given, list) else repr(given)
        raise SpaceError(f"configuration: {field} must be a list of {rule} entries, got {got}")
    for entry in given:
        if type(entry) is not int or entry not in values:
            raise SpaceError(f"configuration: {field} must be of {tuple(values)}, got {entry!r}")
    return [values.index(entry) for entry in given]


def to_cnas(coder: GenomeCoder, genome: Sequence[int]) -> str:
    """Return the configuration JSON that CNAS reads, its lists compact; `b` only when an exit is placed."""
    genes = coder.genes(genome)
    fields: dict[str, Any] = {
        "ks": [kernel for stage in genes.kernels for kernel in stage],
        "e": [expansion for stage in genes.expansions for expansion in stage],
        "d": list(genes.depths),
    }
    if genes.exits:
        fields["b"] = [int(stage in genes.exits) for stage in range(1, len(genes.depths))]
    fields["r"] = coder.input_shape(genes.resolution)[0]
    return json.dumps(fields)
