"""Batch normalisation together with the activation that follows it.

    xhat = (x - mean) / sqrt(var + eps)        u = gamma * xhat + beta        y = f(u)

per channel, over all other axes; f is one of `activation.py`, which is to be read before. The two are one
operator: u is not kept for the gradient, which computes it again from x.

Statistics are sums of up to N*H*W terms. They are accumulated in float64 and in two passes, the mean first,
then the squared distances from it, so that they are right to float32 precision even where the mean is much
larger than the spread. Running averages are kept by the layer, not here.

The activation is applied by a second loop, in place: one loop that normalises and then chooses among the
five activations is not vectorised, and took 4 to 20 times as long for all but the sigmoid (float32, 65,536
elements, 16 to 96 channels).

Source: Ioffe, Szegedy, Batch normalization, 2015, algorithm 1 and section 3.
"""

import numpy as np
from numpy.typing import NDArray

from nachos_kernels._jit import kernel
from nachos_kernels.activation import activate, multiply_by_slope


@kernel
def _statistics(x: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return mean[c] = sum_r x[r, c] / R and var[c] = sum_r (x[r, c] - mean[c])^2 / R of the rows x[R, C]."""
    R, C = x.shape
    mean, var = np.zeros(C), np.zeros(C)
    for r in range(R):
        x_row = x[r]
        for c in range(C):
            mean[c] += x_row[c]
    mean /= R
    for r in range(R):
        x_row = x[r]
        for c in range(C):
            var[c] += (x_row[c] - mean[c]) ** 2
    var /= R
    return mean, var


@kernel
def _normalise(
    x: NDArray[np.floating],
    mean: NDArray[np.floating],
    scale: NDArray[np.floating],
    beta: NDArray[np.floating],
) -> NDArray[np.floating]:
    """Return u[r, c] = scale[c] * (x[r, c] - mean[c]) + beta[c] with scale = gamma / sqrt(var + eps)."""
    R, C = x.shape
    u = np.empty((R, C), x.dtype)
    for r in range(R):
        x_row, u_row = x[r], u[r]
        for c in range(C):
            u_row[c] = scale[c] * (x_row[c] - mean[c]) + beta[c]
    return u


@kernel
def _gradient_sums(
    gu: NDArray[np.floating], x: NDArray[np.floating], mean: NDArray[np.floating]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return sum_r gu[r, c] and sum_r gu[r, c] * (x[r, c] - mean[c])."""
    R, C = x.shape
    sum_gu, sum_gu_distance = np.zeros(C), np.zeros(C)
    for r in range(R):
        gu_row, x_row = gu[r], x[r]
        for c in range(C):
            sum_gu[c] += gu_row[c]
            sum_gu_distance[c] += gu_row[c] * (x_row[c] - mean[c])
    return sum_gu, sum_gu_distance


@kernel
def _gradient_rows(
    gu: NDArray[np.floating],
    x: NDArray[np.floating],
    mean: NDArray[np.floating],
    scale: NDArray[np.floating],
    offset: NDArray[np.floating],
    slope: NDArray[np.floating],
) -> None:
    """Replace gu[r, c] by scale[c] * (gu[r, c] - offset[c] - slope[c] * (x[r, c] - mean[c]))."""
    R, C = x.shape
    for r in range(R):
        gu_row, x_row = gu[r], x[r]
        for c in range(C):
            gu_row[c] = scale[c] * (gu_row[c] - offset[c] - slope[c] * (x_row[c] - mean[c]))


def _inverse_std(var: NDArray[np.floating], eps: float) -> NDArray[np.float64]:
    """Return 1 / sqrt(var + eps)."""
    return 1.0 / np.sqrt(var.astype(np.float64) + eps)


def batch_norm_forward(
    x: NDArray[np.floating],
    gamma: NDArray[np.floating],
    beta: NDArray[np.floating],
    eps: float,
    activation_code: int,
) -> tuple[NDArray[np.floating], NDArray[np.floating], NDArray[np.floating]]:
    """Return y, mean and var: x normalised by its own statistics (training), scaled, shifted, activated.

    Args:
        x: float32 or float64 [..., C], C-contiguous, at least one row.
        gamma: dtype of x, [C], the scale.
        beta: dtype of x, [C], the shift.
        eps: > 0, added to the variance.
        activation_code: see `activation.py`.

    Returns:
        y: dtype and shape of x.
        mean: dtype of x, [C].
        var: dtype of x, [C], biased (divided by the number of rows, not by one less).

    Source: Ioffe, Szegedy, algorithm 1.
    """
    mean, var = (statistic.astype(x.dtype) for statistic in _statistics(x.reshape(-1, x.shape[-1])))
    return batch_norm_infer(x, gamma, beta, mean, var, eps, activation_code), mean, var


def batch_norm_infer(
    x: NDArray[np.floating],
    gamma: NDArray[np.floating],
    beta: NDArray[np.floating],
    mean: NDArray[np.floating],
    var: NDArray[np.floating],
    eps: float,
    activation_code: int,
) -> NDArray[np.floating]:
    """Return y: x normalised by the given statistics (inference), scaled, shifted, activated.

    Args:
        x, gamma, beta, eps, activation_code: as in `batch_norm_forward`.
        mean: dtype of x, [C].
        var: dtype of x, [C], >= 0.

    Returns:
        y: dtype and shape of x.

    Source: Ioffe, Szegedy, section 3.1.
    """
    scale = (gamma * _inverse_std(var, eps)).astype(x.dtype)
    y = _normalise(x.reshape(-1, x.shape[-1]), mean, scale, beta)
    activate(y.reshape(-1), activation_code)
    return y.reshape(x.shape)


def _gradients(
    g: NDArray[np.floating],
    x: NDArray[np.floating],
    gamma: NDArray[np.floating],
    beta: NDArray[np.floating],
    mean: NDArray[np.floating],
    var: NDArray[np.floating],
    eps: float,
    activation_code: int,
    statistics_depend_on_x: bool,
) -> tuple[NDArray[np.floating], NDArray[np.floating], NDArray[np.floating]]:
    """Return gx, ggamma, gbeta; the equations stand in the two functions below."""
    dtype, rows = x.dtype, x.reshape(-1, x.shape[-1])
    R, inverse_std = rows.shape[0], _inverse_std(var, eps)
    scale = (gamma * inverse_std).astype(dtype)
    gu = g.reshape(rows.shape).copy()
    multiply_by_slope(gu.reshape(-1), _normalise(rows, mean, scale, beta).reshape(-1), activation_code)
    gbeta, sum_gu_distance = _gradient_sums(gu, rows, mean)
    ggamma = inverse_std * sum_gu_distance
    share = 1.0 / R if statistics_depend_on_x else 0.0
    offset, slope = share * gbeta, share * ggamma * inverse_std  # slope * (x - mean) = share * ggamma * xhat
    _gradient_rows(gu, rows, mean, scale, offset.astype(dtype), slope.astype(dtype))
    return gu.reshape(x.shape), ggamma.astype(dtype), gbeta.astype(dtype)


def batch_norm_grad(
    g: NDArray[np.floating],
    x: NDArray[np.floating],
    gamma: NDArray[np.floating],
    beta: NDArray[np.floating],
    mean: NDArray[np.floating],
    var: NDArray[np.floating],
    eps: float,
    activation_code: int,
) -> tuple[NDArray[np.floating], NDArray[np.floating], NDArray[np.floating]]:
    """Return gx, ggamma, gbeta where mean and var are the statistics of x itself (training).

        gu = g * f'(u)        gbeta = sum_r gu        ggamma = sum_r gu * xhat
        gx = gamma / sqrt(var + eps) * (gu - gbeta / R - xhat * ggamma / R)

    Args:
        g: gradient of the loss in y, dtype and shape of x.
        x, gamma, beta, eps, activation_code: what `batch_norm_forward` was given.
        mean, var: what it returned.

    Returns:
        gx: dtype and shape of x.
        ggamma: dtype of x, [C].
        gbeta: dtype of x, [C].

    Source: Ioffe, Szegedy, section 3; the chain of their six equations is collected into one.
    """
    return _gradients(g, x, gamma, beta, mean, var, eps, activation_code, statistics_depend_on_x=True)


def batch_norm_infer_grad(
    g: NDArray[np.floating],
    x: NDArray[np.floating],
    gamma: NDArray[np.floating],
    beta: NDArray[np.floating],
    mean: NDArray[np.floating],
    var: NDArray[np.floating],
    eps: float,
    activation_code: int,
) -> tuple[NDArray[np.floating], NDArray[np.floating], NDArray[np.floating]]:
    """Return gx, ggamma, gbeta where mean and var are constants (inference, frozen statistics).

        gx = gamma / sqrt(var + eps) * gu        ggamma and gbeta as in `batch_norm_grad`

    Args:
        g: gradient of the loss in y, dtype and shape of x.
        x, gamma, beta, mean, var, eps, activation_code: what `batch_norm_infer` was given.

    Returns:
        gx: dtype and shape of x.
        ggamma: dtype of x, [C].
        gbeta: dtype of x, [C].

    Source: derived here: a constant passes no gradient back, so the terms through mean and var vanish.
    """
    return _gradients(g, x, gamma, beta, mean, var, eps, activation_code, statistics_depend_on_x=False)
