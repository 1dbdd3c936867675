"""Convolutions of NHWC maps: dense or grouped, and depthwise.

Read `tape.py` first; equations and loops are in `nachos_kernels/conv2d.py` and `depthwise.py`. Here arguments
are checked, MACs counted, and each gradient's kernel put beside its input: a network's first convolution
never computes the gradient in the image, because nobody asks for it.
"""

from collections.abc import Sequence

import numpy as np

from nachos_kernels.bias import bias_forward, bias_grad
from nachos_kernels.conv2d import conv2d_forward, conv2d_grad_input, conv2d_grad_weight
from nachos_kernels.depthwise import depthwise_forward, depthwise_grad_input, depthwise_grad_weight
from nachos_min.autograd.arguments import (
    check_axes,
    check_channels,
    check_tensors,
    check_window,
    for_kernel,
    pair,
    sides,
)
from nachos_min.autograd.counting import count
from nachos_min.autograd.registry import counted_operator
from nachos_min.autograd.tape import Vjp, once, record
from nachos_min.autograd.tensor import Tensor


@counted_operator
def conv2d(
    x: Tensor,
    w: Tensor,
    b: Tensor | None = None,
    *,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    activation: str = "identity",
) -> Tensor:
    """Return the convolution (cross-correlation, as everywhere in the field) of x with w, plus b, activated.

    Args:
        x: maps (N, H, W, C).
        w: weights (KH, KW, C / groups, K), dtype of x.
        b: bias (K,), dtype of x, or None.
        stride: step between windows >= 1, one integer or (height, width).
        padding: zeros around the map >= 0, one integer, (height, width) or (top, bottom, left, right).
        dilation: step between taps >= 1, one integer or (height, width).
        groups: >= 1, divides C and K; output channels of a group read the input channels of that group.
        activation: identity or relu; in the same pass as the bias.

    Returns:
        (N, OH, OW, K) with OH = (H + top + bottom - dilation * (KH - 1) - 1) // stride + 1, and OW alike.
        Counts N * OH * OW * K * (C / groups) * KH * KW MACs.

    Raises:
        ValueError: if a shape or number breaks a rule above, or the window does not fit the padded map.
        TypeError: if an argument is not a Tensor, or dtypes differ.
    """
    check_tensors("conv2d", x, w, *(() if b is None else (b,)))
    check_axes("conv2d", "input", x, "N H W C")
    check_axes("conv2d", "weight", w, "KH KW C/groups K")
    (N, H, W, C), (KH, KW, CG, K) = x.shape, w.shape
    steps, apart = pair("conv2d", "stride", stride), pair("conv2d", "dilation", dilation)
    zeros = sides("conv2d", padding)
    _check_groups(C, w.shape, groups)
    check_window("conv2d", x.shape, (KH, KW), zeros, apart)
    if b is not None:
        check_channels("conv2d", K, bias=b)
    if activation not in ("identity", "relu"):
        raise ValueError(f"conv2d: activation must be identity or relu, got {activation!r}")
    maps, weights = for_kernel(x.data), for_kernel(w.data)
    settings = steps, zeros, apart, groups
    value = conv2d_forward(maps, weights, *settings)
    count("conv2d", value.size * KH * KW * CG)
    if b is None and activation == "identity":
        return record(
            value,
            (x, lambda g: conv2d_grad_input(for_kernel(g), weights, (N, H, W, C), *settings)),
            (w, lambda g: conv2d_grad_weight(for_kernel(g), maps, (KH, KW, CG, K), *settings)),
        )
    relu = activation == "relu"
    bias_forward(value, np.zeros(K, x.dtype) if b is None else for_kernel(b.data), relu)
    behind = once(lambda g: bias_grad(for_kernel(g), value, relu))
    inputs: list[tuple[Tensor, Vjp]] = [
        (x, lambda g: conv2d_grad_input(behind(g)[0], weights, (N, H, W, C), *settings)),
        (w, lambda g: conv2d_grad_weight(behind(g)[0], maps, (KH, KW, CG, K), *settings)),
    ]
    if b is not None:
        inputs.append((b, lambda g: behind(g)[1]))
    return record(value, *inputs)


def _check_groups(channels: int, w_shape: tuple[int, ...], groups: int) -> None:
    if groups < 1:
        raise ValueError(f"conv2d: groups must be >= 1, got {groups}")
    if channels % groups or w_shape[3] % groups:
        raise ValueError(
            f"conv2d: groups must divide the {channels} input and {w_shape[3]} output channels, got {groups}"
        )
    if w_shape[2] * groups != channels:
        raise ValueError(
            f"conv2d: input has {channels} channels, "
            f"weight {w_shape} with groups {groups} expects {w_shape[2] * groups}"
        )


@counted_operator
def depthwise_conv2d(
    x: Tensor,
    w: Tensor,
    *,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
) -> Tensor:
    """Return x with every channel convolved by a filter of its own.

    Args:
        x: maps (N, H, W, C).
        w: weights (KH, KW, C), dtype of x.
        stride, padding, dilation: as in `conv2d`.

    Returns:
        (N, OH, OW, C), sizes as in `conv2d`. Counts N * OH * OW * C * KH * KW MACs.

    Raises:
        ValueError: if a shape or number breaks a rule above, or the window does not fit the padded map.
        TypeError: if an argument is not a Tensor, or dtypes differ.
    """
    name = "depthwise_conv2d"
    check_tensors(name, x, w)
    check_axes(name, "input", x, "N H W C")
    check_axes(name, "weight", w, "KH KW C")
    (N, H, W, C), (KH, KW, filters) = x.shape, w.shape
    if filters != C:
        raise ValueError(f"{name}: input has {C} channels, weight {w.shape} expects {filters}")
    steps, apart = pair(name, "stride", stride), pair(name, "dilation", dilation)
    zeros = sides(name, padding)
    check_window(name, x.shape, (KH, KW), zeros, apart)
    maps, weights = for_kernel(x.data), for_kernel(w.data)
    settings = steps, zeros, apart
    value = depthwise_forward(maps, weights, *settings)
    count(name, value.size * KH * KW)
    return record(
        value,
        (x, lambda g: depthwise_grad_input(for_kernel(g), weights, (N, H, W, C), *settings)),
        (w, lambda g: depthwise_grad_weight(for_kernel(g), maps, (KH, KW, C), *settings)),
    )
