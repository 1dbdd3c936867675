"""The loss of the exits against its slow sums and numeric derivatives; and what each term does."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import oracles
from nachos_kernels.exits_loss import distillation_and_gradients
from nachos_min.autograd import Tensor, gradcheck, sigmoid
from nachos_min.eenn.losses import Budget, exits_loss
from nachos_min.eenn.network import ExitOutput

Floats = NDArray[np.floating[Any]]

NONE = {"alpha": 0.0, "beta": 0.0, "gamma": 0.0, "kappa": 0.0}
TERMS: dict[str, dict[str, Any]] = {
    "answers": NONE | {"alpha": 1.0},
    "confidence": NONE | {"kappa": 1.0},
    "cost": NONE | {"beta": 1.0},
    "peak": NONE | {"gamma": 1.0},
    "distillation": NONE | {"distillation": 1.5, "temperature": 2.0},
    "all": {"alpha": 0.7, "beta": 2.0, "gamma": 3.0, "kappa": 0.4, "distillation": 0.5, "temperature": 3.0},
}


@dataclass(frozen=True)
class Batch:
    """Everything one loss needs, as arrays; confidences by their logits, so that h stays inside (0, 1)."""

    logits: list[Floats]  # E times (N, C)
    confidence_logits: list[Floats]  # E-1 times (N,)
    labels: NDArray[np.int64]
    costs: tuple[int, ...]
    max_macs: float | None
    support: Floats | None

    @property
    def h(self) -> Floats:
        return 1 / (1 + np.exp(-np.stack(self.confidence_logits, axis=1)))

    def loss(self, logits: Sequence[Tensor], confidences: Sequence[Tensor], **weights: Any) -> Tensor:
        outputs = [ExitOutput(*pair) for pair in zip(logits, (*confidences, None), strict=True)]
        return exits_loss(outputs, self.labels, Budget(self.costs, self.max_macs), self.support, **weights)

    def value_and_gradients(self, dtype: type[np.floating[Any]] = np.float64, **weights: Any) -> list[Floats]:
        """The loss, its gradients in E logits, and those in E-1 confidences."""
        logits = [Tensor(z.astype(dtype), requires_grad=True) for z in self.logits]
        h = [Tensor(column.astype(dtype), requires_grad=True) for column in self.h.T]
        total = self.loss(logits, h, **weights)
        assert (total.dtype, total.shape) == (dtype, ())
        (total * 3.0).backward()
        return [total.data, *(x.grad / 3.0 for x in (*logits, *h) if x.grad is not None)]


def batch(samples: int = 7, exits: int = 3, classes: int = 4, seed: int = 0) -> Batch:
    """Random scores and confidences; the budget lies between the costs, and is exceeded."""
    rng = np.random.default_rng(seed)
    costs = tuple(int(cost) for cost in np.cumsum(rng.integers(10_000, 900_000, exits)))
    return Batch(
        logits=[rng.normal(0, 2, (samples, classes)) for _ in range(exits)],
        confidence_logits=[rng.normal(-1, 1, samples) for _ in range(exits - 1)],
        labels=rng.integers(0, classes, samples),
        costs=costs,
        max_macs=costs[0] + 0.1 * (costs[1] - costs[0]),
        support=rng.random((classes, exits - 1)),
    )


CASES = {
    "three exits": batch(),
    "two exits": batch(exits=2, seed=1),
    "five exits": batch(exits=5, seed=2),
    "one sample": batch(samples=1, seed=3),
    "one sample, two exits": batch(samples=1, exits=2, seed=4),
    "no budget": replace(batch(seed=5), max_macs=None),
    "budget above every cost": replace(batch(seed=6), max_macs=10**9),
    "budget at the largest cost": replace(batch(seed=6), max_macs=batch(seed=6).costs[-1]),
    "no support": replace(batch(seed=7), support=None),
    "exits always right": replace(batch(seed=8), logits=[np.eye(4)[batch(seed=8).labels] * 3.0] * 3),
    "exits always wrong": replace(batch(seed=9), logits=[np.eye(4)[batch(seed=9).labels] * -3.0] * 3),
    "clipped confidences": replace(batch(seed=10), confidence_logits=[np.full(7, 600.0), np.full(7, -600.0)]),
}


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("term", TERMS)
@pytest.mark.parametrize("name", CASES)
def test_every_term_is_its_slow_sum(name: str, term: str, fixed: bool) -> None:
    b, weights = CASES[name], TERMS[term] | ({"fixed": np.arange(1, len(CASES[name].costs) + 1)} if fixed else {})
    renamed = {{"temperature": "t"}.get(key, key): value for key, value in weights.items()}
    slow = oracles.exits_loss(b.logits, b.h, b.labels, b.costs, b.max_macs, b.support, **renamed)
    assert b.value_and_gradients(**weights)[0] == pytest.approx(slow, rel=1e-9, abs=1e-14)


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("name", CASES)
def test_gradient_is_the_numeric_derivative(name: str, fixed: bool) -> None:
    b, exits = CASES[name], len(CASES[name].costs)
    weights = TERMS["all"] | ({"fixed": np.arange(1.0, exits + 1)} if fixed else {})

    def teacher_held(*tensors: Tensor) -> Tensor:  # distillation takes the mean of all exits as a constant
        confidences = [sigmoid(tensor) for tensor in tensors[exits:]]
        return b.loss(tensors[:exits], confidences, **weights | {"distillation": 0.0})

    gradcheck(teacher_held, *b.logits, *b.confidence_logits, rng=np.random.default_rng(0))


@pytest.mark.parametrize("name", CASES)
def test_float32_agrees_with_float64(name: str) -> None:
    found = (CASES[name].value_and_gradients(dtype, **TERMS["all"]) for dtype in (np.float32, np.float64))
    for single, double in zip(*found, strict=True):
        np.testing.assert_allclose(single, double, rtol=2e-4, atol=2e-6)


def test_without_early_exits_it_is_cross_entropy() -> None:
    scores, labels = np.array([[1.0, 3.0], [0.0, 0.0]]), np.array([1, 0])
    loss = exits_loss([ExitOutput(Tensor(scores), None)], labels, Budget((5,), 1))
    assert loss.item() == pytest.approx((np.log1p(np.exp(-2)) + np.log(2)) / 2)


def test_distillation_adds_its_gradient_in_the_logits_alone() -> None:
    b = batch()
    _, *one = b.value_and_gradients(distillation=0.5, temperature=3.0)
    _, *other = b.value_and_gradients()
    _, gradient = distillation_and_gradients(np.array(b.logits), 3.0)
    expected = [*0.5 * gradient, *np.zeros((2, 7))]
    for with_it, without, difference in zip(one, other, expected, strict=True):
        np.testing.assert_allclose(with_it - without, difference, rtol=1e-9, atol=1e-15)


# The cost term


def cost_gradient(confidence_logits: list[float], costs: tuple[int, ...], max_macs: float) -> list[float]:
    """d L_cost / d confidence logit, for a batch of one."""
    tensors = [Tensor(np.array([value]), requires_grad=True) for value in confidence_logits]
    b = replace(batch(samples=1, exits=len(costs)), costs=costs, max_macs=max_macs, support=None)
    b.loss([Tensor(z) for z in b.logits], [sigmoid(tensor) for tensor in tensors], **TERMS["cost"]).backward()
    return [0.0 if tensor.grad is None else float(tensor.grad[0]) for tensor in tensors]


def test_cost_term_pulls_every_confidence_up_if_and_only_if_the_budget_is_exceeded() -> None:
    # All h = 0.5: q = (.5, .25, .25), M_hat = 150 > 120. Leaving earlier at either exit is cheaper.
    # dM_hat/dh_1 = 100 - (0.5 * 150 + 0.5 * 250) = -100; dh/dlogit = 0.25; divided by 250 - 120.
    costs, expected = (100, 150, 250), [-100 * 0.25 / 130, 0.5 * (150 - 250) * 0.25 / 130]
    assert cost_gradient([0.0, 0.0], costs, 120) == pytest.approx(expected)
    assert all(slope < 0 for slope in cost_gradient([0.0, 0.0], costs, 10))
    assert all(cost_gradient([0.0, 0.0], costs, limit) == [0.0, 0.0] for limit in (150, 151, 249))


def test_float32_resolves_one_mac_in_a_hundred_million() -> None:
    # q = (0, 1): M_hat = 100,000,001 is over the budget by 1 of cost_E - M_max = 1; as float32 both are 1e8.
    outputs = [ExitOutput(Tensor(np.zeros((1, 2), np.float32)), h) for h in (Tensor(np.zeros(1, np.float32)), None)]
    budget = Budget((1_000, 100_000_001), 100_000_000)
    assert exits_loss(outputs, np.array([0]), budget, **TERMS["cost"]).item() == 1.0


# The confidence and peak terms


def test_right_and_wrong_answers_have_the_same_total_weight() -> None:
    # One exit, three of four right. With h = 1/2 every BCE is log 2, so the mean weight shows: (2 + 2)/4.
    b = Batch([np.eye(2)[[0, 0, 0, 1]]] * 2, [np.zeros(4)], np.zeros(4, np.int64), (1, 2), None, None)
    loss, *toward, slope = b.value_and_gradients(**TERMS["confidence"])
    assert loss == pytest.approx(np.log(2))
    assert slope[:3].sum() == pytest.approx(-slope[3])
    assert not any(gradient.any() for gradient in toward), "the confidence term trains confidences, never answers"


def test_clipped_confidences_have_no_gradient_in_the_confidence_term() -> None:
    b = Batch([np.eye(2)[[0, 0]]] * 2, [np.log([1e-5, 0.25])], np.zeros(2, np.int64), (1, 2), None, None)
    clipped, free = b.value_and_gradients(**TERMS["confidence"])[-1]
    assert clipped == 0.0 > free


def test_peak_term_compares_each_exit_with_its_own_record() -> None:
    # h equals T exactly, exit by exit: the term is 0. Pulling each exit to a mean over exits would give > 0.
    support, labels = np.array([[0.2, 0.9], [0.4, 0.7]]), np.array([1, 0, 1])
    b = replace(batch(samples=3, classes=2), labels=labels, support=support)
    h = [Tensor(column, requires_grad=True) for column in support[labels].T]
    assert b.loss([Tensor(z) for z in b.logits], h, **TERMS["peak"]).item() == 0.0
    h[0].data = h[0].data + 0.1
    b.loss([Tensor(z) for z in b.logits], h, **TERMS["peak"]).backward()
    np.testing.assert_allclose([each.grad for each in h], [[2 * 0.1 / 6] * 3, [0.0] * 3], atol=1e-15)
