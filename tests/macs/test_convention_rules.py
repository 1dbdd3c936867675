"""What conventions count by rules that few networks show, by hand; and why two totals differ, in words."""

from dataclasses import replace

import pytest

from nachos_min.macs import CountError, ops
from nachos_min.macs.conventions import CONVENTIONS, Convention, convention, explain, find_convention, patches
from nachos_min.macs.conventions.bill import products
from nachos_min.macs.conventions.convention import installed_version
from nachos_min.macs.conventions.onnx_tool import already_done, done_beforehand, merged_norms, merged_products
from nachos_min.macs.ops import Conv2d, Einsum, Graph, Linear, MatMul, Node, Source, Written
from nachos_min.macs.record import Operator

WATCHING = ("thop", "ptflops", "ptflops-aten", "calflops", "calflops-flops", "torchinfo", "torch")
CONV = Conv2d((8, 8, 4), 6, (3, 3), padding=(1, 1, 1, 1), bias=True)
MACS, OUT = 8 * 8 * 6 * 4 * 9, 8 * 8 * 6
MODULE = {"module": "Conv2d", "layer": "Conv2d"}


def total(tool: str, graph: Graph) -> int:
    return CONVENTIONS[tool].total(graph)


def single(op: Operator, function: str = "", batch: int = 1, **written) -> Graph:
    """A graph of one node, whose further arrays are given; facts are words."""
    written |= {"facts": frozenset(written.get("facts", "").split())}
    given = tuple(Node("given", Source(shape), ()) for shape in op.operands[1:])
    how = Written(function, **written) if function else None
    return (*given, Node("layer", op, (-1, *range(len(given))), batch=batch, relaid=True, written=how))


def test_what_was_never_written_counts_as_the_usual_module() -> None:
    for graph in (single(CONV), single(CONV, "F.conv2d", **MODULE)):
        found = [total(tool, graph) for tool in WATCHING]
        assert found == [MACS, MACS + OUT, MACS + OUT, MACS, 2 * MACS + OUT, MACS + OUT, 2 * MACS]
    assert not any(total(tool, single(ops.Activation((7,), "swiglu"))) for tool in WATCHING)


def test_a_module_under_two_names_or_none() -> None:
    once, twice, hidden = single(CONV), *(single(CONV, "F.conv2d", paths=paths, **MODULE) for paths in (2, 0))
    assert [total(tool, twice) / total(tool, once) for tool in WATCHING] == [4, 2, 1, 2, 2, 1, 1]
    relu = single(ops.Activation((5,), "relu"), "F.relu", module="ReLU", layer="ReLU", paths=2)
    assert total("ptflops", relu) == 15
    assert [tool for tool in WATCHING if total(tool, hidden) == 0] == ["thop", "ptflops", "torchinfo"]
    assert "plain list" in CONVENTIONS["thop"].terms(hidden)[0].why


@pytest.mark.parametrize("tool", ["ptflops", "ptflops-aten"])
def test_ptflops_counts_one_sample_of_its_own(tool: str) -> None:
    assert total(tool, single(CONV, "F.conv2d", batch=5, samples=5, **MODULE)) == total(tool, single(CONV))
    rows = single(Linear((3, 4), 2), "F.linear", batch=7, module="Linear", layer="Linear", samples=5)
    assert total(tool, rows) == 7 * (24 + 6), "7 is no multiple of 5"


PRODUCT, BROADCAST = MatMul((2, 3, 4), (2, 4, 5)), MatMul((2, 1, 4, 4), (3, 4, 5))  # 6 products of 80
MATRIX, VECTOR = MatMul((3, 4), (4, 5)), MatMul((2, 3, 4), (4, 1))
DOTS = Einsum("Zk,kn->Zn", ((2, 3), (3, 2)))
SQUARE = ops.BatchNorm((3, 3, 4))
ATTENTION = "F.scaled_dot_product_attention"


