"""Optimisers take PyTorch's steps; the schedule is the function it claims to be."""

import re
from typing import Any

import numpy as np
import pytest

from nachos_min.autograd import Tensor
from nachos_min.nn.optim import SGD, Adam, cosine_rate

SHAPES = {"weight": (3, 4), "bias": (4,)}
KINDS = {"SGD": SGD, "Adam": Adam}

SETTINGS: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {}),
    ("SGD", {"momentum": 0.9}),
    ("SGD", {"momentum": 0.9, "weight_decay": 5e-2}),
    ("SGD", {"momentum": 0.8, "weight_decay": 5e-2, "nesterov": True}),
    ("Adam", {}),
    ("Adam", {"betas": (0.5, 0.9), "eps": 1e-3}),
]


def parameters(dtype: Any = np.float64) -> dict[str, Tensor]:
    rng = np.random.default_rng(0)
    return {
        name: Tensor(rng.normal(size=shape).astype(dtype), requires_grad=True) for name, shape in SHAPES.items()
    }


@pytest.mark.parametrize(("dtype", "rtol"), [(np.float64, 1e-13), (np.float32, 2e-6)])
@pytest.mark.parametrize(("kind", "settings"), SETTINGS)
def test_steps_are_pytorchs(kind: str, settings: dict[str, Any], dtype: Any, rtol: float) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is a peer, not a requirement")
    tensors = parameters(dtype)
    peers = {name: torch.tensor(tensor.data.copy(), requires_grad=True) for name, tensor in tensors.items()}
    theirs = getattr(torch.optim, kind)(peers.values(), lr=1.0, **settings)
    mine = KINDS[kind](tensors, **settings)
    rng = np.random.default_rng(1)
    for step in range(12):
        rate = cosine_rate(0.1, step, 12)
        for name, tensor in tensors.items():
            gradient = rng.normal(size=tensor.shape).astype(dtype)
            # A parameter may take no part in a batch: it must not move, nor its averages.
            absent = name == "bias" and step in (0, 5)
            tensor.grad = None if absent else gradient
            peers[name].grad = None if absent else torch.tensor(gradient.copy())
        for group in theirs.param_groups:
            group["lr"] = rate
        theirs.step()
        mine.step(rate)
        for name, tensor in tensors.items():
            assert tensor.dtype == dtype
            np.testing.assert_allclose(tensor.data, peers[name].detach().numpy(), rtol=rtol, atol=rtol)


def test_first_steps_by_hand() -> None:
    w = Tensor(np.array([1.0]), requires_grad=True)
    optimizer = SGD({"w": w}, momentum=0.5, weight_decay=0.1)
    # v = 2 + 0.1 * 1 = 2.1, w = 1 - 0.21; then v = 0.5 * 2.1 + 0.1 * 0.79 = 1.129, w = 0.79 - 0.1129
    for gradient, moved in ((2.0, 0.79), (0.0, 0.6771)):
        w.grad = np.array([gradient])
        optimizer.step(0.1)
        assert w.data[0] == pytest.approx(moved)
    w = Tensor(np.array([1.0, 1.0]), requires_grad=True)
    w.grad = np.array([1e3, -1e-3])
    Adam({"w": w}, eps=1e-12).step(0.01)  # Adam's first step is the rate, whatever the gradient's size
    np.testing.assert_allclose(w.data, [0.99, 1.01], rtol=1e-8)


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_uses_the_gradients_up_and_keeps_the_arrays(kind: str) -> None:
    tensors = parameters()
    arrays = {name: tensor.data for name, tensor in tensors.items()}
    optimizer = KINDS[kind](tensors)
    for _ in range(2):
        ((tensors["weight"] + tensors["bias"]) ** 2.0).sum().backward()
        optimizer.step(0.1)
    assert all(tensor.grad is None for tensor in tensors.values())
    assert all(tensors[name].data is array for name, array in arrays.items())


@pytest.mark.parametrize(
    ("kind", "wrong"),
    [("SGD", {"momentum": 1.0}), ("SGD", {"momentum": -0.1}), ("SGD", {"weight_decay": -1e-4}),
     ("Adam", {"betas": (0.9, 1.0)}), ("Adam", {"eps": 0.0})],
)  # fmt: skip
def test_settings_out_of_range_are_refused(kind: str, wrong: dict[str, Any]) -> None:
    ((name, value),) = wrong.items()
    with pytest.raises(ValueError, match=rf"^{name} must be .*, got {re.escape(str(value))}$"):
        KINDS[kind](parameters(), **wrong)


def test_a_step_outside_the_plan_is_refused_and_the_last_rate_is_zero() -> None:
    for step, steps in ((0, 0), (6, 5), (-1, 5)):
        with pytest.raises(ValueError, match=f"step must be between 0 and steps >= 1, got {step} of {steps}"):
            cosine_rate(0.1, step, steps)
    assert cosine_rate(0.3, 20, 20) == 0.0


def test_cosine_rate_is_pytorchs() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is a peer, not a requirement")
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=20)
    for step in range(20):
        assert cosine_rate(0.3, step, 20) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
        optimizer.step()
        schedule.step()
