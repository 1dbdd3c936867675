"""The inverted residual block in training as one operator: seven operators' work with one operator's overhead.

Read `convolution.py` and `normalization.py` first: it computes what `conv2d`, `depthwise_conv2d`, `batch_norm` and
a sum compute one after the other, and is held to them in the tests; the loops are in
`nachos_kernels/inverted_residual.py`. On small maps most of a training step is not arithmetic but Python between
the kernels, so that here a block is one node of the tape, checked once, and one call forward and one back. One
candidate of the default search, on one thread: 0.60 -> 0.50 s (the smallest), 1.46 -> 1.00 s (the largest).
"""

from typing import NamedTuple

import numpy as np

from nachos_kernels.activation import GATES
from nachos_kernels.batch_norm import gate_of
from nachos_kernels.inverted_residual import inverted_residual_forward, inverted_residual_grad
from nachos_min.autograd.arguments import check_axes, check_channels, check_tensors, for_kernel
from nachos_min.autograd.counting import count
from nachos_min.autograd.normalization import ACTIVATIONS
from nachos_min.autograd.registry import counted_operator
from nachos_min.autograd.tape import Vjp, once, record
from nachos_min.autograd.tensor import Array, Tensor

GATED = tuple(name for name, code in ACTIVATIONS.items() if code in GATES)  # what the kernels can apply
LARGEST = 64  # cells of a map: beyond 8x8 the plain operators' depthwise loops are faster


class Normed(NamedTuple):
    """A convolution's weight, and scale and shift (K,) of the batch norm behind it."""

    weight: Tensor
    gamma: Tensor
    beta: Tensor


@counted_operator
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

    Args:
        x: maps (N, H, W, C), at least one.
        expand: weight (1, 1, C, M), or None: then M is C.
        depthwise: weight (KH, KW, M), sides odd; zeros around the map are half of them.
        project: weight (1, 1, M, K).
        stride: of the depthwise convolution, >= 1.
        activation: after expansion and depthwise convolution: identity, relu or hswish.
        eps: > 0, added to the variances.
        residual: whether x is added at the end; needs K = C and stride 1.

    Returns:
        y: (N, OH, OW, K) with OH = (H - 1) // stride + 1, OW alike. Counts as many MACs as its convolutions.
        statistics: for each convolution mean (C,), biased variance (C,), and of how many rows.

    Raises:
        ValueError: if a shape, number or activation breaks a rule above. TypeError: if dtypes differ.

    Source: Sandler et al., "MobileNetV2", CVPR 2018, section 3.3.
    """
    _check(x, expand, depthwise, project, stride, activation, eps, residual)
    (N, H, W, _), M, K = x.shape, depthwise.gamma.shape[0], project.gamma.shape[0]
    maps, gate = for_kernel(x.data), gate_of(ACTIVATIONS[activation], x.dtype)
    parts = (depthwise, project) if expand is None else (expand, depthwise, project)
    leaves = [tensor for part in parts for tensor in part]
    arrays = [for_kernel(tensor.data) for tensor in leaves]
    if expand is None:
        arrays[:0] = [np.empty((0, M), x.dtype), np.empty(0, x.dtype), np.empty(0, x.dtype)]
    w1, gamma1, beta1, w2, gamma2, beta2, w3, gamma3, beta3 = arrays
    w1, w3 = w1.reshape(-1, M), w3.reshape(M, K)
    value, *kept = inverted_residual_forward(
        maps, w1, gamma1, beta1, w2, gamma2, beta2, w3, gamma3, beta3, eps, gate, stride, residual
    )
    outside, inside = value.size // K, N * H * W
    count("inverted_residual", inside * w1.size + outside * (w2.size + w3.size))

    weights = w1, gamma1, w2, gamma2, w3, gamma3
    gradients = once(
        lambda g: inverted_residual_grad(for_kernel(g), maps.shape, *weights, gate, stride, residual, *kept)
    )
    missing = 0 if expand else 3  # the kernel returns gradients of an expansion in any case

    def gradient(place: int, shape: tuple[int, ...]) -> Vjp:
        return lambda g: gradients(g)[place].reshape(shape)

    inputs = [(x, gradient(0, x.shape))]
    inputs += [(tensor, gradient(place, tensor.shape)) for place, tensor in enumerate(leaves, 1 + missing)]
    y = record(value, *inputs)
    rows = (inside, outside, outside)[-len(parts) :]
    return y, [(affine[0], affine[4], R) for affine, R in zip(kept[-len(parts) :], rows, strict=True)]


def _check(
    x: Tensor,
    expand: Normed | None,
    depthwise: Normed,
    project: Normed,
    stride: int,
    activation: str,
    eps: float,
    residual: bool,
) -> None:
    name = "inverted_residual"
    check_tensors(name, x, *(expand or ()), *depthwise, *project)
    check_axes(name, "input", x, "N H W C")
    check_axes(name, "depthwise weight", depthwise.weight, "KH KW M")
    if x.size == 0:
        raise ValueError(f"{name}: input must have at least one row, got shape {x.shape}")
    channels = x.shape[3]
    for part in (expand, depthwise, project):
        if part is not None:
            w = part.weight.shape
            expected = (*w[:2], channels) if part is depthwise else (1, 1, channels, w[-1])
            if w != expected or w[0] % 2 == 0 or w[1] % 2 == 0:
                raise ValueError(f"{name}: {channels} channels need odd sides and a weight {expected}, got {w}")
            channels = w[-1]
            check_channels(name, channels, gamma=part.gamma, beta=part.beta)
    if stride < 1 or not eps > 0:
        raise ValueError(f"{name}: stride must be >= 1 and eps > 0, got {stride} and {eps}")
    if activation not in GATED:
        raise ValueError(f"{name}: activation must be one of {', '.join(GATED)}, got {activation!r}")
    if residual and (stride != 1 or channels != x.shape[3]):
        raise ValueError(
            f"{name}: a residual needs stride 1 and {x.shape[3]} channels written, got {stride} and {channels}"
        )
