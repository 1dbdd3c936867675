"""Layers and networks read from PyTorch: MACs and parameters against published integers and PyTorch's own."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from macs.test_conventions import LAYERS, NETS, NETWORKS
from macs.torch_cases import (
    CASES,
    Calling,
    F,
    With,
    nn,
    torch,
)  # first of what needs PyTorch: skips these tests without it
from torch.utils.flop_counter import FlopCounterMode
from torch_random import network

from bench import torch_networks
from nachos_min.macs import count
from nachos_min.macs.readers.torch_reader import example_inputs, read_torch

# Of the 46,021 parameters those of layers that run: 34,058 stand after the first exit, 7,307 in it.
EXECUTED = {"c TwoExit gate taken (thr 0)": 46021 - 34058, "c TwoExit final only": 46021 - 7307}


def trained(module) -> int:
    return sum(x.numel() for x in module.parameters())


def executed_macs(module, inputs) -> int:
    """What PyTorch counts below its Python functions, halved."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module.eval()(*example_inputs(module, inputs)[0])
    assert counter.get_total_flops() % 2 == 0
    return counter.get_total_flops() // 2


@pytest.mark.parametrize("record", LAYERS, ids=[record["case"] for record in LAYERS])
def test_a_layer_counts_as_published(record):
    name = record["case"]
    case = CASES[name]
    module = case.make()
    graph = read_torch(module, case.shape, training=case.training)
    # The file's exact count of a functional call with a constant is 0, for it looks at layers; PyTorch multiplies.
    expected = record["exact"] or executed_macs(module, case.shape)
    assert count(graph).macs == expected
    assert count(graph).params == trained(module.called if name == "unused submodule" else module)
    assert all(node.written.training == case.training for node in graph)


@pytest.mark.parametrize("record", NETS, ids=[record["net"] for record in NETS])
def test_a_network_counts_as_published(record):
    function, arguments, side = NETWORKS[record["net"]]
    module = getattr(torch_networks, function)(*arguments)
    totals = count(read_torch(module, (1, 3, side, side)))
    assert totals.macs == record["exact"]
    assert trained(module) == record["params"]
    assert totals.params == EXECUTED.get(record["net"], record["params"])


def test_rows_name_the_modules():
    rows = read_torch(torch_networks.two_exits(), (1, 3, 32, 32))
    assert [row.name for row in rows[:3]] == ["stem.0", "stem.1", "stem.2"]
    assert [row.name for row in rows if type(row.op).__name__ == "Multiply"] == [
        "before.block.2 x * y",
        "after.0.block.2 x * y",
    ]


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_generated_networks_count_as_pytorch_executes_them(data):
    module, x = network(lambda options: data.draw(st.sampled_from(list(options))))
    graph = read_torch(module, (x,))
    totals = count(graph)
    if not {"MatMul", "Einsum"} & {type(node.op).__name__ for node in graph}:  # PyTorch does not count all of these
        assert totals.macs == executed_macs(module, (x,))
    assert totals.params == trained(module)
    assert totals.valid_macs <= totals.macs


