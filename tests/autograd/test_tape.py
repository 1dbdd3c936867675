"""Tensor and tape: what a tensor wraps, who receives which gradient, when memory goes, and what is refused."""

import copy
import re
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

from nachos_min import autograd
from nachos_min.autograd import Tensor, convolution, no_grad, normalization
from nachos_min.autograd.tape import record

X32 = np.array([[1.0, 2.0], [3.0, 4.0]], np.float32)


def leaf(*values: float) -> Tensor:
    return Tensor(np.array(values), requires_grad=True)


def grad(tensor: Tensor) -> Any:
    assert tensor.grad is not None
    return tensor.grad.tolist()


def test_a_tensor_wraps_without_copying() -> None:
    x = Tensor(X32, requires_grad=True)
    assert x.data is x.detach().data is X32
    assert (x.shape, x.dtype, x.ndim, x.size) == ((2, 2), np.float32, 2, 4)
    assert (x.grad, x.node, x.detach().requires_grad) == (None, None, False)
    assert [row.data.tolist() for row in x] == [[1.0, 2.0], [3.0, 4.0]]
    for data in (1.5, [[1.5]], np.float32(1.5), np.float64(1.5)):
        assert isinstance(Tensor(data).data, np.ndarray)
        assert type(Tensor(data).item()) is float
    twin = copy.deepcopy(x)
    twin.data += 1.0
    assert twin.requires_grad
    assert x.data[0, 0] == 1.0


def test_it_refuses_other_dtypes() -> None:
    for data, got in (([1, 2], "int64"), (np.zeros(2, np.float16), "float16"), ("a", "<U1")):
        with pytest.raises(TypeError, match=f"Tensor must be float32 or float64, got {got}"):
            Tensor(data)


def test_signs_compute_what_numpy_does_in_the_tensors_dtype() -> None:
    x, y = Tensor(X32), Tensor(X32[::-1].copy())
    a, b = x.data, y.data
    pairs = [(x + y, a + b), (x - y, a - b), (x * y, a * b), (x / y, a / b), (x @ y, a @ b), (b @ x, b @ a)]
    pairs += [(2 - x, 2 - a), (2 / x, 2 / a), (-x, -a), (x**2, a**2), (x[0, 1:], a[0, 1:])]
    pairs += [(b + x, b + a), (b * x, b * a), (np.float32(2) * x, 2 * a)]
    for ours, expected in pairs:
        np.testing.assert_array_equal(ours.data, expected)
    for constant in (2, 2.0, True, np.float64(2.0), np.int64(2), np.full((2, 2), 2), np.ones(2)):  # take our dtype
        for result in (x + constant, constant - x, x * constant, constant * x, x / constant, constant / x):
            assert result.dtype == np.float32
    for result in (x.sum(), x.mean(), x[0, 0], x.sum() * 2.0, x.mean() ** 0.5, -x.sum(), x.sum() / x.mean()):
        assert isinstance(result.data, np.ndarray)
        assert (result.dtype, result.shape) == (np.float32, ())


def test_repr_names_the_operator() -> None:
    x = Tensor(np.array([1.0, 2.0], np.float32), requires_grad=True)
    assert repr(x) == "Tensor([1., 2.], float32, leaf)"
    assert repr(x.detach()) == "Tensor([1., 2.], float32)"
    assert repr(x * 2) == "Tensor([2., 4.], float32, from multiply)"


def test_read_only_and_strided_arrays_reach_kernels() -> None:
    frozen = X32.copy()
    frozen.flags.writeable = False
    x = Tensor(frozen, requires_grad=True)
    autograd.relu(x).transpose().sum().backward()
    assert grad(x) == [[1.0, 1.0], [1.0, 1.0]]
    np.testing.assert_array_equal(autograd.relu(Tensor(X32.T)).data, X32.T)


