"""Rules for functions that multiply by weights of their own: convolutions and linear layers.

Read `steps.py` first. Each rule takes a call's result, then the arguments under PyTorch's names. Convolutions of
three axes have no rule and are refused by name.
"""

from functools import partial
from typing import Any

from nachos_min.macs.ops import Conv2d, ConvTranspose2d, Linear
from nachos_min.macs.record import Padding, Pair
from nachos_min.macs.torch_reader.matrices import matmul
from nachos_min.macs.torch_reader.steps import Rule, Step, Steps, Tensor, facts, given, map_of, pair, rows_of


def _padding(padding: Any, axes: int, kernel: Pair, dilation: Pair) -> Padding:
    """Return zeros on each side; of an odd number for "same", PyTorch puts the extra one at the end."""
    if padding == "valid":
        return (0, 0, 0, 0)
    if padding == "same":
        height, width = (d * (k - 1) for d, k in zip(dilation, kernel, strict=True))
        return (height // 2, height - height // 2, width // 2, width - width // 2)
    height, width = pair(padding, axes, 0)
    return (height, height, width, width)


def _conv(
    axes: int,
    result: Tensor,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Steps:
    batch, shape = map_of(input, axes)
    kernel = pair(tuple(weight.shape[2:]), axes, 1)
    spread = pair(dilation, axes, 1)
    op = Conv2d(
        shape,
        out_channels=int(weight.shape[0]),
        kernel=kernel,
        stride=pair(stride, axes, 1),
        padding=_padding(padding, axes, kernel, spread),
        dilation=spread,
        groups=groups,
        bias=bias is not None,
    )
    word = padding if isinstance(padding, str) else ""
    unbatched = facts(unbatched=input.dim() == axes + 1)
    return [Step(op, (input,), (result,), given(weight, bias), batch, word, unbatched)]


def _conv_transpose(
    axes: int,
    result: Tensor,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Steps:
    batch, shape = map_of(input, axes)
    kernel = pair(tuple(weight.shape[2:]), axes, 1)
    spread = pair(dilation, axes, 1)
    op = ConvTranspose2d(
        shape,
        out_channels=int(weight.shape[1]) * groups,
        kernel=kernel,
        stride=pair(stride, axes, 1),
        padding=_padding(padding, axes, kernel, spread),
        dilation=spread,
        groups=groups,
        bias=bias is not None,
        output_padding=pair(output_padding, axes, 0),
    )
    unbatched = facts(unbatched=input.dim() == axes + 1)
    return [Step(op, (input,), (result,), given(weight, bias), batch, facts=unbatched)]


def _scattered(x: Tensor, samples: int) -> bool:
    """Return whether one sample's elements do not lie one after another; `samples` is the axis of samples."""
    packed = 1
    for axis in reversed(range(x.dim())):
        if axis != samples and x.shape[axis] > 1:
            if x.stride(axis) != packed:
                return True
            packed *= x.shape[axis]
    return False


def _linear(result: Tensor, input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Steps:
    if weight.dim() == 1:
        return matmul(result, input, weight)
    batch, shape = rows_of(input)
    op = Linear(shape, out_features=int(weight.shape[0]), bias=bias is not None)
    strided = input.dim() > 2 and _scattered(input, 0)
    swapped = strided and not _scattered(input, 1)
    found = facts(unbatched=input.dim() == 1, strided=strided, swapped=swapped)
    return [Step(op, (input,), (result,), given(weight, bias), batch, facts=found)]


LAYER_RULES: dict[str, Rule] = {
    "conv1d": partial(_conv, 1),
    "conv2d": partial(_conv, 2),
    "conv_transpose1d": partial(_conv_transpose, 1),
    "conv_transpose2d": partial(_conv_transpose, 2),
    "linear": _linear,
}
