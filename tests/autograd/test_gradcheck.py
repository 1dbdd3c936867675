"""The gradient check itself: it must notice a wrong vjp, and say in which input."""

import numpy as np
import pytest

from nachos_min.autograd import Tensor, gradcheck, multiply
from nachos_min.autograd.tape import record

X, Y = np.array([[1.0, -2.0], [0.5, 3.0]]), np.array([2.0, -1.0])


def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def test_right_gradients_pass_with_a_small_error_and_inputs_stay() -> None:
    x = X.copy()
    assert 0.0 <= gradcheck(lambda x, y: x * y * y, x, Y, rng=rng()) < 1e-8
    np.testing.assert_array_equal(x, X)
    assert gradcheck(multiply, X.astype(np.float32), Y, rng=rng()) < 1e-8  # in float64, too
    assert gradcheck(lambda x, y: x + 0.0 * y, X, Y, rng=rng()) < 1e-8  # the gradient in y is 0
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


def test_a_single_wrong_element_is_found_and_variadic_inputs_are_named_by_place() -> None:
    def second_is_wrong(*tensors: Tensor) -> Tensor:
        slip = np.ones_like(X)
        slip[1, 0] = 1.001
        return record(
            tensors[0].data + tensors[1].data, (tensors[0], lambda g: g), (tensors[1], lambda g: slip * g)
        )

    with pytest.raises(AssertionError, match=r"gradcheck: input 1 \(tensors\).* relative error .* > 1.0e-06"):
        gradcheck(second_is_wrong, X, X, rng=rng())
