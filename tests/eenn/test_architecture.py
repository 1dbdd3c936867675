"""Architectures as data, and as JSON: there and back, what may be left out, and what is refused."""

import json
from contextlib import suppress
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nachos_min.eenn.architecture import (
    Architecture,
    ArchitectureError,
    Exit,
    ExitHead,
    FinalHead,
    MBConvSpec,
    Stem,
    architecture_from_json,
    architecture_to_json,
)
from nachos_min.eenn.lowering import lower
from nachos_min.macs.count import count
from nachos_min.nas.genome import GenomeCoder
from nachos_min.nas.space import load_space

SIDES = {"tiny": 8, "micro": 8, "ofa-mbv3": 32}
CODERS = {name: GenomeCoder(load_space(name), (side, side, 1), 10) for name, side in SIDES.items()}
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


def test_a_block_adds_its_input_when_shapes_allow() -> None:
    blocks = (FIRST, SECOND, replace(SECOND, stride=2), replace(SECOND, out_channels=8))
    assert [block.residual for block in blocks] == [False, True, False, False]


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
    assert architecture.with_exits(()) == three_stages()


# JSON


def block(**changes: Any) -> dict[str, Any]:
    return {"middle": 8, "channels": 8, "kernel": 3, "stride": 2, "activation": "relu"} | changes


SMALL: dict[str, Any] = {
    "input": [1, 8, 8],
    "classes": 10,
    "stem": {"channels": 4, "kernel": 3, "stride": 1, "activation": "hswish"},
    "stages": [[block()], [block(kernel=5, stride=1, activation="hswish", expand=False, squeezed=8)]],
    "exits": [{"stage": 1, "pool": 2, "widths": [4]}],
    "final": {"activation": "hswish"},
}


@pytest.mark.parametrize("space", CODERS)
def test_there_and_back(space: str) -> None:
    coder, rng = CODERS[space], np.random.default_rng(1)
    for _ in range(10):
        for architecture in (coder.decode(genome := coder.sample(rng)), coder.backbone(genome)):
            assert architecture_from_json(json.loads(architecture_to_json(architecture))) == architecture


def test_counted_by_hand() -> None:
    stem = 8 * 8 * 4 * 9
    first = 64 * 4 * 8 + 16 * 8 * 9 + 16 * 8 * 8
    second = 16 * 8 * 25 + 2 * 8 * 8 + 16 * 8 * 8
    head = 2 * 2 * 4 * 8 * 9 + 16 * 11
    assert count(lower(architecture_from_json(SMALL))).macs == stem + first + second + head + 8 * 10


def test_the_caller_may_say_what_comes_in_and_goes_out() -> None:
    found = architecture_from_json(SMALL, (3, 16, 12), 5)
    assert (found.input_shape, found.classes) == ((16, 12, 3), 5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input": None}, "input must be a list, got 'None'"),
        ({"input": [1, 8]}, "input must be a list of 3 integers, got '[1, 8]'"),
        ({"input": [1, 8, -8]}, "input must be a list of integers from 1 to 2^40, got '[1, 8, -8]'"),
        ({"classes": 10**30}, f"classes must be an integer from 1 to 2^40, got '{10**30}'"),
        ({"steem": 1}, "a field must be one of input, classes, stem, trunk, stages, exits, final, got"),
        ({"stem": []}, "stem must be a table of named fields, got '[]'"),
        ({"stages": []}, "stages must be a list of length >= 1, got '[]'"),
        ({"stages": [[]]}, "stage 1 must be a list of at least one block, got '[]'"),
        ({"stages": [[block(kernel=4)]]}, "stage 1 block 1: kernel must be odd, got '4'"),
        ({"stages": [[block(activation="gelu")]]}, "stage 1 block 1: activation must be one of relu, hswish, got"),
        ({"stages": [[block(expand=1)]]}, "stage 1 block 1: expand must be true or false, got '1'"),
        ({"stages": [[block(expand=False)]]}, "stage 1 block 1: middle must be the 4 channels that arrive"),
        ({"exits": [{"stage": 2}]}, "stages of exits must be ascending numbers from 1 to 1, got '[2]'"),
        ({"exits": [{"stage": 1, "pool": 5}]}, "exit after stage 1: pool must be at most the 4 pixels of its map"),
        ({"trunk": [block()] * 1_500}, "blocks, exits and widths must be at most 1500 together, got '1504'"),
    ],
)
def test_what_breaks_a_rule_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ArchitectureError) as caught:
        architecture_from_json(SMALL | changes)
    assert str(caught.value).startswith(f"architecture: {message}")


FIELD = st.sampled_from(["stage", "pool", "middle"])
_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(FIELD, inner),
    max_leaves=8,
)


@settings(max_examples=200)
@given(st.sampled_from(sorted(SMALL)), _json)
def test_nothing_else_is_ever_raised(field: str, value: Any) -> None:
    with suppress(ArchitectureError):
        architecture_from_json(SMALL | {field: value})
