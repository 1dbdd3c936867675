"""Conventions of tools that trace a network once, held against what those tools report.

Recorded integers first, so that this needs none of the tools; then networks drawn at random, for as many of the
tools as are installed.
"""

import json
import warnings
from collections.abc import Callable
from dataclasses import replace
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nachos_min.eenn.lowering import lower
from nachos_min.macs.conventions import CONVENTIONS
from nachos_min.macs.conventions.onnx_tool import already_done, done_beforehand, merged_norms, merged_products
from nachos_min.macs.conventions.peers import installed, reported
from nachos_min.macs.ops import (
    Activation,
    Add,
    BatchNorm,
    Conv2d,
    ConvTranspose2d,
    Einsum,
    Graph,
    GroupNorm,
    InstanceNorm,
    Linear,
    MatMul,
    MaxPool,
    Move,
    Multiply,
    Node,
    Pointwise,
    Softmax,
    Source,
    Written,
)
from nachos_min.macs.record import Operator
from nachos_min.nas.genome import GenomeCoder, from_cnas
from nachos_min.nas.space import load_space

FILES = Path(__file__).parent.parent / "data_files"
RECORDED = {
    "fvcore": "fvcore",
    "torchprofile": "torchprofile",
    "torch": "torch-FlopCounter",
    "onnx-tool": "onnx-tool",
}
TOOLS = tuple(RECORDED)
EXCEPTIONS: dict[tuple[str, str], str] = {}  # (case, tool) -> why its number is not predicted: there is none

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


def total(tool: str, graph: Graph) -> int:
    return CONVENTIONS[tool].total(graph)


def recorded(case: str, record: dict) -> dict[str, int]:
    """What each tool reported, where it gave a number."""
    found = {tool: record.get(column) for tool, column in RECORDED.items() if (case, tool) not in EXCEPTIONS}
    return {tool: number for tool, number in found.items() if isinstance(number, int)}


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("record", LAYERS, ids=[record["case"] for record in LAYERS])
def test_recorded_layers(record: dict) -> None:
    pytest.importorskip("torch", reason="PyTorch is a peer, not a dependency")
    from macs import torch_cases

    from nachos_min.macs.readers.torch_reader import read_torch

    case = torch_cases.CASES[record["case"]]
    numbers = recorded(record["case"], record)
    graph = read_torch(case.make(), case.shape, training=case.training)
    assert {tool: total(tool, graph) for tool in numbers} == numbers


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
    numbers = recorded(record["net"], record)
    graph = read_torch(getattr(networks, function)(*arguments), (1, 3, side, side))
    assert {tool: total(tool, graph) for tool in numbers} == numbers


@pytest.mark.parametrize("record", OFA, ids=[f"{r['r']}px-{r['macs']}" for r in OFA])
def test_recorded_members_of_once_for_all(record: dict) -> None:
    side = record["r"]
    coder = GenomeCoder(replace(load_space("ofa-mbv3"), resolutions=(side,)), (side, side, 3), 10)
    configuration = json.dumps({name: record[name] for name in ("ks", "e", "d", "r")})
    graph = lower(coder.backbone(from_cnas(coder, configuration)))
    numbers = {tool: number for tool, number in record["reported"].items() if tool in TOOLS}
    assert {tool: total(tool, graph) for tool in numbers} == numbers
    # What version 0.0.2 leaves out is batch norm.
    assert total("torchprofile", graph) - total("torchprofile-0.0.2", graph) == record["norm_elems"]


# Where onnx-tool computes the shape of an array wrongly, and so everything behind it.
WRONG_SHAPES = (
    "the leading axes do not broadcast",
    "a last window that",
    "with padding='valid' its output",
    "dots are taken",
)


def check_peers(module, x) -> None:
    from nachos_min.macs.readers.torch_reader import read_torch

    graph = read_torch(module, (x,))
    for tool in TOOLS:
        number = reported(tool, module, (x,))[0] if installed(tool) else None
        terms = CONVENTIONS[tool].terms(graph)
        if number is not None and not any(term.note.startswith(WRONG_SHAPES) for term in terms):
            assert (tool, total(tool, graph)) == (tool, number)


