"""Activation functions and their derivatives, applied to every element of an array.

An integer code chooses the activation, so that one compiled function serves all of them.

    IDENTITY   f(u) = u                              f'(u) = 1
    RELU       f(u) = max(u, 0)                      f'(u) = 1 above 0, else 0
    HSWISH     f(u) = u * hsigmoid(u)                f'(u) = 0 up to -3, 1 from 3 on, (2u + 3)/6 between
    HSIGMOID   f(u) = min(max(u + 3, 0), 6) / 6      f'(u) = 1/6 between -3 and 3, else 0
    SIGMOID    f(u) = 1 / (1 + exp(-u))              f'(u) = f(u) * (1 - f(u))

Source: Howard et al., Searching for MobileNetV3, 2019, section 5.2 (hsigmoid and hswish).
"""

from functools import cache

import numpy as np

from nachos_kernels._jit import Floats, kernel

IDENTITY, RELU, HSWISH, HSIGMOID, SIGMOID = 0, 1, 2, 3, 4

# A Python 3.0 is a float64 and would turn float32 arithmetic into float64; these are exact in both.
ZERO, ONE, TWO, THREE = np.float32(0), np.float32(1), np.float32(2), np.float32(3)

# An activation is gated if f(u) = u * gate(u) with gate(u) = 0 where u <= shut, 1 where u >= open, else a*u + b.
# Then f'(u) = 0, 1, else 2a*u + b, and one loop with (shut, open, a, b) computes any of them. The identity is
# always open: no number is <= NaN, every number is >= -inf.
GATES = {IDENTITY: (np.nan, -np.inf, 0.0, 0.0), RELU: (0.0, 0.0, 0.0, 0.0), HSWISH: (-3.0, 3.0, 1 / 6, 1 / 2)}

# ln 2 in two parts; the first has so few digits that its product with an exponent is exact.
LOG2_E, LN2_HIGH, LN2_LOW = np.float32(1.44269504), np.float32(0.693359375), np.float32(-2.12194440e-4)
EXP = tuple(np.float32(c) for c in (1.9875692e-4, 1.3981999e-3, 8.3334519e-3, 4.1665796e-2, 1.6666665e-1, 0.5))
TO_ZERO = np.float32(-88.1)  # from here on exp is 0: its power of two, 2^-127, is not a normal number
HALF, BIAS = np.float32(0.5), np.float32(3 * 2**22 + 127)


@cache
def gate_of(code: int, dtype: np.dtype[np.floating]) -> Floats:
    """Return the activation's gate [4], shut, open, a, b; that of the identity if it has none."""
    return np.array(GATES.get(code, GATES[IDENTITY]), dtype)


@kernel
def _exp(a: np.float32) -> np.float32:
    """Return exp(a) for a <= 0: 2^n * exp(r) with n the integer nearest to a / ln 2 and r the rest, a polynomial.

    n + 1.5 * 2^23 + 127 has n + 127, the exponent field of 2^n, in its lowest bits, and a shift moves it to its
    place. No float is converted to an integer, which is undefined for NaN. Unlike a call of the library's exp, this
    vectorises; the error is at most 4 units in the last place.

    Source: Moshier, Cephes mathematical library, expf.c, 1992 (method and coefficients).
    """
    a = TO_ZERO if a < TO_ZERO else a
    n = np.floor(a * LOG2_E + HALF)
    r = (a - n * LN2_HIGH) - n * LN2_LOW
    p = ((((EXP[0] * r + EXP[1]) * r + EXP[2]) * r + EXP[3]) * r + EXP[4]) * r + EXP[5]
    field = np.float32(n + BIAS).view(np.int32)
    power = np.int32(field << np.int32(23)).view(np.float32)
    return np.float32(((p * r) * r + r + ONE) * power)


# Each activation has its own loop: a choice inside a common loop may keep it from being vectorised. NaN fails every
# comparison, and each condition is written so that NaN stays.


@kernel
def _activate(u: Floats, y: Floats, code: int) -> None:
    """Write y[i] = f(u[i])."""
    sixth = u.dtype.type(1) / u.dtype.type(6)  # a product is faster than a division
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
def _multiply_by_slope(g: Floats, u: Floats, gu: Floats, code: int) -> None:
    """Write gu[i] = g[i] * f'(u[i])."""
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


def activation_forward(x: Floats, code: int) -> Floats:
    """Return y with y[i] = f(x[i]), C-contiguous.

    Args:
        x: float32 or float64, any shape.
        code: IDENTITY, RELU, HSWISH, HSIGMOID or SIGMOID.
    """
    y = np.empty(x.shape, x.dtype)  # flat arrays: one compiled kernel serves every number of axes
    _activate(x.reshape(-1), y.reshape(-1), code)
    return y


def activation_grad_input(g: Floats, x: Floats, code: int) -> Floats:
    """Return gx with gx[i] = g[i] * f'(x[i]), C-contiguous.

    Args:
        g: gradient of the loss in y, dtype and shape of x.
        x, code: what `activation_forward` was given.
    """
    gx = np.empty(x.shape, x.dtype)
    _multiply_by_slope(g.reshape(-1), x.reshape(-1), gx.reshape(-1), code)
    return gx