def test_extreme_scores_stay_finite_and_nan_is_not_hidden() -> None:
    scores = Tensor(np.array([[1000.0, -1000.0, 0.0]], np.float32), requires_grad=True)
    assert autograd.log_softmax(scores).data.tolist() == [[0.0, -2000.0, -1000.0]]
    losses = autograd.cross_entropy(scores, np.array([1]))
    assert losses.data.tolist() == [2000.0]
    losses.sum().backward()
    assert grad(scores) == [[1.0, -1.0, 0.0]]
    assert autograd.sigmoid(Tensor(np.array([-1000.0, 1000.0]))).data.tolist() == [0.0, 1.0]
    for function in (autograd.relu, autograd.sigmoid):
        assert np.isnan(function(Tensor(np.array([np.nan]))).data).all()


def test_batch_norm_infer_keeps_the_statistics_it_was_given() -> None:
    x, gamma, beta = (Tensor(np.array(v), requires_grad=True) for v in ([[1.0]], [1.0], [0.0]))
    mean, var = np.zeros(1), np.full(1, 4.0)
    y = autograd.batch_norm_infer(x, gamma, beta, mean, var, eps=1e-12)
    var += 5.0  # running statistics move on before backward
    y.sum().backward()
    np.testing.assert_allclose(grad(x), [[0.5]])


def test_gradients_of_all_paths_add_up() -> None:
    x = leaf(3.0)
    y = x * 2.0
    far = y
    for _ in range(5):  # the long way round is waited for
        far = far * 1.0
    (y * y + far + x * x.detach()).backward()
    assert grad(x) == [4.0 * 2 * 3.0 + 2.0 + 3.0]
    x = leaf(0.0, 2.0)
    (x**0).sum().backward()  # no 0 * inf
    assert grad(x) == [0.0, 0.0]
    y = x = leaf(1.0)
    for _ in range(40):  # 2^40 paths, and each node is walked once
        y = y + y
    y.backward()
    assert grad(x) == [2.0**40]


def test_a_hundred_thousand_steps_forward_back_and_dropped_unused() -> None:
    x = leaf(1.0)
    y = unused = x
    for _ in range(100_000):
        y, unused = y + x, unused * 1.0
    y.backward()
    assert grad(x) == [100_001.0]
    del unused  # freeing a deep chain must not overflow the C stack


def test_a_gradient_array_is_neither_shared_with_another_consumer_nor_a_view() -> None:
    u, v = leaf(1.0, 1.0), leaf(1.0, 1.0)
    doubled = u * 1.0
    total = doubled + v  # both receive the very same array
    (total.sum() + (doubled * 5.0).sum()).backward()
    assert (grad(u), grad(v)) == ([6.0, 6.0], [1.0, 1.0])
    a, b, c, seed = leaf(1.0, 2.0), leaf(3.0, 4.0), leaf(1.0, 2.0), np.ones(2)
    (a + b).backward(seed)
    c.reshape((2, 1)).backward(np.broadcast_to(1.0, (2, 1)))
    for tensor in (a, b, c):
        assert tensor.grad is not None
        tensor.grad *= 7.0  # would fail on a read-only view
    assert (grad(a), grad(b), seed.tolist()) == ([7.0, 7.0], [7.0, 7.0], [1.0, 1.0])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_gradients_add_up_over_calls_until_set_to_none(dtype: type) -> None:
    x, constant = Tensor(dtype(2.0), requires_grad=True), Tensor(dtype(3.0))
    y = x * constant
    y.backward(1)
    first = x.grad
    (x * 2.0).backward()
    x.backward()  # the leaf itself
    assert isinstance(x.grad, np.ndarray)
    assert (x.grad.dtype, x.grad.shape, x.grad.item()) == (dtype, (), 6.0)
    assert first is not None
    assert first == 3.0, "what a caller kept is not changed"
    assert (y.grad, constant.grad) == (None, None), "computed tensors and constants have none"
    x.grad = None
    (x * 3.0).backward()
    assert grad(x) == 3.0


