"""Optimisers take PyTorch's steps; schedules are the functions they claim to be."""

from typing import Any

import numpy as np
import pytest

from nachos_min.autograd import Tensor
from nachos_min.nn.optim import SGD, Adam, Optimizer, cosine_rate, step_rate

SHAPES = {"weight": (3, 4), "bias": (4,)}

SETTINGS: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {}),
    ("SGD", {"momentum": 0.9}),
    ("SGD", {"momentum": 0.9, "weight_decay": 5e-2}),
    ("SGD", {"momentum": 0.8, "weight_decay": 5e-2, "nesterov": True}),
    ("Adam", {}),
    ("Adam", {"betas": (0.5, 0.9), "eps": 1e-3, "weight_decay": 5e-2}),
]


def parameters(dtype: type[np.floating[Any]] = np.float64) -> dict[str, Tensor]:
    rng = np.random.default_rng(0)
    return {
        name: Tensor(rng.normal(size=shape).astype(dtype), requires_grad=True) for name, shape in SHAPES.items()
    }


def ours(kind: str, tensors: dict[str, Tensor], **settings: Any) -> Optimizer:
    return SGD(tensors, **settings) if kind == "SGD" else Adam(tensors, **settings)


@pytest.mark.parametrize(("dtype", "rtol"), [(np.float64, 1e-13), (np.float32, 2e-6)])
@pytest.mark.parametrize(("kind", "settings"), SETTINGS)
def test_steps_are_pytorchs(
    kind: str, settings: dict[str, Any], dtype: type[np.floating[Any]], rtol: float
) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is a peer, not a requirement")
    tensors = parameters(dtype)
    peers = {name: torch.tensor(tensor.data.copy(), requires_grad=True) for name, tensor in tensors.items()}
    # Only the weight decays: PyTorch says it with two groups of parameters, we with a name.
    their_settings = {key: value for key, value in settings.items() if key != "weight_decay"}
    groups = [
        {"params": [peers["weight"]], "weight_decay": settings.get("weight_decay", 0.0)},
        {"params": [peers["bias"]], "weight_decay": 0.0},
    ]
    theirs = getattr(torch.optim, kind)(groups, lr=1.0, **their_settings)
    mine = ours(kind, tensors, **settings, undecayed=("bias",))
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


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("nesterov", [False, True])
def test_all_parameters_at_once_take_the_steps_of_one_by_one_to_the_bit(
    nesterov: bool, dtype: type[np.floating[Any]]
) -> None:
    settings: dict[str, Any] = {"momentum": 0.9, "weight_decay": 5e-2, "nesterov": nesterov}
    at_once, one_by_one = parameters(dtype), parameters(dtype)
    together, alone = SGD(at_once, **settings), SGD(one_by_one, **settings)
    rng = np.random.default_rng(1)
    for step in range(6):
        for name in SHAPES:
            if step != 3 or name == "bias":  # in step 3 both go one by one
                gradient = rng.normal(size=SHAPES[name]).astype(dtype)
                at_once[name].grad, one_by_one[name].grad = gradient.copy(), gradient.copy()
        together.step(0.1)
        Optimizer.step(alone, 0.1)
        for name in SHAPES:
            assert at_once[name].data.tobytes() == one_by_one[name].data.tobytes()


def test_momentum_and_decay_by_hand() -> None:
    w = Tensor(np.array([1.0]), requires_grad=True)
    optimizer = SGD({"w": w}, momentum=0.5, weight_decay=0.1)
    w.grad = np.array([2.0])
    optimizer.step(0.1)  # v = 2 + 0.1 * 1 = 2.1; w = 1 - 0.21
    assert w.data[0] == pytest.approx(0.79)
    w.grad = np.array([0.0])
    optimizer.step(0.1)  # v = 0.5 * 2.1 + 0.1 * 0.79 = 1.129; w = 0.79 - 0.1129
    assert w.data[0] == pytest.approx(0.6771)


def test_first_adam_step_is_the_rate_whatever_the_gradients_size() -> None:
    w = Tensor(np.array([1.0, 1.0]), requires_grad=True)
    w.grad = np.array([1e3, -1e-3])
    Adam({"w": w}, eps=1e-12).step(0.01)
    np.testing.assert_allclose(w.data, [0.99, 1.01], rtol=1e-8)


