"""Rules of the operators that slide a window: convolutions, transposed convolutions, pools.

Read `call.py` first. One-dimensional windows become windows of height 1; three-dimensional ones have no record.
Source: the ONNX operator reference, Conv, ConvTranspose, MaxPool, AveragePool.
"""

from dataclasses import replace

from nachos_min.macs.axis import transposed_length
from nachos_min.macs.onnx_reader.arrays import Array
from nachos_min.macs.onnx_reader.assembly import maps
from nachos_min.macs.onnx_reader.call import Call
from nachos_min.macs.ops import AdaptiveAvgPool, AdaptiveMaxPool, AvgPool, Conv2d, ConvTranspose2d, MaxPool
from nachos_min.macs.record import CountError, Padding, Pair, Shape

_SAME = ("SAME_UPPER", "SAME_LOWER")
_AUTO_PAD = ("NOTSET", "VALID", *_SAME)


def conv(call: Call, weight_at: int = 1, bias_at: int = 2) -> tuple[Array, ...]:
    """Return what Conv makes; QLinearConv and ConvInteger have their weights at other inputs."""
    x, weight, bias = call.input(), call.input(weight_at), call.optional(bias_at)
    batch, image = maps(x.shape, call.operator)
    groups, kernel = _kernel(call, x, weight)
    if weight.shape[1] * groups != image[2]:
        raise CountError(f"weights {weight.shape} in {groups} groups must fit {image[2]} channels")
    stride, dilation = _pair(call, "strides", x), _pair(call, "dilations", x)
    op = Conv2d(
        input=image,
        out_channels=weight.shape[0],
        kernel=kernel,
        stride=stride,
        padding=_padding(call, x, kernel, stride, dilation),
        dilation=dilation,
        groups=groups,
        bias=bias is not None,
    )
    return (_convolved(call, op, x, batch, weight, bias),)


def conv_transpose(call: Call) -> tuple[Array, ...]:
    """Return what ConvTranspose makes; `output_shape` and SAME say the output's size, and the padding follows."""
    x, weight, bias = call.input(), call.input(1), call.optional(2)
    batch, image = maps(x.shape, call.operator)
    groups, kernel = _kernel(call, x, weight)
    if weight.shape[0] != image[2]:
        raise CountError(f"weights {weight.shape} must fit {image[2]} channels")
    stride, dilation = _pair(call, "strides", x), _pair(call, "dilations", x)
    op = ConvTranspose2d(
        input=image,
        out_channels=weight.shape[1] * groups,
        kernel=kernel,
        stride=stride,
        dilation=dilation,
        groups=groups,
        bias=bias is not None,
        output_padding=_pair(call, "output_padding", x, 0),
    )
    return (_convolved(call, _cropped(call, op, x), x, batch, weight, bias),)


def pool(call: Call) -> tuple[Array, ...]:
    """Return what MaxPool or AveragePool makes; the places of the maxima are not followed."""
    x = call.input()
    batch, image = maps(x.shape, call.operator)
    if "kernel_shape" not in call.attributes:
        raise CountError(f"attribute 'kernel_shape' must be given, got none for {image}")
    size, stride, dilation = (_pair(call, name, x) for name in ("kernel_shape", "strides", "dilations"))
    padding = _padding(call, x, size, stride, dilation)
    ceil = call.attributes.integer("ceil_mode", 0) != 0
    kind = MaxPool if call.operator == "MaxPool" else AvgPool
    op = kind(image, size, stride, padding, dilation, ceil)
    return (call.add(op, (x,), _channels_first(op.output, batch, x), batch),)


def global_pool(call: Call) -> tuple[Array, ...]:
    """Return what GlobalAveragePool or GlobalMaxPool makes."""
    x = call.input()
    batch, image = maps(x.shape, call.operator)
    kind = AdaptiveMaxPool if call.operator == "GlobalMaxPool" else AdaptiveAvgPool
    op = kind(image, (1, 1))
    return (call.add(op, (x,), _channels_first(op.output, batch, x), batch),)


def _convolved(
    call: Call, op: Conv2d | ConvTranspose2d, x: Array, batch: int, weight: Array, bias: Array | None
) -> Array:
    """Return what a convolution makes."""
    if bias is not None and bias.shape != (op.out_channels,):
        raise CountError(f"the bias must have shape ({op.out_channels},), got {bias.shape}")
    weights = (weight.weight,) if bias is None else (weight.weight, bias.weight)
    return call.layer(op, x, _channels_first(op.output, batch, x), batch, weights)


