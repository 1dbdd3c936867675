"""Functions without a rule, TorchScript and exported programs: their basic operators are counted."""

import pytest
from macs.torch_cases import F, With, nn, torch

from nachos_min.macs.count import count
from nachos_min.macs.ops import Move
from nachos_min.macs.readers.torch_reader import read_torch


def read(function, *shapes):
    return read_torch(With(lambda _, *x: function(*x)), tuple(torch.zeros(shape) for shape in shapes))


def test_a_function_without_a_rule_is_counted_by_what_it_executes():
    graph = read(lambda x: F.cosine_similarity(x, x), (4, 4))
    assert all(node.written.used for node in graph)
    assert sum(node.columns.get("mul_elems", 0) for node in graph) == 16
    (product,) = read(lambda x: torch.ops.aten.mm(x, x), (4, 4))
    assert (product.written.function, count((product,)).macs) == ("aten.mm", 64)


def test_views_and_writes_of_basic_operators():
    def change(x):
        y = torch.ops.aten.mul.Tensor(x, x)
        part = torch.ops.aten.slice.Tensor(y, 0, 0, 2)
        torch.ops.aten.add_.Tensor(part, 1)
        return torch.ops.aten.relu.default(y)

    graph = read(change, (3, 4))
    assert [node.written.function for node in graph] == ["aten.mul", "aten.slice", "aten.add_", "", "aten.relu"]
    assert isinstance(graph[1].op, Move)
    assert all(node.written.used for node in graph)


# fmt: off
LAYERS = {"relu": {}, "gelu": {"activation": "gelu"}, "norms first": {"norm_first": True}}
MASKS = {
    "none": {}, "of places": {"src_mask": torch.ones(5, 5, dtype=torch.bool).triu(1)},
    "of samples": {"src_key_padding_mask": torch.tensor([[False] * 5, [False] * 4 + [True]])},
}
# fmt: on


@pytest.mark.filterwarnings("ignore")  # PyTorch's own, on TorchScript
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("layer", LAYERS)
def test_operators_that_stand_for_whole_layers(layer, mask):
    module = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, **LAYERS[layer]).eval()
    x = torch.ones(2, 5, 8)
    eager = count(read_torch(module, (x,), MASKS[mask]))
    scripted = count(read_torch(torch.jit.script(module), (x,), MASKS[mask]))
    assert scripted.macs == eager.macs == 10 * (4 * 8 * 8 + 2 * 8 * 16) + 2 * 2 * 5 * 5 * 8
    assert (scripted.params, scripted.columns) == (eager.params, eager.columns)


@pytest.mark.filterwarnings("ignore")  # PyTorch's own, on TorchScript
def test_a_traced_modules_numbers_are_arrays():
    columns = count(read_torch(torch.jit.trace(nn.Softsign(), torch.ones(2, 3)), (2, 3))).columns
    assert (columns["add_elems"], columns["pointwise:div"], columns["pointwise:abs"]) == (6, 6, 6)
