"""Sums over graphs, worked out by hand: totals, tables, exits, memory; broken graphs are refused by name."""

import re

import pytest

from nachos_min.macs import CountError, count, exit_costs, ops, peak_activation_bytes
from nachos_min.macs.ops import Linear, Node

STEM = ops.Conv2d((4, 4, 1), 2, (3, 3), padding=(1, 1, 1, 1), bias=True)  # 16 * 2 * 9 = 288 MACs, 20 parameters
SQUARE = ops.Conv2d((4, 4, 2), 2, (1, 1))  # 16 * 2 * 2 = 64 MACs, 4 parameters

# Backbone: stem, then head 1; on with a 1x1 convolution, then head 2.
TWO_EXITS = (
    Node("stem", STEM, (-1,)),
    Node("exit 1 pool", ops.MaxPool((4, 4, 2), (2, 2), (2, 2)), (0,), exit=1),
    Node("exit 1 flatten", ops.Flatten((2, 2, 2)), (1,), exit=1),
    Node("exit 1 linear", Linear((8,), 3), (2,), exit=1),  # 24 MACs, 27 parameters
    Node("conv", SQUARE, (0,)),
    Node("exit 2 mean", ops.GlobalAvgPool((4, 4, 2)), (4,), exit=2),
    Node("exit 2 linear", Linear((2,), 2), (5,), exit=2),  # 4 MACs, 6 parameters
)

# One block with a residual connection and squeeze-and-excitation.
BLOCK = (
    Node("conv", SQUARE, (-1,)),
    Node("norm", ops.BatchNorm((4, 4, 2)), (0,)),
    Node("act", ops.Activation((4, 4, 2), "relu"), (1,)),
    Node("mean", ops.GlobalAvgPool((4, 4, 2)), (2,)),
    Node("squeeze", Linear((2,), 8), (3,)),
    Node("gate", ops.Activation((8,), "relu"), (4,)),
    Node("excite", Linear((8,), 2), (5,)),
    Node("scale", ops.Multiply(((4, 4, 2), (2,))), (2, 6)),
    Node("residual", ops.Add(((4, 4, 2), (4, 4, 2))), (7, -1)),
)


NOTHING = dict.fromkeys(("bias_adds", "norm_elems", "pool_in", "pool_out", "mul_elems", "add_elems", "mean_out"), 0)


def test_totals_by_hand():
    exits, block = count(TWO_EXITS), count(BLOCK)
    assert (exits.macs, exits.params) == (288 + 24 + 64 + 4, 20 + 27 + 4 + 6)
    assert exits.valid_macs == (4 + 3 + 3) ** 2 * 2 + 24 + 64 + 4
    assert exits.columns == NOTHING | {"bias_adds": 32 + 3 + 2, "pool_in": 32, "pool_out": 8, "mean_out": 2}
    assert (block.macs, block.params) == (64 + 16 + 16, 4 + 4 + 24 + 18)
    other = {"bias_adds": 10, "norm_elems": 32, "act_elems:relu": 32 + 8}
    assert block.columns == NOTHING | other | {"mul_elems": 32, "add_elems": 32, "mean_out": 2}


def test_a_layer_called_twice_counts_twice_but_has_its_parameters_once():
    twice = count((Node("conv", SQUARE, (-1,)), Node("conv again", SQUARE, (0,), shares=0)))
    assert (twice.macs, twice.params) == (2 * 64, 4)


def test_nothing_executed_is_nothing_counted():
    assert count(()).macs == count(()).params == peak_activation_bytes(()) == 0


def test_exit_costs_pay_for_the_heads_passed():
    costs = exit_costs(TWO_EXITS)
    assert (costs.backbone, costs.heads, costs.costs) == ((288, 352), (24, 4), (288 + 24, 288 + 24 + 64 + 4))


CHAIN = (
    Node("conv", ops.Conv2d((4, 4, 1), 2, (1, 1)), (-1,)),  # 16 + 32
    Node("norm", ops.BatchNorm((4, 4, 2)), (0,)),  # 32 + 32
    Node("pool", ops.MaxPool((4, 4, 2), (2, 2), (2, 2)), (1,)),  # 32 + 8
)
WAITING = (
    Node("stem", SQUARE, (-1,)),  # 32 + 32
    Node("head", ops.Conv2d((4, 4, 2), 4, (1, 1)), (0,), exit=1),  # 32 + 64
    Node("relu", ops.Activation((4, 4, 4), "relu"), (1,), exit=1),  # 32 + 64 + 64
    Node("conv", SQUARE, (0,)),  # 32 + 32
)
FLAT = (
    Node("flatten", ops.Flatten((4, 4, 2)), (-1,)),  # 32
    Node("linear", Linear((32,), 3), (0,)),  # 32 + 3
)
PEAKS = {
    "the largest input and output of a chain": (CHAIN, 64),
    "a residual is held until it is added": (BLOCK, 32 + 32 + 2 + 32),  # while scaling: input, act, excite, scale
    "a map that the backbone waits for is held while a head runs": (WAITING, 160),
    "without a waiting backbone the map is freed": (WAITING[:3], 128),
    "a flattened map takes no memory but keeps its operand alive": (FLAT, 35),
    "an array without a reader is freed at once": (
        (Node("unread", SQUARE, (-1,)), Node("conv", SQUARE, (-1,))),
        64,
    ),
}


