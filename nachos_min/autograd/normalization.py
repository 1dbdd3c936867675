"""Batch norm, fused with the activation that follows it.

    y = f(gamma (x - mean) / sqrt(var + eps) + beta)        per channel, the last axis

Read `activation.py` first; loops and gradient formulas are in `nachos_kernels/batch_norm.py`. Running
averages of the statistics are kept by the layer, not here.
"""

import numpy as np

from nachos_kernels import activation as codes
from nachos_kernels import batch_norm as kernels
from nachos_kernels.batch_norm_loops import follow
from nachos_min.autograd.arguments import check_channels, check_tensors, for_kernel
from nachos_min.autograd.registry import operator
from nachos_min.autograd.tape import once, record
from nachos_min.autograd.tensor import Array, Tensor

ACTIVATIONS = {
    "identity": codes.IDENTITY,
    "relu": codes.RELU,
    "hswish": codes.HSWISH,
    "hsigmoid": codes.HSIGMOID,
    "sigmoid": codes.SIGMOID,
}


@operator
def batch_norm(
    x: Tensor, gamma: Tensor, beta: Tensor, *, eps: float = 1e-5, activation: str = "identity"
) -> tuple[Tensor, Array, Array]:
    """Return (y, mean, var): x normalised by its own statistics, and these (training).

    Args:
        x: (..., C), at least one row.
        gamma, beta: scale and shift (C,), dtype of x.
        eps: > 0, added to the variance.
        activation: f, one of identity, relu, hswish, hsigmoid, sigmoid.

    Returns:
        y: shape of x; its gradient also flows through the statistics.
        mean, var: arrays (C,); var is biased (divided by the number of rows).

    Raises:
        ValueError: if a shape, eps or the activation breaks a rule above. TypeError: if dtypes differ.

    Source: Ioffe and Szegedy, "Batch Normalization", ICML 2015, algorithm 1.
    """
    code = _check("batch_norm", x, gamma, beta, eps, activation)
    maps, scale, shift = for_kernel(x.data), for_kernel(gamma.data), for_kernel(beta.data)
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
    """Return x normalised by given statistics, through which no gradient flows (inference, frozen layers).

    Args:
        x, gamma, beta, eps, activation: as in `batch_norm`, but x may have no row.
        mean, var: (C,), converted to the dtype of x; var >= 0.

    Returns:
        y: shape of x.

    Raises:
        ValueError: if a shape, eps or the activation breaks a rule above. TypeError: if dtypes differ.

    Source: Ioffe and Szegedy, "Batch Normalization", ICML 2015, section 3.1.
    """
    code = _check("batch_norm_infer", x, gamma, beta, eps, activation, rows_needed=0)
    check_channels("batch_norm_infer", x.shape[-1], mean=mean, var=var)
    # Copies: the layer's running statistics may move on before backward.
    mean, var = np.array(mean, x.dtype), np.array(var, x.dtype)
    maps, scale, shift = for_kernel(x.data), for_kernel(gamma.data), for_kernel(beta.data)
    value = kernels.batch_norm_infer(maps, scale, shift, mean, var, eps, code)
    gradients = once(
        lambda g: kernels.batch_norm_infer_grad(for_kernel(g), maps, scale, shift, mean, var, eps, code)
    )
    return record(
        value,
        (x, lambda g: gradients(g)[0]),
        (gamma, lambda g: gradients(g)[1]),
        (beta, lambda g: gradients(g)[2]),
    )


def follow_statistics(
    running_mean: Array, running_var: Array, mean: Array, var: Array, rows: int, momentum: float
) -> None:
    """Move running statistics in place towards those of a batch: r <- r + momentum (batch - r).

    No operator: no gradient flows here. One call for both vectors, because a layer makes it at every step.

    Args:
        running_mean, running_var: (C,), changed in place.
        mean, var: (C,) of the batch, var biased; what is followed is the unbiased one.
        rows: of the batch, >= 1.
        momentum: in 0..1.

    Source: Ioffe and Szegedy, "Batch Normalization", ICML 2015, algorithm 2, with PyTorch's running averages.
    """
    follow(running_mean, running_var, mean, var, rows, momentum)


def _check(
    name: str, x: Tensor, gamma: Tensor, beta: Tensor, eps: float, activation: str, rows_needed: int = 1
) -> int:
    """Return the kernels' code of `activation`, after all arguments were checked."""
    check_tensors(name, x, gamma, beta)
    if x.ndim < 2 or x.size < rows_needed:
        raise ValueError(f"{name}: input must be (..., C) with at least one row, got shape {x.shape}")
    check_channels(name, x.shape[-1], gamma=gamma, beta=beta)
    if not eps > 0:
        raise ValueError(f"{name}: eps must be > 0, got {eps}")
    if activation not in ACTIVATIONS:
        raise ValueError(f"{name}: activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}")
    return ACTIVATIONS[activation]
