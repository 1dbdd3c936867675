"""Genomes: canonical form, decoding, and the configuration JSON of CNAS."""

from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from nachos_min.eenn.architecture import Architecture
from nachos_min.eenn.lowering import CostOrderError, static_costs
from nachos_min.nas.genome import GenomeCoder, NotAnEENNError, as_genome, from_cnas
from nachos_min.nas.space import SpaceError, load_space

TINY = GenomeCoder(load_space("tiny"), (8, 8, 1), 10)
OFA = GenomeCoder(load_space("ofa-mbv3"), (32, 32, 3), 10)
MICRO = GenomeCoder(load_space("micro"), (8, 8, 1), 10)
FLEX = [
    GenomeCoder(load_space(f"flex{side}"), (side, side, channels), classes)
    for side, channels, classes in ((8, 1, 10), (16, 1, 26), (32, 3, 10))
]
COMPACT = {"ks": [3] * 10, "e": [3] * 10, "d": [2] * 5, "b": [1, 0, 0, 0], "r": 32}
flexible = pytest.mark.parametrize("coder", FLEX, ids=lambda coder: coder.space.name)


def test_different_canonical_genomes_are_different_networks() -> None:
    grid = np.indices(MICRO.upper + 1).reshape(MICRO.length, -1).T
    members = {as_genome(row) for row in MICRO.canonical(grid) if row[MICRO.exit_genes].any()}
    architectures = {MICRO.decode(member) for member in members}
    assert len(members) == len(architectures) == 6 * 6 * 6 * 3


@pytest.mark.parametrize("coder", [TINY, OFA, *FLEX], ids=lambda coder: coder.space.name)
def test_canonical_forms_are_equal_exactly_for_equal_networks(coder: GenomeCoder) -> None:
    """Of genomes that differ in a few genes only, since any two others are different networks."""
    rng, equal = np.random.default_rng(0), 0
    for _ in range(20):
        rows = np.tile(rng.integers(0, coder.upper, endpoint=True), (60, 1))
        free = rng.random(coder.length) < 0.2
        free[coder.head_genes] = True
        rows[:, free] = rng.integers(0, coder.upper[free], (60, free.sum()), endpoint=True)
        networks: dict[tuple[int, ...], set[Architecture]] = {}
        assert (coder.canonical(coder.canonical(rows)) == coder.canonical(rows)).all()
        for row, canonical in zip(rows, coder.canonical(rows), strict=True):
            with suppress(NotAnEENNError, CostOrderError):
                found = coder.decode(as_genome(row))
                assert coder.decode(as_genome(canonical)) == found
                networks.setdefault(as_genome(canonical), set()).add(found)
                equal += 1
        assert all(len(same) == 1 for same in networks.values())
        assert len(set().union(*networks.values())) == len(networks)
        equal -= len(networks)
    assert equal > 50  # else this test has compared nothing


@flexible
def test_genes_of_heads_are_0_where_no_exit_is(coder: GenomeCoder) -> None:
    rows = np.random.default_rng(0).integers(0, coder.upper, (200, coder.length), endpoint=True)
    canonical = coder.canonical(rows)
    assert not canonical[:, coder.head_genes][canonical[:, coder.exit_genes] == 0].any()
    static = replace(coder, static=True).canonical(rows)
    assert not static[:, coder.head_genes].any()
    for with_exits, without in zip(canonical.tolist(), static.tolist(), strict=True):
        assert coder.backbone_genes(with_exits) == coder.backbone_genes(without)


def test_samples_are_canonical_eenns_and_reach_every_gene_value() -> None:
    rng = np.random.default_rng(0)
    samples = np.array([TINY.sample(rng) for _ in range(500)])
    assert (TINY.canonical(samples) == samples).all()
    assert samples[:, TINY.exit_genes].any(axis=1).all()
    assert (samples.max(axis=0) == TINY.upper).all()
    assert (samples.min(axis=0) == 0).all()


@pytest.mark.parametrize(
    ("genome", "error", "message"),
    [
        ((0,) * TINY.length, NotAnEENNError, "needs at least one early exit, got none"),
        ((0, 0, 1), SpaceError, f"must have {TINY.length} genes, got 3"),
        ((0, 3) + (0,) * (TINY.length - 2), SpaceError, r"gene 1 must be in 0\.\.2, got 3"),
    ],
)
def test_what_is_no_member_is_refused(genome: tuple[int, ...], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        TINY.decode(genome)


def test_several_resolutions_are_one_more_gene() -> None:
    coder = replace(OFA, space=replace(OFA.space, resolutions=(32, 48, 64)))
    assert coder.length == 50
    genome = (0,) * 45 + (1, 0, 0, 0, 2)
    assert coder.decode(genome).input_shape == (64, 64, 3)
    assert from_cnas(coder, COMPACT | {"r": 64}) == genome


def test_cnas_configurations_compact_and_padded_are_the_same_network() -> None:
    kernels = [3, 5, 5, 3, 7, 5, 3, 3, 3, 3]
    compact = COMPACT | {"ks": kernels, "b": [0, 1, 0, 1]}
    padded_kernels = [k for i in range(0, 10, 2) for k in (*kernels[i : i + 2], 7, 7)]
    padded = compact | {"ks": padded_kernels, "e": [3, 3, 6, 6] * 5}
    genome = from_cnas(OFA, compact)
    assert genome == from_cnas(OFA, padded)
    genes = OFA.genes(genome)
    assert [k for stage in genes.kernels for k in stage] == kernels
    assert (genes.depths, genes.exits) == ((2,) * 5, (2, 4))
    assert {e for stage in genes.expansions for e in stage} == {3}
    # Counted by hand for the worked example: 4,061,904 MACs without early exits.
    del compact["b"]
    static = OFA.backbone(from_cnas(OFA, compact))
    assert static_costs(static).exit_costs == (4_061_904,)
    assert static_costs(static).params == 2_153_546


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ks": [3] * 11}, "ks must be a list of 10 or 20 entries, got 11"),
        ({"e": "3"}, "e must be a list of 10 or 20 entries"),
        ({"e": [3] * 9 + [5]}, r"e must be of \(3, 4, 6\), got 5"),
        ({"d": [2, 2, 2, 2, 5]}, "d must be of"),
        ({"d": [2, 2]}, "d must be a list of 5 entries"),
        ({"b": [1, 1, 1]}, "b must be a list of 4 entries"),
        ({"b": [True, 0, 0, 0]}, "b must be of"),
        ({"r": 31}, "r must be of"),
    ],
)
def test_what_is_no_configuration_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        from_cnas(OFA, COMPACT | changes)


@flexible
def test_a_configuration_has_no_genes_of_widths_stem_and_heads(coder: GenomeCoder) -> None:
    message = f"without genes of widths, stem and exit heads, got {coder.space.name} with exit heads"
    with pytest.raises(SpaceError, match=message):
        from_cnas(coder, {})


def test_the_largest_has_the_exits_that_cost_most_or_none_where_none_fits() -> None:
    assert static_costs(OFA.largest()).worst_macs == 22_132_256
    assert OFA.largest().exit_stages == (1, 4, 5)  # with all exits: 19,457,056
    micro = load_space("micro")
    narrow = replace(micro, exit_widths=(), final=replace(micro.final, expand=4))
    coder = GenomeCoder(narrow, (8, 8, 1), 100_000)  # classes: 4 products each at the end, 8 or more at an exit
    with pytest.raises(CostOrderError):
        coder.decode(as_genome(coder.upper))
    assert coder.largest().exits == ()
