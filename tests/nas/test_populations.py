"""Whole populations by tables: the integers of counting each genome, in every space, or a refusal."""

from dataclasses import fields, replace
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from nachos_min.eenn.architecture import FinalHead
from nachos_min.eenn.lowering import CostOrderError, GridHead, StaticCosts, part_cost, static_costs
from nachos_min.nas.genome import GenomeCoder, NotAnEENNError, as_genome
from nachos_min.nas.limits import Limits, StaticCheck
from nachos_min.nas.populations import CostTables, NoTablesError, PopulationCosts, count_each
from nachos_min.nas.space import Space, SpaceError, StageSpec, StemSpec, TrunkBlock, load_space, shipped_spaces

MICRO = GenomeCoder(load_space("micro"), (8, 8, 1), 10)
OFA = GenomeCoder(load_space("ofa-mbv3"), (32, 32, 3), 10)
FLEX = GenomeCoder(load_space("flex32"), (32, 32, 3), 10)

small = st.integers(1, 12)
activations = st.sampled_from(["relu", "hswish"])
images = st.tuples(st.integers(1, 20), st.integers(1, 20), st.integers(1, 3))
# With many classes most exits cannot be cheaper than going on.
class_counts = st.sampled_from([1, 10, 300, 5000])


def ascending(values: list[int], least: int = 1) -> st.SearchStrategy[tuple[int, ...]]:
    return st.sets(st.sampled_from(values), min_size=least, max_size=3).map(lambda found: tuple(sorted(found)))


several = ascending(list(range(1, 13)))
widths = st.lists(st.integers(1, 40), max_size=3).map(tuple)
ladders = st.builds(dict, exit_widths=widths)
grids = st.lists(st.builds(GridHead, st.integers(1, 5), widths), min_size=1, max_size=4).map(tuple)
head_genes = st.builds(dict, exit_widths=st.just(()), exit_heads=grids)
one_or_two = st.integers(1, 2)
blocks = st.builds(TrunkBlock, small, one_or_two, st.just(3), one_or_two, activations, st.booleans())
stage_specs = st.builds(StageSpec, several, one_or_two, activations, st.booleans())
own_spaces = st.builds(
    lambda heads, **fields: Space(**heads, **fields),
    ladders | head_genes,
    name=st.just("own"),
    depths=ascending([1, 2, 3, 5]),
    kernels=ascending([1, 3, 5]),
    expansions=ascending([1, 2, 3, 6]),
    resolutions=ascending([5, 8, 13], least=0),
    divisor=st.sampled_from([1, 4, 8]),
    stem=st.builds(StemSpec, several, st.sampled_from([1, 3]), ascending([1, 2, 3]), activations),
    trunk=st.lists(blocks, max_size=2).map(tuple),
    stages=st.lists(stage_specs, min_size=2, max_size=4).map(tuple),
    final=st.builds(FinalHead, st.sampled_from([0, 20]), st.sampled_from([0, 30]), activations),
)
shipped = st.sampled_from(shipped_spaces()).map(load_space)
coders = st.builds(GenomeCoder, shipped | own_spaces, images, class_counts)


def random_genomes(coder: GenomeCoder, n: int, seed: int = 0) -> Any:
    """Not canonical: genes of inactive slots are whatever they are."""
    return np.random.default_rng(seed).integers(0, coder.upper, (n, coder.length), endpoint=True)


def counted(coder: GenomeCoder, genome: tuple[int, ...]) -> StaticCosts | str:
    try:
        return static_costs(coder.decode(genome))
    except (CostOrderError, NotAnEENNError) as error:
        return str(error)


def assert_equal(ours: PopulationCosts, theirs: PopulationCosts) -> None:
    for field in fields(PopulationCosts):
        left, right = getattr(ours, field.name), getattr(theirs, field.name)
        np.testing.assert_array_equal(left, right, err_msg=field.name)
        assert (left.dtype, left.shape) == (right.dtype, right.shape)


