"""Small ONNX models for tests: ways to make them, and operators with the figures that were worked out by hand."""

from math import prod
from pathlib import Path

import numpy as np
import pytest

from nachos_min.macs import CountError
from nachos_min.macs.readers.onnx_reader import read_onnx

onnx = pytest.importorskip("onnx", reason="onnx is an extra, not a dependency")
helper = onnx.helper

FLOAT, INT64, BOOL = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64, onnx.TensorProto.BOOL


def node(operator, inputs, outputs="y", **attributes):
    """A node; names of arrays are given as one text, "-" is an input left out."""
    names = ["" if name == "-" else name for name in inputs.split()]
    return helper.make_node(operator, names, outputs.split(), **attributes)


def tensor(value, name=""):
    """A tensor of float zeros if `value` is a tuple (its shape), of those numbers if it is a list or array."""
    array = np.zeros(value, np.float32) if isinstance(value, tuple) else np.asarray(value)
    return onnx.numpy_helper.from_array(array, name)


def value(name, shape, kind=FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def graph(nodes, inputs, outputs, constants=None):
    """A graph; inputs and outputs are name -> shape, None for one that is not declared."""
    before, after = ([value(name, shape) for name, shape in each.items()] for each in (inputs, outputs))
    return helper.make_graph(nodes, "graph", before, after, [tensor(x, n) for n, x in (constants or {}).items()])


def model(nodes, inputs, outputs, constants=None, opset=17, functions=(), domains=()):
    sets = [helper.make_opsetid("", opset), *(helper.make_opsetid(domain, 1) for domain in domains)]
    whole = graph(nodes, inputs, outputs, constants)
    return helper.make_model(whole, opset_imports=sets, functions=list(functions))


def external(made, dims=None, location=None):
    """The model with its first constant's values in another file, and of another shape if `dims` says so."""
    constant = made.graph.initializer[0]
    constant.ClearField("raw_data")
    constant.dims[:] = dims or constant.dims
    constant.data_location = onnx.TensorProto.EXTERNAL
    if location:
        constant.external_data.add(key="location", value=location)
    return made


def write(folder: Path, made) -> Path:
    """Write a model, or bytes, to a file."""
    path = folder / "model.onnx"
    path.write_bytes(made if isinstance(made, bytes) else made.SerializeToString())
    return path


def refusal(path, given=None) -> str:
    """The one line that refuses a file."""
    with pytest.raises(CountError) as caught:
        read_onnx(path, given)
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) <= 500
    return message


IMAGE = (2, 4, 9, 8)

