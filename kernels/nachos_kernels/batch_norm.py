"""Batch normalisation with its activation, and a bias with its ReLU, over the rows [R, C] of a map.

    xhat = (x - mean) / sqrt(var + eps)        u = gamma * xhat + beta        y = f(u)

per channel c, over all other axes. The two are one operator: the gradient computes u from x again. The layer keeps
the running averages; `follow` moves them.

The loops below say `for r, c`, but go over *tiles*. A row has few channels, and so short a loop is mostly starting
and ending. So the rows of about TILE numbers are taken as one long row, and what is given per channel is repeated
to its length. A sum over rows is made of short sums, TERMS of them in the dtype of x, whose total is added to a
float64: sums in float64 alone would halve the numbers in a vector register.

Source: Ioffe, Szegedy, Batch normalization, 2015, algorithm 1 and section 3.
"""

from typing import Any

import numpy as np

from nachos_kernels._jit import Doubles, Floats, Ints, each, kernel, parts_of
from nachos_kernels.activation import GATES, ONE, TWO, ZERO, activation_forward, activation_grad_input, gate_of

TILE = 512  # numbers
TERMS = 64  # of a short sum
SAMPLED = 16  # one row of so many gives the pivot of the moments


@kernel
def _tile(per_channel: Floats, times: int) -> Floats:
    """Return repeated[t, c] = per_channel[c], flat."""
    C = per_channel.size
    repeated = np.empty(times * C, per_channel.dtype)
    for t in range(times):
        for c in range(C):
            repeated[t * C + c] = per_channel[c]
    return repeated


