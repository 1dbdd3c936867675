"""Rules of operators that ONNX Runtime writes into files that it has optimised or quantised.

Each is spelt out in ONNX's own operators, whose rules run. Scales and zero points are no operands.

Source: ONNX Runtime, ContribOperators.md.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np

from nachos_min.macs import ops
from nachos_min.macs.readers import onnx_attention, onnx_layers, onnx_moves
from nachos_min.macs.readers.builder import quoted, require
from nachos_min.macs.readers.names import ACTIVATIONS
from nachos_min.macs.readers.onnx_call import MICROSOFT, RULES, Array, Call, rule

_NEEDED = (onnx_attention, onnx_layers, onnx_moves)  # files whose rules are used here
# Places of the inputs that count -> operators, each with the one of ONNX's that does the same with those.
_SPELT = {
    (0,): "~Gelu:Gelu ~QLinearSigmoid:Sigmoid ~QLinearLeakyRelu:LeakyRelu ~QLinearSoftmax:Softmax "
    "~QLinearReduceMean:ReduceMean ~QLinearAveragePool:AveragePool ~QLinearGlobalAveragePool:GlobalAveragePool "
    "~NhwcMaxPool:MaxPool ~nchwc.MaxPool:MaxPool ~nchwc.AveragePool:AveragePool "
    "~nchwc.GlobalAveragePool:GlobalAveragePool ~nchwc.GlobalMaxPool:GlobalMaxPool ~Unique:Unique",
    (0, 1): "SimplifiedLayerNormalization:RMSNormalization ConvInteger:Conv MatMulInteger:MatMul "
    "~MatMulInteger16:MatMul ~ExpandDims:Unsqueeze ~Trilu:Trilu ~TransposeMatMul:com.microsoft.FusedMatMul "
    "~GridSample:GridSample",
    (0, 1, 2): "~QuantizeLinear:QuantizeLinear ~DequantizeLinear:DequantizeLinear",
    (0, 1, 2, 5, 8): "~QAttention:com.microsoft.Attention",
    (0, 1, 4): "~QLinearWhere:Where",
    (0, 3): "QLinearMatMul:MatMul ~QLinearAdd:Add ~QLinearMul:Mul",
    (0, 3, 6): "~QGemm:Gemm",
    (0, 3, 8): "QLinearConv:Conv ~QLinearConv:Conv",
}


def _spell(call: Call, operator: str, *inputs: Array | None) -> Array:
    """Return what an operator of ONNX makes of the inputs; the whole is read by the same attributes."""
    part = f"{call.key}/{operator}"
    made = RULES[operator](replace(call, operator=operator, key=part, inputs=inputs, outputs=1))
    return made if isinstance(made, Array) else made[0]


def _plus(call: Call, x: Array, bias: Array | None) -> Array:
    return x if bias is None else _spell(call, "Add", x, bias)


def _same(call: Call, operator: str, places: Sequence[int]) -> Array | tuple[Array, ...]:
    """Return what ONNX's operator makes of the inputs at `places`, whose channels may be the last axis."""
    inputs = [call.optional(place) for place in places]
    if operator in ("Add", "Mul", "Concat", "MatMul"):  # constants of whole numbers were rounded after training
        inputs = [each.weight if each and each.constant and each.shape else each for each in inputs]
    if not (call.operator.startswith("Nhwc") or call.get("channels_last", 0)):
        return RULES[operator](replace(call, operator=operator, inputs=tuple(inputs)))
    return _channels_first(_spell(call, operator, _channels_first(call.input()), *inputs[1:]), before=False)


def _channels_first(array: Array, before: bool = True) -> Array:
    """Return a map whose channels were the last axis; `before` False: one whose channels are the last again."""
    require(len(array.shape) >= 3, f"a map must have a batch and channels, got {array.shape}")
    batch, *rest = array.shape
    turned = (rest[-1], *rest[:-1]) if before else (*rest[1:], rest[0])
    return replace(array, shape=(batch, *turned), values=None)


for _places, _pairs in _SPELT.items():
    for _name, _operator in (pair.split(":") for pair in _pairs.split()):
        RULES[_name.replace("~", MICROSOFT)] = partial(_same, operator=_operator, places=_places)


@rule("~FusedConv", "~FusedGemm", "~nchwc.Conv")
def _then_activation(call: Call, x: Array, weight: Array) -> Array:
    """Return a convolution, with an array added if there is a fourth input, or a Gemm, and an activation.

    Of maps in blocks of channels, the last may be filled up with zeros that are multiplied, too.
    """
    channels = weight.shape[1] * call.get("group", 1) if len(weight.shape) > 1 else 0
    if call.operator == "Conv" and x.shape[1:2] < (channels,):
        x = call.move((x.shape[0], channels, *x.shape[2:]), None, x)
    made = _spell(call, call.operator.removeprefix("Fused"), x, weight, call.optional(2))
    made = _plus(call, made, call.optional(3))
    word, bounds = call.get("activation", ""), list(call.attribute("activation_params", list, ()))
    if word == "Clip":
        return call.activation(made, "relu6") if bounds == [0, 6] else call.pointwise("clamp", (made,))
    require(word in {"", *ACTIVATIONS}, f"attribute 'activation' must be one of ONNX's, got {quoted(word)}")
    return call.activation(made, ACTIVATIONS[word]) if word else made