def test_backward_frees_on_the_way() -> None:
    alive_later: list[bool] = []
    x = leaf(1.0, 2.0)
    early = record(x.data * 1.0, (x, lambda g: (alive_later.append(late_array() is not None), g)[1]))
    late = early * early
    late_array = weakref.ref(late.data)
    loss = late.sum()
    del late
    loss.backward()
    assert alive_later == [False]


def test_second_backward_is_refused_and_delivers_nothing() -> None:
    x = leaf(1.0)
    y = x * 2.0
    y.backward()
    with pytest.raises(RuntimeError, match="freed by an earlier backward; compute the value again"):
        y.backward()
    with pytest.raises(RuntimeError, match="add the losses up and call backward once"):
        (x * 5.0 + y * 3.0).backward()
    assert grad(x) == [2.0]
    assert "from a freed tape" in repr(y)


@pytest.mark.parametrize(
    ("tensor", "gradient", "told"),
    [
        (Tensor(1.0), None, "nothing was recorded: no input requires a gradient"),
        (leaf(1.0).detach(), None, "nothing was recorded: no input requires a gradient"),
        (leaf(1.0, 2.0), None, r"without a gradient needs one element, got shape \(2,\)"),
        (leaf(1.0, 2.0), np.ones(1), r"backward: gradient has shape \(1,\), tensor has \(2,\)"),
    ],
)
def test_backward_needs_history_and_a_gradient_that_fits(tensor: Tensor, gradient: Any, told: str) -> None:
    with pytest.raises(ValueError if tensor.requires_grad else RuntimeError, match=told):
        (tensor * 2.0).backward(gradient)


@pytest.mark.parametrize("wrong", [np.ones(3), np.ones(2, np.float32)])
def test_a_wrong_vjp_is_named(wrong: np.ndarray) -> None:
    x = leaf(1.0, 2.0)
    half_baked = record(x.data, (x, lambda _: wrong))
    told = re.escape(f"vjp returned {wrong.dtype} {wrong.shape} for an input of float64 (2,)")
    with pytest.raises(ValueError, match=f"{told}$"):
        half_baked.backward(np.ones(2))


def test_no_grad_nests_and_survives_exceptions() -> None:
    x = leaf(1.0)
    with no_grad():
        with no_grad():
            assert not (x * 2.0).requires_grad
        with pytest.raises(KeyError), no_grad():
            raise KeyError("x")
        y = x * 2.0
        assert not y.requires_grad
    with pytest.raises(RuntimeError, match="nothing was recorded"):
        y.backward()
    with pytest.raises(KeyError), no_grad():
        raise KeyError("x")
    assert (x * 2.0).requires_grad


def test_threads_record_and_do_not_record_side_by_side() -> None:
    together = threading.Barrier(4)

    def worker(number: int) -> Any:
        y = x = leaf(float(number))
        with no_grad() if number % 2 else nullcontext():
            together.wait(10)
            for _ in range(300):
                y = y + x * x
            together.wait(10)
        if y.requires_grad:
            y.backward()
        return y.requires_grad and grad(x)

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(worker, range(4))) == [[1.0], False, [1201.0], False]


def test_gradient_in_a_constant_image_is_never_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convolution, "conv2d_grad_input", lambda *_: pytest.fail("it is not needed"))
    image, weight = Tensor(np.ones((1, 3, 3, 1))), Tensor(np.ones((2, 2, 1, 1)), requires_grad=True)
    convolution.conv2d(image, weight).sum().backward()
    assert weight.grad is not None


def test_batch_norm_gradients_are_computed_in_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    passes = Mock(wraps=normalization.kernels.batch_norm_grad)
    monkeypatch.setattr(normalization.kernels, "batch_norm_grad", passes)
    y, _, _ = autograd.batch_norm(leaf(1.0, 2.0).reshape((2, 1)), leaf(1.0), leaf(0.0))
    y.sum().backward()
    passes.assert_called_once()
