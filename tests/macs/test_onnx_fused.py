"""Operators that ONNX Runtime writes into files it has optimised or quantised; figures worked out by hand."""

from math import prod

import numpy as np
import pytest
from macs.onnx_cases import IMAGE, model, node, refusal, write

from nachos_min.macs import count
from nachos_min.macs.readers.onnx_reader import read_onnx

_OURS = "com.microsoft"
_WHOLE = {"s": np.float32(1), "z": np.int8(0)}


def fused(operator, inputs, outputs="y", **attributes):
    return node(operator, inputs, outputs, domain=_OURS, **attributes)


# name -> nodes, (shape of x, shape of y), constants, figures expected of it
# fmt: off
CASES = {
    "convolution, sum and activation": ([fused("FusedConv", "x w b x", pads=[1] * 4, activation="Relu")],
        (IMAGE, IMAGE), {"w": (4, 4, 3, 3), "b": (4,)},
        {"macs": prod(IMAGE) * 36, "params": 148, "add_elems": prod(IMAGE), "act_elems:relu": prod(IMAGE)}),
    "convolution, relu6": ([fused("FusedConv", "x w", activation="Clip", activation_params=[0.0, 6.0])],
        (IMAGE, IMAGE), {"w": (4, 4, 1, 1)}, {"macs": prod(IMAGE) * 4, "act_elems:relu6": prod(IMAGE)}),
    "linear layer, activation": ([fused("FusedGemm", "x w b", transB=1, activation="Tanh")], ((5, 7), (5, 3)),
        {"w": (3, 7), "b": (3,)}, {"macs": 105, "params": 24, "bias_adds": 15, "act_elems:tanh": 15}),
    "product of turned arrays": ([fused("FusedMatMul", "x x", transB=1, alpha=0.5)], ((2, 3, 5), (2, 3, 3)), {},
        {"macs": 2 * 3 * 5 * 3, "mul_elems": 18}),
    "product of arrays whose batch is turned": ([fused("FusedMatMul", "x w", transBatchA=1, transA=1)],
        ((2, 3, 5), (3, 5, 4)), {"w": (3, 2, 4)}, {"macs": 3 * 5 * 2 * 4, "params": 24}),
    "norm of a sum": ([fused("SkipLayerNormalization", "x x s b a", "n m d t"), node("Add", "n t")],
        ((2, 3, 5), (2, 3, 5)), dict.fromkeys("sba", (5,)), {"norm_elems": 30, "add_elems": 90, "params": 15}),
    "root mean square norm of a sum": ([fused("SkipSimplifiedLayerNormalization", "x x s")],
        ((2, 3, 5), (2, 3, 5)), {"s": (5,)}, {"norm_elems": 30, "add_elems": 30, "params": 5}),
    "root mean square norm": ([node("SimplifiedLayerNormalization", "x s", axis=-1)], ((2, 5), (2, 5)),
        {"s": (5,)}, {"norm_elems": 10, "params": 5}),
    "gelu of a sum": ([fused("BiasGelu", "x b")], ((2, 5), (2, 5)), {"b": (5,)},
        {"add_elems": 10, "act_elems:gelu": 10, "params": 5}),
    "quick gelu": ([fused("QuickGelu", "x", alpha=1.702)], ((2, 5), (2, 5)), {},
        {"mul_elems": 20, "act_elems:sigmoid": 10}),
    "silu": ([fused("QuickGelu", "x", alpha=1.0)], ((2, 5), (2, 5)), {}, {"act_elems:silu": 10}),
    "quantised linear layer": ([fused("QGemm", "x s z w s z b s z", transB=1)], ((5, 7), (5, 3)),
        {"w": np.zeros((3, 7), np.int8), "b": np.zeros(3, np.int32)} | _WHOLE, {"macs": 105, "params": 24}),
    "quantised sum and parts": ([fused("QLinearAdd", "x s z x s z s z", "t"),
        fused("QLinearConcat", "s z t s z x s z", axis=1)], ((2, 5), (2, 10)), _WHOLE, {"add_elems": 10}),
    "quantised mean": ([fused("QLinearGlobalAveragePool", "x s z s z", channels_last=0)], (IMAGE, (2, 4, 1, 1)),
        _WHOLE, {"mean_out": 8}),
    "product of integers": ([fused("DynamicQuantizeMatMul", "x w s z b")], ((2, 5), (2, 3)),
        {"w": np.zeros((5, 3), np.int8), "b": (3,)} | _WHOLE, {"macs": 30, "params": 18, "add_elems": 6}),
}
# fmt: on


@pytest.mark.parametrize("name", CASES)
def test_a_fused_operator_counts_what_it_stands_for(name, tmp_path):
    nodes, (before, after), constants, expected = CASES[name]
    path = write(tmp_path, model(nodes, {"x": before}, {"y": after}, constants, domains=(_OURS,)))
    found = count(read_onnx(path).graph)
    figures = found.columns | {"macs": found.macs, "params": found.params}
    assert {column: figures.get(column, 0) for column in expected} == expected


def test_what_is_fused_in_an_unknown_way_is_refused(tmp_path):
    conv = fused("FusedConv", "x w", activation="Wavy")
    path = write(tmp_path, model([conv], {"x": IMAGE}, {"y": IMAGE}, {"w": (4, 4, 1, 1)}, domains=(_OURS,)))
    assert "attribute 'activation' must be one of ONNX's, got 'Wavy'" in refusal(path)


def test_channels_may_be_the_last_axis(tmp_path):
    pool = fused("QLinearGlobalAveragePool", "x s z s z", channels_last=1)
    path = write(tmp_path, model([pool], {"x": (2, 9, 8, 4)}, {"y": (2, 1, 1, 4)}, _WHOLE, domains=(_OURS,)))
    assert count(read_onnx(path).graph).columns["mean_out"] == 2 * 4