@pytest.mark.parametrize("kind", ["SGD", "Adam"])
def test_a_step_uses_the_gradients_up_and_keeps_the_arrays(kind: str) -> None:
    tensors = parameters()
    arrays = {name: tensor.data for name, tensor in tensors.items()}
    optimizer = ours(kind, tensors)
    for _ in range(2):
        ((tensors["weight"] + tensors["bias"]) ** 2.0).sum().backward()
        optimizer.step(0.1)
    assert all(tensor.grad is None for tensor in tensors.values())
    assert all(tensors[name].data is array for name, array in arrays.items())


@pytest.mark.parametrize("kind", ["SGD", "Adam"])
def test_optimisers_find_the_minimum_of_a_narrow_valley(kind: str) -> None:
    w = Tensor(np.array([3.0, -2.0]), requires_grad=True)
    optimizer = ours(kind, {"w": w}, **({"momentum": 0.9} if kind == "SGD" else {}))
    for step in range(400):
        ((w * np.array([1.0, 5.0])) ** 2.0).sum().backward()
        optimizer.step(cosine_rate(0.02 if kind == "SGD" else 0.1, step, 400))
    np.testing.assert_allclose(w.data, 0.0, atol=1e-3)


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("SGD", {"momentum": 1.0}, r"momentum must be in \[0, 1\), got 1.0"),
        ("SGD", {"momentum": -0.1}, r"momentum must be in \[0, 1\), got -0.1"),
        ("SGD", {"weight_decay": -1e-4}, "weight_decay must be >= 0, got -0.0001"),
        ("Adam", {"weight_decay": -1e-4}, "weight_decay must be >= 0, got -0.0001"),
        ("SGD", {"undecayed": ("bias", "biass")}, "undecayed must name parameters, got 'biass'"),
        ("Adam", {"betas": (0.9, 1.0)}, r"betas must be in \[0, 1\), got \(0.9, 1.0\)"),
        ("Adam", {"eps": 0.0}, "eps must be > 0, got 0.0"),
    ],
)
def test_settings_out_of_range_are_refused(kind: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ours(kind, parameters(), **settings)


# Schedules


def test_cosine_rate_starts_halves_and_ends_where_it_should() -> None:
    assert cosine_rate(0.4, 0, 10) == 0.4
    assert cosine_rate(0.4, 5, 10) == pytest.approx(0.2)
    assert cosine_rate(0.4, 10, 10) == 0.0
    assert cosine_rate(0.4, 10, 10, final_rate=0.1) == pytest.approx(0.1)
    rates = [cosine_rate(0.4, step, 50, 0.01) for step in range(51)]
    assert rates == sorted(rates, reverse=True)


def test_schedules_are_pytorchs() -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is a peer, not a requirement")

    def rates(kind: str, steps: int, **settings: Any) -> list[float]:
        optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
        schedule = getattr(torch.optim.lr_scheduler, kind)(optimizer, **settings)
        found = []
        for _ in range(steps):
            found.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
        return found

    cosine = rates("CosineAnnealingLR", 20, T_max=20, eta_min=0.01)
    assert [cosine_rate(0.3, step, 20, 0.01) for step in range(20)] == pytest.approx(cosine, rel=1e-12)
    steps = rates("StepLR", 20, step_size=6, gamma=0.3)
    assert [step_rate(0.3, step, 6, 0.3) for step in range(20)] == pytest.approx(steps, rel=1e-12)


def test_schedules_refuse_steps_outside_the_plan() -> None:
    with pytest.raises(ValueError, match="steps must be >= 1, got 0"):
        cosine_rate(0.1, 0, 0)
    with pytest.raises(ValueError, match="step must be between 0 and steps = 5, got 6"):
        cosine_rate(0.1, 6, 5)
    with pytest.raises(ValueError, match="step must be between 0 and steps = 5, got -1"):
        cosine_rate(0.1, -1, 5)
    with pytest.raises(ValueError, match="step must be >= 0, got -1"):
        step_rate(0.1, -1, 5)
    with pytest.raises(ValueError, match="every must be >= 1, got 0"):
        step_rate(0.1, 1, 0)
