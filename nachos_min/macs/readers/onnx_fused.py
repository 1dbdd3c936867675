"""Rules of operators that ONNX Runtime writes into files that it has optimised or quantised.

Each is spelt out in ONNX's own operators, whose rules run. Scales and zero points are no operands.

Source: ONNX Runtime, ContribOperators.md.
"""

from dataclasses import replace
from functools import partial

import numpy as np

from nachos_min.macs import ops
from nachos_min.macs.readers import onnx_layers, onnx_moves
from nachos_min.macs.readers.builder import quoted, require
from nachos_min.macs.readers.names import ACTIVATIONS
from nachos_min.macs.readers.onnx_call import RULES, Array, Call, Rule, rule

_NEEDED = (onnx_layers, onnx_moves)  # files whose rules are used here
# Operators that do what one of ONNX's does, and which of their inputs that reads.
_SPELT = (
    (slice(1), "Gelu:Gelu QLinearSigmoid:Sigmoid QLinearLeakyRelu:LeakyRelu QLinearSoftmax:Softmax"),
    (slice(1), "QLinearReduceMean:ReduceMean QLinearAveragePool:AveragePool NhwcMaxPool:MaxPool"),
    (slice(1), "QLinearGlobalAveragePool:GlobalAveragePool"),
    (slice(2), "MatMulInteger16:MatMulInteger ExpandDims:Unsqueeze Trilu:Trilu"),
    (slice(2), "TransposeMatMul:com.microsoft.FusedMatMul"),
    (slice(3), "QuantizeLinear:QuantizeLinear DequantizeLinear:DequantizeLinear"),
    (slice(9), "QLinearConv:QLinearConv"),
    (slice(0, 4, 3), "QLinearAdd:Add QLinearMul:Mul"),
    (slice(0, 7, 3), "QGemm:Gemm"),
    (slice(2, None, 3), "QLinearConcat:Concat"),
)
_LAST = ("Conv", "ConvTranspose", "QLinearConv", "AveragePool", "GlobalAveragePool", "GlobalMaxPool", "MaxPool")


def _spell(call: Call, operator: str, *inputs: Array | None) -> Array:
    """Return what an operator of ONNX makes of the inputs; the whole is read by the same attributes."""
    part = f"{call.key}/{operator}"
    made = RULES[operator](replace(call, operator=operator, key=part, inputs=inputs, outputs=1))
    return made if isinstance(made, Array) else made[0]


def _same(operator: str, places: slice, last: bool = False) -> Rule:
    """Return the rule of an operator that does what ONNX's does; `last`: its channels are the last axis."""

    def run(call: Call) -> Array:
        inputs, turned = call.inputs[places], last or call.get("channels_last", 0) != 0
        if operator in ("Add", "Mul", "Concat"):  # a constant of whole numbers was rounded after training
            inputs = tuple(each.weight if each and each.constant and each.shape else each for each in inputs)
        if turned:
            inputs = (_axis_to(call.input(), -1, 1), *inputs[1:])
        made = _spell(call, operator, *inputs)
        return _axis_to(made, 1, -1) if turned else made

    return run


def _axis_to(array: Array, source: int, place: int) -> Array:
    shape = list(array.shape)
    require(len(shape) >= 3, f"a map must have a batch and channels, got {array.shape}")
    channels = shape.pop(source)
    shape.insert(place if place > 0 else len(shape), channels)
    return replace(array, shape=tuple(shape), values=None)


for _places, _pairs in _SPELT:
    for _name, _operator in (pair.split(":") for pair in _pairs.split()):
        rule(f"~{_name}")(_same(_operator, _places, _name.startswith("Nhwc")))
for _name in _LAST:
    RULES[f"com.ms.internal.nhwc.{_name}"] = _same(_name, slice(None), last=True)


@rule("~FusedConv", "~FusedGemm")
def _then_activation(call: Call) -> Array:
    """Return a convolution, with an array added if there is a fourth input, or a Gemm, and an activation."""
    made = _spell(call, call.operator.removeprefix("Fused"), *call.inputs[:3])
    return _activated(call, made)


def _activated(call: Call, made: Array) -> Array:
    if (added := call.optional(3)) is not None:
        made = _spell(call, "Add", made, added)
    word, bounds = call.get("activation", ""), list(call.attribute("activation_params", list, ()))
    if word == "Clip":
        clamp = partial(ops.Pointwise, kind="clamp")
        return call.activation(made, "relu6") if bounds == [0, 6] else call.elementwise((made,), clamp)
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
def _norm_of_sum(call: Call) -> tuple[Array, ...]:
    """Return the norm of a sum, its mean and deviation, which only training reads, and the sum."""
    simple = "Simplified" in call.operator
    total, bias = _spell(call, "Add", call.input(0), call.input(1)), call.optional(3 if simple else 4)
    if bias is not None:
        total = _spell(call, "Add", total, bias)
    parameters = (call.input(2), *(() if simple else (call.optional(3),)))
    made = _spell(call, "RMSNormalization" if simple else "LayerNormalization", total, *parameters)
    measured = call.sourced((*made.shape[:-1], 1)) if call.outputs > 1 else made
    return made, measured, measured, total


