"""Conventions held against what the tools report: recorded integers, then networks drawn at random.

The recorded part needs none of the tools; the other takes those that are installed.
"""

import json
import random
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nachos_min.eenn.lowering import lower
from nachos_min.macs.conventions import CONVENTIONS
from nachos_min.macs.conventions.peers import installed, reported
from nachos_min.macs.ops import Graph
from nachos_min.nas.genome import GenomeCoder, from_cnas
from nachos_min.nas.space import load_space

# Convention -> its column in the recorded data. Tools that watch a call come first, then those that trace a run.
WATCHING = {
    "thop": "thop",
    "ptflops": "ptflops-pytorch",
    "ptflops-aten": "ptflops-aten",
    "calflops": "calflops-MACs",
    "calflops-flops": "calflops-FLOPs",
    "torchinfo": "torchinfo",
    "torch": "torch-FlopCounter",
}
TRACING = {"fvcore": "fvcore", "torchprofile": "torchprofile", "onnx-tool": "onnx-tool"}
RECORDED = WATCHING | TRACING

# What ptflops feeds to the network is memory that it does not initialise, so it decides nothing about the gate.
# It ran both exits where the gate was to be taken.
EXCEPTIONS = {("c TwoExit gate taken (thr 0)", tool) for tool in ("ptflops", "ptflops-aten")}

# Where onnx-tool computes the shape of an array wrongly, and so everything behind it.
WRONG_SHAPES = ("the leading axes do not broadcast", "a last window that", "with padding='valid'", "dots are taken")

FILES = Path(__file__).parents[1] / "data_files"
LAYERS, NETS, OFA = (
    json.loads((FILES / f"{name}.json").read_text()) for name in ("macs_layers", "macs_nets", "ofa_macs")
)
MEASURED = {record["case"]: record for record in LAYERS} | {record["net"]: record for record in NETS}
SMALLEST = ((3,) * 10, (3,) * 10, (2,) * 5)
NETWORKS: dict[str, tuple[str, tuple, int]] = {
    "a MBV3-L (torchvision-like) 224 nc1000": ("mobilenet_v3_large", (), 224),
    "a MBV3-L 32 nc1000": ("mobilenet_v3_large", (), 32),
    "a MBV3-L 32 nc10": ("mobilenet_v3_large", (10,), 32),
    "b ResNet20 optA 32": ("resnet20_a", (), 32),
    "b ResNet20 optB 32": ("resnet20_b", (), 32),
    "c TwoExit all": ("two_exits", ("all",), 32),
    "c TwoExit gate taken (thr 0)": ("two_exits", ("gate", 0), 32),
    "c TwoExit gate not taken (thr 2)": ("two_exits", ("gate", 2), 32),
    "c TwoExit final only": ("two_exits", ("final",), 32),
    "d OFA-MBV3 max (ks7 e6 d4) r32 nc10": ("ofa_mbv3", (), 32),
    "d OFA-MBV3 min (ks3 e3 d2) r32 nc10": ("ofa_mbv3", SMALLEST, 32),
    "d OFA-MBV3 max r224 nc10": ("ofa_mbv3", (), 224),
    "d OFA-MBV3 min r224 nc10": ("ofa_mbv3", SMALLEST, 224),
}


def totals(graph: Graph, tools) -> dict[str, int]:
    return {tool: CONVENTIONS[tool].total(graph) for tool in tools}


def recorded(case: str, record: dict) -> dict[str, int]:
    """What each tool reported: no entry where it gave no number, or where the table above says why it is off."""
    found = {tool: record.get(column) for tool, column in RECORDED.items() if (case, tool) not in EXCEPTIONS}
    return {tool: number for tool, number in found.items() if isinstance(number, int)}


def reader():
    pytest.importorskip("torch", reason="PyTorch is a peer, not a dependency")
    from nachos_min.macs.readers.torch_reader import read_torch

    return read_torch


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("name", [*MEASURED])
def test_recorded_layers_and_networks(name: str) -> None:
    read_torch = reader()
    numbers = recorded(name, MEASURED[name])
    if name in NETWORKS:
        function, arguments, side = NETWORKS[name]
        networks = pytest.importorskip("bench.torch_networks", reason="an installed copy has no bench")
        graph = read_torch(getattr(networks, function)(*arguments), (1, 3, side, side))
    else:
        from macs.torch_cases import CASES

        graph = read_torch(CASES[name].make(), CASES[name].shape, training=CASES[name].training)
    assert totals(graph, numbers) == numbers


