"""Convolutions and pooling of NHWC maps. Equations and loops are in `nachos_kernels`.

Each gradient's kernel stands beside its input: a network's first convolution never computes the gradient in the
image. Operators raise TypeError if an argument is no Tensor or dtypes differ, and ValueError if a shape or number
breaks a rule or the window does not fit the padded map.
"""

from collections.abc import Sequence
from typing import TypeAlias

import numpy as np

from nachos_kernels import pool
from nachos_kernels.bias import bias_forward, bias_grad
from nachos_kernels.conv2d import conv2d_forward, conv2d_grad_input, conv2d_grad_weight
from nachos_kernels.depthwise import depthwise_forward, depthwise_grad_input, depthwise_grad_weight
from nachos_min.autograd import operators
from nachos_min.autograd.operators import check_shape, check_tensors, counted_operator, for_kernel, operator
from nachos_min.autograd.tape import Tensor, Vjp, once, record

Integers: TypeAlias = int | Sequence[int]


@counted_operator
def conv2d(
    x: Tensor,
    w: Tensor,
    b: Tensor | None = None,
    *,
    stride: Integers = 1,
    padding: Integers = 0,
    dilation: Integers = 1,
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
    """
    check_tensors("conv2d", x, w, *(() if b is None else (b,)))
    check_shape("conv2d", "input", x, "N", "H", "W", "C")
    check_shape("conv2d", "weight", w, "KH", "KW", "C/groups", "K")
    (N, H, W, C), (KH, KW, CG, K) = x.shape, w.shape
    steps, apart = operators.pair("conv2d", "stride", stride), operators.pair("conv2d", "dilation", dilation)
    zeros = operators.sides("conv2d", padding)
    if groups < 1 or C % groups or K % groups or CG * groups != C:
        raise ValueError(
            f"conv2d: groups must be >= 1 and divide all channels, got {groups}, input {x.shape}, weight {w.shape}"
        )
    operators.check_window("conv2d", x.shape, (KH, KW), zeros, apart)
    if b is not None:
        check_shape("conv2d", "bias", b, K)
    if activation not in ("identity", "relu"):
        raise ValueError(f"conv2d: activation must be identity or relu, got {activation!r}")
    maps, weights = for_kernel(x.data), for_kernel(w.data)
    settings = steps, zeros, apart, groups
    value = conv2d_forward(maps, weights, *settings)
    operators.count("conv2d", value.size * KH * KW * CG)
    relu, biased = activation == "relu", b is not None or activation == "relu"
    if biased:
        bias_forward(value, np.zeros(K, x.dtype) if b is None else for_kernel(b.data), relu)
    # The gradients in the products' sum and in the bias.
    behind = once(lambda g: bias_grad(for_kernel(g), value, relu) if biased else (for_kernel(g),))
    inputs: list[tuple[Tensor, Vjp]] = [
        (x, lambda g: conv2d_grad_input(behind(g)[0], weights, (N, H, W, C), *settings)),
        (w, lambda g: conv2d_grad_weight(behind(g)[0], maps, (KH, KW, CG, K), *settings)),
    ]
    if b is not None:
        inputs.append((b, lambda g: behind(g)[1]))
    return record(value, *inputs)


@counted_operator
def depthwise_conv2d(
    x: Tensor, w: Tensor, *, stride: Integers = 1, padding: Integers = 0, dilation: Integers = 1
) -> Tensor:
    """Return x (N, H, W, C) with every channel convolved by a filter of its own, w (KH, KW, C).

    The other arguments and the result's sizes are as of `conv2d`. Counts N * OH * OW * C * KH * KW MACs.
    """
    name = "depthwise_conv2d"
    check_tensors(name, x, w)
    check_shape(name, "input", x, "N", "H", "W", "C")
    check_shape(name, "weight", w, "KH", "KW", x.shape[3])
    (N, H, W, C), (KH, KW, _) = x.shape, w.shape
    steps, apart = operators.pair(name, "stride", stride), operators.pair(name, "dilation", dilation)
    zeros = operators.sides(name, padding)
    operators.check_window(name, x.shape, (KH, KW), zeros, apart)
    maps, weights = for_kernel(x.data), for_kernel(w.data)
    settings = steps, zeros, apart
    value = depthwise_forward(maps, weights, *settings)
    operators.count(name, value.size * KH * KW)
    return record(
        value,
        (x, lambda g: depthwise_grad_input(for_kernel(g), weights, (N, H, W, C), *settings)),
        (w, lambda g: depthwise_grad_weight(for_kernel(g), maps, (KH, KW, C), *settings)),
    )


@operator
def max_pool(x: Tensor, size: Integers, *, stride: Integers | None = None, padding: Integers = 0) -> Tensor:
    """Return the largest cell of each window; its gradient goes to the first cell that won.

    Args:
        x: maps (N, H, W, C).
        size: of the window >= 1, one integer or (height, width).
        stride: step between windows >= 1, one integer or (height, width); None: the size.
        padding: cells around the map that never win, as in `conv2d` and smaller than the size.

    Returns:
        (N, OH, OW, C) with OH = (H + top + bottom - size) // stride + 1, and OW alike.
    """
    settings = _windows("max_pool", x, size, stride, padding)
    N, H, W, C = x.shape
    value, winners = pool.max_pool_forward(for_kernel(x.data), *settings)
    return record(value, (x, lambda g: pool.max_pool_grad_input(for_kernel(g), winners, (N, H, W, C))))


@operator
def avg_pool(x: Tensor, size: Integers, *, stride: Integers | None = None, padding: Integers = 0) -> Tensor:
    """Return the average of each window, padded cells counting as zeros; all else as of `max_pool`."""
    settings = _windows("avg_pool", x, size, stride, padding)
    N, H, W, C = x.shape
    value = pool.avg_pool_forward(for_kernel(x.data), *settings)
    return record(value, (x, lambda g: pool.avg_pool_grad_input(for_kernel(g), (N, H, W, C), *settings)))


@operator
def global_avg_pool(x: Tensor) -> Tensor:
    """Return the average (N, C) over each map of x (N, H, W, C)."""
    check_tensors("global_avg_pool", x)
    check_shape("global_avg_pool", "input", x, "N", "H", "W", "C")
    operators.check_window("global_avg_pool", x.shape, (1, 1))
    N, H, W, C = x.shape
    value = pool.global_avg_pool_forward(for_kernel(x.data))
    return record(value, (x, lambda g: pool.global_avg_pool_grad_input(for_kernel(g), (N, H, W, C))))


def _windows(
    name: str, x: Tensor, size: Integers, stride: Integers | None, padding: Integers
) -> tuple[operators.Pair, operators.Pair, operators.Sides]:
    """Return (size, stride, padding) as the kernels want them, checked."""
    check_tensors(name, x)
    check_shape(name, "input", x, "N", "H", "W", "C")
    window, zeros = operators.pair(name, "size", size), operators.sides(name, padding)
    steps = window if stride is None else operators.pair(name, "stride", stride)
    # A window of nothing but padding would have no largest cell.
    if max(zeros[:2]) >= window[0] or max(zeros[2:]) >= window[1]:
        raise ValueError(f"{name}: padding must be < size {size!r}, got {padding!r}")
    operators.check_window(name, x.shape, window, zeros)
    return window, steps, zeros