def _channels_first(output: Shape, batch: int, x: Array) -> Shape:
    height, width, channels = output
    return (batch, channels, height, width) if len(x.shape) == 4 else (batch, channels, width)


def _kernel(call: Call, x: Array, weight: Array) -> tuple[int, Pair]:
    """Return groups and the window of the weights, having held them against what the attributes say."""
    if len(weight.shape) != len(x.shape):
        raise CountError(f"weights must have {len(x.shape)} axes, got {weight.shape}")
    stated = call.attributes.integers("kernel_shape", weight.shape[2:])
    if stated != weight.shape[2:]:
        raise CountError(f"kernel_shape must be that of weights {weight.shape}, got {stated}")
    return call.attributes.integer("group", 1), _two(weight.shape[2:], 1)


def _two(values: tuple[int, ...], filling: int) -> Pair:
    return (values[0], values[1]) if len(values) == 2 else (filling, values[0])


def _pair(call: Call, name: str, x: Array, default: int = 1) -> Pair:
    """Return an attribute with one number per axis of the map, as (height, width)."""
    axes = len(x.shape) - 2
    values = call.attributes.integers(name, (default,) * axes)
    least = min(default, 1)
    if len(values) != axes or min(values) < least:
        raise CountError(f"attribute {name!r} must be {axes} integers >= {least}, got {values}")
    return _two(values, default)


def _auto_pad(call: Call) -> str:
    word = call.attributes.text("auto_pad", "NOTSET")
    if word not in _AUTO_PAD:
        raise CountError(f"attribute 'auto_pad' must be one of {', '.join(_AUTO_PAD)}, got {word[:40]!r}")
    return word


def _padding(call: Call, x: Array, kernel: Pair, stride: Pair, dilation: Pair) -> Padding:
    """Return (top, bottom, left, right) from `pads`, or as SAME asks for: ceil(length / stride) positions."""
    word = _auto_pad(call)
    if word not in _SAME:
        return _stated_padding(call, x) if word == "NOTSET" else (0, 0, 0, 0)
    _, image = maps(x.shape, call.operator)
    sides: list[int] = []
    for axis in (0, 1):
        positions = -(-image[axis] // stride[axis])
        reach = (positions - 1) * stride[axis] + dilation[axis] * (kernel[axis] - 1) + 1
        sides += _halves(max(0, reach - image[axis]), upper=word == "SAME_UPPER")
    return (sides[0], sides[1], sides[2], sides[3])


def _stated_padding(call: Call, x: Array) -> Padding:
    axes = len(x.shape) - 2
    pads = call.attributes.integers("pads", (0,) * (2 * axes))
    if len(pads) != 2 * axes or min(pads) < 0:
        raise CountError(f"attribute 'pads' must be {2 * axes} integers >= 0, got {pads}")
    return (pads[0], pads[2], pads[1], pads[3]) if axes == 2 else (0, 0, pads[0], pads[1])


def _halves(total: int, upper: bool) -> tuple[int, int]:
    """Return zeros before and after, the odd one after if `upper`."""
    small, large = total // 2, total - total // 2
    return (small, large) if upper else (large, small)


def _cropped(call: Call, op: ConvTranspose2d, x: Array) -> ConvTranspose2d:
    """Return the record with the padding that leaves the output its stated size.

    Where even the uncropped output is too small, the rest is output padding if the size was stated; SAME leaves
    it so. This is what ONNX Runtime does.
    """
    word = _auto_pad(call)
    axes = len(x.shape) - 2
    stated = call.attributes.integers("output_shape", ())[-axes:]
    if stated:
        if len(stated) != axes or min(stated) < 1:
            raise CountError(f"attribute 'output_shape' must be {axes} integers >= 1, got {stated}")
        wanted = _two(stated, 1)
    elif word in _SAME:
        wanted = (op.input[0] * op.stride[0], op.input[1] * op.stride[1])
    else:
        return op if word == "VALID" else replace(op, padding=_stated_padding(call, x))
    sides: list[int] = []
    extra: list[int] = []
    for axis in (0, 1):
        (length, kernel, stride), (dilation, added) = (
            (op.input[axis], op.kernel[axis], op.stride[axis]),
            (op.dilation[axis], op.output_padding[axis]),
        )
        surplus = transposed_length(length, kernel, stride, 0, dilation, added) - wanted[axis]
        sides += _halves(max(0, surplus), upper=word == "SAME_UPPER")
        extra.append(added + (max(0, -surplus) if stated else 0))
    return replace(op, padding=(sides[0], sides[1], sides[2], sides[3]), output_padding=(extra[0], extra[1]))
