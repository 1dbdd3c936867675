"""Convolutions and pooling of NHWC maps. Equations and loops are in `nachos_kernels`.

A gradient is computed only for inputs that need it, so never for the image. Operators raise TypeError if an
argument is no Tensor or dtypes differ, and ValueError if a shape or number breaks a rule or the window does not fit
the padded map.
"""

from collections.abc import Sequence
from operator import index
from typing import Any, TypeAlias

import numpy as np

from nachos_kernels import pool
from nachos_kernels.batch_norm import bias_forward, bias_grad
from nachos_kernels.conv2d import conv2d_forward, conv2d_grad_input, conv2d_grad_weight
from nachos_kernels.depthwise import depthwise_forward, depthwise_grad_input, depthwise_grad_weight
from nachos_min.autograd import operators
from nachos_min.autograd.operators import check_axes, check_shape, check_tensors, for_kernel, operator
from nachos_min.autograd.tape import Tensor, Vjp, once, record

Integers: TypeAlias = int | Sequence[int]
Pair: TypeAlias = tuple[int, int]
Sides: TypeAlias = tuple[int, int, int, int]


def _integers(operator: str, name: str, value: Any, minimum: int, lengths: tuple[int, ...] = (1, 2)) -> Any:
    """Return the integers of `value`, a single one twice; `lengths` are the numbers of them allowed."""
    if type(value) is int and value >= minimum:  # by far the most frequent, and once per layer and step
        return value, value
    try:
        given = tuple(index(part) for part in (value if isinstance(value, Sequence) else (value,)))
    except TypeError:
        given = ()
    if len(given) not in lengths or min(given) < minimum:
        allowed = " or ".join(map(str, lengths))
        raise ValueError(f"{operator}: {name} must be {allowed} integers >= {minimum}, got {value!r}")
    return given * 2 if len(given) == 1 else given


def _geometry(
    operator: str, x: Tensor, window: Pair, stride: Integers, padding: Integers, dilation: Integers = 1
) -> tuple[Pair, Sides, Pair]:
    """Return stride, padding and dilation for the kernels; the window must fit the padded maps of x."""
    steps, apart = _integers(operator, "stride", stride, 1), _integers(operator, "dilation", dilation, 1)
    zeros = _integers(operator, "padding", padding, 0, (1, 2, 4))
    zeros = zeros if len(zeros) == 4 else (zeros[0], zeros[0], zeros[1], zeros[1])
    height, width = x.shape[1] + zeros[0] + zeros[1], x.shape[2] + zeros[2] + zeros[3]
    span_h, span_w = apart[0] * (window[0] - 1) + 1, apart[1] * (window[1] - 1) + 1
    if span_h > height or span_w > width:
        raise ValueError(
            f"{operator}: a window of {span_h}x{span_w} does not fit a map of {x.shape[1]}x{x.shape[2]} "
            f"padded to {height}x{width}"
        )
    return steps, zeros, apart


@operators.counted_operator
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
        stride, dilation: steps between windows and between taps >= 1, one integer or (height, width).
        padding: zeros around the map >= 0, one integer, (height, width) or (top, bottom, left, right).
        groups: >= 1, divides C and K; output channels of a group read the input channels of that group.
        activation: identity or relu; in the same pass as the bias.

    Returns:
        (N, OH, OW, K) with OH = (H + top + bottom - dilation * (KH - 1) - 1) // stride + 1, and OW alike.
        Counts N * OH * OW * K * (C / groups) * KH * KW MACs.
    """
    check_tensors("conv2d", x, w, *(() if b is None else (b,)))
    check_axes("conv2d", "input", x, "N H W C")
    check_axes("conv2d", "weight", w, "KH KW C/groups K")
    (N, H, W, C), (KH, KW, CG, K) = x.shape, w.shape
    if groups < 1 or C % groups or K % groups or CG * groups != C:
        raise ValueError(
            f"conv2d: groups must be >= 1 and divide all channels, got {groups}, input {x.shape}, weight {w.shape}"
        )
    if b is not None:
        check_shape("conv2d", "bias", b, K)
    if activation not in ("identity", "relu"):
        raise ValueError(f"conv2d: activation must be identity or relu, got {activation!r}")
    maps, weights = for_kernel(x.data), for_kernel(w.data)
    settings = *_geometry("conv2d", x, (KH, KW), stride, padding, dilation), groups
    value = conv2d_forward(maps, weights, *settings)
    operators.count("conv2d", value.size * KH * KW * CG)
    relu, biased = activation == "relu", b is not None or activation == "relu"
    if biased:
        bias_forward(value, np.zeros(K, x.dtype) if b is None else for_kernel(b.data), relu)
    # Gradients in the sums before the bias, and in the bias.
    behind = once(lambda g: bias_grad(for_kernel(g), value, relu) if biased else (for_kernel(g),))
    inputs: list[tuple[Tensor, Vjp]] = [
        (x, lambda g: conv2d_grad_input(behind(g)[0], weights, (N, H, W, C), *settings)),
        (w, lambda g: conv2d_grad_weight(behind(g)[0], maps, (KH, KW, CG, K), *settings)),
    ]
    if b is not None:
        inputs.append((b, lambda g: behind(g)[1]))
    return record(value, *inputs)


@operators.counted_operator
def depthwise_conv2d(
    x: Tensor, w: Tensor, *, stride: Integers = 1, padding: Integers = 0, dilation: Integers = 1
) -> Tensor:
    """Return x (N, H, W, C) with every channel convolved by a filter of its own, w (KH, KW, C).

    The other arguments and the result's sizes are as of `conv2d`. Counts N * OH * OW * C * KH * KW MACs.
    """
    name = "depthwise_conv2d"
    check_tensors(name, x, w)
    check_axes(name, "input", x, "N H W C")
    check_axes(name, "weight", w, "KH KW C")
    (N, H, W, C), (KH, KW, _) = x.shape, w.shape
    check_shape(name, "weight", w, KH, KW, C)
    maps, weights = for_kernel(x.data), for_kernel(w.data)
    settings = _geometry(name, x, (KH, KW), stride, padding, dilation)
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
        size, stride: of the window and between windows >= 1, one integer or (height, width); stride None: the size.
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
    check_axes("global_avg_pool", "input", x, "N H W C")
    _geometry("global_avg_pool", x, (1, 1), stride=1, padding=0)
    N, H, W, C = x.shape
    value = pool.global_avg_pool_forward(for_kernel(x.data))
    return record(value, (x, lambda g: pool.global_avg_pool_grad_input(for_kernel(g), (N, H, W, C))))


def _windows(
    name: str, x: Tensor, size: Integers, stride: Integers | None, padding: Integers
) -> tuple[Pair, Pair, Sides]:
    """Return size, stride and padding for the kernels, checked."""
    check_tensors(name, x)
    check_axes(name, "input", x, "N H W C")
    window = _integers(name, "size", size, 1)
    steps, zeros, _ = _geometry(name, x, window, size if stride is None else stride, padding)
    # A window of nothing but padding would have no largest cell.
    if max(zeros[:2]) >= window[0] or max(zeros[2:]) >= window[1]:
        raise ValueError(f"{name}: padding must be < size {size!r}, got {padding!r}")
    return window, steps, zeros
