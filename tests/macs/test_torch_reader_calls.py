"""What a module calls, one trap a test: functions, signs, sharing, branches, in-place writes, spelling."""

import pytest
from macs.torch_cases import CASES, Calling, F, With, called_twice, nn, torch, two_parents

from bench.torch_networks import two_exits
from nachos_min.macs import count
from nachos_min.macs.ops import Activation, Move, Multiply, Pointwise, Source
from nachos_min.macs.readers.torch_reader import read_torch


def read(function, *shapes):
    module = Calling(function) if len(shapes) == 1 else With(lambda _, *x: function(*x))
    return read_torch(module, tuple(torch.zeros(shape) for shape in shapes))


_attend = F.scaled_dot_product_attention


def functions(graph):
    return [node.written.function for node in graph]


# fmt: off
SPELLINGS = [
    (lambda x: x + 1, "x + y"), (lambda x: 1 + x, "x + y"), (lambda x: 1 - x, "x - y"), (lambda x: 2 * x, "x * y"),
    (lambda x: 6 / (x + 1), "x / y"), (lambda x: x @ x, "x @ y"), (lambda x: x**2, "x ** y"),
    (lambda x: 2**x, "x ** y"), (lambda x: x > 0, "x > y"), (lambda x: x == 0, "x == y"), (lambda x: -x, "-x"),
    (lambda x: sum([x, x]), "x + y"), (lambda x: x.add(x), "Tensor.add"), (lambda x: x.matmul(x), "Tensor.matmul"),
    (lambda x: torch.add(x, x), "torch.add"), (lambda x: torch.mm(input=x, mat2=x), "torch.mm"),
    (lambda x: x.relu(), "Tensor.relu"), (lambda x: torch.relu(x), "torch.relu"), (lambda x: F.relu(x), "F.relu"),
    (lambda x: F.hardtanh(x), "F.hardtanh"), (lambda x: F.sigmoid(x), "Tensor.sigmoid"),
    (lambda x: x.mean(1), "Tensor.mean"), (lambda x: torch.layer_norm(x, (4,)), "torch.layer_norm"),
    (lambda x: torch.batch_norm(x, None, None, None, None, True, 0.1, 1e-5, False), "torch.batch_norm"),
]
# fmt: on


@pytest.mark.parametrize(("function", "written"), SPELLINGS)
def test_how_a_call_was_written(function, written):
    assert functions(read(function, (4, 4)))[-1] == written


def test_signs_that_run_often_enough_to_be_specialised():
    def often(x):
        for _ in range(60):
            x = -(x + x).add(x) * 0.5 - x
            x += x > 1
        return x

    written = ["x + y", "Tensor.add", "-x", "x * y", "x - y", "x > y", "x += y"]
    assert functions(read(often, (2, 3))) == written * 60


def test_in_place_signs():
    def change(x):
        y = x + 1
        y += x
        y *= 2
        return y

    graph = read(change, (2, 3))
    assert functions(graph) == ["x + y", "x += y", "x *= y"]
    assert [node.inputs for node in graph] == [(-1,), (0, -1), (1,)]


# fmt: off
KINDS = [
    (lambda x: F.hardtanh(x, 0, 6), "relu6"), (lambda x: x.clamp(0, 6), "relu6"), (nn.ReLU6(), "relu6"),
    (F.hardswish, "hswish"), (F.hardsigmoid, "hsigmoid"), (F.gelu, "gelu"),
    (lambda x: F.prelu(x, torch.ones(1)), "prelu"), (lambda x: x.clamp(-1, 1), "clamp"), (lambda x: 1 - x, "sub"),
    (lambda x: x / 6, "div"), (torch.exp, "exp"),
]
# fmt: on


@pytest.mark.parametrize(("function", "kind"), KINDS)
def test_kinds_of_element_wise_operators(function, kind):
    (node,) = read(function, (2, 3, 4))
    if kind in ("clamp", "sub", "div", "exp"):
        assert node.op == Pointwise(((2, 3, 4),), kind)
    else:
        assert (node.op, node.batch) == (Activation((3, 4), kind), 2)


def test_modules_are_described():
    (relu6,) = read_torch(nn.ReLU6(), (1, 2))
    assert (relu6.written.function, relu6.written.module, relu6.written.layer) == ("F.hardtanh", "ReLU6", "ReLU6")
    (derived,) = read_torch(CASES["subclass of nn.Conv2d 8->16 k3 p1 nobias"].make(), (1, 8, 16, 16))
    assert derived.written.module.endswith("torch_cases.DerivedConv2d")
    assert derived.written.layer == "Conv2d"
    (functional,) = read(F.relu, (1, 2))
    assert functional.written.module.endswith("torch_cases.Calling")
    assert (functional.written.layer, functional.written.leaf, functional.written.paths) == ("", True, 1)
    scale = next(n for n in read_torch(two_exits(), (1, 3, 32, 32)) if isinstance(n.op, Multiply))
    assert not scale.written.leaf


