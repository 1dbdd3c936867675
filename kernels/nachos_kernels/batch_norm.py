"""Batch normalisation together with the activation that follows it.

    xhat = (x - mean) / sqrt(var + eps)        u = gamma * xhat + beta        y = f(u)

per channel, over all other axes; f is one of `activation.py`, which is to be read before. The two are one
operator: u is not kept for the gradient, which computes it again from x. Running averages are kept by the
layer, not here.

Source: Ioffe, Szegedy, Batch normalization, 2015, algorithm 1 and section 3.
"""

from functools import cache

import numpy as np
from numpy.typing import NDArray

from nachos_kernels.activation import GATES, IDENTITY, activation_forward, activation_grad_input
from nachos_kernels.batch_norm_loops import (
    coefficients,
    combined_moments,
    gradient_rows,
    gradient_shares,
    gradient_sums,
    moments,
    normalise,
    normalised,
    through_norm,
)
from nachos_kernels.parts import each, parts_of


@cache
def gate_of(activation_code: int, dtype: np.dtype[np.floating]) -> NDArray[np.floating]:
    """Return the activation's gate [4], shut, open, a, b; the identity's if it has none (`GATES` tells)."""
    return np.array(GATES.get(activation_code, GATES[IDENTITY]), dtype)


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
    rows = x.reshape(-1, x.shape[-1])
    parts = parts_of(len(rows), rows.size)
    if len(parts) == 1:  # one call: on small maps calls are what takes the time
        y, affine = normalised(rows, gamma, beta, eps, gate_of(activation_code, x.dtype))
        return _activated(y, activation_code).reshape(x.shape), affine[0], affine[4]
    lengths = np.array([part.stop - part.start for part in parts])
    found = combined_moments(np.array(each(lambda part: moments(rows[part]), parts)), lengths)
    mean, var = found.astype(x.dtype)
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
    rows, gate = x.reshape(-1, x.shape[-1]), gate_of(activation_code, x.dtype)
    affine, y = coefficients(np.array((mean, var)), gamma, beta, eps), np.empty(rows.shape, x.dtype)
    each(lambda part: normalise(rows[part], affine, gate, y[part]), parts_of(len(rows), rows.size))
    return _activated(y, activation_code).reshape(x.shape)


def _activated(u: NDArray[np.floating], activation_code: int) -> NDArray[np.floating]:
    """Return f(u) if the activation is no gate; else `u`, to which its gate was applied already."""
    return u if activation_code in GATES else activation_forward(u, activation_code)


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
    rows, gate = x.reshape(-1, x.shape[-1]), gate_of(activation_code, x.dtype)
    gu, affine = g.reshape(rows.shape), coefficients(np.array((mean, var)), gamma, beta, eps)
    if activation_code not in GATES:  # multiply by f'(u) here; the identity's gate lets the loops leave it as it is
        u = np.empty_like(rows)
        normalise(rows, affine, gate, u)
        gu = activation_grad_input(gu, u, activation_code)
    share, parts = 1.0 / len(rows) if statistics_depend_on_x else 0.0, parts_of(len(rows), rows.size)
    if len(parts) == 1:
        gx, ggamma, gbeta = through_norm(gu, rows, gamma, affine, gate, share)
        return gx.reshape(x.shape), ggamma, gbeta
    sums = np.array(each(lambda part: gradient_sums(gu[part], rows[part], affine, gate), parts))
    shares, gx = gradient_shares(sums, gamma, affine, share), np.empty_like(rows)
    each(lambda part: gradient_rows(gu[part], rows[part], affine, gate, shares, gx[part]), parts)
    return gx.reshape(x.shape), shares[0], shares[1]


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
