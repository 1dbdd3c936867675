"""The released code's figures: the 200 published ones to their last digit, exits by hand, and the average."""

import json
from dataclasses import replace
from fractions import Fraction
from math import prod
from pathlib import Path

import pytest

from nachos_min.eenn.architecture import Exit, ExitHead, FinalHead
from nachos_min.eenn.lowering import lower, lower_part
from nachos_min.macs import count
from nachos_min.macs.conventions import CONVENTIONS, explain
from nachos_min.macs.conventions.nachos_official import rounded
from nachos_min.macs.ops import BatchNorm, Conv2d, Flatten, GlobalAvgPool, Linear, MaxPool, Node
from nachos_min.nas.genome import GenomeCoder
from nachos_min.nas.space import load_space

PUBLISHED = json.loads((Path(__file__).parent.parent / "data_files" / "published_cnas.json").read_text())
OFFICIAL, OLD = CONVENTIONS["nachos-official"], CONVENTIONS["torchprofile-0.0.2"]
CODER = GenomeCoder(load_space("ofa-mbv3"), (32, 32, 3), 10)
USUAL = CODER.genes((0,) * CODER.length)


def built(record):
    """The network the figures are of: lists as written, or read as positions in the 20 slots."""
    lists = []
    for field, largest in (("ks", 7), ("e", 6)):
        values = list(record[field])
        if record["reading"] == "unpadded":
            values += [largest] * (20 - len(values))
        begins = [4 * s for s in range(5)] if len(values) == 20 else [sum(record["d"][:s]) for s in range(5)]
        lists.append([values[begin : begin + 4] for begin in begins])
    side = record["r"]
    genes = replace(USUAL, depths=record["d"], kernels=lists[0], expansions=lists[1])
    return CODER.space.backbone(genes, (side, side, 3), record["classes"])


def up_to(graph, stage):
    """Nodes of the backbone up to the end of a stage."""
    passed = ("stem", "trunk", *(f"stage{s}." for s in range(1, stage + 1)))
    return tuple(node for node in graph if node.name.startswith(passed))


@pytest.mark.parametrize("index", range(len(PUBLISHED)))
def test_published_figures(index):
    """A list has one figure per exit: the backbone up to it and a small copy of the final classifier behind it.

    Where the early exits stood was not published; the stages in the data are the one choice that fits.
    """
    record = PUBLISHED[index]
    architecture = built(record)
    graph = lower(architecture)
    totals, params = [], count(graph).params
    stages = record.get("exits", [])
    placed = architecture.with_exits(tuple(Exit(stage, ExitHead(1, ())) for stage in stages))
    for stage, feature_map in zip(stages, placed.exit_maps(), strict=False):
        channels = feature_map[2]
        head = lower_part(
            FinalHead(6 * channels, 8 * channels, "hswish"), feature_map, record["classes"], flat=False
        )
        totals.append(OLD.total(up_to(graph, stage)) + OLD.total(head))
        params += count(head).params
    totals.append(OLD.total(graph))
    assert OFFICIAL.total(graph) == rounded(totals[-1])
    published = record["macs"] if isinstance(record["macs"], list) else [record["macs"]]
    assert [rounded(total) / 1e6 for total in totals] == published
    assert rounded(params) / 1e6 == record["params"]


def test_worked_example():
    """Products, element-wise products and means of the network that the sampler built, and its rounding."""
    record = {"ks": [3, 5, 5, 3, 7, 5, 3, 3, 3, 3], "e": [3] * 10, "d": [2] * 5, "r": 32, "classes": 10}
    graph = lower(built(record | {"reading": "unpadded"}))
    assert count(graph).macs == 5_970_048
    assert count(graph).params == 3_409_466
    assert OLD.total(graph) == 5_970_048 + 34_464 + 9_600
    assert OFFICIAL.total(graph) == 6_010_000
    assert OFFICIAL.exit_costs(graph).costs == (6_010_000,)
    rounding = OFFICIAL.terms(graph)[-1]
    assert (rounding.node, rounding.amount) == (None, -4_112)
    assert count(lower(built(record | {"reading": "padded"}))).macs == 4_061_904


STEM = Conv2d((16, 16, 3), 8, (3, 3), (2, 2), (1, 1, 1, 1))
TWO_EXITS = (
    Node("stem", STEM, (-1,)),
    Node("norm", BatchNorm((8, 8, 8)), (0,)),
    Node("pool", MaxPool((8, 8, 8), (2, 2), (2, 2)), (1,), exit=1),
    Node("thin", Conv2d((4, 4, 8), 8, (3, 3), (3, 2), (1, 1, 1, 1), (1, 1), 8), (2,), exit=1),
    Node("flat", Flatten((2, 2, 8)), (3,), exit=1),
    Node("answer", Linear((32,), 5), (4,), exit=1),
    Node("body", Conv2d((8, 8, 8), 64, (3, 3), padding=(1, 1, 1, 1)), (1,)),
    Node("mean", GlobalAvgPool((8, 8, 64)), (6,), exit=2),
    Node("final", Linear((64,), 10), (7,), exit=2),
)


def test_exits_by_hand():
    """Head 1: the pool's inputs, a convolution of (4 / 3) * (4 / 2) pixels without its groups, the linear layer."""
    thin = int(Fraction(4, 3) * 2 * 9 * 8 * 8)
    first = rounded(STEM.macs) + 8 * 8 * 8 + thin + 32 * 5
    last = rounded(STEM.macs + 64 * 9 * 8 * 64) + 64 * 10
    assert OFFICIAL.exit_costs(TWO_EXITS).costs == (first, last)
    assert OFFICIAL.total(TWO_EXITS) == last
    found = explain(TWO_EXITS, OFFICIAL.terms(TWO_EXITS), CONVENTIONS["exact"].terms(TWO_EXITS))
    assert sum(each.amount for each in found) == last - CONVENTIONS["exact"].total(TWO_EXITS)
    assert "rounding of the backbone to 0.01 M" in {each.subject for each in found}
    assert any("the head of an exit that is passed is not billed" in each.left for each in found)


def test_our_own_exits():
    """The released code leaves out what a sample has paid on the way; the exact count does not."""
    record = PUBLISHED[0]
    heads = tuple(Exit(stage, ExitHead(2, (8, 16))) for stage in (2, 3))
    graph = lower(built(record).with_exits(heads))
    costs = OFFICIAL.exit_costs(graph).costs
    assert len(costs) == 3
    assert costs[-1] == OFFICIAL.total(graph)
    size, _, channels = graph[[node.name for node in graph].index("exit1.pool")].op.input
    half = size // 2
    head = size * size * channels + half * half * 9 * (channels * 8 + 8 * 16) + prod((half, half, 16)) * 11
    assert costs[0] == rounded(OLD.total(up_to(graph, 2))) + head
