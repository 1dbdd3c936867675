"""The loops of batch norm on enough rows for tiles, fours of tiles and short sums, against NumPy in float64."""

import numpy as np
import pytest

import oracles
from nachos_kernels import activation
from nachos_kernels import batch_norm_loops as loops
from nachos_kernels.batch_norm import gate_of

EPS = 1e-3
# Rows and channels: less than a tile, one tile exactly, some and a rest, more than 64 tiles, one channel, many.
SHAPES = [(3, 5), (32, 16), (1000, 24), (9000, 8), (5000, 1), (7, 700)]
KINKS = {"identity": (), "relu": (0,), "hswish": (-3, 3)}  # there a rounding of u decides f'(u)


def drawn(R, C, dtype):
    """Return x, g [R, C], gamma, beta [C] and the moments of x."""
    rng = np.random.default_rng(R)
    x, g = (3 * rng.standard_normal((2, R, C)) + 5).astype(dtype)
    gamma, beta = rng.standard_normal((2, C)).astype(dtype)
    return x, g, gamma, beta, loops.moments(x)


def away_from_kinks(x, gamma, beta, kinks):
    """Return x with some numbers moved, so that no gamma * xhat + beta is within 1e-3 of a kink."""
    for _ in range(50):
        mean, var = x.mean(axis=0, dtype=np.float64), x.var(axis=0, dtype=np.float64)
        u = gamma * (x - mean) / np.sqrt(var + EPS) + beta
        near = np.any([np.abs(u - kink) < 1e-3 for kink in kinks], axis=0) if kinks else np.zeros(x.shape, bool)
        if not near.any():
            return x
        x = np.where(near, x + x.dtype.type(0.1), x)
    raise AssertionError("no such x was found")


def close(result, wanted, dtype, scale=1.0):
    """Compare: rounding of float32 in sums of `scale`, or of float64."""
    np.testing.assert_allclose(result, wanted, rtol=0, atol=scale * (2e-5 if dtype == np.float32 else 1e-11))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("R", "C"), SHAPES)
@pytest.mark.parametrize("name", KINKS)
def test_loops_put_together_are_the_oracle(R, C, name, dtype):
    x, g, gamma, beta, _ = drawn(R, C, dtype)
    x = away_from_kinks(x, gamma, beta, KINKS[name])
    found = loops.moments(x)
    double = [array.astype(np.float64) for array in (x, gamma, beta, g)]
    y, mean, var = oracles.batch_norm_forward(*double[:3], EPS, name)
    close(found[0], mean, dtype)
    close(found[1], var, dtype, 10)
    affine, gate = loops.coefficients(found, gamma, beta, EPS), gate_of(getattr(activation, name.upper()), x.dtype)
    close(affine, [mean, gamma / np.sqrt(var + EPS), beta, 1 / np.sqrt(var + EPS), var], dtype, 10)
    result = np.empty_like(x)
    loops.normalise(x, affine, gate, result)
    close(result, y, dtype, 5)
    sums = loops.gradient_sums(g, x, affine, gate)
    shares = loops.gradient_shares(sums[None], gamma, affine, 1 / R)
    loops.gradient_rows(g, x, affine, gate, shares, result)
    gx, ggamma, gbeta = oracles.batch_norm_grad(double[3], *double[:3], EPS, name)
    close(shares[0], ggamma, dtype, 10 * R**0.5 + R)
    close(shares[1], gbeta, dtype, 10 * R**0.5 + R)
    close(result, gx, dtype, 30)


def test_one_call_is_its_loops_in_turn():
    x, g, gamma, beta, found = drawn(300, 8, np.float64)
    gate = gate_of(activation.HSWISH, x.dtype)
    y, affine = loops.normalised(x, gamma, beta, EPS, gate)
    np.testing.assert_array_equal(affine, loops.coefficients(found, gamma, beta, EPS))
    expected = np.empty_like(x)
    loops.normalise(x, affine, gate, expected)
    np.testing.assert_array_equal(y, expected)
    shares = loops.gradient_shares(loops.gradient_sums(g, x, affine, gate)[None], gamma, affine, 1 / 300)
    loops.gradient_rows(g, x, affine, gate, shares, expected)
    results = loops.through_norm(g, x, gamma, affine, gate, 1 / 300)
    for result, wanted in zip(results, (expected, shares[0], shares[1]), strict=True):
        np.testing.assert_array_equal(result, wanted)


def test_sums_of_parts_add_up():
    x, g, gamma, beta, found = drawn(3000, 24, np.float64)
    affine, gate = loops.coefficients(found, gamma, beta, EPS), gate_of(activation.RELU, x.dtype)
    places = [slice(0, 1003), slice(1003, 3000)]
    whole = loops.gradient_sums(g, x, affine, gate)[None]
    parts = np.array([loops.gradient_sums(g[place], x[place], affine, gate) for place in places])
    halves = np.array([loops.moments(x[place]) for place in places])
    np.testing.assert_allclose(loops.combined_moments(halves, np.array([1003, 1997])), found, rtol=1e-12)
    one, two = (loops.gradient_shares(sums, gamma, affine, 1 / 3000) for sums in (whole, parts))
    np.testing.assert_allclose(one, two, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("rows", "unbiased"), [(1, 1.0), (5, 1.25)])
def test_running_statistics_follow_the_unbiased_variance(rows, unbiased):
    mean, var = np.array([1.0, 2.0]), np.array([4.0, 0.0])
    running_mean, running_var = np.array([0.0, 10.0]), np.array([1.0, 1.0])
    loops.follow(running_mean, running_var, mean, var, rows, 0.25)
    np.testing.assert_allclose(running_mean, [0.25, 8.0])
    np.testing.assert_allclose(running_var, [0.75 + unbiased, 0.75])


def test_what_is_not_a_number_stays_visible():
    x = np.ones((40, 3), np.float32)
    x[17, 1] = np.nan
    np.testing.assert_array_equal(np.isnan(loops.moments(x)), [[False, True, False]] * 2)