@pytest.mark.parametrize("word", ["same", "valid", ""])
def test_padding_given_by_a_word(word):
    (node,) = read_torch(nn.Conv2d(1, 1, 4, padding=word or 0), (1, 1, 9, 9))
    assert node.written.padding == word
    assert node.op.padding == ((1, 2, 1, 2) if word == "same" else (0, 0, 0, 0))


# fmt: off
FACTS = [
    (nn.Linear(4, 2), (4,), {"unbatched"}), (nn.Linear(4, 2), (1, 4), set()),
    (nn.Conv2d(3, 2, 1), (3, 5, 5), {"unbatched"}), (Calling(lambda x: x @ torch.ones(4)), (2, 4), {"vector"}),
    (Calling(lambda x: F.interpolate(x, size=(4, 4))), (1, 1, 2, 2), {"size"}),
    (Calling(lambda x: F.interpolate(x, size=4)), (1, 1, 2, 2), {"side"}),
    (Calling(lambda x: F.interpolate(x, scale_factor=2)), (1, 1, 2, 2), set()),
    (nn.BatchNorm2d(3, track_running_stats=False), (2, 3, 4, 4), {"statistics"}),
    (nn.BatchNorm2d(3), (2, 3, 4, 4), set()),
    (With(lambda m, x: m.f(x.transpose(1, 2)), f=nn.Linear(3, 2)), (2, 3, 4), {"strided"}),
]
# fmt: on


@pytest.mark.parametrize(("module", "inputs", "facts"), FACTS)
def test_facts_that_shapes_do_not_show(module, inputs, facts):
    assert read_torch(module, inputs)[-1].written.facts == facts


def test_a_layer_called_twice_or_under_two_parents_has_its_parameters_once():
    for module, paths in ((called_twice(), 1), (two_parents(), 2)):
        first, second = read_torch(module, (1, 8, 16, 16))
        assert (first.shares, second.shares) == (None, 0)
        assert first.written.paths == second.written.paths == paths
        assert count((first, second)).params == 8 * 8 * 9


def test_a_module_in_a_plain_list_stands_under_no_name():
    (node,) = read_torch(With(lambda m, x: m.layers[0](x), layers=[nn.Linear(3, 2)]), (1, 3))
    assert node.written.paths == 0
    assert count((node,)).params == 8


def test_only_the_branch_taken_counts_and_a_head_passed_by_is_not_used():
    taken = read_torch(two_exits("gate", 0), (1, 3, 32, 32))
    passed = read_torch(two_exits("gate", 2), (1, 3, 32, 32))
    both = read_torch(two_exits(), (1, 3, 32, 32))
    assert (count(taken).macs, count(passed).macs) == (852832, 1368640)
    assert not any(node.name.startswith("after") for node in taken)
    for graph, heads in ((taken, True), (passed, False), (both, True)):
        assert all(node.written.used is heads for node in graph if node.name.startswith("head."))
    decision = [node for node in taken if node.written.function in ("torch.sigmoid", "Tensor.min")]
    assert len(decision) == 2
    assert not any(node.written.used for node in decision)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # PyTorch's own, on TorchScript
def test_unused_nodes_are_those_that_tracing_drops():
    module = With(lambda m, x: (m.a(x), m.b(x))[0], a=nn.Linear(3, 2), b=nn.Linear(3, 2)).eval()
    traced = torch.jit.trace(module, torch.zeros(1, 3)).inlined_graph
    kept = [node for node in traced.nodes() if node.kind() == "aten::linear"]
    used = [node.written.used for node in read_torch(module, (1, 3))]
    assert used == [True, False]
    assert len(kept) == sum(used)


def _sum(equation):
    return lambda *arrays: torch.einsum(equation, *arrays)


