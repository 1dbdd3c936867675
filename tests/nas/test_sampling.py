"""First candidates: distinct, admissible, and spread over the costs when that is asked for."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from nachos_min.eenn.architecture import FinalHead
from nachos_min.eenn.lowering import GridHead
from nachos_min.nas import sampling
from nachos_min.nas.aims import GENES_BESIDE_COSTS, Features
from nachos_min.nas.genome import Genome, GenomeCoder
from nachos_min.nas.limits import Limits, StaticCheck
from nachos_min.nas.space import Space, load_space

CODER = GenomeCoder(load_space("micro"), (8, 8, 1), 10)
NO_LIMITS = Limits(None, 0.0)


@pytest.fixture
def check() -> StaticCheck:
    return StaticCheck(CODER, Limits(30_000, 0.9))


def nearest(check: StaticCheck, genomes: list[tuple[int, ...]]) -> float:
    """The smallest distance of two genomes in their costs."""
    features = sampling.cost_features(check.population(np.array(genomes))[0])
    distance = ((features[:, None] - features) ** 2).sum(axis=2)
    return float(np.sqrt(distance[~np.eye(len(genomes), dtype=bool)].min()))


@pytest.mark.parametrize("sample", [sampling.random_genomes, sampling.spread_genomes])
def test_genomes_are_distinct_and_admissible(sample: Any, check: StaticCheck) -> None:
    genomes = sample(check, 40, np.random.default_rng(0))
    assert len(set(genomes)) == 40
    assert check.population(np.array(genomes))[1].all()
    assert genomes == sample(check, 40, np.random.default_rng(0))
    assert not set(genomes) & set(sampling.random_genomes(check, 40, np.random.default_rng(0), seen=genomes))
    assert sample(StaticCheck(CODER, Limits(1, 0.9)), 3, np.random.default_rng(0)) == []


@pytest.mark.parametrize("seed", range(3))
def test_spread_genomes_are_each_the_farthest_from_those_before(check: StaticCheck, seed: int) -> None:
    spread = sampling.spread_genomes(check, 20, np.random.default_rng(seed))
    drawn = sampling.random_genomes(check, 20, np.random.default_rng(seed))
    assert nearest(check, spread) > 2 * nearest(check, drawn)
    gaps = [nearest(check, spread[:k]) for k in range(2, 17)]
    assert gaps == sorted(gaps, reverse=True)


def test_features_are_genes_and_if_wanted_exact_costs(check: StaticCheck) -> None:
    genomes = np.array(sampling.random_genomes(check, 9, np.random.default_rng(2)))
    costs, _ = check.population(genomes)
    genes = Features(CODER.upper)(genomes, costs)
    assert (genes == genomes / np.maximum(CODER.upper, 1)).all()
    both = Features(CODER.upper, costs=True, scale=(100_000, 5_000))(genomes, costs)
    assert (both[:, : CODER.length] == GENES_BESIDE_COSTS * genes).all()
    for seen, exits, leaving in zip(both, costs.exits, costs.exit_costs, strict=True):
        later = [leaving[stage:][exits[stage:]][0] for stage in range(len(exits))]  # where to leave from a stage on
        np.testing.assert_allclose(10 ** seen[CODER.length : -1], np.array(later) / 100_000)
    np.testing.assert_allclose(10 ** both[:, -1], costs.params / 5_000)


def rules_of(space: str | Space, side: int, classes: int = 10, limits: Limits = NO_LIMITS) -> tuple[Any, list[Any]]:
    coder = GenomeCoder(load_space(space) if isinstance(space, str) else space, (side, side, 1), classes)
    check = StaticCheck(coder, limits)
    genomes = sampling.rule_genomes(check)
    assert len(set(genomes)) == len(genomes)
    rows = np.array(genomes, np.int64).reshape(-1, coder.length)
    assert check.population(rows)[1].all()
    return coder, [coder.genes(genome) for genome in genomes]


@pytest.mark.parametrize(("space", "side"), [("tiny", 8), ("small32", 32), ("ofa-mbv3", 32)])
def test_rules_are_the_smallest_network_and_a_cheap_first_stage_before_large_ones(space: str, side: int) -> None:
    coder, (smallest, staged) = rules_of(space, side)
    least, *_, most = coder.space.depths
    assert smallest.depths == (least,) * len(smallest.depths)
    assert staged.depths == (least, *[most] * (len(staged.depths) - 1))
    for genes in (smallest, staged):
        first, *rest = zip(genes.kernels, genes.expansions, strict=True)
        take = max if genes is staged else min
        assert first == ((coder.space.kernels[0],) * least, (coder.space.expansions[0],) * least)
        assert {value for kernels, _ in rest for value in kernels} == {take(coder.space.kernels)}
        assert {value for _, expansions in rest for value in expansions} == {take(coder.space.expansions)}
        assert genes.exits == tuple(range(1, len(genes.depths)))


def test_rules_of_a_space_of_widths_stem_and_heads() -> None:
    _, found = rules_of("flex32", 32)
    small, large, middle = (1, 1, 1), (1, 3, 3), ((12, 24, 40), 8, 2, 32, 8)  # depths; then the rest
    assert [
        (g.depths, g.widths, g.stem.channels, g.stem.stride, g.resolution, g.heads[0].cells) for g in found
    ] == [(small, (8, 12, 20), 4, 2, 16, 4), (large, (8, 36, 60), 4, 2, 32, 8), (small, *middle), (large, *middle)]
    assert {(genes.exits, genes.heads[0].widths) for genes in found} == {((1, 2), ())}


def test_rules_place_fewer_exits_or_cheaper_heads_where_the_order_needs_it_and_nothing_beyond_limits() -> None:
    narrowing = tuple(replace(CODER.space.stages[0], channels=(channels,)) for channels in (24, 28, 20))
    space = replace(CODER.space, stages=narrowing, exit_widths=(), final=FinalHead(0, 0, "relu"))
    _, found = rules_of(space, 8, classes=20_000)
    assert [genes.exits for genes in found] == [(1,), (1, 2)]
    _, found = rules_of("flex8", 8, classes=60)
    assert [genes.heads[0] for genes in found] == [GridHead(2, ()), GridHead(4, ())] * 2
    assert rules_of("flex16", 16, limits=Limits(1, 0.0))[1] == []
    assert len(rules_of("flex16", 16, limits=Limits(10_000, 0.0))[1]) == 2


@pytest.mark.parametrize("space", ["micro", "flex8"])
def test_networks_that_fill_a_budget_do_so_with_their_first_exit_and_have_a_large_rest(space: str) -> None:
    coder = GenomeCoder(load_space(space), (8, 8, 1), 10)
    check, budgets = StaticCheck(coder, Limits(40_000, 0.9, max_worst_macs=120_000)), (20_000, 30_000, 40_000)
    genomes = sampling.filling_genomes(check, budgets, np.random.default_rng(0))
    assert len(set(genomes)) == len(genomes) == 6
    costs, admissible = check.population(np.array(genomes))
    assert (admissible & costs.exits.all(axis=1)).all()
    share = costs.cheapest / np.repeat(budgets, 2)
    assert ((share > 0.75) & (share <= 0.95)).all()
    assert space == "micro" or (costs.worst_macs[4:] > 0.8 * 120_000).all()
    assert sampling.filling_genomes(check, [100], np.random.default_rng(0)) == []


@pytest.mark.parametrize("most", [2, 3])
def test_every_start_meets_a_limit_on_exits(most: int) -> None:
    coder = GenomeCoder(load_space("tiny"), (8, 8, 1), 10)
    check, rng = StaticCheck(coder, Limits(40_000, 0.0, max_exits=most)), np.random.default_rng(0)
    by_rule = sampling.rule_genomes(check)
    filling = sampling.filling_genomes(check, [40_000], rng)
    assert (len(by_rule), len(filling)) == (2, 2)
    for genome in by_rule + filling:
        assert coder.genes(genome).exits == tuple(range(1, most))
    genomes = sampling.random_genomes(check, 20, rng) + sampling.neighbour_genomes(check, 20, rng, by_rule)
    counts = [len(coder.genes(genome).exits) + 1 for genome in genomes]
    assert (len(counts), max(counts)) == (40, most)


def test_neighbours_are_new_admissible_and_mostly_like_a_parent(check: StaticCheck) -> None:
    parents = sampling.random_genomes(check, 2, np.random.default_rng(0))
    near = sampling.neighbour_genomes(check, 30, np.random.default_rng(1), parents)
    assert len(set(near) - set(parents)) == len(near) == 30
    assert check.population(np.array(near))[1].all()

    def changed(genomes: list[Genome]) -> float:
        return float(np.mean([min(np.not_equal(each, parent).mean() for parent in parents) for each in genomes]))

    assert changed(near) < 0.6 * changed(sampling.random_genomes(check, 30, np.random.default_rng(1)))
    none = StaticCheck(CODER, Limits(1, 0.9))
    assert sampling.neighbour_genomes(none, 3, np.random.default_rng(0), parents) == []
