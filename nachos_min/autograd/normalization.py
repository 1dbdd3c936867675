"""Batch norm, and the inverted residual block of convolutions with batch norm.

    y = f(gamma (x - mean) / sqrt(var + eps) + beta)        per channel, the last axis; f is an activation

Loops and gradient formulas are in `nachos_kernels`. The layer keeps running averages of the statistics. Operators
raise TypeError if an argument is no Tensor or dtypes differ, ValueError if a shape or number breaks a rule.
"""

from typing import NamedTuple

import numpy as np

from nachos_kernels import activation as codes
from nachos_kernels import batch_norm as kernels
from nachos_kernels.inverted_residual import inverted_residual_forward, inverted_residual_grad
from nachos_min.autograd import operators
from nachos_min.autograd.operators import check_axes, check_shape, check_tensors, for_kernel, operator
from nachos_min.autograd.tape import Array, Tensor, Vjp, once, record

_NAMES = ("identity", "relu", "hswish", "hsigmoid", "sigmoid")
ACTIVATIONS: dict[str, int] = {name: getattr(codes, name.upper()) for name in _NAMES}
GATED = tuple(name for name, code in ACTIVATIONS.items() if code in codes.GATES)  # the inverted residual's


@operator
def batch_norm(
    x: Tensor, gamma: Tensor, beta: Tensor, *, eps: float = 1e-5, activation: str = "identity"
) -> tuple[Tensor, Array, Array]:
    """Return (y, mean, var): y is x normalised by the batch's mean and biased variance, arrays (C,) (training).

    Args:
        x: (..., C), at least one row; y has its shape.
        gamma, beta: scale and shift (C,), dtype of x.
        eps: > 0, added to the variance.
        activation: f, one of identity, relu, hswish, hsigmoid, sigmoid.

    Source: Ioffe and Szegedy, "Batch Normalization", ICML 2015, algorithm 1.
    """
    maps, scale, shift, code = _checked("batch_norm", x, gamma, beta, eps, activation, 1)
    value, mean, var = kernels.batch_norm_forward(maps, scale, shift, eps, code)
    gradients = once(lambda g: kernels.batch_norm_grad(for_kernel(g), maps, scale, shift, mean, var, eps, code))
    y = record(
        value,
        (x, lambda g: gradients(g)[0]),
        (gamma, lambda g: gradients(g)[1]),
        (beta, lambda g: gradients(g)[2]),
    )
    return y, mean, var


@operator
def batch_norm_infer(
    x: Tensor,
    gamma: Tensor,
    beta: Tensor,
    mean: Array,
    var: Array,
    *,
    eps: float = 1e-5,
    activation: str = "identity",
) -> Tensor:
    """Return x normalised by constants, mean and var >= 0 (C,); else as `batch_norm`, and x may have no row.

    Source: Ioffe and Szegedy, section 3.1 (inference).
    """
    maps, scale, shift, code = _checked("batch_norm_infer", x, gamma, beta, eps, activation, 0)
    check_shape("batch_norm_infer", "mean", mean, x.shape[-1])
    check_shape("batch_norm_infer", "var", var, x.shape[-1])
    # Copies: the layer's running statistics may move on before backward.
    mean, var = np.array(mean, x.dtype), np.array(var, x.dtype)
    value = kernels.batch_norm_infer(maps, scale, shift, mean, var, eps, code)
    gradients = once(
        lambda g: kernels.batch_norm_grad(for_kernel(g), maps, scale, shift, mean, var, eps, code, True)
    )
    return record(
        value,
        (x, lambda g: gradients(g)[0]),
        (gamma, lambda g: gradients(g)[1]),
        (beta, lambda g: gradients(g)[2]),
    )


def _checked(
    name: str, x: Tensor, gamma: Tensor, beta: Tensor, eps: float, activation: str, rows: int
) -> tuple[Array, Array, Array, int]:
    """Return three arrays for the kernels, and the code of `activation`; x needs `rows` rows."""
    check_tensors(name, x, gamma, beta)
    if x.ndim < 2 or x.size < rows:
        raise ValueError(f"{name}: input must be (..., C) with at least one row, got shape {x.shape}")
    check_shape(name, "gamma", gamma, x.shape[-1])
    check_shape(name, "beta", beta, x.shape[-1])
    if not eps > 0 or activation not in ACTIVATIONS:
        rule = f"eps must be > 0 and activation one of {', '.join(ACTIVATIONS)}"
        raise ValueError(f"{name}: {rule}, got {eps} and {activation!r}")
    return for_kernel(x.data), for_kernel(gamma.data), for_kernel(beta.data), ACTIVATIONS[activation]


