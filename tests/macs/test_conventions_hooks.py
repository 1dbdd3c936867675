"""Conventions of tools that watch modules, functions or the dispatcher, held against what those tools report.

Recorded integers first, so that this needs none of the tools; then networks drawn at random, for as many of the
tools as are installed.
"""

import json
import random
import warnings
from dataclasses import replace
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nachos_min.eenn.lowering import lower
from nachos_min.macs.conventions import CONVENTIONS
from nachos_min.macs.conventions.peers import installed, reported
from nachos_min.macs.ops import (
    Activation,
    Conv2d,
    GlobalAvgPool,
    Graph,
    Linear,
    MatMul,
    Node,
    Resize,
    Source,
    Written,
)
from nachos_min.macs.record import Operator
from nachos_min.nas.genome import GenomeCoder, from_cnas
from nachos_min.nas.space import load_space

FILES = Path(__file__).parent.parent / "data_files"
RECORDED = {
    "thop": "thop",
    "ptflops": "ptflops-pytorch",
    "ptflops-aten": "ptflops-aten",
    "calflops": "calflops-MACs",
    "calflops-flops": "calflops-FLOPs",
    "torchinfo": "torchinfo",
    "torch": "torch-FlopCounter",
}
TOOLS = tuple(RECORDED)

# What ptflops feeds to the network is memory that it does not initialise, so it decides nothing about the gate.
EXCEPTIONS = {
    ("c TwoExit gate taken (thr 0)", "ptflops"): "it ran both exits where the gate was to be taken",
    ("c TwoExit gate taken (thr 0)", "ptflops-aten"): "it ran both exits where the gate was to be taken",
}


def predicted(graph: Graph, *tools: str) -> dict[str, int]:
    return {tool: CONVENTIONS[tool].total(graph) for tool in tools}


def recorded(case: str, record: dict) -> dict[str, int]:
    """What each tool reported: no entry where it gave no number, or where the table above says why it is off."""
    found = {tool: record.get(column) for tool, column in RECORDED.items() if (case, tool) not in EXCEPTIONS}
    return {tool: number for tool, number in found.items() if isinstance(number, int)}


LAYERS = json.loads((FILES / "macs_layers.json").read_text())
NETS = json.loads((FILES / "macs_nets.json").read_text())
OFA = json.loads((FILES / "ofa_macs.json").read_text())


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


def test_few_cells_are_exceptions() -> None:
    cells = sum(
        len(recorded(record[key], record)) for file, key in ((LAYERS, "case"), (NETS, "net")) for record in file
    )
    assert len(EXCEPTIONS) <= 0.03 * cells


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("record", LAYERS, ids=[record["case"] for record in LAYERS])
def test_recorded_layers(record: dict) -> None:
    pytest.importorskip("torch", reason="PyTorch is a peer, not a dependency")
    from macs import torch_cases

    from nachos_min.macs.readers.torch_reader import read_torch

    case = torch_cases.CASES[record["case"]]
    numbers = recorded(record["case"], record)
    assert predicted(read_torch(case.make(), case.shape, training=case.training), *numbers) == numbers


@pytest.mark.parametrize("record", NETS, ids=[record["net"] for record in NETS])
def test_recorded_networks(record: dict) -> None:
    pytest.importorskip("torch", reason="PyTorch is a peer, not a dependency")
    from nachos_min.macs.readers.torch_reader import read_torch

    function, arguments, side = NETWORKS[record["net"]]
    spec = spec_from_file_location("torch_networks", Path(__file__).parents[2] / "bench" / "torch_networks.py")
    assert spec is not None
    assert spec.loader is not None
    networks = module_from_spec(spec)
    spec.loader.exec_module(networks)
    module = getattr(networks, function)(*arguments)
    numbers = recorded(record["net"], record)
    assert predicted(read_torch(module, (1, 3, side, side)), *numbers) == numbers


@pytest.mark.parametrize("record", OFA, ids=[f"{r['r']}px-{r['macs']}" for r in OFA])
def test_recorded_members_of_once_for_all(record: dict) -> None:
    """From the architecture, no module being made: our own networks know how PyTorch code writes them."""
    side = record["r"]
    coder = GenomeCoder(replace(load_space("ofa-mbv3"), resolutions=(side,)), (side, side, 3), 10)
    configuration = json.dumps({name: record[name] for name in ("ks", "e", "d", "r")})
    graph = lower(coder.backbone(from_cnas(coder, configuration)))
    numbers = {tool: number for tool, number in record["reported"].items() if tool in TOOLS}
    assert predicted(graph, *numbers) == numbers


def check_peers(module, x) -> None:
    """Predict and count; a tool that fails on a network is no evidence either way."""
    from nachos_min.macs.readers.torch_reader import read_torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of PyTorch, about slow or odd options that are wanted here
        numbers = {tool: reported(tool, module, (x,))[0] for tool in TOOLS if installed(tool)}
        numbers = {tool: number for tool, number in numbers.items() if number is not None}
        assert predicted(read_torch(module, (x,)), *numbers) == numbers


@pytest.mark.skipif(not any(map(installed, TOOLS)), reason="none of the tools is installed")
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_networks_drawn_by_hypothesis(data) -> None:
    from torch_random import network

    check_peers(*network(lambda options: data.draw(st.sampled_from(list(options)))))


