"""The loss of the exits, held against a plain NumPy transcription, finite differences and PyTorch."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nachos_min.autograd import Tensor, gradcheck, sigmoid, stack
from nachos_min.eenn.confidence import cumulative_confidence
from nachos_min.eenn.fused_loss import fused_exits_loss
from nachos_min.eenn.losses import (
    ExitsLoss,
    confidence_loss,
    cost_loss,
    exit_probabilities,
    exits_loss,
    peak_loss,
)

Floats = NDArray[np.floating[Any]]


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


def loss_of(b: Batch, *, dtype: type[np.floating[Any]] = np.float64, **weights: float) -> ExitsLoss:
    return exits_loss(
        [Tensor(z.astype(dtype)) for z in b.logits],
        [sigmoid(Tensor(a.astype(dtype))) for a in b.confidence_logits],
        b.labels,
        costs=b.costs,
        max_macs=b.max_macs,
        support=b.support,
        **weights,
    )


# The slow transcription: one loop per sum of the formulas in the module's docstring.


def slow_terms(b: Batch) -> dict[str, float]:
    n_samples, exits, h = len(b.labels), len(b.costs), b.h
    classification = confidence = expected = peak = 0.0
    for n, y in enumerate(b.labels):
        staying = 1.0
        for i in range(exits):
            z = b.logits[i][n]
            leaving = h[n, i] if i < exits - 1 else 1.0
            q, staying = staying * leaving, staying * (1.0 - leaving)
            classification += q * (math.log(sum(math.exp(s) for s in z)) - z[y]) / n_samples
            expected += q * b.costs[i] / n_samples
    for i in range(exits - 1):
        targets = [int(np.argmax(b.logits[i][n]) == y) for n, y in enumerate(b.labels)]
        ones, zeros = sum(targets), n_samples - sum(targets)
        for n, t in enumerate(targets):
            p = min(max(h[n, i], 1e-4), 1 - 1e-4)
            bce = -(t * math.log(p) + (1 - t) * math.log(1 - p))
            confidence += n_samples / (2 * (ones if t else zeros)) * bce / (n_samples * (exits - 1))
            if b.support is not None:
                peak += (h[n, i] - b.support[b.labels[n], i]) ** 2 / (n_samples * (exits - 1))
    cost = 0.0
    if b.max_macs is not None and b.costs[-1] > b.max_macs:
        cost = max(0.0, expected - b.max_macs) / (b.costs[-1] - b.max_macs)
    return {"classification": classification, "confidence": confidence, "cost": cost, "peak": peak}


CASES = {
    "three exits": batch(),
    "two exits": batch(exits=2, seed=1),
    "five exits": batch(exits=5, seed=2),
    "one sample": batch(samples=1, seed=3),
    "one sample, two exits": batch(samples=1, exits=2, seed=4),
    "no budget": replace(batch(seed=5), max_macs=None),
    "budget above every cost": replace(batch(seed=6), max_macs=10**9),
    "budget at the dearest cost": replace(batch(seed=6), max_macs=batch(seed=6).costs[-1]),
    "no support": replace(batch(seed=7), support=None),
    "exits always right": replace(batch(seed=8), logits=[np.eye(4)[batch(seed=8).labels] * 3.0] * 3),
    "exits always wrong": replace(batch(seed=9), logits=[np.eye(4)[batch(seed=9).labels] * -3.0] * 3),
    "clipped confidences": replace(batch(seed=10), confidence_logits=[np.full(7, 20.0), np.full(7, -20.0)]),
}


@pytest.mark.parametrize("name", CASES)
def test_every_term_is_the_slow_transcription(name: str) -> None:
    b = CASES[name]
    loss, slow = loss_of(b, alpha=0.7, beta=2.0, gamma=3.0), slow_terms(b)
    for term, value in slow.items():
        assert getattr(loss, term) == pytest.approx(value, rel=1e-9, abs=1e-15), term
    total = 0.7 * slow["classification"] + slow["confidence"] + 2.0 * slow["cost"] + 3.0 * slow["peak"]
    assert loss.total.item() == pytest.approx(total, rel=1e-9)
    assert loss.total.shape == ()


@pytest.mark.parametrize("name", CASES)
def test_float32_stays_float32_and_agrees(name: str) -> None:
    loss, slow = loss_of(CASES[name], dtype=np.float32), slow_terms(CASES[name])
    assert loss.total.dtype == np.float32
    for term, value in slow.items():
        assert getattr(loss, term) == pytest.approx(value, rel=2e-4, abs=1e-6), term


def whole_loss(b: Batch) -> Callable[..., Tensor]:
    """The loss as a function of all its tensors: E score tensors, then E-1 confidence logits."""
    exits = len(b.costs)

    def function(*tensors: Tensor) -> Tensor:
        confidences = [sigmoid(tensor) for tensor in tensors[exits:]]
        return exits_loss(
            tensors[:exits], confidences, b.labels, costs=b.costs, max_macs=b.max_macs, support=b.support
        ).total

    return function


@pytest.mark.parametrize("name", CASES)
def test_gradient_is_the_numeric_derivative(name: str) -> None:
    b = CASES[name]
    gradcheck(whole_loss(b), *b.logits, *b.confidence_logits, rng=np.random.default_rng(0))


@pytest.mark.parametrize("name", CASES)
def test_gradients_are_pytorchs(name: str) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is a peer, not a requirement")
    b = CASES[name]
    ours = [Tensor(array, requires_grad=True) for array in (*b.logits, *b.confidence_logits)]
    whole_loss(b)(*ours).backward()

    exits, labels = len(b.costs), torch.tensor(b.labels)
    theirs = [torch.tensor(array, requires_grad=True) for array in (*b.logits, *b.confidence_logits)]
    h = torch.sigmoid(torch.stack(theirs[exits:], dim=1))
    stays = torch.cumprod(torch.cat([torch.ones(len(labels), 1), 1 - h], dim=1), dim=1)
    q = stays * torch.cat([h, torch.ones(len(labels), 1)], dim=1)
    losses = torch.stack(
        [torch.nn.functional.cross_entropy(z, labels, reduction="none") for z in theirs[:exits]], dim=1
    )
    right = torch.stack([z.argmax(dim=1) == labels for z in theirs[: exits - 1]], dim=1).double()
    ones, zeros = right.sum(dim=0), (1 - right).sum(dim=0)
    weight = right * len(labels) / (2 * ones.clamp(min=1)) + (1 - right) * len(labels) / (2 * zeros.clamp(min=1))
    total = (q * losses).sum(dim=1).mean()
    total = total + torch.nn.functional.binary_cross_entropy(h.clamp(1e-4, 1 - 1e-4), right, weight)
    if b.max_macs is not None and b.costs[-1] > b.max_macs:
        expected = (q * torch.tensor(b.costs, dtype=torch.float64)).sum(dim=1).mean()
        total = total + torch.relu(expected - b.max_macs) / (b.costs[-1] - b.max_macs)
    if b.support is not None:
        total = total + ((h - torch.tensor(b.support)[labels]) ** 2).mean()
    total.backward()

    for our, their in zip(ours, theirs, strict=True):
        expected_gradient = np.zeros(our.shape) if their.grad is None else their.grad.numpy()
        assert our.grad is not None
        np.testing.assert_allclose(our.grad, expected_gradient, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("name", CASES)
def test_the_fused_loss_is_the_composed_one(name: str, dtype: type[np.floating[Any]]) -> None:
    b, weights = CASES[name], {"alpha": 0.7, "beta": 2.0, "gamma": 3.0}
    found = []
    for loss in (lambda *given, **named: exits_loss(*given, **named).total, fused_exits_loss):
        logits = [Tensor(z.astype(dtype), requires_grad=True) for z in b.logits]
        h = [Tensor(column.astype(dtype), requires_grad=True) for column in b.h.T]
        total = loss(logits, h, b.labels, costs=b.costs, max_macs=b.max_macs, support=b.support, **weights)
        assert total.dtype == dtype
        assert total.shape == ()
        (total * 3.0).backward()
        found.append([total.data, *(x.grad if x.grad is not None else np.zeros(x.shape) for x in (*logits, *h))])
    tolerance = {"rtol": 1e-9, "atol": 1e-12} if dtype is np.float64 else {"rtol": 2e-4, "atol": 2e-6}
    for composed, fused in zip(*found, strict=True):
        np.testing.assert_allclose(fused, composed, **tolerance)


def test_the_fused_loss_divides_by_nothing_where_a_sigmoid_was_rounded_to_one() -> None:
    logits = [Tensor(np.eye(3)[[0, 1]], requires_grad=True) for _ in range(3)]
    h = [Tensor(np.array([1.0, 0.0]), requires_grad=True) for _ in range(2)]
    labels = np.array([0, 2])
    fused_exits_loss(logits, h, labels, costs=(1, 2, 3), max_macs=1.5, support=None).backward()
    assert all(x.grad is not None and np.isfinite(x.grad).all() for x in (*logits, *h))


# The cost term


def cost_gradient(confidence_logits: list[float], costs: tuple[int, ...], max_macs: float) -> list[float]:
    """d L_cost / d confidence logit, for a batch of one."""
    tensors = [Tensor(np.array([value]), requires_grad=True) for value in confidence_logits]
    q = exit_probabilities([sigmoid(tensor) for tensor in tensors])
    loss = cost_loss(stack(q, axis=1), costs, max_macs)
    assert loss is not None
    loss.backward()
    return [0.0 if tensor.grad is None else float(tensor.grad[0]) for tensor in tensors]


def test_cost_term_pulls_every_confidence_up_when_the_budget_is_exceeded() -> None:
    # All h = 0.5: q = (.5, .25, .25), M_hat = 150 > 120. Leaving earlier at either exit is cheaper.
    gradient = cost_gradient([0.0, 0.0], (100, 150, 250), 120)
    assert all(slope < 0 for slope in gradient)
    # dM_hat/dh_1 = 100 - (0.5 * 150 + 0.5 * 250) = -100; dh/dlogit = 0.25; divided by 250 - 120.
    assert gradient[0] == pytest.approx(-100 * 0.25 / 130)
    assert gradient[1] == pytest.approx(0.5 * (150 - 250) * 0.25 / 130)


@pytest.mark.parametrize("max_macs", [150, 151, 249])
def test_cost_term_has_exactly_no_gradient_within_the_budget(max_macs: float) -> None:
    assert cost_gradient([0.0, 0.0], (100, 150, 250), max_macs) == [0.0, 0.0]


def test_cost_term_is_absent_where_no_budget_can_be_exceeded() -> None:
    q = Tensor(np.array([[0.5, 0.5]]))
    assert cost_loss(q, (100, 200), None) is None
    assert cost_loss(q, (100, 200), 200) is None


def test_a_budget_below_the_cheapest_exit_still_has_a_gradient() -> None:
    assert all(slope < 0 for slope in cost_gradient([0.0, 0.0], (100, 150, 250), 10))


def test_float32_resolves_one_mac_in_a_hundred_million() -> None:
    # q = (0, 1): M_hat = 100,000,001 is over the budget by 1 of cost_E - M_max = 1; as float32 both are 1e8.
    q = Tensor(np.array([[0.0, 1.0]], dtype=np.float32))
    loss = cost_loss(q, (1_000, 100_000_001), 100_000_000)
    assert loss is not None
    assert loss.item() == 1.0


def test_raising_beta_lowers_the_expected_macs() -> None:
    """Gradient descent on the confidence logits alone: the heavier the cost term, the cheaper the result."""
    b = batch(samples=40, exits=3, seed=11)
    expected = []
    for beta in (0.0, 1.0, 10.0):
        logits = [Tensor(z) for z in b.logits]
        tensors = [Tensor(np.zeros(40), requires_grad=True) for _ in range(2)]
        for _ in range(60):
            h = [sigmoid(tensor) for tensor in tensors]
            exits_loss(
                logits, h, b.labels, costs=b.costs, max_macs=b.max_macs, support=None, beta=beta
            ).total.backward()
            for tensor in tensors:
                assert tensor.grad is not None
                tensor.data -= 4.0 * tensor.grad
                tensor.grad = None
        q = np.stack([p.data for p in exit_probabilities([sigmoid(tensor) for tensor in tensors])], axis=1)
        expected.append(float((q * np.array(b.costs)).sum(axis=1).mean()))
    assert expected[0] > expected[1] > expected[2]


# The confidence and peak terms


def test_right_and_wrong_answers_have_the_same_total_weight() -> None:
    # One exit, three of four right. With h = 1/2 every BCE is log 2, so the mean weight shows: (2 + 2)/4.
    logits = Tensor(np.eye(2)[[0, 0, 0, 1]])
    labels = np.zeros(4, dtype=np.int64)
    h = Tensor(np.full((4, 1), 0.5), requires_grad=True)
    loss = confidence_loss(h, [logits, logits], labels)
    assert loss.item() == pytest.approx(math.log(2))
    loss.backward()
    assert h.grad is not None
    assert h.grad[:3].sum() == pytest.approx(-h.grad[3, 0])


def test_targets_are_constants() -> None:
    """The confidence term trains confidences, never answers."""
    logits = [Tensor(z, requires_grad=True) for z in batch().logits]
    confidence_loss(Tensor(batch().h, requires_grad=True), logits, batch().labels).backward()
    assert all(z.grad is None for z in logits)


def test_clipped_confidences_have_no_gradient_in_the_confidence_term() -> None:
    logits = Tensor(np.eye(2)[[0, 0]])
    h = Tensor(np.array([[1e-5], [0.2]]), requires_grad=True)
    confidence_loss(h, [logits, logits], np.zeros(2, dtype=np.int64)).backward()
    assert h.grad is not None
    assert h.grad[0, 0] == 0.0
    assert h.grad[1, 0] < 0.0


def test_peak_term_compares_each_exit_with_its_own_record() -> None:
    # h equals T exactly, exit by exit: the term is 0. Pulling each exit to a mean over exits would give > 0.
    support = np.array([[0.2, 0.9], [0.4, 0.7]])
    labels = np.array([1, 0, 1])
    assert peak_loss(Tensor(support[labels]), labels, support).item() == 0.0
    h = Tensor(support[labels] + np.array([[0.1, 0.0]]), requires_grad=True)
    peak_loss(h, labels, support).backward()
    assert h.grad is not None
    np.testing.assert_allclose(h.grad, [[2 * 0.1 / 6, 0.0]] * 3, atol=1e-15)


# Probabilities


@pytest.mark.parametrize("exits", [2, 3, 5])
def test_exit_probabilities_sum_to_one(exits: int) -> None:
    rng = np.random.default_rng(exits)
    h = rng.random((50, exits - 1))
    q = np.stack([p.data for p in exit_probabilities([Tensor(column) for column in h.T])], axis=1)
    assert q.shape == (50, exits)
    assert (q >= 0).all()
    np.testing.assert_allclose(q.sum(axis=1), 1.0, rtol=1e-14)
    np.testing.assert_allclose(np.cumsum(q, axis=1), cumulative_confidence(h), rtol=1e-13)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("exits", [1, 2, 5])
def test_cumulative_confidence_never_falls_and_ends_at_one(exits: int, dtype: type[np.floating[Any]]) -> None:
    h = np.random.default_rng(0).random((200, exits - 1)).astype(dtype)
    h[:3] = [[0.0], [1.0], [1e-30]]  # sigmoid's ends, after rounding
    c = cumulative_confidence(h)
    assert c.dtype == np.float64
    assert c.shape == (200, exits)
    assert (np.diff(c, axis=1) >= 0).all()
    assert (c[:, -1] == 1.0).all()
    assert ((c >= 0.0) & (c <= 1.0)).all()


# Errors


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda b: replace(b, logits=b.logits[:1]),
            "logits must have one entry for each of E >= 2 exits, got 1",
        ),
        (
            lambda b: replace(b, confidence_logits=b.confidence_logits[:1]),
            "confidences must have one entry for each of 2 early exits, got 1",
        ),
        (lambda b: replace(b, costs=b.costs[:2]), "costs must have one entry for each of 3 exits, got 2"),
        (
            lambda b: replace(b, support=b.support.T),
            r"support must have shape \(classes, early exits\) = \(4, 2\), got \(2, 4\)",
        ),
    ],
)
def test_arguments_that_do_not_fit_are_refused(change: Callable[[Batch], Batch], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        loss_of(change(batch()))