# Graph, and what some tools say of it.
ONE_LAYER = [
    # What the output does not depend on is not traced; padding given as a word is another operator.
    (single(CONV, "F.conv2d", used=False), {"fvcore": 0, "torchprofile": 0, "torch": 2 * MACS, "onnx-tool": 0}),
    (single(CONV, "F.conv2d", padding="same"), {"fvcore": 0, "torchprofile": 0, "onnx-tool": MACS + OUT}),
    # Functions without a rule.
    *((single(PRODUCT, name), {"fvcore": 0}) for name in ("torch.mv", "torch.dot", "torch.baddbmm", ATTENTION)),
    (single(MATRIX, "torch.mm"), {"torchprofile": 0, "torchprofile-0.0.2": 0}),
    (single(MATRIX, "x @ y"), {"torchprofile": 60, "torchprofile-0.0.2": 60}),
    (single(MATRIX, "torch.baddbmm"), {"torchprofile-0.0.2": 0}),
    (single(MATRIX, ATTENTION), {"torchprofile": 60, "torchprofile-0.0.2": 0}),
    (single(VECTOR, "x @ y", facts="vector"), {"torch": 0}),
    (single(VECTOR, "x @ y", facts="vector strided"), {"torch": 48}),
    # Norms.
    (single(SQUARE, "F.batch_norm", facts="statistics"), {"fvcore": 180}),
    (single(SQUARE), {"torchprofile": 36, "torchprofile-0.0.2": 0}),
    (single(ops.GroupNorm((2, 3, 4), 2)), {"torchprofile": 24, "torchprofile-0.0.2": 0}),
    (single(ops.InstanceNorm((2, 3, 4))), {"torchprofile": 0, "torchprofile-0.0.2": 24}),
    (single(ops.InstanceNorm((2, 3, 4), affine=True)), {"torchprofile": 24}),
    # Products of arrays that broadcast, and Einstein sums.
    (single(BROADCAST, "x @ y"), {"torch": 960, "fvcore": 160, "torchprofile": 480, "onnx-tool": 240}),
    (single(Einsum("nhwc,nhwd->ncd", ((2, 3, 3, 4), (2, 3, 3, 5)))), {"fvcore": 360}),
    (single(Einsum("xyz,xyw->xzw", ((100, 100, 9), (100, 100, 9)))), {"fvcore": 810_000}),  # known by heart
    (single(Einsum("ij,ij->ij", ((30, 40), (30, 40)))), {"fvcore": 600}),
    (single(DOTS, "torch.einsum", facts="dots"), {"fvcore": 12, "torchprofile": 0, "torch": 24, "onnx-tool": 0}),
    # Groups of a transposed convolution are told by the first length of its weights.
    *(
        (single(ops.ConvTranspose2d((5, 6, 8), out, (3, 2), (2, 2), groups=groups)), {"torchprofile": number})
        for out, groups, number in ((16, 4, 101376), (8, 4, 12672), (8, 1, 50688), (16, 1, 101376), (4, 1, 25344))
    ),
    # What onnx-tool makes of shapes.
    (single(ops.MaxPool((8, 5, 2), (1, 1), (2, 2), ceil=True), "F.max_pool2d"), {"onnx-tool": 5 * 3 * 2}),
    (single(Conv2d((8, 8, 1), 1, (3, 3), dilation=(2, 2)), "F.conv2d", padding="valid"), {"onnx-tool": 6 * 6 * 9}),
    (single(Linear((3, 4), 5, bias=False), "F.linear"), {"onnx-tool": 60}),
    (single(ops.Pointwise(((3, 4),), "compare"), "x != y"), {"onnx-tool": 24}),
]


@pytest.mark.parametrize(("graph", "numbers"), ONE_LAYER)
def test_one_layer(graph: Graph, numbers: dict[str, int]) -> None:
    assert {tool: total(tool, graph) for tool in numbers} == numbers
    if numbers.get("fvcore") == 0:
        assert CONVENTIONS["fvcore"].terms(graph)[-1].why


def chain(*records: Operator, **inputs: tuple[int, ...]) -> Graph:
    """Nodes one after the other; `nK` gives node K other inputs."""
    return tuple(Node(f"n{i}", op, inputs.get(f"n{i}", (i - 1,))) for i, op in enumerate(records))


