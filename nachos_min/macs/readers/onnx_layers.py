"""Rules of ONNX operators that compute: convolutions, pools, products, norms, reductions, element-wise operators.

A Gemm with constant weights is a linear layer. A MatMul and the Add after it stay a product and a sum. Scale and
shift of a norm are trained if they are initialisers; running means and variances are measured.

Source: the ONNX operator reference.
"""

from dataclasses import replace
from functools import partial, reduce
from math import prod
from typing import Any, Final

import numpy as np

from nachos_min.macs import ops
from nachos_min.macs.readers import products
from nachos_min.macs.readers.builder import array_shape, channels_last, maps, require, rows
from nachos_min.macs.readers.names import ACTIVATIONS, POINTWISE, REDUCTIONS
from nachos_min.macs.readers.onnx_call import RULES, Array, Call, Fold, checked_axes, integers, layer_weights, rule
from nachos_min.macs.readers.onnx_file import DTYPES, Values
from nachos_min.macs.record import Operator, Shape

_SAME = ("SAME_UPPER", "SAME_LOWER")
_AUTO_PAD = ("NOTSET", "VALID", *_SAME)


# Windows.


def _map(x: Array) -> tuple[int, Shape]:
    return maps(x.shape, len(x.shape) - 2)


def _windowed(call: Call, op: Operator, x: Array, *weights: Array | None) -> Array:
    """Return what a record of windows over `x` makes, channels first."""
    *lengths, channels = op.output
    return call.add(op, (x,), (x.shape[0], channels, *lengths), x.shape[0], layer_weights(*weights))


@rule("Conv", "ConvTranspose")
def _convolution(call: Call, x: Array, weight: Array, bias: Array | None = None) -> Array:
    (_, image), kernel, groups = _map(x), weight.shape[2:], call.get("group", 1)
    fits = len(weight.shape) == len(x.shape) and 0 not in weight.shape
    require(fits, f"weights must have {len(x.shape)} axes, got {weight.shape}")
    stated = call.get("kernel_shape", kernel)
    require(stated == kernel, f"kernel_shape must be that of weights {weight.shape}, got {stated}")
    inner, outer = weight.shape[1] * groups, weight.shape[0]
    transposed = call.operator == "ConvTranspose"
    fits = image[-1] == (outer if transposed else inner)
    require(fits, f"weights {weight.shape} in {groups} groups must fit {image[-1]} channels")
    stride, dilation = _each_axis(call, "strides", x), _each_axis(call, "dilations", x)
    settings = (dilation, groups, bias is not None)
    op: ops.Conv | ops.ConvTranspose
    if transposed:
        extra = _each_axis(call, "output_padding", x, 0)
        op = _cropped(call, ops.ConvTranspose(image, inner, kernel, stride, (), *settings, output_padding=extra), x)
    else:
        op = ops.Conv(image, outer, kernel, stride, _around(call, x, kernel, stride, dilation), *settings)
    wanted = (op.out_channels,)
    require(bias is None or bias.shape == wanted, f"the bias must have shape {wanted}, got {bias and bias.shape}")
    return _windowed(call, op, x, weight, bias)


@rule("MaxPool", "AveragePool", "LpPool")
def _pool(call: Call, x: Array) -> tuple[Array, Array]:
    """Return what a pool makes, and as many places of its maxima; a sum of powers is a mean but for a factor."""
    _, image = _map(x)
    require("kernel_shape" in call.attributes, f"attribute 'kernel_shape' must be given, got none for {image}")
    size, stride, dilation = (_each_axis(call, name, x) for name in ("kernel_shape", "strides", "dilations"))
    kind = ops.MaxPool if call.operator == "MaxPool" else ops.AvgPool
    padding, ceil = _around(call, x, size, stride, dilation), call.get("ceil_mode", 0) != 0
    made = _windowed(call, kind(image, size, stride, padding, dilation, ceil), x)
    return made, made


@rule("GlobalAveragePool", "GlobalMaxPool")
def _global_pool(call: Call, x: Array) -> Array:
    kind = ops.AdaptiveMaxPool if call.operator == "GlobalMaxPool" else ops.AdaptiveAvgPool
    return _windowed(call, kind(_map(x)[1], (1,) * (len(x.shape) - 2)), x)