# fmt: off
PRODUCTS = [
    (_sum("ij,jk->ik"), [(3, 4), (4, 5)], 60), (_sum("...ij,...jk"), [(2, 3, 4), (4, 5)], 120),
    (_sum("ij,jk->k"), [(3, 4), (4, 5)], 20), (_sum("bij,bjk->bik"), [(1, 3, 4), (2, 4, 5)], 120),
    (_sum("ij,jk->ik"), [(3, 1), (1, 5)], 0), (_sum("ij,jk->ik"), [(3, 1), (4, 5)], 0),
    (_sum("ii,ij->j"), [(3, 3), (3, 4)], 12), (_sum("i,i->"), [(3,), (3,)], 3), (_sum("a,b->"), [(3,), (4,)], 0),
    (_sum("i,j->ij"), [(3,), (4,)], 0), (lambda x: torch.addmm(x, x, x), [(3, 3)], 27),
    (lambda x: torch.addmv(x[0], x, x[0]), [(3, 3)], 9), (lambda x: torch.baddbmm(x, x, x), [(1, 3, 3)], 27),
    (lambda x: torch.addbmm(x[0], x, x), [(1, 3, 3)], 27), (lambda x: torch.tensordot(x, x, 1), [(3, 3)], 27),
    (lambda x: x.inner(x), [(3, 3)], 27), (lambda x: torch.outer(x, x), [(3,)], 0), (torch.dot, [(3,), (3,)], 3),
    (lambda q: _attend(q, q, q, is_causal=True), [(2, 4, 5, 8)], 2 * 4 * 5 * 5 * 16),
    (lambda q: _attend(q, q, q), [(4, 5, 8)], 4 * 5 * 5 * 16),
    (lambda q, mask: _attend(q, q, q, attn_mask=mask), [(1, 4, 5, 8), (5, 5)], 4 * 5 * 5 * 16),
    (lambda q, k: _attend(q, k, k, enable_gqa=True), [(1, 4, 5, 8), (1, 2, 7, 8)], 4 * 5 * 7 * 16),
]
# fmt: on


@pytest.mark.parametrize(("function", "shapes", "macs"), PRODUCTS)
def test_products(function, shapes, macs):
    assert count(read(function, *shapes)).macs == macs


def test_transformers_are_entered():
    width, heads, hidden, tokens = 16, 4, 32, 5
    layer = nn.TransformerEncoderLayer(width, heads, hidden, batch_first=True)
    graph = read_torch(nn.TransformerEncoder(layer, 2, enable_nested_tensor=False), (1, tokens, width))
    per_layer = tokens * (4 * width * width + 2 * width * hidden) + 2 * tokens * tokens * width
    assert count(graph).macs == 2 * per_layer
    assert count(graph).params == 2 * sum(x.numel() for x in layer.parameters())


def test_views_that_were_written_to():
    def change(x):
        y = x + 1
        flat = y.view(-1)
        y[:, :2].add_(1)
        y.relu_()
        return flat * 2

    graph = read(change, (2, 4))
    assert all(node.written.used for node in graph)
    moved = ["Tensor.view", "Tensor.__getitem__", "Tensor.add_", "", "Tensor.relu_", "", ""]
    assert functions(graph) == ["x + y", *moved, "x * y"]
    assert isinstance(graph[-2].op, Move)


def test_arrays_that_are_assigned_to_or_given_as_output():
    def assign(x):
        out = torch.zeros(2, 5)
        out[:, :3] = x
        return out

    source, move = read(assign, (2, 3))
    assert (source.op, move.op) == (Source((2, 5)), Move(((2, 5), (2, 3)), (2, 5)))
    (given,) = read(lambda x: torch.matmul(x, x, out=torch.empty(3, 3)), (3, 3))
    assert move.written.used
    assert given.written.used


def test_computed_and_shared_weights_have_their_trained_values_once():
    bias, weight, factor = (nn.Parameter(torch.ones(shape)) for shape in ((7,), (5, 3), (1,)))
    tied = With(lambda m, x: F.linear(m.e(x), m.e.weight, m.b), e=nn.Embedding(7, 4), b=bias)
    scaled = With(lambda m, x: F.linear(x, m.w * m.s), w=weight, s=factor)
    fixed = With(lambda m, x: F.conv2d(x, m.w), w=torch.ones(1, 1, 3, 3))
    normed = torch.nn.utils.parametrizations.weight_norm(nn.Linear(3, 5))
    cases = (tied, (torch.tensor([[1, 2]]),), 35), (scaled, (1, 3), 16), (fixed, (1, 1, 4, 4), 0)
    for module, inputs, params in (*cases, (normed, (1, 3), 15 + 5 + 5)):
        graph = read_torch(module, inputs)
        assert count(graph).params == params
        assert all(node.written.used for node in graph)


def test_functions_with_a_gradient_of_their_own():
    class Swish(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * torch.sigmoid(x)

    graph = read(lambda x: Swish.apply(x + 1), (2, 3))
    assert functions(graph) == ["x + y", "torch.sigmoid", "x * y"]
    assert all(node.written.used for node in graph)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # PyTorch's own, on TorchScript
def test_modes_that_a_module_switches_on():
    layer = nn.Linear(3, 2)
    for run in (torch.inference_mode()(layer.forward), torch.compile(layer), torch.enable_grad()(layer.forward)):
        graph = read_torch(With(lambda m, x: m.run[0](x), run=[run], layer=layer), (1, 3))
        assert count(graph).macs == 6