@pytest.mark.parametrize(("graph", "elements"), PEAKS.values(), ids=PEAKS)
def test_peaks_by_hand(graph, elements):
    assert peak_activation_bytes(graph, 1) == elements
    assert peak_activation_bytes(graph) == 4 * elements


BROKEN = {
    "no rule": ((Node("w", object(), (-1,)),), "node 'w': no rule for counting operator object"),
    "one array of two": ((Node("add", ops.Add(((4,), (4,))), (-1,)),), "node 'add': Add must read 2 arrays, got 1"),
    "itself": ((Node("a", SQUARE, (0,)),), "inputs must be -1 or an earlier node (below 0), got 0"),
    "before the input": ((Node("a", SQUARE, (-2,)),), "inputs must be -1 or an earlier node (below 0), got -2"),
    "another shape": (
        (Node("a", STEM, (-1,)), Node("b", STEM, (0,))),
        "node 'b': Conv2d: must read (4, 4, 1), got (4, 4, 2)",
    ),
    "one of two shapes": (
        (Node("a", ops.GlobalAvgPool((4, 4, 2)), (-1,)), Node("b", ops.Multiply(((2,), (2,))), (0, -1))),
        "node 'b': Multiply: must read (2,) and (2,), got (2,) and (4, 4, 2)",
    ),
    "other elements": (
        (Node("a", STEM, (-1,), batch=2), Node("b", Linear((31,), 3), (0,), batch=2, relaid=True)),
        "node 'b': Linear must read 2 x (31,), got 64 elements",
    ),
    "exit": ((Node("a", SQUARE, (-1,), exit=-1),), "node 'a': exit must be a Python integer >= 0, got -1"),
    "shares itself": ((Node("a", SQUARE, (-1,), shares=0),), "shares must be an earlier node (below 0), got 0"),
    "shares others": (
        (Node("a", STEM, (-1,)), Node("b", SQUARE, (0,), shares=0)),
        "node 'b': it must have the 20 parameters of 'a', whose weights it shares, got 4",
    ),
}


@pytest.mark.parametrize(("graph", "message"), BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("function", [count, peak_activation_bytes, exit_costs])
def test_a_broken_graph_is_refused_by_name(graph, message, function):
    with pytest.raises(CountError, match=re.escape(message)):
        function(graph)


@pytest.mark.parametrize(
    ("exits", "message"),
    [
        ((), "the last node must belong to the last exit's head, got a backbone node or no node"),
        ((0, 0), "the last node must belong"),
        ((0, 2), "node 'n1': heads must be in order and together, expected exit 1, got 2"),
        ((0, 1, 0, 1), "expected exit 2, got 1"),
    ],
)
def test_heads_out_of_order_are_refused(exits, message):
    graph = tuple(Node(f"n{i}", SQUARE, (-1,), exit) for i, exit in enumerate(exits))
    with pytest.raises(CountError, match=message):
        exit_costs(graph)


def test_a_batch_multiplies_work_and_not_parameters():
    one, many = (count((Node("a", Linear((5, 24), 16), (-1,), batch=batch),)) for batch in (1, 3))
    assert many.macs == 3 * one.macs == 3 * 5 * 24 * 16
    assert many.params == one.params
    assert many.columns["bias_adds"] == 3 * 5 * 16


def test_arrays_may_arrive_with_other_axes():
    start = Node("stem", ops.Conv2d((4, 4, 3), 2, (1, 1)), (-1,), batch=2, relaid=True)
    assert count((start, Node("head", Linear((32,), 10), (0,), batch=2, relaid=True))).macs == 2 * (96 + 320)


@pytest.mark.parametrize("size", [0, -4, 4.0, True])
def test_bytes_per_element_must_be_a_positive_integer(size):
    with pytest.raises(CountError, match="bytes_per_element must be a Python integer >= 1, got"):
        peak_activation_bytes(BLOCK, size)