@kernel
def _add_short_sums(short: Floats, total: Doubles) -> None:
    """Add total[c] += short[t, c] over t, with `short` flat, and set `short` to zero."""
    C = total.size
    for t in range(short.size // C):
        for c in range(C):
            total[c] += short[t * C + c]
            short[t * C + c] = ZERO


@kernel
def _moments(x: Floats) -> Doubles:
    """Return mean[c] = sum_r x[r, c] / R and var[c] = sum_r (x[r, c] - mean[c])^2 / R, as two rows.

    One pass, over d = x - pivot: mean = pivot + sum d / R, var = sum d^2 / R - (sum d / R)^2. The difference is
    accurate while its terms are not much larger than it. The pivot is the mean of every 16th row. Such a mean is
    at most sqrt(15 var) from the mean of all rows, whichever rows they are: the terms are at most 16 times var.
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
    for count, first in enumerate(range(0, R * C, pivots.size), 1):
        x_tile = numbers[first : first + pivots.size]
        for j in range(x_tile.size):
            d = x_tile[j] - pivots[j]
            short_d[j] += d
            short_d2[j] += d * d
        if count % TERMS == 0:
            _add_short_sums(short_d, sum_d)
            _add_short_sums(short_d2, sum_d2)
    _add_short_sums(short_d, sum_d)
    _add_short_sums(short_d2, sum_d2)

    found = np.empty((2, C))
    for c in range(C):
        mean_d = sum_d[c] / R
        square = sum_d2[c] / R - mean_d * mean_d
        found[0, c] = pivot[c] + mean_d
        found[1, c] = 0.0 if square < 0.0 else square  # rounding; written so that NaN stays
    return found


@kernel
def _combined_moments(parts: Doubles, rows: Ints) -> Doubles:
    """Return the moments of all rows from those of parts, parts[p] = `_moments` of rows[p] rows.

        mean = sum_p rows[p] mean[p] / R        var = sum_p rows[p] (var[p] + (mean[p] - mean)^2) / R

    Source: Chan, Golub, LeVeque, Algorithms for computing the sample variance, 1983, equation 2.1.
    """
    P, _, C = parts.shape
    found, R = np.zeros((2, C)), rows.sum()
    for p in range(P):
        for c in range(C):
            found[0, c] += rows[p] / R * parts[p, 0, c]
    for p in range(P):
        for c in range(C):
            distance = parts[p, 0, c] - found[0, c]
            found[1, c] += rows[p] / R * (parts[p, 1, c] + distance * distance)
    return found


@kernel
def _coefficients(moments: Floats, gamma: Floats, beta: Floats, eps: float) -> Floats:
    """Return `affine` [5, C]: mean, gamma / sqrt(var + eps), beta, 1 / sqrt(var + eps), var."""
    affine = np.empty((5, gamma.size), gamma.dtype)
    for c in range(gamma.size):
        inverse_std = 1.0 / np.sqrt(moments[1, c] + eps)
        affine[0, c], affine[1, c], affine[2, c] = moments[0, c], gamma[c] * inverse_std, beta[c]
        affine[3, c], affine[4, c] = inverse_std, moments[1, c]
    return affine


@kernel
def _gate(u: Any, shut: Any, opened: Any, a: Any, b: Any) -> Any:
    """Return 0 where u <= shut, 1 where u >= opened, else a*u + b: gate(u), or f'(u) if a is twice the gate's."""
    return ZERO if u <= shut else ONE if u >= opened else a * u + b


@kernel
def _normalise(x: Floats, affine: Floats, gate: Floats, y: Floats) -> None:
    """Write y[r, c] = u * gate(u) with u = scale[c] * (x[r, c] - mean[c]) + beta[c]; y is not x itself.

    One loop for normalisation and activation; `gate` is its numbers, since a choice would not be vectorised.
    """
    R, C = x.shape
    times = max(1, min(R, TILE // C))
    means, scales, betas = _tile(affine[0], times), _tile(affine[1], times), _tile(affine[2], times)
    x_numbers, y_numbers, L = x.reshape(-1), y.reshape(-1), times * C
    shut, opened, a, b = gate[0], gate[1], gate[2], gate[3]
    for first in range(0, R * C, L):
        x_tile, y_tile = x_numbers[first : first + L], y_numbers[first : first + L]
        for j in range(x_tile.size):
            u = scales[j] * (x_tile[j] - means[j]) + betas[j]
            y_tile[j] = u * _gate(u, shut, opened, a, b)


@kernel
def _gradient_sums(g: Floats, x: Floats, affine: Floats, gate: Floats) -> Doubles:
    """Return sum_r gu[r, c] and sum_r gu[r, c] * (x[r, c] - mean[c]) with gu = g * f'(u), as two rows."""
    R, C = x.shape
    times = max(1, min(R, TILE // C))
    means, scales, betas = _tile(affine[0], times), _tile(affine[1], times), _tile(affine[2], times)
    g_numbers, x_numbers, L = g.reshape(-1), x.reshape(-1), times * C
    short_gu, short_gu_d = np.zeros_like(means), np.zeros_like(means)
    sums = np.zeros((2, C))
    shut, opened, a, b = gate[0], gate[1], TWO * gate[2], gate[3]
    for count, first in enumerate(range(0, R * C, L), 1):
        g_tile, x_tile = g_numbers[first : first + L], x_numbers[first : first + L]
        for j in range(x_tile.size):
            d = x_tile[j] - means[j]
            gu = g_tile[j] * _gate(scales[j] * d + betas[j], shut, opened, a, b)
            short_gu[j] += gu
            short_gu_d[j] += gu * d
        if count % TERMS == 0:
            _add_short_sums(short_gu, sums[0])
            _add_short_sums(short_gu_d, sums[1])
    _add_short_sums(short_gu, sums[0])
    _add_short_sums(short_gu_d, sums[1])
    return sums


@kernel
def _gradient_shares(sums: Doubles, gamma: Floats, affine: Floats, share: float) -> Floats:
    """Return ggamma, gbeta, and the offset and slope of `_gradient_rows`, as four rows.

    sums[p] are the `_gradient_sums` of part p; share is 1/R of all parts, or 0 if the statistics are constants.
    """
    shares = np.empty((4, gamma.size), gamma.dtype)
    for c in range(gamma.size):
        sum_gu, sum_gu_d, inverse_std = 0.0, 0.0, np.float64(affine[3, c])
        for p in range(sums.shape[0]):
            sum_gu += sums[p, 0, c]
            sum_gu_d += sums[p, 1, c]
        scale = gamma[c] * inverse_std
        shares[0, c], shares[1, c] = inverse_std * sum_gu_d, sum_gu
        shares[2, c] = scale * share * sum_gu
        shares[3, c] = scale * share * sum_gu_d * inverse_std * inverse_std  # times d: share of ggamma * xhat
    return shares


@kernel
def _gradient_rows(g: Floats, x: Floats, affine: Floats, gate: Floats, shares: Floats, gx: Floats) -> None:
    """Write gx[r, c] = scale[c] * gu - offset[c] - slope[c] * (x[r, c] - mean[c]) with gu = g * f'(u).

    gu is computed again: keeping it would write and read another map. gx is not g itself: a loop that may read what
    it wrote is not vectorised.
    """
    R, C = x.shape
    times = max(1, min(R, TILE // C))
    means, scales, betas = _tile(affine[0], times), _tile(affine[1], times), _tile(affine[2], times)
    offsets, slopes = _tile(shares[2], times), _tile(shares[3], times)
    g_numbers, x_numbers, gx_numbers, L = g.reshape(-1), x.reshape(-1), gx.reshape(-1), times * C
    shut, opened, a, b = gate[0], gate[1], TWO * gate[2], gate[3]
    for first in range(0, R * C, L):
        g_tile, x_tile = g_numbers[first : first + L], x_numbers[first : first + L]
        gx_tile = gx_numbers[first : first + L]
        for j in range(x_tile.size):
            d = x_tile[j] - means[j]
            u = scales[j] * d + betas[j]
            gu = g_tile[j] * _gate(u, shut, opened, a, b)
            gx_tile[j] = scales[j] * gu - offsets[j] - slopes[j] * d


@kernel
def normalised(x: Floats, gamma: Floats, beta: Floats, eps: float, gate: Floats) -> tuple[Floats, Floats]:
    """Return y = f(batch_norm(x)) of rows x[R, C] by their own statistics, and `affine` [5, C] for the gradient.

    affine: mean, gamma / sqrt(var + eps), beta, 1 / sqrt(var + eps), var. gate: what `gate_of` returns.
    """
    affine, y = _coefficients(_moments(x), gamma, beta, eps), np.empty_like(x)
    _normalise(x, affine, gate, y)
    return y, affine


@kernel
def through_norm(
    g: Floats, x: Floats, gamma: Floats, affine: Floats, gate: Floats, share: float
) -> tuple[Floats, Floats, Floats]:
    """Return gx, ggamma, gbeta of `normalised`; share is 1/R, or 0 if the statistics are constants."""
    gx, C = np.empty_like(x), gamma.size
    shares = _gradient_shares(_gradient_sums(g, x, affine, gate).reshape((1, 2, C)), gamma, affine, share)
    _gradient_rows(g, x, affine, gate, shares, gx)
    return gx, shares[0], shares[1]


@kernel
def follow(
    running_mean: Floats, running_var: Floats, mean: Floats, var: Floats, rows: int, momentum: float
) -> None:
    """Move the running statistics towards those of a batch: r += momentum * (batch - r), the variance unbiased.

    Args:
        running_mean, running_var: float32 or float64 [C], changed in place.
        mean, var: of the batch, [C], var biased.
        rows: R >= 1 of the batch; the unbiased variance is R / (R - 1) times var, or var if R is 1.
        momentum: in 0..1.
    """
    unbiased = rows / max(rows - 1, 1)
    for c in range(mean.size):
        running_mean[c] += momentum * (mean[c] - running_mean[c])
        running_var[c] += momentum * (var[c] * unbiased - running_var[c])


def batch_norm_forward(
    x: Floats, gamma: Floats, beta: Floats, eps: float, code: int
) -> tuple[Floats, Floats, Floats]:
    """Return y, mean [C] and biased var [C]: x normalised by its own statistics (training).

    Args:
        x: float32 or float64 [..., C], C-contiguous, at least one row.
        gamma, beta: dtype of x, [C], scale and shift.
        eps: > 0, added to the variance.
        code: of the activation, see `activation.py`.

    Source: Ioffe, Szegedy, algorithm 1.
    """
    rows = x.reshape(-1, x.shape[-1])
    parts = parts_of(len(rows), rows.size)
    if len(parts) == 1:  # one call: on small maps the calls take most of the time
        y, affine = normalised(rows, gamma, beta, eps, gate_of(code, x.dtype))
        return _activated(y, code).reshape(x.shape), affine[0], affine[4]
    lengths = np.array([part.stop - part.start for part in parts])
    found = _combined_moments(np.array(each(lambda part: _moments(rows[part]), parts)), lengths)
    mean, var = found.astype(x.dtype)
    return batch_norm_infer(x, gamma, beta, mean, var, eps, code), mean, var


def batch_norm_infer(
    x: Floats, gamma: Floats, beta: Floats, mean: Floats, var: Floats, eps: float, code: int
) -> Floats:
    """Return y: x normalised by the given statistics (inference).

    Args:
        x, gamma, beta, eps, code: as in `batch_norm_forward`.
        mean, var: dtype of x, [C], var >= 0.

    Source: Ioffe, Szegedy, section 3.1.
    """
    rows, gate = x.reshape(-1, x.shape[-1]), gate_of(code, x.dtype)
    affine, y = _coefficients(np.array((mean, var)), gamma, beta, eps), np.empty(rows.shape, x.dtype)
    each(lambda part: _normalise(rows[part], affine, gate, y[part]), parts_of(len(rows), rows.size))
    return _activated(y, code).reshape(x.shape)


def _activated(u: Floats, code: int) -> Floats:
    """Return `u`, which its gate has activated already; f(u) if the activation has no gate."""
    return u if code in GATES else activation_forward(u, code)


def batch_norm_grad(
    g: Floats,
    x: Floats,
    gamma: Floats,
    beta: Floats,
    mean: Floats,
    var: Floats,
    eps: float,
    code: int,
    constant_statistics: bool = False,
) -> tuple[Floats, Floats, Floats]:
    """Return gx, ggamma [C], gbeta [C].

        gu = g * f'(u)        gbeta = sum_r gu        ggamma = sum_r gu * xhat
        gx = gamma / sqrt(var + eps) * (gu - gbeta / R - xhat * ggamma / R)        (training)
        gx = gamma / sqrt(var + eps) * gu                                          (constant statistics)

    Args:
        g: gradient of the loss in y, dtype and shape of x.
        x, gamma, beta, mean, var, eps, code: what the forward function was given and returned.
        constant_statistics: whether mean and var are constants, through which no gradient flows.

    Source: Ioffe, Szegedy, section 3; the chain of their six equations is collected into one.
    """
    rows, gate = x.reshape(-1, x.shape[-1]), gate_of(code, x.dtype)
    gu, affine = g.reshape(rows.shape), _coefficients(np.array((mean, var)), gamma, beta, eps)
    if code not in GATES:  # multiply by f'(u) here; the gate of the identity leaves gu as it is
        u = np.empty_like(rows)
        _normalise(rows, affine, gate, u)
        gu = activation_grad_input(gu, u, code)
    share, parts = 0.0 if constant_statistics else 1.0 / len(rows), parts_of(len(rows), rows.size)
    if len(parts) == 1:
        gx, ggamma, gbeta = through_norm(gu, rows, gamma, affine, gate, share)
        return gx.reshape(x.shape), ggamma, gbeta
    sums = np.array(each(lambda part: _gradient_sums(gu[part], rows[part], affine, gate), parts))
    shares, gx = _gradient_shares(sums, gamma, affine, share), np.empty_like(rows)
    each(lambda part: _gradient_rows(gu[part], rows[part], affine, gate, shares, gx[part]), parts)
    return gx.reshape(x.shape), shares[0], shares[1]


# A bias, and the ReLU after it: the same walk over tiles.


@kernel
def _add_bias(y: Floats, b: Floats, relu: bool) -> None:
    """Write y[r, c] = y[r, c] + b[c], or its ReLU, in place."""
    R, C = y.shape
    biases, numbers = _tile(b, max(1, min(R, TILE // C))), y.reshape(-1)
    lowest = ZERO if relu else -np.float32(np.inf)
    for first in range(0, R * C, biases.size):
        y_tile = numbers[first : first + biases.size]
        for j in range(y_tile.size):
            u = y_tile[j] + biases[j]
            y_tile[j] = lowest if u < lowest else u  # written so that NaN stays


@kernel
def _bias_gradients(g: Floats, y: Floats, gu: Floats, relu: bool) -> Doubles:
    """Return gb[c] = sum_r gu[r, c]; with ReLU write gu = g where y > 0, else 0; without it gu is g."""
    R, C = g.shape
    L, sums = max(1, min(R, TILE // C)) * C, np.zeros(C)
    short = np.zeros(L, g.dtype)
    g_numbers, y_numbers, gu_numbers = g.reshape(-1), y.reshape(-1), gu.reshape(-1)
    for count, first in enumerate(range(0, R * C, L), 1):
        g_tile = g_numbers[first : first + L]
        if relu:
            y_tile, gu_tile = y_numbers[first : first + L], gu_numbers[first : first + L]
            for j in range(g_tile.size):
                u = g_tile[j] * (ZERO if y_tile[j] <= ZERO else ONE)
                gu_tile[j] = u
                short[j] += u
        else:
            for j in range(g_tile.size):
                short[j] += g_tile[j]
        if count % TERMS == 0:
            _add_short_sums(short, sums)
    _add_short_sums(short, sums)
    return sums


def bias_forward(y: Floats, b: Floats, relu: bool) -> None:
    """Write y = y + b, or max(y + b, 0), in place.

    Args:
        y: float32 or float64 [N, ..., C], C-contiguous, changed.
        b: dtype of y, [C].
        relu: whether ReLU follows.
    """
    rows = y.reshape(-1, y.shape[-1])
    each(lambda part: _add_bias(rows[part], b, relu), parts_of(len(rows), rows.size))


def bias_grad(g: Floats, y: Floats, relu: bool) -> tuple[Floats, Floats]:
    """Return (gu, gb): the gradients of the loss in the map before the bias (g itself without ReLU), and in b [C].

    Args:
        g: gradient of the loss in y, dtype and shape of y.
        y: what `bias_forward` wrote.
        relu: as in `bias_forward`.
    """
    shape, gu = (-1, g.shape[-1]), np.empty_like(g) if relu else g
    g_rows, y_rows, gu_rows = g.reshape(shape), y.reshape(shape), gu.reshape(shape)
    parts = parts_of(len(g_rows), g.size)
    sums = each(lambda part: _bias_gradients(g_rows[part], y_rows[part], gu_rows[part], relu), parts)
    return gu, np.sum(sums, axis=0).astype(g.dtype)
