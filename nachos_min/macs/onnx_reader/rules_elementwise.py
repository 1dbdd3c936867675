"""Rules of the operators that treat every element alike: activations, sums, products, comparisons, casts.

Read `call.py` first. The operators that exported shape arithmetic uses have their NumPy form beside them, so
that they can be carried out on constants.
"""

from collections.abc import Callable
from functools import partial, reduce
from typing import Any, Final

import numpy as np

from nachos_min.macs.onnx_reader.arrays import DTYPES, Array, Values
from nachos_min.macs.onnx_reader.assembly import rows
from nachos_min.macs.onnx_reader.call import Call, Fold
from nachos_min.macs.ops import Add, Multiply, Pointwise, Softmax
from nachos_min.macs.record import CountError

ACTIVATIONS: Final = {
    "Relu": "relu",
    "LeakyRelu": "leaky_relu",
    "Elu": "elu",
    "Selu": "selu",
    "Celu": "celu",
    "Gelu": "gelu",
    "Mish": "mish",
    "Swish": "silu",
    "Sigmoid": "sigmoid",
    "HardSigmoid": "hsigmoid",
    "HardSwish": "hswish",
    "Tanh": "tanh",
    "Softplus": "softplus",
    "Softsign": "softsign",
    "ThresholdedRelu": "thresholded_relu",
    "Shrink": "shrink",
}


