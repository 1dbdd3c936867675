"""The loops of batch normalisation over the rows [R, C] of a map: moments, normalisation, gradients.

Read `batch_norm.py` first: its equations are put together from these. They stand alone because a map is also
normalised inside of a larger compiled function (`inverted_residual.py`).

Every loop below says `for r, c`, but walks over *tiles*: a row has few channels (8 to 200), and a loop over so
few is mostly starting and ending. So as many rows as make about 512 numbers are taken as one long row, and the
numbers per channel are repeated to its length. The array sums of a tile stay in the first-level cache.
Measured in float32 on 65,536 x 16 with h-swish: forward 0.85 -> 0.27 ms, backward 0.98 -> 0.43; a copy: 0.09.

Sums of up to N*H*W terms are made of short sums: 64 terms in the dtype of x, whose total joins a float64. Sums
in float64 alone fill the vector registers with half as many numbers. Sums over four tiles at a time, which share
loads and one store, were 1.35 times as fast on maps in the second-level cache and half as fast on maps that are
not: 7 ms of a step on 64 images of 32x32 lost, none gained on 8x8.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from nachos_kernels._jit import kernel
from nachos_kernels.tiles import TERMS, TILE, add_short_sums, tile

ZERO, ONE, TWO = np.float32(0), np.float32(1), np.float32(2)  # exact in both dtypes; a 2.0 would be a float64
SAMPLED = 16  # one row of so many


@kernel
def _slope(u: Any, shut: Any, opened: Any, a: Any, b: Any) -> Any:
    """Return 0 where u <= shut, 1 where u >= opened, else a*u + b: gate(u), or f'(u) if a is twice the gate's."""
    return ZERO if u <= shut else ONE if u >= opened else a * u + b


@kernel
def moments(x: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return mean[c] = sum_r x[r, c] / R and var[c] = sum_r (x[r, c] - mean[c])^2 / R, as two rows.

    One pass, over the distances d = x - pivot: mean = pivot + sum d / R, var = sum d^2 / R - (sum d / R)^2.
    That difference is as good as its terms are not much larger than itself. The pivot is the mean of every
    16th row, and however the rows are chosen, the mean of a sixteenth of them is no further from the mean of
    all than sqrt(15 var): the terms are at most 16 times the difference, wherever the mean lies.

    Args:
        x: float32 or float64 [R, C], C-contiguous, R >= 1.

    Returns:
        float64 [2, C], mean and biased variance.
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

    pivots, numbers = tile(pivot, times), x.reshape(-1)
    short_d, short_d2 = np.zeros_like(pivots), np.zeros_like(pivots)
    sum_d, sum_d2 = np.zeros(C), np.zeros(C)
    for count, first in enumerate(range(0, R * C, pivots.size), 1):
        x_tile = numbers[first : first + pivots.size]
        for j in range(x_tile.size):
            d = x_tile[j] - pivots[j]
            short_d[j] += d
            short_d2[j] += d * d
        if count % TERMS == 0:
            add_short_sums(short_d, sum_d)
            add_short_sums(short_d2, sum_d2)
    add_short_sums(short_d, sum_d)
    add_short_sums(short_d2, sum_d2)

    found = np.empty((2, C))
    for c in range(C):
        mean_d = sum_d[c] / R
        square = sum_d2[c] / R - mean_d * mean_d
        found[0, c] = pivot[c] + mean_d
        found[1, c] = 0.0 if square < 0.0 else square  # rounding; written so that NaN stays
    return found


@kernel
def combined_moments(parts: NDArray[np.float64], rows: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the moments of all rows from those of parts of them.

        mean = sum_p rows[p] mean[p] / R        var = sum_p rows[p] (var[p] + (mean[p] - mean)^2) / R

    Args:
        parts: float64 [P, 2, C], what `moments` found in each part.
        rows: int64 [P], their numbers of rows; R is their sum.

    Returns:
        float64 [2, C], mean and biased variance.

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
def coefficients(
    moments_found: NDArray[np.floating], gamma: NDArray[np.floating], beta: NDArray[np.floating], eps: float
) -> NDArray[np.floating]:
    """Return mean, gamma / sqrt(var + eps), beta, 1 / sqrt(var + eps), var: the rows of `affine` in all below.

    Args:
        moments_found: float32 or float64 [2, C], mean and variance.
        gamma, beta: float32 or float64 [C].
        eps: > 0.

    Returns:
        dtype of gamma, [5, C].
    """
    affine = np.empty((5, gamma.size), gamma.dtype)
    for c in range(gamma.size):
        inverse_std = 1.0 / np.sqrt(moments_found[1, c] + eps)
        affine[0, c], affine[1, c], affine[2, c] = moments_found[0, c], gamma[c] * inverse_std, beta[c]
        affine[3, c], affine[4, c] = inverse_std, moments_found[1, c]
    return affine


@kernel
def normalise(
    x: NDArray[np.floating], affine: NDArray[np.floating], gate: NDArray[np.floating], y: NDArray[np.floating]
) -> None:
    """Write y[r, c] = u * gate(u) with u = scale[c] * (x[r, c] - mean[c]) + beta[c].

    Normalisation and activation are one loop without a choice between activations, which would not be
    vectorised. A second loop over y for the activation took 1.4 times as long.

    Args:
        x: float32 or float64 [R, C], C-contiguous.
        affine: dtype of x, what `coefficients` returned.
        gate: dtype of x, shut, open, a, b of `activation.py`.
        y: dtype and shape of x, C-contiguous; not x itself (see `gradient_rows`).
    """
    R, C = x.shape
    times = max(1, min(R, TILE // C))
    means, scales, betas = tile(affine[0], times), tile(affine[1], times), tile(affine[2], times)
    x_numbers, y_numbers, L = x.reshape(-1), y.reshape(-1), times * C
    shut, opened, a, b = gate[0], gate[1], gate[2], gate[3]
    for first in range(0, R * C, L):
        x_tile, y_tile = x_numbers[first : first + L], y_numbers[first : first + L]
        for j in range(x_tile.size):
            u = scales[j] * (x_tile[j] - means[j]) + betas[j]
            y_tile[j] = u * _slope(u, shut, opened, a, b)


@kernel
def gradient_sums(
    g: NDArray[np.floating], x: NDArray[np.floating], affine: NDArray[np.floating], gate: NDArray[np.floating]
) -> NDArray[np.float64]:
    """Return sum_r gu[r, c] and sum_r gu[r, c] * (x[r, c] - mean[c]) with gu = g * f'(u), as two rows.

    Args:
        g: gradient of the loss in y, dtype and shape of x.
        x, affine, gate: as in `normalise`.

    Returns:
        float64 [2, C]; those of parts of the rows add up to those of all.
    """
    R, C = x.shape
    times = max(1, min(R, TILE // C))
    means, scales, betas = tile(affine[0], times), tile(affine[1], times), tile(affine[2], times)
    g_numbers, x_numbers, L = g.reshape(-1), x.reshape(-1), times * C
    short_gu, short_gu_d = np.zeros_like(means), np.zeros_like(means)
    sums = np.zeros((2, C))
    shut, opened, a, b = gate[0], gate[1], TWO * gate[2], gate[3]
    for count, first in enumerate(range(0, R * C, L), 1):
        g_tile, x_tile = g_numbers[first : first + L], x_numbers[first : first + L]
        for j in range(x_tile.size):
            d = x_tile[j] - means[j]
            gu = g_tile[j] * _slope(scales[j] * d + betas[j], shut, opened, a, b)
            short_gu[j] += gu
            short_gu_d[j] += gu * d
        if count % TERMS == 0:
            add_short_sums(short_gu, sums[0])
            add_short_sums(short_gu_d, sums[1])
    add_short_sums(short_gu, sums[0])
    add_short_sums(short_gu_d, sums[1])
    return sums


@kernel
def gradient_shares(
    sums: NDArray[np.float64], gamma: NDArray[np.floating], affine: NDArray[np.floating], share: float
) -> NDArray[np.floating]:
    """Return ggamma, gbeta, and the offset and slope of `gradient_rows`, as four rows.

    Args:
        sums: float64 [P, 2, C], what `gradient_sums` found in each part.
        gamma: float32 or float64 [C].
        affine: what `coefficients` returned.
        share: 1/R, R being the rows of all parts; 0 if the statistics do not depend on x.

    Returns:
        dtype of gamma, [4, C].
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
def gradient_rows(
    g: NDArray[np.floating],
    x: NDArray[np.floating],
    affine: NDArray[np.floating],
    gate: NDArray[np.floating],
    shares: NDArray[np.floating],
    gx: NDArray[np.floating],
) -> None:
    """Write gx[r, c] = scale[c] * gu - offset[c] - slope[c] * (x[r, c] - mean[c]) with gu = g * f'(u).

    gu is computed a second time: to keep it from the sums would write and read a whole map more.

    Args:
        g, x, affine, gate: as in `gradient_sums`.
        shares: what `gradient_shares` returned.
        gx: dtype and shape of x, C-contiguous. Not g itself, which would be right, and four times as slow: what
            is written might be what is read next, so nothing is vectorised.
    """
    R, C = x.shape
    times = max(1, min(R, TILE // C))
    means, scales, betas = tile(affine[0], times), tile(affine[1], times), tile(affine[2], times)
    offsets, slopes = tile(shares[2], times), tile(shares[3], times)
    g_numbers, x_numbers, gx_numbers, L = g.reshape(-1), x.reshape(-1), gx.reshape(-1), times * C
    shut, opened, a, b = gate[0], gate[1], TWO * gate[2], gate[3]
    for first in range(0, R * C, L):
        g_tile, x_tile = g_numbers[first : first + L], x_numbers[first : first + L]
        gx_tile = gx_numbers[first : first + L]
        for j in range(x_tile.size):
            d = x_tile[j] - means[j]
            u = scales[j] * d + betas[j]
            gu = g_tile[j] * _slope(u, shut, opened, a, b)
            gx_tile[j] = scales[j] * gu - offsets[j] - slopes[j] * d


@kernel
def normalised(
    x: NDArray[np.floating],
    gamma: NDArray[np.floating],
    beta: NDArray[np.floating],
    eps: float,
    gate: NDArray[np.floating],
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """Return y = f(batch_norm(x)) by the statistics of x itself, and what `coefficients` found.

    Args:
        x: float32 or float64 [R, C], C-contiguous, R >= 1.
        gamma, beta: dtype of x, [C].
        eps: > 0.
        gate: as in `normalise`.
    """
    affine, y = coefficients(moments(x), gamma, beta, eps), np.empty_like(x)
    normalise(x, affine, gate, y)
    return y, affine


@kernel
def through_norm(
    g: NDArray[np.floating],
    x: NDArray[np.floating],
    gamma: NDArray[np.floating],
    affine: NDArray[np.floating],
    gate: NDArray[np.floating],
    share: float,
) -> tuple[NDArray[np.floating], NDArray[np.floating], NDArray[np.floating]]:
    """Return the gradients in x, gamma and beta.

    Args:
        g: gradient of the loss in y, dtype and shape of x.
        x, gamma, affine, gate: as given to `normalised`, and as it returned.
        share: 1/R; 0 if the statistics do not depend on x.
    """
    gx, C = np.empty_like(x), gamma.size
    shares = gradient_shares(gradient_sums(g, x, affine, gate).reshape((1, 2, C)), gamma, affine, share)
    gradient_rows(g, x, affine, gate, shares, gx)
    return gx, shares[0], shares[1]


@kernel
def follow(
    running_mean: NDArray[np.floating],
    running_var: NDArray[np.floating],
    mean: NDArray[np.floating],
    var: NDArray[np.floating],
    rows: int,
    momentum: float,
) -> None:
    """Move the running statistics towards a batch's: r += momentum * (batch - r), the variance unbiased.

    Args:
        running_mean, running_var: float32 or float64 [C], changed in place.
        mean, var: the batch's, var biased.
        rows: R >= 1 of the batch; unbiased is R / (R - 1) times as much, or the same if R is 1.
        momentum: in 0..1.
    """
    unbiased = rows / max(rows - 1, 1)
    for c in range(mean.size):
        running_mean[c] += momentum * (mean[c] - running_mean[c])
        running_var[c] += momentum * (var[c] * unbiased - running_var[c])
