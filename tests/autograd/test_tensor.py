"""The Tensor type: what it wraps, how constants join in, what it prints."""

import copy

import numpy as np
import pytest

from nachos_min.autograd import Tensor, batch_norm_infer, cross_entropy, log_softmax, relu, sigmoid

X32 = np.array([[1.0, 2.0], [3.0, 4.0]], np.float32)


def test_wraps_without_copying() -> None:
    tensor = Tensor(X32)
    assert tensor.data is X32
    assert (tensor.shape, tensor.dtype, tensor.ndim, tensor.size) == ((2, 2), np.float32, 2, 4)
    assert (tensor.requires_grad, tensor.grad, tensor.node) == (False, None, None)


@pytest.mark.parametrize("data", [1.5, [1.0, 2.0], np.float32(2.0), np.float64(2.0)])
def test_takes_what_numpy_makes_a_float_array_of(data: object) -> None:
    assert isinstance(Tensor(data).data, np.ndarray)


@pytest.mark.parametrize(("data", "got"), [([1, 2], "int64"), (np.zeros(2, np.float16), "float16"), ("a", "<U1")])
def test_refuses_other_dtypes(data: object, got: str) -> None:
    with pytest.raises(TypeError, match=f"Tensor must be float32 or float64, got {got}"):
        Tensor(data)


@pytest.mark.parametrize(
    "constant", [2, 2.0, True, np.float64(2.0), np.int64(2), np.full((2, 2), 2), np.ones((2, 2))]
)
def test_constants_take_the_tensors_dtype(constant: object) -> None:
    x = Tensor(X32)
    for result in (x + constant, constant + x, x - constant, constant - x, x * constant, constant * x):
        assert result.dtype == np.float32
    for result in (x / constant, constant / x):
        assert result.dtype == np.float32


def test_signs_compute_what_numpy_does() -> None:
    x, y = Tensor(X32), Tensor(X32[::-1].copy())
    a, b = x.data, y.data
    pairs = [(x + y, a + b), (x - y, a - b), (x * y, a * b), (x / y, a / b), (x @ y, a @ b)]
    pairs += [(2 - x, 2 - a), (2 / x, 2 / a), (b @ x, b @ a), (-x, -a), (x**2, a**2), (x[0, 1:], a[0, 1:])]
    pairs += [(b + x, b + a), (b * x, b * a), (np.float32(2) * x, 2 * a)]
    for ours, expected in pairs:
        np.testing.assert_array_equal(ours.data, expected)


def test_scalar_results_are_arrays_of_the_same_dtype() -> None:
    x = Tensor(X32)
    for result in (x.sum(), x.mean(), x[0, 0], x.sum() * 2.0, x.mean() ** 0.5, -x.sum(), x.sum() / x.mean()):
        assert isinstance(result.data, np.ndarray)
        assert (result.dtype, result.shape) == (np.float32, ())


def test_item() -> None:
    assert Tensor([[2.5]]).item() == 2.5
    assert type(Tensor(np.float32(2.5)).item()) is float


def test_iterating_gives_rows() -> None:
    assert [row.data.tolist() for row in Tensor(X32)] == [[1.0, 2.0], [3.0, 4.0]]


def test_repr_names_the_operator() -> None:
    x = Tensor(np.array([1.0, 2.0], np.float32), requires_grad=True)
    assert repr(x) == "Tensor([1., 2.], float32, leaf)"
    assert repr(x.detach()) == "Tensor([1., 2.], float32)"
    assert repr(x * 2) == "Tensor([2., 4.], float32, from multiply)"


def test_detach_shares_the_array() -> None:
    x = Tensor(X32, requires_grad=True)
    assert x.detach().data is x.data
    assert not x.detach().requires_grad


def test_deepcopy_of_a_leaf_is_independent() -> None:
    x = Tensor(X32.copy(), requires_grad=True)
    twin = copy.deepcopy(x)
    twin.data += 1.0
    assert twin.requires_grad
    np.testing.assert_array_equal(x.data, X32)


def test_read_only_and_strided_arrays_reach_kernels() -> None:
    frozen = X32.copy()
    frozen.flags.writeable = False
    x = Tensor(frozen, requires_grad=True)
    relu(x).transpose().sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [[1.0, 1.0], [1.0, 1.0]]
    np.testing.assert_array_equal(relu(Tensor(X32.T)).data, X32.T)


def test_extreme_scores_stay_finite() -> None:
    scores = Tensor(np.array([[1000.0, -1000.0, 0.0]], np.float32), requires_grad=True)
    assert log_softmax(scores).data.tolist() == [[0.0, -2000.0, -1000.0]]
    losses = cross_entropy(scores, np.array([1]))
    assert losses.data.tolist() == [2000.0]
    losses.sum().backward()
    assert scores.grad is not None
    assert scores.grad.tolist() == [[1.0, -1.0, 0.0]]
    assert sigmoid(Tensor(np.array([-1000.0, 1000.0]))).data.tolist() == [0.0, 1.0]


def test_nan_is_not_hidden() -> None:
    assert np.isnan(relu(Tensor(np.array([np.nan]))).data).all()
    assert np.isnan(sigmoid(Tensor(np.array([np.nan]))).data).all()


def test_power_zero_has_no_gradient_even_at_zero() -> None:
    x = Tensor(np.array([0.0, 2.0]), requires_grad=True)
    (x**0).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [0.0, 0.0]


def test_batch_norm_infer_keeps_the_statistics_it_was_given() -> None:
    x, gamma, beta = (Tensor(np.array(v), requires_grad=True) for v in ([[1.0]], [1.0], [0.0]))
    mean, var = np.zeros(1), np.full(1, 4.0)
    y = batch_norm_infer(x, gamma, beta, mean, var, eps=1e-12)
    var += 5.0  # running statistics move on before backward
    y.sum().backward()
    assert x.grad is not None
    np.testing.assert_allclose(x.grad, [[0.5]])
