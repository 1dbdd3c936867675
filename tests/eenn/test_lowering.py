"""Records against reference integers and against what is executed, costs of parts, and the order of the exits."""

import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nachos_min.autograd import Tensor, count_macs, no_grad
from nachos_min.eenn.architecture import Architecture, Exit, ExitHead, FinalHead, MBConvSpec, Stem
from nachos_min.eenn.lowering import (
    CostOrderError,
    design_exits,
    head_costs,
    head_ladder,
    lower,
    part_cost,
    segment_costs,
    static_costs,
)
from nachos_min.eenn.network import EarlyExitNetwork
from nachos_min.macs.count import count, exit_costs, peak_activation_bytes
from nachos_min.nas.genome import GenomeCoder, from_cnas
from nachos_min.nas.space import load_space

RECORDS = json.loads((Path(__file__).parent.parent / "data_files" / "ofa_macs.json").read_text())
PARTS = {"stem": "first_conv", "trunk": "first_block", "final.expand": "final_expand", "final.mix": "feature_mix"}


@pytest.mark.parametrize("record", RECORDS, ids=[f"{r['r']}px-{r['macs']}" for r in RECORDS])
def test_ofa_counts_equal_the_reference(record: dict) -> None:
    space = load_space("ofa-mbv3")
    side = record["r"]
    coder = GenomeCoder(replace(space, resolutions=(side,)), (side, side, 3), 10)
    configuration = {name: record[name] for name in ("ks", "e", "d", "r")}
    graph = lower(coder.backbone(from_cnas(coder, configuration)))

    counted = count(graph)
    assert (counted.macs, counted.params) == (record["macs"], record["params"])
    assert counted.columns["norm_elems"] == record["norm_elems"]
    # The tool that measured the products also met the one inside x * relu6(x + 3) / 6.
    products = counted.columns["mul_elems"] + counted.columns["act_elems:hswish"]
    assert products == record["products"]
    assert counted.valid_macs == record["valid_macs"]

    macs = params = 0
    cumulative: dict[str, tuple[int, int]] = {}
    for node in graph:
        macs, params = macs + node.op.macs, params + node.op.params
        top = node.name.split(".")[0]
        part = ".".join(node.name.split(".")[:2]) if top == "final" else top
        part = {"final.mean": "final.expand", "final.linear": "classifier"}.get(part, part)
        cumulative[PARTS.get(part, part)] = (macs, params)
    assert {part: found[0] for part, found in cumulative.items()} == record["cumulative_macs"]
    assert {part: found[1] for part, found in cumulative.items()} == record["cumulative_params"]


def orders_of(architecture: Architecture) -> list[int]:
    """B_i + H_i of every exit, by counting all records."""
    costs = exit_costs(lower(architecture))
    return [backbone + head for backbone, head in zip(costs.backbone, costs.heads, strict=True)]