@pytest.mark.skipif(not any(map(installed, TOOLS)), reason="none of the tools is installed")
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_programs_drawn_by_hypothesis(data) -> None:
    import torch_programs

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of PyTorch, about slow or odd options that are wanted here
        check_peers(*data.draw(torch_programs.programs()))


def single(op: Operator, function: str = "", batch: int = 1, **facts) -> Graph:
    """A graph of one node, whose further arrays are given."""
    given = tuple(Node("given", Source(shape), ()) for shape in op.operands[1:])
    written = Written(function, **facts) if function else None
    return (*given, Node("layer", op, (-1, *range(len(given))), batch=batch, relaid=True, written=written))


CONV = Conv2d((8, 8, 4), 6, (3, 3), padding=(1, 1, 1, 1), bias=True)
MACS, OUT = 8 * 8 * 6 * 4 * 9, 8 * 8 * 6


@pytest.mark.parametrize(
    ("tool", "number"), [("fvcore", 0), ("torchprofile", 0), ("torch", 2 * MACS), ("onnx-tool", 0)]
)
def test_what_the_output_does_not_depend_on_is_not_traced(tool: str, number: int) -> None:
    (graph,) = single(CONV, "F.conv2d", used=False)
    assert total(tool, (graph,)) == number
    if not number:
        (entry, *_) = CONVENTIONS[tool].terms((graph,))
        assert entry.why == "the output does not depend on it, so it is not in the trace"


@pytest.mark.parametrize(("tool", "number"), [("fvcore", 0), ("torchprofile", 0), ("onnx-tool", MACS + OUT)])
def test_padding_given_as_a_word(tool: str, number: int) -> None:
    assert total(tool, single(CONV, "F.conv2d", padding="same")) == number


@pytest.mark.parametrize("function", ["torch.mv", "torch.dot", "torch.baddbmm", "F.scaled_dot_product_attention"])
def test_functions_that_fvcore_does_not_know(function: str) -> None:
    graph = single(MatMul((2, 3, 4), (2, 4, 5)), function)
    assert total("fvcore", graph) == 0
    assert function in CONVENTIONS["fvcore"].terms(graph)[0].why


@pytest.mark.parametrize(
    ("function", "now", "before"),
    [("torch.mm", 0, 0), ("x @ y", 60, 60), ("torch.baddbmm", 60, 0), ("F.scaled_dot_product_attention", 60, 0)],
)
def test_functions_that_torchprofile_does_not_know(function: str, now: int, before: int) -> None:
    graph = single(MatMul((3, 4), (4, 5)), function)
    assert (total("torchprofile", graph), total("torchprofile-0.0.2", graph)) == (now, before)


@pytest.mark.parametrize(
    ("op", "now", "before"),
    [
        (BatchNorm((2, 3, 4)), 24, 0),
        (GroupNorm((2, 3, 4), 2), 24, 0),
        (InstanceNorm((2, 3, 4)), 0, 24),
        (InstanceNorm((2, 3, 4), affine=True), 24, 24),
    ],
    ids=lambda value: type(value).__name__,
)
def test_norms_by_versions_of_torchprofile(op: Operator, now: int, before: int) -> None:
    assert (total("torchprofile", single(op)), total("torchprofile-0.0.2", single(op))) == (now, before)


@pytest.mark.parametrize(
    ("channels", "out", "groups", "inward"),
    [(8, 16, 4, 8), (8, 8, 4, 2), (8, 8, 1, 8), (8, 16, 1, 8), (8, 4, 1, 8)],
)
def test_torchprofile_tells_groups_by_the_first_length_of_the_weights(channels, out, groups, inward) -> None:
    op = ConvTranspose2d((5, 6, channels), out, (3, 2), (2, 2), groups=groups)
    height, width, _ = op.output
    assert total("torchprofile", single(op)) == height * width * out * inward * 3 * 2


