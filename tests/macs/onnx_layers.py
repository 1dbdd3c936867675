"""ONNX nodes with weights or a window, each with the figures that were worked out by hand."""

from math import prod

import numpy as np
from macs.onnx_models import node, tensor

IMAGE = (2, 4, 9, 8)

# name -> nodes, (shape of x, shape of y), constants, figures expected of it: macs, params, columns
LAYERS = {
    "conv": (
        [node("Conv", "x w b", strides=[2, 1], pads=[1, 0, 1, 2], kernel_shape=[3, 3])],
        (IMAGE, (2, 6, 5, 8)),
        {"w": (6, 4, 3, 3), "b": (6,)},
        {"macs": 2 * 5 * 8 * 6 * 4 * 9, "params": 6 * 4 * 9 + 6, "bias_adds": 2 * 5 * 8 * 6},
    ),
    "conv, groups, dilations, no kernel_shape": (
        [node("Conv", "x w", group=2, dilations=[2, 3])],
        (IMAGE, (2, 6, 5, 2)),
        {"w": (6, 2, 3, 3)},
        {"macs": 2 * 5 * 2 * 6 * 2 * 9, "params": 6 * 2 * 9, "bias_adds": 0},
    ),
    "conv, SAME_UPPER": (
        [node("Conv", "x w", auto_pad="SAME_UPPER", strides=[2, 2])],
        (IMAGE, (2, 3, 5, 4)),
        {"w": (3, 4, 4, 2)},
        {"macs": 2 * 5 * 4 * 3 * 4 * 8},
    ),
    "conv, SAME_LOWER": (
        [node("Conv", "x w", auto_pad="SAME_LOWER")],
        ((1, 1, 2, 1), (1, 1, 2, 1)),
        {"w": (1, 1, 2, 1)},
        {"macs": 4, "valid_macs": 3},
    ),
    "conv, VALID": (
        [node("Conv", "x w", auto_pad="VALID", pads=[9, 9, 9, 9])],
        (IMAGE, (2, 3, 7, 6)),
        {"w": (3, 4, 3, 3)},
        {"macs": 2 * 7 * 6 * 3 * 36},
    ),
    "conv, one axis": (
        [node("Conv", "x w", pads=[2, 1], strides=[3])],
        ((5, 2, 10), (5, 3, 4)),
        {"w": (3, 2, 4)},
        {"macs": 5 * 4 * 3 * 2 * 4},
    ),
    "conv, weights by a Constant node": (
        [node("Constant", "", "w", value=tensor((3, 4, 1, 1))), node("Conv", "x w")],
        (IMAGE, (2, 3, 9, 8)),
        {},
        {"macs": 2 * 72 * 12, "params": 12},
    ),
    "conv, weights computed": (
        [node("Mul", "w s", "v"), node("Conv", "x v")],
        (IMAGE, (2, 3, 9, 8)),
        {"w": (3, 4, 1, 1), "s": (3, 1, 1, 1)},
        {"macs": 2 * 72 * 12, "params": 15, "mul_elems": 12},
    ),
    "conv_transpose": (
        [node("ConvTranspose", "x w b", strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 0], group=2)],
        (IMAGE, (2, 6, 18, 15)),
        {"w": (4, 3, 3, 3), "b": (6,)},
        {"macs": 2 * 72 * 4 * 3 * 9, "params": 4 * 3 * 9 + 6},
    ),
    "conv_transpose, output_shape": (
        [node("ConvTranspose", "x w", strides=[3, 2], output_shape=[10, 8])],
        ((1, 1, 3, 3), (1, 2, 10, 8)),
        {"w": (1, 2, 3, 3)},
        {"macs": 9 * 2 * 9},
    ),
    "conv_transpose, SAME_UPPER": (
        [node("ConvTranspose", "x w", strides=[2, 2], auto_pad="SAME_UPPER")],
        ((1, 1, 3, 3), (1, 2, 6, 6)),
        {"w": (1, 2, 3, 3)},
        {"macs": 9 * 2 * 9},
    ),
    "conv_transpose, VALID, one axis": (
        [node("ConvTranspose", "x w", strides=[2], auto_pad="VALID")],
        ((1, 2, 5), (1, 3, 11)),
        {"w": (2, 3, 3)},
        {"macs": 5 * 2 * 3 * 3},
    ),
    "gemm": (
        [node("Gemm", "x w b", transB=1)],
        ((5, 7), (5, 3)),
        {"w": (3, 7), "b": (3,)},
        {"macs": 5 * 7 * 3, "params": 24, "bias_adds": 15},
    ),
    "gemm, transA, no bias": (
        [node("Gemm", "x w", transA=1)],
        ((7, 5), (5, 3)),
        {"w": (7, 3)},
        {"macs": 5 * 7 * 3, "params": 21, "bias_adds": 0},
    ),
    "gemm, factors": (
        [node("Gemm", "x w c", alpha=0.5, beta=2.0)],
        ((5, 7), (5, 3)),
        {"w": (7, 3), "c": (5, 1)},
        {"macs": 5 * 7 * 3, "params": 26, "mul_elems": 15 + 5, "add_elems": 15},
    ),
    "gemm, beta 0": (
        [node("Gemm", "x w c", beta=0.0)],
        ((5, 7), (5, 3)),
        {"w": (7, 3), "c": (3,)},
        {"macs": 5 * 7 * 3, "params": 21, "add_elems": 0},
    ),
    "gemm of computed arrays": (
        [node("Transpose", "x", "t"), node("Gemm", "x t")],
        ((5, 7), (5, 5)),
        {},
        {"macs": 5 * 7 * 5, "params": 0},
    ),
    "matmul, then a bias": (
        [node("MatMul", "x w", "z"), node("Add", "z b")],
        ((2, 5, 7), (2, 5, 3)),
        {"w": (7, 3), "b": (3,)},
        {"macs": 2 * 5 * 7 * 3, "params": 24, "add_elems": 30},
    ),
    "matmul, broadcast": (
        [node("MatMul", "x w")],
        ((2, 1, 5, 7), (2, 4, 5, 3)),
        {"w": (4, 7, 3)},
        {"macs": 8 * 5 * 7 * 3, "params": 84},
    ),
    "matmul, a vector right": ([node("MatMul", "x w")], ((5, 7), (5,)), {"w": (7,)}, {"macs": 35, "params": 7}),
    "matmul, a vector left": ([node("MatMul", "w x")], ((7, 5), (5,)), {"w": (7,)}, {"macs": 35}),
    "matmul, vectors": ([node("MatMul", "w x")], ((7,), ()), {"w": (7,)}, {"macs": 7}),
    "einsum": (
        [node("Einsum", "x w", equation="b ... i, i j -> b ... j")],
        ((2, 3, 4, 5), (2, 3, 4, 6)),
        {"w": (5, 6)},
        {"macs": 2 * 3 * 4 * 5 * 6, "params": 30},
    ),
    "einsum, output not stated": (
        [node("Einsum", "x w", equation="ij,kj")],
        ((4, 5), (4, 6)),
        {"w": (6, 5)},
        {"macs": 4 * 5 * 6},
    ),
    "einsum, ellipses of two lengths": (
        [node("Einsum", "x w", equation="...ij,...jk")],
        ((3, 2, 4, 5), (3, 2, 4, 6)),
        {"w": (2, 5, 6)},
        {"macs": 3 * 2 * 4 * 5 * 6},
    ),
    "einsum, an axis summed first": (
        [node("Einsum", "x w", equation="ij,jk->k")],
        ((4, 5), (6,)),
        {"w": (5, 6)},
        {"macs": 5 * 6, "reduce_in:sum": 20},
    ),
    "attention": (
        [node("Attention", "x x x", q_num_heads=3, kv_num_heads=3)],
        ((2, 7, 12), (2, 7, 12)),
        {},
        {"macs": 2 * (2 * 3 * 7 * 7 * 4), "act_elems:softmax": 2 * 3 * 49},
    ),
    "attention, heads shared": (
        [node("Split", "x", "q k", axis=1, num_outputs=2), node("Attention", "x k k m")],
        ((1, 4, 5, 8), (1, 4, 5, 8)),
        {"m": (5, 5)},
        {"macs": 2 * (4 * 5 * 5 * 8), "add_elems": 100},
    ),
    "batch norm": (
        [node("BatchNormalization", "x s b m v")],
        (IMAGE, IMAGE),
        dict.fromkeys("sbmv", (4,)),
        {"macs": 0, "params": 8, "norm_elems": prod(IMAGE)},
    ),
    "batch norm of rows": (
        [node("BatchNormalization", "x s b m v")],
        ((3, 4), (3, 4)),
        dict.fromkeys("sbmv", (4,)),
        {"params": 8, "norm_elems": 12},
    ),
    "batch norm, scale is no initialiser": (
        [node("Constant", "", "s", value=tensor((4,))), node("BatchNormalization", "x s s m v")],
        (IMAGE, IMAGE),
        dict.fromkeys("mv", (4,)),
        {"params": 0, "norm_elems": prod(IMAGE)},
    ),
    "instance norm": (
        [node("InstanceNormalization", "x s b")],
        (IMAGE, IMAGE),
        dict.fromkeys("sb", (4,)),
        {"params": 8, "norm_elems": prod(IMAGE)},
    ),
    "group norm": (
        [node("GroupNormalization", "x s b", num_groups=2)],
        (IMAGE, IMAGE),
        dict.fromkeys("sb", (4,)),
        {"params": 8, "norm_elems": prod(IMAGE)},
    ),
    "layer norm": (
        [node("LayerNormalization", "x s b", axis=-2)],
        ((2, 3, 4, 5), (2, 3, 4, 5)),
        dict.fromkeys("sb", (4, 5)),
        {"params": 40, "norm_elems": 120},
    ),
    "layer norm, no shift": (
        [node("LayerNormalization", "x s")],
        ((2, 5), (2, 5)),
        {"s": (5,)},
        {"params": 5, "norm_elems": 10},
    ),
    "rms norm": ([node("RMSNormalization", "x s")], ((2, 5), (2, 5)), {"s": (5,)}, {"params": 5, "norm_elems": 10}),
    "max pool": (
        [node("MaxPool", "x", kernel_shape=[3, 2], strides=[2, 3], pads=[1, 0, 0, 1], ceil_mode=1)],
        (IMAGE, (2, 4, 5, 3)),
        {},
        {"pool_in": prod(IMAGE), "pool_out": 2 * 4 * 5 * 3},
    ),
    "max pool, dilations": (
        [node("MaxPool", "x", kernel_shape=[3], dilations=[4])],
        ((1, 2, 12), (1, 2, 4)),
        {},
        {"pool_out": 8},
    ),
    "average pool, SAME_UPPER": (
        [node("AveragePool", "x", kernel_shape=[2, 2], strides=[2, 2], auto_pad="SAME_UPPER", count_include_pad=1)],
        (IMAGE, (2, 4, 5, 4)),
        {},
        {"pool_out": 160},
    ),
    "global average": ([node("GlobalAveragePool", "x")], (IMAGE, (2, 4, 1, 1)), {}, {"mean_out": 8}),
    "global max": ([node("GlobalMaxPool", "x")], (IMAGE, (2, 4, 1, 1)), {}, {"pool_out": 8}),
    "integer matmul": (
        [node("MatMulInteger", "x w")],
        ((3, 4), (3, 5)),
        {"w": np.zeros((4, 5), np.int8)},
        {"macs": 60, "params": 20},
    ),
    "integer conv": (
        [node("ConvInteger", "x w")],
        (IMAGE, (2, 3, 9, 8)),
        {"w": np.zeros((3, 4, 1, 1), np.int8)},
        {"macs": 1728, "params": 12},
    ),
    "quantised conv": (
        [node("QLinearConv", "x s z w s z s z b")],
        (IMAGE, (2, 3, 9, 8)),
        {"w": np.zeros((3, 4, 1, 1), np.int8), "s": np.float32(1), "z": np.int8(0), "b": np.zeros(3, np.int32)},
        {"macs": 1728, "params": 15},
    ),
    "quantised matmul": (
        [node("QLinearMatMul", "x s z w s z s z")],
        ((3, 4), (3, 5)),
        {"w": np.zeros((4, 5), np.int8), "s": np.float32(1), "z": np.int8(0)},
        {"macs": 60, "params": 20},
    ),
    "quantised and back": (
        [
            node("QuantizeLinear", "x s z", "q"),
            node("DequantizeLinear", "q s z", "d"),
            node("DequantizeLinear", "w s z", "v"),
            node("Conv", "d v"),
        ],
        (IMAGE, (2, 3, 9, 8)),
        {"w": np.zeros((3, 4, 1, 1), np.int8), "s": np.float32(1), "z": np.int8(0)},
        {"macs": 1728, "params": 12, "pointwise:quantize": 576, "pointwise:dequantize": 576},
    ),
    "dynamically quantised": (
        [node("DynamicQuantizeLinear", "x", "q s z"), node("MatMulInteger", "q w")],
        ((3, 4), (3, 5)),
        {"w": np.zeros((4, 5), np.uint8)},
        {"macs": 60, "pointwise:quantize": 12},
    ),
    "part of the weights": (
        [node("Slice", "w s e", "part"), node("Conv", "x part")],
        (IMAGE, (2, 3, 9, 8)),
        {"w": (8, 4, 1, 1), "s": [0], "e": [3]},
        {"macs": 1728, "params": 12},
    ),
    "turned weights of one linear layer, read twice": (
        [node("Transpose", "w", "t"), node("MatMul", "x t", "z"), node("MatMul", "z w")],
        ((5, 7), (5, 7)),
        {"w": (3, 7)},
        {"macs": 2 * 105, "params": 21},
    ),
    "a layer called twice": (
        [node("Conv", "x w b", "z"), node("Conv", "z w b")],
        (IMAGE, IMAGE),
        {"w": (4, 4, 1, 1), "b": (4,)},
        {"macs": 2 * 2304, "params": 20, "bias_adds": 1152},
    ),
    "weights shared, biases not": (
        [node("Gather", "w x", "e"), node("Reshape", "e s", "r"), node("Gemm", "r w b", transB=1)],
        ((5,), (5, 9)),
        {"w": (9, 7), "b": (9,), "s": [5, 7]},
        {"macs": 5 * 63, "params": 72},
    ),
}
