"""What a module knows about itself: names, state, mode, dtype."""

from typing import Any

import numpy as np
import pytest

from nachos_min.autograd import Tensor
from nachos_min.nn.layers import BatchNorm, Linear
from nachos_min.nn.module import Module


class Small(Module):
    """A parameter, a buffer, a child, a list of children, a part left out, and plain settings."""

    def __init__(self, seed: int = 0, features: int = 3) -> None:
        rng = np.random.default_rng(seed)
        self.scale = Tensor(rng.standard_normal(2).astype(np.float32), requires_grad=True)
        self.seen = rng.standard_normal(3).astype(np.float32)
        self.first = Linear(2, features, rng)
        self.rest: list[Module] = [BatchNorm(features), Linear(features, 1, rng, bias=False)]
        self.absent = None
        self.sizes = [2, features]

    def __call__(self, x: Tensor) -> Tensor:
        y = self.first(x * self.scale)
        for module in self.rest:
            y = module(y)
        return y


PARAMETERS = ["scale", "first.weight", "first.bias", "rest.0.gamma", "rest.0.beta", "rest.1.weight"]
BUFFERS = ["seen", "rest.0.running_mean", "rest.0.running_variance"]


def test_parameters_and_buffers_are_named_by_where_they_stand() -> None:
    module = Small()
    assert list(module.named_parameters()) == PARAMETERS
    assert list(module.named_buffers()) == BUFFERS
    assert [name for name, _ in module.children()] == ["first", "rest.0", "rest.1"]
    assert module.named_parameters()["rest.0.gamma"] is module.rest[0].gamma
    module.rest = [Linear(1, 1, np.random.default_rng(0), bias=False) for _ in range(12)]
    assert list(module.named_parameters())[3:] == [f"rest.{i}.weight" for i in range(12)]


def test_state_is_a_copy_and_load_state_puts_it_back_into_the_same_arrays() -> None:
    one, other = Small(0), Small(1)
    state = one.state()
    assert list(state) == PARAMETERS + BUFFERS
    one(Tensor(np.random.default_rng(2).standard_normal((5, 2)).astype(np.float32)))  # moves the statistics
    for parameter in one.named_parameters().values():
        parameter.data += 1
    # An optimiser holds the tensors and changes their arrays in place: they must stay the same ones.
    arrays = [parameter.data for parameter in other.named_parameters().values()]
    other.load_state(state)
    assert all(p.data is a for p, a in zip(other.named_parameters().values(), arrays, strict=True))
    np.testing.assert_equal(other.state(), Small(0).state())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rest.0.beta": None}, "state: missing name 'rest.0.beta'"),
        ({"extra": np.zeros(1)}, "state: unknown name 'extra'"),
        ({"seen": np.zeros(4)}, r"state: 'seen' has shape \(4,\), expected \(3,\)"),
    ],
)
def test_a_wrong_state_is_refused_whole(change: dict[str, Any], message: str) -> None:
    module, state = Small(0), Small(1).state()
    before = module.state()
    state = {name: value for name, value in (state | change).items() if value is not None}
    with pytest.raises(ValueError, match=message):
        module.load_state(state)
    np.testing.assert_equal(module.state(), before)


def test_train_switches_everything_below() -> None:
    module = Small()
    below = [module, module.first, *module.rest]
    assert all(part.training for part in below)
    for training in (False, True):
        module.train(training)
        assert {part.training for part in below} == {training}


def test_astype_converts_everything_and_keeps_the_tensors() -> None:
    module = Small()
    parameters = module.named_parameters()
    module(Tensor(np.ones((2, 2), np.float32))).mean().backward()
    module.astype(np.float64)
    assert all(parameter.grad is None for parameter in parameters.values())
    assert all(parameters[name] is tensor for name, tensor in module.named_parameters().items())
    loss = module(Tensor(np.random.default_rng(1).standard_normal((5, 2)))).mean()
    loss.backward()
    assert {loss.dtype, *(value.dtype for value in module.state().values())} == {np.dtype(np.float64)}
