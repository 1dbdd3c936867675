"""Architectures as data: shapes, segments, and that they can be compared and remembered."""

from dataclasses import FrozenInstanceError

import numpy as np
import pytest

from nachos_min.autograd import Tensor, no_grad
from nachos_min.eenn.architecture import Architecture, Exit, ExitHead, FinalHead, MBConvSpec, Stem
from nachos_min.eenn.network import EarlyExitNetwork
from nachos_min.nas.genome import GenomeCoder
from nachos_min.nas.space import load_space

CODERS = {
    "tiny": GenomeCoder(load_space("tiny"), (8, 8, 1), 10),
    "micro": GenomeCoder(load_space("micro"), (8, 8, 1), 10),
    "ofa-mbv3": GenomeCoder(load_space("ofa-mbv3"), (32, 32, 3), 10),
}
FIRST = MBConvSpec(4, 4, 6, kernel=3, stride=2, activation="relu", expand=False)
SECOND = MBConvSpec(6, 12, 6, kernel=5, stride=1, activation="hswish")
THIRD = MBConvSpec(6, 24, 8, kernel=3, stride=2, activation="hswish", squeezed=8)


def three_stages(side: tuple[int, int] = (9, 6)) -> Architecture:
    """One block in the trunk, one in the first stage, two in the second, one in the third."""
    stages = ((SECOND,), (SECOND, SECOND), (THIRD,))
    return Architecture((*side, 2), 5, Stem(4, 3, 1, "relu"), (FIRST,), stages, (), FinalHead(10, 0, "relu"))


def test_maps_of_a_network_by_hand() -> None:
    """9 x 6 -> stem 9 x 6 x 4 -> trunk, stride 2: 5 x 3 x 6 -> stage 3, stride 2: 3 x 2 x 8."""
    architecture = three_stages().with_exits((Exit(1, ExitHead(1, ())), Exit(2, ExitHead(1, ()))))
    assert architecture.exit_maps() == ((5, 3, 6), (5, 3, 6), (3, 2, 8))


@pytest.mark.parametrize("placement", [(), (1,), (2,), (1, 2)])
def test_segments_are_the_blocks_between_exits(placement: tuple[int, ...]) -> None:
    architecture = three_stages().with_exits(tuple(Exit(stage, ExitHead(1, ())) for stage in placement))
    assert architecture.exit_stages == (*placement, 3)
    expected = {
        (): ((FIRST, SECOND, SECOND, SECOND, THIRD),),
        (1,): ((FIRST, SECOND), (SECOND, SECOND, THIRD)),
        (2,): ((FIRST, SECOND, SECOND, SECOND), (THIRD,)),
        (1, 2): ((FIRST, SECOND), (SECOND, SECOND), (THIRD,)),
    }
    assert architecture.segments() == expected[placement]


def test_with_exits_changes_nothing_else() -> None:
    backbone = three_stages()
    exits = (Exit(2, ExitHead(2, (8,))),)
    placed = backbone.with_exits(exits)
    assert (backbone.exits, placed.exits) == ((), exits)
    assert placed.with_exits(()) == backbone


def test_architectures_are_values() -> None:
    assert three_stages() == three_stages()
    assert hash(three_stages()) == hash(three_stages())
    assert three_stages() != three_stages((9, 7))
    with pytest.raises(FrozenInstanceError):
        three_stages().classes = 3


@pytest.mark.parametrize(
    ("stride", "widths", "residual"), [(1, (6, 6), True), (2, (6, 6), False), (1, (6, 8), False)]
)
def test_a_block_adds_its_input_when_shapes_allow(stride: int, widths: tuple[int, int], residual: bool) -> None:
    assert MBConvSpec(widths[0], 12, widths[1], 3, stride, "relu").residual == residual


@pytest.mark.parametrize("space", CODERS)
def test_maps_are_the_shapes_that_run(space: str) -> None:
    coder, rng = CODERS[space], np.random.default_rng(0)
    for _ in range(3 if space == "ofa-mbv3" else 10):
        architecture = coder.decode(coder.sample(rng))
        network = EarlyExitNetwork(architecture, rng, rng)
        network.train(False)
        x = Tensor(np.zeros((1, *architecture.input_shape), np.float32))
        with no_grad():
            assert tuple(feature_map.shape[1:] for feature_map in network.maps(x)) == architecture.exit_maps()