@pytest.mark.parametrize(
    ("space", "image", "classes", "members"),
    [
        ("tiny", (8, 8, 1), 10, 200),
        ("tiny", (32, 32, 3), 10, 20),
        ("tiny", (11, 6, 2), 10, 20),
        ("tiny", (1, 48, 2), 3, 10),
        ("flex8", (1, 8, 1), 2, 10),
        ("flex16", (1, 1000, 1), 3, 3),  # lengths 12 and 16
        ("flex16", (5, 40, 3), 10, 5),  # resized to 12x96 and 16x128
        ("micro", (1, 4, 1), 2, 5),
        ("micro", (1, 1000, 1), 2, 3),
        ("micro", (5, 40, 1), 2, 5),
        ("micro", (8, 8, 1), 10, 200),
        ("micro", (32, 32, 3), 10, 20),
        ("ofa-mbv3", (8, 8, 1), 10, 3),  # resized to 32
        ("ofa-mbv3", (32, 32, 3), 10, 15),
        ("ofa-mbv3", (32, 32, 3), 100, 5),
    ],
)
def test_sums_of_parts_are_the_counts_of_the_records_and_what_is_executed(
    space: str, image: tuple[int, int, int], classes: int, members: int
) -> None:
    coder, rng = GenomeCoder(load_space(space), image, classes), np.random.default_rng(0)
    for member in range(members):
        genome = list(coder.sample(rng))
        if members == 15:  # every placement of four exits once
            genome[coder.exit_genes] = [member + 1 >> bit & 1 for bit in range(4)]
        for architecture in (coder.decode(genome), coder.backbone(genome)):
            static, graph = static_costs(architecture), lower(architecture)
            counted = exit_costs(graph)
            assert static.exit_costs == counted.costs
            assert static.worst_macs == counted.costs[-1] == count(graph).macs
            assert static.params == count(graph).params
            assert static.peak_bytes == peak_activation_bytes(graph)
            assert tuple(head.macs for head in head_costs(architecture)) == counted.heads
            assert tuple(np.cumsum([part.macs for part in segment_costs(architecture)])) == counted.backbone
            assert all(before < after for before, after in pairwise(orders_of(architecture)))

        network, executed = EarlyExitNetwork(coder.decode(genome), rng, rng), []
        network.train(False)
        x = Tensor(rng.standard_normal((2, *network.architecture.input_shape)).astype(np.float32))
        with no_grad(), count_macs() as counter:
            for i, feature_map in enumerate(network.architecture.exit_maps()):
                x = network.segments[i](x)
                assert x.shape[1:] == feature_map
                network.heads[i](x)
                executed.append(counter.total)
        static = static_costs(network.architecture)
        assert executed == [2 * cost for cost in static.exit_costs]
        assert sum(t.data.size for t in network.named_parameters().values()) == static.params


def test_the_map_that_the_backbone_goes_on_from_is_held_while_a_head_runs() -> None:
    """With a head so wide that it makes the peak: 4*4*8 floats of the map beside 4*4*(64 + 64) in the head."""
    assert part_cost(ExitHead(1, (64, 64)), (4, 4, 8), 10, flat=False).peak_bytes == 4 * (128 + 1024 + 1024)
    stages = ((MBConvSpec(8, 8, 8, 3, 1, "relu"),),) * 3
    exits = (Exit(1, ExitHead(1, (64, 64))), Exit(2, ExitHead(2, (64,))))
    architecture = Architecture((8, 8, 1), 10, Stem(8, 3, 2, "relu"), (), stages, exits, FinalHead(0, 0, "relu"))
    peak = peak_activation_bytes(lower(architecture))
    assert static_costs(architecture).peak_bytes == peak == 4 * (128 + 1024 + 1024)


def test_parts_by_hand() -> None:
    # 3x3 stem, stride 2, on 8x8x1: 4*4 outputs * 8 channels * 9 taps; 72 weights, 2*8 of batch norm.
    # Alive at once: before and behind the batch norm, 2 * 4*4*8 floats.
    stem = part_cost(Stem(8, 3, 2, "relu"), (8, 8, 1), flat=False)
    assert (stem.macs, stem.params, stem.peak_bytes) == (1152, 72 + 16, 2 * 128 * 4)
    # Mean of a 2x2x6 map, 6 -> 10 with bias: 24 + 6 floats at the mean, 16 at the linear layer.
    final = part_cost(FinalHead(0, 0, "relu"), (2, 2, 6), 10, flat=False)
    assert (final.macs, final.params, final.peak_bytes) == (60, 70, 30 * 4)


# The ladder


def test_ladders_of_even_odd_small_and_bare_maps() -> None:
    pools = [(1, (8, 16)), (2, (8, 16)), (4, (8, 16)), (1, (8,)), (2, (8,)), (4, (8,)), (4, ())]
    assert [(head.pool, head.widths) for head in head_ladder(4, (8, 16))] == pools
    assert [head.pool for head in head_ladder(7, (8,))] == [1, 2, 4, 7]
    assert [(head.pool, head.widths) for head in head_ladder(1, (8,))] == [(1, (8,)), (1, ())]
    assert list(head_ladder(5, ())) == [ExitHead(5, ())]


@given(st.integers(1, 40), st.lists(st.integers(1, 64), max_size=4))
def test_every_ladder_descends(size: int, widths: list[int]) -> None:
    ladder = list(head_ladder(size, widths))
    assert len(set(ladder)) == len(ladder)
    assert ladder[-1] == ExitHead(size, ())
    assert all(1 <= head.pool <= size and head.widths == tuple(widths)[: len(head.widths)] for head in ladder)
    steps = [(-len(head.widths), head.pool) for head in ladder]
    assert steps == sorted(steps)