@pytest.mark.parametrize(
    ("equation", "shapes", "number"),
    [
        ("nchw,oc->nohw", ((1, 8, 16, 16), (16, 8)), 32770),  # NumPy prints 6.554e+04 for 65,537
        ("nhwc,nhwd->ncd", ((2, 3, 3, 4), (2, 3, 3, 5)), 360),
        ("xyz,xyw->xzw", ((100, 100, 9), (100, 100, 9)), 810_000),  # one of two that it knows by heart
        ("ij,ij->ij", ((30, 40), (30, 40)), 600),
    ],
)
def test_fvcore_takes_half_of_what_numpy_prints(equation: str, shapes, number: int) -> None:
    assert total("fvcore", single(Einsum(equation, shapes))) == number


@pytest.mark.parametrize(
    ("written", "factor"), [({}, 2), ({"training": True}, 5), ({"facts": frozenset({"statistics"})}, 5)]
)
def test_batch_norm_that_measures_costs_fvcore_more(written: dict, factor: int) -> None:
    assert total("fvcore", single(BatchNorm((3, 3, 4)), "F.batch_norm", **written)) == factor * 36


@pytest.mark.parametrize(
    ("tool", "number"), [("torch", 960), ("fvcore", 160), ("torchprofile", 480), ("onnx-tool", 240)]
)
def test_products_of_arrays_that_broadcast(tool: str, number: int) -> None:
    """(2, 1, 4, 4) times (3, 4, 5): 6 products of 80."""
    assert total(tool, single(MatMul((2, 1, 4, 4), (3, 4, 5)), "x @ y")) == number


def chain(*ops: Operator, **inputs: tuple[int, ...]) -> Graph:
    """Nodes one after the other; `nK` gives node K other inputs."""
    sources = [inputs.get(f"n{place}", (place - 1,)) for place in range(len(ops))]
    return tuple(Node(f"n{place}", op, source) for place, (op, source) in enumerate(zip(ops, sources, strict=True)))


PLAIN = Conv2d((4, 4, 2), 3, (1, 1))
NORM, RELU = BatchNorm((4, 4, 3)), Activation((4, 4, 3), "relu")


def test_batch_norm_is_merged_into_the_convolution_before_it() -> None:
    assert merged_norms(chain(PLAIN, NORM, NORM, RELU)) == {1: False, 2: True}
    assert total("onnx-tool", chain(PLAIN, NORM, NORM, RELU)) == PLAIN.macs + 48 + 48
    biased = Conv2d((4, 4, 2), 3, (1, 1), bias=True)
    assert total("onnx-tool", chain(biased, NORM)) == total("onnx-tool", chain(biased))
    assert total("onnx-tool", chain(RELU, NORM)) == 48 + 31 * 48
    # Its output is read twice, so it cannot change.
    shared = chain(PLAIN, NORM, Add(((4, 4, 3), (4, 4, 3))), n2=(0, 1))
    assert merged_norms(shared) == {}
    assert total("onnx-tool", shared) == PLAIN.macs + 31 * 48 + 48


def test_a_norm_that_measures_its_input_stays() -> None:
    conv, norm = chain(PLAIN, NORM)
    norm = replace(norm, written=Written("F.batch_norm", facts=frozenset({"statistics"})))
    assert merged_norms((conv, norm)) == {}
    assert total("onnx-tool", (conv, norm)) == PLAIN.macs + 36 * 48


def test_the_same_work_is_done_once() -> None:
    both = chain(RELU, RELU, Add(((4, 4, 3), (4, 4, 3))), n1=(-1,), n2=(0, 1))
    assert already_done(both) == {1}
    assert total("onnx-tool", both) == 48 + 48
    # Two layers have different weights, even two norms without any; what a number was added to may differ.
    for op in (PLAIN, BatchNorm((4, 4, 3), affine=False), Multiply(((4, 4, 3),)), Softmax((4, 4, 3), 3)):
        assert already_done(chain(op, op, n1=(-1,))) == frozenset()
    twice = chain(PLAIN, PLAIN, n1=(-1,))
    assert already_done((twice[0], replace(twice[1], shares=0))) == {1}