def _quotient(a: Values, b: Values) -> Values:
    """Return a / b; of whole numbers the quotient without its fraction, as ONNX has it."""
    if a.dtype.kind not in "iu":
        return np.asarray(np.divide(a, b))
    if not np.all(b):
        raise ArithmeticError
    return np.asarray(np.sign(a) * np.sign(b) * (np.abs(a) // np.abs(b)))


def _all(pair: Callable[[Any, Any], Any]) -> Fold:
    return lambda *arrays: reduce(pair, arrays)


# operator -> (kind, NumPy form if exported shape arithmetic uses it)
_FOLDED: Final[dict[str, tuple[str, Fold | None]]] = {
    "Sub": ("sub", np.subtract),
    "Div": ("div", _quotient),
    "Pow": ("pow", np.power),
    "Sqrt": ("sqrt", np.sqrt),
    "Neg": ("neg", np.negative),
    "Abs": ("abs", np.abs),
    "Sign": ("sign", np.sign),
    "Reciprocal": ("reciprocal", np.reciprocal),
    "Floor": ("floor", np.floor),
    "Ceil": ("ceil", np.ceil),
    "Round": ("round", np.round),
    "Min": ("min", _all(np.minimum)),
    "Max": ("max", _all(np.maximum)),
    "Where": ("where", np.where),
    "Not": ("logic", np.logical_not),
    "And": ("logic", np.logical_and),
    "Or": ("logic", np.logical_or),
    "Xor": ("logic", np.logical_xor),
    "Equal": ("compare", np.equal),
    "Less": ("compare", np.less),
    "LessOrEqual": ("compare", np.less_equal),
    "Greater": ("compare", np.greater),
    "GreaterOrEqual": ("compare", np.greater_equal),
}
_OTHERS = """Exp Log Erf Sin Cos Tan Asin Acos Atan Sinh Cosh Asinh Acosh Atanh IsNaN IsInf LRN Mean LpNormalization
    BitShift BitwiseAnd BitwiseOr BitwiseXor BitwiseNot"""
_UNFOLDED: Final[dict[str, tuple[str, Fold | None]]] = {each: (each.lower(), None) for each in _OTHERS.split()}
POINTWISE: Final = _FOLDED | _UNFOLDED


def activation(call: Call) -> tuple[Array, ...]:
    """Return an array through an activation without weights."""
    return (call.activation(call.input(), ACTIVATIONS[call.operator]),)


def prelu(call: Call) -> tuple[Array, ...]:
    """Return what PRelu makes; its slopes are trained."""
    return (call.activation(call.input(), "prelu", (call.input(1).weight,)),)


def clip(call: Call) -> tuple[Array, ...]:
    """Return what Clip makes: relu6 if its bounds are 0 and 6; older operator sets have them as attributes."""
    x = call.input()
    bounds: list[float | None] = []
    for index, attribute in ((1, "min"), (2, "max")):
        array = call.optional(index)
        if array is None:
            bounds.append(call.attributes.number(attribute, 0.0) if attribute in call.attributes else None)
        else:
            bounds.append(
                float(array.values.ravel()[0]) if array.values is not None and array.values.size else None
            )
    if bounds == [0, 6]:
        return (call.activation(x, "relu6"),)
    low, high = bounds
    return (call.elementwise((x,), partial(Pointwise, kind="clamp"), lambda values: np.clip(values, low, high)),)


def softmax(call: Call) -> tuple[Array, ...]:
    """Return what Softmax or LogSoftmax makes; up to operator set 12 over all axes from `axis` on."""
    x = call.input()
    axis = call.attributes.integer("axis", 1 if call.opset < 13 else -1)
    place = axis + len(x.shape) if axis < 0 else axis
    if not 0 <= place < len(x.shape):
        raise CountError(f"attribute 'axis' must name one of {len(x.shape)} axes, got {axis}")
    features = 1
    for length in x.shape[place:] if call.opset < 13 else x.shape[place : place + 1]:
        features *= length
    batch, sample = rows(x.shape)
    if place == 0 and len(x.shape) > 1:
        batch, sample = 1, x.shape
    return (call.add(Softmax(sample, features), (x,), x.shape, batch),)


def add(call: Call) -> tuple[Array, ...]:
    """Return what Add or Sum makes."""
    return (call.elementwise(call.given(), Add, _all(np.add)),)


def multiply(call: Call) -> tuple[Array, ...]:
    """Return an element-wise product."""
    return (call.elementwise(call.given(), Multiply, _all(np.multiply)),)


def pointwise(call: Call) -> tuple[Array, ...]:
    """Return arrays combined by any other element-wise operator."""
    kind, fold = POINTWISE[call.operator]
    return (call.elementwise(call.given(), partial(Pointwise, kind=kind), fold),)


def modulo(call: Call) -> tuple[Array, ...]:
    """Return a remainder, with the divisor's sign or, if `fmod` is set, the dividend's."""
    fold = np.fmod if call.attributes.integer("fmod", 0) else np.mod
    return (call.elementwise(call.given(), partial(Pointwise, kind="mod"), fold),)


def cumulative(call: Call) -> tuple[Array, ...]:
    """Return running sums or products along an axis."""
    kind = call.operator.lower()
    return (call.elementwise((call.input(),), partial(Pointwise, kind=kind)),)


def cast(call: Call) -> tuple[Array, ...]:
    """Return an array in another type; a constant stays what it was."""
    x = call.input()
    dtype = DTYPES.get(call.attributes.integer("to", 0))
    if call.operator == "CastLike" and (like := call.input(1).values) is not None:
        dtype = like.dtype.str
    if x.constant:
        return (call.move((x,), x.shape, None if dtype is None else lambda values: values.astype(dtype)),)
    return (call.elementwise((x,), partial(Pointwise, kind="cast")),)


def quantize(call: Call) -> tuple[Array, ...]:
    """Return an array in a coarser or a finer type; the constants of a quantised file are weights."""
    x = call.input()
    if x.constant:
        return (Array(x.shape, None, None, x.key, trained=x.shape != ()),)
    kind = "dequantize" if call.operator == "DequantizeLinear" else "quantize"
    made = call.elementwise((x,), partial(Pointwise, kind=kind))
    if call.operator != "DynamicQuantizeLinear":
        return (made,)
    return (made, call.sourced(()), call.sourced(()))  # its scale and zero point, found as it runs
