"""Batch normalisation together with the activation that follows it.

    xhat = (x - mean) / sqrt(var + eps)        u = gamma * xhat + beta        y = f(u)

per channel, over all other axes; f is one of `activation.py`, which is to be read before. The two are one
operator: u is not kept for the gradient, which computes it again from x. Running averages are kept by the
layer, not here.

Every loop below says `for r, c`, but walks over *tiles*: a row has few channels (8 to 200), and a loop over so
few is mostly starting and ending. So as many rows as make about 512 numbers are taken as one long row, and the
numbers per channel are repeated to its length. The array sums of a tile stay in the first-level cache.
Measured in float32 on 65,536 x 16 with h-swish: forward 0.85 -> 0.27 ms, backward 0.98 -> 0.43; a copy: 0.09.

Sums of up to N*H*W terms are made of short sums: 64 terms in the dtype of x, whose total joins a float64. Sums
in float64 alone fill the vector registers with half as many numbers.

Source: Ioffe, Szegedy, Batch normalization, 2015, algorithm 1 and section 3.
"""

import numpy as np
from numpy.typing import NDArray

from nachos_kernels._jit import kernel
from nachos_kernels.activation import GATES, IDENTITY, activation_forward, activation_grad_input

ZERO, ONE, TWO = np.float32(0), np.float32(1), np.float32(2)  # exact in both dtypes; a 2.0 would be a float64
TILE = 512  # numbers; 256 to 1024 took the same time, 2048 up to half as much again
TERMS = 64  # of a short sum
SAMPLED = 16  # one row of so many


@kernel
def _tile(per_channel: NDArray[np.floating], times: int) -> NDArray[np.floating]:
    """Return tile[t, c] = per_channel[c], flat."""
    C = per_channel.size
    tile = np.empty(times * C, per_channel.dtype)
    for t in range(times):
        for c in range(C):
            tile[t * C + c] = per_channel[c]
    return tile