def test_a_product_that_is_merged_into_a_sum_and_needed_elsewhere_is_done_twice() -> None:
    product = Node("product", MatMul((2, 3), (3, 4)), (-1, -1), relaid=True, written=Written("torch.mm"))
    total_of = Node("sum", Add(((2, 4), (2, 4))), (0, 1))
    graph = (*chain(Source((3, 4)), n0=()), replace(product, inputs=(-1, 0)), replace(total_of, inputs=(1, 1)))
    assert merged_products(graph) == {2: 1}
    assert total("onnx-tool", graph) == 24 + 8 + 24
    assert merged_products(graph[:2]) == {}


@pytest.mark.parametrize(("tool", "number"), [("fvcore", 12), ("torchprofile", 0), ("torch", 24), ("onnx-tool", 0)])
def test_dots_in_an_equation(tool: str, number: int) -> None:
    op = Einsum("Zk,kn->Zn", ((2, 3), (3, 2)))
    assert total(tool, single(op, "torch.einsum", facts=frozenset({"dots"}))) == number


def test_a_vector_is_seen_only_where_it_becomes_a_matrix() -> None:
    op = MatMul((2, 3, 4), (4, 1))
    assert total("torch", single(op, "x @ y", facts=frozenset({"vector"}))) == 0
    assert total("torch", single(op, "x @ y", facts=frozenset({"vector", "strided"}))) == 48


def test_what_depends_on_weights_alone_is_done_beforehand() -> None:
    graph = (
        Node("weight", Source((8,), trained=8), ()),
        Node("double", Multiply(((8,),)), (0,)),
        Node("move", Move(((8,),), (1, 8)), (1,)),
        Node("power", Pointwise(((1, 8),), "exp"), (2,)),
        Node("scale", Multiply(((5, 8), (1, 8))), (-1, 3)),
    )
    assert done_beforehand(graph) == {0, 1, 2}
    assert total("onnx-tool", graph) == 32 * 8 + 40


@pytest.mark.parametrize(
    ("op", "function", "number"),
    [
        (MaxPool((8, 5, 2), (1, 1), (2, 2), ceil=True), "F.max_pool2d", 5 * 3 * 2),
        (Conv2d((8, 8, 1), 1, (3, 3), dilation=(2, 2)), "F.conv2d", 6 * 6 * 9),
        (Linear((3, 4), 5, bias=False), "F.linear", 60),
        (Pointwise(((3, 4),), "compare"), "x != y", 24),
    ],
    ids=lambda value: getattr(value, "kind", type(value).__name__),
)
def test_what_onnx_tool_makes_of_it(op: Operator, function: str, number: int) -> None:
    padding = "valid" if function == "F.conv2d" else ""
    assert total("onnx-tool", single(op, function, padding=padding)) == number


def test_attention_is_scaled_in_an_exported_file() -> None:
    written = Written("F.scaled_dot_product_attention")
    product, weights = MatMul((1, 2, 5, 4), (1, 2, 4, 5)), Softmax((1, 2, 5, 5), 5)
    graph = (
        Node("scores", product, (-1, -1), written=written, relaid=True),
        Node("weights", weights, (0,), written=written),
        Node("out", MatMul((1, 2, 5, 5), (1, 2, 5, 4)), (1, -1), written=written, relaid=True),
    )
    assert total("onnx-tool", graph) == 200 + 40 + 40 + (3 * 24 + 4) + 36 * 50 + 200


@pytest.mark.parametrize("tool", [*TOOLS, "torchprofile-0.0.2"])
def test_reasons_and_notes_are_clauses(tool: str) -> None:
    cases: list[Callable[[], Graph]] = [
        lambda: single(CONV, "F.conv2d", used=False),
        lambda: single(CONV, "F.conv2d", padding="same"),
        lambda: single(MatMul((2, 3), (3, 4)), "torch.mm"),
        lambda: single(ConvTranspose2d((5, 5, 8), 16, (3, 3), (2, 2), groups=4)),
        lambda: single(Einsum("nchw,oc->nohw", ((1, 8, 16, 16), (16, 8)))),
        lambda: chain(PLAIN, NORM, NORM),
    ]
    for case in cases:
        for entry in CONVENTIONS[tool].terms(case()):
            for text in (entry.why, entry.note):
                assert not text.endswith(".")
                assert not text[:1].isupper()