@rule("~BiasGelu", "~FastGelu", "~BiasSoftmax")
def _of_sum(call: Call, x: Array, bias: Array | None = None) -> Array:
    total = x if bias is None else _spell(call, "Add", x, bias)
    return _spell(call, "Softmax" if call.operator == "BiasSoftmax" else "Gelu", total)


@rule("~QuickGelu")
def _sigmoid_gate(call: Call, x: Array) -> Array:
    """Return x * sigmoid(alpha * x)."""
    alpha = call.get("alpha", 1.702)
    if alpha == 1:
        return call.activation(x, "silu")
    gate = call.activation(call.elementwise((x,), ops.Multiply), "sigmoid")
    return _spell(call, "Mul", x, gate)


@rule("~DynamicQuantizeMatMul", "~MatMulIntegerToFloat")
def _integer_product(call: Call) -> Array:
    """Return a product of integers as floating point numbers, with a bias added."""
    dynamic = call.operator == "DynamicQuantizeMatMul"
    x = call.elementwise((call.input(),), partial(ops.Pointwise, kind="quantize")) if dynamic else call.input()
    made, bias = _spell(call, "MatMulInteger", x, call.input(1)), call.optional(4 if dynamic else 6)
    made = call.elementwise((made,), partial(ops.Pointwise, kind="dequantize"))
    return made if bias is None else _spell(call, "Add", made, bias)


# Maps in blocks of channels, of which the last may be filled up with zeros that are multiplied, too.


@rule("~nchwc.Conv")
def _blocked(call: Call, x: Array, weight: Array) -> Array:
    channels = weight.shape[1] * call.get("group", 1) if len(weight.shape) > 1 else 0
    if x.shape[1:2] < (channels,):
        x = call.move((x.shape[0], channels, *x.shape[2:]), None, x)
    return _activated(call, _spell(call, "Conv", x, *call.inputs[1:3]))


@rule("~nchwc.ReorderOutput")
def _unblocked(call: Call, x: Array) -> Array:
    last = call.get("channels_last", 0) != 0
    made = call.move((*x.shape[:1], call.get("channels", 0), *x.shape[2:]), None, x)
    return _axis_to(made, 1, -1) if last else made


rule("~nchwc.ReorderInput")(lambda call, x: _axis_to(x, -1, 1) if call.get("channels_last", 0) else x)
for _name in ("MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"):
    rule(f"~nchwc.{_name}")(RULES[_name])


# Products with weights of a few bits, embeddings, biases.


@rule("~MatMulNBits", "~MatMulBnb4")
def _few_bits(call: Call, x: Array) -> Array:
    bias, inner, outer = call.optional(5), call.get("K", 0), call.get("N", 0)
    require(x.shape[-1:] == (inner,) and outer > 0, f"K and N must fit {x.shape}, got {inner} and {outer}")
    weight = replace(call.input(1).weight, shape=(inner, outer))
    made = _spell(call, "MatMul", x, weight)
    return made if bias is None else _spell(call, "Add", made, bias)


@rule("~EmbedLayerNormalization")
def _embedded(call: Call, numbers: Array) -> tuple[Array, ...]:
    """Return the norm of embeddings added, of a word, its place and its segment; the lengths; the sum."""
    words = call.input(2)
    shape = (*numbers.shape, words.shape[-1])
    tables = [words, *(each for each in (call.input(3), call.optional(4)) if each is not None)]
    made = [call.move(shape, None, numbers, table, part=part) for part, table in enumerate(tables)]
    total = call.elementwise(tuple(made), ops.Add)
    normed = _spell(call, "LayerNormalization", total, call.input(5), call.input(6))
    return normed, call.sourced(numbers.shape[:1]), total


@rule("~BiasSplitGelu")
def _gated(call: Call) -> Array:
    """Return the first half of a sum times gelu of the second."""
    total = _spell(call, "Add", call.input(), call.input(1))
    shape = (*total.shape[:-1], total.shape[-1] // 2)
    one, other = (call.move(shape, None, total, part=part) for part in (0, 1))
    return _spell(call, "Mul", one, _spell(call, "Gelu", other))


@rule("~CropAndResize")
def _crops(call: Call, x: Array, boxes: Array) -> Array:
    shape = (*boxes.shape[:1], *x.shape[1:2], *call.fixed(3, "size"))
    return onnx_layers.sample(call, shape, 4, x, boxes)


@rule("~DynamicQuantizeLSTM")
def _quantised_lstm(call: Call) -> Array | tuple[Array, ...]:
    """Return what an LSTM makes, whose weights are turned."""
    x, *weights = call.inputs[:8]
    turned = [replace(each, shape=(each.shape[0], *each.shape[:0:-1])) for each in weights[:2] if each]
    return RULES["LSTM"](replace(call, operator="LSTM", inputs=(x, *turned, *weights[2:])))


rule("~BiasAdd", "~BiasDropout")(lambda call: call.elementwise(call.given()[:3], ops.Add))
rule("~QLinearWhere")(lambda call, chosen, x: _spell(call, "Where", chosen, x, call.input(4)))
RULES["SimplifiedLayerNormalization"] = lambda call: _spell(call, "RMSNormalization", *call.inputs)
rule("~Unique")(RULES["Unique"])
rule("~GridSample")(RULES["GridSample"])
