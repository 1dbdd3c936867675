"""Costs added up part by part are the counts of the whole graph, integer for integer."""

import numpy as np
import pytest

from nachos_min.eenn.architecture import Architecture, Exit, ExitHead, FinalHead, MBConvSpec, Stem
from nachos_min.eenn.costs import head_costs, part_cost, segment_costs, static_costs
from nachos_min.eenn.lowering import lower
from nachos_min.macs.count import count, exit_costs, peak_activation_bytes
from nachos_min.nas.genome import GenomeCoder
from nachos_min.nas.space import load_space

CASES = [
    ("tiny", (8, 8, 1), 300),
    ("tiny", (32, 32, 3), 30),
    ("tiny", (11, 6, 2), 30),
    ("micro", (8, 8, 1), 300),
    ("micro", (32, 32, 3), 30),
    ("ofa-mbv3", (8, 8, 1), 5),  # resized to 32
    ("ofa-mbv3", (32, 32, 3), 30),
]


@pytest.mark.parametrize(("space", "image", "members"), CASES)
def test_sums_of_parts_are_the_count_of_the_graph(space: str, image: tuple[int, int, int], members: int) -> None:
    coder, rng = GenomeCoder(load_space(space), image, 10), np.random.default_rng(0)
    for _ in range(members):
        architecture = coder.decode(coder.sample(rng))
        static, graph = static_costs(architecture), lower(architecture)
        counted = exit_costs(graph)
        assert static.exit_costs == counted.costs
        assert static.worst_macs == counted.worst == count(graph).macs
        assert static.params == count(graph).params
        assert static.peak_bytes == peak_activation_bytes(graph)
        assert tuple(head.macs for head in head_costs(architecture)) == counted.heads
        assert tuple(np.cumsum([part.macs for part in segment_costs(architecture)])) == counted.backbone


def test_a_network_without_early_exits_has_one_cost() -> None:
    coder = GenomeCoder(load_space("micro"), (8, 8, 1), 10)
    backbone = coder.backbone([0] * coder.length)
    static, graph = static_costs(backbone), lower(backbone)
    assert static.exit_costs == (count(graph).macs,)
    assert (static.params, static.peak_bytes) == (count(graph).params, peak_activation_bytes(graph))


def test_the_map_that_the_backbone_goes_on_from_is_held_while_a_head_runs() -> None:
    """With a head so wide that it makes the peak: 4*4*8 floats of the map beside 4*4*(64 + 64) in the head."""
    assert part_cost(ExitHead(1, (64, 64)), (4, 4, 8), 10).peak_bytes == 4 * (128 + 1024 + 1024)
    block = MBConvSpec(8, 8, 8, 3, 1, "relu")
    stages = ((block,), (block,), (block,))
    exits = (Exit(1, ExitHead(1, (64, 64))), Exit(2, ExitHead(2, (64,))))
    final = FinalHead(0, 0, "relu")
    architecture = Architecture((8, 8, 1), 10, Stem(8, 3, 2, "relu"), (), stages, exits, final)
    peak = peak_activation_bytes(lower(architecture))
    assert static_costs(architecture).peak_bytes == peak == 4 * (128 + 1024 + 1024)


def test_parts_by_hand() -> None:
    # 3x3 stem, stride 2, on 8x8x1: 4*4 outputs * 8 channels * 9 taps; 72 weights, 2*8 of batch norm.
    # Alive at once: before and behind the batch norm, 2 * 4*4*8 floats.
    stem = part_cost(Stem(8, 3, 2, "relu"), (8, 8, 1))
    assert (stem.macs, stem.params, stem.peak_bytes) == (1152, 72 + 16, 2 * 128 * 4)
    # Mean of a 2x2x6 map, 6 -> 10 with bias: 24 + 6 floats at the mean, 16 at the linear layer.
    final = part_cost(FinalHead(0, 0, "relu"), (2, 2, 6), 10)
    assert (final.macs, final.params, final.peak_bytes) == (60, 70, 30 * 4)
