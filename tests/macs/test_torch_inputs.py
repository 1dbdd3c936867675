"""Inputs as they come, and modules that are not Python code alone."""

from collections import UserDict

import pytest
from macs.torch_cases import With, nn, torch
from torch._subclasses import FakeTensorMode

from nachos_min.macs import CountError
from nachos_min.macs.count import count
from nachos_min.macs.readers.torch_reader import ModuleFailedError, example_inputs, read_torch

LAYER, X = nn.Linear(4, 5), torch.zeros(2, 4)
PACKED = nn.utils.rnn.pack_padded_sequence(torch.zeros(5, 2, 4), [5, 3])


class Keyworded(With):
    def forward(self, *inputs, **options):
        return self.function(self, *inputs, **options)


# fmt: off
INPUTS = [
    (lambda m, _, x: m.f(x), (None, X), 40), (lambda m, k, x: m.f(x) * k, (3, X), 40),
    (lambda m, _, x: m.f(x), ("mode", X), 40), (lambda m, xs: m.f(xs[0]) + m.f(xs[1]), ([X, X],), 80),
    (lambda m, xs: m.f(xs["a"]["b"][0]), ({"a": {"b": [X]}},), 40),
    (lambda m, *, x, y: m.f(x) * y, {"x": X, "y": 2}, 40),
    (lambda m, *, x: {"y": [m.f(x)]}, UserDict(x=X), 40), (lambda m, packed: m.f(packed.data), PACKED, 8 * 20),
    (lambda m, packed: m.f(packed.data), (PACKED,), 8 * 20), (lambda m, x: m.f(x), X[:0], 0),
]
# fmt: on


@pytest.mark.parametrize(("function", "inputs", "macs"), INPUTS)
def test_inputs(function, inputs, macs):
    graph = read_torch(Keyworded(function, f=LAYER), inputs)
    assert count(graph).macs == macs
    assert all(node.written.used for node in graph)
    assert -1 in graph[0].inputs


def test_keyword_arguments_beside_others():
    module = Keyworded(lambda m, x, *, y: m.f(x) + y, f=LAYER)
    graph = read_torch(module, X, {"y": torch.ones(5)})
    assert [type(node.op).__name__ for node in graph] == ["Linear", "Source", "Add"]
    args, options = example_inputs(module, (2, 4), {"y": 3})
    assert (args[0].shape, options) == ((2, 4), {"y": 3})


def test_arrays_without_elements_in_memory():
    on_meta = nn.Sequential(nn.Linear(4, 5, device="meta"), nn.LayerNorm(5, device="meta"))
    with FakeTensorMode():
        fake = nn.Sequential(nn.Linear(4, 5), nn.LayerNorm(5))
    for module in (on_meta, fake):
        assert count(read_torch(module, (2**40, 4))).macs == 20 * 2**40, "nothing is really allocated"
    for function in (lambda x: x * x.sum().item(), lambda x: x if x.sum() > 0 else -x):
        with pytest.raises(ModuleFailedError, match="cannot be called on meta tensors"):
            read_torch(Keyworded(lambda _, x, f=function: f(x)), torch.zeros(2, 4, device="meta"))


def _convolutional():
    layers = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5)
    return nn.Sequential(*layers).eval()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # PyTorch's own, on TorchScript
def test_exported_and_compiled_modules():
    module, x = _convolutional(), torch.zeros(1, 3, 8, 8)
    program = torch.export.export(module, (x,))
    for each, inputs in ((program, None), (program, x), (program.module(), x), (torch.compile(module), x)):
        totals = count(read_torch(each, inputs))
        assert totals.macs == 4 * 36 * 27 + 4 * 36 * 5
    compiled = torch.compile(lambda y: y @ y)
    assert count(read_torch(With(lambda _, y: compiled(y)), (4, 4))).macs == 64
    assert count(read_torch(torch.compile(module), x)) == count(read_torch(module, x))


def test_branches_of_an_operator_run_as_pythons():
    def forward(_, x):
        taken = torch.cond(x.sum() >= 0, lambda y: y @ y, lambda y: y, (x,))
        return torch.cond(x.sum() < 0, lambda y: y @ y @ y, lambda y: y + 1, (taken,))

    assert count(read_torch(With(forward), (torch.ones(4, 4),))).macs == 64


def test_complex_products():
    assert count(read_torch(nn.Linear(4, 5, dtype=torch.complex64), (1, 4))).macs == 4 * 20
    weight, kernel = torch.zeros(4, 5, dtype=torch.complex64), torch.zeros(2, 3, 3, 3, dtype=torch.complex64)
    product = With(lambda _, x: x.to(torch.complex64) @ weight)
    convolution = With(lambda _, x: torch.conv2d(x.to(torch.complex64), kernel))
    assert [node.real for node in read_torch(product, (2, 4))] == [1, 1, 4]
    assert count(read_torch(product, (2, 4))).macs == 4 * 40
    assert count(read_torch(convolution, (1, 3, 8, 8))).macs == 3 * 36 * 2 * 27, "PyTorch runs three real ones"


