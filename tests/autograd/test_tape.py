"""The tape: who receives which gradient, when memory goes, and what is refused."""

import gc
import threading
import weakref

import numpy as np
import pytest

from nachos_min.autograd import Tensor, batch_norm, convolution, no_grad, normalization, relu
from nachos_min.autograd.tape import record


def leaf(*values: float) -> Tensor:
    return Tensor(np.array(values), requires_grad=True)


def grad(tensor: Tensor) -> list[float]:
    assert tensor.grad is not None
    return tensor.grad.tolist()


def test_chain_rule() -> None:
    x = leaf(2.0)
    (x * x * x).backward()
    assert grad(x) == [12.0]


def test_diamond_adds_both_ways() -> None:
    x = leaf(3.0)
    y = x * 2.0
    (y * y + y).backward()
    assert grad(x) == [2.0 * 12.0 + 2.0]


def test_long_way_round_is_waited_for() -> None:
    x = leaf(1.0)
    y = x * 2.0
    far = y
    for _ in range(5):
        far = far * 1.0
    (y + far).backward()
    assert grad(x) == [4.0]


def test_doubling_chain_is_walked_once_per_node() -> None:
    x = leaf(1.0)
    y = x
    for _ in range(40):  # 2^40 paths
        y = y + y
    y.backward()
    assert grad(x) == [2.0**40]


def test_a_shared_gradient_array_is_not_changed_by_another_consumer() -> None:
    u, v = leaf(1.0, 1.0), leaf(1.0, 1.0)
    doubled = u * 1.0
    total = doubled + v  # both receive the very same array
    (total.sum() + (doubled * 5.0).sum()).backward()
    assert grad(v) == [1.0, 1.0]
    assert grad(u) == [6.0, 6.0]


def test_leaf_gradients_own_their_memory() -> None:
    a, b, seed = leaf(1.0, 2.0), leaf(3.0, 4.0), np.ones(2)
    (a + b).backward(seed)
    c = leaf(1.0, 2.0)
    c.reshape((2, 1)).backward(np.broadcast_to(1.0, (2, 1)))
    for tensor in (a, b, c):
        assert tensor.grad is not None
        tensor.grad *= 7.0  # would fail on a read-only view
    assert (grad(a), grad(b), seed.tolist()) == ([7.0, 7.0], [7.0, 7.0], [1.0, 1.0])


def test_gradients_add_up_over_calls_until_set_to_none() -> None:
    x = leaf(1.0)
    (x * 2.0).backward()
    first = x.grad
    (x * 3.0).backward()
    assert grad(x) == [5.0]
    assert first is not None
    assert first.tolist() == [2.0], "what a caller kept is not changed"
    x.grad = None
    (x * 3.0).backward()
    assert grad(x) == [3.0]


def test_scalar_gradients_stay_arrays() -> None:
    x = Tensor(np.float32(2.0), requires_grad=True)
    for _ in range(2):
        (x * x).backward()
    assert isinstance(x.grad, np.ndarray)
    assert (x.grad.dtype, x.grad.shape, x.grad.item()) == (np.float32, (), 8.0)


def test_leaf_itself() -> None:
    x = leaf(1.0)
    x.backward()
    assert grad(x) == [1.0]


def test_constants_and_computed_tensors_receive_nothing() -> None:
    x, constant = leaf(1.0), Tensor(np.array([2.0]))
    y = x * constant
    (y * 3.0).backward()
    assert constant.grad is None
    assert y.grad is None


def test_detached_value_is_a_constant() -> None:
    x = leaf(3.0)
    (x * x.detach()).backward()
    assert grad(x) == [3.0]


def test_a_hundred_thousand_steps() -> None:
    x = leaf(1.0)
    y = x
    for _ in range(100_000):
        y = y + x
    y.backward()
    assert grad(x) == [100_001.0]


def test_a_hundred_thousand_steps_dropped_unused() -> None:
    y = leaf(1.0)
    for _ in range(100_000):
        y = y * 1.0
    del y  # freeing a deep chain must not overflow the C stack


def test_intermediate_arrays_are_freed_by_backward_without_the_garbage_collector() -> None:
    x = Tensor(np.ones((4, 3)), requires_grad=True)
    gc.disable()
    try:
        hidden = relu(x * 2.0)
        normed, _, _ = batch_norm(hidden, leaf(1.0, 1.0, 1.0), leaf(0.0, 0.0, 0.0))
        loss = normed.sum()
        arrays = [weakref.ref(hidden.data), weakref.ref(normed.data)]
        del hidden, normed
        assert all(array() is not None for array in arrays), "the tape needs them still"
        loss.backward()
        assert all(array() is None for array in arrays)
    finally:
        gc.enable()


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