# A module that calls a function or a layer, the shapes of its arrays, and the MACs by hand.
# fmt: off
BY_HAND = {
    "lstm": (nn.LSTM(5, 7, 2, bidirectional=True, batch_first=True), ((3, 11, 5),),
             3 * 11 * 2 * 28 * ((5 + 7) + (14 + 7))),
    "lstm, projected": (nn.LSTM(5, 7, 2, proj_size=3), ((3, 11, 5),), 33 * (28 * (5 + 3) + 21 + 28 * (3 + 3) + 21)),
    "lstm, one sample": (nn.LSTM(5, 7, bias=False), ((11, 5),), 11 * 28 * (5 + 7)),
    "gru": (nn.GRU(5, 7, bidirectional=True), ((3, 11, 5),), 3 * 11 * 2 * 21 * (5 + 7)),
    "rnn": (nn.RNN(5, 7, nonlinearity="relu"), ((3, 11, 5),), 3 * 11 * 7 * (5 + 7)),
    "cells": (nn.Sequential(nn.GRUCell(5, 7), nn.RNNCell(7, 4)), ((3, 5),), 3 * (21 * 12 + 4 * 11)),
    "lstm cell": (nn.LSTMCell(5, 7), ((3, 5),), 3 * 28 * 12),
    "bilinear": (nn.Bilinear(3, 4, 6), ((2, 5, 3), (2, 5, 4)), 10 * 6 * (3 * 4 + 4)),
    "distances": (Calling(torch.cdist), ((2, 30, 3), (7, 3)), 2 * 30 * 7 * 3),
    "other distances": (Calling(lambda x, y: torch.cdist(x, y, 1.0)), ((2, 30, 3), (7, 3)), 0),
    "affine grid": (Calling(lambda x: F.affine_grid(x, (2, 3, 4, 5), False)), ((2, 2, 3),), 2 * 4 * 5 * 3 * 2),
    "grouped product": (
        Calling(lambda x, w: torch._grouped_mm(x.half(), w.half(), offs=torch.tensor([8, 20], dtype=torch.int32))),
        ((20, 8), (2, 8, 16)), 20 * 8 * 16),
}
# fmt: on


@pytest.mark.parametrize("name", BY_HAND)
def test_a_layer_counts_as_by_hand(name):
    module, shapes, expected = BY_HAND[name]
    totals = count(read_torch(module, tuple(torch.randn(shape) for shape in shapes)))
    assert totals.macs == expected
    assert totals.params == trained(module)


def test_packed_sequences_count_their_elements():
    def run(m, x):
        packed = nn.utils.rnn.pack_padded_sequence(x, [4, 2, 1], batch_first=True)
        return nn.utils.rnn.pad_packed_sequence(m.layer(m.layer(packed)[0])[0])[0]

    module = With(run, layer=nn.LSTM(5, 5))
    totals = count(read_torch(module, (3, 4, 5)))
    assert totals.macs == 2 * (4 + 2 + 1) * 20 * 10
    assert totals.params == trained(module)  # a layer that runs twice


# What only moves, compares or adds; each function reads an array (4, 6), and its column says how many elements.
# fmt: off
ELEMENTS = [
    (lambda x: torch.where(x > 0)[0], "pointwise:compare", 24),
    (lambda x: x.scatter_add(0, torch.zeros(2, 6).long(), x[:2]), "add_elems", 12),
    (lambda x: x.index_add(0, torch.tensor([0, 1]), x[:2]), "add_elems", 12),
    (lambda x: x.scatter_reduce(0, torch.zeros(2, 6).long(), x[:2], "amax"), "add_elems", 12),
    (lambda x: F.embedding_bag(torch.tensor([0, 1, 3]), x, torch.tensor([0, 2]), mode="sum"), "add_elems", 18),
    (lambda x: F.mse_loss(x, x), "pointwise:loss", 24),
    (lambda x: torch.special.i1(x).erfinv(), "pointwise:special", 48),
    (lambda x: torch.cummax(x, 1)[0], "pointwise:cummax", 24),
    (lambda x: torch.addr(x, x[:, 0], x[0]), "mul_elems", 24),
    (lambda x: torch.polar(x, x).real, "pointwise:polar", 24),
    (lambda x: (x.long() << 1) & x.long(), "pointwise:shift", 24),
]
# fmt: on


@pytest.mark.parametrize(("function", "column", "elements"), ELEMENTS)
def test_what_makes_no_products(function, column, elements):
    totals = count(read_torch(Calling(function), (4, 6)))
    assert (totals.macs, totals.columns[column]) == (0, elements)


def test_what_moves_elements_counts_nothing():
    def moves(x):
        x, ends = torch.sort(x.flatten())
        found = torch.bucketize(x, x), torch.bincount(ends), torch.histc(x, 5), torch.unique(x), torch.isin(x, x)
        return *found, torch.view_as_real(torch.complex(x, x)), torch.kthvalue(x, 2), torch.multinomial(x.abs(), 2)

    totals = count(read_torch(Calling(moves), (4, 6)))
    assert totals.macs == 0
    assert {column for column, amount in totals.columns.items() if amount} == {"pointwise:abs"}
