"""The loss that teaches exits what to answer, and when they may be believed.

With h_i in (0, 1) the confidence of early exit i and h_E = 1, a sample leaves at exit i with probability
q_i = h_i prod_{j<i} (1 - h_j). The loss has four terms, one function each:

    L = alpha L_cls + L_conf + beta L_cost + gamma L_peak

    L_cls   mean_n sum_i q_i CE(logits_i, y)                  answers, weighted by how often they are given
    L_conf  mean_{n, i<E} w_i BCE(h_i, is exit i right?)      confidence predicts correctness
    L_cost  max(0, M_hat - M_max) / (cost_E - M_max)          expected MACs M_hat stay within the budget
    L_peak  mean_{n, i<E} (h_i - T[y, i])^2                   confidence follows the exit's record by class

Read `autograd/tensor.py` before; `fused_loss.py` (the same in one step, which training uses), `training.py` and
`thresholds.py`, which turns confidences into a policy, after. Left out: how the support matrix T is measured
(`training.py`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nachos_min.autograd import Tensor, clip, cross_entropy, log, relu, stack

# h is kept this far from 0 and 1 in L_conf: one confident mistake then costs at most -log(1e-4) = 9.2, times
# its weight, and has no gradient beyond.
CLIP = 1e-4


@dataclass(frozen=True)
class ExitsLoss:
    """The loss of one batch: the tensor to differentiate, and its terms before weighting, to look at."""

    total: Tensor
    classification: float
    confidence: float
    cost: float
    peak: float


def exits_loss(
    logits: Sequence[Tensor],
    confidences: Sequence[Tensor],
    labels: NDArray[np.integer[Any]],
    *,
    costs: Sequence[int],
    max_macs: float | None,
    support: NDArray[np.floating[Any]] | None,
    alpha: float = 1.0,
    beta: float = 1.0,
    gamma: float = 1.0,
) -> ExitsLoss:
    """Return L = alpha L_cls + L_conf + beta L_cost + gamma L_peak of one batch, with its four terms.

    Args:
        logits: E tensors (N, C), scores of every exit.
        confidences: E-1 tensors (N,), h in (0, 1) of the early exits.
        labels: integers (N,), the right classes, 0 <= label < C.
        costs: E integers, MACs of a sample that leaves at exit i.
        max_macs: budget for the average MACs; None: no limit, L_cost = 0.
        support: T (C, E-1) in [0, 1], accuracy of each early exit on each class; None: L_peak = 0.
        alpha: weight of the classification term.
        beta: weight of the cost term.
        gamma: weight of the peak term.

    Returns:
        `total` is a scalar tensor of the inputs' dtype.

    Raises:
        ValueError: if there is no early exit, or `confidences`, `costs` or `support` do not fit the E exits.

    Source: NACHOS, arXiv 2401.13330, the loss of the exits; unlike the released code's, L_cost has a
    gradient and L_peak compares each exit with its own record.
    """
    check_exits(logits, confidences, costs, support)
    h = stack(confidences, axis=1)
    q = stack(exit_probabilities(confidences), axis=1)

    classification = classification_loss(q, logits, labels)
    confidence = confidence_loss(h, logits, labels)
    total = alpha * classification + confidence

    cost = cost_loss(q, costs, max_macs)
    if cost is not None:
        total = total + beta * cost
    peak = None if support is None else peak_loss(h, labels, support)
    if peak is not None:
        total = total + gamma * peak
    return ExitsLoss(
        total=total,
        classification=classification.item(),
        confidence=confidence.item(),
        cost=0.0 if cost is None else cost.item(),
        peak=0.0 if peak is None else peak.item(),
    )


def exit_probabilities(confidences: Sequence[Tensor]) -> list[Tensor]:
    """Return q_1 .. q_E, each (N,): the probabilities of leaving at each exit, which sum to 1.

    q_i = h_i prod_{j<i} (1 - h_j), with h_E = 1: the last exit takes what the early ones left.

    Args:
        confidences: h_1 .. h_{E-1}, at least one tensor (N,) in (0, 1).

    Source: Pomponi, Scardapane and Uncini, "A probabilistic re-interpretation of confidence scores in
    multi-exit models", Entropy 24(1), 2022.

    >>> half, quarter = Tensor([0.5]), Tensor([0.25])
    >>> [q.item() for q in exit_probabilities([half, quarter])]
    [0.5, 0.125, 0.375]
    """
    first, *others = confidences
    probabilities, remaining = [first], 1.0 - first
    for h in others:
        probabilities.append(h * remaining)
        remaining = remaining * (1.0 - h)
    return [*probabilities, remaining]


def classification_loss(q: Tensor, logits: Sequence[Tensor], labels: NDArray[np.integer[Any]]) -> Tensor:
    """Return L_cls = mean_n sum_i q[n, i] CE(logits_i[n], y_n), a scalar; it trains answers and confidences.

    Args:
        q: (N, E), probabilities of leaving at each exit.
        logits: E tensors (N, C).
        labels: integers (N,).
    """
    losses = stack([cross_entropy(scores, labels) for scores in logits], axis=1)
    return (q * losses).sum(axis=1).mean()


def confidence_loss(h: Tensor, logits: Sequence[Tensor], labels: NDArray[np.integer[Any]]) -> Tensor:
    """Return L_conf = mean_{n, i<E} w[n, i] BCE(h[n, i], t[n, i]), a scalar, h clipped to CLIP .. 1 - CLIP.

    The target t[n, i] is 1 where exit i is right, else 0: a constant, as are the weights w[n, i] = N / (2 *
    number of samples with the same target at exit i). They give the right and the wrong answers of an exit
    the same total weight, so that a good exit does not learn to be sure of everything.

    Args:
        h: (N, E-1), confidences of the early exits.
        logits: E tensors (N, C); the last is not used.
        labels: integers (N,).
    """
    right = np.stack([scores.data.argmax(axis=1) == labels for scores in logits[:-1]], axis=1)
    samples = len(right)
    rights = right.sum(axis=0)
    # max(.., 1): a count of 0 belongs to a weight that no sample takes
    weight: NDArray[np.float64] = np.where(
        right, samples / (2 * np.maximum(rights, 1)), samples / (2 * np.maximum(samples - rights, 1))
    )
    # BCE(h, t) = -log(probability that h gave to what happened): h where t = 1, 1 - h where t = 0
    clipped = clip(h, CLIP, 1.0 - CLIP)
    given = clipped * np.where(right, 1.0, -1.0) + np.where(right, 0.0, 1.0)
    return -(log(given) * weight).mean()


def cost_loss(q: Tensor, costs: Sequence[int], max_macs: float | None) -> Tensor | None:
    """Return L_cost = max(0, M_hat - M_max) / (cost_E - M_max), a scalar.

    M_hat = mean_n sum_i q[n, i] cost_i is what the batch is expected to cost per sample.
    None if no budget can be exceeded: `max_macs` is None or at least the dearest cost. Computed as
    max(0, mean_n sum_i q[n, i] s_i) with s_i = (cost_i - M_max) / (cost_E - M_max) <= 1. This is the same,
    since sum_i q_i = 1, but float32 need not hold counts of millions whose difference is what matters.

    Args:
        q: (N, E), probabilities of leaving at each exit; the gradient reaches every h through them.
        costs: E integers, MACs of a sample that leaves at exit i.
        max_macs: budget for the average MACs.
    """
    if max_macs is None or costs[-1] <= max_macs:
        return None
    shares = np.array([(cost - max_macs) / (costs[-1] - max_macs) for cost in costs])
    return relu((q * shares).sum(axis=1).mean())


def peak_loss(h: Tensor, labels: NDArray[np.integer[Any]], support: NDArray[np.floating[Any]]) -> Tensor:
    """Return L_peak = mean_{n, i<E} (h[n, i] - T[y_n, i])^2, a scalar: each exit against its record.

    Args:
        h: (N, E-1), confidences of the early exits.
        labels: integers (N,).
        support: T (C, E-1), accuracy of each early exit on each class; a constant.
    """
    target: NDArray[np.floating[Any]] = support[labels]
    return ((h - target) ** 2.0).mean()


def check_exits(
    logits: Sequence[Tensor],
    confidences: Sequence[Tensor],
    costs: Sequence[int],
    support: NDArray[np.floating[Any]] | None,
) -> None:
    """Check that what the loss is given belongs to the same E exits; arguments as in `exits_loss`.

    Raises:
        ValueError: if there is no early exit, or `confidences`, `costs` or `support` do not fit the E exits.
    """
    exits = len(logits)
    if exits < 2:
        raise ValueError(f"logits must have one entry for each of E >= 2 exits, got {exits}")
    if len(confidences) != exits - 1:
        raise ValueError(
            f"confidences must have one entry for each of {exits - 1} early exits, got {len(confidences)}"
        )
    if len(costs) != exits:
        raise ValueError(f"costs must have one entry for each of {exits} exits, got {len(costs)}")
    expected = (logits[0].shape[1], exits - 1)
    if support is not None and support.shape != expected:
        raise ValueError(f"support must have shape (classes, early exits) = {expected}, got {support.shape}")