@settings(max_examples=200, deadline=None)
@given(coders, st.integers(0, 1 << 32))
def test_tables_give_what_counting_gives(coder: GenomeCoder, seed: int) -> None:
    genomes, tables = random_genomes(coder, 25, seed), CostTables(coder)
    found = tables.costs(genomes)
    assert_equal(found, count_each(coder, genomes))
    assert_equal(found, tables.costs(coder.canonical(genomes)))  # genes of inactive slots change nothing
    assert static_costs(coder.largest()).worst_macs >= found.worst_macs.max()
    for row, genome in enumerate(map(as_genome, genomes)):
        counts = found.worst_macs[row], found.params[row], found.peak_bytes[row]
        match counted(coder, genome):
            case StaticCosts() as costs:
                assert found.legal[row]
                assert tuple(found.exit_costs[row][found.exits[row]]) == costs.exit_costs
                assert found.cheapest[row] == costs.cheapest
                assert counts == (costs.worst_macs, costs.params, costs.peak_bytes)
                assert not found.exit_costs[row][~found.exits[row]].any()
            case reason if found.unordered[row]:
                assert reason.startswith(f"exit after stage {found.unordered[row]}:")
                assert (found.legal[row], *counts) == (False, 0, 0, 0)
            case _:
                assert not found.exits[row, :-1].any()
                assert (found.legal[row], counts[0]) == (False, static_costs(coder.backbone(genome)).worst_macs)


@settings(max_examples=100, deadline=None)
@given(own_spaces, images, class_counts)
def test_the_largest_network_is_the_largest_of_all(space: Space, image: tuple[int, int, int], classes: int) -> None:
    space = replace(space, depths=space.depths[:1], kernels=space.kernels[:1], expansions=space.expansions[:1])
    coder = GenomeCoder(space, image, classes)
    assume(np.prod(coder.upper + 1) < 20_000)
    genomes = np.array(list(product(*(range(largest + 1) for largest in coder.upper))))
    found = CostTables(coder).costs(genomes)
    assert static_costs(coder.largest()).worst_macs == found.worst_macs[found.legal | found.static].max()


def test_a_head_that_costs_just_as_much_as_going_on_is_too_dear() -> None:
    """An exit of 9 + 1 channels before a stage of 9: one class more makes the exit 1 MAC dearer than going on."""
    stages = tuple(replace(MICRO.space.stages[0], channels=(channels,)) for channels in (10, 9))
    bare: dict[str, Any] = {"exit_widths": (), "final": FinalHead(0, 0, "relu")}
    space = replace(MICRO.space, depths=(1,), expansions=(2,), stages=stages, **bare)
    genomes = np.array([[0, 0, 0, 0, 0, 0, 1]])
    backbone = GenomeCoder(space, (2, 2, 1), 1).backbone(as_genome(genomes[0]))
    last_stage = part_cost(backbone.stages[1][0], (1, 1, 10), flat=False).macs
    tie = last_stage - 10  # 10 (classes + 1) = last_stage + 9 classes
    for classes, unordered in ((tie - 1, 0), (tie, 1), (tie + 1, 1)):
        coder = GenomeCoder(space, (2, 2, 1), classes)
        found = CostTables(coder).costs(genomes)
        assert found.unordered.tolist() == [unordered]
        assert_equal(found, count_each(coder, genomes))


@pytest.mark.parametrize("count", [CostTables(MICRO).costs, partial(count_each, MICRO)])
def test_a_population_may_be_empty_and_is_of_any_integers_in_range(count: Any) -> None:
    found = count(np.empty((0, MICRO.length), np.int64))
    assert len(found) == len(found.cheapest) == len(found.legal) == 0
    assert found.exits.shape == found.exit_costs.shape == (0, 3)
    assert Limits(1, 0.5).exceeded(found).shape == (0,)
    genomes = random_genomes(MICRO, 20)
    for kind in (np.uint8, np.int32, np.uint64):
        assert_equal(count(genomes.astype(kind)), count(genomes))
    for wrong in (np.zeros((3, 16), np.int64), np.zeros(17, np.int64), np.zeros((3, 17))):
        with pytest.raises(SpaceError, match="a population of space micro must be integers"):
            count(wrong)
    genomes = np.zeros((5000, 17), np.int64)
    for value in (2, -1, 1 << 62, -(1 << 63)):
        genomes[4999, 1] = value
        with pytest.raises(SpaceError, match=rf"genome 4999: gene 1 must be in 0\.\.1, got {value}$"):
            count(genomes)