@rule("~FusedMatMul")
def _turned_product(call: Call) -> Array:
    """Return alpha times a product of arrays whose axes are turned first."""
    arrays = []
    for place, side in enumerate("AB"):
        array = call.input(place)
        order = list(range(len(array.shape)))
        if call.get(f"transBatch{side}", 0) and len(order) > 1:  # the first axis takes the place of rows
            order = [*order[1:-1], 0, order[-1]]
        if call.get(f"trans{side}", 0):
            order[-2:] = order[-2:][::-1]
        shape = tuple(array.shape[axis] for axis in order)
        turn = partial(np.transpose, axes=order)
        arrays.append(array if shape == array.shape else call.move(shape, turn, array, part=place))
    made = _spell(call, "MatMul", *arrays)
    return made if call.get("alpha", 1.0) == 1 else call.elementwise((made,), ops.Multiply)


@rule("~SkipLayerNormalization", "~SkipSimplifiedLayerNormalization")
def _norm_of_sum(call: Call, x: Array, skip: Array, scale: Array) -> tuple[Array, ...]:
    """Return the norm of a sum, its mean and deviation, which only training reads, and the sum."""
    simple = "Simplified" in call.operator
    total = _plus(call, _plus(call, x, skip), call.optional(3 if simple else 4))
    norm, shift = ("RMSNormalization", None) if simple else ("LayerNormalization", call.optional(3))
    made = _spell(call, norm, total, scale, shift)
    measured = call.sourced((*made.shape[:-1], 1)) if call.outputs > 1 else made
    return made, measured, measured, total


@rule("~QuickGelu")
def _sigmoid_gate(call: Call, x: Array) -> Array:
    """Return x * sigmoid(alpha * x)."""
    if call.get("alpha", 1.702) == 1:
        return call.activation(x, "silu")
    gate = call.activation(call.elementwise((x,), ops.Multiply), "sigmoid")
    return _spell(call, "Mul", x, gate)


@rule("~DynamicQuantizeMatMul", "~MatMulIntegerToFloat")
def _integer_product(call: Call, x: Array, weight: Array) -> Array:
    """Return a product of integers as floating point numbers, with a bias added."""
    dynamic = call.operator == "DynamicQuantizeMatMul"
    made = _spell(call, "MatMulInteger", call.pointwise("quantize", (x,)) if dynamic else x, weight)
    return _plus(call, call.pointwise("dequantize", (made,)), call.optional(4 if dynamic else 6))


@rule("~MatMulNBits", "~MatMulBnb4")
def _few_bits(call: Call, x: Array, packed: Array) -> Array:
    inner, outer = call.get("K", 0), call.get("N", 0)
    require(x.shape[-1:] == (inner,) and outer > 0, f"K and N must fit {x.shape}, got {inner} and {outer}")
    return _plus(call, _spell(call, "MatMul", x, replace(packed.weight, shape=(inner, outer))), call.optional(5))


@rule("~nchwc.ReorderOutput")
def _unblocked(call: Call, x: Array) -> Array:
    made = call.move((*x.shape[:1], call.get("channels", 0), *x.shape[2:]), None, x)
    return _channels_first(made, before=False) if call.get("channels_last", 0) else made


@rule("~EmbedLayerNormalization")
def _embedded(call: Call, numbers: Array) -> tuple[Array, ...]:
    """Return the norm of embeddings added, of a word, its place and its segment; the lengths; the sum."""
    shape = (*numbers.shape, call.input(2).shape[-1])
    tables = [each for each in map(call.optional, (2, 3, 4)) if each is not None]
    made = [call.move(shape, None, numbers, table, part=part) for part, table in enumerate(tables)]
    total = call.elementwise(tuple(made), ops.Add)
    normed = _spell(call, "LayerNormalization", total, call.input(5), call.input(6))
    return normed, call.sourced(numbers.shape[:1]), total


@rule("~DynamicQuantizeLSTM")
def _quantised_lstm(call: Call) -> Array | tuple[Array, ...]:
    """Return what an LSTM makes, whose weights are turned."""
    x, *weights = call.inputs[:8]
    turned = [replace(each, shape=(each.shape[0], *each.shape[:0:-1])) for each in weights[:2] if each]
    return RULES["LSTM"](replace(call, operator="LSTM", inputs=(x, *turned, *weights[2:])))


rule("~nchwc.ReorderInput")(lambda call, x: _channels_first(x) if call.get("channels_last", 0) else x)
rule("~BiasGelu", "~FastGelu")(lambda call, x, bias=None: _spell(call, "Gelu", _plus(call, x, bias)))
rule("~BiasSoftmax")(lambda call, x, bias: _spell(call, "Softmax", _plus(call, x, bias)))
rule("~BiasAdd", "~BiasDropout")(lambda call: call.elementwise(call.given()[:3], ops.Add))
rule("~QLinearConcat")(lambda call: _same(call, "Concat", range(2, len(call.inputs), 3)))
