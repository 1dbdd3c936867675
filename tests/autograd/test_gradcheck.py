"""The gradient check itself: it must notice a wrong vjp, and say in which input."""

import numpy as np
import pytest

from nachos_min.autograd import Tensor, gradcheck, multiply
from nachos_min.autograd.tape import record

X, Y = np.array([[1.0, -2.0], [0.5, 3.0]]), np.array([2.0, -1.0])


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_right_gradients_pass_with_a_small_error() -> None:
    assert 0.0 <= gradcheck(lambda x, y: x * y * y, X, Y, rng=rng()) < 1e-8


def test_float32_inputs_are_checked_in_float64() -> None:
    assert gradcheck(multiply, X.astype(np.float32), Y, rng=rng()) < 1e-8


def test_a_gradient_that_is_zero_passes() -> None:
    assert gradcheck(lambda x, y: x + 0.0 * y, X, Y, rng=rng()) < 1e-8
    assert gradcheck(lambda x, y: x * 1.0, X, Y, rng=rng()) < 1e-8  # noqa: ARG005  (y takes no part)


@pytest.mark.parametrize("factor", [1.00001, 0.0, -1.0, np.nan])
def test_a_wrong_vjp_is_found_and_its_input_named(factor: float) -> None:
    def product(left: Tensor, right: Tensor) -> Tensor:
        return record(
            left.data * right.data,
            (left, lambda g: g * right.data),
            (right, lambda g: (factor * g * left.data).sum(axis=0)),
        )

    with pytest.raises(AssertionError, match=r"gradcheck: input 1 \(right\): vjp gives .*central differences"):
        gradcheck(product, X, Y, rng=rng())


def test_inputs_of_a_variadic_function_are_named_by_place() -> None:
    def second_is_wrong(*tensors: Tensor) -> Tensor:
        return record(tensors[0].data + tensors[1].data, (tensors[0], lambda g: g), (tensors[1], lambda g: 2 * g))

    with pytest.raises(AssertionError, match=r"gradcheck: input 1 \(tensors\)"):
        gradcheck(second_is_wrong, X, X, rng=rng())


def test_a_single_wrong_element_is_found() -> None:
    def almost(x: Tensor) -> Tensor:
        slip = np.ones_like(x.data)
        slip[1, 0] = 1.001
        return record(x.data * 3.0, (x, lambda g: g * 3.0 * slip))

    with pytest.raises(AssertionError, match=r"relative error .* > 1.0e-06"):
        gradcheck(almost, X, rng=rng())


def test_the_inputs_are_not_changed() -> None:
    x = X.copy()
    gradcheck(lambda x: x * x, x, rng=rng())
    np.testing.assert_array_equal(x, X)
