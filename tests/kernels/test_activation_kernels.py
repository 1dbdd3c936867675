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
    x, before = np.array(x, dtype), np.array(x, dtype)
    oracles.assert_close(
        activation.activation_forward(x, CODES[name]), oracles.activation_forward(x, name), 2e-6, 1e-12
    )
    np.testing.assert_array_equal(x, before)
    numbers = x[~np.isnan(x)]  # at NaN the slope is arbitrary
    g = np.linspace(-2, 2, numbers.size).astype(dtype)
    gx = activation.activation_grad_input(g, numbers, CODES[name])
    oracles.assert_close(gx, oracles.activation_grad_input(g, numbers, name), 2e-6, 1e-12)


@each_activation
def test_a_nan_gradient_stays_and_any_memory_order_is_read(name):
    x = np.asfortranarray(np.arange(-6.0, 6.0).reshape(2, 3, 2))
    g = x + np.array([1.0, np.nan])
    gx = activation.activation_grad_input(g, x, CODES[name])
    oracles.assert_close(gx, oracles.activation_grad_input(g, x, name))
    oracles.assert_close(activation.activation_forward(x, CODES[name]), oracles.activation_forward(x, name))


@pytest.mark.parametrize("code", activation.GATES)
def test_gates_are_the_activations_and_their_slopes(code):
    """f(u) = u * gate(u), and f'(u) with a doubled."""
    u = np.array([-1e4, -3.0, -2.5, -1e-30, 0.0, 1e-30, 2.0, 3.0, 1e4, np.nan])
    shut, opened, a, b = activation.gate_of(code, np.dtype(np.float64))
    gate = np.where(u <= shut, 0.0, np.where(u >= opened, 1.0, a * u + b))
    slope = np.where(u <= shut, 0.0, np.where(u >= opened, 1.0, 2 * a * u + b))
    oracles.assert_close(u * gate, activation.activation_forward(u, code))
    oracles.assert_close(slope[:-1], activation.activation_grad_input(np.ones(9), u[:-1], code))


def test_the_polynomial_is_as_good_as_a_library_function():
    """Within four units in the last place of the truth; 9e-39, which would be denormal, and less may become 0."""
    x = np.concatenate([np.linspace(-100, 100, 40_001), np.linspace(-1, 1, 10_001), [-1000.0]]).astype(np.float32)
    with np.errstate(under="ignore", over="ignore"):
        exact = 1 / (1 + np.exp(-x.astype(np.float64)))
    y = activation.activation_forward(x, activation.SIGMOID)
    assert np.all(np.abs(y - exact) <= 4 * np.spacing(exact.astype(np.float32)) + 9e-39)
    slopes = activation.activation_grad_input(np.ones_like(x), x, activation.SIGMOID)
    np.testing.assert_allclose(slopes, exact * (1 - exact), rtol=1e-6, atol=1e-8)
    assert activation.activation_forward(np.zeros(3, np.float32), activation.SIGMOID).tolist() == [0.5] * 3
