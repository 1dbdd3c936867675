"""Activation functions and their derivatives, applied to every element of an array.

An activation is chosen by a small integer, so that one compiled function serves them all.
Read `_jit.py` before.

    IDENTITY   f(u) = u                              f'(u) = 1
    RELU       f(u) = max(u, 0)                      f'(u) = 1 above 0, else 0
    HSWISH     f(u) = u * hsigmoid(u)                f'(u) = 0 up to -3, 1 from 3 on, (2u + 3)/6 between
    HSIGMOID   f(u) = min(max(u + 3, 0), 6) / 6      f'(u) = 1/6 between -3 and 3, else 0
    SIGMOID    f(u) = 1 / (1 + exp(-u))              f'(u) = f(u) * (1 - f(u))

Each activation has a loop of its own, so that every loop is simple enough to be vectorised; a choice inside
one common loop vectorises only if the compiler moves it out. Every condition is written so that NaN, which
fails all comparisons, comes out as NaN.

Three of them are a *gate*, f(u) = u * gate(u), that is shut up to one number, open from another, and straight
between, so that one loop with other numbers computes any of the three (`batch_norm.py` does):

    gate(u) = 0 where u <= shut, 1 where u >= open, else a*u + b        f'(u) = 0, 1, else 2a*u + b

Source: hsigmoid and hswish: Howard et al., Searching for MobileNetV3, 2019, section 5.2.
"""

import numpy as np
from numpy.typing import NDArray

from nachos_kernels._jit import kernel

IDENTITY, RELU, HSWISH, HSIGMOID, SIGMOID = 0, 1, 2, 3, 4

# A Python 3.0 is a float64 and would pull float32 arithmetic up to float64; these are exact in both.
ZERO, ONE, TWO, THREE, SIX = np.float32(0), np.float32(1), np.float32(2), np.float32(3), np.float32(6)

# (shut, open, a, b) of the gates; no number is <= NaN, every number is >= -inf: the identity's is always open.
GATES = {IDENTITY: (np.nan, -np.inf, 0.0, 0.0), RELU: (0.0, 0.0, 0.0, 0.0), HSWISH: (-3.0, 3.0, 1 / 6, 1 / 2)}


@kernel
def activate(u: NDArray[np.floating], y: NDArray[np.floating], code: int) -> None:
    """Write y[i] = f(u[i]).

    Args:
        u: float32 or float64 [any length].
        y: dtype and length of u; may be u itself.
        code: IDENTITY, RELU, HSWISH, HSIGMOID or SIGMOID.

    Source: the module's table.
    """
    sixth = u.dtype.type(1) / u.dtype.type(6)  # a product takes a third of a division's time
    if code == IDENTITY:
        for i in range(u.size):
            y[i] = u[i]
    elif code == RELU:
        for i in range(u.size):
            y[i] = ZERO if u[i] < ZERO else u[i]
    elif code == HSWISH:
        for i in range(u.size):
            y[i] = u[i] * (ZERO if u[i] <= -THREE else ONE if u[i] >= THREE else (u[i] + THREE) * sixth)
    elif code == HSIGMOID:
        for i in range(u.size):
            y[i] = ZERO if u[i] <= -THREE else ONE if u[i] >= THREE else (u[i] + THREE) * sixth
    elif code == SIGMOID:
        for i in range(u.size):
            e = np.exp(-abs(u[i]))  # never overflows; f(u) = 1 / (1 + e) above zero, e / (1 + e) below
            y[i] = (e if u[i] < ZERO else ONE) / (ONE + e)


@kernel
def multiply_by_slope(
    g: NDArray[np.floating], u: NDArray[np.floating], gu: NDArray[np.floating], code: int
) -> None:
    """Write gu[i] = g[i] * f'(u[i]): the chain rule through the activation.

    Args:
        g: float32 or float64 [any length].
        u: dtype and length of g, what the activation was applied to.
        gu: dtype and length of g.
        code: IDENTITY, RELU, HSWISH, HSIGMOID or SIGMOID.

    Source: the module's table.
    """
    sixth = g.dtype.type(1) / g.dtype.type(6)
    if code == IDENTITY:
        for i in range(g.size):
            gu[i] = g[i]
    elif code == RELU:
        for i in range(g.size):
            gu[i] = g[i] * (ZERO if u[i] <= ZERO else ONE)
    elif code == HSWISH:
        for i in range(g.size):
            gu[i] = g[i] * (ZERO if u[i] <= -THREE else ONE if u[i] >= THREE else (TWO * u[i] + THREE) * sixth)
    elif code == HSIGMOID:
        for i in range(g.size):
            gu[i] = g[i] * (ZERO if abs(u[i]) >= THREE else sixth)
    elif code == SIGMOID:
        for i in range(g.size):
            e = np.exp(-abs(u[i]))  # f(u) * f(-u) = 1 / (1 + e) * e / (1 + e)
            gu[i] = g[i] * (e / ((ONE + e) * (ONE + e)))


def activation_forward(x: NDArray[np.floating], code: int) -> NDArray[np.floating]:
    """Return y with y[i] = f(x[i]).

    Args:
        x: float32 or float64, any shape.
        code: IDENTITY, RELU, HSWISH, HSIGMOID or SIGMOID.

    Returns:
        y: dtype and shape of x, C-contiguous.

    Source: the module's table.
    """
    y = np.empty(x.shape, x.dtype)
    activate(np.ravel(x), y.reshape(-1), code)
    return y


def activation_grad_input(g: NDArray[np.floating], x: NDArray[np.floating], code: int) -> NDArray[np.floating]:
    """Return gx with gx[i] = g[i] * f'(x[i]).

    Args:
        g: gradient of the loss in y, dtype and shape of x.
        x: what `activation_forward` was given.
        code: the same code.

    Returns:
        gx: dtype and shape of x, C-contiguous.

    Source: the module's table.
    """
    gx = np.empty(x.shape, x.dtype)
    multiply_by_slope(np.ravel(g), np.ravel(x), gx.reshape(-1), code)
    return gx