# The order


@pytest.mark.parametrize("classes", [10, 300])
def test_heads_that_are_given_keep_the_order_or_are_refused(classes: int) -> None:
    coder, rng, refused = GenomeCoder(load_space("flex8"), (8, 8, 1), classes), np.random.default_rng(0), 0
    for genome in (coder.sample(rng) for _ in range(100)):
        stages, heads = coder.genes(genome).exits, coder.genes(genome).heads
        placed = coder.backbone(genome).with_exits(tuple(Exit(stage, ExitHead(1, ())) for stage in stages))
        given = (heads[s - 1].on(min(m[:2])) for s, m in zip(stages, placed.exit_maps(), strict=False))
        expected = placed.with_exits(tuple(map(Exit, stages, given)))
        if all(before < after for before, after in pairwise(orders_of(expected))):
            assert coder.decode(genome) == expected
        else:
            refused += 1
            with pytest.raises(CostOrderError):
                coder.decode(genome)
    assert 0 < refused < 100


@pytest.mark.parametrize(
    ("space", "side", "classes"), [("micro", 8, 10), ("ofa-mbv3", 32, 10), ("ofa-mbv3", 32, 100)]
)
def test_a_richer_head_of_the_ladder_would_break_the_order(space: str, side: int, classes: int) -> None:
    coder = GenomeCoder(load_space(space), (side, side, 1), classes)
    rng, stepped_down = np.random.default_rng(1), 0
    for _ in range(20 if space == "micro" else 5):
        architecture = coder.decode(coder.sample(rng))
        for index, early in enumerate(architecture.exits):
            size = min(architecture.exit_maps()[index][:2])
            ladder = list(head_ladder(size, coder.space.exit_widths))
            for head in ladder[: ladder.index(early.head)]:
                exits = list(architecture.exits)
                exits[index] = Exit(early.stage, head)
                orders = orders_of(architecture.with_exits(tuple(exits)))
                assert orders[index] >= orders[index + 1]
                stepped_down += 1
    assert stepped_down > 0  # else this test has compared nothing


def narrowing(kernel: int, channels: int = 1, classes: int = 100) -> Architecture:
    """A wide first stage on a 1x1 map, then a bottleneck: going on costs next to nothing."""
    wide = MBConvSpec(4, 4, 64, 3, 1, "relu", expand=False)
    narrow = MBConvSpec(64, 64, channels, kernel, 1, "relu", expand=False)
    final = FinalHead(0, 0, "relu")
    return Architecture((2, 2, 1), classes, Stem(4, 3, 2, "relu"), (), ((wide,), (narrow,)), (), final)


@pytest.mark.parametrize(
    ("backbone", "widths", "costs", "bound"),
    [
        # Up to stage 1: 1*9*4 + 4*9 + 4*64 = 328. Leaving there: 64*101 more. Going on: 64*9 + 64*1 + 1*100.
        (narrowing(kernel=3), (), 6792, 1068),
        # Equal: leaving costs 64*65 more, going on 64*1 + 64*32 + 32*64. Both come to 4160.
        (narrowing(kernel=1, channels=32, classes=64), (), 4488, 4488),
        # The cheapest head need not be the last: 64*9 + 101 with a convolution to one channel, 64*101 without.
        (narrowing(kernel=1), (1,), 1005, 556),
    ],
)
def test_an_exit_that_is_not_cheaper_than_going_on_is_refused(
    backbone: Architecture, widths: tuple[int, ...], costs: int, bound: int
) -> None:
    message = f"1: its cheapest head costs {costs} MACs in all, which must be below the {bound} of the next exit$"
    with pytest.raises(CostOrderError, match=message):
        design_exits(backbone, (1,), widths)


@pytest.mark.parametrize("stages", [(0,), (2,), (1, 1), (3, 1)])
def test_stages_must_ascend_and_leave_the_last_to_the_final_exit(stages: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=rf"must be ascending numbers from 1 to 1, got \({stages[0]},"):
        design_exits(narrowing(kernel=3), stages, (8,))
