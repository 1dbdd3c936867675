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
fails all comparisons, comes out as NaN. Simple loops run at the speed of memory: all but SIGMOID take,
within a tenth, as long as copying the array; it takes three times as long, for its arithmetic.

The library's exponential function is a call for every element and keeps the loop from being vectorised. In float32
`_exp` takes its place, a polynomial: 32,768 sigmoids in 8.9 us for 87.7 (PyTorch 14 to 17), the error at most 2.3
units in the last place between -20 and 20, as PyTorch's, and 4 anywhere (the library's: 2). In float64, which is
for checking, the library's stays.

Three of them are a *gate*, f(u) = u * gate(u), that is shut up to one number, open from another, and straight
between, so that one loop with other numbers computes any of the three (`batch_norm.py` does):

    gate(u) = 0 where u <= shut, 1 where u >= open, else a*u + b        f'(u) = 0, 1, else 2a*u + b

Source: hsigmoid and hswish: Howard et al., Searching for MobileNetV3, 2019, section 5.2; exponential function:
Moshier, Cephes mathematical library, expf.c, 1992 (method and coefficients).
"""

import numpy as np
from numpy.typing import NDArray

from nachos_kernels._jit import kernel

IDENTITY, RELU, HSWISH, HSIGMOID, SIGMOID = 0, 1, 2, 3, 4

# A Python 3.0 is a float64 and would pull float32 arithmetic up to float64; these are exact in both.
ZERO, ONE, TWO, THREE, SIX = np.float32(0), np.float32(1), np.float32(2), np.float32(3), np.float32(6)

# (shut, open, a, b) of the gates; no number is <= NaN, every number is >= -inf: the identity's is always open.
GATES = {IDENTITY: (np.nan, -np.inf, 0.0, 0.0), RELU: (0.0, 0.0, 0.0, 0.0), HSWISH: (-3.0, 3.0, 1 / 6, 1 / 2)}

# ln 2 in two parts, the first of which has so few digits that a product with an exponent is exact.
LOG2_E, LN2_HIGH, LN2_LOW = np.float32(1.44269504), np.float32(0.693359375), np.float32(-2.12194440e-4)
EXP = tuple(np.float32(c) for c in (1.9875692e-4, 1.3981999e-3, 8.3334519e-3, 4.1665796e-2, 1.6666665e-1, 0.5))
TO_ZERO = np.float32(-88.1)  # from here on exp is 0: its power of two would be 2^-127, which is not a normal number
HALF, BIAS = np.float32(0.5), np.float32(3 * 2**22 + 127)


@kernel
def _exp(a: np.float32) -> np.float32:
    """Return exp(a) for a <= 0: 2^n * exp(r) with n the integer nearest to a / ln 2 and r what is left.

    exp(r) is a polynomial. n + 1.5 * 2^23 + 127 has n + 127, the exponent field of 2^n, in its lowest bits, from
    where a shift brings it to its place; no float is converted to an integer, which would be undefined for NaN.
    """
    a = TO_ZERO if a < TO_ZERO else a
    n = np.floor(a * LOG2_E + HALF)
    r = (a - n * LN2_HIGH) - n * LN2_LOW
    p = ((((EXP[0] * r + EXP[1]) * r + EXP[2]) * r + EXP[3]) * r + EXP[4]) * r + EXP[5]
    field = np.float32(n + BIAS).view(np.int32)
    power = np.int32(field << np.int32(23)).view(np.float32)
    return np.float32(((p * r) * r + r + ONE) * power)


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
    elif code == SIGMOID and u.itemsize == 4:
        for i in range(u.size):
            e = _exp(np.float32(-abs(u[i])))  # never overflows; f(u) = 1 / (1 + e) above zero, e / (1 + e) below
            y[i] = (e if u[i] < ZERO else ONE) / (ONE + e)
    elif code == SIGMOID:
        for i in range(u.size):
            exact = np.exp(-abs(u[i]))
            y[i] = (exact if u[i] < ZERO else ONE) / (ONE + exact)


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
    elif code == SIGMOID and g.itemsize == 4:
        for i in range(g.size):
            e = _exp(np.float32(-abs(u[i])))  # f(u) * f(-u) = 1 / (1 + e) * e / (1 + e)
            gu[i] = g[i] * (e / ((ONE + e) * (ONE + e)))
    elif code == SIGMOID:
        for i in range(g.size):
            exact = np.exp(-abs(u[i]))
            gu[i] = g[i] * (exact / ((ONE + exact) * (ONE + exact)))


def activation_forward(x: NDArray[np.floating], code: int) -> NDArray[np.floating]:
    """Return y with y[i] = f(x[i]).

    Args:
        x: float32 or float64, any shape.
        code: IDENTITY, RELU, HSWISH, HSIGMOID or SIGMOID.

    Returns:
        y: dtype and shape of x, C-contiguous.

    Source: the module's table.
    """
    y = np.empty(x.shape, x.dtype)  # flat arrays: one compiled kernel serves every number of axes
    activate(x.reshape(-1), y.reshape(-1), code)
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
    multiply_by_slope(g.reshape(-1), x.reshape(-1), gx.reshape(-1), code)
    return gx