def test_backward_without_history() -> None:
    with no_grad():
        y = leaf(1.0) * 2.0
    for tensor in (y, Tensor(1.0), leaf(1.0).detach()):
        with pytest.raises(RuntimeError, match="nothing was recorded: no input requires a gradient"):
            tensor.backward()


def test_backward_needs_a_gradient_unless_there_is_one_element() -> None:
    with pytest.raises(ValueError, match=r"without a gradient needs one element, got shape \(2,\)"):
        (leaf(1.0, 2.0) * 2.0).backward()
    x = leaf(1.0)
    (x * 2.0).reshape((1, 1)).backward()
    assert grad(x) == [2.0]


def test_backward_gradient_of_another_shape() -> None:
    with pytest.raises(ValueError, match=r"backward: gradient has shape \(1,\), tensor has \(2,\)"):
        (leaf(1.0, 2.0) * 2.0).backward(np.ones(1))


def test_backward_converts_the_gradient_to_the_dtype() -> None:
    x = Tensor(np.ones(2, np.float32), requires_grad=True)
    (x * 2.0).backward([1, 2])
    assert x.grad is not None
    assert x.grad.dtype == np.float32


def half_baked(x: Tensor, gradient: np.ndarray) -> Tensor:
    return record(x.data, (x, lambda g: gradient))  # noqa: ARG005  (ignoring g is the defect under test)


@pytest.mark.parametrize(
    ("wrong", "said"), [(np.ones(3), r"float64 \(3,\)"), (np.ones(2, np.float32), r"float32 \(2,\)")]
)
def test_a_wrong_vjp_is_named(wrong: np.ndarray, said: str) -> None:
    with pytest.raises(ValueError, match=rf"^half_baked: vjp returned {said} for an input of float64 \(2,\)$"):
        half_baked(leaf(1.0, 2.0), wrong).backward(np.ones(2))


def test_no_grad_nests_and_survives_exceptions() -> None:
    x = leaf(1.0)

    def fail() -> None:
        with no_grad():
            raise KeyError("x")

    with no_grad():
        with no_grad():
            assert not (x * 2.0).requires_grad
        assert not (x * 2.0).requires_grad
        with pytest.raises(KeyError):
            fail()
        assert not (x * 2.0).requires_grad
    assert (x * 2.0).requires_grad
    with pytest.raises(KeyError):
        fail()
    assert (x * 2.0).requires_grad


def test_no_grad_in_one_thread_leaves_the_other_alone() -> None:
    x = leaf(1.0)
    inside, checked = threading.Event(), threading.Event()
    quiet: list[bool] = []

    def worker() -> None:
        with no_grad():
            inside.set()
            assert checked.wait(10)
            quiet.append((x * 2.0).requires_grad)

    thread = threading.Thread(target=worker)
    thread.start()
    assert inside.wait(10)
    recorded = (x * 2.0).requires_grad
    checked.set()
    thread.join()
    assert recorded
    assert quiet == [False]


def test_graphs_in_parallel_threads() -> None:
    results: dict[int, list[float]] = {}

    def worker(number: int) -> None:
        x = leaf(float(number))
        y = x
        for _ in range(300):
            y = y + x * x
        y.backward()
        results[number] = grad(x)

    threads = [threading.Thread(target=worker, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {number: [1.0 + 600.0 * number] for number in range(4)}


def test_gradient_in_a_constant_image_is_never_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convolution, "conv2d_grad_input", lambda *_: pytest.fail("nobody asked for it"))
    image, weight = Tensor(np.ones((1, 3, 3, 1))), Tensor(np.ones((2, 2, 1, 1)), requires_grad=True)
    convolution.conv2d(image, weight).sum().backward()
    assert weight.grad is not None


def test_batch_norm_gradients_are_computed_in_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    compute = normalization.kernels.batch_norm_grad
    monkeypatch.setattr(
        normalization.kernels, "batch_norm_grad", lambda *given: (calls.append(1), compute(*given))[1]
    )
    y, _, _ = batch_norm(leaf(1.0, 2.0).reshape((2, 1)), leaf(1.0), leaf(0.0))
    y.sum().backward()
    assert calls == [1]