PLAIN = Conv2d((4, 4, 2), 3, (1, 1))
NORM, RELU, SUM = ops.BatchNorm((4, 4, 3)), ops.Activation((4, 4, 3), "relu"), ops.Add(((4, 4, 3), (4, 4, 3)))


def test_batch_norm_is_merged_into_the_convolution_before_it() -> None:
    assert merged_norms(chain(PLAIN, NORM, NORM, RELU)) == {1: False, 2: True}
    assert total("onnx-tool", chain(PLAIN, NORM, NORM, RELU)) == PLAIN.macs + 48 + 48
    biased = Conv2d((4, 4, 2), 3, (1, 1), bias=True)
    assert total("onnx-tool", chain(biased, NORM)) == total("onnx-tool", chain(biased))
    assert total("onnx-tool", chain(RELU, NORM)) == 48 + 31 * 48
    # Its output is read twice, so it cannot change.
    shared = chain(PLAIN, NORM, SUM, n2=(0, 1))
    assert merged_norms(shared) == {}
    assert total("onnx-tool", shared) == PLAIN.macs + 31 * 48 + 48
    conv, norm = chain(PLAIN, NORM)
    measures = (conv, replace(norm, written=Written("F.batch_norm", facts=frozenset({"statistics"}))))
    assert merged_norms(measures) == {}
    assert total("onnx-tool", measures) == PLAIN.macs + 36 * 48


def test_the_same_work_is_done_once() -> None:
    both = chain(RELU, RELU, SUM, n1=(-1,), n2=(0, 1))
    assert already_done(both) == {1}
    assert total("onnx-tool", both) == 48 + 48
    # Two layers have different weights, even two norms without any; what a number was added to may differ.
    for op in (PLAIN, ops.BatchNorm((4, 4, 3), affine=False), ops.Multiply(((4, 4, 3),)), ops.Softmax((3,), 3)):
        assert already_done(chain(op, op, n1=(-1,))) == frozenset()
    twice = chain(PLAIN, PLAIN, n1=(-1,))
    assert already_done((twice[0], replace(twice[1], shares=0))) == {1}


def test_a_product_that_is_merged_into_a_sum_and_needed_elsewhere_is_done_twice() -> None:
    graph = chain(Source((3, 4)), MatMul((2, 3), (3, 4)), ops.Add(((2, 4), (2, 4))), n0=(), n1=(-1, 0), n2=(1, 1))
    graph = (graph[0], replace(graph[1], relaid=True, written=Written("torch.mm")), graph[2])
    assert merged_products(graph) == {2: 1}
    assert total("onnx-tool", graph) == 24 + 8 + 24
    assert merged_products(graph[:2]) == {}


def test_what_depends_on_weights_alone_is_done_beforehand() -> None:
    scale, moved = ops.Multiply(((8,),)), ops.Move(((8,),), (1, 8))
    exponential, product = ops.Pointwise(((1, 8),), "exp"), ops.Multiply(((5, 8), (1, 8)))
    graph = chain(Source((8,), trained=8), scale, moved, exponential, product, n0=(), n4=(-1, 3))
    assert done_beforehand(graph) == {0, 1, 2}
    assert total("onnx-tool", graph) == 32 * 8 + 40


def test_attention_is_scaled_in_an_exported_file() -> None:
    scores, out = MatMul((1, 2, 5, 4), (1, 2, 4, 5)), MatMul((1, 2, 5, 5), (1, 2, 5, 4))
    nodes = chain(scores, ops.Softmax((1, 2, 5, 5), 5), out, n0=(-1, -1), n2=(1, -1))
    graph = tuple(replace(node, written=Written(ATTENTION), relaid=True) for node in nodes)
    assert total("onnx-tool", graph) == 200 + 40 + 40 + (3 * 24 + 4) + 36 * 50 + 200


