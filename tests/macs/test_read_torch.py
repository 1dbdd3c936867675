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
from nachos_min.macs.conventions.catalogue import CONVENTIONS
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
    "rows of no group": (
        Calling(lambda x, w: torch._grouped_mm(x.half(), w.half(), offs=torch.tensor([8, 9], dtype=torch.int32))),
        ((20, 8), (2, 8, 16)), 9 * 8 * 16),
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
    graph = read_torch(module, (3, 4, 5))
    totals = count(graph)
    assert totals.macs == 2 * (4 + 2 + 1) * 20 * 10
    with FlopCounterMode(display=False) as counter:
        module(torch.randn(3, 4, 5))
    assert CONVENTIONS["torch"].total(graph) == counter.get_total_flops() == 2 * totals.macs
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


deprecated = pytest.mark.filterwarnings(*(f"ignore::{kind}Warning" for kind in ("Deprecation", "Future", "User")))

PADDED = [
    (nn.Sequential(nn.ZeroPad2d(1), nn.Conv2d(4, 4, 3)), nn.Conv2d(4, 4, 3, padding=1), (2, 4, 8, 7)),
    (nn.Sequential(nn.ZeroPad2d((2, 2, 0, 0)), nn.ZeroPad2d((0, 0, 1, 1)), nn.Conv2d(4, 4, 3, 2)),
     nn.Conv2d(4, 4, 3, 2, padding=(1, 2)), (2, 4, 8, 7)),
    (nn.Sequential(nn.ZeroPad2d(1), nn.Conv2d(4, 4, 5, padding=1)), nn.Conv2d(4, 4, 5, padding=2), (1, 4, 8, 7)),
    (nn.Sequential(nn.ZeroPad2d(1), nn.ZeroPad2d(0), nn.Conv2d(4, 4, 3)), nn.Conv2d(4, 4, 3, padding=1),
     (1, 4, 8, 7)),
    (nn.Sequential(nn.ConstantPad1d(2, 0.0), nn.Conv1d(4, 4, 3)), nn.Conv1d(4, 4, 3, padding=2), (1, 4, 8)),
    (nn.Sequential(nn.ConstantPad3d(1, 0), nn.Conv3d(4, 4, 3)), nn.Conv3d(4, 4, 3, padding=1), (1, 4, 3, 4, 5)),
]  # fmt: skip


@pytest.mark.parametrize(("before", "inside", "shape"), PADDED)
def test_zeros_count_the_same_before_a_convolution_and_in_it(before, inside, shape):
    outer, inner = count(read_torch(before, shape)), count(read_torch(inside, shape))
    assert outer.macs == inner.macs
    assert outer.valid_macs == inner.valid_macs < inner.macs


@pytest.mark.parametrize("layer", [nn.ReflectionPad2d(1), nn.ConstantPad2d(1, 1.0), nn.ZeroPad2d((-1, 1, 1, 1))])
def test_what_is_not_zero_around_a_map_is_valid(layer):
    totals = count(read_torch(nn.Sequential(layer, nn.Conv2d(4, 4, 3)), (1, 4, 8, 8)))
    assert totals.valid_macs == totals.macs


def test_complex_products_are_four_real_ones_and_three_in_a_convolution():
    assert count(read_torch(Calling(lambda x: x @ x), (torch.ones(5, 5, dtype=torch.complex64),))).macs == 4 * 125
    both = (torch.ones(4, 5, dtype=torch.complex64),) * 2
    assert count(read_torch(nn.Bilinear(5, 5, 2, dtype=torch.complex64), both)).macs == 4 * (4 * 2 * (25 + 5))
    layer = nn.ConvTranspose1d(2, 3, 2, dtype=torch.complex64)
    assert count(read_torch(layer, (torch.ones(1, 2, 4, dtype=torch.complex64),))).macs == 3 * (4 * 3 * 2 * 2)
    layer = nn.Conv1d(2, 3, 2, dtype=torch.complex64)
    assert count(read_torch(layer, (torch.ones(1, 2, 4, dtype=torch.complex64),))).macs == 3 * (3 * 3 * 2 * 2)


# fmt: off
COLUMNS = [
    (lambda x: torch.fft.fft2(x), "fft_ops", 2 * 4 * 8 * 5 * 8 * 3),  # 5 n log2 n for n = 8
    (lambda x: torch.fft.irfft(torch.fft.rfft(x)), "fft_ops", 2 * 4 * 8 * 5 * 8 * 3),
    (lambda x: F.grid_sample(x, x.new_zeros(1, 5, 5, 2), align_corners=False), "interpolation", 4 * 4 * 25),
    (lambda x: F.grid_sample(x[None], x.new_zeros(1, 2, 5, 5, 3), align_corners=False), "interpolation", 8 * 50),
    (lambda x: F.grid_sample(x, x.new_zeros(1, 5, 5, 2), mode="nearest", align_corners=False), "interpolation", 0),
    (lambda x: F.fractional_max_pool2d(x, 2, output_size=3), "pool_out", 4 * 9),
    (lambda x: torch.fake_quantize_per_channel_affine(
        x, torch.ones(4), torch.zeros(4, dtype=torch.int32), 1, 0, 255), "pointwise:fake_quantize", 256),
]
# fmt: on


