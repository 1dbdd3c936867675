"""Layers and networks read from PyTorch: MACs and parameters against published integers and PyTorch's own."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from macs.test_conventions import LAYERS, NETS, NETWORKS
from macs.torch_cases import CASES, torch  # first of what needs PyTorch: skips these tests without it
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