STEM = Conv2d((8, 8, 3), 4, (3, 3), padding=(1, 1, 1, 1))
NET = (
    Node("stem", STEM, (-1,)),
    Node("stem.norm", ops.BatchNorm((8, 8, 4)), (0,)),
    Node("conv", Conv2d((8, 8, 4), 4, (1, 1)), (1,), written=Written("F.conv2d", module="mine.Net")),
    Node("norm", ops.BatchNorm((8, 8, 4)), (2,)),
    Node("mean", ops.GlobalAvgPool((8, 8, 4)), (3,)),
    Node("linear", Linear((4,), 10), (4,)),
)


def difference(left: Convention, right: Convention, graph: Graph = NET):
    return explain(graph, left.terms(graph), right.terms(graph))


def test_thop_against_exact() -> None:
    found = difference(CONVENTIONS["thop"], CONVENTIONS["exact"])
    assert [(each.amount, each.subject) for each in found] == [
        (4 * 512, "elements into batch norm"),
        (-1024, "products of convolutions"),
        (256, "elements into the mean over the map"),
        (4, "elements out of the mean over the map"),
    ]
    norm, missed = found[:2]
    assert (norm.left, norm.right, norm.nodes) == ("4 x 512", "nothing", ("stem.norm", "norm"))
    assert missed.left == "nothing (called as a function, and thop sees modules only)"
    assert (missed.right, missed.nodes) == ("1,024", ("conv",))


@pytest.mark.parametrize("left", CONVENTIONS)
def test_terms_add_up_to_the_difference(left: str) -> None:
    for right in CONVENTIONS:
        found = difference(CONVENTIONS[left], CONVENTIONS[right])
        assert sum(each.amount for each in found) == total(left, NET) - total(right, NET)
        sizes = [abs(each.amount) for each in found]
        assert sizes == sorted(sizes, reverse=True)
        assert left != right or not found


def test_a_convention_is_a_table_of_prices() -> None:
    """Adding one takes no more than this; causes with different reasons stay apart."""
    mine = Convention(
        name="mine",
        unit="MACs",
        about="Products of convolutions three times.",
        prices={Conv2d: lambda node: (products(node, 3),)},
        multiplicity=lambda node: (2, "seen twice") if node.name == "stem" else (1, ""),
    )
    found = difference(mine, CONVENTIONS["exact"])
    assert [each.amount for each in found] == [(6 - 1) * STEM.macs, (3 - 1) * 1024, -40]
    assert found[0].left == "6 x 6,912 (seen twice)"


def test_a_reason_for_a_quantity_is_not_given_where_nothing_is_counted() -> None:
    graph = single(ops.Multiply(((2, 3, 3), (2, 1, 1))), "x * y")
    (term,) = difference(CONVENTIONS["calflops-flops"], CONVENTIONS["torchprofile"], graph)
    assert (term.left, term.right) == ("nothing (not a function it replaces (x * y))", "18")


@pytest.mark.parametrize(
    ("version", "number"), [("2.13.0", 0), ("2.14.1", 0), ("2.15.0", 120), ("3.0.0", 120), ("", 120)]
)
def test_attention_by_the_version_of_pytorch(monkeypatch, version: str, number: int) -> None:
    monkeypatch.setattr(patches, "installed_version", lambda _package: version)
    assert total("torch", single(MATRIX, ATTENTION, facts="fused")) == number
    assert total("ptflops-aten", single(MATRIX, ATTENTION, facts="fused")) == 0


def test_an_installed_version_that_was_not_compared_is_noted(monkeypatch) -> None:
    found = {"thop": "9.1", "torch": "2.15.0", "fvcore": ""}
    monkeypatch.setattr(convention, "installed_version", lambda package: found[package])
    assert CONVENTIONS["thop"].version_note == "thop 9.1 is installed"
    assert [CONVENTIONS[name].version_note for name in ("torch", "fvcore", "exact", "nachos-official")] == [""] * 4
    assert CONVENTIONS["torch"].tool == "torch 2.13.0 and 2.15.0 (torch.utils.flop_counter)"
    assert installed_version("surely-no-such-package") == ""


def test_an_unknown_convention_is_refused() -> None:
    with pytest.raises(CountError, match=r"convention must be one of exact, .* got 'flops'"):
        find_convention("flops")