class Normed(NamedTuple):
    """A convolution's weight, and scale and shift (K,) of the batch norm behind it."""

    weight: Tensor
    gamma: Tensor
    beta: Tensor


@operators.counted_operator
def inverted_residual(
    x: Tensor,
    expand: Normed | None,
    depthwise: Normed,
    project: Normed,
    *,
    stride: int = 1,
    activation: str = "relu",
    eps: float = 1e-5,
    residual: bool = False,
) -> tuple[Tensor, list[tuple[Array, Array, int]]]:
    """Return (y, statistics): x expanded, filtered and projected, each with batch norm by its own statistics.

    One node of the tape takes the place of seven: on small maps calls from Python take longer than the arithmetic.

    Args:
        x: maps (N, H, W, C), at least one; y is (N, OH, OW, K) with OH = (H - 1) // stride + 1, OW alike.
        expand: weight (1, 1, C, M), or None: then M is C.
        depthwise: weight (KH, KW, M), sides odd; zeros around the map are half of them.
        project: weight (1, 1, M, K).
        stride: of the depthwise convolution, >= 1.
        activation: after expansion and depthwise convolution: identity, relu or hswish.
        eps: > 0, added to the variances.
        residual: whether x is added at the end; needs K = C and stride 1.

    Returns:
        y and, for each convolution, mean, biased variance, and of how many rows. Counts the convolutions' MACs.

    Source: Sandler et al., "MobileNetV2", CVPR 2018, section 3.3.
    """
    name = "inverted_residual"
    parts = (depthwise, project) if expand is None else (expand, depthwise, project)
    leaves = [tensor for part in parts for tensor in part]
    check_tensors(name, x, *leaves)
    check_axes(name, "input", x, "N H W C")
    check_axes(name, "depthwise weight", depthwise.weight, "KH KW M")
    (N, H, W, C), (KH, KW, M), K = x.shape, depthwise.weight.shape, project.weight.shape[-1]
    M = M if expand else C
    shapes = [(1, 1, C, M), (M,), (M,), (KH, KW, M), (M,), (M,), (1, 1, M, K), (K,), (K,)][9 - len(leaves) :]
    if [leaf.shape for leaf in leaves] != shapes or KH % 2 == 0 or KW % 2 == 0 or x.size == 0:
        given = [leaf.shape for leaf in leaves]
        raise ValueError(f"{name}: needs an input, odd sides and shapes {shapes}, got {x.shape} and {given}")
    if stride < 1 or not eps > 0 or activation not in GATED:
        rule = f"stride >= 1, eps > 0 and an activation of {', '.join(GATED)}"
        raise ValueError(f"{name}: needs {rule}, got {stride}, {eps} and {activation!r}")
    if residual and (stride, K) != (1, C):
        raise ValueError(f"{name}: a residual needs stride 1 and {C} channels written, got {stride} and {K}")
    maps, gate = for_kernel(x.data), codes.gate_of(ACTIVATIONS[activation], x.dtype)
    none = [] if expand else [np.empty((0, M), x.dtype), np.empty(0, x.dtype), np.empty(0, x.dtype)]
    w1, gamma1, beta1, w2, gamma2, beta2, w3, gamma3, beta3 = none + [for_kernel(leaf.data) for leaf in leaves]
    w1, w3 = w1.reshape(-1, M), w3.reshape(M, K)
    convolutions = (w1, gamma1, beta1), (w2, gamma2, beta2), (w3, gamma3, beta3)
    value, kept = inverted_residual_forward(maps, *convolutions, eps, gate, stride, residual)
    outside, inside = value.size // K, N * H * W
    operators.count(name, inside * w1.size + outside * (w2.size + w3.size))
    gradients = once(
        lambda g: inverted_residual_grad(for_kernel(g), maps.shape, *convolutions, gate, stride, residual, kept)
    )

    def vjp(place: int, shape: tuple[int, ...]) -> Vjp:
        return lambda g: gradients(g)[place].reshape(shape)

    places = (0, *range(1 + len(none), 10))  # the kernel returns gradients of an expansion in any case
    inputs = [(tensor, vjp(place, tensor.shape)) for tensor, place in zip((x, *leaves), places, strict=True)]
    rows = (inside, outside, outside)[-len(parts) :]
    statistics = [(affine[0], affine[4], R) for affine, R in zip(kept[-len(parts) :], rows, strict=True)]
    return record(value, *inputs), statistics
