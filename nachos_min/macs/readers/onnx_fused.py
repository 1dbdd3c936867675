"""Rules of operators that ONNX Runtime writes into files that it has optimised or quantised.

Each is spelt out in ONNX's own operators, whose rules run. Scales and zero points are no operands.

Source: ONNX Runtime, ContribOperators.md.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from nachos_min.macs import ops
from nachos_min.macs.readers import onnx_layers, onnx_moves
from nachos_min.macs.readers.builder import quoted, require
from nachos_min.macs.readers.names import ACTIVATIONS
from nachos_min.macs.readers.onnx_call import RULES, Array, Call, Rule
from nachos_min.macs.readers.onnx_file import Values

_NEEDED = (onnx_layers, onnx_moves)  # files whose rules are used here
_OURS = "com.microsoft."
# Operator -> ONNX's operator that does the same, and which of its inputs that reads.
_SPELT: dict[str, tuple[str, slice]] = {
    "Gelu": ("Gelu", slice(1)),
    "QuantizeLinear": ("QuantizeLinear", slice(3)),
    "DequantizeLinear": ("DequantizeLinear", slice(3)),
    "QLinearAdd": ("Add", slice(0, 4, 3)),
    "QLinearMul": ("Mul", slice(0, 4, 3)),
    "QLinearSigmoid": ("Sigmoid", slice(1)),
    "QLinearLeakyRelu": ("LeakyRelu", slice(1)),
    "QLinearSoftmax": ("Softmax", slice(1)),
    "QLinearReduceMean": ("ReduceMean", slice(1)),
    "QLinearAveragePool": ("AveragePool", slice(1)),
    "QLinearGlobalAveragePool": ("GlobalAveragePool", slice(1)),
    "QLinearConcat": ("Concat", slice(2, None, 3)),
    "QGemm": ("Gemm", slice(0, 7, 3)),
}


def _spell(call: Call, operator: str, *inputs: Array | None) -> Array:
    """Return what an operator of ONNX makes of the inputs; the whole is read by the same attributes."""
    part = f"{call.key}/{operator}"
    made = RULES[operator](replace(call, operator=operator, key=part, inputs=inputs, outputs=1))
    return made if isinstance(made, Array) else made[0]


def _same(name: str) -> Rule:
    operator, places = _SPELT[name]

    def run(call: Call) -> Array:
        require(not call.get("channels_last", 0), f"no rule for {name} with channels last")
        inputs = call.inputs[places]
        if operator in ("Add", "Mul", "Concat"):  # a constant of whole numbers was rounded after training
            inputs = tuple(each.weight if each and each.constant and each.shape else each for each in inputs)
        return _spell(call, operator, *inputs)

    return run


RULES.update({_OURS + name: _same(name) for name in _SPELT})


def _fused(*operators: str) -> Callable[[Rule], Rule]:
    """Return a decorator that makes a function the rule of operators of ONNX Runtime."""

    def register(function: Rule) -> Rule:
        RULES.update({_OURS + operator: function for operator in operators})
        return function

    return register


@_fused("FusedConv", "FusedGemm")
def _then_activation(call: Call) -> Array:
    """Return a convolution, with an array added if there is a fourth input, or a Gemm, and an activation."""
    made = _spell(call, call.operator.removeprefix("Fused"), *call.inputs[:3])
    if (added := call.optional(3)) is not None:
        made = _spell(call, "Add", made, added)
    word, bounds = call.get("activation", ""), list(call.attribute("activation_params", list, ()))
    if word == "Clip":
        clamp = partial(ops.Pointwise, kind="clamp")
        return call.activation(made, "relu6") if bounds == [0, 6] else call.elementwise((made,), clamp)
    require(word in {"", *ACTIVATIONS}, f"attribute 'activation' must be one of ONNX's, got {quoted(word)}")
    return call.activation(made, ACTIVATIONS[word]) if word else made


@_fused("FusedMatMul")
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
        turn = partial(_transposed, order=order)
        arrays.append(array if shape == array.shape else call.move(shape, turn, array, part=place))
    made = _spell(call, "MatMul", *arrays)
    return made if call.get("alpha", 1.0) == 1 else call.elementwise((made,), ops.Multiply)


def _transposed(values: Values, order: list[int]) -> Values:
    return values.transpose(order)


@_fused("SkipLayerNormalization", "SkipSimplifiedLayerNormalization")
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


@_fused("BiasGelu", "FastGelu", "BiasSoftmax")
def _of_sum(call: Call) -> Array:
    x, bias = call.input(), call.optional(1)
    total = x if bias is None else _spell(call, "Add", x, bias)
    return _spell(call, "Softmax" if call.operator == "BiasSoftmax" else "Gelu", total)


@_fused("QuickGelu")
def _sigmoid_gate(call: Call) -> Array:
    """Return x * sigmoid(alpha * x)."""
    x, alpha = call.input(), call.get("alpha", 1.702)
    if alpha == 1:
        return call.activation(x, "silu")
    gate = call.activation(call.elementwise((x,), ops.Multiply), "sigmoid")
    return _spell(call, "Mul", x, gate)


@_fused("DynamicQuantizeMatMul", "MatMulIntegerToFloat")
def _integer_product(call: Call) -> Array:
    """Return a product of integers as floating point numbers, with a bias added."""
    dynamic = call.operator == "DynamicQuantizeMatMul"
    x = call.elementwise((call.input(),), partial(ops.Pointwise, kind="quantize")) if dynamic else call.input()
    made, bias = _spell(call, "MatMulInteger", x, call.input(1)), call.optional(4 if dynamic else 6)
    made = call.elementwise((made,), partial(ops.Pointwise, kind="dequantize"))
    return made if bias is None else _spell(call, "Add", made, bias)


@_fused("QLinearWhere")
def _choice(call: Call) -> Array:
    return _spell(call, "Where", call.input(), call.input(1), call.input(4))


RULES["SimplifiedLayerNormalization"] = lambda call: _spell(call, "RMSNormalization", *call.inputs)
