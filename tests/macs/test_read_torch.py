"""Layers and networks read from PyTorch: MACs and parameters against published integers and PyTorch's own."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from macs.torch_cases import CASES, torch  # first of what needs PyTorch: skips these tests without it
from torch.utils.flop_counter import FlopCounterMode
from torch_random import network

from bench import torch_networks
from nachos_min.macs import count
from nachos_min.macs.readers.torch_reader import example_inputs, read_torch

FILES = Path(__file__).parents[1] / "data_files"
LAYERS = {row["case"]: row for row in json.loads((FILES / "macs_layers.json").read_text())}
NETS = {row["net"]: row for row in json.loads((FILES / "macs_nets.json").read_text())}

# The file's exact count of a functional call with a constant is 0, for it looks at layers; PyTorch multiplies.
FUNCTIONAL = {
    "torch.matmul [1,24]x[24,16]",
    "x@w operator",
    "torch.matmul [1,5,24]x[24,16]",
    "einsum nchw,oc->nohw o=16",
    "torch.bmm [1,5,24]x[1,24,5]",
    "F.conv2d functional",
    "F.linear functional",
}

LARGEST = ((7,) * 20, (6,) * 20, (4,) * 5)
SMALLEST = ((3,) * 10, (3,) * 10, (2,) * 5)
NETWORKS = {
    "a MBV3-L (torchvision-like) 224 nc1000": (torch_networks.mobilenet_v3_large, 224),
    "a MBV3-L 32 nc1000": (torch_networks.mobilenet_v3_large, 32),
    "a MBV3-L 32 nc10": (lambda: torch_networks.mobilenet_v3_large(10), 32),
    "b ResNet20 optA 32": (torch_networks.resnet20_a, 32),
    "b ResNet20 optB 32": (torch_networks.resnet20_b, 32),
    "c TwoExit all": (torch_networks.two_exits, 32),
    "c TwoExit gate taken (thr 0)": (lambda: torch_networks.two_exits("gate", 0), 32),
    "c TwoExit gate not taken (thr 2)": (lambda: torch_networks.two_exits("gate", 2), 32),
    "c TwoExit final only": (lambda: torch_networks.two_exits("final"), 32),
    "d OFA-MBV3 max (ks7 e6 d4) r32 nc10": (lambda: torch_networks.ofa_mbv3(*LARGEST), 32),
    "d OFA-MBV3 min (ks3 e3 d2) r32 nc10": (lambda: torch_networks.ofa_mbv3(*SMALLEST), 32),
    "d OFA-MBV3 max r224 nc10": (lambda: torch_networks.ofa_mbv3(*LARGEST), 224),
    "d OFA-MBV3 min r224 nc10": (lambda: torch_networks.ofa_mbv3(*SMALLEST), 224),
}

# Of the 46,021 parameters those of layers that run: 34,058 stand after the first exit, 7,307 in it.
EXECUTED = {"c TwoExit gate taken (thr 0)": 46021 - 34058, "c TwoExit final only": 46021 - 7307}


def trained(module) -> int:
    return sum(x.numel() for x in module.parameters())


def executed_macs(module, inputs) -> int:
    """What PyTorch counts below its Python functions, halved."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module.eval()(*example_inputs(module, inputs))
    assert counter.get_total_flops() % 2 == 0
    return counter.get_total_flops() // 2


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_counts_as_published(name):
    case = CASES[name]
    module = case.make()
    graph = read_torch(module, case.shape, training=case.training)
    expected = executed_macs(module, case.shape) if name in FUNCTIONAL else LAYERS[name]["exact"]
    assert count(graph).macs == expected
    assert count(graph).params == trained(module.called if name == "unused submodule" else module)
    assert all(node.written.training == case.training for node in graph)


@pytest.mark.parametrize("name", NETS)
def test_a_network_counts_as_published(name):
    make, side = NETWORKS[name]
    module = make()
    totals = count(read_torch(module, (1, 3, side, side)))
    assert totals.macs == NETS[name]["exact"]
    assert trained(module) == NETS[name]["params"]
    assert totals.params == EXECUTED.get(name, NETS[name]["params"])


def test_a_batch_multiplies():
    once = read_torch(torch_networks.resnet20_a(), (1, 3, 32, 32))
    thrice = read_torch(torch_networks.resnet20_a(), (3, 3, 32, 32))
    assert count(thrice).macs == 3 * count(once).macs
    assert count(thrice).columns == {column: 3 * amount for column, amount in count(once).columns.items()}
    assert {node.written.samples for node in thrice} == {3}


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