def _each_axis(call: Call, name: str, x: Array, default: int = 1) -> Shape:
    axes = len(x.shape) - 2
    return integers(f"attribute {name!r}", call.get(name, (default,) * axes), axes, default)


def _around(call: Call, x: Array, kernel: Shape, stride: Shape, dilation: Shape) -> Shape:
    """Return the padding of a sliding window; by the word SAME it leaves ceil(length / stride) positions."""
    sizes = zip(x.shape[2:], kernel, stride, dilation, strict=True)
    return _padding(call, [(-(-n // step) - 1) * step + d * (window - 1) + 1 - n for n, window, step, d in sizes])


def _cropped(call: Call, op: ops.ConvTranspose, x: Array) -> ops.ConvTranspose:
    """Return the record with the padding that leaves the output its stated size.

    Where even the uncropped output is too small, a stated size adds output padding, as in ONNX Runtime.
    """
    axes = len(x.shape) - 2
    stated: Shape = call.get("output_shape", ())[-axes:]
    stated = stated and integers("attribute 'output_shape'", stated, axes, 1)
    wanted = stated or tuple(length * step for length, step in zip(x.shape[2:], op.stride, strict=True))
    surplus = [made - length for made, length in zip(op.output, wanted, strict=False)]
    extra = op.output_padding
    if stated:
        extra = tuple(added + max(0, -each) for added, each in zip(extra, surplus, strict=True))
    return replace(op, padding=_padding(call, surplus, bool(stated)), output_padding=extra)


def _padding(call: Call, surplus: list[int], halved: bool = False) -> Shape:
    """Return zeros before and after on each axis: what the file states, or halves of the surplus.

    The word SAME asks for halves, too; SAME_UPPER puts an odd one after.
    """
    word, axes = call.get("auto_pad", "NOTSET"), len(surplus)
    require(word in _AUTO_PAD, f"attribute 'auto_pad' must be one of {', '.join(_AUTO_PAD)}, got {word[:40]!r}")
    if halved or word in _SAME:
        smaller = [max(0, each) // 2 for each in surplus]
        sides = [(each, max(0, whole) - each) for each, whole in zip(smaller, surplus, strict=True)]
        return tuple(n for pair in sides for n in (pair if word == "SAME_UPPER" else pair[::-1]))
    none = (0,) * 2 * axes
    pads = none if word == "VALID" else integers("attribute 'pads'", call.get("pads", none), 2 * axes, 0)
    return tuple(pads[place] for axis in range(axes) for place in (axis, axis + axes))


# Products.


def _product(call: Call, left: Array, right: Array) -> Array:
    """Return a product of two arrays; one of a single axis is a row on the left, a column on the right."""
    row, column = len(left.shape) == 1, len(right.shape) == 1
    a, b = (1, *left.shape) if row else left.shape, (*right.shape, 1) if column else right.shape
    op = ops.MatMul(array_shape(a), array_shape(b))
    *outer, height, width = op.output
    shape = (*outer, *(() if row else (height,)), *(() if column else (width,)))
    return call.add(op, (left, right), shape)


@rule("Gemm")
def _gemm(call: Call, left: Array, right: Array, bias: Array | None = None) -> Array:
    """Return alpha * A @ B + beta * C, a linear layer if B is constant, C its bias, and both factors are 1."""
    flat = len(left.shape) == len(right.shape) == 2
    require(flat, f"A and B must have 2 axes, got {left.shape} and {right.shape}")
    a = left.shape[::-1] if call.get("transA", 0) else left.shape
    inner, features = right.shape[::-1] if call.get("transB", 0) else right.shape
    require(a[1] == inner, f"inner lengths must be equal, got {a} times {(inner, features)}")
    alpha, beta = call.get("alpha", 1.0), call.get("beta", 1.0)
    if beta == 0:
        bias = None
    row = bias is None or (bias.constant and bias.elements == features and bias.shape[-1:] == (features,))
    shape = (a[0], features)
    if right.constant and row and alpha == 1 and (beta == 1 or bias is None):
        op = ops.Linear((inner,), features, bias is not None)
        return call.add(op, (left,), shape, a[0], layer_weights(right, bias))
    made = call.add(ops.MatMul(a, (inner, features)), (left, right), shape)
    if alpha != 1:
        made = call.elementwise((made,), ops.Multiply)
    if bias is not None:
        made = call.elementwise((made, bias if beta == 1 else call.elementwise((bias,), ops.Multiply)), ops.Add)
    require(made.shape == shape, f"C must broadcast to {shape}, got {made.shape}")
    return made


@rule("Einsum")
def _einsum(call: Call) -> Array:
    """Return an Einstein sum; more than two arrays are multiplied from left to right, as in ONNX Runtime."""
    arrays, equation = call.given(), call.get("equation", "").replace(" ", "")
    shapes = tuple(array.shape for array in arrays)
    return call.run(products.einsum(equation, arrays, shapes, ones=True))[-1]


# Norms and reductions.


@rule("BatchNormalization", "InstanceNormalization", "GroupNormalization")
def _channel_norm(call: Call, x: Array, scale: Array, shift: Array) -> Array:
    """Return a norm with scale and shift per channel; up to operator set 20, GroupNormalization's are per group."""
    batch, sample = channels_last(x.shape)
    make: Any = partial(ops.GroupNorm, groups=call.get("num_groups", 0))
    if call.operator != "GroupNormalization":
        make = ops.BatchNorm if call.operator == "BatchNormalization" else ops.InstanceNorm
    statistics = (call.input(3), call.input(4)) if make is ops.BatchNorm else ()
    each = (call.get("num_groups", 0),) if call.opset < 21 and "num_groups" in call.attributes else sample[-1:]
    for array in (scale, shift, *statistics):
        fits = array.shape in (each, sample[-1:])  # PyTorch's exporter writes one for each channel at any time
        require(fits, f"scale and shift must have one number for each channel of {x.shape}, got {array.shape}")
    affine = scale.trained and scale.shape == sample[-1:]
    return call.add(make(sample, affine=affine), (x,), x.shape, batch, (scale, shift))


@rule("LayerNormalization", "RMSNormalization")
def _layer_norm(call: Call, x: Array, scale: Array, shift: Array | None = None) -> Array:
    axis = call.axis(-1, len(x.shape))
    batch, sample = rows(x.shape) if axis else (1, x.shape)
    parameters = (scale,) if shift is None else (scale, shift)
    full = [array.trained and array.elements == prod(x.shape[axis:]) for array in parameters]
    op = ops.LayerNorm(sample, len(x.shape) - axis, affine=full[0], bias=full[-1] and shift is not None)
    return call.add(op, (x,), x.shape, batch, parameters)


_REDUCTION_FOLDS = {"ReduceSum": np.sum, "ReduceMax": np.max, "ReduceMin": np.min, "ReduceProd": np.prod}


@rule("ArgMax", "ArgMin", *(name for name in REDUCTIONS if name.startswith("Reduce")))
def _reduction(call: Call, x: Array) -> Array:
    """Return a mean, sum or other reduction; its axes are an attribute or, in newer operator sets, an input."""
    axes = (call.get("axis", 0),) if call.operator.startswith("Arg") else call.setting("axes", 1, ())
    if not axes and call.get("noop_with_empty_axes", 0):
        return x
    keep = call.get("keepdims", 1) != 0
    gone = checked_axes(axes, len(x.shape)) or tuple(range(len(x.shape)))
    kept = tuple(1 if axis in gone else n for axis, n in enumerate(x.shape) if keep or axis not in gone)
    fold: Any = _REDUCTION_FOLDS.get(call.operator)
    if fold is not None and x.values is not None and not x.trained:
        return call.move(kept, lambda values: fold(values, axis=gone, keepdims=keep), x)
    op = ops.Reduce(array_shape(x.shape), array_shape(kept), REDUCTIONS[call.operator])
    return call.add(op, (x,), kept)


@rule("Softmax", "LogSoftmax", "Hardmax")
def _softmax(call: Call, x: Array) -> Array:
    """Return exponentials over their sum along `axis`; up to operator set 12, over all axes from it on."""
    old = call.opset < 13
    axis = call.axis(1 if old else -1, len(x.shape))
    features = prod(x.shape[axis:] if old else x.shape[axis : axis + 1])
    batch, sample = rows(x.shape) if axis or len(x.shape) == 1 else (1, x.shape)
    return call.add(ops.Softmax(sample, features), (x,), x.shape, batch)


# Recurrent layers.

_CELLS = {"LSTM": (4, b"Sigmoid Tanh Tanh"), "GRU": (3, b"Sigmoid Tanh"), "RNN": (1, b"Tanh")}


@rule("LSTM", "GRU", "RNN")
def _recurrent(call: Call, x: Array, weights: Array, again: Array) -> tuple[Array, ...]:
    """Return all states and the last ones of each direction; sequences of known lengths are counted by those."""
    axes = len(x.shape) == len(weights.shape) == len(again.shape) == 3
    require(axes, f"input and weights must have 3 axes, got {x.shape}, {weights.shape}, {again.shape}")
    by_sample = call.get("layout", 0) != 0
    samples, length = x.shape[:2] if by_sample else x.shape[1::-1]
    directions, gates, hidden = again.shape
    twice = call.get("direction", "forward") == "bidirectional"
    fits = (directions, gates) == (1 + twice, _CELLS[call.operator][0] * hidden)
    fits &= weights.shape == (directions, gates, x.shape[2])
    require(fits, f"weights must fit {x.shape}, got {weights.shape} and {again.shape}")
    words, kind = b" ".join(call.attribute("activations", bytes, ())), call.operator.lower()
    if kind == "rnn":
        kind = "rnn_relu" if words and set(words.split()) == {b"Relu"} else "rnn_tanh"
    usual = b" ".join([_CELLS[call.operator][1]] * directions)
    require(words in (b"", usual) or kind == "rnn_relu", f"activations must be {usual!r}, got {words[:99]!r}")
    batch, steps = samples, length
    if call.optional(4) is not None:
        batch, steps = 1, sum(call.fixed(4, "sequences' lengths"))
        x = call.move((steps, x.shape[2]), None, x)
    bias, slopes = call.optional(3), call.optional(7)
    op = ops.Recurrent((steps, x.shape[-1]), kind, hidden, biases=0 if bias is None else 2)
    own = layer_weights(weights, again, bias)
    made = [call.add(op, (x,), (batch, steps, hidden), batch, own) for _ in range(directions)]
    for part in range(3 * directions if slopes is not None else 0):  # of input, output and forget gate
        state, gate = made[part % directions], call.move((hidden,), None, call.input(7), part=part)
        call.elementwise((state, call.elementwise((state, gate), ops.Multiply)), ops.Add)
    last = (samples, directions, hidden) if by_sample else (directions, samples, hidden)
    shape = (samples, length, *last[1:]) if by_sample else (length, *last)
    states = [state.shape for state in map(call.optional, (5, 6)) if state is not None]
    require(all(state == last for state in states), f"first states must have shape {last}, got {states}")
    whole = call.move(shape, None, *made)
    return whole, *(call.move(last, None, whole) for _ in range(1, call.outputs))


# Values between pixels, and Fourier transforms.


@rule("GridSample")
def _grid_sample(call: Call, x: Array, grid: Array) -> Array:
    mode = call.get("mode", "linear")
    axes = len(x.shape) - 2
    fits = len(grid.shape) == len(x.shape) > 2 and (grid.shape[0], grid.shape[-1]) == (x.shape[0], axes)
    require(fits, f"places must fit {x.shape}, got {grid.shape}")
    shape = (*x.shape[:2], *grid.shape[1:-1])
    if mode == "nearest":
        return call.move(shape, None, x, grid)
    require(mode in _TAPS, f"attribute 'mode' must be one of {', '.join(_TAPS)}, got {mode[:40]!r}")
    return _sample(call, shape, _TAPS[mode] ** axes, x, grid)


def _sample(call: Call, shape: Shape, taps: int, *arrays: Array) -> Array:
    """Return values between pixels, each a sum of so many products."""
    return call.add(ops.Sample(tuple(array_shape(each.shape) for each in arrays), shape, taps), arrays, shape)


_TAPS = {"linear": 2, "bilinear": 2, "cubic": 4, "bicubic": 4}  # along each axis


@rule("RoiAlign")
def _roi_align(call: Call, x: Array, boxes: Array) -> Array:
    """Return the mean or largest of bilinear points in each cell; `sampling_ratio` of them along each axis."""
    each = call.get("sampling_ratio", 0)
    require(len(x.shape) == 4, f"must read a map of two axes, got {x.shape}")
    require(each > 0, f"sampling_ratio must be fixed, or the number of points depends on the data, got {each}")
    shape = (*boxes.shape[:1], x.shape[1], call.get("output_height", 1), call.get("output_width", 1))
    return _sample(call, shape, 4 * each * each, x, boxes)


@rule("AffineGrid")
def _affine_grid(call: Call, theta: Array) -> Array:
    """Return theta times each place of a map."""
    size = call.fixed(1, "size")
    places = call.unknown((prod(size[2:]), len(size) - 1))
    fits = theta.shape == (*size[:1], len(size) - 2, len(size) - 1)
    require(fits, f"theta must fit maps {size[:8]}, got {theta.shape}")
    turned = call.move((theta.shape[0], theta.shape[2], theta.shape[1]), None, theta)
    return replace(_product(call, places, turned), shape=(*size[:1], *size[2:], len(size) - 2))


@rule("DeformConv")
def _deformed(
    call: Call, x: Array, weight: Array, offset: Array, bias: Array | None = None, mask: Array | None = None
) -> Array:
    """Return a convolution of values between pixels: of one column for each position, 4 products a value."""
    groups = call.get("group", 1)
    axes = len(x.shape) == len(weight.shape) == len(offset.shape) == 4
    require(axes, f"a map and its weights must have 4 axes, got {x.shape}, {weight.shape}, {offset.shape}")
    taps, positions = prod(weight.shape[2:]), offset.shape[2:]
    fits = weight.shape[1] * groups == x.shape[1]
    require(fits, f"weights {weight.shape} in {groups} groups must fit {x.shape[1]} channels")
    columns = _sample(call, (x.shape[0], x.shape[1] * taps, *positions), 4, x, offset)
    if mask is not None:
        call.elementwise((mask,), ops.Multiply)
    image = (*positions, x.shape[1] * taps)
    op = ops.Conv(image, weight.shape[0], (1, 1), groups=groups, bias=bias is not None)
    return _windowed(call, op, columns, weight, bias)


@rule("DFT")
def _fourier(call: Call, x: Array) -> Array:
    """Return Fourier transforms along an axis; the last axis has real and imaginary parts."""
    axes = len(x.shape)
    require(axes >= 2 and x.shape[-1] in (1, 2), f"the last axis must be real and imaginary parts, got {x.shape}")
    axis = checked_axes((call.get("axis", 1),) if call.opset < 20 else call.setting("axis", 2, (-2,)), axes)[0]
    half, inverse = call.get("onesided", 0) != 0, call.get("inverse", 0) != 0
    length = call.setting("length", 1, (2 * (x.shape[axis] - 1) if half and inverse else x.shape[axis],))[0]
    whole = (*x.shape[:axis], length, *x.shape[axis + 1 : -1])
    kept = length // 2 + 1 if half and not inverse else length
    shape = (*x.shape[:axis], kept, *x.shape[axis + 1 : -1], 1 if half and inverse else 2)
    return _transformed(call, call.move(whole, None, x), length, shape)


def _transformed(call: Call, x: Array, length: int, shape: Shape) -> Array:
    made = call.add(ops.Transform(array_shape(x.shape), length), (x,), x.shape)
    return call.move(shape, None, made)


@rule("STFT")
def _short_fourier(call: Call, x: Array) -> Array:
    """Return Fourier transforms of overlapping frames of a signal (N, L, 1 or 2)."""
    step, window = call.fixed(1, "step")[0], call.optional(2)
    length = call.setting("frame_length", 3, (0 if window is None else window.elements,))[0]
    frames = (x.shape[1] - length) // step + 1 if len(x.shape) in (2, 3) and step > 0 else 0
    require(length > 0 and frames > 0, f"frames of {length} every {step} must fit the signal, got {x.shape}")
    made = call.move((x.shape[0], frames, length), None, x)
    if window is not None:
        made = call.elementwise((made, window), ops.Multiply)
    kept = length // 2 + 1 if call.get("onesided", 1) else length
    return _transformed(call, made, length, (x.shape[0], frames, kept, 2))


# Element-wise operators. Those that exported shape arithmetic uses have a NumPy form.


def _quotient(a: Values, b: Values) -> Values:
    """Return a / b; of integers the quotient without its fraction, as ONNX has it."""
    if a.dtype.kind not in "iu":
        return np.asarray(np.divide(a, b))
    if not np.all(b):
        raise ArithmeticError
    return np.asarray(np.sign(a) * np.sign(b) * (np.abs(a) // np.abs(b)))


def _as(values: Values, dtype: Any) -> Values:
    """Return values in another type; ArithmeticError for an integer of what is no number."""
    if np.dtype(dtype).kind in "iu" and not np.all(np.isfinite(values)):
        raise ArithmeticError
    return values.astype(dtype)


def _all(pair: Any) -> Fold:
    return lambda *arrays: reduce(pair, arrays)


# fmt: off
_FOLDS: Final[dict[str, Fold]] = {
    "Sub": np.subtract, "Div": _quotient, "Pow": lambda a, b: _as(np.power(a, b), a.dtype),
    "Sqrt": np.sqrt, "Neg": np.negative, "Abs": np.abs,
    "Sign": np.sign, "Reciprocal": np.reciprocal, "Floor": np.floor, "Ceil": np.ceil, "Round": np.round,
    "Min": _all(np.minimum), "Max": _all(np.maximum), "Where": np.where, "Not": np.logical_not,
    "And": np.logical_and, "Or": np.logical_or, "Xor": np.logical_xor, "Equal": np.equal, "Less": np.less,
    "LessOrEqual": np.less_equal, "Greater": np.greater, "GreaterOrEqual": np.greater_equal,
}
# fmt: on


@rule("Clip")
def _clip(call: Call, x: Array) -> Array:
    """Return a clip, which from 0 to 6 is relu6; older operator sets have the bounds as attributes."""
    bounds: list[Any] = []
    for index, name in ((1, "min"), (2, "max")):
        array = call.optional(index)
        bound = call.get(name, 0.0) if array is None and name in call.attributes else None
        if array is not None and array.values is not None and array.values.size:
            bound = array.values.ravel()[0].item()
        bounds.append(bound)
    if bounds == [0, 6]:
        return call.activation(x, "relu6")
    known = all(each is None or each.values is not None for each in map(call.optional, (1, 2)))
    return call.pointwise("clamp", (x,), (lambda each: np.clip(each, *bounds)) if known else None)


@rule("Cast", "CastLike")
def _cast(call: Call, x: Array) -> Array:
    dtype = DTYPES.get(call.get("to", 0))
    if call.operator == "CastLike" and (like := call.input(1).values) is not None:
        dtype = like.dtype.str
    if x.constant:
        return call.move(x.shape, None if dtype is None else lambda values: _as(values, dtype), x)
    return call.pointwise("cast", (x,))


@rule("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear")
def _quantize(call: Call, x: Array) -> Array | tuple[Array, ...]:
    """Return an array in a coarser or a finer type; the constants of a quantised file are weights."""
    if x.constant:
        return Array(x.shape, None, None, x.key, trained=x.shape != ())
    made = call.pointwise("dequantize" if call.operator == "DequantizeLinear" else "quantize", (x,))
    if call.operator != "DynamicQuantizeLinear":
        return made
    return made, call.sourced(()), call.sourced(())  # its scale and zero point, found as it runs


def _pointwise(call: Call, kind: str, fold: Fold | None = None) -> Array:
    arrays = call.given()[:1] if call.operator.startswith("Cum") else call.given()  # axes are no operand
    return call.pointwise(kind, arrays, fold)


for _name in (name for name in ACTIVATIONS if name[0].isupper()):
    RULES[_name] = lambda call: call.activation(call.input(), ACTIVATIONS[call.operator])
for _name in (name for name in POINTWISE if name[0].isupper()):
    RULES[_name] = lambda call: _pointwise(call, POINTWISE[call.operator], _FOLDS.get(call.operator))
RULES["Mod"] = lambda call: _pointwise(call, "mod", np.fmod if call.get("fmod", 0) else np.mod)
RULES["Add"] = RULES["Sum"] = lambda call: call.elementwise(call.given(), ops.Add, _all(np.add))
RULES["Mul"] = lambda call: call.elementwise(call.given(), ops.Multiply, _all(np.multiply))
rule("SwiGLU")(lambda call, x, other: call.elementwise((call.activation(x, "silu"), other), ops.Multiply))
rule("PRelu")(lambda call, x, slopes: call.activation(x, "prelu", (slopes.weight,)))
rule("MatMul")(_product)
