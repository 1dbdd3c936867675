"""Genomes: members of a space as integer vectors, their canonical form, and what they decode to.

The genes are choice indices, in this order (S stages, D slots a stage):

    depth S | kernel S x D | expansion S x D | exit bit S-1 | resolution, widths 1..S, stem channels, stem stride
    | exit head S-1

Slots beyond a stage's depth are inactive. Resolution, widths and stem have a gene if there are several values, exit
heads if no ladder decides them. In the canonical form genes that change nothing are 0 or as small as they can be:
genomes with equal canonical forms are the same network.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from itertools import product
from operator import itemgetter
from typing import Any

import numpy as np

from nachos_min.data.dataset import fitted_size
from nachos_min.eenn.architecture import Architecture, Exit, ExitHead, Map, Stem, is_flat, least_side
from nachos_min.eenn.lowering import PartCost, design_exits, part_cost, segment_costs
from nachos_min.nas.space import Genes, Space, SpaceError

IntArray = np.ndarray[Any, np.dtype[np.int64]]
Genome = tuple[int, ...]
# How a network may go on behind a map: MACs up to and with the next exit's head, MACs in all, widths, early exits.
_Way = tuple[int, int, tuple[int, ...], tuple[Exit, ...]]


class NotAnEENNError(ValueError):
    """The genome places no early exit: it is a static network."""


@dataclass(frozen=True)
class GenomeCoder:
    """Translates between genomes of `space` and architectures for images of `image_shape` (H, W, C).

    With `static` the members are networks without early exits: the canonical form has no exit bit set.
    """

    space: Space
    image_shape: tuple[int, int, int]
    classes: int
    static: bool = False

    @property
    def length(self) -> int:
        """Number of genes."""
        return len(self.values)

    @cached_property
    def values(self) -> tuple[tuple[Any, ...], ...]:
        """The values that each gene selects from."""
        space, stages = self.space, len(self.space.stages)
        layers = stages * space.slots
        found = [space.depths] * stages + [space.kernels] * layers + [space.expansions] * layers
        found += [(False, True)] * (stages - 1) + [space.optional[name] for name in self.places]
        return (*found, *([space.exit_heads] * (stages - 1) if space.exit_heads else []))

    @cached_property
    def upper(self) -> IntArray:
        """Largest value of each gene, int64 (length,), not to be written to; the smallest is 0."""
        upper = np.array([len(values) - 1 for values in self.values], np.int64)
        upper.flags.writeable = False
        return upper

    @cached_property
    def exit_genes(self) -> slice:
        """Indices of the exit bits."""
        begin = len(self.space.stages) * (1 + 2 * self.space.slots)
        return slice(begin, begin + len(self.space.stages) - 1)

    @cached_property
    def places(self) -> Mapping[str, int]:
        """Indices of the genes of `Space.optional`, which are those with several values."""
        several = [name for name, values in self.space.optional.items() if len(values) > 1]
        return {name: place for place, name in enumerate(several, start=self.exit_genes.stop)}

    @cached_property
    def head_genes(self) -> slice:
        """Indices of the genes of exit heads; empty where a ladder decides."""
        begin = self.exit_genes.stop + len(self.places)
        return slice(begin, begin + (len(self.space.stages) - 1) * bool(self.space.exit_heads))

    @cached_property
    def _same_heads(self) -> IntArray:
        """Least gene of the same head, by the genes of resolution and stem stride, stage and head gene."""
        found = []
        for side, stride in product(self.space.optional["resolution"], self.space.stem.stride):
            image = self.input_shape(side)
            for sides in self.space.maps(image, stride)[1:-1]:
                heads = self.space.heads(least_side(sides, is_flat(image)))
                found.append([heads.index(head) for head in heads])
        return np.array(found).reshape(-1, len(self.space.stem.stride), len(self.space.stages) - 1, len(found[0]))

    def canonical(self, genomes: IntArray) -> IntArray:
        """Return the canonical form of `genomes` (n, length), int64 of that shape.

        Genes of inactive slots and of heads without an exit are 0. A head gene is the least that selects the head.
        """
        stages, slots = len(self.space.stages), self.space.slots
        depths = np.array(self.space.depths)[genomes[:, :stages]]
        active = (np.arange(slots) < depths[:, :, None]).reshape(len(genomes), stages * slots)
        result = genomes.astype(np.int64, copy=True)
        result[:, stages : stages + 2 * stages * slots] *= np.tile(active, 2)
        if self.static:
            result[:, self.exit_genes] = 0
        if self.space.exit_heads:
            open_genes = (self.places.get(name) for name in ("resolution", "stem stride"))
            side, stride = (0 if place is None else result[:, [place]] for place in open_genes)
            least = self._same_heads[side, stride, np.arange(stages - 1), result[:, self.head_genes]]
            result[:, self.head_genes] = least * result[:, self.exit_genes]
        return result

    def genes(self, genome: Sequence[int]) -> Genes:
        """Return the values that `genome` selects; SpaceError if its length or a gene is out of range."""
        space, stages, slots = self.space, len(self.space.stages), self.space.slots
        if len(genome) != self.length:
            raise SpaceError(f"genome of space {space.name} must have {self.length} genes, got {len(genome)}")
        for position, (gene, largest) in enumerate(zip(genome, self.upper.tolist(), strict=True)):
            if not 0 <= gene <= largest:
                raise SpaceError(f"gene {position} must be in 0..{largest}, got {gene}")
        chosen = [values[gene] for gene, values in zip(genome, self.values, strict=True)]
        depths = tuple(chosen[:stages])

        def rows(begin: int) -> tuple[tuple[int, ...], ...]:
            starts = range(begin, begin + stages * slots, slots)
            return tuple(tuple(chosen[s : s + depth]) for s, depth in zip(starts, depths, strict=True))

        several = {name: chosen[place] for name, place in self.places.items()}
        optional = [several.get(name, values[0]) for name, values in space.optional.items()]
        resolution, *widths, channels, stride = optional
        kernels, expansions = rows(stages), rows(stages + stages * slots)
        exits = tuple(stage for stage, placed in enumerate(chosen[self.exit_genes], start=1) if placed)
        stem, heads = space.stem.one(channels, stride), tuple(chosen[self.head_genes])
        return Genes(depths, kernels, expansions, exits, resolution, tuple(widths), stem, heads)

    def input_shape(self, resolution: int | None) -> Map:
        """Return (H, W, C) of an image as the network sees it at `resolution` (None: the data's own)."""
        height, width, channels = self.image_shape
        return (*((height, width) if resolution is None else fitted_size((height, width), resolution)), channels)

    def backbone(self, genome: Sequence[int] | Genes) -> Architecture:
        """Return the backbone of a genome, or of its genes, without early exits."""
        genes = genome if isinstance(genome, Genes) else self.genes(genome)
        return self.space.backbone(genes, self.input_shape(genes.resolution), self.classes)

    def decode(self, genome: Sequence[int]) -> Architecture:
        """Return the early-exit architecture of `genome`, with the heads of its genes or of the ladder.

        Raises:
            SpaceError: the genome is not of this space.
            NotAnEENNError: it places no early exit, and the coder is not `static`.
            CostOrderError: its heads, or all of the ladder, break the cost order.
        """
        genes = self.genes(genome)
        if not genes.exits:
            if self.static:
                return self.backbone(genes)
            raise NotAnEENNError("an early-exit network needs at least one early exit, got none")
        heads = [genes.heads[stage - 1] for stage in genes.exits] if genes.heads else ()
        return design_exits(self.backbone(genes), genes.exits, self.space.exit_widths, heads)

    def heads(self, feature_map: Map, flat: bool) -> list[tuple[ExitHead, PartCost]]:
        """Return the heads, with their counts, that an exit may have on a map (H, W, C): by gene, or of the ladder.

        `flat` says whether the network `is_flat`. A head of the ladder must be cheaper than all before it, because
        the first below a bound is taken. They are returned cheapest first.
        """
        heads = self.space.heads(least_side(feature_map, flat))
        found = [(head, part_cost(head, feature_map, self.classes, flat=flat)) for head in heads]
        if self.space.exit_heads:
            return found
        return [each for i, each in enumerate(found) if all(each[1].macs < c.macs for _, c in found[:i])][::-1]

    def before(self, resolution: int | None, stem: Stem) -> PartCost:
        """Return the counts of `stem` and the trunk behind it together."""
        trunk, shape = self.space.trunk_behind(stem), self.input_shape(resolution)
        return segment_costs(Architecture(shape, self.classes, stem, trunk, (), (), self.space.final))[0]

    def largest(self) -> Architecture:
        """Return the network of the space that costs most MACs when no sample leaves early.

        Depths, kernels and expansions are the largest: more MACs between exits never break the cost order. Widths
        and exits are chosen from the last stage to the first.
        """
        space, stages, slots = self.space, len(self.space.stages), self.space.slots
        form = space.kernels[-1], space.expansions[-1]

        @cache
        def ways(maps: tuple[tuple[int, int], ...], flat: bool, number: int, reads: int) -> list[_Way]:
            """Return the ways on from a map at stage `number`, none of them dominated, that of most MACs first."""
            here = (*maps[number - 1], reads)
            if number > stages:
                final = part_cost(space.final, here, self.classes, flat=flat).macs
                return [(final, final, (), ())]
            stage, on = space.stages[number - 1], list[_Way]()
            for width in stage.channels:
                block, behind = space.block(stage, reads, width, *form, stage.stride), (*maps[number], width)
                first = part_cost(block, here, flat=flat).macs
                further = part_cost(space.block(stage, width, width, *form, 1), behind, flat=flat).macs
                macs = first + (slots - 1) * further
                for near, far, widths, exits in ways(maps, flat, number + 1, width):
                    on.append((near + macs, far + macs, (width, *widths), exits))
            heads = self.heads(here, flat) if number > 1 else []
            on += [
                (cost.macs, far + cost.macs, widths, (Exit(number - 1, head), *exits))
                for near, far, widths, exits in on
                for head, cost in heads
                if cost.macs < near
            ]
            kept: list[_Way] = []
            for way in sorted(on, key=lambda way: (-way[1], -way[0])):
                if not kept or way[0] > kept[-1][0]:
                    kept.append(way)
            return kept

        kernels, expansions = (((value,) * slots,) * stages for value in form)
        found = []
        for side, stride in product(space.optional["resolution"], space.stem.stride):
            image = self.input_shape(side)
            maps, flat = tuple(space.maps(image, stride)), is_flat(image)
            for channels, reads in zip(space.stem.channels, space.entering(1), strict=True):
                stem, (_, macs, widths, exits) = space.stem.one(channels, stride), ways(maps, flat, 1, reads)[0]
                genes = Genes((slots,) * stages, kernels, expansions, (), side, widths, stem, ())
                found.append((macs + self.before(side, stem).macs, genes, exits))
        _, genes, exits = max(found, key=itemgetter(0))
        return self.backbone(genes).with_exits(exits)

    def backbone_genes(self, genome: Sequence[int]) -> list[int]:
        """Return the genes of `genome` without the exit bits and the genes of heads."""
        genes = list(genome)
        del genes[self.head_genes], genes[self.exit_genes]
        return genes

    def draw(self, rng: np.random.Generator, draws: int) -> IntArray:
        """Return the canonical members of `draws` uniform random genomes, int64 (m <= draws, length)."""
        genomes = rng.integers(0, self.upper, (draws, self.length), endpoint=True)
        kept = self.static | genomes[:, self.exit_genes].any(axis=1)
        return self.canonical(genomes[kept])

    def sample(self, rng: np.random.Generator) -> Genome:
        """Return a random canonical member, the next that `draw` gives."""
        while not len(found := self.draw(rng, 1)):
            pass
        return as_genome(found[0])


def as_genome(row: IntArray) -> Genome:
    """Return one row of a population as a tuple of Python integers."""
    return tuple(row.tolist())


def from_cnas(coder: GenomeCoder, fields: Mapping[str, Any], *, unpadded: bool = False) -> Genome:
    """Return the canonical genome of a configuration that CNAS writes as JSON; SpaceError if there is none here.

    `fields` are `{"ks": [...], "e": [...], "d": [...], "b": [...], "r": 32}`; the lists `ks` and `e` are compact
    (one entry per layer) or padded (one per slot). Without `b` no early exit is placed. `unpadded` gives the
    network that the released sampler builds from a compact list: its entries fill the first slots, whatever the
    depths, and the largest choice fills the rest.
    """
    space, stages, slots = coder.space, len(coder.space.stages), coder.space.slots
    if unknown := [*(coder.places.keys() - {"resolution"}), *["exit heads"] * bool(space.exit_heads)]:
        rule = "a configuration is of a space without genes of widths, stem and exit heads"
        raise SpaceError(f"{rule}, got {space.name} with {', '.join(sorted(unknown))}")
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
        resolutions = space.resolutions or (least_side(coder.image_shape, is_flat(coder.image_shape)),)
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