@pytest.mark.skipif(not any(map(installed, TOOLS)), reason="none of the tools is installed")
@pytest.mark.parametrize("seed", range(60))
def test_networks_drawn_at_random(seed: int) -> None:
    """Hypothesis keeps to small choices; these go everywhere, the same everywhere each time."""
    from torch_random import network

    source = random.Random(seed)
    check_peers(*network(lambda options: options[source.randrange(len(options))]))


@pytest.mark.parametrize(
    "name",
    [
        "attention with weights",
        "attention without weights",
        "encoder layer",
        "encoder layer, gelu",
        "embedding",
        "layer in a plain list",
        "shared three times",
        "name of a convolution",
        "parametrized",
        "channels per slope",
        "no axis of samples",
        "no axis of samples, linear",
        "upsampling of old",
        "synchronised norm",
        "larger than 2**31",
    ],
)
def test_networks_of_the_odd_kind(name: str) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is a peer, not a dependency")
    from torch_odd import NETWORKS as ODD

    make, shape = ODD[name]
    torch.manual_seed(0)
    check_peers(make().eval(), torch.randn(shape))


def single(op: Operator, written: Written | None = None, batch: int = 1) -> Graph:
    """A graph of one node, whose further arrays are given."""
    given = tuple(Node("given", Source(shape), ()) for shape in op.operands[1:])
    return (*given, Node("layer", op, (-1, *range(len(given))), batch=batch, relaid=True, written=written))


CONV = Conv2d((8, 8, 4), 6, (3, 3), padding=(1, 1, 1, 1), bias=True)
MACS = 8 * 8 * 6 * 4 * 9


def test_what_was_never_written_counts_as_the_usual_module() -> None:
    written = Written("F.conv2d", module="Conv2d", layer="Conv2d")
    assert predicted(single(CONV), *TOOLS) == predicted(single(CONV, written), *TOOLS)
    assert predicted(single(CONV), *TOOLS) == {
        "thop": MACS,
        "ptflops": MACS + 384,
        "ptflops-aten": MACS + 384,
        "calflops": MACS,
        "calflops-flops": 2 * MACS + 384,
        "torchinfo": MACS + 384,
        "torch": 2 * MACS,
    }
    assert predicted(single(Activation((7,), "swiglu")), *TOOLS) == dict.fromkeys(TOOLS, 0)


def test_a_module_under_two_names_counts_once_twice_or_four_times() -> None:
    twice = Written("F.conv2d", module="Conv2d", layer="Conv2d", paths=2)
    once = predicted(single(CONV), *TOOLS)
    assert {tool: number / once[tool] for tool, number in predicted(single(CONV, twice), *TOOLS).items()} == {
        "thop": 4,
        "ptflops": 2,
        "ptflops-aten": 1,
        "calflops": 2,
        "calflops-flops": 2,
        "torchinfo": 1,
        "torch": 1,
    }
    relu = Written("F.relu", module="ReLU", layer="ReLU", paths=2)
    assert predicted(single(Activation((5,), "relu"), relu), "ptflops") == {"ptflops": 15}


def test_a_module_in_a_plain_list_is_missed_by_hooks() -> None:
    hidden = Written("F.conv2d", module="Conv2d", layer="Conv2d", paths=0)
    found = predicted(single(CONV, hidden), *TOOLS)
    assert [tool for tool, number in found.items() if number == 0] == ["thop", "ptflops", "torchinfo"]
    (entry, *_) = CONVENTIONS["thop"].terms(single(CONV, hidden))
    assert "plain list" in entry.why


@pytest.mark.parametrize("tool", ["ptflops", "ptflops-aten"])
def test_ptflops_counts_one_sample_of_its_own(tool: str) -> None:
    batched = Written("F.conv2d", module="Conv2d", layer="Conv2d", samples=5)
    assert predicted(single(CONV, batched, batch=5), tool) == predicted(single(CONV), tool)
    row = Written("F.linear", module="Linear", layer="Linear", samples=5)
    assert predicted(single(Linear((3, 4), 2), row, batch=7), tool)[tool] == 7 * (24 + 6), "7 is no multiple of 5"


def test_every_reason_and_note_is_a_clause() -> None:
    """They stand in brackets behind a number, so they neither begin with a capital nor end in a full stop."""
    nodes = [
        single(CONV, Written("F.conv2d", module="own.Conv", layer="Conv2d")),
        single(CONV, Written("F.conv2d", module="Conv2d", layer="Conv2d", leaf=False)),
        single(CONV, Written("F.conv2d", module="own.Block")),
        single(MatMul((2, 3, 4), (4, 5)), Written("x @ y")),
        single(MatMul((2, 3, 4), (4, 1)), Written("torch.matmul", facts=frozenset({"vector"}))),
        single(Resize((4, 4, 3), (9, 9), "nearest"), Written("F.interpolate", facts=frozenset({"side"}))),
        single(GlobalAvgPool((5, 5, 3))),
    ]
    for graph in nodes:
        for tool in TOOLS:
            for entry in CONVENTIONS[tool].terms(graph):
                for text in (entry.why, entry.note):
                    assert not text.endswith("."), text
                    assert not text[:1].isupper() or text.split()[0] in ("PyTorch", "NumPy"), text
