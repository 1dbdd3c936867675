"""Activations and their slopes compute what the one-number oracles compute, kinks and NaN included."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import oracles
from nachos_kernels import activation

CODES = {name: getattr(activation, name.upper()) for name in oracles.ACTIVATIONS}
KINKS_AND_EXTREMES = [0.0, -0.0, 3.0, -3.0, 1e4, -1e4, 1e-30, -1e-30, np.nan]
each_activation = pytest.mark.parametrize("name", CODES)


@each_activation
@given(
    x=st.lists(st.one_of(st.sampled_from(KINKS_AND_EXTREMES), st.floats(-8, 8, width=32)), max_size=12),
    dtype=st.sampled_from([np.float32, np.float64]),
)
def test_activation_equals_oracle(name, x, dtype):
    x = np.array(x, dtype)
    tolerance = {
        "rtol": 2e-6 if dtype == np.float32 else 1e-12,
        "atol": 1e-7 if dtype == np.float32 else 1e-14,
    }
    y = activation.activation_forward(x, CODES[name])
    np.testing.assert_allclose(y, oracles.activation_forward(x, name), **tolerance, strict=True)
    numbers = x[~np.isnan(x)]  # the slope at NaN is nobody's business: forward has reported it
    g = np.linspace(-2, 2, numbers.size).astype(dtype)
    gx = activation.activation_grad_input(g, numbers, CODES[name])
    np.testing.assert_allclose(gx, oracles.activation_grad_input(g, numbers, name), **tolerance, strict=True)


@each_activation
def test_nan_comes_out_as_nan(name):
    x = np.array([1.0, np.nan], np.float32)
    np.testing.assert_array_equal(np.isnan(activation.activation_forward(x, CODES[name])), [False, True])
    gx = activation.activation_grad_input(x, np.zeros(2, np.float32), CODES[name])
    np.testing.assert_array_equal(np.isnan(gx), [False, True])


@each_activation
@pytest.mark.parametrize("order", ["C", "F"])
def test_shape_survives_and_inputs_are_not_changed(name, order):
    x = np.asarray(np.arange(-6.0, 6.0).reshape(2, 3, 2), order=order)
    g, before = x + 1, x.copy()
    y, gx = activation.activation_forward(x, CODES[name]), activation.activation_grad_input(g, x, CODES[name])
    np.testing.assert_allclose(y, oracles.activation_forward(x, name), rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(gx, oracles.activation_grad_input(g, x, name), rtol=1e-12, atol=1e-14)
    np.testing.assert_array_equal(x, before)
    np.testing.assert_array_equal(g, before + 1)


@each_activation
def test_in_place_loops_do_the_same(name):
    """What batch norm applies to its own arrays is what the functions return."""
    x = np.linspace(-5, 5, 23)
    u, g = x.copy(), np.cos(x)
    activation.activate(u, u, CODES[name])
    activation.multiply_by_slope(g, x, g, CODES[name])
    np.testing.assert_array_equal(u, activation.activation_forward(x, CODES[name]))
    np.testing.assert_array_equal(g, activation.activation_grad_input(np.cos(x), x, CODES[name]))


@pytest.mark.parametrize("code", activation.GATES)
def test_gates_are_the_activations_and_their_slopes(code):
    """f(u) = u * gate(u) and f'(u) with a doubled, as the table of the module says."""
    u = np.array([-1e4, -3.0, -2.5, -1e-30, 0.0, 1e-30, 2.0, 3.0, 1e4, np.nan])
    shut, opened, a, b = activation.GATES[code]
    gate = np.where(u <= shut, 0.0, np.where(u >= opened, 1.0, a * u + b))
    slope = np.where(u <= shut, 0.0, np.where(u >= opened, 1.0, 2 * a * u + b))
    np.testing.assert_allclose(u * gate, activation.activation_forward(u, code), rtol=1e-12)
    numbers = u[:-1]  # the slope at NaN is nobody's business
    ones = np.ones_like(numbers)
    np.testing.assert_allclose(slope[:-1], activation.activation_grad_input(ones, numbers, code), rtol=1e-12)


def test_sigmoid_keeps_its_small_values():
    """Below zero it is exp(x) / (1 + exp(x)): 1 / (1 + exp(-x)) overflows in float32 from x = -89 on."""
    y = activation.activation_forward(np.array([-80.0, -1000.0], np.float32), activation.SIGMOID)
    assert y[0] == pytest.approx(np.exp(-80.0), rel=1e-5)
    assert y[1] == 0


def test_the_polynomial_is_as_good_as_a_library_function():
    """Within four units in the last place of the truth; 9e-39, which would be denormal, and less may become 0."""
    x = np.concatenate([np.linspace(-100, 100, 40_001), np.linspace(-1, 1, 10_001)]).astype(np.float32)
    with np.errstate(under="ignore"):
        exact = 1 / (1 + np.exp(-x.astype(np.float64)))
    y = activation.activation_forward(x, activation.SIGMOID)
    assert np.all(np.abs(y - exact) <= 4 * np.spacing(exact.astype(np.float32)) + 9e-39)
    slopes = activation.activation_grad_input(np.ones_like(x), x, activation.SIGMOID)
    np.testing.assert_allclose(slopes, exact * (1 - exact), rtol=1e-6, atol=1e-8)
    assert activation.activation_forward(np.zeros(3, np.float32), activation.SIGMOID).tolist() == [0.5] * 3