def check_limits(coder: GenomeCoder, limits: Limits, genomes: Any) -> None:
    """Check that the members of a population that keep the limits are those that do so alone."""
    check = StaticCheck(coder, limits)
    costs, admissible = check.population(genomes)
    for row, genome in enumerate(map(as_genome, genomes)):
        alone = counted(coder, genome)
        assert admissible[row] == (isinstance(alone, StaticCosts) and not limits.exceeded(alone))
        if isinstance(alone, StaticCosts):
            assert tuple(costs.exit_costs[row][costs.exits[row]]) == alone.exit_costs
    assert check.inadmissible == len({as_genome(row) for row in genomes[~admissible]})


wide = replace(MICRO.space.stages[0], channels=(1 << 20,))
huge = {"stages": (wide, wide), "expansions": (2, 1 << 20)}
many = {"kernels": tuple(range(1, 200, 2)), "expansions": tuple(range(1, 100))}


@pytest.mark.parametrize(
    ("changes", "image", "message"),
    [
        (huge, (8, 8, 1), r"counts below 2\^63, got up to \d{20}"),
        (huge | {"depths": (1, 5)}, (1, 1, 1), r"counts below 2\^63"),
        (many, (8, 8, 1), "at most 16384 choices of layers and heads, got 59400"),
        ({"resolutions": tuple(range(1, 2000))}, (8, 8, 1), "at most 16384 choices"),
    ],
)
def test_where_tables_would_overflow_or_burst_genomes_are_counted(changes: Any, image: Any, message: str) -> None:
    coder = GenomeCoder(replace(MICRO.space, **changes), image, 10)
    with pytest.raises(NoTablesError, match=message):
        CostTables(coder)
    check_limits(coder, Limits(None, 0.5, max_worst_macs=1 << 62), coder.canonical(random_genomes(coder, 20)))


def test_sums_just_below_the_edge_are_exact() -> None:
    space = replace(MICRO.space, stages=(wide, wide), expansions=(1 << 20,), depths=(1, 2), exit_widths=())
    coder = GenomeCoder(space, (2, 2, 1), 10)
    assert 1 << 62 < static_costs(coder.largest()).worst_macs < 1 << 63
    genomes = random_genomes(coder, 40)
    assert_equal(CostTables(coder).costs(genomes), count_each(coder, genomes))


bounds = st.none() | st.sampled_from([10, 30_000, 300_000, 8_000_000, 10**30])


@settings(max_examples=40, deadline=None)
@given(st.sampled_from([MICRO, OFA, FLEX]), st.tuples(*[bounds] * 4), st.integers(0, 1 << 32))
def test_limits_on_populations_are_the_limits_on_each(coder: GenomeCoder, most: Any, seed: int) -> None:
    check_limits(coder, Limits(most[0], 0.5, *most[1:]), random_genomes(coder, 30, seed))


def test_genomes_drawn_together_are_those_drawn_one_by_one() -> None:
    limits, rng = Limits(3_500_000, 0.5), np.random.default_rng(5)
    check = StaticCheck(OFA, limits)
    drawn = check.drawn(np.random.default_rng(5))
    ruled_out = set()
    for _ in range(300):
        genome, admissible = next(drawn)
        assert genome == OFA.sample(rng)
        costs = counted(OFA, genome)
        assert admissible == (isinstance(costs, StaticCosts) and not limits.exceeded(costs))
        ruled_out |= set() if admissible else {genome}
        assert check.inadmissible == len(ruled_out)
    assert 0 < len(ruled_out) < 300