# name -> nodes, (shape of x, shape of y), constants, figures expected of it: macs, params, columns
# fmt: off
CASES = {
    "conv": ([node("Conv", "x w b", strides=[2, 1], pads=[1, 0, 1, 2], kernel_shape=[3, 3])], (IMAGE, (2, 6, 5, 8)),
        {"w": (6, 4, 3, 3), "b": (6,)},
        {"macs": 2 * 5 * 8 * 6 * 4 * 9, "params": 6 * 4 * 9 + 6, "bias_adds": 2 * 5 * 8 * 6}),
    "conv, SAME_LOWER": ([node("Conv", "x w", auto_pad="SAME_LOWER")], ((1, 1, 2, 1), (1, 1, 2, 1)),
        {"w": (1, 1, 2, 1)}, {"macs": 4, "valid_macs": 3}),
    "conv, one axis": ([node("Conv", "x w", pads=[2, 1], strides=[3])], ((5, 2, 10), (5, 3, 4)), {"w": (3, 2, 4)},
        {"macs": 5 * 4 * 3 * 2 * 4}),
    "conv, weights by a Constant node": ([node("Constant", "", "w", value=tensor((3, 4, 1, 1))),
        node("Conv", "x w")], (IMAGE, (2, 3, 9, 8)), {}, {"macs": 2 * 72 * 12, "params": 12}),
    "conv, weights computed": ([node("Mul", "w s", "v"), node("Conv", "x v")], (IMAGE, (2, 3, 9, 8)),
        {"w": (3, 4, 1, 1), "s": (3, 1, 1, 1)}, {"macs": 2 * 72 * 12, "params": 15, "mul_elems": 12}),
    "conv_transpose": ([node("ConvTranspose", "x w b", strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 0],
        group=2)], (IMAGE, (2, 6, 18, 15)), {"w": (4, 3, 3, 3), "b": (6,)},
        {"macs": 2 * 72 * 4 * 3 * 9, "params": 4 * 3 * 9 + 6}),
    "conv_transpose, output_shape": ([node("ConvTranspose", "x w", strides=[3, 2], output_shape=[10, 8])],
        ((1, 1, 3, 3), (1, 2, 10, 8)), {"w": (1, 2, 3, 3)}, {"macs": 9 * 2 * 9}),
    "gemm": ([node("Gemm", "x w b", transB=1)], ((5, 7), (5, 3)), {"w": (3, 7), "b": (3,)},
        {"macs": 5 * 7 * 3, "params": 24, "bias_adds": 15}),
    "gemm, transA, no bias": ([node("Gemm", "x w", transA=1)], ((7, 5), (5, 3)), {"w": (7, 3)},
        {"macs": 5 * 7 * 3, "params": 21, "bias_adds": 0}),
    "gemm, factors": ([node("Gemm", "x w c", alpha=0.5, beta=2.0)], ((5, 7), (5, 3)), {"w": (7, 3), "c": (5, 1)},
        {"macs": 5 * 7 * 3, "params": 26, "mul_elems": 15 + 5, "add_elems": 15}),
    "gemm, beta 0": ([node("Gemm", "x w c", beta=0.0)], ((5, 7), (5, 3)), {"w": (7, 3), "c": (3,)},
        {"macs": 5 * 7 * 3, "params": 21, "add_elems": 0}),
    "gemm of computed arrays": ([node("Transpose", "x", "t"), node("Gemm", "x t")], ((5, 7), (5, 5)), {},
        {"macs": 5 * 7 * 5, "params": 0}),
    "matmul, then a bias": ([node("MatMul", "x w", "z"), node("Add", "z b")], ((2, 5, 7), (2, 5, 3)),
        {"w": (7, 3), "b": (3,)}, {"macs": 2 * 5 * 7 * 3, "params": 24, "add_elems": 30}),
    "matmul, a vector right": ([node("MatMul", "x w")], ((5, 7), (5,)), {"w": (7,)}, {"macs": 35, "params": 7}),
    "matmul, a vector left": ([node("MatMul", "w x")], ((7, 5), (5,)), {"w": (7,)}, {"macs": 35}),
    "matmul, vectors": ([node("MatMul", "w x")], ((7,), ()), {"w": (7,)}, {"macs": 7}),
    "einsum": ([node("Einsum", "x w", equation="b ... i, i j -> b ... j")], ((2, 3, 4, 5), (2, 3, 4, 6)),
        {"w": (5, 6)}, {"macs": 2 * 3 * 4 * 5 * 6, "params": 30}),
    "einsum, output not stated": ([node("Einsum", "x w", equation="ij,kj")], ((4, 5), (4, 6)), {"w": (6, 5)},
        {"macs": 4 * 5 * 6}),
    "einsum, ellipses of two lengths": ([node("Einsum", "x w", equation="...ij,...jk")],
        ((3, 2, 4, 5), (3, 2, 4, 6)), {"w": (2, 5, 6)}, {"macs": 3 * 2 * 4 * 5 * 6}),
    "einsum, an axis summed first": ([node("Einsum", "x w", equation="ij,jk->k")], ((4, 5), (6,)), {"w": (5, 6)},
        {"macs": 5 * 6, "reduce_in:sum": 20}),
    "einsum of three arrays": ([node("Einsum", "x w v", equation="bi,ij,jk->kb")], ((3, 4), (6, 3)),
        {"w": (4, 5), "v": (5, 6)}, {"macs": 3 * 4 * 5 + 3 * 5 * 6, "params": 50}),
    "attention": ([node("Attention", "x x x", q_num_heads=3, kv_num_heads=3)], ((2, 7, 12), (2, 7, 12)), {},
        {"macs": 2 * (2 * 3 * 7 * 7 * 4), "act_elems:softmax": 2 * 3 * 49}),
    "attention, heads shared": ([node("Split", "x", "q k", axis=1, num_outputs=2), node("Attention", "x k k m")],
        ((1, 4, 5, 8), (1, 4, 5, 8)), {"m": (5, 5)}, {"macs": 2 * (4 * 5 * 5 * 8), "add_elems": 100}),
    "batch norm": ([node("BatchNormalization", "x s b m v")], (IMAGE, IMAGE), dict.fromkeys("sbmv", (4,)),
        {"macs": 0, "params": 8, "norm_elems": prod(IMAGE)}),
    "batch norm, scale is no initialiser": ([node("Constant", "", "s", value=tensor((4,))),
        node("BatchNormalization", "x s s m v")], (IMAGE, IMAGE), dict.fromkeys("mv", (4,)),
        {"params": 0, "norm_elems": prod(IMAGE)}),
    "instance norm": ([node("InstanceNormalization", "x s b")], (IMAGE, IMAGE), dict.fromkeys("sb", (4,)),
        {"params": 8, "norm_elems": prod(IMAGE)}),
    "group norm": ([node("GroupNormalization", "x s b", num_groups=2)], (IMAGE, IMAGE), dict.fromkeys("sb", (4,)),
        {"params": 8, "norm_elems": prod(IMAGE)}),
    "layer norm": ([node("LayerNormalization", "x s b", axis=-2)], ((2, 3, 4, 5), (2, 3, 4, 5)),
        dict.fromkeys("sb", (4, 5)), {"params": 40, "norm_elems": 120}),
    "rms norm": ([node("RMSNormalization", "x s")], ((2, 5), (2, 5)), {"s": (5,)}, {"params": 5, "norm_elems": 10}),
    "max pool": ([node("MaxPool", "x", kernel_shape=[3, 2], strides=[2, 3], pads=[1, 0, 0, 1], ceil_mode=1)],
        (IMAGE, (2, 4, 5, 3)), {}, {"pool_in": prod(IMAGE), "pool_out": 2 * 4 * 5 * 3}),
    "average pool, SAME_UPPER": ([node("AveragePool", "x", kernel_shape=[2, 2], strides=[2, 2],
        auto_pad="SAME_UPPER", count_include_pad=1)], (IMAGE, (2, 4, 5, 4)), {}, {"pool_out": 160}),
    "global average": ([node("GlobalAveragePool", "x")], (IMAGE, (2, 4, 1, 1)), {}, {"mean_out": 8}),
    "global max": ([node("GlobalMaxPool", "x")], (IMAGE, (2, 4, 1, 1)), {}, {"pool_out": 8}),
    "integer matmul": ([node("MatMulInteger", "x w")], ((3, 4), (3, 5)), {"w": np.zeros((4, 5), np.int8)},
        {"macs": 60, "params": 20}),
    "integer conv": ([node("ConvInteger", "x w")], (IMAGE, (2, 3, 9, 8)), {"w": np.zeros((3, 4, 1, 1), np.int8)},
        {"macs": 1728, "params": 12}),
    "quantised conv": ([node("QLinearConv", "x s z w s z s z b")], (IMAGE, (2, 3, 9, 8)),
        {"w": np.zeros((3, 4, 1, 1), np.int8), "s": np.float32(1), "z": np.int8(0), "b": np.zeros(3, np.int32)},
        {"macs": 1728, "params": 15}),
    "quantised matmul": ([node("QLinearMatMul", "x s z w s z s z")], ((3, 4), (3, 5)),
        {"w": np.zeros((4, 5), np.int8), "s": np.float32(1), "z": np.int8(0)}, {"macs": 60, "params": 20}),
    "quantised and back": ([node("QuantizeLinear", "x s z", "q"), node("DequantizeLinear", "q s z", "d"),
        node("DequantizeLinear", "w s z", "v"), node("Conv", "d v")], (IMAGE, (2, 3, 9, 8)),
        {"w": np.zeros((3, 4, 1, 1), np.int8), "s": np.float32(1), "z": np.int8(0)},
        {"macs": 1728, "params": 12, "pointwise:quantize": 576, "pointwise:dequantize": 576}),
    "dynamically quantised": ([node("DynamicQuantizeLinear", "x", "q s z"), node("MatMulInteger", "q w")],
        ((3, 4), (3, 5)), {"w": np.zeros((4, 5), np.uint8)}, {"macs": 60, "pointwise:quantize": 12}),
    "part of the weights": ([node("Slice", "w s e", "part"), node("Conv", "x part")], (IMAGE, (2, 3, 9, 8)),
        {"w": (8, 4, 1, 1), "s": [0], "e": [3]}, {"macs": 1728, "params": 12}),
    "turned weights of one linear layer, read twice": ([node("Transpose", "w", "t"), node("MatMul", "x t", "z"),
        node("MatMul", "z w")], ((5, 7), (5, 7)), {"w": (3, 7)}, {"macs": 2 * 105, "params": 21}),
    "a layer called twice": ([node("Conv", "x w b", "z"), node("Conv", "z w b")], (IMAGE, IMAGE),
        {"w": (4, 4, 1, 1), "b": (4,)}, {"macs": 2 * 2304, "params": 20, "bias_adds": 1152}),
    "weights shared, biases not": ([node("Gather", "w x", "e"), node("Reshape", "e s", "r"),
        node("Gemm", "r w b", transB=1)], ((5,), (5, 9)), {"w": (9, 7), "b": (9,), "s": [5, 7]},
        {"macs": 5 * 63, "params": 72}),
    # Operators without weights, and shape arithmetic as exporters write it.
    "softmax": ([node("Softmax", "x")], ((2, 5), (2, 5)), {}, {"act_elems:softmax": 10}),
    "log softmax over the first axis": ([node("LogSoftmax", "x", axis=0)], ((2, 5), (2, 5)), {},
        {"act_elems:softmax": 10}),
    "prelu": ([node("PRelu", "x s")], (IMAGE, IMAGE), {"s": (4, 1, 1)},
        {"params": 4, "act_elems:prelu": prod(IMAGE)}),
    "relu6": ([node("Clip", "x l h")], ((3, 2), (3, 2)), {"l": np.float32(0), "h": np.float32(6)},
        {"act_elems:relu6": 6}),
    "clamp": ([node("Clip", "x l -")], ((3, 2), (3, 2)), {"l": np.float32(0)}, {"pointwise:clamp": 6}),
    "sum": ([node("Sum", "x x a")], ((3, 2), (3, 2)), {"a": (2,)}, {"add_elems": 6, "params": 2}),
    "a number is no operand": ([node("Add", "x a")], ((3, 2), (3, 2)), {"a": np.float32(3)},
        {"add_elems": 6, "params": 0}),
    "product": ([node("Mul", "x a")], ((3, 1), (3, 2)), {"a": (2,)}, {"mul_elems": 6, "params": 2}),
    "where": ([node("Less", "x a", "c"), node("Where", "c x a")], ((3, 2), (3, 2)), {"a": (2,)},
        {"pointwise:compare": 6, "pointwise:where": 6}),
    "cumsum": ([node("CumSum", "x a")], ((3, 2), (3, 2)), {"a": np.int64(0)}, {"pointwise:cumsum": 6}),
    "mod": ([node("Mod", "x a", fmod=1)], ((3, 2), (3, 2)), {"a": np.float32(2)}, {"pointwise:mod": 6}),
    "cast": ([node("Cast", "x", to=INT64)], ((3, 2), (3, 2)), {}, {"pointwise:cast": 6}),
    "mean over the map": ([node("ReduceMean", "x", axes=[2, 3], keepdims=0)], (IMAGE, (2, 4)), {}, {"mean_out": 8}),
    "sum, axes as an input": ([node("ReduceSum", "x a", keepdims=1)], (IMAGE, (2, 1, 9, 8)), {"a": [-3]},
        {"reduce_in:sum": prod(IMAGE)}),
    "sum over no axis": ([node("ReduceSum", "x", noop_with_empty_axes=1)], (IMAGE, IMAGE), {}, {}),
    "largest of all": ([node("ReduceMax", "x", keepdims=0)], (IMAGE, ()), {}, {"reduce_in:max": prod(IMAGE)}),
    "place of the largest": ([node("ArgMax", "x", axis=1, keepdims=0)], (IMAGE, (2, 9, 8)), {},
        {"reduce_in:argmax": 576}),
    "flatten": ([node("Flatten", "x", axis=2)], (IMAGE, (8, 72)), {}, {"macs": 0}),
    "reshape": ([node("Reshape", "x s")], (IMAGE, (2, 36, 8)), {"s": [0, -1, 8]}, {}),
    "squeeze": ([node("Squeeze", "x a")], ((1, 3, 1), (3, 1)), {"a": [0]}, {}),
    "squeeze all": ([node("Squeeze", "x")], ((1, 3, 1), (3,)), {}, {}),
    "unsqueeze": ([node("Unsqueeze", "x a")], ((3, 2), (1, 3, 2, 1)), {"a": [0, -1]}, {}),
    "transpose": ([node("Transpose", "x", perm=[0, 2, 3, 1])], (IMAGE, (2, 9, 8, 4)), {}, {}),
    "expand": ([node("Expand", "x s")], ((3, 1), (2, 3, 4)), {"s": [2, 1, 4]}, {}),
    "tile": ([node("Tile", "x s")], ((3, 2), (6, 2)), {"s": [2, 1]}, {}),
    "concat": ([node("Concat", "x x a", axis=1)], ((3, 2), (3, 7)), {"a": (3, 3)}, {"params": 9}),
    "split": ([node("Split", "x", "a b", axis=1, num_outputs=2), node("Concat", "b a", axis=1)], ((3, 5), (3, 5)),
        {}, {}),
    "slice": ([node("Slice", "x s e a t")], ((5, 10), (2, 5)),
        {"s": [-1, -100], "e": [0, 100], "a": [0, 1], "t": [-2, 2]}, {}),
    "slice backwards to the start": ([node("Slice", "x s e a t")], ((5, 10), (5, 10)),
        {"s": [9], "e": [-100], "a": [1], "t": [-1]}, {}),
    "gather": ([node("Gather", "x i", axis=1)], ((5, 10), (5, 2, 1)), {"i": [[0], [-1]]}, {}),
    "embedding": ([node("Gather", "t x")], ((5, 2), (5, 2, 6)), {"t": (100, 6)}, {"params": 600}),
    "gather elements": ([node("GatherElements", "x i")], ((3, 2), (1, 2)), {"i": [[0, 1]]}, {}),
    "gather nd": ([node("GatherND", "x i")], ((3, 2, 5), (4, 5)), {"i": np.zeros((4, 2), np.int64)}, {}),
    "scatter nd": ([node("ScatterND", "x i u")], ((3, 2), (3, 2)), {"i": [[0]], "u": (1, 2)}, {}),
    "pad": ([node("Pad", "x p")], ((3, 4), (4, 3)), {"p": [1, 0, 0, -1]}, {}),
    "pad, axes": ([node("Pad", "x p - a")], ((3, 4), (3, 7)), {"p": [1, 2], "a": [1]}, {}),
    "depth to space": ([node("DepthToSpace", "x", blocksize=2)], ((1, 8, 3, 2), (1, 2, 6, 4)), {}, {}),
    "space to depth": ([node("SpaceToDepth", "x", blocksize=2)], ((1, 2, 6, 4), (1, 8, 3, 2)), {}, {}),
    "top k": ([node("TopK", "x k", "y i")], ((3, 9), (3, 2)), {"k": [2]}, {}),
    "one hot": ([node("OneHot", "x d v")], ((3, 2), (3, 2, 9)), {"d": [9], "v": [0, 1]}, {}),
    "resize, scales": ([node("Resize", "x - s", mode="linear")], (IMAGE, (2, 4, 13, 16)),
        {"s": np.array([1, 1, 1.5, 2], np.float32)}, {"resize_out:bilinear": 2 * 4 * 13 * 16}),
    "resize, sizes": ([node("Resize", "x - - s", mode="cubic")], ((2, 4, 9), (2, 4, 5)), {"s": [2, 4, 5]},
        {"resize_out:cubic": 40}),
    "resize, axes": ([node("Resize", "x - s", axes=[3, 2])], (IMAGE, (2, 4, 27, 16)),
        {"s": np.array([2, 3], np.float32)}, {"resize_out:nearest": 2 * 4 * 27 * 16}),
    "dropout, identity, trilu": ([node("Dropout", "x", "a"), node("Identity", "a", "b"), node("Trilu", "b")],
        ((3, 2), (3, 2)), {}, {"macs": 0}),
    "x.view(x.shape[0], -1) as it is exported": ([node("Shape", "x", "s"),
        node("Constant", "", "zero", value=tensor(np.int64(0))), node("Gather", "s zero", "n", axis=0),
        node("Unsqueeze", "n axes", "n1"), node("Concat", "n1 minus", "shape", axis=0), node("Reshape", "x shape")],
        (IMAGE, (2, 288)), {"axes": [0], "minus": [-1]}, {"macs": 0, "pointwise:cast": None}),
    "twice as high and wide, computed": ([node("Shape", "x", "s", start=2), node("Cast", "s", "f", to=FLOAT),
        node("Mul", "f two", "g"), node("Floor", "g", "h"), node("Cast", "h", "i", to=INT64),
        node("Shape", "x", "front", end=2), node("Concat", "front i", "size", axis=0),
        node("Resize", "x - - size")], (IMAGE, (2, 4, 18, 16)), {"two": np.float32(2)},
        {"mul_elems": 0, "resize_out:nearest": 2 * 4 * 18 * 16}),
    "arithmetic on shapes": ([node("Size", "x", "n"), node("Div", "n minus7", "d"), node("Abs", "d", "a"),
        node("Range", "zero a one", "r"), node("Gather", "x r", axis=1)], ((6, 12), (6, 10)),
        {"minus7": np.int64(-7), "zero": np.int64(0), "one": np.int64(1)}, {}),
    "constants of a computed shape": ([node("Shape", "x", "s"),
        node("ConstantOfShape", "s", "ones", value=tensor(np.array([1], np.int64))),
        node("NonZero", "ones", "places"), node("Transpose", "places", "turned"), node("GatherND", "x turned")],
        ((3, 2), (6,)), {}, {}),
    "identity matrix": ([node("EyeLike", "x", "e"), node("MatMul", "x e")], ((4, 4), (4, 4)), {},
        {"macs": 64, "params": 0}),
    "empty parts": ([node("Slice", "x s s", "empty"), node("Concat", "x empty", axis=0)], ((3, 2), (3, 2)),
        {"s": [1]}, {}),
}
# fmt: on