@pytest.mark.parametrize("record", OFA, ids=[f"{r['r']}px-{r['macs']}" for r in OFA])
def test_recorded_members_of_once_for_all(record: dict) -> None:
    """From the architecture, no module being made: our own networks know how PyTorch code writes them."""
    side = record["r"]
    coder = GenomeCoder(replace(load_space("ofa-mbv3"), resolutions=(side,)), (side, side, 3), 10)
    configuration = {name: record[name] for name in ("ks", "e", "d", "r")}
    graph = lower(coder.backbone(from_cnas(coder, configuration)))
    numbers = {tool: number for tool, number in record["reported"].items() if tool in RECORDED}
    assert totals(graph, numbers) == numbers
    # What version 0.0.2 leaves out is batch norm.
    now, before = totals(graph, ("torchprofile", "torchprofile-0.0.2")).values()
    assert now - before == record["norm_elems"]


def check_peers(module, x, tools) -> None:
    """Predict and count; a tool that fails on a network is no evidence either way."""
    graph = reader()(module, (x,))
    for tool in filter(installed, tools):
        number, _ = reported(tool, module, (x,))
        wrong = any(term.note.startswith(WRONG_SHAPES) for term in CONVENTIONS[tool].terms(graph))
        assert number is None or wrong or (tool, CONVENTIONS[tool].total(graph)) == (tool, number)


needs_tools = pytest.mark.skipif(not any(map(installed, RECORDED)), reason="none of the tools is installed")


def drawn(choose, **traced):
    from torch_random import network

    with warnings.catch_warnings(action="ignore"):
        check_peers(*network(choose, **traced), (*TRACING, "torch") if traced else WATCHING)


@needs_tools
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_programs_drawn_by_hypothesis(data) -> None:
    drawn(lambda options: data.draw(st.sampled_from(list(options))), traced=True)


@needs_tools
@pytest.mark.parametrize("seed", range(60))
def test_networks_drawn_at_random(seed: int) -> None:
    """Hypothesis prefers small choices; these are uniform, and the same each time."""
    source = random.Random(seed)
    drawn(lambda options: options[source.randrange(len(options))])


@needs_tools
@pytest.mark.filterwarnings("ignore")
def test_networks_of_the_odd_kind() -> None:
    from macs.torch_cases import ODD, torch

    for make, shape in ODD.values():
        torch.manual_seed(0)
        check_peers(make().eval(), torch.randn(shape), WATCHING)


@needs_tools
@pytest.mark.filterwarnings("ignore")
def test_other_kinds_of_layers() -> None:
    from macs.torch_cases import KINDS, torch

    for name, (make, shape) in KINDS.items():
        torch.manual_seed(0)
        tools = WATCHING if name == "distances" else RECORDED  # a file spells out the differences
        check_peers(make().eval(), torch.randn(shape), tools)


@needs_tools
@pytest.mark.filterwarnings("ignore:.*spectral_norm.*is deprecated:FutureWarning")
def test_ptflops_hook_does_not_see_how_a_layer_computes_its_weight() -> None:
    from macs.torch_cases import torch

    linear = torch.nn.utils.spectral_norm(torch.nn.Linear(4, 3))
    check_peers(torch.nn.Sequential(linear).eval(), torch.zeros(1, 4), ["ptflops"])


@needs_tools
@pytest.mark.parametrize("batch", [1, 2, 5])
@pytest.mark.parametrize("first", [True, False])
def test_ptflops_aten_feeds_one_sample_to_attention(batch: int, first: bool) -> None:
    """For one sample an input with the axis of samples second is in one block, so its bias is counted."""
    from macs.torch_cases import torch

    layer = torch.nn.TransformerEncoderLayer(16, 4, 32, batch_first=first).eval()
    check_peers(torch.nn.Sequential(layer), torch.zeros(batch, 5, 16), ["ptflops-aten"])
