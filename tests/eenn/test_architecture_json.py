"""Architectures as JSON: there and back, what may be left out, and what is refused."""

import json
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nachos_min.eenn.architecture_json import ArchitectureError, architecture_from_json, architecture_to_json
from nachos_min.eenn.lowering import lower
from nachos_min.macs.count import count
from nachos_min.nas.genome import GenomeCoder, NotAnEENNError
from nachos_min.nas.space import load_space

SMALL = {
    "input": [1, 8, 8],
    "classes": 10,
    "stem": {"channels": 4, "kernel": 3, "stride": 1, "activation": "hswish"},
    "stages": [
        [{"middle": 8, "channels": 8, "kernel": 3, "stride": 2, "activation": "relu"}],
        [
            {
                "middle": 8,
                "channels": 8,
                "kernel": 5,
                "stride": 1,
                "activation": "hswish",
                "expand": False,
                "squeezed": 8,
            }
        ],
    ],
    "exits": [{"stage": 1, "pool": 2, "widths": [4]}],
    "final": {"activation": "hswish"},
}


@pytest.mark.parametrize("space", ["tiny", "micro", "ofa-mbv3"])
def test_there_and_back(space):
    coder = GenomeCoder(load_space(space), (32, 32, 3), 10)
    rng = np.random.default_rng(1)
    for _ in range(10):
        genome = coder.sample(rng)
        architecture = coder.backbone(genome)
        try:
            architecture = coder.decode(genome)
        except (NotAnEENNError, ValueError):
            assert architecture.exits == ()
        assert architecture_from_json(json.loads(architecture_to_json(architecture))) == architecture


def test_counted_by_hand():
    graph = lower(architecture_from_json(SMALL))
    stem = 8 * 8 * 4 * 9
    first = 64 * 4 * 8 + 16 * 8 * 9 + 16 * 8 * 8
    second = 16 * 8 * 25 + 2 * 8 * 8 + 16 * 8 * 8
    head = 2 * 2 * 4 * 8 * 9 + 16 * 11
    assert count(graph).macs == stem + first + second + head + 8 * 10


def test_the_caller_may_say_what_comes_in_and_goes_out():
    found = architecture_from_json(SMALL, (3, 16, 12), 5)
    assert (found.input_shape, found.classes) == ((16, 12, 3), 5)


def _with(**changes):
    return SMALL | changes


def _block(**changes):
    return _with(stages=[[SMALL["stages"][0][0] | changes], SMALL["stages"][1]])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (_with(input=None), "input must be a list, got 'None'"),
        (_with(input=[1, 8]), "input must be a list of 3 integers, got '[1, 8]'"),
        (_with(input=[1, 8, -8]), "input must be a list of integers from 1 to 2^40, got '[1, 8, -8]'"),
        (_with(classes=0), "classes must be an integer from 1 to 2^40, got '0'"),
        (_with(classes=10**30), f"classes must be an integer from 1 to 2^40, got '{10**30}'"),
        (
            _with(steem=1),
            "a field must be one of input, classes, stem, trunk, stages, exits, final, got \"'steem'\"",
        ),
        (_with(stem=[]), "stem must be an object, got '[]'"),
        (_with(stages={}), "stages must be a list, got '{}'"),
        (_with(stages=[]), "stages must be a list of at least one stage, got '[]'"),
        (_with(stages=[[]]), "stage 1 must be a list of at least one block, got '[]'"),
        (_with(stages=[[3]]), "stage 1 block 1 must be an object, got '3'"),
        (_block(kernel=4), "stage 1 block 1: kernel must be odd, got '4'"),
        (_block(kernel="3"), "stage 1 block 1: kernel must be an integer from 1 to 2^40, got \"'3'\""),
        (_block(stride=0), "stage 1 block 1: stride must be an integer from 1 to 2^40, got '0'"),
        (_block(activation="gelu"), "stage 1 block 1: activation must be one of relu, hswish, got \"'gelu'\""),
        (_block(expand=1), "stage 1 block 1: expand must be true or false, got '1'"),
        (
            _block(expand=False),
            "stage 1 block 1: middle must be the 4 channels that arrive, where nothing expands them, got '8'",
        ),
        (_with(exits=[{"stage": 2}]), "stages of exits must be ascending numbers from 1 to 1, got '[2]'"),
        (
            _with(exits=[{"stage": 1, "pool": 5}]),
            "exit after stage 1: pool must be at most the 4 pixels of its map, got '5'",
        ),
    ],
)
def test_what_breaks_a_rule_is_named(fields, message):
    with pytest.raises(ArchitectureError) as caught:
        architecture_from_json(fields)
    assert str(caught.value) == f"architecture: {message}"


_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["stage", "pool", "middle"]), inner)
    ),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.sampled_from(sorted(SMALL)), _json)
def test_nothing_else_is_ever_raised(field, value):
    with suppress(ArchitectureError):
        architecture_from_json(_with(**{field: value}))