@pytest.mark.parametrize(("kind", "real"), [("float", 1), ("long", 1), ("cfloat", 4)])
def test_products_added_to_an_array_in_place(kind, real):
    def forward(_, x):
        one, many = (getattr(torch.zeros(shape), kind)() for shape in ((2, 5), (3, 2, 5)))
        left, right = (getattr(torch.ones(3, *shape), kind)() for shape in ((2, 4), (4, 5)))
        one.addmm_(getattr(x, kind)(), right[0])
        many.baddbmm_(left, right)
        return one, many, torch.addmm(one, left[0], right[0])

    assert count(read_torch(With(forward), (2, 4))).macs == real * (40 + 3 * 40 + 40)


def test_numpy_may_read_lengths_but_no_other_input():
    module = With(lambda _, x, y: x.sum() + torch.from_numpy(y.numpy() + 1).sum())
    assert count(read_torch(module, (X, torch.tensor([2, 3])))).macs == 0
    with pytest.raises(CountError, match=r"what NumPy computes is not seen"):
        read_torch(module, (X, X.clone()))


def test_what_numpy_reads_may_be_read_on():
    def forward(_, x, y):
        x.numpy().sum()
        return x @ table + y @ table + torch.ones(5)

    table = torch.ones(4, 5)
    assert count(read_torch(With(forward), (X, X.clone()))).macs == 2 * 40


def test_an_array_by_another_name():
    def forward(_, x):
        y = torch.zeros(2, 4)
        y.data = x * 2
        return y.data + 1

    graph = read_torch(With(forward), (2, 4))
    assert [(node.written.function, node.inputs, node.written.used) for node in graph] == [
        ("x * y", (-1,), True), ("x + y", (0,), True),
    ]  # fmt: skip


def test_activations_are_not_kept():
    alive = []

    def forward(_, x):
        alive.append(0)
        for _ in range(20):
            x = x.sin()
            alive[0] = max(alive[0], sum(each.numel() == 10007 for each in _tensors()))
        return x

    read_torch(With(forward), (10007,))
    assert alive[0] <= 3


def _tensors():
    import gc

    return [x for x in gc.get_objects() if issubclass(type(x), torch.Tensor)]


def test_identities_are_used_again_by_other_arrays():
    def forward(_, x):
        for k in range(50):
            y = torch.full((3,), k) + x
            (y.view(-1) * 2).relu_()
            del y
        weight = torch.zeros(3, 3)
        first = torch.nn.functional.linear(x, weight)
        del weight
        return first + torch.nn.functional.linear(x, torch.zeros(3, 3))

    graph = read_torch(With(forward), (3,))
    products = [node for node in graph if type(node.op).__name__ == "Linear"]
    assert [node.shares for node in products] == [None, None]
    assert len(graph) == 50 * 5 + 3
    assert [node.written.used for node in graph[-3:]] == [True] * 3


def test_what_is_no_input():
    for inputs in ((), "text", None, {"x": 1}, (None, 3)):
        with pytest.raises(CountError, match="inputs must be tensors or a shape of Python integers >= 1, got "):
            read_torch(LAYER, inputs)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # PyTorch's own, on TorchScript
def test_torchscript_is_counted_by_its_basic_operators():
    module, x = _convolutional(), torch.zeros(2, 3, 8, 8)
    expected = count(read_torch(module, x))
    scripted = torch.jit.script(module)
    for each in (scripted, torch.jit.trace(module, x), nn.Sequential(scripted), scripted.train()):
        totals = count(read_torch(each, x))
        assert (totals.macs, totals.params) == (expected.macs, expected.params)
    assert scripted.training
    assert count(read_torch(torch.jit.freeze(scripted.eval()), x)).macs == expected.macs
    function = torch.jit.script(_product)
    assert count(read_torch(With(lambda _, y: function(y, y)), (4, 4))).macs == 64


def _product(a, b):
    """A function that TorchScript can compile."""
    return a @ b + 1


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # PyTorch's own, on TorchScript
def test_a_trained_layer_of_torchscript_has_its_parameters_once():
    layer = nn.Linear(4, 4)
    module = torch.jit.script(nn.Sequential(layer, nn.ReLU(), layer))
    totals = count(read_torch(module, (2, 4)))
    assert (totals.macs, totals.params) == (64, 20)


@pytest.mark.filterwarnings("ignore:flex_attention called without")
def test_attention_with_functions_of_the_users_counts_in_full():
    flex = pytest.importorskip("torch.nn.attention.flex_attention")
    mask = flex.create_block_mask(lambda _b, _h, q, k: q >= k, None, None, 16, 16, device="cpu", BLOCK_SIZE=16)
    for how in ({}, {"score_mod": lambda score, _b, _h, q, k: score + q - k}, {"block_mask": mask}):
        attend = Keyworded(lambda _, x, how=how: flex.flex_attention(x, x, x, **how))
        assert count(read_torch(attend, (1, 2, 16, 32))).macs == 2 * 2 * 16 * 16 * 32