@pytest.mark.parametrize(("function", "column", "amount"), COLUMNS)
def test_work_that_has_a_column_of_its_own(function, column, amount):
    totals = count(read_torch(Calling(function), (1, 4, 8, 8)))
    assert (totals.macs, totals.columns.get(column, 0)) == (0, amount)


def test_several_arrays_of_an_einstein_sum_count_as_executed():
    module = Calling(lambda x: torch.einsum("ij,jk,kl->il", x, x.T, x))
    assert count(read_torch(module, (4, 6))).macs == executed_macs(module, (4, 6)) == 2 * 4 * 6 * 4


@deprecated
def test_quantized_layers_count_with_their_weights():
    quantization = torch.ao.quantization
    layers = [nn.Conv2d(3, 8, 3, groups=1), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 5)]
    module = nn.Sequential(quantization.QuantStub(), *layers, quantization.DeQuantStub()).eval()
    module.qconfig = quantization.get_default_qconfig(torch.backends.quantized.engine)
    observed = quantization.prepare(quantization.fuse_modules(module, [["1", "2"]]))
    observed(torch.randn(1, 3, 8, 8))
    graph = read_torch(quantization.convert(observed), (2, 3, 8, 8))
    assert CONVENTIONS["torch"].total(graph) == 0  # its counter knows no quantised operator
    totals = count(graph)
    assert totals.macs == 2 * (36 * 8 * 27 + 8 * 36 * 5)
    assert totals.params == trained(nn.Sequential(*layers))
    assert totals.columns["act_elems:relu"] == 2 * 36 * 8


@deprecated
def test_dynamically_quantized_recurrent_layers_count_with_their_weights():
    original = nn.LSTM(4, 5, 2, bidirectional=True)
    module = torch.ao.quantization.quantize_dynamic(nn.Sequential(original), {nn.LSTM})
    totals = count(read_torch(module, (3, 2, 4)))
    assert totals.macs == 6 * 2 * 20 * (9 + 15)
    assert totals.params == trained(original)


@deprecated
def test_scripted_attention_counts_a_causal_mask_as_none():
    function = Calling(lambda x: F.scaled_dot_product_attention(x, x, x, is_causal=True))
    scripted = torch.jit.trace(function, torch.ones(1, 2, 4, 8))
    assert count(read_torch(scripted, (2, 3, 5, 8))).macs == 2 * 6 * 5 * 5 * 8


@deprecated
def test_scripted_layers_count_by_their_basic_operators():
    layers = [nn.Conv2d(4, 8, 3), nn.BatchNorm2d(8), nn.Upsample(scale_factor=2, mode="bilinear"), nn.MaxPool2d(2)]
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(8), nn.Linear(8, 5), nn.Softmax(1)]
    module = nn.Sequential(*layers).eval()
    plain, scripted = (count(read_torch(each, (2, 4, 8, 8))) for each in (module, torch.jit.script(module)))
    assert (scripted.macs, scripted.params) == (plain.macs, plain.params)
    kinds = ("norm_elems", "act_elems:softmax", "pool_out", "resize_out:bilinear")
    assert [scripted.columns[kind] for kind in kinds] == [plain.columns[kind] for kind in kinds]


def test_a_deformable_convolution_reads_between_pixels_and_multiplies_as_any():
    library = torch.library.Library("torchvision", "FRAGMENT")
    schema = "(Tensor x, Tensor weight, Tensor offset, Tensor mask, Tensor bias" + "".join(
        f", int {name}" for name in ("sh", "sw", "ph", "pw", "dh", "dw", "groups", "offsets")
    )
    library.define(f"deform_conv2d{schema}, bool masked) -> Tensor")
    library.impl("deform_conv2d", lambda x, w, *_: x.new_zeros(len(x), len(w), *x.shape[2:]), "CPU")
    weight, bias = nn.Parameter(torch.ones(8, 2, 3, 3)), nn.Parameter(torch.ones(8))

    def deformed(x):
        offset, mask = torch.ones(2, 18, 5, 5), torch.ones(2, 9, 5, 5)
        return torch.ops.torchvision.deform_conv2d(x, weight, offset, mask, bias, 1, 1, 1, 1, 1, 1, 2, 1, True)

    totals = count(read_torch(Calling(deformed), (2, 4, 5, 5)))
    assert totals.macs == 2 * 25 * 8 * 2 * 9
    assert (totals.columns["interpolation"], totals.params) == (4 * 2 * 25 * 4 * 9, 8 * 2 * 9 + 8)
    library._destroy()


def test_boxes_that_overlap_are_left_out_without_a_product():
    library = torch.library.Library("torchvision", "FRAGMENT")
    library.define("nms(Tensor boxes, Tensor scores, float most) -> Tensor")
    library.impl("nms", lambda _boxes, scores, _most: torch.arange(len(scores) // 2), "CPU")

    def kept(x):
        return torch.ones(3, 4) @ x[torch.ops.torchvision.nms(x, x.sum(1), 0.5)].T

    totals = count(read_torch(Calling(kept), (torch.ones(6, 4),)))
    assert (totals.macs, totals.columns["mean_out"]) == (3 * 4 * 3, 0)
    library._destroy()