@kernel
def _add_short_sums(short: NDArray[np.floating], total: NDArray[np.float64]) -> None:
    """Add total[c] += short[t, c] over t, short being flat, and set it to zero."""
    C = total.size
    for t in range(short.size // C):
        for c in range(C):
            total[c] += short[t * C + c]
    short[:] = ZERO


@kernel
def _statistics(x: NDArray[np.floating]) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Return mean[c] = sum_r x[r, c] / R and var[c] = sum_r (x[r, c] - mean[c])^2 / R of the rows x[R, C].

    One pass, over the distances d = x - pivot: mean = pivot + sum d / R, var = sum d^2 / R - (sum d / R)^2.
    That difference is as good as its terms are not much larger than itself. The pivot is the mean of every
    16th row, and however the rows are chosen, the mean of a sixteenth of them is no further from the mean of
    all than sqrt(15 var): the terms are at most 16 times the difference, wherever the mean lies.
    """
    R, C = x.shape
    times = max(1, min(R, TILE // C))
    sample = np.zeros(C)
    for r in range(0, R, SAMPLED):
        x_row = x[r]
        for c in range(C):
            sample[c] += x_row[c]
    sample /= (R - 1) // SAMPLED + 1
    pivot = sample.astype(x.dtype)

    pivots, numbers = _tile(pivot, times), x.reshape(-1)
    short_d, short_d2 = np.zeros_like(pivots), np.zeros_like(pivots)
    sum_d, sum_d2 = np.zeros(C), np.zeros(C)
    for tile, first in enumerate(range(0, R * C, pivots.size), 1):
        x_tile = numbers[first : first + pivots.size]
        for j in range(x_tile.size):
            d = x_tile[j] - pivots[j]
            short_d[j] += d
            short_d2[j] += d * d
        if tile % TERMS == 0:
            _add_short_sums(short_d, sum_d)
            _add_short_sums(short_d2, sum_d2)
    _add_short_sums(short_d, sum_d)
    _add_short_sums(short_d2, sum_d2)

    mean, var = np.empty_like(pivot), np.empty_like(pivot)
    for c in range(C):
        mean_d = sum_d[c] / R
        square = sum_d2[c] / R - mean_d * mean_d
        mean[c] = pivot[c] + mean_d
        var[c] = 0.0 if square < 0.0 else square  # rounding; written so that NaN stays
    return mean, var


@kernel
def _scale(gamma: NDArray[np.floating], var: NDArray[np.floating], eps: float) -> NDArray[np.floating]:
    """Return gamma / sqrt(var + eps)."""
    scale = np.empty_like(gamma)
    for c in range(gamma.size):
        scale[c] = gamma[c] / np.sqrt(np.float64(var[c]) + eps)
    return scale


@kernel
def _normalise(
    x: NDArray[np.floating],
    mean: NDArray[np.floating],
    scale: NDArray[np.floating],
    beta: NDArray[np.floating],
    gate: NDArray[np.floating],
) -> NDArray[np.floating]:
    """Return y[r, c] = u * gate(u) with u = scale[c] * (x[r, c] - mean[c]) + beta[c].

    `gate` holds shut, open, a, b: normalisation and activation are one loop without a choice between
    activations, which would not be vectorised. A second loop over y for the activation took 1.4 times as long.
    """
    R, C = x.shape
    times = max(1, min(R, TILE // C))
    means, scales, betas = _tile(mean, times), _tile(scale, times), _tile(beta, times)
    y = np.empty((R, C), x.dtype)
    x_numbers, y_numbers, L = x.reshape(-1), y.reshape(-1), times * C
    shut, opened, a, b = gate[0], gate[1], gate[2], gate[3]
    for first in range(0, R * C, L):
        x_tile, y_tile = x_numbers[first : first + L], y_numbers[first : first + L]
        for j in range(x_tile.size):
            u = scales[j] * (x_tile[j] - means[j]) + betas[j]
            y_tile[j] = u * (ZERO if u <= shut else ONE if u >= opened else a * u + b)
    return y


@kernel
def _gradient_sums(
    g: NDArray[np.floating],
    x: NDArray[np.floating],
    mean: NDArray[np.floating],
    scale: NDArray[np.floating],
    beta: NDArray[np.floating],
    gate: NDArray[np.floating],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return sum_r gu[r, c] and sum_r gu[r, c] * (x[r, c] - mean[c]) with gu = g * f'(u), u as above."""
    R, C = x.shape
    times = max(1, min(R, TILE // C))
    means, scales, betas = _tile(mean, times), _tile(scale, times), _tile(beta, times)
    g_numbers, x_numbers, L = g.reshape(-1), x.reshape(-1), times * C
    short_gu, short_gu_d = np.zeros_like(means), np.zeros_like(means)
    sum_gu, sum_gu_d = np.zeros(C), np.zeros(C)
    shut, opened, a, b = gate[0], gate[1], TWO * gate[2], gate[3]
    for tile, first in enumerate(range(0, R * C, L), 1):
        g_tile, x_tile = g_numbers[first : first + L], x_numbers[first : first + L]
        for j in range(x_tile.size):
            d = x_tile[j] - means[j]
            u = scales[j] * d + betas[j]
            gu = g_tile[j] * (ZERO if u <= shut else ONE if u >= opened else a * u + b)
            short_gu[j] += gu
            short_gu_d[j] += gu * d
        if tile % TERMS == 0:
            _add_short_sums(short_gu, sum_gu)
            _add_short_sums(short_gu_d, sum_gu_d)
    _add_short_sums(short_gu, sum_gu)
    _add_short_sums(short_gu_d, sum_gu_d)
    return sum_gu, sum_gu_d


@kernel
def _gradient_rows(
    g: NDArray[np.floating],
    x: NDArray[np.floating],
    mean: NDArray[np.floating],
    scale: NDArray[np.floating],
    beta: NDArray[np.floating],
    offset: NDArray[np.floating],
    slope: NDArray[np.floating],
    gate: NDArray[np.floating],
) -> NDArray[np.floating]:
    """Return gx[r, c] = scale[c] * gu - offset[c] - slope[c] * (x[r, c] - mean[c]) with gu = g * f'(u).

    gu is computed a second time: to keep it from the sums would write and read a whole map more.
    """
    R, C = x.shape
    times = max(1, min(R, TILE // C))
    means, scales, betas = _tile(mean, times), _tile(scale, times), _tile(beta, times)
    offsets, slopes = _tile(offset, times), _tile(slope, times)
    gx = np.empty((R, C), x.dtype)
    g_numbers, x_numbers, gx_numbers, L = g.reshape(-1), x.reshape(-1), gx.reshape(-1), times * C
    shut, opened, a, b = gate[0], gate[1], TWO * gate[2], gate[3]
    for first in range(0, R * C, L):
        g_tile, x_tile = g_numbers[first : first + L], x_numbers[first : first + L]
        gx_tile = gx_numbers[first : first + L]
        for j in range(x_tile.size):
            d = x_tile[j] - means[j]
            u = scales[j] * d + betas[j]
            gu = g_tile[j] * (ZERO if u <= shut else ONE if u >= opened else a * u + b)
            gx_tile[j] = scales[j] * gu - offsets[j] - slopes[j] * d
    return gx


@kernel
def _gradient_shares(
    sum_gu: NDArray[np.float64],
    sum_gu_d: NDArray[np.float64],
    gamma: NDArray[np.floating],
    var: NDArray[np.floating],
    eps: float,
    share: float,
) -> tuple[NDArray[np.floating], NDArray[np.floating], NDArray[np.floating], NDArray[np.floating]]:
    """Return ggamma, gbeta, and `_gradient_rows`' offset and slope, share being 1/R, or 0 without statistics."""
    ggamma, gbeta = np.empty_like(gamma), np.empty_like(gamma)
    offset, slope = np.empty_like(gamma), np.empty_like(gamma)
    for c in range(gamma.size):
        inverse_std = 1.0 / np.sqrt(np.float64(var[c]) + eps)
        scale = gamma[c] * inverse_std
        ggamma[c], gbeta[c] = inverse_std * sum_gu_d[c], sum_gu[c]
        offset[c] = scale * share * sum_gu[c]
        slope[c] = scale * share * sum_gu_d[c] * inverse_std * inverse_std  # slope * d: share of ggamma * xhat
    return ggamma, gbeta, offset, slope


def _gate(activation_code: int, dtype: np.dtype[np.floating]) -> tuple[NDArray[np.floating], bool]:
    """Return the activation's gate and True, or the identity's and False if the activation has none."""
    return np.array(GATES.get(activation_code, GATES[IDENTITY]), dtype), activation_code in GATES


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
    mean, var = _statistics(x.reshape(-1, x.shape[-1]))
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
    gate, is_gate = _gate(activation_code, x.dtype)
    y = _normalise(x.reshape(-1, x.shape[-1]), mean, _scale(gamma, var, eps), beta, gate)
    return (y if is_gate else activation_forward(y, activation_code)).reshape(x.shape)


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
    rows = x.reshape(-1, x.shape[-1])
    gu, scale = g.reshape(rows.shape), _scale(gamma, var, eps)
    gate, is_gate = _gate(activation_code, x.dtype)
    if not is_gate:  # multiply by f'(u) here; the identity's gate lets the loops leave it as it is
        gu = activation_grad_input(gu, _normalise(rows, mean, scale, beta, gate), activation_code)
    sums = _gradient_sums(gu, rows, mean, scale, beta, gate)
    share = 1.0 / rows.shape[0] if statistics_depend_on_x else 0.0
    ggamma, gbeta, offset, slope = _gradient_shares(*sums, gamma, var, eps, share)
    gx = _gradient_rows(gu, rows, mean, scale, beta, offset, slope, gate)
    return gx.reshape(x.shape), ggamma, gbeta


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
